//! Checkpoints on demand: taken, pinned, kept until the object is deleted, and never in the way of a deletion.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use streamagg_crds::v1alpha1::{CheckpointPhase, StreamAggregation, StreamCheckpoint, StreamCheckpointStatus};
use streamagg_operator::checkpoint::reconcile_once;

use super::world::{DEADLINE, World};

/// Waits until the checkpoint is as `holds` wants it; prints what was seen if it never is.
pub async fn until(
    world: &World,
    name: &str,
    what: &str,
    holds: impl Fn(&StreamCheckpointStatus) -> bool,
) -> StreamCheckpointStatus {
    let started = Instant::now();
    loop {
        let object = world.api::<StreamCheckpoint>().get(name).await.unwrap();
        let status = object.status.unwrap_or_default();
        let both = ["Reconciling", "Stalled"].map(|type_| status.conditions.iter().any(|held| held.type_ == type_));
        assert!(both != [true, true], "{status:#?}");
        if holds(&status) {
            return status;
        }
        assert!(started.elapsed() < DEADLINE, "{name} never {what}: {status:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub async fn complete(world: &World, name: &str) -> StreamCheckpointStatus {
    until(world, name, "complete", |status| {
        status.phase == Some(CheckpointPhase::Complete)
    })
    .await
}

pub fn reason(status: &StreamCheckpointStatus, type_: &str) -> Option<String> {
    let mut all = status.conditions.iter();
    all.find(|condition| condition.type_ == type_)
        .map(|condition| condition.reason.clone())
}

pub async fn gone(world: &World, name: &str) {
    let started = Instant::now();
    while world.api::<StreamCheckpoint>().get_opt(name).await.unwrap().is_some() {
        assert!(started.elapsed() < DEADLINE, "{name} is still there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub async fn delete(world: &World, name: &str) {
    world
        .api::<StreamCheckpoint>()
        .delete(name, &DeleteParams::default())
        .await
        .unwrap();
}

/// Waits until the events about an object of this name have these reasons: they are published after the status.
async fn await_events(world: &World, name: &str, expected: &[&str]) {
    let started = Instant::now();
    loop {
        let events = world.api::<Event>().list(&ListParams::default()).await.unwrap().items;
        let ours = events
            .into_iter()
            .filter(|event| event.regarding.as_ref().and_then(|about| about.name.as_deref()) == Some(name));
        let reasons: Vec<_> = ours.filter_map(|event| event.reason).collect();
        if reasons == expected {
            return;
        }
        assert!(started.elapsed() < DEADLINE, "{name}: {reasons:?}, not {expected:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_checkpoint_is_taken_pinned_kept_and_released_with_its_object() {
    let world = World::new("scp").await;
    let _operator = world.operator();
    // Whichever comes first.
    let object = world.checkpoint("before", "sample").await;
    until(&world, "before", "waiting for the aggregation", |status| {
        reason(status, "Reconciling").as_deref() == Some("WaitingForAggregation")
    })
    .await;
    world.create(&json!({})).await;
    let status = complete(&world, "before").await;
    assert_eq!((status.task_count, status.size.as_deref()), (Some(4), Some("4Mi")));
    assert_eq!(status.job_id, Some(format!("{}.sample", world.namespace)));
    assert_eq!(
        status.tasks.iter().map(|row| row.task).collect::<Vec<_>>(),
        [0, 1, 2, 3]
    );
    assert!(
        status.completed_at.is_some() && reason(&status, "Ready").as_deref() == Some("Complete"),
        "{status:#?}"
    );
    let holder = object.uid().unwrap();
    let pinned: Vec<_> = world.node.processors.pins().into_iter().collect();
    let expected: Vec<_> = status
        .tasks
        .iter()
        .map(|row| (holder.clone(), row.task.unsigned_abs(), row.id.clone()))
        .collect();
    assert_eq!(pinned, expected, "what the status names is what is pinned");
    await_events(&world, "before", &["CheckpointComplete"]).await;
    // Columns and fields that objects are selected by.
    let found = world
        .api::<StreamCheckpoint>()
        .list(&ListParams::default().fields("spec.aggregation=sample,status.phase=Complete"))
        .await;
    assert_eq!(found.unwrap().items.len(), 1);

    // A second one is another checkpoint; each keeps its own.
    world.checkpoint("second", "sample").await;
    complete(&world, "second").await;
    assert_eq!(world.node.processors.pins().len(), 8);
    delete(&world, "before").await;
    gone(&world, "before").await;
    let left = world.node.processors.pins();
    assert!(left.len() == 4 && left.iter().all(|(by, ..)| *by != holder), "{left:?}");

    // Nothing more is done for one that is complete.
    let context = world.context();
    let version = || async {
        world
            .api::<StreamCheckpoint>()
            .get("second")
            .await
            .unwrap()
            .resource_version()
    };
    let before = version().await;
    for _ in 0..3 {
        reconcile_once(&world.namespace, "second", &context).await.unwrap();
    }
    assert_eq!(version().await, before);
    let change = Patch::Merge(json!({"spec": {"aggregation": "other"}}));
    let refused = world
        .api::<StreamCheckpoint>()
        .patch("second", &PatchParams::default(), &change)
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("create another StreamCheckpoint"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_checkpoint_that_fails_says_why_and_one_that_retention_took_is_taken_again() {
    let world = World::new("scp-fail").await;
    let _operator = world.operator();
    world.create(&json!({})).await;
    world.await_running().await;
    world.node.processors.break_store(true);
    world.checkpoint("broken", "sample").await;
    let status = until(&world, "broken", "failed", |status| {
        status.phase == Some(CheckpointPhase::Failed)
    })
    .await;
    assert_eq!(reason(&status, "Stalled").as_deref(), Some("CheckpointFailed"));
    assert!(status.message.unwrap().contains("create another StreamCheckpoint"));
    await_events(&world, "broken", &["CheckpointFailed"]).await;
    // It holds nothing, so nothing holds it.
    delete(&world, "broken").await;
    gone(&world, "broken").await;
    world.node.processors.break_store(false);

    let held = world.checkpoint("retired", "sample").await;
    world.node.processors.retire(&format!("scp-{}", held.uid().unwrap()));
    let status = complete(&world, "retired").await;
    assert_eq!(status.retries, 1);
    assert!(status.tasks.iter().all(|row| row.id.contains("-1.")), "{status:#?}");

    // Without a store there is nothing to wait for.
    let state = json!({"backend": "RocksDB", "volume": {"size": "1Gi"}});
    world.create_named("bare", &json!({"state": state})).await;
    world.await_condition("bare", "Ready", "True", "Running").await;
    world.checkpoint("nowhere", "bare").await;
    let status = until(&world, "nowhere", "failed", |status| {
        status.phase == Some(CheckpointPhase::Failed)
    })
    .await;
    assert_eq!(reason(&status, "Stalled").as_deref(), Some("NoCheckpointStore"));
}

#[tokio::test]
async fn of_two_stages_the_window_tasks_have_it_before_the_first_stage_is_asked() {
    let world = World::new("scp-stages").await;
    world.node.processors.have_window_tasks(4);
    let _operator = world.operator();
    let source = json!({
        "kafka": {"bootstrapServers": ["kafka:9092"], "topics": ["events"]},
        "partitioning": {"any": {"shufflePartitions": 4}},
    });
    world.create(&json!({"source": source})).await;
    world.checkpoint("both", "sample").await;
    let status = complete(&world, "both").await;
    assert_eq!((status.task_count, status.size.as_deref()), (Some(8), Some("8Mi")));
    let (windows, combines) = status.tasks.split_at(4);
    let last = windows.iter().map(|row| row.epoch).max();
    assert!(last < combines.iter().map(|row| row.epoch).min(), "{:#?}", status.tasks);
    assert_eq!(world.node.processors.pins().len(), 8);
    delete(&world, "both").await;
    gone(&world, "both").await;
    assert!(world.node.processors.pins().is_empty());
}

#[tokio::test]
async fn a_suspended_aggregation_is_waited_for() {
    let world = World::new("scp-suspend").await;
    let _operator = world.operator();
    world.create(&json!({"suspend": true})).await;
    world.checkpoint("later", "sample").await;
    until(&world, "later", "waiting", |status| {
        reason(status, "Reconciling").as_deref() == Some("AggregationSuspended")
    })
    .await;
    world.change(json!({"suspend": false})).await;
    complete(&world, "later").await;
}

#[tokio::test]
async fn nothing_holds_a_checkpoint_for_ever() {
    let world = World::new("scp-end").await;
    let _operator = world.operator();
    world.create(&json!({})).await;
    for name in ["kept", "alone", "last"] {
        world.checkpoint(name, "sample").await;
        complete(&world, name).await;
    }
    // The store does not answer: it is waited for, and tried until it does.
    world.node.processors.break_store(true);
    delete(&world, "kept").await;
    until(&world, "kept", "being deleted", |status| {
        reason(status, "Ready").as_deref() == Some("Deleting")
    })
    .await;
    world.node.processors.break_store(false);
    gone(&world, "kept").await;
    assert_eq!(world.node.processors.pins().len(), 8);

    // Without an aggregation nobody can release anything: it goes, and says what stays.
    world
        .api::<StreamAggregation>()
        .delete("sample", &DeleteParams::foreground())
        .await
        .unwrap();
    let started = Instant::now();
    while world
        .api::<StreamAggregation>()
        .get_opt("sample")
        .await
        .unwrap()
        .is_some()
    {
        assert!(started.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let status = complete(&world, "alone").await;
    assert_eq!(
        reason(&status, "Ready").as_deref(),
        Some("Complete"),
        "it outlives its aggregation"
    );
    delete(&world, "alone").await;
    gone(&world, "alone").await;
    await_events(&world, "alone", &["CheckpointComplete", "PinsNotReleased"]).await;

    // A namespace that goes takes all of it along.
    Api::<Namespace>::all(world.client.clone())
        .delete(&world.namespace, &DeleteParams::default())
        .await
        .unwrap();
    gone(&world, "last").await;
}
