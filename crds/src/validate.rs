//! Everything that is checked of a manifest before it runs, for the operator and for the processor: the schema, then
//! the rules. Must not change a spec.

use std::fmt;

use serde_json::{Value, json};

use crate::expression;
use crate::resolved::Resolved;
use crate::rules::{self, Place};
use crate::structure;
use crate::v1alpha1::StreamAggregationSpec;

/// One thing wrong with a manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub struct SpecError {
    /// Where, such as `spec.windows[0].tumbling.size`; empty for the document as a whole.
    pub path: String,
    /// What was found and what would be right.
    pub message: String,
}

impl SpecError {
    /// An error at a path.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            out.write_str(&self.message)
        } else {
            write!(out, "{}: {}", self.path, self.message)
        }
    }
}

/// Everything wrong with a spec that is to run on lines or on Kafka; empty when it can. In a cluster use
/// [`validate_for_cluster`].
pub fn validate(spec: &StreamAggregationSpec, place: Place) -> Vec<SpecError> {
    check_value(&json!({"spec": spec}), place)
}

/// Everything wrong with the object `namespace`/`name` that is to run in a cluster.
pub fn validate_for_cluster(namespace: &str, name: &str, spec: &StreamAggregationSpec) -> Vec<SpecError> {
    check_value(
        &json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec}),
        Place::Cluster,
    )
}

/// Everything that cannot change from `old` to `new`, both valid by themselves. The API server refuses such a change;
/// this is for a spec that is compared with an older one than the API server saw.
pub fn validate_change(new: &StreamAggregationSpec, old: &StreamAggregationSpec) -> Vec<SpecError> {
    let (new, old) = (json!({"spec": new}), json!({"spec": old}));
    let mut errors = Vec::new();
    for rule in rules::rules() {
        let before = rules::locate(&old, &rule.path);
        for (new, old) in rules::locate(&new, &rule.path).iter().zip(&before) {
            if !rule.check.holds_for_change(new.node, old.node) {
                errors.push(SpecError::new(
                    format!("{}{}", new.path(), rule.field),
                    rule.message.clone(),
                ));
            }
        }
    }
    errors
}

/// Everything wrong with a manifest's `metadata` (where it is given) and `spec`, whose defaults are filled in.
pub(crate) fn check_value(root: &Value, place: Place) -> Vec<SpecError> {
    let Some(spec) = root.get("spec") else {
        return vec![SpecError::new("spec", "is required but missing")];
    };
    let mut errors = structure::check(spec, structure::spec_schema(), "spec");
    for rule in rules::rules() {
        if rule.from > place {
            continue;
        }
        for found in rules::locate(root, &rule.path) {
            if !rule.check.holds(found.node) {
                errors.push(SpecError::new(
                    format!("{}{}", found.path(), rule.field),
                    rule.message.clone(),
                ));
            }
        }
    }
    errors.extend(expression::check_manifest(spec));
    errors
}

/// The job a valid spec declares, for the object `namespace`/`name`.
///
/// # Errors
/// Everything wrong with the spec, as [`validate`] says.
pub fn resolve(spec: &StreamAggregationSpec, namespace: &str, name: &str) -> Result<Resolved, Vec<SpecError>> {
    let errors = validate(spec, Place::Laptop);
    if !errors.is_empty() {
        return Err(errors);
    }
    resolve_valid(spec, namespace, name).ok_or_else(|| {
        vec![SpecError::new(
            "spec",
            "a union has no member that this version supports",
        )]
    })
}

/// The same of a spec in which [`validate`] or [`validate_for_cluster`] found nothing wrong; `None` when they would have.
pub fn resolve_valid(spec: &StreamAggregationSpec, namespace: &str, name: &str) -> Option<Resolved> {
    Resolved::from_valid(spec, job_id(spec, namespace, name))
}

/// Identity of the job towards Kafka: `spec.jobId`, or `<namespace>.<name>`.
pub fn job_id(spec: &StreamAggregationSpec, namespace: &str, name: &str) -> String {
    spec.job_id.clone().unwrap_or_else(|| format!("{namespace}.{name}"))
}
