//! Re-reads input up to the committed position with output suppressed.
//! Must not hold: which base is replayed (`state::recovery`).

use std::time::{Duration, Instant};

use rdkafka::message::{BorrowedMessage, Message};

use super::board::Board;
use super::failpoint::Place;
use super::records::{envelopes, records};
use super::{End, JobContext, state_budget};
use crate::kafka::consumer::{PartitionReader, ReadError, digest};
use crate::pipeline::operator::StepStatus;
use crate::pipeline::output::Outputs;
use crate::pipeline::position::{Decision, DecisionKind};
use crate::pipeline::worker::{Between, Worker};
use crate::state::backend::{Backend, Changes};
use crate::state::local::{self, LocalState, TaskDirectory};
use crate::state::recovery::{LastInput, Position};

/// Records stepped over at a time.
const BATCH_RECORDS: usize = 4_096;
/// Records after which a replay is saved in local state, so that a crash does not start it over.
const SAVE_RECORDS: u64 = 200_000;
/// Without a record for this long, the replay is given up and the facts are gathered again.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// How a replay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// The task stands where the committed position does.
    Committed,
    /// The log went past it without meeting it.
    Missed,
}

/// What a replay puts out: nobody gets it.
#[derive(Default)]
struct Suppressed {
    outputs: Outputs,
    between: Between,
}

impl Suppressed {
    fn clear(&mut self) {
        self.outputs.clear();
        self.between.clear();
    }
}

/// A replay under way.
pub(super) struct Replay<'a> {
    pub context: &'a JobContext,
    pub board: &'a Board,
    pub reader: &'a PartitionReader,
    pub directory: &'a TaskDirectory,
    /// K.
    pub committed: &'a Position,
    /// Decisions between base and K, in order.
    pub decisions: Vec<Decision>,
    /// `control_seq` of the base.
    pub control_seq: u64,
    /// First offset of the log: it may lie behind the base where only markers and aborted records were between.
    pub log_start: i64,
}

