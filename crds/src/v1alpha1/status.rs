//! What the operator reports of a `StreamAggregation` and its write-ahead log of a change.
//! Must not hold how either comes about.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::job_file::Restore;

/// What the operator reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(default)]
pub struct StreamAggregationStatus {
    /// Generation of the spec that the operator last looked at; -1 before the first look.
    pub observed_generation: i64,
    /// Ready, Reconciling, Stalled, Available, SpecValid …
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The state in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// What happens, and what to do when something has to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Pods that exist.
    pub replicas: i32,
    /// Pods that are ready.
    pub ready_replicas: i32,
    /// Ready pods of wanted ones, such as `3/3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas_text: Option<String>,
    /// Label selector of the pods, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The tasks, all pods together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<TasksSummary>,
    /// Generation of the assignment of tasks to pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assignment_generation: Option<i64>,
    /// Revision of the pipeline that pods run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Name of the ControllerRevision whose spec is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_revision: Option<String>,
    /// Name of the ControllerRevision that last ran well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_stable_revision: Option<String>,
    /// Image of the processor that was resolved for the revision in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// `spec.restartNonce` that was last carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_nonce: Option<i64>,
    /// The checkpoint that all tasks last went back to (`spec.restoreFrom`). Its nonce, and any below, is used up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored: Option<RestoreOrder>,
    /// The checkpoint that the annotation `streamagg.io/checkpoint` last asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_request: Option<CheckpointRequest>,
    /// The change that was given up since its checkpoint failed (`upgrade.onCheckpointFailure: Abort`). It is not begun
    /// again; any other is, and so is the same of a later generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aborted_rollout: Option<Rollout>,
    /// The change under way: a write-ahead log, written before each step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
}

impl Default for StreamAggregationStatus {
    fn default() -> Self {
        Self {
            observed_generation: -1,
            conditions: Vec::new(),
            state: None,
            message: None,
            replicas: 0,
            ready_replicas: 0,
            replicas_text: None,
            selector: None,
            tasks: None,
            assignment_generation: None,
            revision: None,
            current_revision: None,
            last_stable_revision: None,
            image: None,
            restart_nonce: None,
            restored: None,
            checkpoint_request: None,
            aborted_rollout: None,
            rollout: None,
        }
    }
}

/// The tasks, all pods together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TasksSummary {
    /// Tasks there are: partitions of the source topic.
    pub count: i32,
    /// Tasks that process.
    pub running: i32,
    /// Records not yet read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<i64>,
    /// Lowest watermark of a task, ms since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watermark_ms: Option<i64>,
    /// How far the lowest watermark is behind the clock, such as `7s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watermark_lag: Option<String>,
    /// Highest epoch committed by a task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// Newest checkpoint that all tasks have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest_checkpoint: Option<CheckpointRef>,
}

/// A checkpoint by id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointRef {
    /// Its id within the job.
    pub id: String,
    /// When it was complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}

/// A checkpoint that somebody asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointRequest {
    /// Id that was asked for.
    pub id: String,
    /// How far it is.
    pub phase: RequestPhase,
    /// What it waits for, what it came to, or why it failed and what to do next.
    #[serde(default)]
    pub message: String,
    /// When the first pod was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// Tasks it holds, once it is complete.
    #[serde(default)]
    pub tasks: i32,
    /// Bytes of all tasks, once it is complete.
    #[serde(default)]
    pub bytes: i64,
}

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RequestPhase {
    /// Something else goes first.
    Pending,
    /// Tasks are at it.
    InProgress,
    /// All tasks have it.
    Complete,
    /// It will not be; another id asks again.
    Failed,
}

/// A change under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Id of the change; also the id of its checkpoint and drains.
    pub id: String,
    /// What changes.
    pub kind: RolloutKind,
    /// `metadata.generation` that asked for it.
    pub generation: i64,
    /// Name of the ControllerRevision to reach.
    pub target_revision: String,
    /// Replicas to reach.
    pub target_replicas: i32,
    /// `spec.restartNonce` to reach.
    #[serde(default)]
    pub target_restart_nonce: i64,
    /// The step under way.
    pub step: RolloutStep,
    /// Checkpoint that it goes back to, as it was when that was decided (`Restore`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreOrder>,
    /// Checkpoint taken for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// Why it goes on without a checkpoint of every task (`upgrade.onCheckpointFailure: UseLatest`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_checkpoint: Option<String>,
    /// When it began.
    pub started_at: Time,
    /// When the step began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_started_at: Option<Time>,
    /// When the step has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// How often the step was tried.
    #[serde(default)]
    pub attempts: i32,
    /// Why the last try failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// What changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutKind {
    /// Another spec or image.
    Upgrade,
    /// The same spec, new pods.
    Restart,
    /// More or fewer pods.
    Rescale,
    /// To no processing.
    Suspend,
    /// Back to processing.
    Resume,
    /// Back to a checkpoint, with the same spec or another.
    Restore,
}

/// What `spec.restoreFrom` asked for, with the checkpoint of each task as the StreamCheckpoint named it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreOrder {
    /// `spec.restoreFrom.nonce`.
    pub nonce: i64,
    /// Name of the StreamCheckpoint.
    pub checkpoint: String,
    /// The checkpoint of each task.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["task"]))]
    pub tasks: Vec<TaskRestore>,
}

/// Where one task goes back to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskRestore {
    /// The task.
    pub task: i32,
    /// Id of its checkpoint in the store.
    pub id: String,
}

impl From<&Restore> for RestoreOrder {
    fn from(restore: &Restore) -> Self {
        let row = |(task, id): (&u32, &String)| TaskRestore {
            task: i32::try_from(*task).unwrap_or(i32::MAX),
            id: id.clone(),
        };
        Self {
            nonce: i64::try_from(restore.nonce).unwrap_or(i64::MAX),
            checkpoint: restore.checkpoint.clone(),
            tasks: restore.tasks.iter().map(row).collect(),
        }
    }
}

impl From<&RestoreOrder> for Restore {
    fn from(order: &RestoreOrder) -> Self {
        Self {
            nonce: order.nonce.unsigned_abs(),
            checkpoint: order.checkpoint.clone(),
            tasks: order
                .tasks
                .iter()
                .map(|row| (row.task.unsigned_abs(), row.id.clone()))
                .collect(),
        }
    }
}

/// Steps of a rollout, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum RolloutStep {
    /// Decided and written down.
    Plan,
    /// Tasks drain and checkpoint.
    Checkpoint,
    /// The checkpoints are looked at by pods.
    Verify,
    /// Written down; from here on pods are touched.
    Commit,
    /// Pods or assignments change.
    Apply,
    /// New owners restore.
    Restore,
    /// Watched until it counts as stable.
    Stabilize,
}
