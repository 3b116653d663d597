//! Values laid over a manifest: by flag (`--set state.memoryBudget=64Mi`) or by environment
//! (`STREAMAGG_SPEC__STATE__MEMORY_BUDGET=64Mi`). Must not read the environment, nor check the result: the rules do.

use std::fmt;

use serde_json::{Map, Value};

use crate::manifest::read_yaml;
use crate::structure::spec_schema;
use crate::validate::SpecError;

/// What names of environment variables begin with.
pub const ENVIRONMENT_PREFIX: &str = "STREAMAGG_SPEC__";

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A flag.
    Flag,
    /// The environment variable of this name.
    Environment(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => out.write_str("--set"),
            Self::Environment(name) => out.write_str(name),
        }
    }
}

/// One value for one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Where it was given.
    pub origin: Origin,
    /// Path below `spec`: names as they were written, indices of lists as numbers.
    segments: Vec<String>,
    text: String,
}

impl Override {
    /// From `state.memoryBudget=64Mi` or `windows[0].tumbling.size=1m`; `spec.` in front is allowed.
    ///
    /// # Errors
    /// When there is no `=` or no path.
    pub fn from_flag(text: &str) -> Result<Self, SpecError> {
        let (path, value) = text.split_once('=').ok_or_else(|| {
            SpecError::new(
                "",
                format!("--set {text}: expected PATH=VALUE, as in state.memoryBudget=64Mi"),
            )
        })?;
        let path = path
            .strip_prefix("spec.")
            .unwrap_or(path)
            .replace('[', ".")
            .replace(']', "");
        let segments: Vec<String> = path.split('.').map(str::to_owned).collect();
        if segments.iter().any(String::is_empty) {
            return Err(SpecError::new("", format!("--set {text}: the path has an empty part")));
        }
        Ok(Self {
            origin: Origin::Flag,
            segments,
            text: value.to_owned(),
        })
    }

    /// From an environment variable; `None` when it is none of ours.
    pub fn from_environment(name: &str, value: &str) -> Option<Self> {
        let segments = name
            .strip_prefix(ENVIRONMENT_PREFIX)?
            .split("__")
            .map(str::to_owned)
            .collect();
        Some(Self {
            origin: Origin::Environment(name.to_owned()),
            segments,
            text: value.to_owned(),
        })
    }
}

/// Lays `overrides` over a manifest in their order, so that a later one wins. Answers the paths that were set, such as
/// `spec.windows[0].tumbling.size`, each with where it came from.
///
/// # Errors
/// Every override whose path leads nowhere or whose value is not readable.
pub fn apply(manifest: &mut Value, overrides: &[Override]) -> Result<Vec<(String, Origin)>, Vec<SpecError>> {
    let (mut set, mut errors) = (Vec::new(), Vec::new());
    for given in overrides {
        match apply_one(manifest, given) {
            Ok(path) => set.push((path, given.origin.clone())),
            Err(problem) => errors.push(SpecError::new("", format!("{}: {problem}", given.origin))),
        }
    }
    if errors.is_empty() { Ok(set) } else { Err(errors) }
}

fn apply_one(manifest: &mut Value, given: &Override) -> Result<String, String> {
    let Some(root) = manifest.as_object_mut() else {
        return Err("the manifest is no object".to_owned());
    };
    let mut node = root.entry("spec").or_insert_with(|| Value::Object(Map::new()));
    let mut schema = spec_schema();
    let mut path = "spec".to_owned();
    for segment in &given.segments {
        if let Some(items) = schema.get("items") {
            let length = node.as_array().map_or(0, Vec::len);
            let index: usize = segment
                .parse()
                .map_err(|_| format!("{path} is a list: give the number of an element in place of {segment:?}"))?;
            node = node
                .as_array_mut()
                .and_then(|elements| elements.get_mut(index))
                .ok_or_else(|| format!("{path} has {length} elements, there is no element {index} (the first is 0)"))?;
            (schema, path) = (items, format!("{path}[{index}]"));
            continue;
        }
        let (name, member) = member(schema, segment).ok_or_else(|| unknown(schema, &path, segment))?;
        if !node.is_object() {
            *node = Value::Object(Map::new());
        }
        let Some(object) = node.as_object_mut() else {
            return Err(format!("{path} is no object"));
        };
        node = object.entry(name).or_insert(Value::Null);
        (schema, path) = (member, format!("{path}.{name}"));
    }
    *node = read(&given.text, schema)?;
    Ok(path)
}

