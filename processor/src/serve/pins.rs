//! Pins of checkpoints, put and released for a caller: the work goes on beside the tasks, asking again tells how far it is.
//! Must not hold: what a pin means (`state::store`), HTTP.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use futures::stream;
use streamagg_crds::admin::{CHECKPOINT_MISSING, OperationPhase, OperationStatus, Problem, TaskOperation};

use crate::state::recovery::Reason;
use crate::state::store::{Store, StoreError};

/// Questions remembered, so that asking again answers.
const QUESTIONS_KEPT: usize = 64;
/// Tasks worked on at a time.
const CONCURRENCY: usize = 16;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// These checkpoints are to be kept, by task.
    Pin {
        /// For whom.
        holder: String,
        /// Their ids.
        checkpoints: BTreeMap<u32, String>,
    },
    /// Whatever the holder pins of these tasks may go.
    Release {
        /// Whose pins.
        holder: String,
        /// Tasks.
        tasks: BTreeSet<u32>,
    },
}

impl Question {
    /// Whose pins.
    pub fn holder(&self) -> &str {
        match self {
            Self::Pin { holder, .. } | Self::Release { holder, .. } => holder,
        }
    }

    /// Tasks concerned.
    pub fn tasks(&self) -> Vec<u32> {
        match self {
            Self::Pin { checkpoints, .. } => checkpoints.keys().copied().collect(),
            Self::Release { tasks, .. } => tasks.iter().copied().collect(),
        }
    }
}

type Rows = Arc<Mutex<BTreeMap<u32, TaskOperation>>>;

/// The questions of a pod.
#[derive(Default)]
pub struct Pins {
    asked: Mutex<VecDeque<(Question, Rows)>>,
    /// One question after the other: a release never overtakes the pins it is about.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Pins {
    /// Begins the work, or tells how far it is. A failure is told once; asking again after that tries again.
    pub fn ask(&self, question: &Question, store: &Store, runtime: &tokio::runtime::Handle) -> OperationStatus {
        let mut asked = lock(&self.asked);
        let rows = match asked.iter().find(|(known, _)| known == question) {
            Some((_, rows)) => Arc::clone(rows),
            None => {
                // What was said of the other question about this holder holds no longer.
                asked.retain(|(known, _)| known.holder() != question.holder());
                let rows = fresh(question);
                asked.push_back((question.clone(), Arc::clone(&rows)));
                while asked.len() > QUESTIONS_KEPT {
                    asked.pop_front();
                }
                let work = carry_out(
                    question.clone(),
                    store.clone(),
                    Arc::clone(&rows),
                    Arc::clone(&self.turn),
                );
                runtime.spawn(work);
                rows
            }
        };
        let rows: Vec<TaskOperation> = lock(&rows).values().cloned().collect();
        let settled = rows.iter().all(|row| row.phase != OperationPhase::InProgress);
        if settled && rows.iter().any(|row| row.phase == OperationPhase::Failed) {
            asked.retain(|(known, _)| known != question);
        }
        OperationStatus {
            id: question.holder().to_owned(),
            tasks: rows,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn fresh(question: &Question) -> Rows {
    let row = |task| TaskOperation {
        task,
        ..TaskOperation::default()
    };
    let rows = question.tasks().into_iter().map(|task| (task, row(task)));
    Arc::new(Mutex::new(rows.collect()))
}

async fn carry_out(question: Question, store: Store, rows: Rows, turn: Arc<tokio::sync::Mutex<()>>) {
    let _turn = turn.lock().await;
    let (question, store, rows) = (&question, &store, &rows);
    let work = stream::iter(question.tasks()).for_each_concurrent(CONCURRENCY, |task| async move {
        let problem = one(question, task, store).await;
        if let Some(problem) = &problem {
            tracing::warn!(
                task,
                holder = question.holder(),
                reason = problem.reason,
                "{}",
                problem.message
            );
        }
        let phase = problem
            .as_ref()
            .map_or(OperationPhase::Complete, |_| OperationPhase::Failed);
        let row = TaskOperation {
            task,
            phase,
            checkpoint: None,
            problem,
        };
        lock(rows).insert(task, row);
    });
    work.await;
}

/// Why it did not work.
async fn one(question: &Question, task: u32, store: &Store) -> Option<Problem> {
    let refused = |error: StoreError| Problem {
        reason: Reason::CheckpointFailed.as_str().to_owned(),
        message: error.to_string(),
    };
    match question {
        Question::Release { holder, .. } => store.release(task, holder).await.err().map(refused),
        Question::Pin { holder, checkpoints } => {
            let id = checkpoints.get(&task)?;
            match store.pin(task, id, holder).await {
                Ok(true) => None,
                Ok(false) => Some(Problem {
                    reason: CHECKPOINT_MISSING.to_owned(),
                    message: format!("checkpoint {id} of task {task} is not in the store any more; take another"),
                }),
                Err(error) => Some(refused(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
