//! The plan as a table of situations, and as a property over random histories (`convergence`).

mod convergence;
mod health;
mod life;
mod policy;
mod reasons;
mod request;
mod restoring;
mod world;

use serde_json::json;
use streamagg_crds::admin::{Problem, TaskState};
use streamagg_crds::v1alpha1::{RolloutKind, RolloutStep};
use streamagg_crds::validate::SpecError;

use super::{Action, Wish, conditions, plan};
use crate::controller::observed::Foreign;
use world::World;

fn kinds(actions: &[Action]) -> Vec<&'static str> {
    actions.iter().map(Action::kind).collect()
}

fn running() -> World {
    let mut world = World::new(4, 2);
    world.settle(60);
    world.steps.clear();
    world
}

fn steps_of(world: &World, kind: RolloutKind) -> Vec<RolloutStep> {
    world
        .steps
        .iter()
        .filter(|(of, _)| *of == kind)
        .map(|(_, step)| *step)
        .collect()
}

#[test]
fn creation_makes_what_pods_mount_before_the_pods() {
    let world = World::new(4, 2);
    let plan = plan(&world.wish(), &world.observe());
    let expected = [
        "apply_child",
        "apply_child",
        "apply_child",
        "apply_child",
        "apply_child",
        "create_token",
        "write_assignment",
        "apply_stateful_set",
    ];
    assert_eq!(kinds(&plan.actions), expected);
    assert!(plan.rollout.is_none(), "the first creation is no rollout");
}

#[test]
fn a_settled_world_has_an_empty_plan_and_an_unchanged_status() {
    let world = running();
    let (wish, observed) = (world.wish(), world.observe());
    let plan = plan(&wish, &observed);
    assert!(plan.is_settled(&observed), "{plan:#?}");
    assert_eq!(conditions::status("sample", &wish, &observed, &plan), world.status);
    assert_eq!(world.reason("Ready").as_deref(), Some("Running"));
    assert_eq!(world.status.replicas_text.as_deref(), Some("2/2"));
}

#[test]
fn children_of_a_deleting_object_are_not_recreated() {
    let world = World::new(4, 2);
    let observed = crate::controller::observed::Observed {
        deleted_at: Some(k8s_openapi::jiff::Timestamp::UNIX_EPOCH),
        ..world.observe()
    };
    let plan = plan(&world.wish(), &observed);
    assert_eq!(plan.actions, []);
    let status = conditions::status("sample", &world.wish(), &observed, &plan);
    assert_eq!(status.state.as_deref(), Some("Deleting"));
}

#[test]
fn objects_of_others_are_not_touched() {
    let world = World::new(4, 2);
    for (passing, stalled) in [(true, None), (false, Some("NameConflict"))] {
        let foreign = vec![Foreign {
            object: "service sample".to_owned(),
            passing,
        }];
        let observed = crate::controller::observed::Observed {
            foreign,
            ..world.observe()
        };
        let plan = plan(&world.wish(), &observed);
        assert_eq!(plan.actions, []);
        assert_eq!(plan.verdict.map(|verdict| verdict.reason).as_deref(), stalled);
    }
}

#[test]
fn an_invalid_spec_says_so_and_leaves_what_runs_alone() {
    let mut world = running();
    world.generation += 1;
    // A pod that restarts is still told its assignment.
    world.restart_container(1);
    world.tick();
    world.pods.get_mut(&1).unwrap().tasks.clear();
    let wish = Wish::Invalid(vec![SpecError::new("spec.windows", "is empty")]);
    let observed = world.observe();
    let plan = plan(&wish, &observed);
    assert!(plan.rollout.is_none());
    let status = conditions::status("sample", &wish, &observed, &plan);
    let reason = |type_: &str| {
        let found = status.conditions.iter().find(|condition| condition.type_ == type_);
        found.map(|condition| (condition.status.as_str(), condition.reason.as_str()))
    };
    assert_eq!(reason("SpecValid"), Some(("False", "SpecInvalid")));
    assert_eq!(reason("Ready"), Some(("False", "SpecInvalid")));
    assert_eq!(reason("Stalled"), Some(("True", "SpecInvalid")));
    assert_eq!(reason("Reconciling"), None);
    assert_eq!(status.observed_generation, 2);
    let message = status.message.unwrap();
    assert!(
        message.contains("spec.windows: is empty") && message.contains("last good spec"),
        "{message}"
    );
}

#[test]
fn an_upgrade_drains_commits_replaces_and_restores() {
    let mut world = running();
    world.change("image", json!("example.org/streamagg:2"));
    world.settle(100);
    use RolloutStep::{Apply, Checkpoint, Commit, Plan, Restore, Verify};
    assert_eq!(
        steps_of(&world, RolloutKind::Upgrade),
        [Plan, Checkpoint, Verify, Commit, Apply, Restore]
    );
    let set = world.set.as_ref().unwrap();
    assert_eq!((set.image.as_str(), set.partition), ("example.org/streamagg:2", 10_000));
    assert_eq!(world.status.last_stable_revision.as_ref(), Some(&set.revision));
    assert_eq!(
        world.assignment.as_ref().unwrap().1.generation,
        1,
        "an upgrade moves no task"
    );
}

