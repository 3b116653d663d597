//! Volumes that grow and the end of an aggregation, with the real controllers for StatefulSets, volumes and garbage.
//! Only the part of a storage driver is played: it makes a claim's capacity what the claim asks for.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use streamagg_crds::v1alpha1::StreamAggregation;

use super::world::{DEADLINE, World};

/// A storage class with two volumes of 1 GiB to bind.
pub async fn volumes(world: &World, class: &str, expands: bool) {
    let document = json!({
        "metadata": {"name": class}, "provisioner": "example.org/none", "allowVolumeExpansion": expands,
    });
    let object: StorageClass = serde_json::from_value(document).unwrap();
    let classes: Api<StorageClass> = Api::all(world.client.clone());
    classes.create(&PostParams::default(), &object).await.unwrap();
    let volumes: Api<PersistentVolume> = Api::all(world.client.clone());
    for index in 0..2 {
        let document = json!({
            "metadata": {"name": format!("{class}-{index}")},
            "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": class,
                "hostPath": {"path": "/nowhere"},
            },
        });
        let object: PersistentVolume = serde_json::from_value(document).unwrap();
        volumes.create(&PostParams::default(), &object).await.unwrap();
    }
}

async fn uids(world: &World) -> BTreeSet<String> {
    let pods = world.api::<Pod>().list(&ListParams::default()).await.unwrap();
    pods.iter().filter_map(ResourceExt::uid).collect()
}

/// Each claim has what it asks for.
pub async fn resize(world: &World) {
    let claims = world.api::<PersistentVolumeClaim>();
    for claim in claims.list(&ListParams::default()).await.unwrap() {
        let asks = claim
            .spec
            .as_ref()
            .and_then(|spec| spec.resources.as_ref()?.requests.clone());
        let bound = claim
            .status
            .as_ref()
            .is_some_and(|status| status.phase.as_deref() == Some("Bound"));
        if let Some(capacity) = asks.filter(|_| bound) {
            let patch = Patch::Merge(json!({"status": {"capacity": capacity}}));
            claims
                .patch_status(&claim.name_any(), &PatchParams::default(), &patch)
                .await
                .unwrap();
        }
    }
}

#[tokio::test]
async fn volumes_grow_under_running_pods() {
    let world = World::new("grow").await;
    let class = format!("grow-{}", world.namespace);
    volumes(&world, &class, true).await;
    let _operator = world.operator();
    let volume =
        |size: &str| json!({"state": {"backend": "RocksDB", "volume": {"size": size, "storageClassName": class}}});
    world.create(&volume("1Gi")).await;
    world.await_running().await;
    world.await_condition("sample", "StorageReady", "True", "Bound").await;
    let sets = world.api::<StatefulSet>();
    let (pods, set) = (uids(&world).await, sets.get("sample").await.unwrap().uid());
    world.change(volume("2Gi")).await;
    world
        .await_condition("sample", "StorageReady", "False", "Resizing")
        .await;
    resize(&world).await;
    world.await_condition("sample", "StorageReady", "True", "Bound").await;
    world.await_running().await;
    let replaced = sets.get("sample").await.unwrap();
    assert_ne!(replaced.uid(), set, "the set was replaced");
    let template = &replaced.spec.unwrap().volume_claim_templates.unwrap()[0];
    let requests = template.spec.clone().unwrap().resources.unwrap().requests.unwrap();
    assert_eq!(requests["storage"].0, "2Gi");
    assert_eq!(uids(&world).await, pods, "no pod was restarted");
    world.change(volume("1Gi")).await;
    let status = world
        .await_condition("sample", "SpecValid", "False", "SpecInvalid")
        .await;
    let message = status.message.unwrap();
    assert!(
        message.contains("spec.state.volume.size: cannot shrink (is 2Gi"),
        "{message}"
    );
}

