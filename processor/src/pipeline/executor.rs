//! Runs one task on one plain thread: start-up, replay, epochs, commits, checkpoints, release.
//!
//! Carries out what `state::recovery` decides. A life of a task ends with an [`End`] that says what comes next; nothing
//! is repaired half-way: whatever goes wrong, the task closes and starts up from what is durable.
//! Must not hold: window semantics, or rules of the protocol.

mod backoff;
mod base;
mod birth;
pub mod board;
mod brakes;
pub mod clock;
mod commit;
mod decisions;
pub mod failpoint;
mod follow;
mod records;
mod replay;
mod rewind;
mod running;
mod saving;
mod shedding;
mod silence;
mod startup;
mod topology;
mod trace;

pub use brakes::Partitions;
pub use topology::{Topology, count_source_partitions};

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use streamagg_crds::admin::TaskState;
use streamagg_crds::job_file::Restore;
use streamagg_crds::resolved::Resolved;
use streamagg_crds::v1alpha1;
use uuid::Uuid;

use self::backoff::Backoff;
use self::board::{Board, RequestKind, View};
use self::clock::Clock;
use self::failpoint::Failpoints;
use super::builder::Plan;
use super::epoch::EpochLimits;
use super::operator::merge::ShuffleError;
use super::stage::{Role, Stage};
use crate::kafka::config;
use crate::kafka::consumer::{PartitionReader, ReadError};
use crate::kafka::control;
use crate::kafka::producer::TransactionError;
use crate::kafka::secrets::Secrets;
use crate::kafka::settings::Settings;
use crate::metrics::{ErrorClass, Metrics};
use crate::spans::Spans;
use crate::state::budget::{Budget, Origin};
use crate::state::checkpoint::RetentionRule;
use crate::state::local::TaskDirectory;
use crate::state::recovery::ownership::{AfterFence, after_fence, fence_backoff};
use crate::state::recovery::problem::Until;
use crate::state::recovery::startup::OnTruncated;
use crate::state::recovery::{Owner, Position, Reason, Stop};
use crate::state::rocksdb::Shared;
use crate::state::store::Store;

/// How often checkpoints are made and how many are kept.
#[derive(Clone, Copy, Debug)]
pub struct CheckpointRule {
    /// Time between two.
    pub interval: Duration,
    /// What retention allows.
    pub retention: RetentionRule,
}

/// What all tasks of a process share.
pub struct JobContext {
    /// The job.
    pub job: Resolved,
    /// `metadata.uid`, or `local`.
    pub uid: String,
    /// Revision of the job file.
    pub revision: String,
    /// Engine version.
    pub engine: String,
    /// The user's last order to go back to a checkpoint, carried out or not.
    pub restore: Option<Restore>,
    /// The compiled job.
    pub plan: Arc<Plan>,
    /// Ordinal of this pod.
    pub ordinal: u32,
    /// What readers of results can rely on.
    pub delivery: v1alpha1::Delivery,
    /// The job's rule for deleted input.
    pub on_truncated: OnTruncated,
    /// Data directory.
    pub data_directory: PathBuf,
    /// State backend.
    pub backend: v1alpha1::Backend,
    /// What the databases share.
    pub shared: Shared,
    /// Memory of the pod and of its parts.
    pub budget: Budget,
    /// Checkpoint store and its rule.
    pub checkpoints: Option<(Store, CheckpointRule)>,
    /// Bounds of an epoch.
    pub limits: EpochLimits,
    /// For the store, which is asynchronous.
    pub runtime: tokio::runtime::Handle,
    /// Metrics of the process.
    pub metrics: Arc<Metrics>,
    /// How far the source's partitions are read, with `event.maxDrift`.
    pub partitions: Option<Partitions>,
    /// Where spans of epochs go, for those who ask for them.
    pub spans: Option<Spans>,
    /// The clock by which tasks decide.
    pub clock: Clock,
    /// Where tests kill the process.
    pub failpoints: Failpoints,
    /// A task whose loop has not turned for so long is stuck.
    pub stuck_after: Duration,
    /// How often the source is looked at while it is read.
    pub look_every: Duration,
    /// Where the Secrets are that the job refers to.
    pub secrets: Secrets,
}

/// Memory for the state of one task: its share of the budget among those that keep state. Without a limit state takes what
/// it needs.
fn state_budget(context: &JobContext, board: &Board) -> Option<usize> {
    let share = context.budget.state_bytes() / board.count_here(|task| context.role(task).stage.keeps_state());
    match context.budget.origin {
        Origin::Declared | Origin::Limit { .. } => Some(usize::try_from(share).unwrap_or(usize::MAX)),
        Origin::Default => None,
    }
}

