//! The reference of the manifest (`docs/reference.md`), generated from the schema and the rules, so that it cannot say
//! anything else than what is checked. Must not hold descriptions of fields: these are doc comments of the types.

use serde_json::Value;

use crate::crd::{CrdError, checkpoint_crd_json, crd_json};
use crate::job_file::decides_results;
use crate::rules::{COMPOSITE_MEMBERS, Check, Place, Rule, not_yet, rules};

const OBJECT: &str = "/spec/versions/0/schema/openAPIV3Schema/properties";
const SPEC: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";

const HEAD: &str = "# Reference of the manifest\n\n\
Generated from the API types by `crdgen reference` (`crds/generate.sh`); a test finds drift.\n\n\
A manifest has `apiVersion: streamagg.io/v1alpha1`, `kind: StreamAggregation`, `metadata` and `spec`. \
In a path `[]` stands for each element of a list. *Default* is what holds when the field is absent; a field without one is \
optional. *Change* says what a change of the field does to a running job; \u{201c}cannot\u{201d} means that the API server refuses it, \
\u{201c}new revision\u{201d} that the job is checkpointed and restarted, and that results from the committed position on \
follow the new spec.\n\n\
Durations are a whole number and one of `ms s m h d`; sizes are Kubernetes quantities; fields of events are JSON pointers \
(RFC 6901).\n";

const CHECKPOINT_HEAD: &str = "\n## StreamCheckpoint\n\n\
A checkpoint of an aggregation on demand (short name `scp`), kept until the object is deleted; [operator.md](operator.md#checkpoints) \
says how it comes about. It needs `spec.state.checkpoints.store` of the aggregation.\n\n\
| field | type | what it is |\n|---|---|---|\n";

/// What a change does, by the longest prefix of the path; that of the path itself goes before any rule. Fields that decide
/// results are not here: see [`effect`].
const EFFECTS: [(&str, &str); 18] = [
    ("spec.image", "checkpoint, then restart on the new image"),
    (
        "spec.source.kafka",
        "checkpoint, then restart; the same topic must be behind the addresses",
    ),
    (
        "spec.sink",
        "checkpoint, then restart; later results go to the new place, earlier ones stay where they are",
    ),
    ("spec.event.maxDrift", "checkpoint, then restart"),
    ("spec.maxBadRatio", "checkpoint, then restart"),
    ("spec.replicas", "rescale: only tasks that move to another pod pause"),
    ("spec.state", "checkpoint, then restart"),
    (
        "spec.state.volume.size",
        "the volumes grow; no pod is restarted by that",
    ),
    ("spec.upgrade", "counts from the next change on"),
    ("spec.deletionPolicy", "counts when the object is deleted"),
    ("spec.podTemplate", "checkpoint, then restart"),
    (
        "spec.suspend",
        "true: checkpoint, then no pods; false: goes on where it stopped",
    ),
    ("spec.restartNonce", "checkpoint, then restart"),
    ("spec.restoreFrom", "see its fields; taking it off changes nothing"),
    (
        "spec.restoreFrom.checkpoint",
        "with a higher nonce: goes back; otherwise cannot",
    ),
    (
        "spec.restoreFrom.nonce",
        "raised: all pods are replaced and go back; cannot fall",
    ),
    ("spec.resources", "checkpoint, then restart"),
    ("spec.source", "see its fields"),
];

/// The reference as Markdown.
///
/// # Errors
/// When a rule does not fit the schema.
pub fn reference() -> Result<String, CrdError> {
    let definition = crd_json()?;
    let schema = definition
        .pointer(SPEC)
        .ok_or_else(|| CrdError::NoSuchPath("spec".to_owned()))?;
    let rules = rules();
    let mut rows = Vec::new();
    collect(schema, "spec", rules, &mut rows);
    let mut text = HEAD.to_owned();
    for section in sections(schema) {
        let inside = |row: &&Row| {
            row.path == section
                || row
                    .path
                    .strip_prefix(&section)
                    .is_some_and(|rest| rest.starts_with(['.', '[']))
        };
        text.push_str(&format!(
            "\n## {section}\n\n| field | type | default | change | what it is |\n|---|---|---|---|---|\n"
        ));
        for row in rows.iter().filter(inside).filter(|row| !row.not_yet) {
            text.push_str(&row.markdown());
        }
    }
    text.push_str("\n## Not supported yet\n\nThese are refused by name; a manifest that has one is not accepted.\n\n");
    for row in rows.iter().filter(|row| row.not_yet) {
        let place = not_yet()
            .find(|(path, _)| *path == row.path)
            .map_or("", |(_, from)| place_in_words(from));
        text.push_str(&format!("- `{}`{place}: {}\n", row.path, row.description));
    }
    for rule in rules.iter().filter(|rule| matches!(rule.check, Check::Only(_))) {
        if let Check::Only(value) = &rule.check {
            let place = place_in_words(rule.from);
            text.push_str(&format!("- `{}` other than `{}`{place}\n", rule.path, plain(value)));
        }
    }
    text.push_str("\n## Rules across fields\n\n");
    for rule in rules.iter().filter(|rule| {
        matches!(rule.check, Check::Node(_) | Check::OneOf(_)) && !rule.path.starts_with(COMPOSITE_MEMBERS)
    }) {
        let path = format!("{}{}", rule.path, rule.field);
        let mut marks = String::new();
        if rule.cel.is_none() {
            marks.push_str(" (found by the operator: `SpecValid=False`)");
        }
        marks.push_str(place_in_words(rule.from));
        text.push_str(&format!("- `{path}`: {}{marks}\n", rule.message));
    }
    text.push_str(CHECKPOINT_HEAD);
    let definition = checkpoint_crd_json()?;
    for part in ["spec", "status"] {
        let schema = format!("{OBJECT}/{part}");
        let schema = definition
            .pointer(&schema)
            .ok_or_else(|| CrdError::NoSuchPath("spec".to_owned()))?;
        let mut rows = Vec::new();
        collect(schema, part, &[], &mut rows);
        for row in rows.iter().filter(|row| !row.path.starts_with("status.conditions[]")) {
            let description = row.description.replace('|', "\\|");
            text.push_str(&format!("| `{}` | {} | {description} |\n", row.path, row.kind));
        }
    }
    Ok(text)
}

