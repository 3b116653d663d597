//! The spans of an epoch: from its first record to its saved state, inside it its transaction and the writing of local
//! state; linked to the traces of the records that put something out. Must not hold: where spans go (`spans`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::End;
use crate::core::trace_context::TraceContext;
use crate::pipeline::sink::EpochBuffer;
use crate::spans::Spans;
use crate::spans::otlp::{Attribute, Span};

/// Traces that an epoch is linked to at most.
const LINKS_MAX: usize = 32;

/// What is said of an epoch.
pub(super) struct EpochFacts<'a> {
    pub task: u32,
    pub epoch: u64,
    pub records: u64,
    pub outputs: &'a EpochBuffer,
}

/// The spans of an epoch that is being closed. Nothing, where none are wanted or this epoch is not one of the share.
pub(super) struct EpochTrace<'a>(Option<Traced<'a>>);

struct Traced<'a> {
    spans: &'a Spans,
    whole: Span,
    parts: Vec<Span>,
    part_began: SystemTime,
}

impl<'a> EpochTrace<'a> {
    /// Of an epoch that was opened then and is closed from now on.
    pub fn begin(spans: Option<&'a Spans>, opened: Option<SystemTime>) -> Self {
        let traced = |(spans, trace_id): (&'a Spans, u128)| {
            let now = SystemTime::now();
            Traced {
                spans,
                whole: span("epoch", trace_id, None, opened.unwrap_or(now)),
                parts: Vec::new(),
                part_began: now,
            }
        };
        Self(spans.and_then(|spans| Some((spans, spans.sampled()?))).map(traced))
    }

    /// A part of the closing ended; it began with the end of the part before.
    pub fn part(&mut self, name: &'static str) {
        if let Some(traced) = &mut self.0 {
            let whole = &traced.whole;
            let mut part = span(name, whole.trace_id, Some(whole.span_id), traced.part_began);
            traced.part_began = SystemTime::now();
            part.end_ns = ns(traced.part_began);
            traced.parts.push(part);
        }
    }

    /// The epoch is closed, or was given up with `error`.
    pub fn end(self, facts: &EpochFacts<'_>, error: Option<&End>) {
        let Some(Traced {
            spans,
            mut whole,
            mut parts,
            ..
        }) = self.0
        else {
            return;
        };
        let number = |number: u64| Attribute::Whole(i64::try_from(number).unwrap_or(i64::MAX));
        whole.end_ns = ns(SystemTime::now());
        whole.attributes = vec![
            ("streamagg.task", number(facts.task.into())),
            ("streamagg.epoch", number(facts.epoch)),
            ("streamagg.records", number(facts.records)),
            ("streamagg.outputs", number(facts.outputs.len() as u64)),
        ];
        whole.links = links(facts.outputs.traces());
        whole.error = error.map(|end| format!("{end:?}"));
        parts.push(whole);
        spans.send(parts);
    }
}

/// Each trace once, in the order of their results.
fn links(traces: impl Iterator<Item = TraceContext>) -> Vec<TraceContext> {
    let mut links: Vec<TraceContext> = Vec::new();
    for trace in traces {
        if links.len() == LINKS_MAX {
            break;
        }
        if !links.iter().any(|known| known.trace_id == trace.trace_id) {
            links.push(trace);
        }
    }
    links
}

fn span(name: &'static str, trace_id: u128, parent_id: Option<u64>, start: SystemTime) -> Span {
    Span {
        trace_id,
        span_id: Spans::new_id(),
        parent_id,
        name,
        start_ns: ns(start),
        end_ns: 0,
        attributes: Vec::new(),
        links: Vec::new(),
        error: None,
    }
}

fn ns(time: SystemTime) -> u64 {
    let since: Duration = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
