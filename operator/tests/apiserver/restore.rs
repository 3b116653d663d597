//! `spec.restoreFrom`: back to a checkpoint, once for each nonce, with the checkpoint kept until every task is back.
//! Must not repeat what checkpoints themselves show (`checkpoint`).

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use streamagg_crds::v1alpha1::{RolloutKind, StreamAggregation, StreamAggregationStatus, StreamCheckpointStatus};

use super::checkpoint::{complete, delete, gone, reason, until};
use super::world::World;

fn from(checkpoint: &str, nonce: i64) -> Value {
    json!({"restoreFrom": {"checkpoint": checkpoint, "nonce": nonce}})
}

/// Two pods run four tasks, and a checkpoint of them is complete.
async fn with_checkpoint(world: &World, spec: &Value) -> StreamCheckpointStatus {
    world.create(spec).await;
    world.await_running().await;
    world.checkpoint("before", "sample").await;
    complete(world, "before").await
}

async fn await_restored(world: &World, nonce: i64) -> StreamAggregationStatus {
    world
        .await_status("back", |status| {
            status.restored.as_ref().is_some_and(|last| last.nonce == nonce) && status.rollout.is_none()
        })
        .await
}

/// Every task of the checkpoint went back to it, and it was kept then.
fn all_went_back(world: &World, checkpoint: &StreamCheckpointStatus) {
    let mut went_back = world.node.processors.went_back();
    went_back.sort();
    let rows = checkpoint.tasks.iter();
    let expected: Vec<_> = rows
        .map(|row| (row.task.unsigned_abs(), row.id.clone(), true))
        .collect();
    assert_eq!(went_back, expected);
}

#[tokio::test]
async fn the_job_goes_back_with_a_changed_spec_once_and_for_good() {
    let world = World::new("back").await;
    let _operator = world.operator();
    let before = with_checkpoint(&world, &json!({})).await;
    let mut change = from("before", 1);
    change["image"] = json!("example.org/streamagg:2");
    world.change(change).await;
    let status = await_restored(&world, 1).await;
    all_went_back(&world, &before);
    assert!(
        world.node.processors.drained().is_empty(),
        "what they did since is taken back"
    );
    assert_eq!(status.image.as_deref(), Some("example.org/streamagg:2"));
    let order = status.restored.unwrap();
    assert_eq!((order.checkpoint.as_str(), order.tasks.len()), ("before", 4));

    // A number that fell, or another checkpoint under it, is not even stored.
    for (refused, words) in [
        (from("other", 1), "with a higher nonce"),
        (from("before", 0), "restoreFrom.nonce"),
    ] {
        let patch = Patch::Merge(json!({"spec": refused}));
        let api = world.api::<StreamAggregation>();
        let error = api
            .patch("sample", &PatchParams::default(), &patch)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{error}");
    }
    // Without the wish and the object all stays as it is, and the number is used up.
    world.change(json!({"restoreFrom": null})).await;
    delete(&world, "before").await;
    gone(&world, "before").await;
    let status = world.await_running().await;
    assert_eq!(status.restored.map(|last| last.nonce), Some(1));
    world.change(from("other", 1)).await;
    let status = world.await_condition("sample", "Stalled", "True", "SpecInvalid").await;
    assert!(status.message.unwrap().contains("1 is used up"));
    world.change(json!({"restoreFrom": null})).await;
    world.await_running().await;
    assert_eq!(world.node.processors.pods_seen(), 4, "two, and two that went back");
}

