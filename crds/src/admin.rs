//! What a processor pod answers on its admin API (`/v1/...`): the documents operator and processor exchange.
//! Must not hold: HTTP, clients, decisions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Port of a pod's admin server: probes and metrics without a token, `/v1` with one.
pub const ADMIN_PORT: u16 = 8080;

/// `GET /v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// Pod name, such as `llm-by-model-0`.
    pub pod: String,
    /// Ordinal within the StatefulSet.
    pub ordinal: u32,
    /// Job this pod works for.
    pub job_id: String,
    /// `metadata.uid` of the StreamAggregation in the job file that the pod read.
    pub uid: String,
    /// [`crate::job_file::JobFile::revision`] of the job file that the pod read.
    pub revision: String,
    /// Version of the engine in the image.
    pub engine: String,
    /// Number of tasks (partitions of the source topic, and with two stages of the topic between them); absent until the broker has answered.
    pub task_count: Option<u32>,
    /// Generation of the assignment in force in this pod.
    pub generation: u64,
    /// Highest generation seen in any committed Position; a new assignment must be above it.
    pub generation_seen: u64,
    /// Tasks that this pod holds, in order.
    pub tasks: Vec<TaskStatus>,
    /// A problem of the whole pod (broker unreachable, topic missing …).
    pub problem: Option<Problem>,
}

/// One task as its pod sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskStatus {
    /// Task number: the source partition; with two stages see [`Stage`].
    pub task: u32,
    /// What it is to the job.
    pub stage: Stage,
    /// What it is doing.
    pub state: TaskState,
    /// Why it does not run, when it does not.
    pub problem: Option<Problem>,
    /// Share done of a restore or replay, 0–1.
    pub progress: Option<f64>,
    /// Epoch last committed.
    pub epoch: u64,
    /// Next input offset after the committed epoch.
    pub input_offset: i64,
    /// Records between `input_offset` and the end of the partition; absent until known.
    pub lag: Option<i64>,
    /// Watermark in ms since the epoch; absent before the first event.
    pub watermark_ms: Option<i64>,
    /// Source partition that it waits for, reading nothing: it is further ahead of it than `spec.event.maxDrift`.
    pub waits_for: Option<u32>,
    /// Share of the records that it keeps; absent where `spec.source.kafka.loadShedding` is not given and nothing is shed.
    pub kept_share: Option<f64>,
    /// Window instances with state.
    pub open_windows: u64,
    /// Newest complete checkpoint of this task in the store.
    pub checkpoint: Option<CheckpointInfo>,
    /// Restored from this checkpoint, at the last start.
    pub restored_from: Option<String>,
    /// Nonce of the user's last restore that it has carried out; 0 before the first.
    pub restore_nonce: u64,
}

/// What a task is to its job. With two stages, window tasks have the first numbers and combine tasks those behind them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// All there is: from events to results.
    #[default]
    Whole,
    /// First of two: from events to partials.
    Combine,
    /// Second of two: from partials to results.
    Window,
}

impl Stage {
    /// Whether a task keeps state beside its committed position: on a volume and in checkpoints.
    pub fn keeps_state(self) -> bool {
        match self {
            Self::Whole | Self::Window => true,
            Self::Combine => false,
        }
    }
}

/// State of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskState {
    /// Fencing the previous owner, reading the committed position.
    #[default]
    Starting,
    /// Fetching a checkpoint.
    Restoring,
    /// Re-reading input up to the committed position, output suppressed.
    Replaying,
    /// Processing.
    Running,
    /// Finishing its epoch for a drain.
    Draining,
    /// Committed, checkpointed and idle until another assignment (or a restart) says otherwise.
    Drained,
    /// Waiting for an assignment that names this pod.
    Released,
    /// Stopped by a problem that a person has to solve.
    Stopped,
}

/// Why a pod or task does not work. `reason` is stable API (ARCHITECTURE.md lists them).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Problem {
    /// CamelCase reason such as `StateLost`.
    pub reason: String,
    /// What happened and what to do next.
    pub message: String,
}

/// A complete checkpoint of one task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CheckpointInfo {
    /// Id within the job.
    pub id: String,
    /// Epoch it was taken at.
    pub epoch: u64,
    /// Next input offset it holds.
    pub input_offset: i64,
    /// When it was completed, ms since the Unix epoch.
    pub completed_at_ms: i64,
    /// Bytes of the files it names.
    pub bytes: u64,
}

/// Reason of a pin that failed since the checkpoint is not in the store any more.
pub const CHECKPOINT_MISSING: &str = "CheckpointMissing";

/// Body of `POST /v1/pins?holder=…`: checkpoints that are kept until `DELETE /v1/pins?holder=…&tasks=…` releases them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PinRequest {
    /// Id of the checkpoint, by task; the task need not be held by the pod that is asked.
    pub checkpoints: BTreeMap<u32, String>,
}

/// Answer to `POST /v1/checkpoint?id=…` and `POST /v1/drain?id=…`; both are idempotent in `id`: asking again polls.
/// Also the answer about pins, whose id is the holder: asking again polls, and after a failure tries again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OperationStatus {
    /// The caller's id.
    pub id: String,
    /// A row for each task concerned.
    pub tasks: Vec<TaskOperation>,
}

/// One task's part of a checkpoint or drain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskOperation {
    /// Task number.
    pub task: u32,
    /// How far it is.
    pub phase: OperationPhase,
    /// The checkpoint, when there is a store and it is complete.
    pub checkpoint: Option<CheckpointInfo>,
    /// Why it failed.
    pub problem: Option<Problem>,
}

/// Progress of one task's checkpoint or drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationPhase {
    /// Under way.
    #[default]
    InProgress,
    /// Done: committed, and in the store when there is one.
    Complete,
    /// Failed; `problem` says why. Asking with another id tries again.
    Failed,
}
