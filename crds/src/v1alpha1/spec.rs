//! The root of a `StreamAggregation`'s spec. Must not hold the parts' own types.

#[cfg(feature = "k8s")]
use kube::CustomResource;
#[cfg(feature = "k8s")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    AggregateSpec, DeletionPolicy, Delivery, EventSpec, ExplodeSpec, GroupKey, LetSpec, NotYet, PodTemplate, Resources,
    RestoreFrom, SideOutput, SinkSpec, SourceSpec, StateSpec, UpgradeSpec, WindowSpec,
};
#[cfg(feature = "k8s")]
use super::{StreamAggregationStatus, schema};

/// A member of a union that carries nothing: `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
pub struct Empty {}

/// What to read, how to window and aggregate, where to write, and how to run it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(CustomResource, JsonSchema))]
#[cfg_attr(
    feature = "k8s",
    kube(
        group = "streamagg.io",
        version = "v1alpha1",
        kind = "StreamAggregation",
        plural = "streamaggregations",
        shortname = "sagg",
        category = "streaming",
        namespaced,
        doc = "A streaming aggregation: reads a Kafka topic, aggregates its events in windows of event time and writes the results to a Kafka topic exactly once.",
        status = "StreamAggregationStatus",
        derive = "PartialEq",
        selectable = ".status.state",
        selectable = ".spec.suspend",
        scale(
            spec_replicas_path = ".spec.replicas",
            status_replicas_path = ".status.replicas",
            label_selector_path = ".status.selector"
        ),
        printcolumn = r#"{"name": "READY", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"}"#,
        printcolumn = r#"{"name": "STATE", "type": "string", "jsonPath": ".status.state"}"#,
        printcolumn = r#"{"name": "REPLICAS", "type": "string", "jsonPath": ".status.replicasText"}"#,
        printcolumn = r#"{"name": "WATERMARK-LAG", "type": "string", "jsonPath": ".status.tasks.watermarkLag"}"#,
        printcolumn = r#"{"name": "LAG", "type": "integer", "jsonPath": ".status.tasks.lag"}"#,
        printcolumn = r#"{"name": "CHECKPOINT", "type": "date", "jsonPath": ".status.tasks.newestCheckpoint.time"}"#,
        printcolumn = r#"{"name": "AGE", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
        printcolumn = r#"{"name": "REVISION", "type": "string", "jsonPath": ".status.revision", "priority": 1}"#,
        printcolumn = r#"{"name": "EPOCH", "type": "integer", "jsonPath": ".status.tasks.epoch", "priority": 1}"#,
        printcolumn = r#"{"name": "MESSAGE", "type": "string", "jsonPath": ".status.message", "priority": 1}"#
    )
)]
#[serde(rename_all = "camelCase")]
pub struct StreamAggregationSpec {
    /// Identity of the job towards Kafka: prefix of transactional ids, consumer group and internal topics, so that
    /// rights can be granted beforehand. Default: `<namespace>.<name>`. Cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::job_id"))]
    pub job_id: Option<String>,
    /// Image of the processor. Default: what the operator was started with. What was resolved is pinned for each
    /// revision and changes only when this field or `restartNonce` does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(length(min = 1, max = 512)))]
    pub image: Option<String>,
    /// What to read.
    pub source: SourceSpec,
    /// Where an event's time comes from and how far out of order events arrive.
    pub event: EventSpec,
    /// A CEL condition over `event` and the names of `let`. An event that does not meet it counts nowhere, but moves
    /// the watermark. An error makes the event a dead letter: guard what may be missing with `has()`.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::expression"))]
    pub where_: Option<String>,
    /// Values derived from each event, by name; each may use those before it.
    #[serde(rename = "let", default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "k8s", schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])))]
    pub let_: Vec<LetSpec>,
    /// Makes one event of each element of an array: an event like the record, with the element in the place of the array.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explode: Option<ExplodeSpec>,
    /// The parts of the group key, in the order of the result's `key`. Empty: one group for all events.
    #[serde(default)]
    #[cfg_attr(feature = "k8s", schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])))]
    pub group_by: Vec<GroupKey>,
    /// The windows; each aggregate is computed in each of them.
    #[cfg_attr(feature = "k8s", schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])))]
    pub windows: Vec<WindowSpec>,
    /// What is computed for each window and group.
    #[cfg_attr(feature = "k8s", schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])))]
    pub aggregates: Vec<AggregateSpec>,
    /// Where results go.
    pub sink: SinkSpec,
    /// Where events go that come after their windows are closed. Default: dropped and counted.
    #[serde(default)]
    pub late_events: SideOutput,
    /// Where records go that cannot be read. Default: dropped and counted.
    #[serde(default)]
    pub dead_letters: SideOutput,
    /// Share of dead letters among the last 10,000 records of a task above which the task stops. Judged from 1,000
    /// records on; 1.0 never stops.
    #[serde(default = "never_stops")]
    #[cfg_attr(feature = "k8s", schemars(range(min = 0.0, max = 1.0)))]
    pub max_bad_ratio: f64,
    /// What readers with `isolation.level=read_committed` can rely on.
    #[serde(default)]
    pub delivery: Delivery,
    /// Number of processor pods; those above the number of tasks stand idle.
    #[serde(default = "one")]
    #[cfg_attr(feature = "k8s", schemars(range(min = 1, max = 1000)))]
    pub replicas: i32,
    /// Where state is kept and how it is saved.
    #[serde(default)]
    pub state: StateSpec,
    /// How a change is rolled out.
    #[serde(default)]
    pub upgrade: UpgradeSpec,
    /// Changes the number of replicas by lag and rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::object"))]
    pub autoscaling: Option<NotYet>,
    /// Stops all processing after a checkpoint; false goes on from there.
    #[serde(default)]
    pub suspend: bool,
    /// Raising it restarts all pods by the steps of a rollout and resolves the default image anew.
    #[serde(default)]
    #[cfg_attr(feature = "k8s", schemars(range(min = 0)))]
    pub restart_nonce: i64,
    /// Goes back to a checkpoint, once for each nonce: every task takes up its state and its place in the input from there,
    /// and results from there on are published again with a higher `pane.revision`. Taking the field off changes nothing,
    /// unless tasks are stopped because they cannot go back. Outside a cluster it is ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_from: Option<RestoreFrom>,
    /// What happens to state when the object is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// Compute resources of a processor pod.
    #[serde(default)]
    pub resources: Resources,
    /// Parts of a pod template that are merged into the pods, lists by the names of their elements (the container is
    /// `processor`). What makes a pod a processor (command, ports, probes, mounts) stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
}

fn never_stops() -> f64 {
    1.0
}

fn one() -> i32 {
    1
}
