//! Every case is judged as it should be by the Rust side, and every manifest of `config/` is valid.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking, like the tests themselves"
)]

mod cases;

use std::path::{Path, PathBuf};

use cases::{Case, REFUSED_OF_FUTURE, base, cases, future, not_yet_cases};
use streamagg_crds::job_file::{JobFile, pipeline_revision};
use streamagg_crds::manifest::{self, from_value, parse_manifest};
use streamagg_crds::rules::{Place, not_yet, rules};
use streamagg_crds::structure::spec_schema;
use streamagg_crds::validate::{SpecError, resolve, validate_change};

fn judge(case: &Case) -> Vec<SpecError> {
    from_value(case.manifest.clone(), Place::Cluster)
        .err()
        .unwrap_or_default()
}

fn assert_refused(case: &Case, found: &[SpecError]) {
    for (path, message) in &case.errors {
        let seen = found
            .iter()
            .any(|error| error.path == *path && error.message.contains(message));
        assert!(seen, "{}: expected {path}: {message}, found {found:#?}", case.name);
    }
    assert_eq!(found.len(), case.errors.len(), "{}: {found:#?}", case.name);
}

#[test]
fn what_is_right_is_accepted_and_resolved() {
    for case in cases("accept") {
        let manifest =
            from_value(case.manifest, Place::Cluster).unwrap_or_else(|errors| panic!("{}: {errors:#?}", case.name));
        resolve(&manifest.spec, "default", "base").unwrap_or_else(|errors| panic!("{}: {errors:#?}", case.name));
    }
}

#[test]
fn what_is_wrong_is_refused_with_its_path_and_nothing_else_is() {
    for case in cases("reject") {
        assert_refused(&case, &judge(&case));
    }
}

#[test]
fn every_rule_that_only_rust_checks_has_a_case_that_says_so() {
    let cases = cases("reject");
    for rule in rules().iter().filter(|rule| rule.cel.is_none()) {
        let shown =
            |case: &Case| case.rust_only && case.errors.iter().any(|(_, message)| rule.message.contains(message));
        assert!(cases.iter().any(shown), "{}: {}", rule.path, rule.message);
    }
}

#[test]
fn every_field_that_does_not_work_yet_is_refused_by_name() {
    for case in not_yet_cases(spec_schema()) {
        assert_refused(&case, &judge(&case));
    }
}

#[test]
fn every_field_of_the_api_is_known_and_what_does_not_work_yet_is_all_that_is_refused() {
    let mut paths: Vec<String> = from_value(future(), Place::Cluster)
        .unwrap_err()
        .into_iter()
        .map(|error| error.path)
        .collect();
    paths.sort();
    assert_eq!(paths, REFUSED_OF_FUTURE);
}

#[test]
fn what_cannot_change_is_refused_with_its_path() {
    let old = from_value(base(), Place::Cluster).unwrap().spec;
    for case in cases("change") {
        let new = from_value(case.manifest.clone(), Place::Cluster).unwrap().spec;
        assert_refused(&case, &validate_change(&new, &old));
    }
}

#[test]
fn all_problems_are_listed_at_once() {
    let errors = parse_manifest(
        "{apiVersion: streamagg.io/v1, kind: Stream, spec: {explode: {}, source: {partitioning: {any: {}}}, windows: [{size: 1m}]}, spce: 1}",
    )
    .unwrap_err();
    let paths: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
    for path in [
        "apiVersion",
        "kind",
        "metadata.name",
        "spce",
        "spec.aggregates",
        "spec.event",
        "spec.sink",
        "spec.source",
        "spec.explode.field",
        "spec.windows[0].name",
        "spec.windows[0].size",
        "spec.windows[0]",
    ] {
        assert!(paths.contains(&path), "{path} is not in {paths:?}");
    }
}

#[test]
fn text_that_is_no_manifest_is_refused_with_the_place_of_the_mistake() {
    for (text, part) in [
        ("a: [", "line"),
        ("just text", "expected an object"),
        ("", "expected an object"),
        ("a: 1\n---\nb: 2", "several documents"),
        ("a: 1\na: 2", "duplicate"),
        ("{? [1, 2] : 3}", "a key is a list"),
        ("a: !thing 1", "tag"),
        ("a: .nan", "no number"),
    ] {
        let errors = parse_manifest(text).unwrap_err();
        assert!(
            errors.iter().any(|error| error.to_string().contains(part)),
            "{text:?}: {errors:?}"
        );
    }
}

#[test]
fn anchors_merge_keys_and_json_are_read() {
    let text = "a: &a {x: 1}\nb:\n  <<: *a\n  y: 2\nnull: 3";
    assert_eq!(
        manifest::read_yaml(text).unwrap(),
        serde_json::json!({"a": {"x": 1}, "b": {"x": 1, "y": 2}, "null": 3})
    );
    let json = base().to_string();
    assert_eq!(parse_manifest(&json).unwrap().metadata.name, "base");
}

#[test]
fn a_laptop_needs_neither_volume_nor_claim() {
    let needs = ["rocksdb-without-volume", "checkpoints-without-claim"];
    let found: Vec<Case> = cases("reject")
        .into_iter()
        .filter(|case| needs.contains(&case.name.as_str()))
        .collect();
    assert_eq!(found.len(), needs.len());
    for case in found {
        parse_manifest(&case.manifest.to_string()).unwrap_or_else(|errors| panic!("{}: {errors:#?}", case.name));
    }
}