impl JobContext {
    /// How clients reach the source's cluster.
    pub fn source_connection(&self) -> Result<Settings, Stop> {
        self.secrets.connection(&self.job.source.security)
    }

    /// How clients reach the sink's cluster.
    pub fn sink_connection(&self) -> Result<Settings, Stop> {
        self.secrets.connection(&self.job.sink.security)
    }

    /// The place of a task in the job.
    pub fn role(&self, task: u32) -> Role {
        Role::of(task, self.job.source.shuffle_partitions)
    }

    /// A reader of a task's input that fetches at most `queue_kib` ahead.
    pub fn open_input(&self, role: Role, queue_kib: u32) -> Result<PartitionReader, Stop> {
        let settings = match role.stage {
            Stage::Whole | Stage::Combine => config::source_consumer(&self.job, &self.source_connection()?, queue_kib),
            Stage::Window => config::shuffle_consumer(&self.job, &self.sink_connection()?, queue_kib),
        };
        PartitionReader::open(&settings, config::input(&self.job, role))
    }
}

/// Time in ms since the Unix epoch.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn random() -> u64 {
    Uuid::new_v4().as_u64_pair().0
}

/// How a life of a task ended.
#[derive(Debug)]
pub enum End {
    /// The process ends or the assignment names another pod.
    Left,
    /// Drained; `generation` is the one in force then.
    Drained {
        /// Generation.
        generation: u64,
    },
    /// A later owner exists.
    Released {
        /// Generation of K.
        generation: u64,
    },
    /// Another process initialised.
    Fenced(String),
    /// Local state, the commit or the log was not as expected: start up again.
    Again(String),
    /// A problem.
    Stop(Stop),
}

impl From<Stop> for End {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl From<ReadError> for End {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Stop(stop) => Self::Stop(stop),
            ReadError::OutOfRange { what } => Self::Again(format!("{what}: offset out of range")),
            ReadError::Passing { .. } => Self::Stop(Stop::new(Reason::KafkaUnreachable, error.to_string())),
        }
    }
}

impl From<ShuffleError> for End {
    fn from(error: ShuffleError) -> Self {
        let reason = match error {
            ShuffleError::Format { .. } | ShuffleError::Layout { .. } => Reason::IncompatibleState,
            ShuffleError::Damaged { .. } | ShuffleError::Sequence { .. } => Reason::InputRecreated,
            ShuffleError::Lineage { .. } => Reason::CommittedPositionBehindState,
        };
        Self::Stop(Stop::new(reason, error.to_string()))
    }
}

impl From<TransactionError> for End {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Fenced(message) => Self::Fenced(message),
            TransactionError::Stop(stop) => Self::Stop(stop),
            TransactionError::Aborted(_) | TransactionError::TooLarge { .. } | TransactionError::Unknown(_) => {
                Self::Again(error.to_string())
            }
        }
    }
}

/// Runs one task until the process ends or the assignment names another pod.
pub struct Executor {
    context: Arc<JobContext>,
    board: Arc<Board>,
    task: u32,
    role: Role,
    directory: TaskDirectory,
    /// The last life ended for lack of room.
    was_full: Cell<bool>,
    /// K as the last life left it, of a task that keeps nothing on its volume.
    left_at: RefCell<Option<Position>>,
}

impl Executor {
    /// An executor for `task`.
    pub fn new(context: Arc<JobContext>, board: Arc<Board>, task: u32) -> Self {
        let directory = TaskDirectory::new(&context.data_directory, task, context.backend, context.shared.clone());
        Self {
            role: context.role(task),
            context,
            board,
            task,
            directory,
            was_full: Cell::new(false),
            left_at: RefCell::default(),
        }
    }

    /// Checkpoint store and rule, for a task that keeps state.
    fn checkpoints(&self) -> Option<&(Store, CheckpointRule)> {
        self.context
            .checkpoints
            .as_ref()
            .filter(|_| self.role.stage.keeps_state())
    }

    /// Whether what the task holds is the truth, and its committed position only follows.
    fn state_is_truth(&self) -> bool {
        self.role.state_is_truth(self.context.delivery)
    }

    fn owner(&self, generation: u64) -> Owner {
        Owner {
            uid: self.context.uid.clone(),
            job_id: self.context.job.job_id.clone(),
            task: self.task,
            revision: self.context.revision.clone(),
            engine: self.context.engine.clone(),
            generation,
        }
    }