struct Row {
    path: String,
    kind: String,
    default: String,
    change: String,
    description: String,
    not_yet: bool,
}

impl Row {
    fn markdown(&self) -> String {
        let description = self.description.replace('|', "\\|");
        format!(
            "| `{}` | {} | {} | {} | {description} |\n",
            self.path, self.kind, self.default, self.change
        )
    }
}

/// One section for each member of the spec, those with members of their own first.
fn sections(schema: &Value) -> Vec<String> {
    let names = schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    names
        .filter(|(_, child)| !is_refused(child))
        .map(|(name, _)| format!("spec.{name}"))
        .collect()
}

/// Where a rule holds, when not everywhere.
fn place_in_words(from: Place) -> &'static str {
    match from {
        Place::Laptop => "",
        Place::Kafka => " (with Kafka)",
        Place::Cluster => " (in a cluster)",
    }
}

/// Whether the schema itself refuses the field by name.
fn is_refused(schema: &Value) -> bool {
    let rules = schema.get("x-kubernetes-validations").and_then(Value::as_array);
    rules.into_iter().flatten().any(|rule| rule["rule"] == "false")
}

fn collect(schema: &Value, path: &str, rules: &[Rule], rows: &mut Vec<Row>) {
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (name, child) in schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let at = format!("{path}.{name}");
        let default = match child.get("default") {
            Some(value) => format!("`{}`", plain(value)),
            None if required.contains(&name.as_str()) => "**required**".to_owned(),
            None => String::new(),
        };
        rows.push(Row {
            kind: kind(child),
            default,
            change: effect(&at, rules),
            description: child
                .get("description")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            not_yet: is_refused(child),
            path: at.clone(),
        });
        match child.get("items") {
            // Members of a composite are described as aggregates.
            Some(_) if COMPOSITE_MEMBERS.strip_suffix("[]") == Some(at.as_str()) => {}
            Some(items) => collect(items, &format!("{at}[]"), rules, rows),
            None => collect(child, &at, rules, rows),
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn kind(schema: &Value) -> String {
    use crate::value::{Duration, Instant, JsonPointer, Quantity};
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return values
            .iter()
            .map(|value| format!("`{}`", plain(value)))
            .collect::<Vec<_>>()
            .join(", ");
    }
    match schema.get("pattern").and_then(Value::as_str) {
        Some(Duration::PATTERN) => return "duration".to_owned(),
        Some(Instant::PATTERN) => return "time".to_owned(),
        Some(JsonPointer::PATTERN) => return "pointer".to_owned(),
        Some(Quantity::PATTERN) => return "quantity".to_owned(),
        Some(_) | None => {}
    }
    if schema.get("x-kubernetes-int-or-string").is_some() {
        return "text or integer".to_owned();
    }
    let name = match schema.get("type").and_then(Value::as_str).unwrap_or_default() {
        "array" => "list",
        "string" => "text",
        other => other,
    };
    name.to_owned()
}

/// What a change of the field at `path` does.
fn effect(path: &str, rules: &[Rule]) -> String {
    let within = |prefix: &str| {
        path.strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let fixed =
        |rule: &&Rule| matches!(rule.check, Check::Change(_)) && within(&format!("{}{}", rule.path, rule.field));
    if let Some((_, effect)) = EFFECTS.iter().find(|(exact, _)| *exact == path) {
        return (*effect).to_owned();
    }
    if rules.iter().any(|rule| fixed(&rule)) {
        return "cannot".to_owned();
    }
    if path.strip_prefix("spec.").is_some_and(decides_results) {
        return "new revision".to_owned();
    }
    let longest = EFFECTS
        .iter()
        .filter(|(prefix, _)| within(prefix))
        .max_by_key(|(prefix, _)| prefix.len());
    longest.map(|(_, effect)| (*effect).to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_reference_is_what_the_schema_gives() {
        let committed = include_str!("../../docs/reference.md");
        assert!(
            reference().unwrap() == committed,
            "docs/reference.md is stale; run crds/generate.sh"
        );
    }

    #[test]
    fn every_field_says_what_it_is_and_what_a_change_does() {
        let definition = crd_json().unwrap();
        let mut rows = Vec::new();
        collect(definition.pointer(SPEC).unwrap(), "spec", rules(), &mut rows);
        assert!(rows.len() > 100, "{} fields", rows.len());
        for row in rows.iter().filter(|row| !row.not_yet) {
            assert!(!row.description.is_empty(), "{} has no description", row.path);
            assert!(!row.change.is_empty(), "{} does not say what a change does", row.path);
        }
    }
}
