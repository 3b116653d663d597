//! The CustomResourceDefinitions: what the derives give, with the rules of [`crate::rules`] written into it.
//! Must not apply it to a cluster.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::rules::{Check, Rule, rules};
use crate::v1alpha1::{StreamAggregation, StreamCheckpoint};

/// Where the schema stands in a definition.
const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema";

/// Why the definition could not be made: a mistake in this crate, never a user's.
#[derive(Debug, thiserror::Error)]
pub enum CrdError {
    /// The definition is no JSON of the expected shape.
    #[error("definition: {0}")]
    Json(#[from] serde_json::Error),
    /// The definition is no YAML.
    #[error("definition: {0}")]
    Yaml(#[from] serde_yaml::Error),
    /// A rule names a path that the schema has not.
    #[error("rule for {0:?}: the schema has no such path; correct the rule's path")]
    NoSuchPath(String),
}

/// The definition of aggregations.
///
/// # Errors
/// When a rule does not fit the schema.
pub fn crd() -> Result<CustomResourceDefinition, CrdError> {
    Ok(serde_json::from_value(crd_json()?)?)
}

/// The definition of aggregations as YAML, for `kubectl apply` and the chart.
///
/// # Errors
/// When a rule does not fit the schema.
pub fn crd_yaml() -> Result<String, CrdError> {
    Ok(serde_yaml::to_string(&crd_json()?)?)
}

/// The definition of aggregations as JSON, members sorted.
///
/// # Errors
/// When a rule does not fit the schema.
pub fn crd_json() -> Result<Value, CrdError> {
    let mut definition = definition(&StreamAggregation::crd())?;
    let schema = definition
        .pointer_mut(SCHEMA)
        .ok_or_else(|| CrdError::NoSuchPath(String::new()))?;
    for rule in rules() {
        write_rule(schema, rule)?;
    }
    Ok(definition)
}

/// The definition of checkpoints.
///
/// # Errors
/// When the schema is not of the expected shape.
pub fn checkpoint_crd() -> Result<CustomResourceDefinition, CrdError> {
    Ok(serde_json::from_value(checkpoint_crd_json()?)?)
}

/// The definition of checkpoints as YAML.
///
/// # Errors
/// When the schema is not of the expected shape.
pub fn checkpoint_crd_yaml() -> Result<String, CrdError> {
    Ok(serde_yaml::to_string(&checkpoint_crd_json()?)?)
}

/// The definition of checkpoints as JSON, members sorted.
///
/// # Errors
/// When the schema is not of the expected shape.
pub fn checkpoint_crd_json() -> Result<Value, CrdError> {
    definition(&StreamCheckpoint::crd())
}

fn definition(derived: &CustomResourceDefinition) -> Result<Value, CrdError> {
    let mut definition = serde_json::to_value(derived)?;
    definition.sort_all_objects();
    let schema = definition
        .pointer_mut(SCHEMA)
        .ok_or_else(|| CrdError::NoSuchPath(String::new()))?;
    tidy(schema);
    write_members(schema);
    // A status that was never written says so: no generation was looked at.
    if let Some(status) = schema.pointer_mut("/properties/status") {
        status["default"] = json!({"observedGeneration": -1});
    }
    Ok(definition)
}

/// An absent field and a null are the same to us, so the schema says it: without `nullable` the API server drops nulls
/// before rules look. Lines of doc comments become one line.
fn tidy(schema: &mut Value) {
    if let Some(object) = schema.as_object_mut() {
        object.remove("nullable");
        if object.get("title").is_some_and(Value::is_string) {
            object.remove("title");
        }
        if let Some(Value::String(text)) = object.get_mut("description") {
            *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = schema.get_mut(key) {
            tidy(child);
        }
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.values_mut().for_each(tidy);
    }
}

/// A member of a composite is an aggregate that is no composite.
fn write_members(schema: &mut Value) {
    let Some(aggregate) = schema.pointer_mut("/properties/spec/properties/aggregates/items") else {
        return;
    };
    let mut member = aggregate.clone();
    if let Some(Value::Object(properties)) = member.get_mut("properties") {
        properties.remove("composite");
    }
    if let Some(composite) = aggregate.pointer_mut("/properties/composite") {
        composite["items"] = member;
    }
}

fn write_rule(schema: &mut Value, rule: &Rule) -> Result<(), CrdError> {
    let Some(cel) = &rule.cel else {
        return Ok(());
    };
    let no_such_path = || CrdError::NoSuchPath(rule.path.to_string());
    let mut node = schema;
    for segment in rule.path.split('.').filter(|segment| !segment.is_empty()) {
        let (name, every) = segment.strip_suffix("[]").map_or((segment, false), |name| (name, true));
        node = node
            .get_mut("properties")
            .and_then(|properties| properties.get_mut(name))
            .ok_or_else(no_such_path)?;
        if every {
            node = node.get_mut("items").ok_or_else(no_such_path)?;
        }
    }
    let mut entry = json!({"rule": cel, "message": rule.message});
    // `metadata` has no schema of ours that a fieldPath could name.
    if rule.field.starts_with('.') {
        entry["fieldPath"] = json!(rule.field);
    }
    if matches!(rule.check, Check::Absent) {
        entry["reason"] = json!("FieldValueForbidden");
    }
    match node.get_mut("x-kubernetes-validations").and_then(Value::as_array_mut) {
        Some(entries) => entries.push(entry),
        None => node["x-kubernetes-validations"] = json!([entry]),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::not_yet;

    /// Client-side apply keeps a copy in an annotation of at most 262,144 bytes.
    const SIZE_MAX: usize = 150_000;

    #[test]
    fn the_committed_definitions_are_what_the_types_and_rules_give() {
        let committed = include_str!("../generated/streamaggregations.streamagg.io.yaml");
        let checkpoints = include_str!("../generated/streamcheckpoints.streamagg.io.yaml");
        assert!(
            crd_yaml().unwrap() == committed && checkpoint_crd_yaml().unwrap() == checkpoints,
            "crds/generated is stale; run crds/generate.sh"
        );
    }

    #[test]
    fn the_chart_installs_the_same_definitions() {
        let copy = include_str!("../../charts/streamagg/files/streamaggregations.streamagg.io.yaml");
        let checkpoints = include_str!("../../charts/streamagg/files/streamcheckpoints.streamagg.io.yaml");
        assert!(
            crd_yaml().unwrap() == copy && checkpoint_crd_yaml().unwrap() == checkpoints,
            "the chart's copy is stale; run crds/generate.sh"
        );
    }

    #[test]
    fn the_definition_is_small_enough_for_every_client() {
        let bytes = crd_json().unwrap().to_string().len();
        assert!(bytes < SIZE_MAX, "{bytes} bytes");
    }

    /// Paths of objects and lists in the schema that take anything: the placeholders.
    fn anything(schema: &Value, path: &str, found: &mut Vec<String>) {
        if schema.get("x-kubernetes-preserve-unknown-fields").is_some() {
            found.push(path.to_owned());
            return;
        }
        if let Some(items) = schema.get("items") {
            let before = found.len();
            anything(items, &format!("{path}[]"), found);
            if found.len() > before && found[before] == format!("{path}[]") {
                found[before] = path.to_owned();
            }
        }
        for (name, child) in schema
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            anything(child, &format!("{path}.{name}"), found);
        }
    }

    #[test]
    fn every_field_that_takes_anything_is_refused_by_name() {
        let definition = crd_json().unwrap();
        let mut open = Vec::new();
        anything(
            definition.pointer(&format!("{SCHEMA}/properties/spec")).unwrap(),
            "spec",
            &mut open,
        );
        assert!(!open.is_empty());
        for path in open {
            // A pod template's schema is larger than all of ours; the operator checks it.
            assert!(
                path == "spec.podTemplate" || not_yet().any(|(refused, _)| refused == path),
                "{path} takes anything and no rule refuses it"
            );
        }
    }
}
