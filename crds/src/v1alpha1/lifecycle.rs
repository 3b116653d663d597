//! How a job is run and changed. Must not hold what decides its results.

use std::collections::BTreeMap;

#[cfg(feature = "k8s")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(feature = "k8s")]
use super::schema;
use serde_json::Value;

use crate::value::{Duration, Quantity};

/// How a change is rolled out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct UpgradeSpec {
    /// The order of steps.
    #[serde(default)]
    pub strategy: UpgradeStrategy,
    /// What happens when the checkpoint before a change fails three times, or is not there after two minutes. `Block`: the
    /// change waits and is tried again. `UseLatest`: it goes on with each task's volume, or its newest checkpoint and a
    /// longer replay. `Abort`: it is given up until the spec changes again. Whatever is chosen the old revision runs until
    /// then, and nothing is lost.
    #[serde(default)]
    pub on_checkpoint_failure: CheckpointFailurePolicy,
    /// What happens when the new spec cannot read the old state.
    #[serde(default)]
    pub on_incompatible_state: IncompatibleStatePolicy,
    /// How long all tasks of a new revision have to run without a break before it counts as stable. Results flow
    /// meanwhile, and a further change does not wait for it.
    #[serde(default = "no_time")]
    pub stabilization: Duration,
    /// Whether a failed revision is taken back by itself. In this version always false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<bool>,
    /// Whether the highest ordinal goes first. In this version always false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<bool>,
}

impl Default for UpgradeSpec {
    fn default() -> Self {
        Self {
            strategy: UpgradeStrategy::default(),
            on_checkpoint_failure: CheckpointFailurePolicy::default(),
            on_incompatible_state: IncompatibleStatePolicy::default(),
            stabilization: no_time(),
            rollback: None,
            canary: None,
        }
    }
}

fn no_time() -> Duration {
    Duration::from_ms(0)
}

/// The order of steps of a rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
pub enum UpgradeStrategy {
    /// Checkpoint, then restart the pods on the new revision.
    #[default]
    CheckpointThenRestart,
}

/// What happens when the checkpoint before a change fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
pub enum CheckpointFailurePolicy {
    /// The change waits and is tried again; the old revision goes on.
    #[default]
    Block,
    /// After three failed tries, or one of two minutes, the change goes on all the same: each task is restored from its
    /// volume, or from its newest checkpoint and the input after it. A task that has neither is still waited for.
    UseLatest,
    /// After three failed tries, or one of two minutes, the change is given up until the spec changes again.
    Abort,
}

/// What happens when the new spec cannot read the old state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
pub enum IncompatibleStatePolicy {
    /// The change waits; the old revision goes on.
    #[default]
    Block,
}

/// A checkpoint to go back to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct RestoreFrom {
    /// Name of a StreamCheckpoint of this aggregation, in the same namespace. Another one needs a higher `nonce`.
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::object_name"))]
    pub checkpoint: String,
    /// Each number goes back once; a higher one goes back again, to the same checkpoint or another. It cannot fall.
    #[cfg_attr(feature = "k8s", schemars(range(min = 1)))]
    pub nonce: i64,
}

/// Compute resources of a processor pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// At most so much, by resource (`cpu`, `memory` …).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "k8s", schemars(extend("maxProperties" = 16)))]
    pub limits: BTreeMap<String, Quantity>,
    /// At least so much, by resource.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "k8s", schemars(extend("maxProperties" = 16)))]
    pub requests: BTreeMap<String, Quantity>,
}

/// What happens to state when the object is deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct DeletionPolicy {
    /// Whether the pods' volume claims outlive the object. Checkpoints in the store and topics always do.
    #[serde(default)]
    pub state: StateRetention,
    /// With `state: Delete`: whether all tasks are checkpointed to the store before their volumes go. (With `Retain` the
    /// pods do that as they end.)
    #[serde(default = "yes")]
    pub final_checkpoint: bool,
    /// With `state: Delete`: how long checkpoints and pods are waited for; then the object goes all the same.
    #[serde(default = "ten_minutes")]
    pub timeout: Duration,
}

impl Default for DeletionPolicy {
    fn default() -> Self {
        Self {
            state: StateRetention::default(),
            final_checkpoint: yes(),
            timeout: ten_minutes(),
        }
    }
}

fn yes() -> bool {
    true
}

fn ten_minutes() -> Duration {
    Duration::from_ms(600_000)
}

/// Whether state outlives the object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
pub enum StateRetention {
    /// Volume claims are kept.
    #[default]
    Retain,
    /// Volume claims are deleted.
    Delete,
}

/// Parts of a pod template (`metadata.labels`, `metadata.annotations`, `spec`) that are merged into the pods, lists by
/// the names of their elements. The operator checks it, since its whole schema would be larger than the rest of the API.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PodTemplate(pub serde_json::Map<String, Value>);

#[cfg(feature = "k8s")]
impl JsonSchema for PodTemplate {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PodTemplate".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schema::object(generator)
    }
}
