//! Where a task's thread and the rest of the process meet: what is wanted of the task, what it says of itself.
//! Must not hold: decisions. Locks are held for a copy, never across a wait.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use streamagg_crds::admin::{CheckpointInfo, OperationPhase, Problem, Stage, TaskOperation, TaskState, TaskStatus};
use streamagg_crds::assignment::Assignment;

use crate::pipeline::operator::query::{Answer, Question};
use crate::state::recovery::Stop;
use crate::state::recovery::ownership::is_named;

/// Finished requests remembered for each task, so that asking again with the same id answers the same.
const REQUESTS_KEPT: usize = 64;

/// Questions that wait for a task at most; it answers them between two batches.
const QUESTIONS_MAX: usize = 16;

/// A task's loop that has not turned for so long is stuck. Longer than any call into a library may wait.
pub const STUCK_AFTER: Duration = Duration::from_secs(300);

/// What may be asked of a running task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// A checkpoint; the task goes on.
    Checkpoint,
    /// Finish, checkpoint, hold.
    Drain,
}

/// A request of the admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The caller's id.
    pub id: String,
    /// What is asked.
    pub kind: RequestKind,
}

/// A question with the way back for its answer.
pub struct Asked {
    /// The question.
    pub question: Question,
    /// Where the answer goes; whoever asked may have gone.
    pub reply: tokio::sync::oneshot::Sender<Answer>,
}

/// What the process wants of the task now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// The assignment in hand names this pod.
    pub named: bool,
    /// Its generation.
    pub generation: u64,
    /// The process ends.
    pub stop: bool,
}

struct Inner {
    assignment: Arc<Assignment>,
    stop: bool,
    pending: VecDeque<Request>,
    questions: VecDeque<Asked>,
    operations: VecDeque<(Request, TaskOperation)>,
    status: TaskStatus,
    generation_seen: u64,
}

/// The board of one task.
pub struct Board {
    task: u32,
    ordinal: u32,
    inner: Mutex<Inner>,
    changed: Condvar,
    started: Instant,
    beat_ms: AtomicU64,
    /// When the last committed record was appended, ms; 0 until one was.
    appended_ms: AtomicI64,
    /// Where the input ended when it was looked at; negative until it was.
    end: AtomicI64,
    /// What start-up found is no longer so.
    is_outdated: AtomicBool,
}

