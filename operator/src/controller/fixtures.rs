//! Aggregations for tests. Must not be used by shipping code.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};
use streamagg_crds::job_file::Restore;
use streamagg_crds::v1alpha1::{DeletionPolicy, StreamAggregation, StreamAggregationStatus};

use super::build::build;
use super::desired::Desired;
use super::observed::{Observed, References, StatefulSetFacts};
use super::requests::Requests;
use super::validate::validate;

/// A small valid aggregation; `change` is merged over its spec.
pub fn aggregation(change: &Value) -> StreamAggregation {
    let mut object = json!({
        "apiVersion": "streamagg.io/v1alpha1",
        "kind": "StreamAggregation",
        "metadata": {"name": "sample", "namespace": "default", "uid": "uid-1", "generation": 1},
        "spec": {
            "image": "example.org/streamagg:1",
            "source": {
                "kafka": {"bootstrapServers": ["kafka:9092"], "topics": ["events"]},
                "partitioning": {"byKey": {}},
            },
            "event": {"timestamp": {"field": "/ts"}, "watermark": {"boundedOutOfOrderness": {"bound": "5s"}}},
            "groupBy": [{"name": "model", "field": "/model"}],
            "windows": [{"name": "minute", "tumbling": {"size": "1m"}}],
            "aggregates": [{"name": "requests", "count": {}}],
            "sink": {"kafka": {"topic": "results"}},
            "state": {
                "backend": "RocksDB",
                "volume": {"size": "1Gi"},
                "checkpoints": {"store": {"volume": {"claimName": "checkpoints"}}},
            },
        },
    });
    merge(&mut object["spec"], change);
    serde_json::from_value(object).unwrap()
}

/// RFC 7386: null removes.
fn merge(target: &mut Value, change: &Value) {
    let Some(change) = change.as_object() else {
        *target = change.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let target = target.as_object_mut().unwrap();
    for (key, value) in change {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// The same, built.
pub fn desired(change: &Value, live: Option<&StatefulSetFacts>) -> Desired {
    desired_with(change, live, None)
}

/// The same, with a restore that was ordered.
pub fn desired_with(change: &Value, live: Option<&StatefulSetFacts>, order: Option<Restore>) -> Desired {
    let aggregation = aggregation(change);
    let validated = validate(
        &aggregation,
        live,
        Some("example.org/default:1"),
        &References::None,
        order,
    );
    build(&validated.unwrap_or_else(|problems| panic!("{}: {problems:?}", aggregation.name_any())))
}

/// Nothing but the object, as it is right after it was created.
pub fn observed(now: Timestamp) -> Observed {
    Observed {
        now,
        generation: 1,
        deleted_at: None,
        finalizers: Vec::new(),
        resource_version: "1".to_owned(),
        deletion_policy: DeletionPolicy::default(),
        status: StreamAggregationStatus::default(),
        stateful_set: None,
        assignment: None,
        foreign: Vec::new(),
        token_exists: true,
        children: Vec::new(),
        job_config_maps: Vec::new(),
        orders: BTreeMap::new(),
        restore_source: None,
        pods: Vec::new(),
        references: References::None,
        requests: Requests::default(),
        paused: false,
        lag_samples: Vec::new(),
        running_since: None,
        claims: Vec::new(),
    }
}