    /// The thread of the task. Returns when the task is no longer this pod's.
    pub fn run(self) {
        let (mut fenced, mut backoff) = (0, Backoff::default());
        loop {
            let view = self.board.view();
            if view.stop || !view.named {
                break;
            }
            self.board.beat();
            let began = std::time::Instant::now();
            let end = self.live();
            if began.elapsed() > backoff::LONGEST {
                fenced = 0;
            }
            let committed = self.board.status().epoch;
            tracing::info!(task = self.task, ?end, "life of the task ended");
            self.count(&end);
            self.was_full.set(is_full(&end));
            self.board.drop_questions();
            let goes_on = match end {
                End::Left => false,
                End::Drained { generation } => self.hold(|view| view.generation > generation),
                End::Released { generation } => {
                    self.board.saw_generation(generation);
                    self.board.enter(TaskState::Released);
                    self.hold(|view| view.generation >= generation)
                }
                End::Fenced(_) => {
                    let attempt = fenced;
                    fenced += 1;
                    self.after_fence(attempt)
                }
                End::Again(why) => {
                    self.board.enter(TaskState::Starting);
                    tracing::warn!(task = self.task, why, "starting up again");
                    self.pause(backoff.next(committed))
                }
                End::Stop(stop) => {
                    tracing::error!(task = self.task, reason = stop.reason.as_str(), "{}", stop.message);
                    self.board.halt(TaskState::Stopped, &stop);
                    match stop.reason.until() {
                        Until::Restart => {
                            let generation = view.generation;
                            self.hold(|view| view.generation > generation)
                        }
                        Until::Retry => self.pause(backoff.next(committed)),
                    }
                }
            };
            if !goes_on {
                break;
            }
        }
        self.refuse_requests();
        tracing::info!(task = self.task, "task released");
    }

    fn count(&self, end: &End) {
        let (class, kind) = match end {
            End::Left | End::Drained { .. } | End::Released { .. } => return,
            End::Fenced(_) => (ErrorClass::Retry, "Fenced"),
            End::Again(_) => (ErrorClass::Retry, "StartUpAgain"),
            End::Stop(stop) => match stop.reason.until() {
                Until::Retry => (ErrorClass::Retry, stop.reason.as_str()),
                Until::Restart => (ErrorClass::Fatal, stop.reason.as_str()),
            },
        };
        self.context.metrics.error(self.task, class, kind, 1);
    }

    /// Reads K without initialising: only a higher generation takes the task away for good.
    fn after_fence(&self, attempt: u32) -> bool {
        self.board.enter(TaskState::Released);
        let job = &self.context.job;
        let topic = config::control_topic(&job.job_id);
        let generation = self.board.view().generation;
        let read = || {
            let settings = config::control_consumer(job, &self.context.sink_connection()?);
            control::read(&settings, &topic, self.task)
        };
        match read() {
            Ok(copy) => match after_fence(copy.position.as_ref(), generation) {
                AfterFence::Release { generation } => {
                    self.board.saw_generation(generation);
                    self.hold(|view| view.generation >= generation)
                }
                AfterFence::BackOff => self.pause(fence_backoff(attempt, random())),
            },
            Err(error) => {
                tracing::warn!(task = self.task, %error, "committed position not readable after a fence");
                self.pause(fence_backoff(attempt, random()))
            }
        }
    }

    /// Waits until `over`, the end of the process or of the ownership. `true`: start up again.
    fn hold(&self, over: impl Fn(View) -> bool) -> bool {
        loop {
            self.board.beat();
            let view = self.board.view();
            if view.stop || !view.named {
                return false;
            }
            if over(view) {
                return true;
            }
            self.refuse_requests();
            self.board.wait(view, Duration::from_millis(500));
        }
    }

    /// Waits `limit`, less if the task is wanted otherwise meanwhile. `true`: start up again.
    fn pause(&self, limit: Duration) -> bool {
        let deadline = std::time::Instant::now() + limit;
        let before = self.board.view();
        loop {
            self.board.beat();
            let view = self.board.view();
            if view.stop || !view.named {
                return false;
            }
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if view != before || left.is_zero() {
                return true;
            }
            self.board.wait(view, left.min(Duration::from_millis(500)));
            // Requests wait for the task to run: a passing trouble is no reason to fail them.
            if self.board.status().state == TaskState::Stopped {
                self.refuse_requests();
            }
        }
    }

    /// Answers requests to a task that does not run.
    fn refuse_requests(&self) {
        while let Some(request) = self.board.next_request() {
            let status = self.board.status();
            if status.state == TaskState::Drained {
                self.board.finish(&request, Ok(status.checkpoint));
                continue;
            }
            let problem = status.problem.unwrap_or_else(|| {
                let what = match request.kind {
                    RequestKind::Checkpoint => "checkpoint",
                    RequestKind::Drain => "drain",
                };
                let message = format!("{what}: task {} does not run here", self.task);
                Stop::new(Reason::CheckpointFailed, message).problem()
            });
            self.board.finish(&request, Err(problem));
        }
    }
}

fn is_full(end: &End) -> bool {
    matches!(end, End::Stop(stop) if stop.reason == Reason::DiskFull)
}