#[test]
fn a_laptop_takes_what_concerns_brokers_and_pods_without_acting_on_it() {
    let refused = |place| {
        let errors = from_value(future(), place).err().unwrap_or_default();
        errors.into_iter().map(|error| error.path).collect::<Vec<_>>()
    };
    let (laptop, kafka) = (refused(Place::Laptop), refused(Place::Kafka));
    for (path, from) in not_yet().filter(|(path, _)| !path.contains("[]")) {
        let name = path.to_owned();
        if REFUSED_OF_FUTURE.contains(&path) {
            assert_eq!(laptop.contains(&name), from == Place::Laptop, "{path}");
            assert_eq!(kafka.contains(&name), from <= Place::Kafka, "{path}");
        }
    }
    assert!(!laptop.contains(&"spec.upgrade.rollback".to_owned()), "{laptop:?}");
}

fn yaml_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(yaml_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
    files
}

#[test]
fn every_sample_is_valid_in_a_cluster_and_on_a_laptop() {
    let files = yaml_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/samples"));
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        let value = manifest::read_yaml(&std::fs::read_to_string(&file).unwrap()).unwrap();
        for place in [Place::Cluster, Place::Laptop] {
            let manifest =
                from_value(value.clone(), place).unwrap_or_else(|errors| panic!("{}: {errors:#?}", file.display()));
            resolve(&manifest.spec, &manifest.metadata.namespace, &manifest.metadata.name).unwrap();
        }
    }
}

#[test]
fn a_revision_changes_with_results_and_with_nothing_else() {
    let spec = |patch: serde_json::Value| {
        let mut value = base();
        // The pinned text is that of the first five aggregates; later ones come and go.
        value["spec"]["aggregates"].as_array_mut().unwrap().truncate(5);
        for (pointer, member) in patch.as_object().unwrap() {
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            value.pointer_mut(parent).unwrap()[name] = member.clone();
        }
        from_value(value, Place::Laptop).unwrap().spec
    };
    let revision = pipeline_revision(&spec(serde_json::json!({})));
    for same in [
        serde_json::json!({"/spec/replicas": 3, "/spec/image": "x", "/spec/suspend": true, "/spec/restartNonce": 1}),
        serde_json::json!({"/spec/state": {"memoryBudget": "1Gi"}, "/spec/resources": {"limits": {"cpu": 1}}}),
        serde_json::json!({"/spec/windows/0/tumbling/size": "60s", "/spec/windows/0/panes": "Accumulating"}),
        serde_json::json!({"/spec/source/format": {"json": {"strict": false}}}),
    ] {
        assert_eq!(pipeline_revision(&spec(same.clone())), revision, "{same}");
    }
    for other in [
        serde_json::json!({"/spec/windows/0/tumbling/size": "2m"}),
        serde_json::json!({"/spec/source/format": {"json": {"strict": true}}}),
        serde_json::json!({"/spec/aggregates/1/sum/field": "/other"}),
        serde_json::json!({"/spec/event/timestamp/unit": "Seconds"}),
        serde_json::json!({"/spec/lateEvents": {"kafka": {"topic": "late"}}}),
        serde_json::json!({"/spec/source/kafka/loadShedding": {}}),
    ] {
        assert_ne!(pipeline_revision(&spec(other.clone())), revision, "{other}");
    }
    // Pinned: a change of this text makes a rollout of every job when the operator is upgraded.
    assert_eq!(revision, "8e5f62e5aad4");
}

#[test]
fn a_job_file_comes_back_as_it_was_written_and_refuses_what_it_does_not_know() {
    let spec = from_value(base(), Place::Cluster).unwrap().spec;
    let file = JobFile::new("default", "base", "uid-1", spec);
    assert_eq!((file.job_id.as_str(), file.version), ("default.base", 1));
    let mut value = serde_json::to_value(&file).unwrap();
    // Pinned: another text makes another ConfigMap, and so restarts every pod when the operator is upgraded.
    assert_eq!(
        value["spec"]["windows"][1],
        serde_json::json!({"name": "five-minutes", "sliding": {"size": "5m", "slide": "1m"}})
    );
    let members: Vec<&String> = value["spec"].as_object().unwrap().keys().collect();
    assert_eq!(
        members,
        [
            "aggregates",
            "event",
            "groupBy",
            "restoreFrom",
            "sink",
            "source",
            "state",
            "windows"
        ]
    );
    assert_eq!(JobFile::parse(&value.to_string()).unwrap(), file);
    for (pointer, member, part) in [
        (
            "/spec/aggregates/0/novelty",
            serde_json::json!({}),
            "spec.aggregates[0].novelty: unknown field",
        ),
        ("/spec/where", serde_json::json!("x"), "unknown name x"),
        ("/version", serde_json::json!(2), "version 2 is not supported"),
    ] {
        let mut changed = value.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        changed.pointer_mut(parent).unwrap()[name] = member;
        let error = JobFile::parse(&changed.to_string()).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    value["restore"] = serde_json::json!("x");
    assert!(JobFile::parse(&value.to_string()).is_err());
}
