//! The loop of a running task: poll, step, close the epoch, commit, save, checkpoint, drain.
//! Must not hold: when an epoch closes (`pipeline::epoch`).

use std::time::{Duration, Instant, SystemTime};

use rdkafka::message::Message;
use streamagg_crds::admin::{TaskState, TaskStatus};

use super::board::View;
use super::brakes::Brakes;
use super::clock::TaskClock;
use super::commit::Epoch;
use super::failpoint::Place;
use super::records::{envelopes, headers, records, source_record};
use super::replay::{check_reads, save};
use super::saving::Saving;
use super::shedding::Load;
use super::silence::Silence;
use super::startup::Started;
use super::trace::{EpochFacts, EpochTrace};
use super::{End, Executor, now_ms, state_budget};
use crate::core::trace_context;
use crate::kafka::consumer::{ReadError, digest};
use crate::metrics::{ErrorClass, Stage, Stages, TaskFigures};
use crate::pipeline::arrivals::Arrivals;
use crate::pipeline::epoch::{EpochLimits, OpenEpoch};
use crate::pipeline::operator::StepStatus;
use crate::pipeline::output::Outputs;
use crate::pipeline::position::{Decision, NO_WATERMARK};
use crate::pipeline::sink::EpochBuffer;
use crate::pipeline::worker::Between;
use crate::state::checkpoint::due::Pace;
use crate::state::recovery::{LastInput, Owner, Position, Reason, Stop};

/// Records polled at a time.
const BATCH_RECORDS: usize = 4_096;
/// Longest wait for records, and so for noticing a request.
const IDLE_WAIT: Duration = Duration::from_millis(50);
/// How often group offsets and slow figures are published.
const SLOW_INTERVAL: Duration = Duration::from_secs(1);

/// The epoch that is open.
pub(super) struct Open {
    pub buffer: EpochBuffer,
    /// Decisions made, in order.
    pub decisions: Vec<Decision>,
    records: u64,
    pub arrivals: Arrivals,
    last_input: Option<LastInput>,
    /// The input below this offset was seen and stepped over.
    seen_offset: Option<i64>,
    last_commit: Instant,
    /// When its first record came.
    opened: Option<SystemTime>,
}

impl Open {
    /// It is committed and saved: the next one begins.
    fn closed(&mut self) {
        self.buffer.clear();
        self.decisions.clear();
        self.records = 0;
        self.arrivals.clear();
        self.last_commit = Instant::now();
    }
}

/// A running task.
pub(super) struct Running<'a> {
    pub executor: &'a Executor,
    pub started: Started<'a>,
    pub open: Open,
    pub outputs: Outputs,
    pub between: Between,
    pub clock: TaskClock,
    pace: Pace,
    pub brakes: Brakes<'a>,
    pub load: Load,
    limits: EpochLimits,
    stages: Stages,
    last_slow: Instant,
    pub silence: Silence,
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
        started.reader.seek(started.next_offset);
        let clock = TaskClock::new(self, &started.task);
        let brakes = Brakes::new(self, started.task.position().watermark_ms, started.next_offset);
        let mut running = Running {
            executor: self,
            started,
            clock,
            pace: Pace::default(),
            brakes,
            load: Load::new(self),
            open: Open {
                buffer: EpochBuffer::default(),
                decisions: Vec::new(),
                records: 0,
                arrivals: Arrivals::default(),
                last_input: None,
                seen_offset: None,
                last_commit: Instant::now(),
                opened: None,
            },
            limits: self
                .context
                .limits
                .within(self.context.budget.output_bytes(self.board.tasks_here())),
            stages: self.context.metrics.stages(self.task),
            outputs: Outputs::default(),
            between: Between::default(),
            last_slow: Instant::now(),
            silence: Silence::default(),
            stopped_by_data: None,
            reported_records: 0,
        };
        let end = running.run();
        self.leaves_at(running.started.committed);
        end
    }
}

