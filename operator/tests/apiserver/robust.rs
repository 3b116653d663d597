//! Whatever goes wrong between the operator and the API server, and whatever somebody deletes: it converges, and it never
//! does anything twice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;
use streamagg_crds::assignment::Assignment;
use streamagg_operator::controller::reconcile_once;
use streamagg_operator::lease::LEASE_NAME;

use super::faults::{Call, Fault, Faults};
use super::world::{DEADLINE, World, variable};

/// Every kind of fault, again and again; most requests pass.
fn weather(call: &Call) -> Fault {
    const WRITES: [Fault; 6] = [
        Fault::Answer(409, "Conflict", None),
        Fault::Lost,
        Fault::Answer(429, "TooManyRequests", Some(1)),
        Fault::Cut,
        Fault::Answer(500, "InternalError", None),
        Fault::Slow(Duration::from_millis(300)),
    ];
    const READS: [Fault; 4] = [
        Fault::Answer(503, "ServiceUnavailable", None),
        Fault::Cut,
        Fault::Slow(Duration::from_millis(300)),
        Fault::Answer(429, "TooManyRequests", Some(1)),
    ];
    let turn = |faults: &[Fault], every: usize| match call.number % every {
        1 => faults[call.number / every % faults.len()],
        _ => Fault::None,
    };
    if call.watch {
        turn(&[Fault::Answer(410, "Expired", None), Fault::Cut], 3)
    } else if call.writes() {
        turn(&WRITES, 3)
    } else {
        turn(&READS, 15)
    }
}

#[tokio::test]
async fn whatever_the_api_server_answers_it_converges_and_does_nothing_twice() {
    let world = World::new("faults").await;
    let faults = Faults::new(weather);
    let _operator = world.operator_through(&faults);
    world.create(&json!({})).await;
    world.await_running().await;
    assert_eq!(world.node.processors.pods_seen(), 2);
    world.change(json!({"image": "example.org/streamagg:2"})).await;
    world.await_running().await;
    assert_eq!(world.node.processors.pods_seen(), 4, "each pod was replaced once");
    world.nobody_runs_twice();
    world.change(json!({"replicas": 4})).await;
    world.await_running().await;
    assert_eq!(world.node.processors.pods_seen(), 6, "two pods came, none was replaced");
    world.nobody_runs_twice();
    let met: BTreeSet<String> = faults.calls().iter().map(|(_, fault)| format!("{fault:?}")).collect();
    for fault in ["409", "429", "500", "410", "Lost", "Cut", "Slow"] {
        assert!(
            met.iter().any(|met| met.contains(fault)),
            "{fault} was never met: {met:?}"
        );
    }
}