#[test]
fn a_new_restart_nonce_is_a_restart_not_an_upgrade() {
    let mut world = running();
    let before = world.set.clone().unwrap().content;
    world.change("restartNonce", json!(1));
    world.settle(100);
    assert!(!steps_of(&world, RolloutKind::Restart).is_empty());
    assert!(steps_of(&world, RolloutKind::Upgrade).is_empty());
    assert_eq!(world.set.as_ref().unwrap().content, before);
}

#[test]
fn growing_drains_only_the_tasks_that_move() {
    let mut world = running();
    world.change("replicas", json!(4));
    let mut drained = Vec::new();
    for _ in 0..100 {
        world.tick();
        let before = world.observe();
        let plan = world.reconcile(None);
        for action in &plan.actions {
            if let Action::Drain { tasks, .. } = action {
                drained.extend(tasks.clone());
            }
        }
        if plan.is_settled(&before) && world.condition("Ready").as_deref() == Some("True") {
            break;
        }
    }
    drained.sort_unstable();
    drained.dedup();
    assert_eq!(drained, [0, 1], "of each old pod one task moves and one stays");
    assert_eq!(world.pods.len(), 4);
    assert!(
        world
            .pods
            .values()
            .all(|pod| pod.tasks.values().all(|state| *state == TaskState::Running))
    );
    assert_eq!(world.assignment.as_ref().unwrap().1.generation, 2);
}

#[test]
fn shrinking_moves_the_tasks_before_the_pods_go() {
    let mut world = running();
    world.change("replicas", json!(1));
    for _ in 0..100 {
        world.tick();
        let plan = world.reconcile(None);
        let shrinks = plan
            .actions
            .iter()
            .any(|action| matches!(action, Action::ScaleStatefulSet { replicas: 1, .. }));
        if shrinks {
            let owners = &world.assignment.as_ref().unwrap().1.tasks;
            assert!(owners.values().all(|owner| *owner == 0), "{owners:?}");
            return;
        }
    }
    panic!("never shrunk: {:?}", world.steps);
}

#[test]
fn without_a_store_tasks_stay_where_their_state_is() {
    let mut world = World::new(4, 2);
    world.change("state", json!({"checkpoints": null}));
    world.settle(60);
    world.change("replicas", json!(4));
    for _ in 0..20 {
        world.tick();
        world.reconcile(None);
    }
    assert_eq!(world.set.as_ref().unwrap().replicas, 2);
    assert_eq!(world.reason("SpecValid").as_deref(), Some("SpecInvalid"));
    assert_eq!(world.reason("Stalled").as_deref(), Some("SpecInvalid"));
    assert!(
        world
            .status
            .message
            .as_ref()
            .unwrap()
            .contains("spec.state.checkpoints.store")
    );
    assert_eq!(
        world.condition("Available").as_deref(),
        Some("True"),
        "what runs goes on"
    );
    world.change("replicas", json!(2));
    world.settle(20);
}

#[test]
fn suspend_and_resume_keep_the_assignment() {
    let mut world = running();
    world.change("suspend", json!(true));
    world.settle(60);
    assert_eq!(world.reason("Ready").as_deref(), Some("Suspended"));
    assert_eq!(world.condition("Available").as_deref(), Some("False"));
    assert!(world.pods.is_empty());
    let tasks = world.assignment.as_ref().unwrap().1.tasks.clone();
    world.change("suspend", json!(false));
    world.settle(60);
    assert_eq!(world.assignment.as_ref().unwrap().1.tasks, tasks);
    assert_eq!(world.reason("Ready").as_deref(), Some("Running"));
}

#[test]
fn resuming_with_other_replicas_reassigns_before_pods_come() {
    let mut world = running();
    world.change("suspend", json!(true));
    world.settle(60);
    world.change("replicas", json!(4));
    world.change("suspend", json!(false));
    world.settle(60);
    assert!(steps_of(&world, RolloutKind::Rescale).is_empty());
    assert_eq!(world.pods.len(), 4);
}

#[test]
fn a_failed_checkpoint_blocks_the_change_and_the_old_revision_goes_on() {
    let mut world = running();
    world.store_broken = true;
    world.change("image", json!("example.org/streamagg:2"));
    for _ in 0..30 {
        world.tick();
        world.reconcile(None);
    }
    assert_eq!(world.reason("Stalled").as_deref(), Some("CheckpointFailed"));
    assert!(
        world
            .pods
            .values()
            .all(|pod| pod.tasks.values().all(|state| *state == TaskState::Running))
    );
    assert_eq!(world.set.as_ref().unwrap().image, "example.org/streamagg:1");
    world.store_broken = false;
    world.settle(200);
    assert_eq!(world.set.as_ref().unwrap().image, "example.org/streamagg:2");
}

