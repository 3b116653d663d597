//! The `StreamCheckpoint` kind: a checkpoint of an aggregation on demand, kept until the object is deleted.
//! Must not hold how it comes about.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// What to checkpoint. It is taken once; to take another, create another object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "streamagg.io",
    version = "v1alpha1",
    kind = "StreamCheckpoint",
    plural = "streamcheckpoints",
    shortname = "scp",
    category = "streaming",
    namespaced,
    doc = "A checkpoint of a StreamAggregation on demand: taken once while the aggregation runs on, and kept in the checkpoint store until this object is deleted.",
    status = "StreamCheckpointStatus",
    derive = "PartialEq",
    selectable = ".spec.aggregation",
    selectable = ".status.phase",
    printcolumn = r#"{"name": "READY", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name": "AGGREGATION", "type": "string", "jsonPath": ".spec.aggregation"}"#,
    printcolumn = r#"{"name": "PHASE", "type": "string", "jsonPath": ".status.phase"}"#,
    printcolumn = r#"{"name": "TASKS", "type": "integer", "jsonPath": ".status.taskCount"}"#,
    printcolumn = r#"{"name": "SIZE", "type": "string", "jsonPath": ".status.size"}"#,
    printcolumn = r#"{"name": "COMPLETED", "type": "date", "jsonPath": ".status.completedAt"}"#,
    printcolumn = r#"{"name": "AGE", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "REVISION", "type": "string", "jsonPath": ".status.revision", "priority": 1}"#,
    printcolumn = r#"{"name": "MESSAGE", "type": "string", "jsonPath": ".status.message", "priority": 1}"#
)]
#[serde(rename_all = "camelCase")]
pub struct StreamCheckpointSpec {
    /// Name of the StreamAggregation, in the same namespace. Cannot change.
    #[schemars(schema_with = "schema::aggregation_name")]
    pub aggregation: String,
}

/// What the operator reports of a checkpoint; also its write-ahead log: tasks stand here before they are pinned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(default)]
pub struct StreamCheckpointStatus {
    /// Generation of the spec that the operator last looked at; -1 before the first look.
    pub observed_generation: i64,
    /// Ready, and Reconciling or Stalled while they are True.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How far it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<CheckpointPhase>,
    /// What it waits for, what it came to, or why it failed and what to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// UID of the aggregation it was taken of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregation_uid: Option<String>,
    /// Job it was taken of: where it is in the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// Revision of the pipeline that wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Number of tasks it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_count: Option<i32>,
    /// The checkpoint of each task. Whole once `phase` is `Complete`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["task"]))]
    pub tasks: Vec<TaskCheckpoint>,
    /// Bytes of all tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// The same for people, such as `12Mi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// How often it was begun anew because retention had taken a task's checkpoint before it was pinned.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i32,
    /// When, after the deletion of this object, its release began: not while an aggregation goes back to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release_started_at: Option<Time>,
    /// When the first pod was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it was complete, or had failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
}

impl Default for StreamCheckpointStatus {
    fn default() -> Self {
        Self {
            observed_generation: -1,
            conditions: Vec::new(),
            phase: None,
            message: None,
            aggregation_uid: None,
            job_id: None,
            revision: None,
            task_count: None,
            tasks: Vec::new(),
            bytes: None,
            size: None,
            retries: 0,
            release_started_at: None,
            started_at: None,
            completed_at: None,
        }
    }
}

fn is_zero(count: &i32) -> bool {
    *count == 0
}

/// The checkpoint of one task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskCheckpoint {
    /// The task: a partition of the source topic.
    pub task: i32,
    /// Id of the checkpoint in the store.
    pub id: String,
    /// Epoch it was taken at.
    pub epoch: i64,
    /// Next input offset it holds.
    pub input_offset: i64,
    /// Bytes of the files it names.
    pub bytes: i64,
}

/// How far a checkpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CheckpointPhase {
    /// Something else goes first.
    Pending,
    /// Tasks are at it.
    InProgress,
    /// With two stages: the tasks that keep state have it; where the first stage stands is noted behind them.
    FirstStage,
    /// All tasks have it; it is being marked as kept.
    Pinning,
    /// All tasks have it, and it is kept until this object is deleted.
    Complete,
    /// It will not be; create another.
    Failed,
}