/// The member that is meant: `MEMORY_BUDGET`, `memory_budget` and `memoryBudget` are one.
fn member<'a>(schema: &'a Value, segment: &'a str) -> Option<(&'a str, &'a Value)> {
    let plain = |name: &str| name.replace('_', "").to_ascii_lowercase();
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        let found = properties.iter().find(|(name, _)| plain(name) == plain(segment))?;
        return Some((found.0, found.1));
    }
    // Names of a map (consumer properties) and what is behind a field without a schema are taken as they are.
    let free = schema.get("additionalProperties");
    let any = schema.get("x-kubernetes-preserve-unknown-fields").map(|_| schema);
    free.or(any).map(|schema| (segment, schema))
}

fn unknown(schema: &Value, path: &str, segment: &str) -> String {
    match schema.get("properties").and_then(Value::as_object) {
        Some(properties) => {
            let known: Vec<&str> = properties.keys().map(String::as_str).collect();
            format!("{path} has no field {segment:?}; known there: {}", known.join(", "))
        }
        None => format!("{path} is a single value, it has no field {segment:?}"),
    }
}

/// A text where a text is expected; otherwise YAML, so that `3`, `true` and `{field: /ts}` mean what they say.
fn read(text: &str, schema: &Value) -> Result<Value, String> {
    let is_text = schema.get("type").and_then(Value::as_str) == Some("string");
    if is_text {
        return Ok(Value::from(text));
    }
    read_yaml(text).map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn laid(overrides: &[Override]) -> Result<(Value, Vec<String>), Vec<String>> {
        let mut manifest = json!({"spec": {"replicas": 1, "windows": [{"name": "a", "tumbling": {"size": "1m"}}]}});
        let texts = |errors: Vec<SpecError>| errors.iter().map(ToString::to_string).collect::<Vec<_>>();
        let set = apply(&mut manifest, overrides).map_err(texts)?;
        let set = set
            .into_iter()
            .map(|(path, origin)| format!("{path} by {origin}"))
            .collect();
        Ok((manifest["spec"].take(), set))
    }

    #[test]
    fn environment_and_flags_name_the_same_fields_and_the_later_wins() {
        let (spec, set) = laid(&[
            Override::from_environment("STREAMAGG_SPEC__STATE__MEMORY_BUDGET", "64Mi").unwrap(),
            Override::from_environment("STREAMAGG_SPEC__REPLICAS", "3").unwrap(),
            Override::from_environment("STREAMAGG_SPEC__WINDOWS__0__TUMBLING__SIZE", "5m").unwrap(),
            Override::from_flag("spec.replicas=4").unwrap(),
            Override::from_flag("windows[0].allowedLateness=1s").unwrap(),
            Override::from_flag("event.timestamp={field: /ts}").unwrap(),
        ])
        .unwrap();
        assert_eq!(
            spec,
            json!({
                "replicas": 4,
                "state": {"memoryBudget": "64Mi"},
                "event": {"timestamp": {"field": "/ts"}},
                "windows": [{"name": "a", "tumbling": {"size": "5m"}, "allowedLateness": "1s"}],
            })
        );
        assert_eq!(
            set[0],
            "spec.state.memoryBudget by STREAMAGG_SPEC__STATE__MEMORY_BUDGET"
        );
        assert_eq!(set[4], "spec.windows[0].allowedLateness by --set");
    }

    #[test]
    fn what_leads_nowhere_is_told_with_what_is_there() {
        let problems = laid(&[
            Override::from_environment("STREAMAGG_SPEC__STATE__MEMRY", "64Mi").unwrap(),
            Override::from_flag("windows[7].name=b").unwrap(),
            Override::from_flag("windows.first.name=b").unwrap(),
            Override::from_flag("replicas.many=b").unwrap(),
        ])
        .unwrap_err();
        for (problem, part) in problems.iter().zip([
            "STREAMAGG_SPEC__STATE__MEMRY: spec.state has no field \"MEMRY\"; known there: backend",
            "spec.windows has 1 elements, there is no element 7",
            "spec.windows is a list: give the number",
            "spec.replicas is a single value",
        ]) {
            assert!(problem.contains(part), "{problem}");
        }
        assert_eq!(problems.len(), 4);
        assert!(Override::from_flag("replicas").is_err());
        assert!(Override::from_flag("a..b=1").is_err());
        assert_eq!(Override::from_environment("PATH", "x"), None);
    }
}
