//! What a pod holds: the assignment in force, a thread for each of its tasks, what it answers to the admin API.
//! Must not hold: HTTP, or what a task does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use streamagg_crds::admin::{OperationPhase, OperationStatus, PodStatus, Problem, Stage, TaskOperation, TaskState};
use streamagg_crds::assignment::{ASSIGNMENT_VERSION, Assignment};

use super::machine;
use super::pins::{self, Pins};
use crate::pipeline::executor::board::{Board, RequestKind};
use crate::pipeline::executor::{Executor, JobContext, now_ms};
use crate::pipeline::operator::query::{Answer, Question};
use crate::state::recovery::ownership::takes;

/// An input that ends before where it ended is believed when it has done so for this long.
const LOWER_MAX: Duration = Duration::from_secs(30);
/// A thread that ended by itself is started again no sooner.
const RESTART_AFTER: Duration = Duration::from_secs(5);
/// Operations remembered, so that asking again answers even after a task has moved away.
const OPERATIONS_KEPT: usize = 64;

struct Held {
    board: Arc<Board>,
    thread: JoinHandle<()>,
    started: Instant,
    /// Since when the input ends before where it ended.
    lower_since: Option<Instant>,
}

/// A question on its way to a task.
pub struct Asking {
    /// The task.
    pub task: u32,
    /// What it is to the job.
    pub stage: Stage,
    /// What it is doing.
    pub state: TaskState,
    /// Why it does not run, or what is wrong while it does.
    pub problem: Option<Problem>,
    /// Records not committed yet, once known.
    pub lag: Option<i64>,
    /// When the last committed record was appended, once one was.
    pub appended_ms: Option<i64>,
    /// The answer to come; absent when the task cannot be asked now.
    pub answer: Option<tokio::sync::oneshot::Receiver<Answer>>,
}

/// Whether a task in this state answers questions about its windows.
pub(super) fn answers(state: TaskState) -> bool {
    matches!(state, TaskState::Running | TaskState::Draining)
}

#[derive(Default)]
struct Inner {
    assignment: Arc<Assignment>,
    tasks: BTreeMap<u32, Held>,
    /// When a task's thread was last started.
    last_start: BTreeMap<u32, Instant>,
    lags: BTreeMap<u32, i64>,
    task_count: Option<u32>,
    generation_seen: u64,
    problem: Option<Problem>,
    operations: VecDeque<((String, RequestKind), BTreeMap<u32, TaskOperation>)>,
    stopping: bool,
}

impl Inner {
    fn generation_seen(&self) -> u64 {
        let boards = self.tasks.values().map(|held| held.board.generation_seen());
        boards.fold(self.generation_seen, u64::max)
    }
}

/// A processor pod.
pub struct Pod {
    context: Arc<JobContext>,
    name: String,
    inner: Mutex<Inner>,
    pins: Pins,
}

impl Pod {
    /// A pod without an assignment.
    pub fn new(context: Arc<JobContext>, name: String) -> Self {
        Self {
            context,
            name,
            inner: Mutex::default(),
            pins: Pins::default(),
        }
    }

