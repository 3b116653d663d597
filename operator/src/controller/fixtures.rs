//! Aggregations for tests. Must not be used by shipping code.

use kube::ResourceExt;
use serde_json::{Value, json};
use streamagg_crds::v1alpha1::StreamAggregation;

use super::build::build;
use super::desired::Desired;
use super::observed::{References, StatefulSetFacts};
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
    let aggregation = aggregation(change);
    let validated = validate(&aggregation, live, Some("example.org/default:1"), &References::None);
    build(&validated.unwrap_or_else(|problems| panic!("{}: {problems:?}", aggregation.name_any())))
}
