//! The loop of a running task: poll, step, close the epoch, commit, save, checkpoint, drain.
//! Must not hold: when an epoch closes (`pipeline::epoch`).

use std::time::{Duration, Instant};

use rdkafka::message::{BorrowedMessage, Headers as _, Message};
use streamagg_crds::admin::TaskState;

use super::board::View;
use super::commit::Epoch;
use super::failpoint::Place;
use super::replay::save;
use super::saving::Saving;
use super::startup::Started;
use super::{End, Executor};
use crate::kafka::consumer::{ReadError, digest};
use crate::pipeline::epoch::OpenEpoch;
use crate::pipeline::operator::StepStatus;
use crate::pipeline::output::{Outputs, Record};
use crate::pipeline::position::NO_WATERMARK;
use crate::pipeline::sink::{EpochBuffer, SourceRecord};
use crate::pipeline::worker::Between;
use crate::state::recovery::{LastInput, Owner, Reason, Stop};

/// Records polled at a time.
const BATCH_RECORDS: usize = 4_096;
/// Longest wait for records, and so for noticing a request.
const IDLE_WAIT: Duration = Duration::from_millis(50);
/// How often group offsets and slow figures are published.
const SLOW_INTERVAL: Duration = Duration::from_secs(1);

/// The epoch that is open.
struct Open {
    buffer: EpochBuffer,
    records: u64,
    last_input: Option<LastInput>,
    /// The input below this offset was seen and stepped over.
    seen_offset: Option<i64>,
    last_commit: Instant,
}

/// A running task.
pub(super) struct Running<'a> {
    pub executor: &'a Executor,
    pub started: Started<'a>,
    open: Open,
    outputs: Outputs,
    between: Between,
    last_slow: Instant,
    stopped_by_data: Option<Stop>,
    reported_records: u64,
}

impl Executor {
    /// One life of the task: start-up, then processing until something ends it.
    pub(super) fn live(&self) -> End {
        let started = match self.start_up() {
            Ok(started) => started,
            Err(end) => return end,
        };
        if let Err(error) = started.reader.seek(started.next_offset) {
            return error.into();
        }
        let mut running = Running {
            executor: self,
            started,
            open: Open {
                buffer: EpochBuffer::default(),
                records: 0,
                last_input: None,
                seen_offset: None,
                last_commit: Instant::now(),
            },
            outputs: Outputs::default(),
            between: Between::default(),
            last_slow: Instant::now(),
            stopped_by_data: None,
            reported_records: 0,
        };
        running.run()
    }
}