#[tokio::test]
async fn an_idle_aggregation_costs_next_to_no_request_and_a_deleted_one_leaves_no_series() {
    let world = World::new("idle").await;
    let faults = Faults::new(|_| Fault::None);
    let context = world.context_through(&faults);
    let metrics = context.metrics.clone();
    let _operator = world.run(context);
    let secret = json!({"metadata": {"name": "s3"}, "stringData": {"accessKeyId": "a"}});
    let secret: Secret = serde_json::from_value(secret).unwrap();
    world.api().create(&PostParams::default(), &secret).await.unwrap();
    let store = json!({"s3": {"bucket": "b", "secretRef": {"name": "s3"}}});
    let state = json!({"backend": "RocksDB", "volume": {"size": "1Gi"}, "checkpoints": {"store": store}});
    for name in ["sample", "beside"] {
        world.create_named(name, &json!({"state": state})).await;
    }
    world.await_running().await;
    world.await_condition("beside", "Ready", "True", "Running").await;
    // The last changes of the pods' status arrive, the rollout's traces are cleaned up; from then on it is quiet, but that
    // what both refer to is looked at.
    let started = Instant::now();
    loop {
        let before = faults.calls().len();
        tokio::time::sleep(Duration::from_secs(25)).await;
        let calls: Vec<_> = faults
            .calls()
            .split_off(before)
            .into_iter()
            .filter(|(call, _)| !call.watch)
            .collect();
        println!("{} requests in 25 s without a change: {calls:?}", calls.len());
        let shared = |(call, _): &(Call, Fault)| !call.writes() && call.path.ends_with("/secrets/s3");
        if calls.len() <= 2 && calls.iter().all(shared) {
            break;
        }
        assert!(started.elapsed() < 2 * DEADLINE, "never quiet: {calls:?}");
    }
    let shown = || metrics.render().unwrap().contains("name=\"sample\"");
    assert!(shown());
    world.delete().await;
    let started = Instant::now();
    while shown() {
        assert!(
            started.elapsed() < DEADLINE,
            "series of a deleted object: {}",
            metrics.render().unwrap()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Its pods and their set go later, and each tells; the one after it is looked at after all that.
    while !world.versions().await.iter().all(|left| !left.contains("sample")) {
        assert!(started.elapsed() < 2 * DEADLINE, "{:?}", world.versions().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.create_named("later", &json!({})).await;
    world.await_condition("later", "Ready", "True", "Running").await;
    assert!(!shown(), "{}", metrics.render().unwrap());
}

#[tokio::test]
async fn what_happened_while_the_api_server_was_away_is_seen_when_it_is_back() {
    let world = World::new("absent").await;
    let away = Arc::new(AtomicBool::new(false));
    let rule = Arc::clone(&away);
    let faults = Faults::new(move |_| {
        if rule.load(Ordering::Relaxed) {
            Fault::Cut
        } else {
            Fault::None
        }
    });
    let _operator = world.operator_through(&faults);
    world.create(&json!({})).await;
    world.await_running().await;
    away.store(true, Ordering::Relaxed);
    // The watches that are open still tell; what the operator then asks gets no answer.
    world
        .api::<Service>()
        .delete("sample", &DeleteParams::default())
        .await
        .unwrap();
    world.change(json!({"image": "example.org/streamagg:2"})).await;
    let started = Instant::now();
    let cut = || faults.calls().iter().filter(|(_, fault)| *fault == Fault::Cut).count();
    while cut() < 3 {
        assert!(started.elapsed() < DEADLINE, "only {} requests were cut", cut());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(world.node.processors.pods_seen(), 2, "nothing was done in the dark");
    away.store(false, Ordering::Relaxed);
    let status = world.await_running().await;
    assert_eq!(status.image.as_deref(), Some("example.org/streamagg:2"));
    world.api::<Service>().get("sample").await.unwrap();
}

#[tokio::test]
async fn a_right_that_is_taken_away_is_named_by_verb_and_resource() {
    let world = World::new("refused").await;
    let refused = |call: &Call| call.writes() && call.path.contains("/statefulsets/");
    let faults = Faults::new(move |call| match refused(call) {
        true => Fault::Answer(403, "Forbidden", None),
        false => Fault::None,
    });
    let _operator = world.operator_through(&faults);
    world.create(&json!({})).await;
    let status = world.await_condition("sample", "Stalled", "True", "Forbidden").await;
    let message = status.message.unwrap();
    assert!(message.contains("cannot patch statefulset sample"), "{message}");
}

async fn replaced<K>(world: &World, name: &str)
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api = world.api::<K>();
    let old = api.get(name).await.unwrap().meta().uid.clone();
    api.delete(name, &DeleteParams::background()).await.unwrap();
    came_back::<K>(world, name, old).await;
}

/// Waits until another than `old` is there.
async fn came_back<K>(world: &World, name: &str, old: Option<String>)
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let started = Instant::now();
    loop {
        let uid = world
            .api::<K>()
            .get_opt(name)
            .await
            .unwrap()
            .and_then(|object| object.meta().uid.clone());
        if uid.is_some() && uid != old {
            return;
        }
        let kind = K::kind(&());
        assert!(started.elapsed() < DEADLINE, "{kind} {name} never came back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn whatever_is_deleted_under_our_feet_comes_back() {
    let world = World::new("deleted").await;
    let _operator = world.operator();
    world.create(&json!({})).await;
    let before = world.await_running().await.assignment_generation;
    replaced::<Service>(&world, "sample").await;
    replaced::<ServiceAccount>(&world, "sample-processor").await;
    replaced::<PodDisruptionBudget>(&world, "sample").await;
    replaced::<NetworkPolicy>(&world, "sample").await;
    let jobs = ListParams::default().labels("app.kubernetes.io/component=job");
    for job in world.api::<ConfigMap>().list(&jobs).await.unwrap() {
        replaced::<ConfigMap>(&world, &job.name_any()).await;
    }
    assert_eq!(world.node.processors.pods_seen(), 2, "no pod was restarted for that");
    replaced::<ConfigMap>(&world, "sample-assignment").await;
    let map = world.api::<ConfigMap>().get("sample-assignment").await.unwrap();
    let document = map.data.unwrap().remove("assignment.json").unwrap();
    let after: Assignment = serde_json::from_str(&document).unwrap();
    assert!(
        i64::try_from(after.generation).unwrap() > before.unwrap(),
        "a generation is never used twice: {before:?}, {after:?}"
    );
    world.await_generation(after.generation).await;
    replaced::<StatefulSet>(&world, "sample").await;
    world.await_running().await;
    world.nobody_runs_twice();
    // Pods that run do not miss their token; one that comes has to mount it.
    let secrets = world.api::<Secret>();
    let token = secrets.get("sample-token").await.unwrap().uid();
    secrets
        .delete("sample-token", &DeleteParams::background())
        .await
        .unwrap();
    let now = DeleteParams::default().grace_period(0);
    world.api::<Pod>().delete("sample-0", &now).await.unwrap();
    came_back::<Secret>(&world, "sample-token", token).await;
}

#[tokio::test]
async fn a_newer_operator_with_another_default_image_writes_nothing() {
    let world = World::new("newer").await;
    let operator = world.operator();
    world.create(&json!({"image": null})).await;
    let born = world.await_running().await;
    operator.stop().await;
    assert_eq!(born.image.as_deref(), Some("example.org/default:1"));
    world.await_set().await;
    let faults = Faults::new(|_| Fault::None);
    let mut newer = world.context_through(&faults);
    newer.default_image = Some("example.org/default:2".to_owned());
    let written = || faults.calls().iter().filter(|(call, _)| call.writes()).count();
    let look = async || reconcile_once(&world.namespace, "sample", &newer).await.unwrap();
    // The older one may have left something to do.
    for _ in 0..3 {
        look().await;
    }
    let before = written();
    for _ in 0..3 {
        look().await;
    }
    assert_eq!(written(), before, "{:#?}", faults.calls());
    assert_eq!(world.node.processors.pods_seen(), 2, "no pod was restarted");
    world.change(json!({"restartNonce": 1})).await;
    let _operator = world.run(newer);
    let status = world.await_running().await;
    assert_eq!(
        status.image.as_deref(),
        Some("example.org/default:2"),
        "until it is asked for"
    );
}

/// An operator process of its own, and the pod's name it goes by.
fn process(world: &World, identity: &str) -> tokio::process::Child {
    let kubeconfig = variable("KUBECONFIG_API");
    tokio::process::Command::new(env!("CARGO_BIN_EXE_streamagg-operator"))
        .env("KUBECONFIG", kubeconfig)
        .args([
            "--identity",
            identity,
            "--listen",
            "127.0.0.1:0",
            "--processor-image",
            "example.org/default:1",
        ])
        .args(["--namespace", &world.namespace, "--lease-namespace", &world.namespace])
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn holder(world: &World, expected: &str) -> Duration {
    let started = Instant::now();
    loop {
        let lease = world.api::<Lease>().get_opt(LEASE_NAME).await.unwrap();
        let seen = lease.and_then(|lease| lease.spec?.holder_identity);
        if seen.as_deref() == Some(expected) {
            return started.elapsed();
        }
        assert!(started.elapsed() < DEADLINE, "{expected} never led, {seen:?} does");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_operator_that_is_told_to_stop_hands_over_at_once_and_one_that_is_killed_when_its_lease_ends() {
    let world = World::new("handover").await;
    let mut first = process(&world, "first");
    holder(&world, "first").await;
    world.create(&json!({"suspend": true})).await;
    world.await_condition("sample", "Ready", "True", "Suspended").await;
    let second = process(&world, "second");
    let pid = first.id().unwrap().to_string();
    let killed = tokio::process::Command::new("kill")
        .args(["-TERM", &pid])
        .status()
        .await
        .unwrap();
    assert!(killed.success());
    let takeover = holder(&world, "second").await;
    println!("takeover after SIGTERM: {takeover:?}");
    let ended = tokio::time::timeout(DEADLINE, first.wait()).await.unwrap().unwrap();
    assert!(ended.success(), "{ended}");
    let transitions = |world: &World| {
        let leases = world.api::<Lease>();
        async move { leases.get(LEASE_NAME).await.unwrap().spec.unwrap().lease_transitions }
    };
    assert_eq!(transitions(&world).await, Some(2), "nobody led in between");
    world.change(json!({"image": "example.org/streamagg:2"})).await;
    world.await_condition("sample", "Ready", "True", "Suspended").await;
    drop(second);
    let killed = Instant::now();
    let _third = process(&world, "third");
    holder(&world, "third").await;
    println!("takeover after SIGKILL: {:?}", killed.elapsed());
}
