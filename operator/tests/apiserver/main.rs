//! The operator against a real kube-apiserver with kube-controller-manager (StatefulSets, garbage collection): only
//! the kubelet and the processors are played (`node`, `pods`). Each test has a namespace of its own.
//!
//! Needs `KUBECONFIG_API`, the kubeconfig of a server of its own; `tests/apiserver.sh` starts one.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, like the tests themselves"
)]

mod change;
mod checkpoint;
mod crash;
mod faults;
mod kubectl;
mod life;
mod node;
mod pods;
mod positions;
mod restore;
mod robust;
mod stages;
mod world;

use std::time::{Duration, Instant};

use faults::{Fault, Faults};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use streamagg_crds::v1alpha1::StreamAggregation;
use streamagg_operator::controller::reconcile_once;
use streamagg_operator::lease::Candidate;
use streamagg_operator::preflight;
use world::{DEADLINE, World};

#[tokio::test]
async fn a_new_object_gets_its_children_and_a_second_look_writes_nothing() {
    let world = World::new("create").await;
    let operator = world.operator();
    world.create(&json!({})).await;
    let status = world.await_running().await;
    operator.stop().await;
    assert_eq!(status.replicas_text.as_deref(), Some("2/2"));
    assert_eq!(status.state.as_deref(), Some("Running"));
    assert_eq!(
        status.tasks.as_ref().map(|tasks| (tasks.count, tasks.running)),
        Some((4, 4))
    );
    assert_eq!(
        status.selector.as_deref(),
        Some("app.kubernetes.io/instance=sample,app.kubernetes.io/name=streamagg")
    );

    let set = world.api::<StatefulSet>().get("sample").await.unwrap().spec.unwrap();
    assert_eq!(set.pod_management_policy.as_deref(), Some("Parallel"));
    assert_eq!(
        set.update_strategy.unwrap().rolling_update.unwrap().partition,
        Some(10_000)
    );
    let pod = set.template.spec.unwrap();
    assert_eq!(pod.automount_service_account_token, Some(false));
    assert_eq!(pod.containers[0].image.as_deref(), Some("example.org/streamagg:1"));
    let budget = world.api::<PodDisruptionBudget>().get("sample").await.unwrap();
    assert_eq!(
        budget.spec.unwrap().max_unavailable,
        Some(k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(1))
    );
    let secret = world.api::<Secret>().get("sample-token").await.unwrap();
    let token = String::from_utf8(secret.data.unwrap()["token"].0.clone()).unwrap();
    assert_eq!(
        world.node.processors.tokens(),
        [token],
        "every request carries the token"
    );

    // What the last operator left undone is done by the first looks; then nothing is written any more.
    world.await_set().await;
    let faults = Faults::new(|_| Fault::None);
    let context = world.context_through(&faults);
    let written = || faults.calls().iter().filter(|(call, _)| call.writes()).count();
    let look = async || reconcile_once(&world.namespace, "sample", &context).await.unwrap();
    for _ in 0..3 {
        look().await;
    }
    let (before, versions) = (written(), world.versions().await);
    for _ in 0..5 {
        look().await;
    }
    assert_eq!(written(), before, "{:#?}", faults.calls());
    assert_eq!(world.versions().await, versions);
    assert_eq!(
        context.metrics.actions.with_label_values(&["apply_stateful_set"]).get(),
        0
    );
}

#[tokio::test]
async fn what_somebody_edited_is_put_back() {
    let world = World::new("drift").await;
    let _operator = world.operator();
    world.create(&json!({})).await;
    world.await_running().await;
    let patch = Patch::Merge(json!({"spec": {"publishNotReadyAddresses": false}}));
    world
        .api::<Service>()
        .patch("sample", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let started = Instant::now();
    loop {
        let spec = world.api::<Service>().get("sample").await.unwrap().spec.unwrap();
        if spec.publish_not_ready_addresses == Some(true) {
            break;
        }
        assert!(started.elapsed() < DEADLINE, "{spec:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_spec_that_only_the_operator_can_refuse_is_named_and_what_runs_goes_on() {
    let world = World::new("invalid").await;
    let _operator = world.operator();
    world
        .create(&json!({"state": {"backend": "RocksDB", "volume": {"size": "1Gi"}}}))
        .await;
    world.await_running().await;
    world.change(json!({"replicas": 4})).await;
    let status = world
        .await_condition("sample", "SpecValid", "False", "SpecInvalid")
        .await;
    assert!(
        status
            .message
            .as_ref()
            .unwrap()
            .contains("spec.state.checkpoints.store"),
        "{status:#?}"
    );
    let stalled = world.await_condition("sample", "Stalled", "True", "SpecInvalid").await;
    assert_eq!(stalled.tasks.map(|tasks| tasks.running), Some(4), "what runs goes on");
    assert_eq!(
        world
            .api::<Pod>()
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .len(),
        2
    );
    world.change(json!({"replicas": 2})).await;
    world.await_running().await;
}

#[tokio::test]
async fn objects_of_others_are_named_and_not_taken_over() {
    let world = World::new("foreign").await;
    let _operator = world.operator();
    let document = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "sample"},
        "spec": {"clusterIP": "None", "selector": {"app": "somebody-else"}},
    });
    let foreign: Service = serde_json::from_value(document).unwrap();
    world
        .api::<Service>()
        .create(&PostParams::default(), &foreign)
        .await
        .unwrap();
    world.create(&json!({})).await;
    let status = world.await_condition("sample", "Stalled", "True", "NameConflict").await;
    assert!(status.message.unwrap().contains("service sample"));
    let live = world.api::<Service>().get("sample").await.unwrap();
    assert_eq!(
        live.spec.unwrap().selector.unwrap()["app"],
        "somebody-else",
        "not taken over"
    );
    world.create_named("other", &json!({})).await;
    world.await_condition("other", "Ready", "True", "Running").await;
    world
        .api::<Service>()
        .delete("sample", &DeleteParams::default())
        .await
        .unwrap();
    world.await_running().await;
}

