//! A manifest as text: YAML or JSON, read outside a cluster. Must not open files.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::rules::Place;
use crate::structure;
use crate::v1alpha1::{API_VERSION, KIND, StreamAggregationSpec};
use crate::validate::{self, SpecError};

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

/// Reads one manifest from YAML or JSON and checks it by every rule that holds on a laptop.
///
/// # Errors
/// Every problem found, each with its path.
pub fn parse_manifest(text: &str) -> Result<Manifest, Vec<SpecError>> {
    from_value(read_yaml(text)?, Place::Laptop)
}

/// Reads YAML or JSON into a JSON value, before anything is checked (so that a caller can lay overrides over it).
///
/// # Errors
/// When the text is not YAML, holds several documents, or has a key that JSON cannot hold.
pub fn read_yaml(text: &str) -> Result<Value, Vec<SpecError>> {
    let error = |message: String| vec![SpecError::new("", format!("not readable as YAML or JSON: {message}"))];
    let mut value: serde_yaml::Value = serde_yaml::from_str(text).map_err(|problem| match problem.to_string() {
        several if several.contains("more than one document") => vec![SpecError::new(
            "",
            "holds several documents; give each manifest a file of its own",
        )],
        other => error(other),
    })?;
    value.apply_merge().map_err(|problem| error(problem.to_string()))?;
    to_json(value).map_err(error)
}

/// Like the conversion of `kubectl`, except that a null key is taken as its text: `whenMissing: {null: {}}` without
/// quotes is read here and refused by `kubectl`.
fn to_json(value: serde_yaml::Value) -> Result<Value, String> {
    use serde_yaml::Value as Yaml;
    Ok(match value {
        Yaml::Mapping(mapping) => {
            let mut object = Map::new();
            for (key, member) in mapping {
                let key = match key {
                    Yaml::String(text) => text,
                    Yaml::Null => "null".to_owned(),
                    Yaml::Bool(flag) => flag.to_string(),
                    Yaml::Number(number) => number.to_string(),
                    Yaml::Sequence(_) | Yaml::Mapping(_) | Yaml::Tagged(_) => {
                        return Err("a key is a list or an object".to_owned());
                    }
                };
                object.insert(key, to_json(member)?);
            }
            Value::Object(object)
        }
        Yaml::Sequence(elements) => Value::Array(elements.into_iter().map(to_json).collect::<Result<_, _>>()?),
        Yaml::Number(number) if number.as_f64().is_some_and(|number| !number.is_finite()) => {
            return Err(format!("{number} is no number of JSON"));
        }
        Yaml::Tagged(tagged) => return Err(format!("the tag {} has no meaning here", tagged.tag)),
        scalar @ (Yaml::Null | Yaml::Bool(_) | Yaml::Number(_) | Yaml::String(_)) => {
            serde_json::to_value(scalar).map_err(|problem| problem.to_string())?
        }
    })
}

/// Checks a manifest by every rule that holds in `place` and gives it its type.
///
/// # Errors
/// Every problem found, each with its path.
pub fn from_value(mut value: Value, place: Place) -> Result<Manifest, Vec<SpecError>> {
    if let Some(spec) = value.get_mut("spec") {
        structure::fill_defaults(spec, structure::spec_schema());
    }
    let mut errors = check_envelope(&value);
    errors.extend(validate::check_value(&value, place));
    if !errors.is_empty() {
        return Err(errors);
    }
    // Everything a user can get wrong was said above, so the path that serde adds is for our own mistakes.
    serde_path_to_error::deserialize(value)
        .map_err(|problem| vec![SpecError::new(problem.path().to_string(), problem.inner().to_string())])
}

/// What stands around `spec`.
fn check_envelope(root: &Value) -> Vec<SpecError> {
    let Some(object) = root.as_object() else {
        return vec![SpecError::new(
            "",
            format!("expected an object with apiVersion: {API_VERSION}, kind: {KIND}"),
        )];
    };
    let mut errors = Vec::new();
    for (name, expected) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        match object.get(name).and_then(Value::as_str) {
            Some(found) if found == expected => {}
            Some(found) => errors.push(SpecError::new(name, format!("found {found:?}; expected {expected}"))),
            None => errors.push(SpecError::new(name, format!("is missing; expected {expected}"))),
        }
    }
    match root.pointer("/metadata/name") {
        Some(Value::String(_)) => {}
        Some(_) => errors.push(SpecError::new("metadata.name", "expected a text: put it in quotes")),
        None => errors.push(SpecError::new("metadata.name", "is required but missing")),
    }
    if root
        .pointer("/metadata/namespace")
        .is_some_and(|namespace| !namespace.is_string())
    {
        errors.push(SpecError::new("metadata.namespace", "expected a text"));
    }
    let known = ["apiVersion", "kind", "metadata", "spec", "status"];
    let unknown = object.keys().filter(|name| !known.contains(&name.as_str()));
    errors.extend(unknown.map(|name| SpecError::new(name, format!("unknown field; known here: {}", known.join(", ")))));
    errors
}
