//! Every field of the spec arrives: in the job file at its own path, or where this list says. Which fields there are is
//! read from the definition, so that a new one cannot be forgotten.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use streamagg_crds::job_file::JobFile;
use streamagg_crds::v1alpha1::StreamAggregationSpec;

use super::super::{Desired, pods_part};
use crate::controller::fixtures::{aggregation, desired};

/// Where a change shows.
type Reaches = fn(&Desired) -> Value;

fn set(desired: &Desired, pointer: &str) -> Value {
    let set = serde_json::to_value(&desired.objects.stateful_set).unwrap();
    set.pointer(pointer).cloned().unwrap_or_default()
}

const TEMPLATE: &str = "/spec/template/spec";

/// Fields that pods do not read, with a change of each and what it reaches.
fn operators_own() -> Vec<(&'static str, Value, Reaches)> {
    vec![
        ("image", json!({"image": "example.org/other:1"}), |desired| {
            set(desired, &format!("{TEMPLATE}/containers/0/image"))
        }),
        (
            "podTemplate",
            json!({"podTemplate": {"spec": {"schedulerName": "other"}}}),
            |desired| set(desired, &format!("{TEMPLATE}/schedulerName")),
        ),
        ("replicas", json!({"replicas": 3}), |desired| json!(desired.replicas)),
        ("restartNonce", json!({"restartNonce": 7}), |desired| {
            json!(desired.revision)
        }),
        ("suspend", json!({"suspend": true}), |desired| json!(desired.suspend)),
        ("upgrade", json!({"upgrade": {"stabilization": "3m"}}), |desired| {
            json!(desired.stabilization_ms)
        }),
        (
            "state.volume",
            json!({"state": {"volume": {"size": "2Gi", "storageClassName": "fast"}}}),
            |desired| set(desired, "/spec/volumeClaimTemplates/0/spec"),
        ),
    ]
}

/// Read where they count, from the object itself (`observe`, `restore`); the API server tests change them on a live object.
const READ_ELSEWHERE: [&str; 2] = ["deletionPolicy", "restoreFrom"];
/// Refused in this version.
const REFUSED: [&str; 1] = ["autoscaling"];

fn future() -> Value {
    let text = include_str!("../../../../../crds/tests/future.yaml");
    streamagg_crds::manifest::read_yaml(text).unwrap()["spec"].take()
}

/// Pointers of all values that are neither objects nor lists.
fn leaves(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) if !members.is_empty() => members
            .iter()
            .for_each(|(name, member)| leaves(member, &format!("{at}/{}", name.replace('/', "~1")), found)),
        Value::Array(items) if !items.is_empty() => items
            .iter()
            .enumerate()
            .for_each(|(index, item)| leaves(item, &format!("{at}/{index}"), found)),
        _ => found.push(at.to_owned()),
    }
}

fn is_below(pointer: &str, path: &str) -> bool {
    let prefix = format!("/{}", path.replace('.', "/"));
    pointer
        .strip_prefix(&prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[test]
fn the_list_of_all_fields_has_every_member_that_the_definition_has() {
    let definition = streamagg_crds::crd::crd_json().unwrap();
    let schema = definition
        .pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties")
        .unwrap();
    let names = |value: &Value| -> BTreeSet<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(names(&future()), names(schema));
}

#[test]
fn what_pods_read_is_in_the_job_file_at_its_own_path_and_the_rest_has_its_place() {
    // Unions of fields that do not work yet take part too: the job file is made before rules judge.
    let spec: StreamAggregationSpec = serde_json::from_value(future()).unwrap();
    let job = JobFile::new("default", "sample", "uid", pods_part(&spec));
    let text = serde_json::to_string(&job).unwrap();
    let mut file: Value = serde_json::from_str(&text).unwrap();
    // As pods read it: what is a default is left out of the file.
    let read: StreamAggregationSpec = serde_json::from_value(file["spec"].take()).unwrap();
    let (job, future) = (
        serde_json::to_value(&read).unwrap(),
        serde_json::to_value(&spec).unwrap(),
    );
    let mut pointers = Vec::new();
    leaves(&future, "", &mut pointers);
    assert!(pointers.len() > 60, "{}", pointers.len());
    let own: Vec<&str> = operators_own().iter().map(|(path, ..)| *path).collect();
    let elsewhere = own.iter().chain(&READ_ELSEWHERE).chain(&REFUSED);
    for pointer in pointers {
        if elsewhere.clone().any(|path| is_below(&pointer, path)) {
            continue;
        }
        assert_eq!(
            job.pointer(&pointer),
            future.pointer(&pointer),
            "{pointer} is lost: neither in the job file nor in the lists of this test"
        );
    }
}

#[test]
fn what_the_operator_acts_on_itself_reaches_its_place_and_no_job_file() {
    let base = desired(&json!({}), None);
    for (path, change, reaches) in operators_own() {
        let changed = desired(&change, None);
        assert_ne!(reaches(&changed), reaches(&base), "a change of {path} reaches nothing");
        assert_eq!(
            changed.objects.job.metadata.name, base.objects.job.metadata.name,
            "{path} makes another job file"
        );
    }
    for path in READ_ELSEWHERE {
        let pods = |change: &Value| pods_part(&aggregation(change).spec);
        let changed = json!({path: future()[path]});
        assert_eq!(pods(&changed), pods(&json!({})), "{path}");
    }
}