#[tokio::test]
async fn a_deleted_pod_comes_back_as_it_was() {
    let world = World::new("pod").await;
    let _operator = world.operator();
    world.create(&json!({})).await;
    let before = world.await_running().await;
    let pods = world.api::<Pod>();
    let old = pods.get("sample-1").await.unwrap().uid();
    pods.delete("sample-1", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    let started = Instant::now();
    loop {
        let running = world.node.processors.running();
        let uid = pods.get_opt("sample-1").await.unwrap().and_then(|pod| pod.uid());
        if uid.is_some() && uid != old && running.get("sample-1").is_some_and(|tasks| tasks.len() == 2) {
            break;
        }
        assert!(started.elapsed() < DEADLINE, "{running:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let after = world.await_running().await;
    assert_eq!(
        after.assignment_generation, before.assignment_generation,
        "no task moved"
    );
    assert_eq!(after.rollout, None);
}

#[tokio::test]
async fn scale_by_the_subresource_moves_only_what_it_must() {
    let world = World::new("scale").await;
    let _operator = world.operator();
    world.create(&json!({})).await;
    world.await_running().await;
    for (replicas, moved) in [(4, 2), (1, 3)] {
        let earlier = world
            .node
            .processors
            .drained()
            .into_iter()
            .flat_map(|(_, tasks)| tasks)
            .count();
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        world
            .api::<StreamAggregation>()
            .patch_scale("sample", &PatchParams::default(), &patch)
            .await
            .unwrap();
        let status = world.await_running().await;
        assert_eq!(status.replicas_text, Some(format!("{replicas}/{replicas}")));
        let scale = world.api::<StreamAggregation>().get_scale("sample").await.unwrap();
        assert_eq!(scale.status.unwrap().replicas, replicas);
        let drained: Vec<_> = world.node.processors.drained();
        assert_eq!(
            drained.into_iter().flat_map(|(_, tasks)| tasks).count() - earlier,
            moved
        );
        let running = world.node.processors.running();
        assert_eq!(running.values().map(Vec::len).sum::<usize>(), 4, "{running:?}");
    }
}

#[tokio::test]
async fn an_upgrade_survives_an_operator_that_is_killed_all_the_time() {
    let world = World::new("killed").await;
    world.create(&json!({})).await;
    let operator = world.operator();
    world.await_running().await;
    operator.stop().await;
    let uids = |world: &World| {
        let pods = world.api::<Pod>();
        async move {
            let list = pods.list(&ListParams::default()).await.unwrap();
            list.iter().filter_map(ResourceExt::uid).collect::<Vec<_>>()
        }
    };
    let before = uids(&world).await;
    world.change(json!({"image": "example.org/streamagg:2"})).await;
    // Each operator lives for some milliseconds: killed between any two calls, it is followed by one that knows nothing.
    let mut killed = 0;
    for round in 0..300u64 {
        let context = world.context();
        let life = Duration::from_millis(5 + (round * 7) % 90);
        let looked = tokio::time::timeout(life, reconcile_once(&world.namespace, "sample", &context)).await;
        killed += u32::from(looked.is_err());
        let (_, status) = world.status("sample").await;
        if status.rollout.is_none() && status.image.as_deref() == Some("example.org/streamagg:2") {
            break;
        }
    }
    assert!(killed > 0, "no operator was killed");
    let _operator = world.operator();
    let status = world.await_running().await;
    assert_eq!(status.image.as_deref(), Some("example.org/streamagg:2"));
    let after = uids(&world).await;
    assert!(after.iter().all(|uid| !before.contains(uid)), "every pod was replaced");
    assert!(!world.node.processors.drained().is_empty(), "tasks drained first");
}

#[tokio::test]
async fn a_revision_that_cannot_start_is_named_and_a_fix_supersedes_it() {
    let world = World::new("broken").await;
    let _operator = world.operator();
    world.create(&json!({})).await;
    world.await_running().await;
    world.change(json!({"image": "example.org/missing:2"})).await;
    let status = world.await_condition("sample", "Stalled", "True", "ImagePull").await;
    assert!(status.message.unwrap().contains("spec.image"));
    world.change(json!({"image": "example.org/streamagg:3"})).await;
    let status = world.await_running().await;
    assert_eq!(status.image.as_deref(), Some("example.org/streamagg:3"));
    assert_eq!(status.last_stable_revision, status.current_revision);
}

#[tokio::test]
async fn suspend_leaves_no_pods_and_resume_brings_them_back() {
    let world = World::new("suspend").await;
    let _operator = world.operator();
    world.create(&json!({})).await;
    world.await_running().await;
    world.change(json!({"suspend": true})).await;
    let status = world.await_condition("sample", "Ready", "True", "Suspended").await;
    assert_eq!((status.replicas, status.state.as_deref()), (0, Some("Suspended")));
    assert!(
        world
            .api::<Pod>()
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    assert_eq!(
        world
            .api::<PersistentVolumeClaim>()
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .len(),
        2
    );
    world
        .change(json!({"suspend": false, "resources": {"limits": {"memory": "256Mi"}}}))
        .await;
    world.await_running().await;
}

#[tokio::test]
async fn deletion_takes_the_children_and_keeps_the_volumes() {
    let world = World::new("delete").await;
    let _operator = world.operator();
    world.create(&json!({})).await;
    world.await_running().await;
    world
        .api::<StreamAggregation>()
        .delete("sample", &DeleteParams::foreground())
        .await
        .unwrap();
    let started = Instant::now();
    loop {
        let left = world.versions().await;
        let ours: Vec<_> = left.iter().filter(|object| object.contains("sample")).collect();
        if ours.is_empty() {
            break;
        }
        assert!(started.elapsed() < DEADLINE, "still there: {ours:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(
        world
            .api::<PersistentVolumeClaim>()
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .len(),
        2
    );
}

#[tokio::test]
async fn one_of_two_candidates_leads_and_hands_over() {
    let world = World::new("lease").await;
    let candidate = |name: &str| Candidate::new(world.client.clone(), &world.namespace, name.to_owned());
    let (mut first, mut second) = (candidate("first"), candidate("second"));
    tokio::time::timeout(DEADLINE, first.acquire()).await.unwrap();
    let blocked = tokio::time::timeout(Duration::from_secs(4), second.acquire()).await;
    assert!(blocked.is_err(), "both lead");
    first.release().await.unwrap();
    tokio::time::timeout(DEADLINE, second.acquire()).await.unwrap();
    let lost = tokio::time::timeout(DEADLINE, first.keep()).await.unwrap();
    assert!(lost.to_string().contains("another replica"), "{lost}");
}

#[tokio::test]
async fn in_one_namespace_a_role_suffices() {
    let world = World::with_a_role_only().await;
    preflight::check(&world.operator_client, Some(&world.namespace))
        .await
        .unwrap();
    let more = preflight::check(&world.operator_client, None)
        .await
        .unwrap_err()
        .to_string();
    assert!(more.contains("missing rights in all namespaces"), "{more}");
    let mut candidate = Candidate::new(world.operator_client.clone(), &world.namespace, "first".to_owned());
    tokio::time::timeout(DEADLINE, candidate.acquire()).await.unwrap();
    candidate.release().await.unwrap();
    let faults = Faults::new(|_| Fault::None);
    let operator = world.operator_through(&faults);
    world.create(&json!({"deletionPolicy": {"state": "Delete"}})).await;
    world.await_running().await;
    world
        .change(json!({"image": "example.org/streamagg:2", "replicas": 3}))
        .await;
    world.await_running().await;
    let aggregations = world.api::<StreamAggregation>();
    world.delete().await;
    let started = Instant::now();
    while aggregations.get_opt("sample").await.unwrap().is_some() {
        assert!(started.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    operator.stop().await;
    let asked = faults.calls();
    let inside = format!("/namespaces/{}/", world.namespace);
    assert!(asked.iter().all(|(call, _)| call.path.contains(&inside)), "{asked:#?}");
}

#[tokio::test]
async fn missing_rights_are_named_by_verb_and_resource() {
    let world = World::new("rights").await;
    let mut config = world.config.clone();
    config.auth_info.impersonate = Some("somebody-without-rights".to_owned());
    config.auth_info.impersonate_groups = Some(vec!["system:authenticated".to_owned()]);
    let client = Client::try_from(config).unwrap();
    let error = preflight::check(&client, Some(&world.namespace))
        .await
        .unwrap_err()
        .to_string();
    for right in [
        "patch statefulsets.apps",
        "delete pods",
        "patch streamaggregations/status.streamagg.io",
    ] {
        assert!(error.contains(right), "{right} is not in: {error}");
    }
}