    /// What all tasks share.
    pub fn context(&self) -> &Arc<JobContext> {
        &self.context
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The assignment in force.
    pub fn assignment(&self) -> Assignment {
        self.lock().assignment.as_ref().clone()
    }

    /// Takes an assignment if its generation is higher. Returns the one in force.
    pub fn take(&self, offered: Assignment) -> Assignment {
        {
            let mut inner = self.lock();
            if !takes(&inner.assignment, &offered) {
                return inner.assignment.as_ref().clone();
            }
            tracing::info!(generation = offered.generation, tasks = ?offered.tasks, "assignment taken");
            let here =
                |assignment: &Assignment| -> BTreeSet<u32> { assignment.tasks_of(self.context.ordinal).collect() };
            let (before, after) = (here(&inner.assignment), here(&offered));
            let count = |from: &BTreeSet<u32>, to: &BTreeSet<u32>| to.difference(from).count() as u64;
            self.context
                .metrics
                .assigned(count(&before, &after), count(&after, &before));
            inner.assignment = Arc::new(offered);
            for held in inner.tasks.values() {
                held.board.assign(Arc::clone(&inner.assignment));
            }
        }
        self.reconcile();
        self.assignment()
    }

    /// Takes an assignment that nobody else knows of, where there is no operator: these tasks run here.
    pub fn take_here(&self, generation: u64, tasks: impl Iterator<Item = u32>) {
        let ordinal = self.context.ordinal;
        self.take(Assignment {
            version: ASSIGNMENT_VERSION,
            generation,
            tasks: tasks.map(|task| (task, ordinal)).collect(),
        });
    }

    /// Starts threads for tasks assigned here, forgets those that ended.
    pub fn reconcile(&self) {
        let mut inner = self.lock();
        let ended: Vec<u32> = inner
            .tasks
            .iter()
            .filter(|(_, held)| held.thread.is_finished())
            .map(|(task, _)| *task)
            .collect();
        for task in ended {
            if let Some(held) = inner.tasks.remove(&task) {
                tracing::info!(task, after_s = held.started.elapsed().as_secs(), "task has left");
                inner.generation_seen = inner.generation_seen.max(held.board.generation_seen());
                self.context.metrics.forget(task);
                if held.thread.join().is_err() {
                    tracing::error!(task, "the task's thread panicked; it is started again");
                }
            }
        }
        if inner.stopping {
            return;
        }
        let assignment = Arc::clone(&inner.assignment);
        for task in assignment.tasks_of(self.context.ordinal) {
            let soon = inner
                .last_start
                .get(&task)
                .is_some_and(|at| at.elapsed() < RESTART_AFTER);
            if inner.tasks.contains_key(&task) || soon && !inner.tasks.is_empty() {
                continue;
            }
            let (stage, ordinal) = (self.context.role(task).stage, self.context.ordinal);
            let board = Arc::new(Board::new(task, stage, ordinal, Arc::clone(&assignment)));
            let executor = Executor::new(Arc::clone(&self.context), Arc::clone(&board), task);
            let thread = std::thread::Builder::new()
                .name(format!("task-{task}"))
                .spawn(move || executor.run());
            match thread {
                Ok(thread) => {
                    inner.last_start.insert(task, Instant::now());
                    inner.tasks.insert(
                        task,
                        Held {
                            board,
                            thread,
                            started: Instant::now(),
                            lower_since: None,
                        },
                    );
                }
                Err(error) => tracing::error!(task, %error, "no thread for a task"),
            }
        }
    }

    /// Every task finishes and leaves; none is started again.
    pub fn stop(&self) {
        let mut inner = self.lock();
        inner.stopping = true;
        for held in inner.tasks.values() {
            held.board.stop();
        }
    }

    /// Whether [`Self::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Whether every task has left after [`Self::stop`].
    pub fn is_stopped(&self) -> bool {
        self.lock().tasks.values().all(|held| held.thread.is_finished())
    }

    /// Notes what was learnt about the topics.
    pub fn learn(&self, task_count: u32, generation_seen: u64) {
        let mut inner = self.lock();
        inner.task_count = Some(task_count);
        inner.generation_seen = inner.generation_seen.max(generation_seen);
        inner.problem = None;
    }

    /// Notes a problem of the whole pod, or that it is over.
    pub fn set_problem(&self, problem: Option<Problem>) {
        self.lock().problem = problem;
    }

    /// Number of tasks, once known.
    pub fn task_count(&self) -> Option<u32> {
        self.lock().task_count
    }

    /// Every running task starts up again, and finds out what has become of its topics.
    pub fn outdate(&self) {
        for held in self.lock().tasks.values() {
            held.board.outdate();
        }
    }

    /// Tasks held here.
    pub fn held(&self) -> Vec<u32> {
        self.lock().tasks.keys().copied().collect()
    }

    /// Notes the end of a task's partition.
    pub fn set_end_offset(&self, task: u32, end: i64) {
        let mut inner = self.lock();
        let Some(held) = inner.tasks.get_mut(&task) else {
            return;
        };
        if held.board.end().is_some_and(|before| end < before) {
            // Deleted and made anew, or shown by a leader that was replaced: which of them, time tells. Start-up compares
            // what it consumed last.
            if held.lower_since.get_or_insert_with(Instant::now).elapsed() < LOWER_MAX {
                return;
            }
        }
        if held.lower_since.take().is_some() {
            // It may have been made anew and filled again meanwhile.
            held.board.outdate();
        }
        held.board.set_end(end);
        let role = self.context.role(task);
        if let (Stage::Combine, Some(partitions)) = (role.stage, &self.context.partitions) {
            partitions.end(role.partition, end);
        }
        let lag = (end - held.board.status().input_offset).max(0);
        let age_ms = held.board.appended_ms().map(|appended_ms| now_ms() - appended_ms);
        self.context.metrics.lag(task, lag, age_ms);
        inner.lags.insert(task, lag);
    }

    /// Highest generation found in a committed position.
    pub fn generation_seen(&self) -> u64 {
        self.lock().generation_seen()
    }

    /// What `GET /v1/status` answers.
    pub fn status(&self) -> PodStatus {
        let inner = self.lock();
        let mut tasks = Vec::with_capacity(inner.tasks.len());
        for (task, held) in &inner.tasks {
            let mut status = held.board.status();
            status.lag = inner.lags.get(task).copied();
            tasks.push(status);
        }
        PodStatus {
            pod: self.name.clone(),
            ordinal: self.context.ordinal,
            job_id: self.context.job.job_id.clone(),
            uid: self.context.uid.clone(),
            revision: self.context.revision.clone(),
            engine: self.context.engine.clone(),
            task_count: inner.task_count,
            generation: inner.assignment.generation,
            generation_seen: inner.generation_seen(),
            tasks,
            problem: inner.problem.clone(),
        }
    }

    /// Brings the figures that grow by themselves up to date, and what the process takes of the machine.
    pub fn refresh_metrics(&self) {
        let inner = self.lock();
        let (metrics, now_ms) = (&self.context.metrics, now_ms());
        for (task, held) in &inner.tasks {
            let status = held.board.status();
            let checkpoint_ms = status.checkpoint.map(|checkpoint| checkpoint.completed_at_ms);
            metrics.ages(
                *task,
                status
                    .watermark_ms
                    .map(|watermark_ms| now_ms.saturating_sub(watermark_ms)),
                checkpoint_ms.map(|completed_ms| now_ms.saturating_sub(completed_ms)),
            );
        }
        metrics.usage(&machine::usage(&self.context.data_directory, &self.context.budget));
    }

    /// Whether every task assigned here works as told, or none is assigned by an assignment that is known.
    pub fn is_ready(&self) -> bool {
        let inner = self.lock();
        let ready = inner.assignment.generation > 0
            && inner.assignment.tasks_of(self.context.ordinal).all(|task| {
                inner.tasks.get(&task).is_some_and(|held| {
                    matches!(
                        held.board.status().state,
                        TaskState::Running | TaskState::Draining | TaskState::Drained
                    )
                })
            });
        self.context.metrics.ready(ready);
        ready
    }

    /// Tasks whose loop does not turn.
    pub fn stuck(&self) -> Vec<u32> {
        let (inner, now, after) = (self.lock(), Instant::now(), self.context.stuck_after);
        let stuck = inner.tasks.iter().filter(|(_, held)| held.board.is_stuck(now, after));
        stuck.map(|(task, _)| *task).collect()
    }

    /// Keeps or releases checkpoints in the store, of whichever tasks; `None` without a store.
    pub fn pins(&self, question: &pins::Question) -> Option<OperationStatus> {
        let (store, _) = self.context.checkpoints.as_ref()?;
        Some(self.pins.ask(question, store, &self.context.runtime))
    }

    /// Puts a question to every task held here that has windows.
    pub fn ask_all(&self, question: &Question) -> Vec<Asking> {
        let inner = self.lock();
        let ask = |(task, held): (&u32, &Held)| {
            let status = held.board.status();
            if !status.stage.keeps_state() {
                return None;
            }
            Some(Asking {
                task: *task,
                stage: status.stage,
                state: status.state,
                problem: status.problem,
                lag: inner.lags.get(task).copied(),
                appended_ms: held.board.appended_ms(),
                answer: answers(status.state)
                    .then(|| held.board.ask(question.clone()))
                    .flatten(),
            })
        };
        inner.tasks.iter().filter_map(ask).collect()
    }

    /// Asks tasks (all that are held, by default) for a checkpoint or drain, or how far they are.
    pub fn operate(&self, kind: RequestKind, id: &str, tasks: Option<&[u32]>) -> OperationStatus {
        let mut inner = self.lock();
        let key = (id.to_owned(), kind);
        let mut rows = match inner.operations.iter().position(|(known, _)| *known == key) {
            Some(index) => inner.operations.remove(index).map(|(_, rows)| rows).unwrap_or_default(),
            None => BTreeMap::new(),
        };
        let asked: Vec<u32> = match tasks {
            Some(tasks) => tasks.to_vec(),
            None => inner.tasks.keys().chain(rows.keys()).copied().collect(),
        };
        for task in asked {
            let settled = rows
                .get(&task)
                .is_some_and(|row| row.phase != OperationPhase::InProgress);
            if settled {
                continue;
            }
            let row = match inner.tasks.get(&task) {
                Some(held) => held.board.request(id, kind),
                None => not_here(task),
            };
            rows.insert(task, row);
        }
        let status = OperationStatus {
            id: id.to_owned(),
            tasks: rows.values().cloned().collect(),
        };
        inner.operations.push_back((key, rows));
        while inner.operations.len() > OPERATIONS_KEPT {
            inner.operations.pop_front();
        }
        status
    }
}

fn not_here(task: u32) -> TaskOperation {
    let problem = Problem {
        reason: "TaskNotHeld".to_owned(),
        message: format!("task {task} is not held by this pod; ask the pod that the assignment names"),
    };
    TaskOperation {
        task,
        phase: OperationPhase::Failed,
        checkpoint: None,
        problem: Some(problem),
    }
}
