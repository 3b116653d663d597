//! What holds a running task back although there may be records for it: `source.kafka.maxRecordsPerSecond`, and with
//! `event.maxDrift` partitions that are behind. Must not decide either (`pipeline::{rate,alignment}`).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Executor;
use crate::metrics::HeldBack;
use crate::pipeline::alignment::{Alignment, Mark};
use crate::pipeline::rate::RateLimit;
use crate::pipeline::stage::Stage;

/// What the tasks of a process and the thread that watches the topics know together of how far partitions are read.
pub struct Partitions {
    alignment: Mutex<Alignment>,
    since: Instant,
}

impl Partitions {
    /// With `event.maxDrift`.
    pub fn new(max_drift_ms: i64) -> Self {
        Self {
            alignment: Mutex::new(Alignment::new(max_drift_ms)),
            since: Instant::now(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Alignment> {
        self.alignment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A partition that is read here ends there now.
    pub fn end(&self, partition: u32, end: i64) {
        self.lock().end(partition, end);
    }

    /// What the task of a partition left beside its group offset, in this process or another, now or long ago.
    pub fn heard(&self, partition: u32, note: &str) {
        // Of another version, or of somebody else: then it holds nobody back.
        if let Ok(mark) = serde_json::from_str::<Mark>(note) {
            self.lock().heard(partition, mark, self.since.elapsed());
        }
    }
}

/// The brakes of one life of a task.
pub(super) struct Brakes<'a> {
    executor: &'a Executor,
    since: Instant,
    rate: Option<RateLimit>,
    partitions: Option<&'a Partitions>,
    waits_for: Option<u32>,
}

impl<'a> Brakes<'a> {
    /// Of a task that goes on behind `seen`.
    pub fn new(executor: &'a Executor, watermark_ms: i64, seen: i64) -> Self {
        let context = &executor.context;
        let per_second = match executor.role.stage {
            Stage::Whole | Stage::Combine => context.job.source.max_records_per_second,
            // What a window task reads, the combine tasks have let through.
            Stage::Window => None,
        };
        let aligned = context.partitions.as_ref();
        let this = Self {
            executor,
            since: Instant::now(),
            rate: per_second.map(|per_second| RateLimit::new(per_second, Duration::ZERO)),
            partitions: aligned.filter(|_| executor.role.stage == Stage::Combine),
            waits_for: None,
        };
        this.stands(watermark_ms, seen);
        this
    }

    /// Records that may be read now, at most `max`. None, where something holds the task back: then a moment has passed,
    /// `wait` at most.
    pub fn allowed(&mut self, watermark_ms: i64, max: usize, wait: Duration) -> usize {
        if self.waits(watermark_ms) {
            self.pause(HeldBack::Drift, wait);
            return 0;
        }
        let Some(rate) = &mut self.rate else {
            return max;
        };
        let allowed = rate.allowed(self.since.elapsed());
        if allowed == 0 {
            let pause = rate.wait().min(wait);
            self.pause(HeldBack::Rate, pause);
        }
        allowed.min(max)
    }

    fn waits(&mut self, watermark_ms: i64) -> bool {
        let Some(partitions) = self.partitions else {
            return false;
        };
        let now = partitions.since.elapsed();
        let waits_for = (partitions.lock()).waits_for(self.executor.role.partition, watermark_ms, now);
        if waits_for != self.waits_for {
            self.waits_for = waits_for;
            self.executor.board.update(|status| status.waits_for = waits_for);
        }
        waits_for.is_some()
    }

    fn pause(&self, why: HeldBack, pause: Duration) {
        std::thread::sleep(pause);
        self.executor.context.metrics.held_back(self.executor.task, why, pause);
    }

    /// So many records were read, of which the task has come to this watermark and offset.
    pub fn read(&mut self, records: usize, watermark_ms: i64, seen: i64) {
        if let Some(rate) = &mut self.rate {
            rate.took(records);
        }
        self.stands(watermark_ms, seen);
    }

    fn stands(&self, watermark_ms: i64, seen: i64) {
        if let Some(partitions) = self.partitions {
            let now = partitions.since.elapsed();
            (partitions.lock()).read(self.executor.role.partition, watermark_ms, seen, now);
        }
    }

    /// Whether the task waits for another partition.
    pub fn is_waiting(&self) -> bool {
        self.waits_for.is_some()
    }

    /// What other processes are told, beside the group offset.
    pub fn note(&self) -> Option<String> {
        let mark = self.partitions?.lock().mark(self.executor.role.partition)?;
        serde_json::to_string(&mark).ok()
    }
}

impl Drop for Brakes<'_> {
    fn drop(&mut self) {
        if let Some(partitions) = self.partitions {
            partitions.lock().left(self.executor.role.partition);
            self.executor.board.update(|status| status.waits_for = None);
        }
    }
}
