//! Golden manifests of the samples, and what changes a revision. `UPDATE_GOLDEN=1 cargo test` writes them anew.

mod fields;

use std::path::Path;

use serde_json::{Value, json};
use streamagg_crds::job_file::{JobFile, Restore};
use streamagg_crds::v1alpha1::StreamAggregation;

use super::{Desired, build};
use crate::controller::fixtures::{desired, desired_with};
use crate::controller::observed::{References, StatefulSetFacts, VolumeFacts};
use crate::controller::validate::validate;

/// Every sample and its rendered objects, one YAML-free JSON file each.
#[test]
fn samples_render_as_their_golden_files_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let samples = root.join("../config/samples");
    let mut seen = 0;
    for entry in std::fs::read_dir(&samples).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let rendered = format!("{:#}\n", render(&path, &text));
        let name = path.file_stem().unwrap().to_str().unwrap();
        let golden = root.join("tests/golden").join(format!("{name}.json"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(golden.parent().unwrap()).unwrap();
            std::fs::write(&golden, &rendered).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        assert!(
            expected == rendered,
            "{name} renders differently; UPDATE_GOLDEN=1 writes it anew:\n{rendered}"
        );
        seen += 1;
    }
    assert!(seen > 0, "no samples in {}", samples.display());
}

fn render(path: &Path, text: &str) -> Value {
    let mut manifest = streamagg_crds::manifest::read_yaml(text).unwrap();
    manifest["metadata"]["namespace"] = "default".into();
    manifest["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000".into();
    let aggregation: StreamAggregation = serde_json::from_value(manifest).unwrap();
    let validated = validate(
        &aggregation,
        None,
        Some("localhost/streamagg:dev"),
        &References::None,
        None,
    );
    let desired = build(&validated.unwrap_or_else(|problems| panic!("{}: {problems:?}", path.display())));
    objects(&desired)
}

fn objects(desired: &Desired) -> Value {
    let objects = &desired.objects;
    json!([
        objects.service_account,
        objects.service,
        objects.disruption_budget,
        objects.network_policy,
        objects.job,
        objects.stateful_set
    ])
}

#[test]
fn only_what_pods_see_changes_the_revision() {
    let base = desired(&json!({}), None);
    let same = [
        json!({"replicas": 3}),
        json!({"suspend": true}),
        json!({"upgrade": {"onCheckpointFailure": "Block"}}),
    ];
    for change in same {
        assert_eq!(desired(&change, None).revision, base.revision, "{change}");
    }
    let other = [
        json!({"image": "example.org/streamagg:2"}),
        json!({"restartNonce": 1}),
        json!({"resources": {"limits": {"memory": "1Gi"}}}),
        json!({"windows": [{"name": "hour", "tumbling": {"size": "1h"}}]}),
    ];
    for change in other {
        assert_ne!(desired(&change, None).revision, base.revision, "{change}");
    }
    let restarted = desired(&json!({"restartNonce": 1}), None);
    assert_eq!(
        restarted.content, base.content,
        "a restart changes nothing but the nonce"
    );
}

#[test]
fn an_order_to_go_back_is_in_the_job_file_and_changes_no_pipeline() {
    let base = desired(&json!({}), None);
    let order = Restore {
        nonce: 1,
        checkpoint: "before".to_owned(),
        tasks: [(0, "a".to_owned())].into(),
    };
    let back = desired_with(&json!({}), None, Some(order.clone()));
    assert_eq!(back.pipeline_revision, base.pipeline_revision);
    assert_ne!(back.revision, base.revision, "pods are replaced");
    let text = &back.objects.job.data.as_ref().unwrap()["job.json"];
    assert_eq!(JobFile::parse(text).unwrap().restore, Some(order));
    let asked = json!({"restoreFrom": {"checkpoint": "before", "nonce": 1}});
    assert_eq!(
        desired(&asked, None).revision,
        base.revision,
        "the wish alone is nothing for pods"
    );
}

#[test]
fn a_request_to_restart_makes_a_revision_that_stays_when_the_annotation_goes() {
    let base = desired(&json!({}), None);
    let build_with = |request: Option<&str>, live: Option<&StatefulSetFacts>| {
        let mut aggregation = crate::controller::fixtures::aggregation(&json!({}));
        let annotations = request.map(|text| [("streamagg.io/restart".to_owned(), text.to_owned())].into());
        aggregation.metadata.annotations = annotations;
        let validated = validate(&aggregation, live, None, &References::None, None);
        build(&validated.unwrap())
    };
    let asked = build_with(Some("now"), None);
    assert_eq!(asked.content, base.content, "a restart and no upgrade");
    assert_ne!(asked.revision, base.revision);
    let live = crate::controller::observe::stateful_set_facts(&asked.objects.stateful_set);
    assert_eq!(live.restart_request.as_deref(), Some("now"));
    assert_eq!(build_with(None, Some(&live)).revision, asked.revision);
    assert_ne!(build_with(Some("later"), Some(&live)).revision, asked.revision);
    assert_eq!(
        build_with(None, None).revision,
        base.revision,
        "nothing restarts where none was asked for"
    );
}

#[test]
fn the_default_image_is_pinned_until_the_nonce_changes() {
    let first = desired(&json!({"image": null}), None);
    assert_eq!(first.image, "example.org/default:1");
    let live = StatefulSetFacts {
        image: "example.org/default:0".to_owned(),
        image_is_default: true,
        restart_nonce: Some(0),
        volume: volume("1Gi"),
        ..StatefulSetFacts::default()
    };
    assert_eq!(
        desired(&json!({"image": null}), Some(&live)).image,
        "example.org/default:0"
    );
    assert_eq!(
        desired(&json!({"image": null, "restartNonce": 1}), Some(&live)).image,
        "example.org/default:1"
    );
}

#[test]
fn the_job_file_loads_as_the_pods_load_it() {
    let desired = desired(&json!({}), None);
    let text = &desired.objects.job.data.as_ref().unwrap()["job.json"];
    let job = JobFile::parse(text).unwrap();
    assert_eq!((job.name.as_str(), job.uid.as_str()), ("sample", "uid-1"));
    assert_eq!(job.revision, desired.pipeline_revision);
}

fn volume(size: &str) -> Option<VolumeFacts> {
    Some(VolumeFacts {
        bytes: size.parse::<streamagg_crds::value::Quantity>().unwrap().units(),
        size: size.to_owned(),
        class: None,
    })
}

#[test]
fn a_volume_grows_but_neither_shrinks_nor_changes_its_class() {
    let live = StatefulSetFacts {
        volume: volume("1Gi"),
        ..StatefulSetFacts::default()
    };
    for (change, refused) in [
        (json!({"size": "1024Mi"}), None),
        (json!({"size": "2Gi"}), None),
        (
            json!({"size": "1023Mi"}),
            Some(("spec.state.volume.size", "is 1Gi, asked for 1023Mi")),
        ),
        (
            json!({"storageClassName": "fast"}),
            Some(("spec.state.volume.storageClassName", "fast")),
        ),
    ] {
        let aggregation = crate::controller::fixtures::aggregation(&json!({"state": {"volume": change}}));
        let problems = validate(&aggregation, Some(&live), None, &References::None, None)
            .err()
            .unwrap_or_default();
        let found: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            found,
            refused.map(|(path, _)| path).into_iter().collect::<Vec<_>>(),
            "{change}"
        );
        assert!(
            refused.is_none_or(|(_, part)| problems[0].message.contains(part)),
            "{problems:?}"
        );
    }
    let base = desired(&json!({}), None);
    let grown = desired(&json!({"state": {"volume": {"size": "2Gi"}}}), None);
    assert_eq!(grown.revision, base.revision, "growth restarts no pod");
}

