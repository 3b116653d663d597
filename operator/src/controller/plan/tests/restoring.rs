//! Going back to a checkpoint (`spec.restoreFrom`), as a table of situations.

use serde_json::json;
use streamagg_crds::admin::TaskState;
use streamagg_crds::v1alpha1::{RolloutKind, RolloutStep};

use super::world::World;
use super::{running, steps_of};
use crate::controller::observed::Observed;
use crate::controller::plan::{Action, conditions, plan};
use crate::controller::restore;

fn asks(world: &mut World, checkpoint: &str, nonce: i64) {
    world.change("restoreFrom", json!({"checkpoint": checkpoint, "nonce": nonce}));
}

fn rounds(world: &mut World, count: usize) {
    for _ in 0..count {
        world.tick();
        world.reconcile(None);
    }
}

/// All tasks went back for this nonce, and the status says so.
fn is_back(world: &World, nonce: u64) -> bool {
    let restored = world.status.restored.as_ref().map(|last| last.nonce.unsigned_abs());
    restored == Some(nonce) && world.positions.len() == 4 && world.positions.values().all(|of| *of == nonce)
}

/// The next pass of `step` is written down.
fn until(world: &mut World, kind: RolloutKind, step: RolloutStep) {
    for _ in 0..60 {
        world.reconcile(None);
        let log = world.status.rollout.as_ref().map(|log| (log.kind, log.step));
        if log == Some((kind, step)) {
            return;
        }
        world.tick();
    }
    panic!("never {kind:?} {step:?}: {:?}", world.steps);
}

#[test]
fn all_pods_are_replaced_without_a_drain_and_every_task_goes_back_once() {
    let mut world = running();
    world.keep("a", "Complete");
    let before = world.wish().desired().unwrap().pipeline_revision.clone();
    asks(&mut world, "a", 3);
    let (mut drains, mut notes) = (0, Vec::new());
    for _ in 0..60 {
        world.tick();
        let plan = world.reconcile(None);
        drains += plan
            .actions
            .iter()
            .filter(|action| matches!(action, Action::Drain { .. }))
            .count();
        notes.extend(plan.notes);
    }
    use RolloutStep::{Apply, Commit, Restore};
    assert_eq!(steps_of(&world, RolloutKind::Restore), [Commit, Apply, Restore]);
    assert!(drains == 0 && is_back(&world, 3), "{:?}", world.positions);
    let reasons: Vec<_> = notes.iter().map(|note| note.reason.as_str()).collect();
    assert_eq!(reasons, ["RolloutStarted", "RolloutCompleted"]);
    assert!(
        notes[0]
            .message
            .contains("back to StreamCheckpoint a for restoreFrom nonce 3"),
        "{}",
        notes[0].message
    );
    assert_eq!(world.wish().desired().unwrap().pipeline_revision, before);
    // Without the object and the wish it stays as it is.
    let revision = world.set.clone().unwrap().revision;
    world.delete_checkpoint("a");
    world.change("restoreFrom", json!(null));
    world.settle(10);
    assert!(world.kept.is_empty() && world.set.as_ref().unwrap().revision == revision);
    assert!(steps_of(&world, RolloutKind::Upgrade).is_empty());
}

#[test]
fn it_goes_with_a_change_of_the_spec_in_one_rollout() {
    let mut world = running();
    world.keep("a", "Complete");
    world.spec["image"] = json!("example.org/streamagg:2");
    asks(&mut world, "a", 1);
    let notes = world.reconcile(None).notes;
    assert!(
        notes[0].message.contains("with a change (image: "),
        "{}",
        notes[0].message
    );
    world.settle(60);
    assert!(is_back(&world, 1) && steps_of(&world, RolloutKind::Upgrade).is_empty());
    assert_eq!(world.set.as_ref().unwrap().image, "example.org/streamagg:2");
}

