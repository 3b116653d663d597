//! Cases in `accept/`, `reject/` and `change/`: patches of `base.yaml` with what is expected of them in comments.
//! Must not know who judges them.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use streamagg_crds::manifest::read_yaml;
use streamagg_crds::rules::{Check, not_yet, rules};

/// One case.
pub struct Case {
    /// File name without extension.
    pub name: String,
    /// The whole manifest.
    pub manifest: Value,
    /// What is wrong with it: path, part of the message.
    pub errors: Vec<(String, String)>,
    /// Whether only the Rust side can see it.
    pub rust_only: bool,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// The manifest that cases patch.
pub fn base() -> Value {
    read_yaml(&std::fs::read_to_string(directory().join("base.yaml")).unwrap()).unwrap()
}

/// What is refused of `future.yaml`, and nothing else.
pub const REFUSED_OF_FUTURE: [&str; 2] = ["spec.autoscaling", "spec.upgrade.rollback"];

/// A manifest with every field of the API, also those that do not work yet.
pub fn future() -> Value {
    let mut manifest = read_yaml(&std::fs::read_to_string(directory().join("future.yaml")).unwrap()).unwrap();
    manifest["metadata"]["namespace"] = Value::from("default");
    manifest
}

/// All cases of a directory, by name.
pub fn cases(kind: &str) -> Vec<Case> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory().join(kind))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no cases in {kind}");
    files.iter().map(|file| case(file)).collect()
}

fn case(file: &Path) -> Case {
    let text = std::fs::read_to_string(file).unwrap();
    let header = |key: &str| -> Vec<String> {
        let prefix = format!("# {key}: ");
        text.lines()
            .filter_map(|line| line.strip_prefix(&prefix))
            .map(str::to_owned)
            .collect()
    };
    let (paths, messages) = (header("path"), header("message"));
    assert_eq!(
        paths.len(),
        messages.len(),
        "{}: a message for each path",
        file.display()
    );
    let mut manifest = base();
    merge(&mut manifest, read_yaml(&text).unwrap());
    Case {
        name: file.file_stem().unwrap().to_string_lossy().into_owned(),
        manifest,
        errors: paths.into_iter().zip(messages).collect(),
        rust_only: header("only") == ["rust"],
    }
}

/// RFC 7386, except that a null of a patch stays where nothing is to be removed (the API must take it as absent).
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let target = target.as_object_mut().unwrap();
    for (name, member) in patch {
        if member.is_null() && target.contains_key(&name) {
            target.remove(&name);
        } else {
            merge(target.entry(name).or_insert(Value::Null), member);
        }
    }
}

/// A case for every field that does not work yet, made from the list itself so that none is forgotten.
pub fn not_yet_cases(spec_schema: &Value) -> Vec<Case> {
    not_yet().map(|(path, _)| not_yet_case(path, spec_schema)).collect()
}

fn not_yet_case(path: &str, spec_schema: &Value) -> Case {
    let mut manifest = base();
    let (mut node, mut schema) = (manifest.get_mut("spec").unwrap(), spec_schema);
    let segments: Vec<&str> = path.split('.').skip(1).collect();
    let mut concrete = "spec".to_owned();
    for (index, segment) in segments.iter().enumerate() {
        let (name, every) = segment
            .strip_suffix("[]")
            .map_or((*segment, false), |name| (name, true));
        schema = &schema["properties"][name];
        concrete = format!("{concrete}.{name}");
        if every {
            schema = &schema["items"];
            // The element that has the member of the rest of the path (`sum` of `sum.value`), else the first.
            let next = segments.get(index + 1).copied().unwrap_or_default();
            let at = node[name]
                .as_array()
                .unwrap()
                .iter()
                .position(|element| element.get(next).is_some())
                .unwrap_or(0);
            concrete = format!("{concrete}[{at}]");
            node = &mut node[name][at];
        } else if index + 1 == segments.len() {
            drop_other_members(path, name, node);
            node[name] = match schema["type"].as_str().unwrap() {
                "string" => Value::from("1m"),
                "array" => serde_json::json!([{"name": "a"}]),
                "object" if schema.get("properties").is_some() => smallest(schema),
                "object" => serde_json::json!({"any": {"thing": 1}}),
                other => panic!("{path}: no example of type {other}"),
            };
        } else {
            if node.get(name).is_none() {
                drop_other_members(&format!("spec.{}", segments[..=index].join(".")), name, node);
                node[name] = serde_json::json!({});
            }
            node = &mut node[name];
        }
    }
    // A store has no place in the base, and needs its other required members to be judged alone.
    if path.contains("checkpoints") {
        manifest["spec"]["state"]["checkpoints"]["interval"] = Value::from("1m");
    }
    Case {
        name: path.to_owned(),
        manifest,
        errors: vec![(
            concrete,
            format!("{path} is not supported yet by this version; remove it"),
        )],
        rust_only: false,
    }
}

/// The required members alone; durations and texts only.
fn smallest(schema: &Value) -> Value {
    let required = schema["required"].as_array().into_iter().flatten();
    required
        .map(|name| (name.as_str().unwrap().to_owned(), Value::from("1m")))
        .collect::<Map<_, _>>()
        .into()
}

/// Where `name` is a member of a union it stands alone, so that nothing else is wrong.
fn drop_other_members(path: &str, name: &str, node: &mut Value) {
    let parent = path.rsplit_once('.').unwrap().0;
    for rule in rules().iter().filter(|rule| rule.path == parent) {
        if let Check::OneOf(members) = rule.check
            && members.contains(&name)
        {
            node.as_object_mut()
                .unwrap()
                .retain(|member, _| !members.contains(&member.as_str()));
        }
    }
}
