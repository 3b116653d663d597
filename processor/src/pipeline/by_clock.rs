//! What is decided by the clock about one partition: when it is idle, when triggers by processing time tick. Pure: the
//! shells (the local run, the executor) hand in the clock and the facts, and write what is decided with its effects.
//! Must not read a clock.

use streamagg_crds::resolved::{Repeat, Resolved, Window};

use super::position::{Decision, DecisionKind, TaskPosition};
use super::stage::Stage;
use crate::watermark::idle::{self, Facts, Rule};

/// What a task decides by the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockRules {
    idle: Option<Rule>,
    /// `event.maxFutureSkew` is given: a step needs the clock.
    guards_future: bool,
    /// The shortest trigger by processing time.
    tick_every_ms: Option<i64>,
}

impl ClockRules {
    /// The rules of a job for a task of a stage. Windows tick where they are; all else is decided where events come in.
    pub fn new(job: &Resolved, stage: Stage) -> Self {
        let (takes_events, has_windows) = (stage != Stage::Window, stage != Stage::Combine);
        let idle = job.idle.map(|idle| Rule {
            idle,
            bound_ms: job.watermark.bound_ms(),
            meets_others: stage == Stage::Combine,
        });
        Self {
            idle: idle.filter(|_| takes_events),
            guards_future: takes_events && job.max_future_skew_ms.is_some(),
            tick_every_ms: shortest_tick(&job.windows).filter(|_| has_windows),
        }
    }

    /// Whether the clock matters at all.
    pub fn any(&self) -> bool {
        self.idle.is_some() || self.guards_future || self.tick_every_ms.is_some()
    }
}

/// What is known of one partition. Times are ms since the epoch, by one clock.
#[derive(Clone, Copy, Debug)]
pub struct PartitionClock {
    rules: ClockRules,
    last_arrival_ms: i64,
    watermark_then_ms: i64,
    looked_ms: i64,
}

impl PartitionClock {
    /// A task begins, or goes on, at this watermark: as if its last record had come just now.
    pub fn new(rules: ClockRules, now_ms: i64, watermark_ms: i64) -> Self {
        Self {
            rules,
            last_arrival_ms: now_ms,
            watermark_then_ms: watermark_ms,
            looked_ms: now_ms,
        }
    }

    /// Records came, and left the watermark here.
    pub fn arrived(&mut self, now_ms: i64, watermark_ms: i64) {
        self.last_arrival_ms = now_ms;
        self.watermark_then_ms = watermark_ms;
    }

    /// The decision about a partition of which everything was consumed up to its end; its task stands at `position`, and
    /// something is due at `next_due_ms`.
    pub fn idle(&self, now_ms: i64, position: TaskPosition, next_due_ms: i64) -> Option<Decision> {
        let facts = Facts {
            now_ms,
            at_end: true,
            last_arrival_ms: self.last_arrival_ms,
            watermark_then_ms: self.watermark_then_ms,
            watermark_ms: position.watermark_ms,
            next_due_ms,
        };
        idle::decide(self.rules.idle.as_ref()?, &facts).map(|kind| Decision {
            input_offset: position.input_offset,
            kind,
        })
    }

    /// The tick that is due, if it fires anything. Looked for once in the shortest `every`.
    pub fn tick(&mut self, now_ms: i64, position: TaskPosition, fires: impl FnOnce(i64) -> bool) -> Option<Decision> {
        let every_ms = self.rules.tick_every_ms?;
        if now_ms.saturating_sub(self.looked_ms) < every_ms {
            return None;
        }
        self.looked_ms = now_ms;
        fires(now_ms).then_some(Decision {
            input_offset: position.input_offset,
            kind: DecisionKind::Tick { now_ms },
        })
    }
}

fn shortest_tick(windows: &[Window]) -> Option<i64> {
    let repeats = windows
        .iter()
        .flat_map(|window| window.trigger.early.into_iter().chain([window.trigger.late]));
    let spans = repeats.filter_map(|repeat| match repeat {
        Repeat::TimeMs(every_ms) => Some(every_ms),
        Repeat::Events(_) => None,
    });
    spans.min()
}
