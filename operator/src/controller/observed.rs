//! What was seen of the world at one moment: plain data, so that `plan` can be tested without a cluster.
//! Must not hold judgement, clients or live handles.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use streamagg_crds::admin::{OperationStatus, PodStatus, Problem, TaskState, TaskStatus};
use streamagg_crds::assignment::Assignment;
use streamagg_crds::job_file::Restore;
use streamagg_crds::v1alpha1::{DeletionPolicy, Rollout, StreamAggregationStatus, StreamCheckpoint};

use super::requests::Requests;
use crate::labels::FINALIZER;

/// Everything `plan` looks at.
#[derive(Clone, Debug)]
pub struct Observed {
    /// When it was looked at; the only clock `plan` knows.
    pub now: Timestamp,
    /// `metadata.generation` of the aggregation.
    pub generation: i64,
    /// When the aggregation was deleted, if it was.
    pub deleted_at: Option<Timestamp>,
    /// Its finalizers, ours and others'.
    pub finalizers: Vec<String>,
    /// `metadata.resourceVersion` of the aggregation.
    pub resource_version: String,
    /// `spec.deletionPolicy`; the default when it does not parse, which deletes nothing.
    pub deletion_policy: DeletionPolicy,
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
    /// Restores that job files order, by the names of their ConfigMaps.
    pub orders: BTreeMap<String, Restore>,
    /// The StreamCheckpoint that `spec.restoreFrom` names, when it is there and has to be looked at.
    pub restore_source: Option<Box<StreamCheckpoint>>,
    /// Pods of this aggregation in order of their ordinals. Without a StatefulSet: those it left behind.
    pub pods: Vec<PodFacts>,
    /// What the spec refers to.
    pub references: References,
    /// What its annotations ask for.
    pub requests: Requests,
    /// The aggregation carries the annotation that pauses it.
    pub paused: bool,
    /// Lag of all tasks, one sample a minute, oldest first; as far as this operator remembers.
    pub lag_samples: Vec<i64>,
    /// Since when all tasks run without a break; as far as this operator remembers.
    pub running_since: Option<Timestamp>,
    /// Volume claims of the pods, in order of their ordinals.
    pub claims: Vec<ClaimFacts>,
}

impl Observed {
    /// What the pods tell, those that do.
    pub fn admins(&self) -> impl Iterator<Item = &PodStatus> {
        self.pods.iter().filter_map(|pod| pod.admin.as_ref())
    }

    /// The rollout under way.
    pub fn rollout(&self) -> Option<&Rollout> {
        self.status.rollout.as_ref()
    }

    /// The aggregation is being deleted.
    pub fn deleting(&self) -> bool {
        self.deleted_at.is_some()
    }

    /// Our finalizer keeps a deleted aggregation until its state is gone.
    pub fn has_finalizer(&self) -> bool {
        self.finalizers.iter().any(|finalizer| finalizer == FINALIZER)
    }
}

/// The content of the Secrets and ConfigMaps that the spec refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum References {
    /// It refers to none.
    #[default]
    None,
    /// Keyed with the token, so that it tells nobody anything about a Secret.
    Digest(String),
    /// One of them is not there: what runs goes on with what it has.
    Missing(String),
    /// The token that keys the digest is not there yet.
    WithoutToken,
}

/// One volume claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimFacts {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// Ordinal of its pod.
    pub ordinal: u32,
    /// It has a deletion timestamp.
    pub deleting: bool,
    /// `Pending`, `Bound` or `Lost`.
    pub phase: String,
    /// Bytes asked for.
    pub requested_bytes: u64,
    /// Bytes there are; 0 until it is bound.
    pub capacity_bytes: u64,
}

/// Size and class of the pods' volumes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeFacts {
    /// Size as written.
    pub size: String,
    /// The same in bytes.
    pub bytes: u64,
    /// Storage class, when one is named.
    pub class: Option<String>,
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
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// It has a deletion timestamp.
    pub deleting: bool,
    /// The controller has seen the newest spec.
    pub observed: bool,
    /// Our revision of the template in force.
    pub revision: String,
    /// Our revision without the restart nonce.
    pub content: String,
    /// Digest of what the template refers to.
    pub references: Option<String>,
    /// Restart nonce the template was rendered with.
    pub restart_nonce: Option<i64>,
    /// Text of the annotation that last asked for a restart.
    pub restart_request: Option<String>,
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
    /// The volume claim template.
    pub volume: Option<VolumeFacts>,
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
    /// Its container ended and waits to be started again: how often, and how it ended.
    pub crash: Option<String>,
    /// Job ConfigMap it mounts.
    pub job_config_map: Option<String>,
    /// Its own status, when it answered.
    pub admin: Option<PodStatus>,
    /// The last answer to a drain, when one was asked for.
    pub drain: Option<OperationStatus>,
    /// The last answer to a checkpoint, when one was asked for.
    pub checkpoint: Option<OperationStatus>,
}

impl PodFacts {
    /// State of `task` in this pod, if it holds it.
    pub fn task_state(&self, task: u32) -> Option<TaskState> {
        self.task(task).map(|row| row.state)
    }

    /// What this pod tells of `task`, if it holds it.
    pub fn task(&self, task: u32) -> Option<&TaskStatus> {
        let tasks = &self.admin.as_ref()?.tasks;
        tasks.iter().find(|row| row.task == task)
    }

    /// Why it cannot work until a person or a new revision helps: Kubernetes cannot run it, or a task is stopped, other
    /// than by a sink that takes nothing for a while.
    pub fn hopeless(&self) -> Option<Problem> {
        if let Some(failure) = &self.failure {
            return Some(failure.clone());
        }
        let admin = self.admin.as_ref()?;
        let passes = |row: &TaskStatus| {
            row.problem
                .as_ref()
                .is_some_and(|problem| problem.reason == SINK_FAILING)
        };
        let mut stopped = admin.tasks.iter().filter(|row| row.state == TaskState::Stopped);
        let stopped = stopped.find(|row| !passes(row));
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

/// Reason of a task whose sink takes nothing; it tries again by itself.
pub const SINK_FAILING: &str = "SinkFailing";

/// Reasons of a whole pod that do not pass by themselves; others (a broker that is away) do.
pub const NEED_A_PERSON: [&str; 13] = [
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

/// Whether `reason` is one of [`NEED_A_PERSON`].
pub fn needs_a_person(reason: &str) -> bool {
    NEED_A_PERSON.contains(&reason)
}