impl Running<'_> {
    fn run(&mut self) -> End {
        self.executor.board.enter(TaskState::Running);
        self.publish_figures();
        let mut saving = Saving::new(self.executor, self.started.newest.clone());
        loop {
            match self.turn(&mut saving) {
                Ok(()) => {}
                Err(end) => return end,
            }
        }
    }

    fn turn(&mut self, saving: &mut Saving<'_>) -> Result<(), End> {
        let board = &self.executor.board;
        board.beat();
        let view = board.view();
        if !view.named {
            return Err(End::Left);
        }
        saving.look();
        if saving.wants_pause(view) {
            return self.turn_saving(saving, view);
        }
        if let Some(stop) = self.stopped_by_data.take() {
            self.close(view)?;
            return Err(stop.into());
        }
        self.consume()?;
        if self.executor.context.limits.closes(self.open_epoch()) {
            self.close(view)?;
        }
        if saving.is_due(&self.started.committed) {
            self.close(view)?;
            saving.begin(&self.started.state, &self.started.committed)?;
        }
        if self.last_slow.elapsed() >= SLOW_INTERVAL {
            self.last_slow = Instant::now();
            self.started
                .reader
                .publish_group_offset(self.started.committed.engine_position.input_offset);
            self.publish_figures();
        }
        Ok(())
    }

    /// A turn while the task is asked to checkpoint, drain or end: the epoch is finished, nothing more is read until the
    /// snapshot is made (and, for a drain, kept).
    fn turn_saving(&mut self, saving: &mut Saving<'_>, view: View) -> Result<(), End> {
        if saving.drains(view) {
            self.executor.board.update(|status| status.state = TaskState::Draining);
        }
        self.close(view)?;
        self.publish_figures();
        saving.advance(&self.started.state, &self.started.committed, view)
    }

    fn open_epoch(&self) -> OpenEpoch {
        OpenEpoch {
            records: self.open.records,
            rows: self.started.task.waiting_rows(),
            outputs: self.open.buffer.len(),
            output_bytes: self.open.buffer.byte_len(),
            passed: self.open.seen_offset > Some(self.started.committed.unread_from()),
            since_commit: self.open.last_commit.elapsed(),
        }
    }

    fn consume(&mut self) -> Result<(), End> {
        let wait = self.executor.context.limits.wait(self.open_epoch(), IDLE_WAIT);
        let mut batch = Vec::new();
        match self.started.reader.poll(BATCH_RECORDS, wait, &mut batch) {
            Ok(()) => {}
            Err(error @ ReadError::Passing { .. }) => tracing::warn!(%error),
            Err(error) => return Err(error.into()),
        }
        if batch.is_empty() {
            // Every record polled has been stepped over: what lies below is markers and aborted records.
            self.open.seen_offset = self.started.reader.seen_offset();
            return Ok(());
        }
        let records: Vec<Record<'_>> = batch
            .iter()
            .map(|message| Record {
                offset: message.offset(),
                value: message.payload().unwrap_or_default(),
                timestamp_ms: message.timestamp().to_millis(),
            })
            .collect();
        let status = self.started.task.step(&records, &mut self.outputs, &mut self.between)?;
        let consumed = match status {
            StepStatus::Continue => batch.len(),
            StepStatus::TooManyBadRecords { consumed, bad, seen } => {
                self.stopped_by_data = Some(Stop::new(
                    Reason::TooManyBadRecords,
                    format!(
                        "{bad} of the last {seen} records of task {} are bad, more than spec.maxBadRatio allows; look \
                         at the dead letters, correct the producer or raise spec.maxBadRatio, then restart",
                        self.executor.task
                    ),
                ));
                consumed
            }
        };
        self.executor.context.metrics.outputs(self.executor.task, &self.outputs);
        self.open.buffer.take(&mut self.outputs, &self.started.sink, &|index| {
            source_record(&batch[index])
        });
        let metrics = &self.executor.context.metrics;
        metrics.purged_partials(self.executor.task, self.between.purged.len());
        self.open.buffer.take_between(&mut self.between, &self.started.sink);
        self.open.records += consumed as u64;
        if let Some(last) = consumed.checked_sub(1).and_then(|index| batch.get(index)) {
            self.open.last_input = Some(LastInput {
                offset: last.offset(),
                digest: digest(last),
            });
        }
        Ok(())
    }

    /// Commits the open epoch, if it holds anything, and brings local state there.
    fn close(&mut self, view: View) -> Result<(), End> {
        if self.open_epoch().is_empty() {
            return Ok(());
        }
        let (executor, started) = (self.executor, &mut self.started);
        let owner: Owner = executor.owner(view.generation);
        let carried = started.task.close_epoch(&mut self.between);
        self.open.buffer.take_between(&mut self.between, &started.sink);
        let sent = started
            .committed
            .advanced(&owner, started.task.position(), self.open.last_input, 0)
            .having_seen(self.open.seen_offset)
            .carrying(carried);
        let began = Instant::now();
        let epoch = Epoch {
            outputs: Some((&mut self.open.buffer, &mut started.sink)),
            birth: None,
            built_on: Some(&started.committed),
            sent: &sent,
        };
        started.committer.commit(epoch)?;
        let metrics = &executor.context.metrics;
        metrics.committed(executor.task, began.elapsed(), self.open.buffer.refused());
        executor.context.failpoints.pass(Place::AfterCommitBeforeState);
        save(&mut started.task, &mut started.state, &executor.directory, &sent)?;
        started.committed = sent;
        self.open.buffer.clear();
        self.open.records = 0;
        self.open.last_commit = Instant::now();
        let position = &started.committed;
        executor.board.saw_generation(position.generation);
        executor.board.update(|status| {
            status.epoch = position.epoch;
            status.input_offset = position.engine_position.input_offset;
            status.watermark_ms = watermark(position.engine_position.watermark_ms);
        });
        Ok(())
    }

    fn publish_figures(&mut self) {
        let (task, position) = (&self.started.task, &self.started.committed);
        let open_windows = task.open_windows();
        self.executor.board.update(|status| {
            status.epoch = position.epoch;
            status.input_offset = position.engine_position.input_offset;
            status.watermark_ms = watermark(position.engine_position.watermark_ms);
            status.open_windows = open_windows;
        });
        let metrics = &self.executor.context.metrics;
        let records = task.stats().records;
        metrics.records(self.executor.task, records.saturating_sub(self.reported_records));
        self.reported_records = records;
        metrics.state(self.executor.task, task.keys(), task.rows(), open_windows, position);
    }
}

fn watermark(watermark_ms: i64) -> Option<i64> {
    (watermark_ms != NO_WATERMARK).then_some(watermark_ms)
}

fn source_record(message: &BorrowedMessage<'_>) -> SourceRecord {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers
            .iter()
            .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
            .collect()
    });
    SourceRecord {
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
    }
}
