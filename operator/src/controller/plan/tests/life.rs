//! Volumes that grow, sets that are replaced, and the end of an aggregation, as a table of situations.

use serde_json::json;
use streamagg_crds::validate::SpecError;

use super::world::World;
use super::{kinds, running};
use crate::controller::plan::{Wish, plan};

#[test]
fn with_state_delete_the_finalizer_comes_before_anything_that_it_guards() {
    let mut world = World::new(4, 2);
    world.change("deletionPolicy", json!({"state": "Delete"}));
    let actions = plan(&world.wish(), &world.observe()).actions;
    assert_eq!(actions[0].kind(), "set_finalizers");
    world.settle(60);
    assert_eq!(world.finalizers, ["streamagg.io/state"]);
    world.change("deletionPolicy", json!({"state": "Retain"}));
    world.settle(60);
    assert_eq!(world.finalizers, [""; 0]);
}

#[test]
fn a_deleted_object_checkpoints_stops_its_pods_and_deletes_its_volumes_in_this_order() {
    let mut world = World::new(4, 2);
    world.change("deletionPolicy", json!({"state": "Delete"}));
    world.settle(60);
    world.delete();
    let mut seen: Vec<&str> = Vec::new();
    for _ in 0..60 {
        world.tick();
        for action in world.reconcile(None).actions {
            if seen.last() != Some(&action.kind()) {
                seen.push(action.kind());
            }
        }
    }
    assert_eq!(seen, ["drain", "delete_stateful_set", "delete_claim", "set_finalizers"]);
    assert!(world.gone && world.claims.is_empty() && world.pods.is_empty());
}

#[test]
fn a_final_checkpoint_that_fails_or_is_never_answered_delays_the_end_to_the_deadline_only() {
    for (silent, waits) in [
        (false, "final checkpoint failed"),
        (true, "waiting for the final checkpoint"),
    ] {
        let mut world = World::new(4, 2);
        world.change("deletionPolicy", json!({"state": "Delete"}));
        world.settle(60);
        world.store_broken = !silent;
        world.pods.values_mut().for_each(|pod| pod.down = silent);
        world.delete();
        for _ in 0..590 {
            world.tick();
            world.reconcile(None);
        }
        assert!(!world.gone && world.claims.len() == 2, "gave up before the deadline");
        let message = world.status.message.clone().unwrap();
        assert!(message.contains(waits), "{message}");
        let mut notes = Vec::new();
        for _ in 0..30 {
            world.tick();
            notes.extend(world.reconcile(None).notes);
        }
        assert!(world.gone && world.claims.is_empty());
        assert!(
            notes.iter().any(|note| note.reason == "FinalCheckpointFailed"),
            "{notes:?}"
        );
    }
}

#[test]
fn deletion_needs_neither_status_nor_pods_nor_a_valid_spec() {
    let mut world = World::new(4, 2);
    world.change("deletionPolicy", json!({"state": "Delete"}));
    world.settle(60);
    world.delete();
    world.status = Default::default();
    world.pods.clear();
    world.set = None;
    let wish = Wish::Invalid(vec![SpecError::new("spec.windows", "is empty")]);
    let actions = plan(&wish, &world.observe()).actions;
    assert_eq!(kinds(&actions), ["delete_claim", "delete_claim"]);
    world.claims.clear();
    let actions = plan(&wish, &world.observe()).actions;
    assert_eq!(kinds(&actions), ["set_finalizers"]);
}

#[test]
fn volumes_grow_claim_by_claim_and_the_set_is_replaced_under_running_pods() {
    let mut world = running();
    let uids = |world: &World| world.observe().pods.into_iter().map(|pod| pod.uid).collect::<Vec<_>>();
    let (before, set) = (uids(&world), world.set.clone().unwrap().uid);
    world.change("state", json!({"volume": {"size": "2Gi"}}));
    let actions = world.reconcile(None).actions;
    assert_eq!(kinds(&actions), ["grow_claim", "grow_claim"]);
    assert_eq!(world.reason("StorageReady").as_deref(), Some("Resizing"));
    assert_eq!(world.reason("Reconciling").as_deref(), Some("Resizing"));
    let actions = world.reconcile(None).actions;
    assert_eq!(kinds(&actions), ["delete_stateful_set"]);
    let actions = world.reconcile(None).actions;
    assert_eq!(kinds(&actions), ["apply_stateful_set"]);
    world.settle(20);
    assert_ne!(world.set.as_ref().unwrap().uid, set);
    assert_eq!(uids(&world), before, "no pod was touched");
    assert_eq!(world.reason("StorageReady").as_deref(), Some("Bound"));
}

#[test]
fn a_set_that_was_deleted_comes_back_with_the_pods_it_left_and_is_rescaled_by_its_steps() {
    let mut world = running();
    world.set = None;
    world.change("replicas", json!(1));
    world.reconcile(None);
    assert_eq!(
        world.set.as_ref().unwrap().replicas,
        2,
        "no pod is dropped before its tasks moved"
    );
    world.settle(60);
    assert_eq!(world.set.as_ref().unwrap().replicas, 1);
}
