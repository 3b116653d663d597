//! The clock of a local run: what it says to the tasks. The one place of a run, beside progress and the live generator,
//! that looks at a clock. Must not decide anything itself (`pipeline::by_clock` does).

use std::time::SystemTime;

use streamagg_crds::resolved::Resolved;
use streamagg_processor::pipeline::by_clock::{ClockRules, PartitionClock};
use streamagg_processor::pipeline::operator::{StepStatus, Task};
use streamagg_processor::pipeline::output::{Outputs, Record};
use streamagg_processor::pipeline::position::Decision;
use streamagg_processor::pipeline::stage::Stage;

/// The clock, and what is known of each partition.
#[derive(Debug)]
pub(super) struct Clock {
    rules: ClockRules,
    partitions: Vec<PartitionClock>,
}

impl Clock {
    pub(super) fn new(job: &Resolved, tasks: &[Task]) -> Self {
        let (rules, now_ms) = (ClockRules::new(job, Stage::Whole), now_ms());
        let partitions = tasks.iter().map(|task| task.position().watermark_ms);
        Self {
            rules,
            partitions: partitions
                .map(|watermark_ms| PartitionClock::new(rules, now_ms, watermark_ms))
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
        if records.is_empty() || !self.rules.any() {
            return task.step(records, outputs);
        }
        let now_ms = now_ms();
        task.set_clock(Some(now_ms));
        let status = task.step(records, outputs);
        self.partitions[partition].arrived(now_ms, task.position().watermark_ms);
        status
    }

    /// The tick of a partition that is due by now.
    pub(super) fn tick(&mut self, partition: usize, task: &Task) -> Option<Decision> {
        if !self.rules.any() {
            return None;
        }
        let fires = |now_ms| task.tick_fires(now_ms);
        self.partitions[partition].tick(now_ms(), task.position(), fires)
    }

    /// The decision about a partition whose input pauses.
    pub(super) fn idle(&self, partition: usize, task: &Task) -> Option<Decision> {
        self.partitions[partition].idle(now_ms(), task.position(), task.next_due_ms())
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
