//! The rules a spec must meet, for the operator and for the processor. Must not change a spec.

use std::fmt;

use crate::resolved::Resolved;
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

/// Everything wrong with a spec; empty when it can run.
pub fn validate(spec: &StreamAggregationSpec) -> Vec<SpecError> {
    match Resolved::from_valid(spec, String::new()) {
        Some(_) => Vec::new(),
        None => vec![SpecError::new(
            "spec",
            "a union has no member that this version supports",
        )],
    }
}

/// The job a valid spec declares, for the object `namespace`/`name`.
///
/// # Errors
/// Everything wrong with the spec, as [`validate`] says.
pub fn resolve(spec: &StreamAggregationSpec, namespace: &str, name: &str) -> Result<Resolved, Vec<SpecError>> {
    let errors = validate(spec);
    if !errors.is_empty() {
        return Err(errors);
    }
    Resolved::from_valid(spec, job_id(spec, namespace, name)).ok_or_else(|| {
        vec![SpecError::new(
            "spec",
            "a union has no member that this version supports",
        )]
    })
}

/// Identity of the job towards Kafka: `spec.jobId`, or `<namespace>.<name>`.
pub fn job_id(spec: &StreamAggregationSpec, namespace: &str, name: &str) -> String {
    spec.job_id.clone().unwrap_or_else(|| format!("{namespace}.{name}"))
}