#[test]
fn what_is_not_there_holds_the_whole_generation_back_and_says_what_to_do() {
    let mut world = running();
    world.spec["image"] = json!("example.org/streamagg:2");
    asks(&mut world, "a", 1);
    rounds(&mut world, 3);
    assert_eq!(world.reason("Stalled").as_deref(), Some("CheckpointMissing"));
    assert_eq!(world.reason("SpecValid").as_deref(), Some("Valid"));
    assert!(world.status.message.clone().unwrap().contains("kubectl get scp"));
    assert_eq!(world.set.as_ref().unwrap().image, "example.org/streamagg:1");
    for (phase, type_, reason) in [
        ("Failed", "Stalled", "CheckpointMissing"),
        ("Pinning", "Reconciling", "WaitingForCheckpoint"),
    ] {
        world.kept.clear();
        world.keep("a", phase);
        rounds(&mut world, 2);
        assert_eq!(world.reason(type_).as_deref(), Some(reason));
        assert!(world.status.message.clone().unwrap().contains("StreamCheckpoint a"));
        assert_eq!(world.status.rollout, None);
    }
    world.delete_checkpoint("a");
    rounds(&mut world, 1);
    assert_eq!(world.reason("Stalled").as_deref(), Some("CheckpointMissing"));
    world.keep("a", "Complete");
    world.settle(60);
    assert!(is_back(&world, 1));
    assert_eq!(world.set.as_ref().unwrap().image, "example.org/streamagg:2");
}

#[test]
fn one_that_is_deleted_before_commit_is_not_gone_back_to_and_one_behind_it_is_held() {
    let mut world = running();
    world.keep("a", "Complete");
    asks(&mut world, "a", 1);
    until(&mut world, RolloutKind::Restore, RolloutStep::Commit);
    world.delete_checkpoint("a");
    rounds(&mut world, 5);
    assert_eq!(
        (world.reason("Stalled").as_deref(), world.positions.len()),
        (Some("CheckpointMissing"), 0)
    );
    assert!(world.kept.is_empty(), "nobody holds it");

    world.keep("b", "Complete");
    asks(&mut world, "b", 2);
    until(&mut world, RolloutKind::Restore, RolloutStep::Apply);
    world.delete_checkpoint("b");
    world.change("restoreFrom", json!(null));
    world.tick();
    assert_eq!(restore::needs("b", &world.observe()), Some(2));
    world.change("image", json!("example.org/streamagg:2"));
    world.settle(60);
    assert!(is_back(&world, 2), "what has passed Commit is carried through");
}

#[test]
fn with_the_template_in_force_neither_status_nor_object_nor_wish_are_needed() {
    let mut world = running();
    world.keep("a", "Complete");
    asks(&mut world, "a", 1);
    until(&mut world, RolloutKind::Restore, RolloutStep::Apply);
    world.reconcile(Some(1));
    assert!(
        restore::mounted(&world.observe()).is_some(),
        "the operator died behind the template"
    );
    world.status = Default::default();
    world.delete_checkpoint("a");
    world.change("restoreFrom", json!(null));
    rounds(&mut world, 3);
    assert!(world.kept.contains_key("a"), "held while pods go back to it");
    world.settle(60);
    assert!(
        is_back(&world, 1) && steps_of(&world, RolloutKind::Upgrade).is_empty(),
        "{:?}",
        world.steps
    );
    world.tick();
    assert!(world.kept.is_empty());
    // The nonce is used up, whoever asks.
    asks(&mut world, "b", 1);
    world.keep("b", "Complete");
    rounds(&mut world, 2);
    assert_eq!(world.reason("Stalled").as_deref(), Some("SpecInvalid"));
    assert!(world.status.message.clone().unwrap().contains("1 is used up"));
    asks(&mut world, "b", 2);
    world.settle(60);
    assert!(is_back(&world, 2));
}

#[test]
fn a_suspended_one_goes_back_when_it_is_resumed_and_holds_the_checkpoint_until_then() {
    let mut world = running();
    world.keep("a", "Complete");
    world.change("suspend", json!(true));
    asks(&mut world, "a", 1);
    world.settle(60);
    assert_eq!(
        steps_of(&world, RolloutKind::Restore).first(),
        Some(&RolloutStep::Commit)
    );
    assert!(world.pods.is_empty() && world.positions.is_empty());
    assert!(
        world
            .status
            .message
            .clone()
            .unwrap()
            .contains("from StreamCheckpoint a")
    );
    world.delete_checkpoint("a");
    world.change("restoreFrom", json!(null));
    rounds(&mut world, 30);
    assert!(world.kept.contains_key("a"));
    // A change meanwhile takes nothing back.
    world.change("image", json!("example.org/streamagg:2"));
    world.settle(10);
    world.change("suspend", json!(false));
    world.settle(60);
    assert!(is_back(&world, 1));
}

