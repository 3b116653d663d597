//! How a job is run and changed. Must not hold what decides its results.

use std::collections::BTreeMap;

#[cfg(feature = "k8s")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NotYet;
#[cfg(feature = "k8s")]
use super::schema;
use crate::value::Quantity;

/// How a change is rolled out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct UpgradeSpec {
    /// The order of steps.
    #[serde(default)]
    pub strategy: UpgradeStrategy,
    /// What happens when the checkpoint before a change fails.
    #[serde(default)]
    pub on_checkpoint_failure: CheckpointFailurePolicy,
    /// What happens when the new spec cannot read the old state.
    #[serde(default)]
    pub on_incompatible_state: IncompatibleStatePolicy,
    /// How long a new revision has to run well before it counts as stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::text"))]
    pub stabilization: Option<NotYet>,
    /// Whether a failed revision is taken back by itself. In this version always false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<bool>,
    /// Whether the highest ordinal goes first. In this version always false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<bool>,
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
    /// The change waits; the old revision goes on.
    #[default]
    Block,
    /// The newest checkpoint there is serves.
    UseLatest,
    /// The change is given up.
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
