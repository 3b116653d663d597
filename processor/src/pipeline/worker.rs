//! A task of any stage behind one face, for the shell that runs it. Pure.
//! Must not hold: what a stage does with its records, or I/O.

use std::sync::Arc;

use super::builder::Plan;
use super::operator::combine::{Carried, Combine, CombineState, Source};
use super::operator::merge::{Cut, CutRefused, PurgedPartial, ShuffleError, WindowTask};
use super::operator::query::{Answer, Question};
use super::operator::{Stats, StepStatus, Task};
use super::output::{Outputs, Record};
use super::position::{Decision, TaskPosition};
use super::shuffle::Shuffle;
use super::stage::{Role, Stage};
use crate::state::backend::{Backend, Changes, Error, Reader};
use crate::state::recovery::Position;

/// What a task needs to know of its job.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The compiled job.
    pub plan: Arc<Plan>,
    /// The task's place.
    pub role: Role,
    /// Source partitions.
    pub sources: u32,
    /// Partitions between the stages; 0 with one stage.
    pub shuffle_partitions: u32,
}

/// What two stages put out beside results, late events and dead letters.
#[derive(Clone, Debug, Default)]
pub struct Between {
    /// For the second stage.
    pub shuffle: Shuffle,
    /// Partials that missed every window.
    pub purged: Vec<PurgedPartial>,
}

impl Between {
    /// Forgets everything, keeps the buffers.
    pub fn clear(&mut self) {
        self.shuffle.clear();
        self.purged.clear();
    }
}

/// A task.
#[derive(Clone, Debug)]
pub enum Worker {
    /// From events to results.
    Whole(Box<Task>),
    /// From events to partials.
    Combine(Box<Combine>),
    /// From partials to results.
    Window(Box<WindowTask>),
}

impl Setup {
    fn source(&self, lineage: &str) -> Source {
        Source {
            index: self.role.partition,
            count: self.sources,
            lineage: lineage.to_owned(),
            shuffle_partitions: self.shuffle_partitions.max(1),
        }
    }

    /// A task without state, whose history is `lineage`, that begins at `start_offset`.
    pub fn begin(&self, lineage: &str, start_offset: i64) -> Worker {
        let plan = Arc::clone(&self.plan);
        match self.role.stage {
            Stage::Whole => {
                let task = Task::new(plan, start_offset).of_partition(self.role.partition);
                Worker::Whole(Box::new(task))
            }
            Stage::Combine => Worker::Combine(Box::new(Combine::new(plan, self.source(lineage), start_offset))),
            Stage::Window => Worker::Window(Box::new(WindowTask::new(plan, start_offset))),
        }
    }

    /// The task that a store holds, or `None` when it holds none. A combine task is what its committed position says.
    /// With `paging`, rows may leave memory for that store, and no more are read than these bytes take.
    ///
    /// # Errors
    /// As [`Task::restore`].
    pub fn restore(
        &self,
        committed: &Position,
        backend: &dyn Backend,
        paging: Option<(Reader, usize)>,
    ) -> Result<Option<Worker>, Error> {
        let plan = Arc::clone(&self.plan);
        Ok(match self.role.stage {
            Stage::Whole => {
                let task = match paging {
                    Some((reader, budget_bytes)) => Task::restore_paged(plan, &reader, budget_bytes)?,
                    None => Task::restore(plan, backend)?,
                };
                let task = task.map(|task| task.of_partition(self.role.partition));
                task.map(Box::new).map(Worker::Whole)
            }
            Stage::Window => {
                let task = match paging {
                    Some((reader, budget_bytes)) => WindowTask::restore_paged(plan, &reader, budget_bytes)?,
                    None => WindowTask::restore(plan, backend)?,
                };
                task.map(Box::new).map(Worker::Window)
            }
            Stage::Combine => {
                let state = CombineState {
                    position: committed.engine_position,
                    carried: committed.combine.clone().unwrap_or_default(),
                };
                let combine = Combine::restore(plan, self.source(&committed.lineage), &state);
                Some(Worker::Combine(Box::new(combine)))
            }
        })
    }
}

