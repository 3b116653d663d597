//! A run of a pipeline over the records of one partition: closures, the task, sinks. Must not hold semantics of windows.

use std::ops::Range;
use std::sync::Arc;

use super::builder::{Pipeline, Sinks};
use super::error::{RunError, SinkError, Step};
use super::operators::Operators;
use super::sinks::{DeadLetter, LateEvent, WindowResult};
use crate::pipeline::operator::{Stats, StepStatus, Task};
use crate::pipeline::output::{Output, Outputs, Record};
use crate::pipeline::position::{Decision, DecisionKind, NO_WATERMARK};
use crate::state::backend::{self, Backend, Changes};

/// Where a run notes the next offset of its input; in the range of keys that the engine leaves to its shells.
const NEXT_OFFSET: &[u8] = b"\x40E";
/// Records that closures made are handed to the engine in steps of at most so many, or a little more from one record.
const ELEMENTS_MAX: usize = 1024;
/// The same in bytes.
const ELEMENT_BYTES_MAX: usize = 1 << 20;

/// A pipeline at work. The same records in the same order give the same outputs, however they are cut into pushes.
#[derive(Debug)]
pub struct Run<O, R, L, D> {
    task: Task,
    operators: O,
    sinks: Sinks<R, L, D>,
    next_offset: i64,
    outputs: Outputs,
    made: Made,
}

/// What closures made of records and the engine has not seen.
#[derive(Debug, Default)]
struct Made {
    bytes: Vec<u8>,
    elements: Vec<Element>,
}

#[derive(Debug)]
struct Element {
    value: Range<usize>,
    timestamp_ms: Option<i64>,
    /// Index in the push of the record that it comes from.
    record: usize,
    /// Offset by which the engine knows it.
    offset: i64,
}