impl Replay<'_> {
    /// Steps `task` up to K. With `save`, parts of it are applied to local state on the way, but never the batch that
    /// reaches K: that one waits until the hashes were compared.
    pub fn run(&mut self, task: &mut Worker, mut save: Option<&mut LocalState>) -> Result<Reached, End> {
        let target = self.committed.engine_position.input_offset;
        let begin = task.position().input_offset;
        self.reader.seek(begin.max(self.log_start));
        let (mut unsaved, mut heard, mut seen, mut put_out) = (0, Instant::now(), None, Suppressed::default());
        let mut next_decision = 0;
        loop {
            if !self.obey_due(task, &mut next_decision, &mut put_out) {
                return Ok(Reached::Missed);
            }
            // Also behind the last decisions: what could not be read is no state to go on from.
            check_reads(task, self.directory)?;
            if task.position().input_offset >= target {
                return Ok(Reached::Committed);
            }
            let view = self.board.view();
            if view.stop || !view.named {
                return Err(End::Left);
            }
            self.board.beat();
            let mut batch = Vec::with_capacity(BATCH_RECORDS);
            match self.reader.poll(BATCH_RECORDS, Duration::from_millis(200), &mut batch) {
                Ok(()) => {}
                Err(error @ ReadError::Passing { .. }) => tracing::warn!(%error),
                Err(error) => return Err(error.into()),
            }
            if batch.is_empty() {
                // Aborted records and markers are passed without a word.
                if self.reader.seen_offset() > seen {
                    (seen, heard) = (self.reader.seen_offset(), Instant::now());
                }
                if heard.elapsed() > SILENCE_MAX {
                    return Err(End::Again(format!("replay: no record behind offset {begin} for 30 s")));
                }
                continue;
            }
            heard = Instant::now();
            let consumed = self.step_batch(task, &batch, target, &mut next_decision, &mut put_out)?;
            check_reads(task, self.directory)?;
            self.show_progress(task, begin, target);
            if consumed < batch.len() && task.position().input_offset < target {
                return Ok(Reached::Missed);
            }
            unsaved += consumed as u64;
            if (unsaved >= SAVE_RECORDS || task.wants_commit())
                && task.position().input_offset < target
                && let Some(state) = save.as_deref_mut()
                && let Some(last) = batch.get(consumed.saturating_sub(1))
            {
                self.save_part(task, state, next_decision, last)?;
                unsaved = 0;
                self.context.failpoints.pass(Place::MidReplay);
            }
        }
    }

    /// Whether all decisions due could be obeyed.
    fn obey_due(&self, task: &mut Worker, next: &mut usize, put_out: &mut Suppressed) -> bool {
        while let Some(decision) = self.decisions.get(*next)
            && decision.input_offset <= task.position().input_offset
        {
            if let DecisionKind::Cut(cut) = &decision.kind {
                // The state that the rewind began with took it, so one that does not is another.
                if let Err(refused) = task.rewound(cut) {
                    tracing::warn!(%refused);
                    return false;
                }
            } else {
                task.decide(decision, &mut put_out.outputs, &mut put_out.between);
            }
            put_out.clear();
            *next += 1;
        }
        true
    }

    /// Steps over the part of the batch before `target`, obeying decisions where they stand. Returns records consumed.
    fn step_batch(
        &self,
        task: &mut Worker,
        batch: &[BorrowedMessage<'_>],
        target: i64,
        next_decision: &mut usize,
        put_out: &mut Suppressed,
    ) -> Result<usize, End> {
        let before = batch.partition_point(|message| message.offset() < target);
        let envelopes = envelopes(&batch[..before], self.context.plan.needs_envelopes());
        let records = records(&batch[..before], &envelopes);
        let mut done = 0;
        while done < records.len() {
            if !self.obey_due(task, next_decision, put_out) {
                return Ok(done);
            }
            let end = self.decisions.get(*next_decision).map_or(records.len(), |decision| {
                done + records[done..].partition_point(|record| record.offset < decision.input_offset)
            });
            // A decision stands at the next offset, which may lie in a gap: at least one record is stepped over.
            let end = end.max(done + 1);
            match task.step(&records[done..end], &mut put_out.outputs, &mut put_out.between)? {
                StepStatus::Continue => done = end,
                // The commit that is replayed went on behind it, or stopped there: either way K decides.
                StepStatus::TooManyBadRecords { consumed, .. } => done += consumed.max(1),
            }
            put_out.clear();
        }
        Ok(done)
    }

    fn show_progress(&self, task: &Worker, begin: i64, target: i64) {
        #[expect(clippy::cast_precision_loss, reason = "a share for people")]
        let share = (task.position().input_offset - begin) as f64 / (target - begin).max(1) as f64;
        self.board.update(|status| {
            status.progress = Some(share.clamp(0.0, 1.0));
            status.input_offset = task.position().input_offset;
        });
    }

    fn save_part(
        &self,
        task: &mut Worker,
        state: &mut LocalState,
        decisions: usize,
        last: &BorrowedMessage<'_>,
    ) -> Result<(), End> {
        let position = Position {
            engine_position: task.position(),
            control_seq: self.control_seq + decisions as u64,
            last_input: Some(LastInput {
                offset: last.offset(),
                digest: digest(last),
            }),
            // K has seen further.
            seen_offset: None,
            ..self.committed.clone()
        };
        let budget = state_budget(self.context, self.board);
        save(task, state, self.directory, &position, budget)
    }
}

/// Applies every change since the last time, with the position it brings the state to.
pub(super) fn save(
    task: &mut Worker,
    state: &mut LocalState,
    directory: &TaskDirectory,
    position: &Position,
    budget: Option<usize>,
) -> Result<(), End> {
    check_reads(task, directory)?;
    let mut changes = Changes::default();
    task.take_changes(&mut changes);
    LocalState::put_position(&mut changes, position);
    state
        .apply(&changes)
        .map_err(|error| local::stop_of(&error, directory.root()))?;
    if let Some(budget) = budget {
        task.applied(budget);
    }
    Ok(())
}

/// Whether everything that the task wanted to know of its local state could be read.
pub(super) fn check_reads(task: &mut Worker, directory: &TaskDirectory) -> Result<(), End> {
    match task.take_failure() {
        Some(error) => Err(local::stop_of(&error, directory.root()).into()),
        None => Ok(()),
    }
}