impl Running<'_> {
    fn run(&mut self) -> End {
        self.executor.board.enter(TaskState::Running);
        self.publish_figures();
        let mut saving = Saving::new(self.executor, self.started.newest.clone());
        if let Err(end) = self.note_skip(&mut saving) {
            return end;
        }
        loop {
            match self.turn(&mut saving) {
                Ok(()) => {}
                Err(end) => return end,
            }
        }
    }

    /// Input that was deleted unread and is passed over is in the committed position, and so in local state, before
    /// anything behind it is read: a replay must not look for it. Checkpoints from before would.
    fn note_skip(&mut self, saving: &mut Saving<'_>) -> Result<(), End> {
        let (from, to) = (self.started.committed.unread_from(), self.started.next_offset);
        if to <= from {
            return Ok(());
        }
        let task = self.executor.task;
        tracing::error!(
            task,
            from,
            to,
            "InputTruncated: input was deleted unread, going on behind it (onTruncated: Skip)"
        );
        self.executor.context.metrics.skipped(task, from, to);
        self.open.seen_offset = Some(to);
        self.close(self.executor.board.view())?;
        saving.hurry();
        Ok(())
    }

    fn turn(&mut self, saving: &mut Saving<'_>) -> Result<(), End> {
        let board = &self.executor.board;
        board.beat();
        let view = board.view();
        if !view.named {
            return Err(End::Left);
        }
        self.answer()?;
        saving.look();
        self.started.ledger.needless_up_to(saving.needless_decisions());
        if saving.wants_pause(view) {
            return self.turn_saving(saving, view);
        }
        if let Some(stop) = self.stopped_by_data.take() {
            self.close(view)?;
            return Err(stop.into());
        }
        if board.take_outdated() {
            // What is not committed may be of another topic by the same name.
            return Err(End::Again("the topics have changed".to_owned()));
        }
        // First: what the spec no longer allows must not meet another record.
        self.shed();
        self.consume()?;
        self.by_clock()?;
        if self.limits.closes(self.open_epoch()) || self.started.task.wants_commit() {
            self.close(view)?;
        }
        if saving.is_due(&self.started.committed, self.pace) && saving.is_prepared(&self.started.state)? {
            self.close(view)?;
            saving.begin(&self.started.state, &self.started.committed)?;
        }
        if self.last_slow.elapsed() >= SLOW_INTERVAL {
            self.last_slow = Instant::now();
            // Committed and saved while there is room for that: the task stops with nothing half done.
            if let Err(stop) = self.executor.directory.check_room(0, false) {
                self.close(view)?;
                return Err(stop.into());
            }
            let note = self.brakes.note();
            self.started
                .reader
                .publish_group_offset(self.started.committed.engine_position.input_offset, note.as_deref());
            self.publish_figures();
        }
        Ok(())
    }

    /// Answers what is asked, between two batches: what is shown may be an epoch ahead of what is committed.
    fn answer(&mut self) -> Result<(), End> {
        while let Some(asked) = self.executor.board.next_question() {
            let answer = self.started.task.answer(&asked.question);
            check_reads(&mut self.started.task, &self.executor.directory)?;
            // Whoever asked may have gone; a task without windows is not asked (`serve::pod`).
            if let Some(answer) = answer {
                asked.reply.send(answer).ok();
            }
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
            decisions: self.open.decisions.len(),
            passed: self.open.seen_offset > Some(self.started.committed.unread_from()),
            since_commit: self.open.last_commit.elapsed(),
        }
    }

    /// The input below this offset was seen.
    pub(super) fn seen(&self) -> i64 {
        let started = &self.started;
        let known = started.committed.unread_from().max(started.next_offset);
        let known = known.max(started.task.position().input_offset);
        self.open.seen_offset.map_or(known, |seen| seen.max(known))
    }

    fn consume(&mut self) -> Result<(), End> {
        let wait = self.limits.wait(self.open_epoch(), IDLE_WAIT);
        let watermark_ms = self.started.task.position().watermark_ms;
        let allowed = self.brakes.allowed(watermark_ms, BATCH_RECORDS, wait);
        if allowed == 0 {
            self.silence.held_back();
            return Ok(());
        }
        let mut batch = Vec::new();
        let (task, metrics) = (self.executor.task, &self.executor.context.metrics);
        let polled = Instant::now();
        match self.started.reader.poll(allowed, wait, &mut batch) {
            Ok(()) => {}
            Err(error @ ReadError::Passing { .. }) => {
                metrics.error(task, ErrorClass::Retry, "KafkaRead", 1);
                tracing::warn!(%error);
            }
            Err(error) => return Err(error.into()),
        }
        if batch.is_empty() {
            return self.nothing_came(watermark_ms);
        }
        self.silence = Silence::default();
        self.open.opened.get_or_insert_with(SystemTime::now);
        let envelopes = envelopes(&batch, self.executor.context.plan.needs_envelopes());
        let records = records(&batch, &envelopes);
        let now_ms = self.clock.before_step(self.executor, &mut self.started.task);
        let began = Instant::now();
        self.stages.took(Stage::Poll, began - polled);
        let status = (self.started.task).step(&records, &mut self.outputs, &mut self.between)?;
        let took = began.elapsed();
        self.pace.add(records.len() as u64, took);
        self.stages.took(Stage::Step, took);
        self.clock.after_step(now_ms, &self.started.task);
        self.load.read(&batch);
        let position = self.started.task.position();
        (self.brakes).read(batch.len(), position.watermark_ms, position.input_offset);
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
        metrics.outputs(task, &self.outputs);
        self.open.decisions.append(&mut self.outputs.decisions);
        metrics.purged_partials(task, self.between.purged.len());
        self.open.arrivals.take(&records[..consumed], &self.outputs);
        let (source, trace) = (
            |index: usize| source_record(&batch[index]),
            |index: usize| trace_context::passed_on(headers(&batch[index])),
        );
        let buffer = &mut self.open.buffer;
        buffer.take(&mut self.outputs, &self.started.sink, &source, &trace);
        buffer.take_between(&mut self.between, &self.started.sink, &trace);
        self.open.records += consumed as u64;
        if let Some(last) = consumed.checked_sub(1).and_then(|index| batch.get(index)) {
            self.open.last_input = Some(LastInput {
                offset: last.offset(),
                digest: digest(last),
            });
        }
        Ok(())
    }

    /// Every record polled has been stepped over: what lies below is markers and aborted records.
    fn nothing_came(&mut self, watermark_ms: i64) -> Result<(), End> {
        self.open.seen_offset = self.started.reader.seen_offset();
        let seen = self.seen();
        self.brakes.read(0, watermark_ms, seen);
        self.mend_silence(seen)
    }

    /// Commits the open epoch, if it holds anything, and brings local state there.
    fn close(&mut self, view: View) -> Result<(), End> {
        if self.open_epoch().is_empty() {
            return Ok(());
        }
        let (executor, started) = (self.executor, &mut self.started);
        // What was put out behind a read that failed is wrong.
        check_reads(&mut started.task, &executor.directory)?;
        // Without transactions no replay is suppressed, and a task without state never replays: so none has to decide as
        // before.
        let decisions = match executor.role.stage.keeps_state() && !executor.state_is_truth() {
            true => &self.open.decisions[..],
            false => &[],
        };
        let owner: Owner = executor.owner(view.generation);
        let carried = started.task.close_epoch(&mut self.between);
        (self.open.buffer).take_between(&mut self.between, &started.sink, &|_| Vec::new());
        let sent = started
            .committed
            .advanced(
                &owner,
                started.task.position(),
                self.open.last_input,
                decisions.len() as u64,
            )
            .having_seen(self.open.seen_offset)
            .carrying(carried)
            .with_decision_floor(started.ledger.floor(&started.committed));
        let tombstones = started.ledger.tombstones(&started.committed, &sent);
        let (began, records) = (Instant::now(), self.open.records);
        let mut trace = EpochTrace::begin(executor.context.spans.as_ref(), self.open.opened.take());
        let epoch = Epoch {
            outputs: Some((&mut self.open.buffer, &mut started.sink)),
            birth: None,
            decisions,
            tombstones: &tombstones,
            built_on: Some(&started.committed),
            sent: &sent,
        };
        let committed = started.committer.commit(epoch);
        trace.part("transaction");
        let facts = EpochFacts {
            task: executor.task,
            epoch: sent.epoch,
            records,
            outputs: &self.open.buffer,
        };
        if let Err(end) = committed {
            trace.end(&facts, Some(&end));
            return Err(end);
        }
        let metrics = &executor.context.metrics;
        metrics.committed(executor.task, began.elapsed(), self.open.buffer.refused());
        metrics.latencies(executor.task, now_ms(), &self.open.arrivals);
        executor.context.failpoints.pass(Place::AfterCommitBeforeState);
        let saving = Instant::now();
        let budget = state_budget(&executor.context, &executor.board);
        let (task, state) = (&mut started.task, &mut started.state);
        save(task, state, &executor.directory, &sent, budget)?;
        self.stages.took(Stage::Save, saving.elapsed());
        trace.part("save");
        trace.end(&facts, None);
        started.ledger.committed(&started.committed, &sent);
        started.committed = sent;
        executor.board.committed_up_to(self.open.arrivals.last_ms);
        self.open.closed();
        self.silence.held_back();
        let position = &started.committed;
        executor.board.saw_generation(position.generation);
        executor.board.update(|status| tell(status, position));
        Ok(())
    }

    fn publish_figures(&mut self) {
        let kept_share = self.kept_share();
        let (task, position) = (&self.started.task, &self.started.committed);
        let open_windows = task.open_windows();
        self.executor.board.update(|status| {
            tell(status, position);
            status.open_windows = open_windows;
            status.kept_share = kept_share;
        });
        let metrics = &self.executor.context.metrics;
        let records = task.stats().records;
        metrics.records(self.executor.task, records.saturating_sub(self.reported_records));
        self.reported_records = records;
        let figures = TaskFigures {
            keys: task.keys(),
            rows: task.rows(),
            rows_on_volume: task.rows_left_in_store(),
            state_bytes: task.state_bytes(),
            open_windows,
            committed: position,
        };
        metrics.state(self.executor.task, &figures);
    }
}

/// How far the task is.
fn tell(status: &mut TaskStatus, position: &Position) {
    status.epoch = position.epoch;
    status.restore_nonce = position.restore_nonce;
    status.input_offset = position.engine_position.input_offset;
    status.watermark_ms = watermark(position.engine_position.watermark_ms);
}

fn watermark(watermark_ms: i64) -> Option<i64> {
    (watermark_ms != NO_WATERMARK).then_some(watermark_ms)
}