impl<O, R, L, D> Run<O, R, L, D>
where
    O: Operators,
    R: FnMut(&WindowResult<'_>) -> Result<(), SinkError>,
    L: FnMut(&LateEvent<'_>) -> Result<(), SinkError>,
    D: FnMut(&DeadLetter<'_>) -> Result<(), SinkError>,
{
    pub(super) fn start(pipeline: Pipeline<O, R, L, D>, offset: i64) -> Self {
        let task = Task::new(Arc::clone(&pipeline.plan), offset);
        Self::of(pipeline, task, offset)
    }

    pub(super) fn restore(
        pipeline: Pipeline<O, R, L, D>,
        backend: &dyn Backend,
    ) -> Result<Option<Self>, backend::Error> {
        let Some(task) = Task::restore(Arc::clone(&pipeline.plan), backend)? else {
            return Ok(None);
        };
        let stored = backend.get(NEXT_OFFSET)?;
        let bytes = stored.and_then(|bytes| <[u8; 8]>::try_from(bytes.as_slice()).ok());
        let next_offset = bytes.map(i64::from_le_bytes).ok_or_else(|| backend::Error::Corrupt {
            what: "the next offset of the run's input is missing or not 8 bytes".to_owned(),
        })?;
        Ok(Some(Self::of(pipeline, task, next_offset)))
    }

    fn of(pipeline: Pipeline<O, R, L, D>, task: Task, next_offset: i64) -> Self {
        Self {
            task,
            operators: pipeline.operators,
            sinks: pipeline.sinks,
            next_offset,
            outputs: Outputs::default(),
            made: Made::default(),
        }
    }

    /// Consumes records in the order of their offsets and hands out what they cause. A record below
    /// [`Self::next_offset`] was consumed before and is passed over, so an input may be read again from anywhere.
    ///
    /// # Errors
    /// When a sink fails or `max_bad_ratio` is exceeded.
    pub fn push(&mut self, records: &[Record<'_>]) -> Result<(), RunError> {
        let known = records.partition_point(|record| record.offset < self.next_offset);
        let records = &records[known..];
        let Some(last) = records.last() else {
            return Ok(());
        };
        if O::PASSES {
            self.next_offset = last.offset + 1;
            let status = self.task.step(records, &mut self.outputs);
            let origin = |index: usize| (records[index].offset, records[index].value);
            deliver(&self.task, &mut self.sinks, &self.outputs, origin)?;
            self.outputs.clear();
            return judge(status);
        }
        for (index, record) in records.iter().enumerate() {
            self.next_offset = record.offset + 1;
            let mut offset = self.task.position().input_offset + self.made.elements.len() as i64;
            let made = &mut self.made;
            self.operators.apply(record, &mut |element| {
                let start = made.bytes.len();
                made.bytes.extend_from_slice(element.value);
                made.elements.push(Element {
                    value: start..made.bytes.len(),
                    timestamp_ms: element.timestamp_ms,
                    record: index,
                    offset: if O::FANS_OUT { offset } else { record.offset },
                });
                offset += 1;
            });
            if self.made.elements.len() >= ELEMENTS_MAX || self.made.bytes.len() >= ELEMENT_BYTES_MAX {
                self.step_over_made(records)?;
            }
        }
        self.step_over_made(records)
    }

    /// Steps over what closures made of `pushed`.
    fn step_over_made(&mut self, pushed: &[Record<'_>]) -> Result<(), RunError> {
        let Made { bytes, elements } = &self.made;
        let record = |element: &Element| Record {
            offset: element.offset,
            value: &bytes[element.value.clone()],
            timestamp_ms: element.timestamp_ms,
            envelope: pushed[element.record].envelope,
        };
        let records: Vec<Record<'_>> = elements.iter().map(record).collect();
        let status = self.task.step(&records, &mut self.outputs);
        let origin = |index: usize| (pushed[elements[index].record].offset, records[index].value);
        deliver(&self.task, &mut self.sinks, &self.outputs, origin)?;
        self.outputs.clear();
        self.made.bytes.clear();
        self.made.elements.clear();
        judge(status)
    }

    /// The input has ended: every window that has not fired does. Nothing can be pushed behind it.
    ///
    /// # Errors
    /// When a sink fails.
    pub fn finish(&mut self) -> Result<(), RunError> {
        self.task.end_of_input(&mut self.outputs);
        self.deliver_own()
    }

    /// The clock as it stood before the records that follow, ms since the epoch; `max_future_skew` compares with it.
    /// Without it nothing is refused for its time.
    pub fn set_clock(&mut self, now_ms: Option<i64>) {
        self.task.set_clock(now_ms);
    }

    /// Processing time has come so far, ms since the epoch: triggers that count it may fire. Ticks are part of the
    /// input: to get the same results again, give the same ticks at the same places.
    ///
    /// # Errors
    /// When a sink fails.
    pub fn tick(&mut self, now_ms: i64) -> Result<(), RunError> {
        self.decide(DecisionKind::Tick { now_ms })
    }

    /// The input is idle and no event before this time is to be expected: the watermark advances to it. As with
    /// [`Self::tick`], part of the input.
    ///
    /// # Errors
    /// When a sink fails.
    pub fn advance_watermark(&mut self, watermark_ms: i64) -> Result<(), RunError> {
        self.decide(DecisionKind::IdleAdvance { watermark_ms })
    }

    fn decide(&mut self, kind: DecisionKind) -> Result<(), RunError> {
        let input_offset = self.task.position().input_offset;
        self.task.decide(&Decision { input_offset, kind }, &mut self.outputs);
        self.deliver_own()
    }

    /// Outputs that no record of a batch stands behind.
    fn deliver_own(&mut self) -> Result<(), RunError> {
        deliver(&self.task, &mut self.sinks, &self.outputs, |_| (0, &[]))?;
        self.outputs.clear();
        Ok(())
    }

    /// Appends all changes of the state since the last call. Applied to a backend as one atomic batch they make it hold
    /// this very point of the input; results handed out since are to be published in the same moment, or twice.
    pub fn take_changes(&mut self, changes: &mut Changes) {
        self.task.take_changes(changes);
        changes.put(NEXT_OFFSET, &self.next_offset.to_le_bytes());
    }

    /// Offset of the first record not consumed.
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// The watermark, ms since the epoch; absent before the first event.
    pub fn watermark_ms(&self) -> Option<i64> {
        known(self.task.position().watermark_ms)
    }

    /// Counters since this run was made.
    pub fn stats(&self) -> &Stats {
        self.task.stats()
    }
}

/// A watermark, when there is one.
fn known(watermark_ms: i64) -> Option<i64> {
    (watermark_ms != NO_WATERMARK).then_some(watermark_ms)
}

fn judge(status: StepStatus) -> Result<(), RunError> {
    match status {
        StepStatus::Continue => Ok(()),
        StepStatus::TooManyBadRecords { bad, seen, .. } => Err(RunError::TooManyBadRecords { bad, seen }),
    }
}

/// Hands out outputs in order; `origin` knows offset and bytes of a record of the step by its index.
fn deliver<'a, R, L, D>(
    task: &Task,
    sinks: &mut Sinks<R, L, D>,
    outputs: &Outputs,
    origin: impl Fn(usize) -> (i64, &'a [u8]),
) -> Result<(), RunError>
where
    R: FnMut(&WindowResult<'_>) -> Result<(), SinkError>,
    L: FnMut(&LateEvent<'_>) -> Result<(), SinkError>,
    D: FnMut(&DeadLetter<'_>) -> Result<(), SinkError>,
{
    for output in &outputs.list {
        let (step, taken) = match output {
            Output::Result(result) => {
                let result = WindowResult {
                    window: &task.window_names()[result.window],
                    end_ms: result.end_ms,
                    key: outputs.slice(&result.key),
                    value: outputs.slice(&result.value),
                    partition_hash: result.partition_hash,
                };
                (Step::Sink, (sinks.results)(&result))
            }
            Output::Late(late) => {
                let (offset, value) = origin(late.record);
                let late = LateEvent {
                    offset,
                    value,
                    elements: &late.elements,
                    windows: &late.windows,
                    watermark_ms: late.watermark_ms,
                    lateness_ms: late.lateness_ms,
                };
                (Step::LateEvents, (sinks.late)(&late))
            }
            Output::Dead(dead) => {
                let (offset, value) = origin(dead.record);
                let dead = DeadLetter {
                    offset,
                    value,
                    reason: dead.reason,
                    detail: &dead.detail,
                    watermark_ms: known(dead.watermark_ms),
                };
                (Step::DeadLetters, (sinks.dead)(&dead))
            }
        };
        taken.map_err(|source| RunError::Sink { step, source })?;
    }
    Ok(())
}
