//! Operators that die: each lives for exactly one write, is followed by one that knows nothing, and between them they get
//! everywhere and do nothing twice.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use streamagg_crds::v1alpha1::{CheckpointPhase, RequestPhase, RolloutStep, StreamAggregation, StreamCheckpoint};
use streamagg_operator::{checkpoint, controller};

use super::faults::{Fault, Faults};
use super::life::{resize, volumes};
use super::world::{DEADLINE, World};

/// Lets one operator after the other live for one write, until `done`; answers how many died.
async fn die_until<F: Future<Output = bool>>(world: &World, what: &Value, done: impl Fn() -> F) -> usize {
    let (started, mut deaths) = (Instant::now(), 0);
    loop {
        let faults = Faults::new(|call| if call.writes() { Fault::Crash } else { Fault::None });
        let context = world.context_through(&faults);
        let looks = async {
            loop {
                // A refusal is fine: it looks again.
                let _ = controller::reconcile_once(&world.namespace, "sample", &context).await;
                let _ = checkpoint::reconcile_once(&world.namespace, "kept", &context).await;
                if done().await {
                    return;
                }
                assert!(
                    started.elapsed() < 2 * DEADLINE,
                    "{what} never settled: {:#?}",
                    world.api::<StreamAggregation>().get_opt("sample").await
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = looks => return deaths,
            () = faults.crashed() => deaths += 1,
        }
    }
}

/// The generation is in force, and what earlier ones left is gone.
async fn settled(world: &World) -> bool {
    let (generation, status) = world.status("sample").await;
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
    let ready = ready.is_some_and(|ready| ready.status == "True" && ready.observed_generation == Some(generation));
    let jobs = ListParams::default().labels("app.kubernetes.io/component=job");
    let jobs = world.api::<ConfigMap>().list(&jobs).await.unwrap().items;
    ready && status.rollout.is_none() && jobs.len() == 1
}

async fn delete(world: &World) -> usize {
    let aggregations = world.api::<StreamAggregation>();
    world.delete().await;
    die_until(world, &json!("deleted"), || async {
        aggregations.get_opt("sample").await.unwrap().is_none()
    })
    .await
}

/// Until the StreamCheckpoint `kept` is complete.
async fn keep(world: &World) -> usize {
    world.checkpoint("kept", "sample").await;
    let checkpoints = world.api::<StreamCheckpoint>();
    die_until(world, &json!("checkpoint"), || async {
        let status = checkpoints.get("kept").await.unwrap().status.unwrap_or_default();
        status.phase == Some(CheckpointPhase::Complete)
    })
    .await
}

#[tokio::test]
async fn an_operator_that_dies_after_each_single_write_gets_everywhere() {
    let world = World::new("crashes").await;
    world.create(&json!({})).await;
    let changes = [
        json!({}),
        json!({"image": "example.org/streamagg:2"}),
        json!({"maxBadRatio": 0.5}),
        json!({"restartNonce": 1}),
        json!({"replicas": 4}),
        json!({"replicas": 1}),
        json!({"suspend": true}),
        json!({"suspend": false}),
        json!({"deletionPolicy": {"state": "Delete"}}),
    ];
    let mut deaths = 0;
    for change in changes {
        world.change(change.clone()).await;
        deaths += die_until(&world, &change, || settled(&world)).await;
        world.nobody_runs_twice();
    }
    assert_eq!(
        world.node.processors.pods_seen(),
        2 + 2 + 2 + 2 + 2 + 1,
        "no pod was replaced twice"
    );
    deaths += delete(&world).await;
    assert!(deaths > 40, "only {deaths} operators died");
    println!("{deaths} operators died, each after one write");
}

#[tokio::test]
async fn one_that_dies_while_volumes_grow_replaces_the_set_and_no_pod() {
    let world = World::new("crash-grow").await;
    let class = format!("crash-{}", world.namespace);
    volumes(&world, &class, true).await;
    let volume =
        |size: &str| json!({"state": {"backend": "RocksDB", "volume": {"size": size, "storageClassName": class}}});
    world.create(&volume("1Gi")).await;
    let mut deaths = die_until(&world, &json!("created"), || settled(&world)).await;
    let set = || async { world.api::<StatefulSet>().get("sample").await.unwrap().uid() };
    let before = set().await;
    world.change(volume("2Gi")).await;
    deaths += die_until(&world, &volume("2Gi"), || async {
        resize(&world).await;
        settled(&world).await
    })
    .await;
    assert_ne!(set().await, before, "the set was replaced");
    assert_eq!(world.node.processors.pods_seen(), 2, "no pod was");
    println!("{deaths} operators died, each after one write");
}

#[tokio::test]
async fn one_that_dies_while_tasks_go_back_replaces_each_pod_once_and_lets_go_of_the_checkpoint_behind_them() {
    let world = World::new("crash-back").await;
    world.create(&json!({})).await;
    let mut deaths = die_until(&world, &json!("created"), || settled(&world)).await;
    deaths += keep(&world).await;
    let checkpoints = world.api::<StreamCheckpoint>();
    let back = json!({"restoreFrom": {"checkpoint": "kept", "nonce": 1}, "image": "example.org/streamagg:2"});
    world.change(back.clone()).await;
    deaths += die_until(&world, &back, || async {
        // Deleted once it is decided, as far as a look without a write shows that: it is held until all tasks are back.
        let (_, status) = world.status("sample").await;
        let decided = status.rollout.is_some_and(|log| log.step > RolloutStep::Commit);
        if decided || status.restored.is_some() {
            let _ = checkpoints.delete("kept", &DeleteParams::default()).await;
        }
        settled(&world).await && checkpoints.get_opt("kept").await.unwrap().is_none()
    })
    .await;
    let went_back = world.node.processors.went_back();
    assert!(
        went_back.len() == 4 && went_back.iter().all(|(.., kept)| *kept),
        "{went_back:?}"
    );
    assert!(world.node.processors.pins().is_empty());
    assert_eq!(world.node.processors.pods_seen(), 2 + 2, "no pod was replaced twice");
    assert!(world.node.processors.drained().is_empty(), "nothing had to be drained");
    println!("{deaths} operators died, each after one write");
}

#[tokio::test]
async fn one_that_dies_while_checkpoints_are_taken_pins_each_once_and_lets_go_of_it() {
    let world = World::new("crash-scp").await;
    world.create(&json!({})).await;
    let mut deaths = die_until(&world, &json!("created"), || settled(&world)).await;
    let asked = Patch::Merge(json!({"metadata": {"annotations": {"streamagg.io/checkpoint": "by-annotation"}}}));
    let aggregations = world.api::<StreamAggregation>();
    aggregations
        .patch("sample", &PatchParams::default(), &asked)
        .await
        .unwrap();
    deaths += die_until(&world, &json!("annotation"), || async {
        let request = world.status("sample").await.1.checkpoint_request;
        request.is_some_and(|request| request.phase == RequestPhase::Complete)
    })
    .await;
    deaths += keep(&world).await;
    let checkpoints = world.api::<StreamCheckpoint>();
    assert_eq!(world.node.processors.pins().len(), 4, "one of each task");
    checkpoints.delete("kept", &DeleteParams::default()).await.unwrap();
    deaths += die_until(&world, &json!("checkpoint deleted"), || async {
        checkpoints.get_opt("kept").await.unwrap().is_none()
    })
    .await;
    assert!(world.node.processors.pins().is_empty());
    assert_eq!(world.node.processors.pods_seen(), 2, "no pod was touched");
    println!("{deaths} operators died, each after one write");
}
