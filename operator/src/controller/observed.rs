//! What was seen of the world at one moment: plain data, so that `plan` can be tested without a cluster.
//! Must not hold judgement, clients or live handles.

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use streamagg_crds::admin::{OperationStatus, PodStatus, Problem, TaskState};
use streamagg_crds::assignment::Assignment;
use streamagg_crds::v1alpha1::{Rollout, StreamAggregationStatus};

/// Everything `plan` looks at.
#[derive(Clone, Debug)]
pub struct Observed {
    /// When it was looked at; the only clock `plan` knows.
    pub now: Timestamp,
    /// `metadata.generation` of the aggregation.
    pub generation: i64,
    /// The aggregation is being deleted.
    pub deleting: bool,
    /// Status as read, with the write-ahead log of the rollout.
    pub status: StreamAggregationStatus,
    /// The StatefulSet, if there is one.
    pub stateful_set: Option<StatefulSetFacts>,
    /// The assignment ConfigMap, if there is one.
    pub assignment: Option<AssignmentFacts>,
    /// Live objects under our names that belong to somebody else.
    pub foreign: Vec<Foreign>,
    /// The token Secret exists.
    pub token_exists: bool,
    /// Live simple children (Service, ServiceAccount, PodDisruptionBudget, job ConfigMap) as JSON.
    pub children: Vec<Value>,
    /// Job ConfigMaps of this aggregation.
    pub job_config_maps: Vec<NamedUid>,
    /// Pods of this aggregation in order of their ordinals.
    pub pods: Vec<PodFacts>,
}

impl Observed {
    /// The rollout under way.
    pub fn rollout(&self) -> Option<&Rollout> {
        self.status.rollout.as_ref()
    }
}

/// A live object under one of our names that we do not own and must not touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Kind and name.
    pub object: String,
    /// It belongs to an earlier aggregation of the same name and goes by itself.
    pub passing: bool,
}

/// An object that may be deleted, told apart from a later one of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedUid {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
}

/// The parts of the live StatefulSet that decisions rest on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatefulSetFacts {
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// The controller has seen the newest spec.
    pub observed: bool,
    /// Our revision of the template in force.
    pub revision: String,
    /// Our revision without the restart nonce.
    pub content: String,
    /// Restart nonce the template was rendered with.
    pub restart_nonce: Option<i64>,
    /// Image of the template.
    pub image: String,
    /// The image came from the operator's default.
    pub image_is_default: bool,
    /// `spec.replicas`.
    pub replicas: u32,
    /// `spec.updateStrategy.rollingUpdate.partition`.
    pub partition: i32,
    /// Job ConfigMap the template mounts.
    pub job_config_map: Option<String>,
    /// Pods below the partition come back with the template in force: current and update revision are one.
    pub settled: bool,
    /// Size and class of the volume claim template as [`volume_text`] spells them, empty without one.
    pub volume: String,
}

/// The live assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignmentFacts {
    /// `metadata.resourceVersion` of the ConfigMap.
    pub resource_version: String,
    /// The document; the empty one when it does not parse.
    pub assignment: Assignment,
}

/// One pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodFacts {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// Ordinal within the StatefulSet.
    pub ordinal: u32,
    /// Our revision of the template it was made from.
    pub revision: String,
    /// It has a deletion timestamp.
    pub deleting: bool,
    /// Its Ready condition is True.
    pub ready: bool,
    /// Base address of its admin server, once it has one.
    pub address: Option<String>,
    /// What keeps Kubernetes from running it (image, scheduling, crash loop), in our reasons.
    pub failure: Option<Problem>,
    /// Job ConfigMap it mounts.
    pub job_config_map: Option<String>,
    /// Its own status, when it answered.
    pub admin: Option<PodStatus>,
    /// The last answer to a drain, when one was asked for.
    pub drain: Option<OperationStatus>,
}

impl PodFacts {
    /// State of `task` in this pod, if it holds it.
    pub fn task_state(&self, task: u32) -> Option<TaskState> {
        let tasks = &self.admin.as_ref()?.tasks;
        tasks.iter().find(|row| row.task == task).map(|row| row.state)
    }

    /// Why it cannot work until a person or a new revision helps: Kubernetes cannot run it, or a task is stopped.
    pub fn hopeless(&self) -> Option<Problem> {
        if let Some(failure) = &self.failure {
            return Some(failure.clone());
        }
        let admin = self.admin.as_ref()?;
        let stopped = admin.tasks.iter().find(|row| row.state == TaskState::Stopped);
        match (stopped, &admin.problem) {
            (Some(row), _) => Some(row.problem.clone().unwrap_or_else(|| Problem {
                reason: "StateLost".to_owned(),
                message: format!(
                    "task {} stopped without a reason; see the log of {}",
                    row.task, self.name
                ),
            })),
            (None, Some(problem)) if needs_a_person(&problem.reason) => Some(problem.clone()),
            (None, _) => None,
        }
    }
}

/// Size and class of a volume in one comparable text; the API server may spell a size differently.
pub fn volume_text(size_bytes: u64, storage_class_name: Option<&str>) -> String {
    format!(
        "{size_bytes} bytes of class {:?}",
        storage_class_name.unwrap_or_default()
    )
}

/// Reasons of a whole pod that do not pass by themselves; others (a broker that is away) do.
pub fn needs_a_person(reason: &str) -> bool {
    const REASONS: [&str; 13] = [
        "CheckpointMissing",
        "CommittedPositionBehindState",
        "IdentityInUse",
        "IncompatibleState",
        "InputRecreated",
        "InputTruncated",
        "KafkaUnauthorized",
        "PartitionsChanged",
        "ReplayDiverged",
        "SpecInvalid",
        "StateLost",
        "TooManyBadRecords",
        "TopicMissing",
    ];
    REASONS.contains(&reason)
}
