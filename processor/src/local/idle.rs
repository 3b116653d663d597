//! The clock of a local run: what it says to the tasks, and when partitions are idle. The one place of a run, beside
//! progress and the live generator, that looks at a clock. Must not decide anything itself (`watermark::idle` does).

use std::time::SystemTime;

use streamagg_crds::resolved::{Repeat, Resolved, Window};
use streamagg_processor::pipeline::operator::{StepStatus, Task};
use streamagg_processor::pipeline::output::{Outputs, Record};
use streamagg_processor::pipeline::position::{Decision, DecisionKind};
use streamagg_processor::watermark::idle::{self, Facts, Rule};

/// What is known of one partition.
#[derive(Clone, Copy, Debug)]
struct Seen {
    last_arrival_ms: i64,
    watermark_ms: i64,
}

/// The clock, and what it is needed for.
#[derive(Debug)]
pub(super) struct Clock {
    rule: Option<Rule>,
    guards_future: bool,
    /// The shortest trigger by processing time, and when the last tick was.
    tick_every_ms: Option<i64>,
    ticked_ms: i64,
    seen: Vec<Seen>,
}

impl Clock {
    pub(super) fn new(job: &Resolved, tasks: &[Task]) -> Self {
        let now_ms = now_ms();
        Self {
            rule: job.idle.map(|idle| Rule {
                idle,
                bound_ms: job.watermark.bound_ms(),
            }),
            guards_future: job.max_future_skew_ms.is_some(),
            tick_every_ms: shortest_tick(&job.windows),
            ticked_ms: now_ms,
            seen: tasks
                .iter()
                .map(|task| Seen {
                    last_arrival_ms: now_ms,
                    watermark_ms: task.position().watermark_ms,
                })
                .collect(),
        }
    }

    /// One step of the task of a partition, with the time at which its records came.
    pub(super) fn step(
        &mut self,
        partition: usize,
        task: &mut Task,
        records: &[Record<'_>],
        outputs: &mut Outputs,
    ) -> StepStatus {
        if records.is_empty() || (self.rule.is_none() && !self.guards_future) {
            return task.step(records, outputs);
        }
        let now_ms = now_ms();
        task.set_clock(Some(now_ms));
        let status = task.step(records, outputs);
        self.seen[partition] = Seen {
            last_arrival_ms: now_ms,
            watermark_ms: task.position().watermark_ms,
        };
        status
    }

    /// Whether triggers by processing time are due to be looked at; what counts is the engine's to say.
    pub(super) fn tick(&mut self) -> Option<DecisionKind> {
        let every_ms = self.tick_every_ms?;
        let now_ms = now_ms();
        if now_ms.saturating_sub(self.ticked_ms) < every_ms {
            return None;
        }
        self.ticked_ms = now_ms;
        Some(DecisionKind::Tick { now_ms })
    }

    /// The decision about a partition whose input pauses.
    pub(super) fn idle(&self, partition: usize, task: &Task) -> Option<Decision> {
        let (rule, seen) = (self.rule.as_ref()?, self.seen[partition]);
        let position = task.position();
        let facts = Facts {
            now_ms: now_ms(),
            at_end: true,
            last_arrival_ms: seen.last_arrival_ms,
            watermark_then_ms: seen.watermark_ms,
            watermark_ms: position.watermark_ms,
            next_due_ms: task.next_due_ms(),
        };
        idle::decide(rule, &facts).map(|kind| Decision {
            input_offset: position.input_offset,
            kind,
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

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