impl Board {
    /// A board for `task` in the pod `ordinal`.
    pub fn new(task: u32, stage: Stage, ordinal: u32, assignment: Arc<Assignment>) -> Self {
        let status = TaskStatus {
            task,
            stage,
            ..TaskStatus::default()
        };
        let inner = Inner {
            assignment,
            stop: false,
            pending: VecDeque::new(),
            questions: VecDeque::new(),
            operations: VecDeque::new(),
            status,
            generation_seen: 0,
        };
        let started = Instant::now();
        Self {
            task,
            ordinal,
            inner: Mutex::new(inner),
            changed: Condvar::new(),
            started,
            beat_ms: AtomicU64::new(0),
            appended_ms: AtomicI64::new(0),
            end: AtomicI64::new(-1),
            is_outdated: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view_of(&self, inner: &Inner) -> View {
        View {
            named: is_named(&inner.assignment, self.task, self.ordinal),
            generation: inner.assignment.generation,
            stop: inner.stop,
        }
    }

    /// What is wanted now.
    pub fn view(&self) -> View {
        self.view_of(&self.lock())
    }

    /// Tasks that the assignment in force gives this pod, at least one: they share its memory.
    pub fn tasks_here(&self) -> u64 {
        self.count_here(|_| true)
    }

    /// Those of them that `counts` picks, at least one.
    pub fn count_here(&self, counts: impl Fn(u32) -> bool) -> u64 {
        let inner = self.lock();
        let tasks = inner.assignment.tasks_of(self.ordinal);
        tasks.filter(|task| counts(*task)).count().max(1) as u64
    }

    /// Puts another assignment in force; the caller made sure that its generation is higher.
    pub fn assign(&self, assignment: Arc<Assignment>) {
        self.lock().assignment = assignment;
        self.changed.notify_all();
    }

    /// The process ends: finish, checkpoint, leave.
    pub fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_all();
    }

    /// Asks for something; asking again with the same id answers how far it is.
    pub fn request(&self, id: &str, kind: RequestKind) -> TaskOperation {
        let mut inner = self.lock();
        if let Some((_, operation)) = inner
            .operations
            .iter()
            .find(|(request, _)| request.id == id && request.kind == kind)
        {
            return operation.clone();
        }
        let operation = TaskOperation {
            task: self.task,
            ..TaskOperation::default()
        };
        let request = Request {
            id: id.to_owned(),
            kind,
        };
        inner.pending.push_back(request.clone());
        inner.operations.push_back((request, operation.clone()));
        while inner.operations.len() > REQUESTS_KEPT {
            inner.operations.pop_front();
        }
        while inner.pending.len() > REQUESTS_KEPT {
            inner.pending.pop_front();
        }
        self.changed.notify_all();
        operation
    }

    /// The next request, for the task's thread.
    pub fn next_request(&self) -> Option<Request> {
        self.lock().pending.pop_front()
    }

    /// Asks the task; `None`: too many wait already.
    pub fn ask(&self, question: Question) -> Option<tokio::sync::oneshot::Receiver<Answer>> {
        let mut inner = self.lock();
        // Nobody waits any more for the answers to these.
        inner.questions.retain(|asked| !asked.reply.is_closed());
        if inner.questions.len() >= QUESTIONS_MAX {
            return None;
        }
        let (reply, answer) = tokio::sync::oneshot::channel();
        inner.questions.push_back(Asked { question, reply });
        Some(answer)
    }

    /// The next question, for the task's thread.
    pub fn next_question(&self) -> Option<Asked> {
        self.lock().questions.pop_front()
    }

    /// Forgets the questions to a task that does not run: whoever asked is told at once.
    pub fn drop_questions(&self) {
        self.lock().questions.clear();
    }

    /// Ends a request.
    pub fn finish(&self, request: &Request, outcome: Result<Option<CheckpointInfo>, Problem>) {
        let mut inner = self.lock();
        if let Some((_, operation)) = inner.operations.iter_mut().find(|(known, _)| known == request) {
            match outcome {
                Ok(checkpoint) => {
                    operation.phase = OperationPhase::Complete;
                    operation.checkpoint = checkpoint;
                }
                Err(problem) => {
                    operation.phase = OperationPhase::Failed;
                    operation.problem = Some(problem);
                }
            }
        }
    }

    /// Waits until the task is wanted otherwise than `seen`, a request is there, or `limit` has passed.
    pub fn wait(&self, seen: View, limit: Duration) -> View {
        let deadline = Instant::now() + limit;
        let mut inner = self.lock();
        loop {
            let view = self.view_of(&inner);
            let left = deadline.saturating_duration_since(Instant::now());
            if view != seen || !inner.pending.is_empty() || left.is_zero() {
                return view;
            }
            inner = self
                .changed
                .wait_timeout(inner, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Changes the task's status.
    pub fn update(&self, change: impl FnOnce(&mut TaskStatus)) {
        change(&mut self.lock().status);
    }

    /// Sets the state, and forgets a problem that is over.
    pub fn enter(&self, state: TaskState) {
        self.update(|status| {
            status.state = state;
            status.progress = None;
            status.problem = None;
        });
    }

    /// Enters a state with a problem.
    pub fn halt(&self, state: TaskState, stop: &Stop) {
        self.update(|status| {
            status.state = state;
            status.progress = None;
            status.problem = Some(stop.problem());
        });
    }

    /// Copy of the task's status.
    pub fn status(&self) -> TaskStatus {
        self.lock().status.clone()
    }

    /// Notes a generation found in a committed position.
    pub fn saw_generation(&self, generation: u64) {
        let mut inner = self.lock();
        inner.generation_seen = inner.generation_seen.max(generation);
    }

    /// Highest generation found in a committed position.
    pub fn generation_seen(&self) -> u64 {
        self.lock().generation_seen
    }

    /// The last committed record was appended then.
    pub fn committed_up_to(&self, appended_ms: Option<i64>) {
        if let Some(appended_ms) = appended_ms {
            self.appended_ms.store(appended_ms, Ordering::Relaxed);
        }
    }

    /// When the last committed record was appended, once one was in this life of the process.
    pub fn appended_ms(&self) -> Option<i64> {
        let appended_ms = self.appended_ms.load(Ordering::Relaxed);
        (appended_ms != 0).then_some(appended_ms)
    }

    /// The input ends at this offset now.
    pub fn set_end(&self, end: i64) {
        self.end.store(end, Ordering::Relaxed);
    }

    /// Where the input ended when it was looked at last.
    pub fn end(&self) -> Option<i64> {
        let end = self.end.load(Ordering::Relaxed);
        (end >= 0).then_some(end)
    }

    /// The topics are no longer as start-up found them: a running task starts up again, and that says what follows.
    pub fn outdate(&self) {
        if self.status().state == TaskState::Running {
            self.is_outdated.store(true, Ordering::Relaxed);
        }
    }

    /// Whether that was said since the last look.
    pub fn take_outdated(&self) -> bool {
        self.is_outdated.swap(false, Ordering::Relaxed)
    }

    /// The task's loop has turned.
    pub fn beat(&self) {
        self.beat_at(Instant::now());
    }

    /// The task's loop turned then.
    pub fn beat_at(&self, now: Instant) {
        let since_start = now.saturating_duration_since(self.started);
        let beat_ms = u64::try_from(since_start.as_millis()).unwrap_or(u64::MAX);
        self.beat_ms.store(beat_ms, Ordering::Relaxed);
    }

    /// Whether the task's loop has not turned for so long.
    pub fn is_stuck(&self, now: Instant, after: Duration) -> bool {
        let beat = Duration::from_millis(self.beat_ms.load(Ordering::Relaxed));
        now.saturating_duration_since(self.started).saturating_sub(beat) > after
    }
}
