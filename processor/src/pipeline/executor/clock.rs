//! Time by the clock for a running task: gathers the facts, has the task obey what is decided, leaves the decision to the
//! epoch that is open. Must not decide anything itself (`pipeline::by_clock`).

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::running::Running;
use super::{End, Executor};
use crate::kafka::config;
use crate::kafka::consumer::PartitionReader;
use crate::pipeline::by_clock::{ClockRules, PartitionClock};
use crate::pipeline::position::Decision;
use crate::pipeline::sink::{Headers, SourceRecord};
use crate::pipeline::worker::Worker;
use crate::state::recovery::Stop;

/// The end of a partition that seems idle is asked for at most this often.
const END_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for the answer. Without one the partition is not idle: it may have records that nobody can read now.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// The clock of a process.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// A file with the ms by which it is ahead of the system's: tests move time instead of waiting for it.
    ahead: Option<PathBuf>,
}

impl Clock {
    /// The system's clock, ahead by what the file says, if one is given.
    pub fn new(ahead: Option<PathBuf>) -> Self {
        Self { ahead }
    }

    /// Time in ms since the Unix epoch.
    pub fn now_ms(&self) -> i64 {
        let text = self.ahead.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        let ahead_ms: i64 = text.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        super::now_ms().saturating_add(ahead_ms)
    }
}

/// What a running task knows of the clock.
pub(super) struct TaskClock {
    rules: ClockRules,
    partition: PartitionClock,
    /// Asks for the high watermark, also behind an open transaction; opened when it is needed first.
    end: Option<PartitionReader>,
    asked: Option<Instant>,
    /// It was said that the partition is silent and not at its end.
    said: bool,
}

impl TaskClock {
    pub fn new(executor: &Executor, task: &Worker) -> Self {
        let context = &executor.context;
        let rules = ClockRules::new(&context.job, executor.role.stage);
        Self {
            rules,
            partition: PartitionClock::new(rules, context.clock.now_ms(), task.position().watermark_ms),
            end: None,
            asked: None,
            said: false,
        }
    }

    /// Tells the task what the clock says before a step, if that matters. Answers what it said.
    pub fn before_step(&self, executor: &Executor, task: &mut Worker) -> Option<i64> {
        let now_ms = self.rules.any().then(|| executor.context.clock.now_ms());
        task.set_clock(now_ms);
        now_ms
    }

    /// A step is over.
    pub fn after_step(&mut self, now_ms: Option<i64>, task: &Worker) {
        if let Some(now_ms) = now_ms {
            self.partition.arrived(now_ms, task.position().watermark_ms);
            self.said = false;
        }
    }

    /// Whether the partition ends at `seen`: nothing below its high watermark is left to come, committed or open.
    fn ends_at(&mut self, executor: &Executor, seen: i64) -> Result<bool, Stop> {
        if self.asked.is_some_and(|asked| asked.elapsed() < END_EVERY) {
            return Ok(false);
        }
        self.asked = Some(Instant::now());
        let reader = match self.end.take() {
            Some(reader) => reader,
            None => {
                let (job, connection) = (&executor.context.job, executor.context.source_connection()?);
                PartitionReader::open(&config::source_end(job, &connection), config::input(job, executor.role))?
            }
        };
        let found = reader.watermarks_within(END_TIMEOUT);
        self.end = Some(reader);
        match found {
            Ok((_, end)) => {
                if end > seen && !std::mem::replace(&mut self.said, true) {
                    let task = executor.task;
                    tracing::info!(
                        task,
                        seen,
                        end,
                        "partition is silent, but not idle: a transaction upstream is open, or records are on their way"
                    );
                }
                Ok(end <= seen)
            }
            Err(error) => {
                tracing::debug!(task = executor.task, %error, "high watermark not known: the partition is not idle");
                Ok(false)
            }
        }
    }
}

impl Running<'_> {
    /// Decides what is due by the clock, and obeys it.
    pub(super) fn by_clock(&mut self) -> Result<(), End> {
        let executor = self.executor;
        if !self.clock.rules.any() {
            return Ok(());
        }
        let now_ms = executor.context.clock.now_ms();
        let (task, position) = (&self.started.task, self.started.task.position());
        let fires = |now_ms| task.tick_fires(now_ms);
        if let Some(tick) = self.clock.partition.tick(now_ms, position, fires) {
            self.obey(tick);
        }
        if self.brakes.is_waiting() {
            // Its records are not read, which is not silence.
            return Ok(());
        }
        let (task, position) = (&self.started.task, self.started.task.position());
        if let Some(advance) = (self.clock.partition).idle(now_ms, position, task.next_due_ms()) {
            let seen = self.seen();
            if self.clock.ends_at(executor, seen)? {
                self.obey(advance);
            }
        }
        Ok(())
    }

    /// Obeys a decision, which is committed with the epoch that is open.
    pub(super) fn obey(&mut self, decision: Decision) {
        let (executor, started) = (self.executor, &mut self.started);
        (started.task).decide(&decision, &mut self.outputs, &mut self.between);
        executor.context.metrics.outputs(executor.task, &self.outputs);
        executor.context.metrics.decided(executor.task, &decision);
        self.open.arrivals.take(&[], &self.outputs);
        // A decision puts out results or partials only, which refer to no record.
        let no_record = |_: usize| SourceRecord::default();
        let no_trace = |_: usize| Headers::new();
        let buffer = &mut self.open.buffer;
        buffer.take(&mut self.outputs, &started.sink, &no_record, &no_trace);
        buffer.take_between(&mut self.between, &started.sink, &no_trace);
        self.open.decisions.push(decision);
    }
}
