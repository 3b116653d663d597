//! Each condition beside the main ones in each of its reasons, and what a pause and a watched rollout look like.

use k8s_openapi::jiff::SignedDuration;
use serde_json::json;
use streamagg_crds::admin::{CheckpointInfo, PodStatus, Problem, TaskState, TaskStatus};
use streamagg_crds::v1alpha1::{RolloutKind, RolloutStep};

use super::running;
use super::world::World;
use crate::controller::observed::Observed;
use crate::controller::plan::{conditions, plan};

/// Status and reason of a condition; `None` when it is absent.
fn condition(world: &World, observed: &Observed, type_: &str) -> Option<(bool, String)> {
    let plan = plan(&world.wish(), observed);
    let status = conditions::status("sample", &world.wish(), observed, &plan);
    let found = status.conditions.iter().find(|condition| condition.type_ == type_)?;
    assert!(!found.message.is_empty(), "{type_} says nothing");
    Some((found.status == "True", found.reason.clone()))
}

pub fn rows(observed: &mut Observed) -> impl Iterator<Item = &mut TaskStatus> {
    let admins = observed.pods.iter_mut().filter_map(|pod| pod.admin.as_mut());
    admins.flat_map(|admin| admin.tasks.iter_mut())
}

pub fn problem(reason: &str) -> Option<Problem> {
    Some(Problem {
        reason: reason.to_owned(),
        message: "words of the pod".to_owned(),
    })
}

/// Every task has read 10 records and has a checkpoint of so many, so many seconds old.
pub fn checkpoints(observed: &mut Observed, holds: i64, age_seconds: i64) {
    let completed_at_ms = observed.now.as_millisecond() - age_seconds * 1000;
    observed.running_since = Some(observed.now - SignedDuration::from_secs(1000));
    rows(observed).for_each(|row| {
        row.input_offset = 10;
        row.checkpoint = Some(CheckpointInfo {
            id: "c".to_owned(),
            input_offset: holds,
            completed_at_ms,
            ..CheckpointInfo::default()
        });
    });
}

#[test]
fn what_runs_below_its_spec_is_degraded_for_one_reason() {
    let world = running();
    assert_eq!(condition(&world, &world.observe(), "Degraded"), None);
    type Change = fn(&mut Observed);
    let table: [(&str, Change); 6] = [
        ("PodsNotReady", |observed| observed.pods[1].ready = false),
        ("CrashLooping", |observed| {
            observed.pods[1].crash = Some("ended".to_owned())
        }),
        ("DiskPressure", |observed| {
            let admin: &mut PodStatus = observed.pods[0].admin.as_mut().unwrap();
            admin.problem = problem("DiskFull");
        }),
        ("SinkFailing", |observed| {
            rows(observed)
                .take(1)
                .for_each(|row| (row.state, row.problem) = (TaskState::Stopped, problem("SinkFailing")));
            let hopeless = observed.pods.iter().find_map(|pod| pod.hopeless());
            assert_eq!(hopeless, None, "it tries again by itself");
        }),
        ("CheckpointFailing", |observed| {
            rows(observed)
                .take(1)
                .for_each(|row| row.problem = problem("CheckpointFailed"));
        }),
        ("LagGrowing", |observed| {
            observed.lag_samples = (1..7).map(|minute| minute * 9_000).collect()
        }),
    ];
    for (reason, change) in table {
        let mut observed = world.observe();
        change(&mut observed);
        assert_eq!(
            condition(&world, &observed, "Degraded"),
            Some((true, reason.to_owned()))
        );
    }
    for fine in [vec![90_000; 6], vec![1, 2, 3, 4, 5, 6], vec![90_000, 95_000]] {
        let mut observed = world.observe();
        observed.lag_samples = fine;
        assert_eq!(condition(&world, &observed, "Degraded"), None);
    }
}

#[test]
fn checkpoints_are_judged_by_age_unless_they_hold_all_there_is() {
    let world = running();
    for (holds, age_seconds, expected) in [
        (5, 100, (true, "Completed")),
        (5, 181, (false, "Overdue")),
        (10, 100_000, (true, "Completed")),
    ] {
        let mut observed = world.observe();
        checkpoints(&mut observed, holds, age_seconds);
        let found = condition(&world, &observed, "Checkpointed").unwrap();
        assert_eq!((found.0, found.1.as_str()), expected, "{holds} {age_seconds}");
    }
    let mut observed = world.observe();
    checkpoints(&mut observed, 5, 10);
    rows(&mut observed).for_each(|row| row.checkpoint = None);
    assert_eq!(
        condition(&world, &observed, "Checkpointed"),
        Some((false, "NeverCompleted".to_owned()))
    );
    rows(&mut observed).for_each(|row| row.problem = problem("CheckpointFailed"));
    assert_eq!(
        condition(&world, &observed, "Checkpointed"),
        Some((false, "Failing".to_owned()))
    );
}