/// Pods are new, and `change` happens to what they tell.
fn stuck(change: impl Fn(&mut Observed)) -> (String, String) {
    let mut world = running();
    world.keep("a", "Complete");
    asks(&mut world, "a", 1);
    until(&mut world, RolloutKind::Restore, RolloutStep::Restore);
    (0..4).for_each(|_| world.tick());
    let mut observed = world.observe();
    change(&mut observed);
    let plan = plan(&world.wish(), &observed);
    let status = conditions::status("sample", &world.wish(), &observed, &plan);
    assert!(plan.rollout.is_some(), "it is not over");
    let stalled = status.conditions.iter().find(|condition| condition.type_ == "Stalled");
    let reason = stalled.map(|stalled| stalled.reason.clone()).unwrap_or_default();
    (reason, status.message.unwrap_or_default())
}

#[test]
fn a_task_that_cannot_go_back_is_a_verdict_with_its_words() {
    let rows = |observed: &mut Observed, state| {
        for row in observed
            .pods
            .iter_mut()
            .flat_map(|pod| pod.admin.iter_mut())
            .flat_map(|admin| &mut admin.tasks)
        {
            (row.state, row.restore_nonce) = (state, 0);
            row.problem = super::health::problem("CheckpointMissing");
        }
    };
    let (reason, message) = stuck(|observed| rows(observed, TaskState::Stopped));
    assert_eq!(reason, "RestoreFailed");
    assert!(
        message.contains("CheckpointMissing") && message.contains("restoreFrom.nonce"),
        "{message}"
    );
    let (reason, message) = stuck(|observed| rows(observed, TaskState::Restoring));
    assert_eq!(reason, "", "{message}");
    assert!(
        message.contains("0 of 4 tasks went back to StreamCheckpoint a"),
        "{message}"
    );
    // An image that knows nothing of it runs on as if nothing were.
    let (reason, message) = stuck(|observed| {
        rows(observed, TaskState::Running);
        observed.now += k8s_openapi::jiff::SignedDuration::from_hours(1);
    });
    assert_eq!(reason, "RestoreFailed");
    assert!(message.contains("its image is older"), "{message}");
}

#[test]
fn what_fails_for_all_or_some_tasks_can_be_taken_back_and_its_number_stays_used() {
    for lost in [0..4, 1..3] {
        let mut world = running();
        world.keep("a", "Complete");
        world.lost = lost.clone().map(|task| ("a".to_owned(), task)).collect();
        asks(&mut world, "a", 1);
        rounds(&mut world, 20);
        assert_eq!(world.reason("Stalled").as_deref(), Some("RestoreFailed"));
        assert!(
            world
                .status
                .message
                .clone()
                .unwrap()
                .contains("take spec.restoreFrom off")
        );
        world.change("restoreFrom", json!(null));
        world.settle(60);
        assert_eq!((world.reason("Stalled"), &world.status.restored), (None, &None));
        assert_eq!(
            world.positions.values().filter(|nonce| **nonce == 0).count(),
            lost.len()
        );
        world.delete_checkpoint("a");
        world.tick();
        assert!(world.kept.is_empty(), "nobody goes back to it any more");
        world.keep("b", "Complete");
        asks(&mut world, "b", 1);
        rounds(&mut world, 2);
        let refused = world.reason("Stalled").as_deref() == Some("SpecInvalid");
        assert_eq!(refused, lost.len() < 4, "some tasks have seen this number");
        asks(&mut world, "b", 2);
        world.settle(60);
        assert!(is_back(&world, 2));
    }
}

#[test]
fn a_correction_does_not_wait_for_a_restore_that_fails() {
    let mut world = running();
    world.keep("a", "Complete");
    world.spec["image"] = json!("example.org/streamagg:2");
    asks(&mut world, "a", 1);
    world.broken_revision = Some(world.wish().desired().unwrap().revision.clone());
    rounds(&mut world, 20);
    assert_eq!(world.reason("Stalled").as_deref(), Some("ImagePull"));
    world.change("image", json!("example.org/streamagg:3"));
    world.settle(30);
    assert!(is_back(&world, 1));
}