#[test]
fn what_the_spec_refers_to_is_part_of_the_revision_and_what_is_missing_stays_as_it_was() {
    let aggregation = crate::controller::fixtures::aggregation(&json!({}));
    let revision = |references: &References, live: Option<&StatefulSetFacts>| {
        build(&validate(&aggregation, live, None, references, None).unwrap()).revision
    };
    let digest = |text: &str| References::Digest(text.to_owned());
    let first = revision(&digest("a"), None);
    assert_ne!(first, revision(&digest("b"), None));
    assert_ne!(first, revision(&References::None, None));
    let live = StatefulSetFacts {
        references: Some("a".to_owned()),
        volume: volume("1Gi"),
        ..StatefulSetFacts::default()
    };
    assert_eq!(
        first,
        revision(&References::Missing("secret s3".to_owned()), Some(&live))
    );
}

#[test]
fn credentials_of_a_store_in_a_bucket_come_from_its_secret() {
    for (store, variable, key) in [
        (
            json!({"gcs": {"bucket": "b", "secretRef": {"name": "keys"}}}),
            "GOOGLE_SERVICE_ACCOUNT_KEY",
            "serviceAccountKey",
        ),
        (
            json!({"azure": {"account": "llm", "container": "checkpoints", "secretRef": {"name": "keys"}}}),
            "AZURE_STORAGE_ACCOUNT_KEY",
            "accountKey",
        ),
    ] {
        let mut store = store;
        store["volume"] = Value::Null;
        let desired = desired(&json!({"state": {"checkpoints": {"store": store}}}), None);
        let set = serde_json::to_value(&desired.objects.stateful_set).unwrap();
        let environment = set.pointer("/spec/template/spec/containers/0/env").unwrap();
        let wanted = json!({"name": variable, "valueFrom": {"secretKeyRef": {"name": "keys", "key": key}}});
        let found = environment.as_array().unwrap().contains(&wanted);
        assert!(found, "{wanted} is not in {environment:#}");
    }
}

#[test]
fn the_revision_of_a_spec_is_pinned() {
    // Another value restarts every pod of every job when the operator is upgraded.
    assert_eq!(desired(&json!({}), None).revision, "bbbe57e348");
}
