//! How long things take: events on their way to results, and the stages of a task's loop.
//! Must not hold: clocks.

use std::time::Duration;

use prometheus::{CounterVec, Histogram, HistogramVec};

use super::Maker;
use super::weighted::Weighted;
use crate::pipeline::arrivals::{Arrivals, Times};

/// Upper bounds of latencies, seconds. Fine around the aims (p99 of 60 ms and 100 ms), wide enough for a backlog.
const LATENCY_SECONDS: [f64; 24] = [
    0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0,
    60.0, 300.0, 1_800.0, 7_200.0,
];

/// A part of a task's loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Taking a batch from the client, waiting for its first record included. Not counted without a record.
    Poll,
    /// Windows and aggregates over a batch.
    Step,
    /// Handing an epoch's records to the client.
    Produce,
    /// From there to the end of the transaction.
    Commit,
    /// Writing local state.
    Save,
}

impl Stage {
    const ALL: [Self; 5] = [Self::Poll, Self::Step, Self::Produce, Self::Commit, Self::Save];

    fn as_str(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Step => "step",
            Self::Produce => "produce",
            Self::Commit => "commit",
            Self::Save => "save",
        }
    }
}

/// The stages of one task, found once: the loop turns too often to look them up.
#[derive(Clone)]
pub struct Stages([Histogram; Stage::ALL.len()]);

impl Stages {
    /// A stage took so long.
    pub fn took(&self, stage: Stage, took: Duration) {
        self.0[stage as usize].observe(took.as_secs_f64());
    }
}

/// What holds a task back.
#[derive(Clone, Copy, Debug)]
pub enum HeldBack {
    /// `source.kafka.maxRecordsPerSecond`.
    Rate,
    /// `event.maxDrift`.
    Drift,
}

impl HeldBack {
    fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Drift => "drift",
        }
    }
}

pub(super) struct Latency {
    stages: HistogramVec,
    records: Weighted,
    causes: Weighted,
    windows: Weighted,
    held_back: CounterVec,
}

impl Latency {
    pub fn new(make: &Maker<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            stages: make.histogram("stage_seconds", "Time of a stage of a task's loop.", &["task", "stage"])?,
            records: make.weighted(
                "record_commit_seconds",
                "From the append of a record to the commit of the epoch that carries it.",
                &LATENCY_SECONDS,
            )?,
            causes: make.weighted(
                "end_to_end_seconds",
                "From the append of the record that put something out to the commit that makes it readable.",
                &LATENCY_SECONDS,
            )?,
            windows: make.weighted(
                "window_result_seconds",
                "From the end of a window to the commit of its result.",
                &LATENCY_SECONDS,
            )?,
            held_back: make.seconds_total(
                "held_back_seconds_total",
                "Time that a task read nothing: by source.kafka.maxRecordsPerSecond (rate) or event.maxDrift (drift).",
                &["task", "by"],
            )?,
        })
    }

    pub fn stages(&self, task: u32) -> Stages {
        let task = task.to_string();
        Stages(Stage::ALL.map(|stage| self.stages.with_label_values(&[task.as_str(), stage.as_str()])))
    }

    pub fn held_back(&self, task: u32, by: HeldBack, pause: Duration) {
        let counter = self.held_back.with_label_values(&[&task.to_string(), by.as_str()]);
        counter.inc_by(pause.as_secs_f64());
    }

    pub fn committed(&self, task: u32, now_ms: i64, arrivals: &Arrivals) {
        let since = |times: &Times| -> Vec<(f64, u64)> {
            let seconds = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or(0)).as_secs_f64();
            times
                .iter()
                .map(|(time_ms, count)| (seconds(now_ms.saturating_sub(time_ms)), count))
                .collect()
        };
        for (histogram, times) in [
            (&self.records, &arrivals.records),
            (&self.causes, &arrivals.causes),
            (&self.windows, &arrivals.windows),
        ] {
            histogram.observe(task, since(times).into_iter());
        }
    }
}