#[tokio::test]
async fn what_is_not_there_yet_holds_the_change_back_and_what_runs_goes_on() {
    let world = World::new("back-wait").await;
    let _operator = world.operator();
    world.create(&json!({})).await;
    world.await_running().await;
    let mut change = from("later", 1);
    change["image"] = json!("example.org/streamagg:2");
    world.change(change).await;
    let status = world
        .await_condition("sample", "Stalled", "True", "CheckpointMissing")
        .await;
    assert!(status.message.unwrap().contains("StreamCheckpoint later is not there"));
    assert_eq!(status.image.as_deref(), Some("example.org/streamagg:1"));
    world.checkpoint("later", "sample").await;
    let later = complete(&world, "later").await;
    let status = await_restored(&world, 1).await;
    all_went_back(&world, &later);
    assert_eq!(status.image.as_deref(), Some("example.org/streamagg:2"));

    world.create_named("other", &json!({})).await;
    world.await_condition("other", "Ready", "True", "Running").await;
    world.checkpoint("of-other", "other").await;
    complete(&world, "of-other").await;
    world.change(from("of-other", 2)).await;
    let status = world
        .await_condition("sample", "SpecValid", "False", "SpecInvalid")
        .await;
    assert!(status.message.unwrap().contains("of StreamAggregation other"));
    assert_eq!(status.tasks.map(|tasks| tasks.running), Some(4), "what runs goes on");
}

#[tokio::test]
async fn a_checkpoint_that_is_lost_is_a_verdict_and_another_is_the_way_out() {
    let world = World::new("back-lost").await;
    let _operator = world.operator();
    let before = with_checkpoint(&world, &json!({})).await;
    world.checkpoint("good", "sample").await;
    complete(&world, "good").await;
    world.node.processors.lose(&before.tasks[2].id);
    world.change(from("before", 1)).await;
    let status = world
        .await_condition("sample", "Stalled", "True", "RestoreFailed")
        .await;
    let message = status.message.unwrap();
    assert!(
        message.contains("task 2: CheckpointMissing") && message.contains("tasks [2] of 4"),
        "{message}"
    );
    assert_eq!(status.rollout.map(|log| log.kind), Some(RolloutKind::Restore));
    // It is held as long as a task has not gone back to it.
    delete(&world, "before").await;
    let held = until(&world, "before", "held", |status| {
        status
            .message
            .as_ref()
            .is_some_and(|message| message.contains("sample goes back to it"))
    })
    .await;
    assert_eq!(reason(&held, "Ready").as_deref(), Some("Deleting"));
    world.change(from("good", 2)).await;
    await_restored(&world, 2).await;
    world.await_running().await;
    gone(&world, "before").await;
    assert_eq!(world.node.processors.pins().len(), 4, "those of the other");
}

#[tokio::test]
async fn tasks_of_both_stages_go_back_to_what_the_checkpoint_has_under_their_numbers() {
    let world = World::new("back-stages").await;
    world.node.processors.have_window_tasks(4);
    let _operator = world.operator();
    let source = json!({
        "kafka": {"bootstrapServers": ["kafka:9092"], "topics": ["events"]},
        "partitioning": {"any": {"shufflePartitions": 4}},
    });
    let before = with_checkpoint(&world, &json!({"source": source})).await;
    assert_eq!(before.tasks.len(), 8);
    world.change(from("before", 1)).await;
    await_restored(&world, 1).await;
    all_went_back(&world, &before);
    let mut running: Vec<u32> = world.node.processors.running().into_values().flatten().collect();
    running.sort_unstable();
    let named: Vec<u32> = before.tasks.iter().map(|row| row.task.unsigned_abs()).collect();
    assert_eq!(running, named, "the checkpoint's numbers are the job's");
}

#[tokio::test]
async fn a_suspended_job_goes_back_when_it_is_resumed() {
    let world = World::new("back-suspend").await;
    let _operator = world.operator();
    let before = with_checkpoint(&world, &json!({})).await;
    let mut change = from("before", 1);
    change["suspend"] = json!(true);
    world.change(change).await;
    let status = world
        .await_status("suspended on the way back", |status| {
            let message = status.message.as_ref();
            message.is_some_and(|message| message.contains("suspended") && message.contains("StreamCheckpoint before"))
        })
        .await;
    assert_eq!(status.restored, None);
    assert!(world.node.processors.went_back().is_empty());
    delete(&world, "before").await;
    until(&world, "before", "held", |status| {
        status
            .message
            .as_ref()
            .is_some_and(|message| message.contains("sample goes back to it"))
    })
    .await;
    world.change(json!({"suspend": false})).await;
    await_restored(&world, 1).await;
    all_went_back(&world, &before);
    gone(&world, "before").await;
}