#[tokio::test]
async fn a_growth_that_the_storage_class_refuses_is_named_and_can_be_taken_back() {
    let world = World::new("stiff").await;
    let class = format!("stiff-{}", world.namespace);
    volumes(&world, &class, false).await;
    let _operator = world.operator();
    let volume =
        |size: &str| json!({"state": {"backend": "RocksDB", "volume": {"size": size, "storageClassName": class}}});
    world.create(&volume("1Gi")).await;
    world.await_condition("sample", "StorageReady", "True", "Bound").await;
    world.await_running().await;
    world.change(volume("2Gi")).await;
    let status = world.await_condition("sample", "Stalled", "True", "VolumeStuck").await;
    let message = status.message.unwrap();
    assert!(message.contains("allowVolumeExpansion"), "{message}");
    world.change(volume("1Gi")).await;
    world.await_running().await;
}

#[tokio::test]
async fn with_state_delete_the_volumes_go_after_a_final_checkpoint() {
    let world = World::new("forget").await;
    let _operator = world.operator();
    world.create(&json!({"deletionPolicy": {"state": "Delete"}})).await;
    world.await_running().await;
    world.delete().await;
    gone(&world).await;
    let drained: usize = world
        .node
        .processors
        .drained()
        .iter()
        .map(|(_, tasks)| tasks.len())
        .sum();
    assert_eq!(drained, 4, "every task was checkpointed first");
}

#[tokio::test]
async fn pods_that_do_not_answer_delay_a_deletion_to_its_deadline_only() {
    let world = World::new("silent").await;
    let _operator = world.operator();
    let policy = json!({"state": "Delete", "timeout": "5s"});
    world.create(&json!({"deletionPolicy": policy})).await;
    world.await_running().await;
    world.node.processors.silence(true);
    let deleted = Instant::now();
    world.delete().await;
    gone(&world).await;
    assert!(deleted.elapsed() >= Duration::from_secs(4), "{:?}", deleted.elapsed());
    assert!(world.node.processors.drained().is_empty());
    let reasons = || async {
        let events = world.api::<Event>().list(&ListParams::default()).await.unwrap();
        let reasons: BTreeSet<_> = events.into_iter().filter_map(|event| event.reason).collect();
        reasons
    };
    while !reasons().await.contains("FinalCheckpointFailed") {
        assert!(deleted.elapsed() < DEADLINE, "{:?}", reasons().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn an_end_needs_neither_status_nor_pods_nor_a_set() {
    let world = World::new("bare-end").await;
    let operator = world.operator();
    world.create(&json!({"deletionPolicy": {"state": "Delete"}})).await;
    world.await_running().await;
    operator.stop().await;
    let aggregations = world.api::<StreamAggregation>();
    let wiped = Patch::Merge(json!({"status": null}));
    let wiped = aggregations
        .patch_status("sample", &PatchParams::default(), &wiped)
        .await;
    assert_eq!(wiped.unwrap().status.unwrap_or_default().observed_generation, -1);
    let sets = world.api::<StatefulSet>();
    sets.delete("sample", &DeleteParams::background()).await.unwrap();
    let started = Instant::now();
    while !uids(&world).await.is_empty() {
        assert!(started.elapsed() < DEADLINE, "pods stay");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.delete().await;
    let _operator = world.operator();
    gone(&world).await;
}

#[tokio::test]
async fn a_terminating_namespace_takes_everything_with_it() {
    let world = World::new("terminating").await;
    let _operator = world.operator();
    world.create(&json!({"deletionPolicy": {"state": "Delete"}})).await;
    world.await_running().await;
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    namespaces
        .delete(&world.namespace, &DeleteParams::default())
        .await
        .unwrap();
    gone(&world).await;
}

/// Waits until neither the object nor its claims are there.
async fn gone(world: &World) {
    let started = Instant::now();
    loop {
        let object = world.api::<StreamAggregation>().get_opt("sample").await.unwrap();
        let claims = world
            .api::<PersistentVolumeClaim>()
            .list(&ListParams::default())
            .await
            .unwrap();
        let claims: Vec<_> = claims.iter().map(ResourceExt::name_any).collect();
        if object.is_none() && claims.is_empty() {
            return;
        }
        assert!(started.elapsed() < DEADLINE, "still there: {claims:?}, {object:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