#[test]
fn volumes_are_ready_when_all_that_are_in_use_are_bound_and_large_enough() {
    let world = running();
    assert_eq!(
        condition(&world, &world.observe(), "StorageReady"),
        Some((true, "Bound".to_owned()))
    );
    for (phase, reason) in [("Pending", "Pending"), ("Lost", "Lost")] {
        let mut observed = world.observe();
        observed.claims[1].phase = phase.to_owned();
        assert_eq!(
            condition(&world, &observed, "StorageReady"),
            Some((false, reason.to_owned()))
        );
        observed.claims[1].ordinal = 7;
        assert_eq!(
            condition(&world, &observed, "StorageReady"),
            Some((true, "Bound".to_owned())),
            "a claim without a pod does not count"
        );
    }
}

#[test]
fn the_last_rollout_is_remembered_with_its_outcome() {
    let mut world = running();
    assert_eq!(world.reason("RolloutSucceeded"), None);
    world.change("image", json!("example.org/streamagg:2"));
    world.reconcile(None);
    assert_eq!(world.reason("RolloutSucceeded").as_deref(), Some("InProgress"));
    world.change("image", json!("example.org/streamagg:1"));
    world.reconcile(None);
    assert_eq!(world.reason("RolloutSucceeded").as_deref(), Some("Aborted"));
    world.change("image", json!("example.org/streamagg:2"));
    world.settle(60);
    assert_eq!(world.reason("RolloutSucceeded").as_deref(), Some("Completed"));
    assert_eq!(world.condition("RolloutSucceeded").as_deref(), Some("True"));
}

#[test]
fn a_paused_aggregation_is_reported_and_left_alone() {
    let mut world = running();
    world.paused = true;
    world.reconcile(None);
    assert_eq!(world.reason("ReconciliationPaused").as_deref(), Some("Annotation"));
    assert_eq!(
        world.reason("Ready").as_deref(),
        Some("Running"),
        "its spec is in force"
    );
    world.change("image", json!("example.org/streamagg:2"));
    world.change("replicas", json!(3));
    for _ in 0..5 {
        world.tick();
        assert_eq!(world.reconcile(None).actions, []);
    }
    assert_eq!(world.reason("Ready").as_deref(), Some("Paused"));
    assert_eq!(world.reason("Reconciling"), None);
    assert_eq!(world.status.observed_generation, world.generation);
    world.paused = false;
    world.settle(100);
    assert_eq!(world.reason("ReconciliationPaused"), None);
    assert_eq!(world.set.as_ref().unwrap().replicas, 3);
}

#[test]
fn a_new_revision_is_ready_while_it_is_watched_and_stable_after_that() {
    let mut world = running();
    world.change("upgrade", json!({"stabilization": "30s"}));
    let before = world.status.last_stable_revision.clone();
    world.change("image", json!("example.org/streamagg:2"));
    let watched = |world: &World| {
        let rollout = world.status.rollout.as_ref();
        rollout.is_some_and(|rollout| rollout.step == RolloutStep::Stabilize)
    };
    for _ in 0..60 {
        world.tick();
        world.reconcile(None);
        if watched(&world) {
            break;
        }
    }
    assert!(watched(&world), "{:?}", world.steps);
    assert_eq!(world.reason("Ready").as_deref(), Some("Running"));
    assert_eq!(world.reason("Reconciling"), None);
    assert_eq!(world.reason("RolloutSucceeded").as_deref(), Some("InProgress"));
    world.restart_container(0);
    world.reconcile(None);
    assert!(!watched(&world), "a break starts it over");
    assert_eq!(world.status.last_stable_revision, before);
    world.settle(60);
    assert_ne!(world.status.last_stable_revision, before);
    // A further change does not wait for it.
    world.change("image", json!("example.org/streamagg:3"));
    for _ in 0..60 {
        world.tick();
        world.reconcile(None);
        if watched(&world) {
            world.change("replicas", json!(3));
            world.reconcile(None);
            let kind = world.status.rollout.as_ref().map(|rollout| rollout.kind);
            assert_eq!(kind, Some(RolloutKind::Rescale));
            world.settle(60);
            return;
        }
    }
    panic!("never watched again: {:?}", world.steps);
}