#[test]
fn a_failed_new_revision_is_named_and_a_fix_does_not_wait_it_out() {
    let mut world = running();
    world.change("image", json!("example.org/streamagg:2"));
    let broken = world.wish().desired().unwrap().revision.clone();
    world.broken_revision = Some(broken);
    for _ in 0..20 {
        world.tick();
        world.reconcile(None);
    }
    assert_eq!(world.reason("Stalled").as_deref(), Some("ImagePull"));
    assert_eq!(world.reason("Ready").as_deref(), Some("Stalled"));
    assert_eq!(world.reason("Reconciling"), None);
    world.change("image", json!("example.org/streamagg:3"));
    world.settle(30);
    assert_eq!(world.set.as_ref().unwrap().image, "example.org/streamagg:3");
}

#[test]
fn a_change_taken_back_before_commit_wakes_the_drained_tasks() {
    let mut world = running();
    world.change("image", json!("example.org/streamagg:2"));
    for _ in 0..20 {
        world.reconcile(None);
        world.tick();
        if world
            .pods
            .values()
            .any(|pod| pod.tasks.values().any(|state| *state == TaskState::Drained))
        {
            break;
        }
    }
    let step = world.status.rollout.as_ref().map(|rollout| rollout.step);
    assert_eq!(step, Some(RolloutStep::Checkpoint));
    world.change("image", json!("example.org/streamagg:1"));
    world.settle(30);
    assert_eq!(world.assignment.as_ref().unwrap().1.generation, 2);
}

#[test]
fn a_silent_pod_delays_an_upgrade_to_the_deadline_only() {
    let mut world = running();
    world.pods.get_mut(&1).unwrap().down = true;
    world.change("image", json!("example.org/streamagg:2"));
    for _ in 0..60 {
        world.tick();
        world.reconcile(None);
    }
    assert_eq!(world.status.rollout.as_ref().unwrap().step, RolloutStep::Checkpoint);
    world.settle(200);
}

#[test]
fn a_stopped_task_stalls_with_the_reason_of_its_pod() {
    let mut world = running();
    world.pods.get_mut(&0).unwrap().tasks.insert(0, TaskState::Stopped);
    let mut observed = world.observe();
    let row = observed.pods[0]
        .admin
        .as_mut()
        .unwrap()
        .tasks
        .iter_mut()
        .find(|row| row.task == 0)
        .unwrap();
    row.problem = Some(Problem {
        reason: "InputTruncated".to_owned(),
        message: "records are gone".to_owned(),
    });
    let plan = plan(&world.wish(), &observed);
    let status = conditions::status("sample", &world.wish(), &observed, &plan);
    let stalled = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Stalled")
        .unwrap();
    assert_eq!(stalled.reason, "InputTruncated");
    assert!(stalled.message.contains("records are gone") && stalled.message.contains("sample-0"));
}

#[test]
fn transition_times_move_only_when_a_status_flips() {
    let mut world = running();
    let ready = |world: &World| {
        let found = world
            .status
            .conditions
            .iter()
            .find(|condition| condition.type_ == "Ready")
            .cloned();
        found.unwrap()
    };
    let before = ready(&world);
    world.tick();
    world.change("maxBadRatio", json!(1.0));
    world.reconcile(None);
    assert_eq!(ready(&world).last_transition_time, before.last_transition_time);
    world.change("image", json!("example.org/streamagg:2"));
    world.tick();
    world.reconcile(None);
    assert_ne!(ready(&world).last_transition_time, before.last_transition_time);
}

#[test]
fn a_lost_assignment_is_rebuilt_from_the_pods_above_every_generation_seen() {
    let mut world = running();
    let (_, lost) = world.assignment.take().unwrap();
    world.settle(20);
    let (_, rebuilt) = world.assignment.as_ref().unwrap();
    assert_eq!(rebuilt.tasks, lost.tasks);
    assert!(rebuilt.generation > lost.generation);
}

#[test]
fn a_resume_that_meets_tasks_of_pods_that_never_were_moves_them() {
    // Found by `any_history_converges`: suspended before the first pod answered, resumed smaller while it did.
    let mut world = World::new(4, 2);
    world.reconcile(None);
    world.change("suspend", json!(true));
    world.change("replicas", json!(1));
    for _ in 0..4 {
        world.reconcile(None);
    }
    for _ in 0..3 {
        world.tick();
    }
    world.reconcile(None);
    world.change("suspend", json!(false));
    world.settle(60);
    assert_eq!(world.pods.len(), 1);
}

#[test]
fn a_set_scaled_by_hand_is_put_back() {
    let mut world = running();
    let set = world.set.as_mut().unwrap();
    set.replicas = 1;
    world.settle(60);
    assert_eq!(world.set.as_ref().unwrap().replicas, 2);
    assert_eq!(world.pods.len(), 2);
}
