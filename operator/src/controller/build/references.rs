//! Secrets and ConfigMaps that a spec refers to, found by the names of fields, so that a new field with a reference
//! needs nothing here. Must not read them.

use std::collections::BTreeSet;

use serde_json::Value;
use streamagg_crds::v1alpha1::StreamAggregationSpec;

/// An object in the aggregation's namespace whose content pods depend on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reference {
    /// A Secret by name.
    Secret(String),
    /// A ConfigMap by name.
    ConfigMap(String),
}

/// All that pods cannot do without. What is marked `optional` is not waited for, and so not looked at.
pub fn references(spec: &StreamAggregationSpec) -> BTreeSet<Reference> {
    let mut found = BTreeSet::new();
    collect(&serde_json::to_value(spec).unwrap_or_default(), &mut found);
    found
}

fn collect(value: &Value, found: &mut BTreeSet<Reference>) {
    match value {
        Value::Object(object) => {
            for (field, member) in object {
                found.extend(reference(field, member));
                collect(member, found);
            }
        }
        Value::Array(elements) => elements.iter().for_each(|element| collect(element, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn reference(field: &str, value: &Value) -> Option<Reference> {
    if value.get("optional").and_then(Value::as_bool) == Some(true) {
        return None;
    }
    let name = value
        .get("name")
        .or_else(|| value.get("secretName"))?
        .as_str()?
        .to_owned();
    let secret = field == "secret" || field == "secretKeyRef" || field.to_lowercase().ends_with("secretref");
    match field {
        "configMap" | "configMapKeyRef" | "configMapRef" => Some(Reference::ConfigMap(name)),
        _ => secret.then_some(Reference::Secret(name)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_are_found_wherever_they_stand() {
        let spec = crate::controller::fixtures::aggregation(&json!({
            "state": {"checkpoints": {"store": {"volume": null, "s3": {"bucket": "b", "secretRef": {"name": "s3"}}}}},
            "podTemplate": {"spec": {
                "containers": [{"name": "processor", "envFrom": [{"configMapRef": {"name": "settings"}}], "env": [
                    {"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "key": "k"}}},
                    {"name": "B", "valueFrom": {"secretKeyRef": {"name": "b", "key": "k", "optional": true}}},
                ]}],
                "volumes": [{"name": "c", "secret": {"secretName": "c"}}, {"name": "d", "configMap": {"name": "d"}}],
                "imagePullSecrets": [{"name": "pull"}],
            }},
        }))
        .spec;
        let secrets = ["a", "c", "s3"].map(|name| Reference::Secret(name.to_owned()));
        let maps = ["d", "settings"].map(|name| Reference::ConfigMap(name.to_owned()));
        assert_eq!(references(&spec), secrets.into_iter().chain(maps).collect());
    }
}
