//! A manifest as text: YAML or JSON, read outside a cluster. Must not open files.

use serde::{Deserialize, Serialize};

use crate::v1alpha1::{API_VERSION, KIND, StreamAggregationSpec};
use crate::validate::SpecError;

/// A `StreamAggregation` as it stands in a file; what Kubernetes adds is left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// `streamagg.io/v1alpha1`.
    pub api_version: String,
    /// `StreamAggregation`.
    pub kind: String,
    /// Name and namespace.
    pub metadata: Metadata,
    /// What is declared.
    pub spec: StreamAggregationSpec,
}

/// Name and namespace of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Name of the object.
    pub name: String,
    /// Its namespace; `default` when the manifest names none.
    #[serde(default = "default_namespace")]
    pub namespace: String,
}

fn default_namespace() -> String {
    "default".to_owned()
}

/// Reads one manifest from YAML or JSON and checks it by every rule.
///
/// # Errors
/// Every problem found, each with its path.
pub fn parse_manifest(text: &str) -> Result<Manifest, Vec<SpecError>> {
    let manifest: Manifest = serde_yaml::from_str(text).map_err(|error| vec![SpecError::new("", error.to_string())])?;
    let mut errors = Vec::new();
    if manifest.api_version != API_VERSION {
        errors.push(SpecError::new(
            "apiVersion",
            format!("found {:?}; it must be {API_VERSION}", manifest.api_version),
        ));
    }
    if manifest.kind != KIND {
        errors.push(SpecError::new(
            "kind",
            format!("found {:?}; it must be {KIND}", manifest.kind),
        ));
    }
    errors.extend(crate::validate::validate(&manifest.spec));
    if errors.is_empty() { Ok(manifest) } else { Err(errors) }
}