impl Worker {
    /// Consumes records in offset order. The caller drains `outputs` before the next step: late and dead records refer
    /// to this batch by index.
    ///
    /// # Errors
    /// [`ShuffleError`] of a window task; the worker is then of no use any more.
    pub fn step(
        &mut self,
        records: &[Record<'_>],
        outputs: &mut Outputs,
        between: &mut Between,
    ) -> Result<StepStatus, ShuffleError> {
        match self {
            Self::Whole(task) => Ok(task.step(records, outputs)),
            Self::Combine(task) => Ok(task.step(records, outputs, &mut between.shuffle)),
            Self::Window(task) => {
                task.step(records, outputs, &mut between.purged)?;
                Ok(StepStatus::Continue)
            }
        }
    }

    /// Obeys a decision record, which must stand at the next input offset.
    pub fn decide(&mut self, decision: &Decision, outputs: &mut Outputs, between: &mut Between) {
        match self {
            Self::Whole(task) => task.decide(decision, outputs),
            Self::Combine(task) => task.decide(decision, &mut between.shuffle),
            Self::Window(task) => task.decide(decision, outputs),
        }
    }

    /// Takes notice of a rewind of the first stage, which only a window task has to know of.
    ///
    /// # Errors
    /// [`CutRefused`] when it cannot follow.
    pub fn rewound(&mut self, cut: &Cut) -> Result<(), CutRefused> {
        match self {
            Self::Whole(_) | Self::Combine(_) => Ok(()),
            Self::Window(task) => task.rewound(cut),
        }
    }

    /// Whether a window task has heard of a source partition.
    pub fn has_heard(&self, source: u32) -> bool {
        match self {
            Self::Whole(_) | Self::Combine(_) => false,
            Self::Window(task) => task.has_heard(source),
        }
    }

    /// The clock as the shell read it before the records that follow; `None` (a replay) decides nothing anew.
    pub fn set_clock(&mut self, now_ms: Option<i64>) {
        match self {
            Self::Whole(task) => task.set_clock(now_ms),
            Self::Combine(task) => task.set_clock(now_ms),
            Self::Window(_) => {}
        }
    }

    /// Whether a tick of the clock would fire a pane.
    pub fn tick_fires(&self, now_ms: i64) -> bool {
        match self {
            Self::Whole(task) => task.tick_fires(now_ms),
            Self::Combine(_) => false,
            Self::Window(task) => task.tick_fires(now_ms),
        }
    }

    /// Ends an epoch: everything that must go out with it is in `between`. Answers what the position has to carry.
    pub fn close_epoch(&mut self, between: &mut Between) -> Option<Carried> {
        match self {
            Self::Whole(_) | Self::Window(_) => None,
            Self::Combine(task) => Some(task.close_epoch(&mut between.shuffle).carried),
        }
    }

    /// Rows that go out when the epoch ends.
    pub fn waiting_rows(&self) -> usize {
        match self {
            Self::Whole(_) | Self::Window(_) => 0,
            Self::Combine(task) => task.rows(),
        }
    }

    /// Where the task stands.
    pub fn position(&self) -> TaskPosition {
        match self {
            Self::Whole(task) => task.position(),
            Self::Combine(task) => task.position(),
            Self::Window(task) => task.position(),
        }
    }

    /// The watermark at which something fires, is purged or must go out next.
    pub fn next_due_ms(&self) -> i64 {
        match self {
            Self::Whole(task) => task.next_due_ms(),
            Self::Combine(task) => task.next_due_ms(),
            Self::Window(task) => task.next_due_ms(),
        }
    }

    /// Results from here on carry this `pane.revision`.
    pub fn set_result_revision(&mut self, revision: u32) {
        match self {
            Self::Whole(task) => task.set_result_revision(revision),
            Self::Window(task) => task.set_result_revision(revision),
            // It has no results.
            Self::Combine(_) => {}
        }
    }

    /// Appends every change of the state since the last call; a combine task has none.
    pub fn take_changes(&mut self, changes: &mut Changes) {
        match self {
            Self::Whole(task) => task.take_changes(changes),
            Self::Window(task) => task.take_changes(changes),
            Self::Combine(_) => {}
        }
    }

    /// Lets rows leave memory for this store, which holds what was applied.
    pub fn page(&mut self, reader: Reader) {
        match self {
            Self::Whole(task) => task.page(reader),
            Self::Window(task) => task.page(reader),
            Self::Combine(_) => {}
        }
    }

    /// Everything that was taken with [`Self::take_changes`] was applied: rows may leave memory until the state takes no
    /// more than these bytes.
    pub fn applied(&mut self, budget_bytes: usize) {
        match self {
            Self::Whole(task) => task.applied(budget_bytes),
            Self::Window(task) => task.applied(budget_bytes),
            Self::Combine(_) => {}
        }
    }

    /// Whether the epoch had better end now, so that rows may leave memory.
    pub fn wants_commit(&self) -> bool {
        match self {
            Self::Whole(task) => task.wants_commit(),
            Self::Window(task) => task.wants_commit(),
            Self::Combine(_) => false,
        }
    }

    /// What went wrong when rows were looked for in the store; the task is then of no use any more.
    pub fn take_failure(&mut self) -> Option<Error> {
        match self {
            Self::Whole(task) => task.take_failure(),
            Self::Window(task) => task.take_failure(),
            Self::Combine(_) => None,
        }
    }

    /// Rows that only the store has.
    pub fn rows_left_in_store(&self) -> usize {
        match self {
            Self::Whole(task) => task.rows_left_in_store(),
            Self::Window(task) => task.rows_left_in_store(),
            Self::Combine(_) => 0,
        }
    }

    /// Counters since this object was made.
    pub fn stats(&self) -> &Stats {
        match self {
            Self::Whole(task) => task.stats(),
            Self::Combine(task) => task.stats(),
            Self::Window(task) => task.stats(),
        }
    }

    /// Keys with state.
    pub fn keys(&self) -> usize {
        match self {
            Self::Whole(task) => task.keys(),
            Self::Window(task) => task.keys(),
            Self::Combine(_) => 0,
        }
    }

    /// Rows of state.
    pub fn rows(&self) -> usize {
        match self {
            Self::Whole(task) => task.rows(),
            Self::Combine(task) => task.rows(),
            Self::Window(task) => task.rows(),
        }
    }

    /// Bytes of memory that the state takes on the heap; of a task whose rows may leave it, those that decide on that.
    pub fn state_bytes(&self) -> usize {
        match self {
            Self::Whole(task) => task.bytes_in_use(),
            Self::Combine(task) => task.state_bytes(),
            Self::Window(task) => task.bytes_in_use(),
        }
    }

    /// Answers a question about its windows; a combine task has none.
    pub fn answer(&mut self, question: &Question) -> Option<Answer> {
        match self {
            Self::Whole(task) => Some(task.answer(question)),
            Self::Window(task) => Some(task.answer(question)),
            Self::Combine(_) => None,
        }
    }

    /// Window instances with state.
    pub fn open_windows(&self) -> u64 {
        match self {
            Self::Whole(task) => task.open_windows(),
            Self::Window(task) => task.open_windows(),
            Self::Combine(_) => 0,
        }
    }
}
