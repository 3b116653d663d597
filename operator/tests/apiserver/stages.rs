//! A job of two stages: its tasks of both kinds are counted, spread, moved and reported as what they are.
//! Must not repeat what tasks of one kind show.

use std::collections::BTreeMap;

use kube::api::{Patch, PatchParams};
use serde_json::json;
use streamagg_crds::v1alpha1::StreamAggregation;

use super::pods::SOURCE_PARTITIONS;
use super::world::World;

const WINDOW_TASKS: u32 = 4;

/// Tasks of the second and of the first stage, by pod.
fn kinds(world: &World) -> BTreeMap<String, (usize, usize)> {
    let count = |tasks: Vec<u32>| {
        let windows = tasks.iter().filter(|task| **task < WINDOW_TASKS).count();
        (windows, tasks.len() - windows)
    };
    let running = world.node.processors.running().into_iter();
    // A pod that is on its way out has none.
    let busy = running.filter(|(_, tasks)| !tasks.is_empty());
    busy.map(|(pod, tasks)| (pod, count(tasks))).collect()
}

#[tokio::test]
async fn tasks_of_both_stages_are_spread_over_the_pods_and_only_those_with_state_need_checkpoints() {
    let world = World::new("stages").await;
    world.node.processors.have_window_tasks(WINDOW_TASKS);
    world.node.processors.show_figures();
    let _operator = world.operator();
    let source = json!({
        "kafka": {"bootstrapServers": ["kafka:9092"], "topics": ["events"]},
        "partitioning": {"any": {"shufflePartitions": WINDOW_TASKS}},
    });
    world.create(&json!({"source": source})).await;
    let all = i64::from(WINDOW_TASKS + SOURCE_PARTITIONS);
    world.await_running().await;
    let status = world
        .await_condition("sample", "Checkpointed", "True", "Completed")
        .await;
    let tasks = status.tasks.unwrap();
    assert_eq!((i64::from(tasks.count), i64::from(tasks.running)), (all, all));
    assert!(tasks.newest_checkpoint.is_some(), "of the tasks with state");
    let expected = [("sample-0".to_owned(), (2, 2)), ("sample-1".to_owned(), (2, 2))];
    assert_eq!(kinds(&world), BTreeMap::from(expected));

    for replicas in [4_u32, 1, 2] {
        world.change(json!({"replicas": replicas})).await;
        world.await_running().await;
        let kinds = kinds(&world);
        assert_eq!(kinds.len(), replicas as usize, "{kinds:?}");
        let (windows, combines) = kinds.values().fold((0, 0), |sum, pod| (sum.0 + pod.0, sum.1 + pod.1));
        assert_eq!((windows, combines), (4, 4), "{kinds:?}");
        assert!(
            kinds.values().all(|(windows, combines)| *windows > 0 && *combines > 0),
            "{kinds:?}"
        );
    }

    let other = json!({"spec": {"source": {"partitioning": {"any": {"shufflePartitions": 8}}}}});
    let refused = world
        .api::<StreamAggregation>()
        .patch("sample", &PatchParams::default(), &Patch::Merge(other))
        .await;
    let message = refused.unwrap_err().to_string();
    assert!(
        message.contains("spec.source.partitioning") && message.contains("cannot change"),
        "{message}"
    );
}
