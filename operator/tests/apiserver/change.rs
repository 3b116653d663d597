//! Fields changed on a live object arrive where they must, by the steps they must.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use streamagg_crds::v1alpha1::{RequestPhase, StreamAggregation, StreamAggregationStatus};

use super::world::{DEADLINE, World};

/// The live template, the job file it mounts and the object's metadata, as one document to look into.
async fn live(world: &World) -> Value {
    let set = world.api::<StatefulSet>().get("sample").await.unwrap();
    let set = serde_json::to_value(set).unwrap();
    let volumes = set.pointer("/spec/template/spec/volumes").and_then(Value::as_array);
    let job = volumes.and_then(|volumes| volumes.iter().find(|volume| volume["name"] == "job"));
    let name = job
        .and_then(|job| job.pointer("/configMap/name")?.as_str())
        .unwrap_or_default();
    let job = world
        .api::<ConfigMap>()
        .get_opt(name)
        .await
        .unwrap()
        .and_then(|map| map.data);
    let job: Value = serde_json::from_str(&job.unwrap_or_default()["job.json"]).unwrap();
    let object = world.api::<StreamAggregation>().get("sample").await.unwrap();
    json!({"set": set["spec"], "job": job["spec"], "finalizers": object.metadata.finalizers})
}

async fn arrives(world: &World, pointer: &str, expected: &Value) {
    let started = Instant::now();
    loop {
        let seen = live(world).await;
        if seen.pointer(pointer).unwrap_or(&Value::Null) == expected {
            return;
        }
        assert!(started.elapsed() < DEADLINE, "{pointer} never {expected}: {seen:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_changed_field_arrives_where_it_must() {
    let world = World::new("fields").await;
    let _operator = world.operator();
    world.create(&json!({})).await;
    world.await_running().await;
    let container = "/set/template/spec/containers/0";
    let pod_template = json!({"metadata": {"annotations": {"a": "b"}}, "spec": {"schedulerName": "other"}});
    let changes = [
        (
            json!({"image": "example.org/streamagg:2"}),
            format!("{container}/image"),
            json!("example.org/streamagg:2"),
        ),
        (
            json!({"resources": {"limits": {"memory": "1Gi"}}}),
            format!("{container}/resources/limits/memory"),
            json!("1Gi"),
        ),
        (
            json!({"podTemplate": pod_template}),
            "/set/template/spec/schedulerName".to_owned(),
            json!("other"),
        ),
        (
            json!({"windows": [{"name": "minute", "tumbling": {"size": "2m"}}]}),
            "/job/windows/0/tumbling/size".to_owned(),
            json!("2m"),
        ),
        (json!({"maxBadRatio": 0.5}), "/job/maxBadRatio".to_owned(), json!(0.5)),
        (
            json!({"sink": {"kafka": {"topic": "elsewhere"}}}),
            "/job/sink/kafka/topic".to_owned(),
            json!("elsewhere"),
        ),
        (
            json!({"state": {"checkpoints": {"interval": "5m"}}}),
            "/job/state/checkpoints/interval".to_owned(),
            json!("5m"),
        ),
        (
            json!({"deletionPolicy": {"state": "Delete"}}),
            "/finalizers/0".to_owned(),
            json!("streamagg.io/state"),
        ),
        (
            json!({"deletionPolicy": {"state": "Retain"}}),
            "/finalizers".to_owned(),
            json!(null),
        ),
        (json!({"replicas": 1}), "/set/replicas".to_owned(), json!(1)),
        (json!({"suspend": true}), "/set/replicas".to_owned(), json!(0)),
    ];
    for (change, pointer, expected) in changes {
        world.change(change).await;
        arrives(&world, &pointer, &expected).await;
    }
    world.await_condition("sample", "Ready", "True", "Suspended").await;
    let policy = world.api::<NetworkPolicy>().get("sample").await.unwrap().spec.unwrap();
    let ports = policy.ingress.unwrap()[0].ports.clone().unwrap();
    assert_eq!(ports.len(), 1, "only the admin port is open");
}

/// A change of every field that pods read and that may change: the member of the spec, and where it shows in the job file.
fn of_pods() -> Vec<(Value, &'static str)> {
    let kafka = |change: Value| json!({"source": {"kafka": change}});
    let event = |change: Value| json!({"event": change});
    let checkpoints = |change: Value| json!({"state": {"checkpoints": change}});
    let s3 = json!({"bucket": "b", "prefix": "p", "endpoint": "http://minio:9000", "region": "eu-1", "secretRef": {"name": "s3"}});
    vec![
        (
            kafka(json!({"bootstrapServers": ["other:9092"]})),
            "source/kafka/bootstrapServers",
        ),
        (
            kafka(json!({"properties": {"client.rack": "a"}})),
            "source/kafka/properties",
        ),
        (
            kafka(json!({"tls": {"caSecretRef": {"name": "ca", "key": "root.crt"}}})),
            "source/kafka/tls",
        ),
        (
            kafka(json!({"sasl": {"mechanism": "ScramSha512", "secretRef": {"name": "user"}}})),
            "source/kafka/sasl/secretRef",
        ),
        (
            json!({"source": {"format": {"json": {"strict": true}}}}),
            "source/format",
        ),
        (event(json!({"timestamp": {"unit": "Seconds"}})), "event/timestamp/unit"),
        (
            event(json!({"watermark": {"boundedOutOfOrderness": {"bound": "9s"}}})),
            "event/watermark",
        ),
        (json!({"where": "event.status < 500"}), "where"),
        (json!({"let": [{"name": "twice", "value": "event.a + event.a"}]}), "let"),
        (
            json!({"groupBy": [{"name": "tenant", "field": "/tenant", "whenMissing": {"default": "none"}}]}),
            "groupBy",
        ),
        (
            json!({"windows": [{"name": "hour", "tumbling": {"size": "1h"}, "allowedLateness": "1m", "panes": "Discarding"}]}),
            "windows/0/allowedLateness",
        ),
        (
            json!({"aggregates": [{"name": "twice", "sum": {"value": "twice"}}]}),
            "aggregates",
        ),
        (
            json!({"sink": {"kafka": {"compression": "None"}}}),
            "sink/kafka/compression",
        ),
        (
            json!({"sink": {"kafka": {"bootstrapServers": ["sink:9092"]}}}),
            "sink/kafka/bootstrapServers",
        ),
        (
            json!({"lateEvents": {"drop": null, "kafka": {"topic": "late"}}}),
            "lateEvents/kafka/topic",
        ),
        (
            json!({"deadLetters": {"drop": null, "kafka": {"topic": "dead"}}}),
            "deadLetters/kafka/topic",
        ),
        (json!({"state": {"memoryBudget": "300Mi"}}), "state/memoryBudget"),
        (
            checkpoints(json!({"retain": {"count": 7, "age": "3d"}})),
            "state/checkpoints/retain",
        ),
        (
            checkpoints(json!({"store": {"volume": null, "s3": s3}})),
            "state/checkpoints/store/s3",
        ),
    ]
}

#[tokio::test]
async fn every_field_that_pods_read_arrives_in_their_job_file_and_the_event_says_what_changed() {
    let world = World::new("job-fields").await;
    let _operator = world.operator();
    world.create(&json!({})).await;
    world.await_running().await;
    for (change, path) in of_pods() {
        let mut expected = &change;
        for segment in path.split('/') {
            expected = match segment.parse::<usize>() {
                Ok(index) => &expected[index],
                Err(_) => &expected[segment],
            };
        }
        world.change(change.clone()).await;
        arrives(&world, &format!("/job/{path}"), expected).await;
    }
    world.await_running().await;
    let events = world.api::<Event>().list(&ListParams::default()).await.unwrap();
    let notes: Vec<_> = events
        .into_iter()
        .filter(|event| event.reason.as_deref() == Some("RolloutStarted"))
        .collect();
    let said = |words: &str| {
        notes
            .iter()
            .filter_map(|event| event.note.as_deref())
            .any(|note| note.contains(words))
    };
    assert!(
        said("event.watermark.boundedOutOfOrderness.bound: 5s → 9s"),
        "{notes:#?}"
    );
    assert!(
        said("aggregates[requests] removed; aggregates[twice] added"),
        "{notes:#?}"
    );
}

#[tokio::test]
async fn a_changed_secret_restarts_the_pods_by_a_rollout_and_a_missing_one_does_not() {
    let world = World::new("secret").await;
    let operator = world.operator();
    let secret = |value: &str| -> Secret {
        serde_json::from_value(json!({"metadata": {"name": "s3"}, "stringData": {"accessKeyId": value}})).unwrap()
    };
    let secrets = world.api::<Secret>();
    secrets.create(&PostParams::default(), &secret("a")).await.unwrap();
    let store = json!({"s3": {"bucket": "b", "secretRef": {"name": "s3"}}});
    let state = json!({"backend": "RocksDB", "volume": {"size": "1Gi"}, "checkpoints": {"store": store}});
    world.create(&json!({"state": state})).await;
    let born = world.await_running().await;
    assert_eq!(born.rollout, None, "born in one go");
    operator.stop().await;
    secrets.delete("s3", &Default::default()).await.unwrap();
    world.look(3).await;
    let (_, away) = world.status("sample").await;
    assert_eq!((&away.rollout, &away.current_revision), (&None, &born.current_revision));
    secrets.create(&PostParams::default(), &secret("b")).await.unwrap();
    let _operator = world.operator();
    world.await_another_revision(&born).await;
    assert!(!world.node.processors.drained().is_empty(), "tasks drained first");
}

async fn annotate(world: &World, key: &str, value: Value) {
    let patch = Patch::Merge(json!({"metadata": {"annotations": {key: value}}}));
    let api = world.api::<StreamAggregation>();
    api.patch("sample", &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test]
async fn annotations_ask_for_a_checkpoint_and_a_restart_and_misuse_is_named() {
    let world = World::new("annotations").await;
    let operator = world.operator();
    world.create(&json!({})).await;
    let born = world.await_running().await;
    annotate(&world, "streamagg.io/checkpoint", json!("before-change")).await;
    let complete = |status: &StreamAggregationStatus| {
        let request = status.checkpoint_request.as_ref();
        request.is_some_and(|request| request.phase == RequestPhase::Complete)
    };
    let status = world.await_status("checkpointed", complete).await;
    let done = status.checkpoint_request.unwrap();
    assert_eq!((done.id.as_str(), done.tasks), ("before-change", 4));
    assert!(world.node.processors.drained().is_empty(), "no task was stopped for it");
    annotate(&world, "streamagg.io/fence", json!("")).await;
    let status = world
        .await_condition("sample", "AnnotationsValid", "False", "NotUnderstood")
        .await;
    let messages: Vec<_> = status
        .conditions
        .iter()
        .map(|condition| condition.message.as_str())
        .collect();
    assert!(
        messages.iter().any(|message| message.contains("spec.suspend")),
        "{messages:?}"
    );
    annotate(&world, "streamagg.io/fence", Value::Null).await;
    annotate(&world, "streamagg.io/restart", json!("2026-01-01T00:00:00Z")).await;
    world.await_another_revision(&born).await;
    let drained = world.node.processors.drained();
    assert_eq!(
        drained.iter().flat_map(|(_, tasks)| tasks).count(),
        4,
        "tasks drained first"
    );
    let restarted = world.await_running().await;
    operator.stop().await;
    annotate(&world, "streamagg.io/restart", Value::Null).await;
    world.look(3).await;
    let (_, after) = world.status("sample").await;
    assert_eq!(
        (after.rollout, after.current_revision),
        (None, restarted.current_revision)
    );
}

#[tokio::test]
async fn a_pause_holds_changes_back_until_it_is_taken_off() {
    let world = World::new("pause").await;
    let _operator = world.operator();
    world.create(&json!({})).await;
    world.await_running().await;
    let annotate = async |value: Value| {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {"streamagg.io/paused": value}}}));
        let api = world.api::<StreamAggregation>();
        api.patch("sample", &PatchParams::default(), &patch).await.unwrap();
    };
    annotate(json!("true")).await;
    world
        .await_condition("sample", "ReconciliationPaused", "True", "Annotation")
        .await;
    let uids = async || -> Vec<_> {
        let pods = world.api::<Pod>().list(&ListParams::default()).await.unwrap();
        pods.iter().filter_map(ResourceExt::uid).collect()
    };
    let before = uids().await;
    world.change(json!({"image": "example.org/streamagg:2"})).await;
    world.await_condition("sample", "Ready", "False", "Paused").await;
    assert_eq!(uids().await, before);
    annotate(Value::Null).await;
    let status = world.await_running().await;
    assert_eq!(status.image.as_deref(), Some("example.org/streamagg:2"));
}

#[tokio::test]
async fn what_happens_again_within_minutes_is_one_event_that_counts() {
    let world = World::new("again").await;
    let _operator = world.operator();
    world.create(&json!({"suspend": true})).await;
    for _ in 0..2 {
        annotate(&world, "streamagg.io/fence", json!("")).await;
        world
            .await_condition("sample", "AnnotationsValid", "False", "NotUnderstood")
            .await;
        annotate(&world, "streamagg.io/fence", Value::Null).await;
        world
            .await_status("understood", |status| {
                let mut all = status.conditions.iter();
                all.all(|condition| condition.type_ != "AnnotationsValid")
            })
            .await;
    }
    let started = Instant::now();
    loop {
        let events = world.api::<Event>().list(&ListParams::default()).await.unwrap().items;
        let ours = events
            .iter()
            .filter(|event| event.reason.as_deref() == Some("AnnotationIgnored"));
        let counts: Vec<_> = ours
            .map(|event| event.series.as_ref().map(|series| series.count))
            .collect();
        if counts == [Some(2)] {
            break;
        }
        assert!(started.elapsed() < DEADLINE, "{counts:?}: {events:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
