//! What can be wrong with a pipeline: the step, and what would be right. Must not check anything.

use std::fmt;

use crate::state::backend;

/// A step of the fluent builder.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// The manifest that the pipeline was taken from.
    Manifest,
    /// [`super::Stream::event_time`] or [`super::Stream::record_time`].
    EventTime,
    /// [`super::Stream::watermark`].
    Watermark,
    /// [`super::Stream::max_future_skew`].
    MaxFutureSkew,
    /// [`super::Stream::strict_json`].
    StrictJson,
    /// [`super::Stream::max_bad_ratio`].
    MaxBadRatio,
    /// [`super::Stream::filter`], the n-th closure from 1.
    Filter(usize),
    /// [`super::Stream::map`], the n-th closure from 1.
    Map(usize),
    /// [`super::Stream::flat_map`], the n-th closure from 1.
    FlatMap(usize),
    /// [`super::Stream::explode`].
    Explode,
    /// [`super::Stream::derive`], by name.
    Derive(String),
    /// [`super::Stream::condition`].
    Condition,
    /// [`super::Stream::key_by`], by name.
    KeyBy(String),
    /// [`super::Stream::window`], by name; none is named when there is none.
    Window(Option<String>),
    /// [`super::Stream::aggregate`], by name; none is named when there is none.
    Aggregate(Option<String>),
    /// [`super::Stream::sink`].
    Sink,
    /// [`super::Stream::late_events`].
    LateEvents,
    /// [`super::Stream::dead_letters`].
    DeadLetters,
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest => out.write_str("manifest"),
            Self::EventTime => out.write_str("event_time"),
            Self::Watermark => out.write_str("watermark"),
            Self::MaxFutureSkew => out.write_str("max_future_skew"),
            Self::StrictJson => out.write_str("strict_json"),
            Self::MaxBadRatio => out.write_str("max_bad_ratio"),
            Self::Filter(place) => write!(out, "filter (closure {place})"),
            Self::Map(place) => write!(out, "map (closure {place})"),
            Self::FlatMap(place) => write!(out, "flat_map (closure {place})"),
            Self::Explode => out.write_str("explode"),
            Self::Derive(name) => write!(out, "derive {name:?}"),
            Self::Condition => out.write_str("condition"),
            Self::KeyBy(name) => write!(out, "key_by {name:?}"),
            Self::Window(Some(name)) => write!(out, "window {name:?}"),
            Self::Window(None) => out.write_str("window"),
            Self::Aggregate(Some(name)) => write!(out, "aggregate {name:?}"),
            Self::Aggregate(None) => out.write_str("aggregate"),
            Self::Sink => out.write_str("sink"),
            Self::LateEvents => out.write_str("late_events"),
            Self::DeadLetters => out.write_str("dead_letters"),
        }
    }
}

/// What is wrong with a step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// The pipeline cannot be without it.
    #[error("is missing; a pipeline needs one")]
    Missing,
    /// It stands there twice and can stand there once.
    #[error("stands there twice; keep one")]
    Repeated,
    /// It stands behind a step that uses what it makes.
    #[error("stands behind {behind}; put it before")]
    Misplaced {
        /// The step that it must stand before.
        behind: Step,
    },
    /// A rule of the manifest refuses it.
    #[error("{}{}{message}", within, if within.is_empty() { "" } else { ": " })]
    Refused {
        /// Where in the step, in the manifest's words, such as `tumbling.size`; empty for all of it.
        within: String,
        /// What was found and what would be right.
        message: String,
    },
}

/// One thing wrong with a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{step}: {misuse}")]
pub struct BuildError {
    /// The step.
    pub step: Step,
    /// What is wrong with it.
    pub misuse: Misuse,
}

/// Everything wrong with a pipeline; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildErrors(pub Vec<BuildError>);

impl fmt::Display for BuildErrors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(out, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for BuildErrors {}

/// What a closure answers that could not take an output.
pub type SinkError = Box<dyn std::error::Error + Send + Sync>;

/// Why a run ended early. It cannot go on: restore one from the state that was saved last.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A closure of `sink`, `late_events` or `dead_letters` failed.
    #[error("{step} failed: {source}")]
    Sink {
        /// Which.
        step: Step,
        /// What it answered.
        source: SinkError,
    },
    /// `max_bad_ratio` was exceeded; what came before was handed out.
    #[error("{bad} of the last {seen} records are no usable events, more than max_bad_ratio allows")]
    TooManyBadRecords {
        /// Dead letters among the last `seen` records.
        bad: u64,
        /// Records looked at.
        seen: u64,
    },
    /// The state could not be read.
    #[error(transparent)]
    State(#[from] backend::Error),
}
