//! From any history of faults and changes of the spec the plan converges, and never does what must not be done
//! (the model asserts that at each action).

use proptest::prelude::*;
use serde_json::json;

use super::world::World;
use crate::controller::fixtures;

/// What may happen between two looks.
#[derive(Clone, Debug)]
enum Event {
    Reconcile,
    /// The operator dies after so many effects.
    Crash(usize),
    Tick(u8),
    Replicas(u32),
    Image(u8),
    Suspend(bool),
    RestartNonce(u8),
    KillContainer(u32),
    PodAway(u32, bool),
    StoreBroken(bool),
    StatusWiped,
    Partitions(u32),
    /// The volumes are to have so many GiB, unless they have more.
    Grow(u8),
    /// Somebody deletes the StatefulSet and leaves its pods.
    Orphan,
    KeepsState(bool),
    /// `upgrade.onCheckpointFailure`.
    Policy(&'static str),
    /// Tasks have checkpoints in the store.
    Saved(bool),
    /// `spec.restoreFrom` with so much added to its nonce, or taken off.
    RestoreFrom(Option<(&'static str, i64)>),
    /// A StreamCheckpoint comes to be in a phase.
    Checkpoint(&'static str, &'static str),
    CheckpointDeleted(&'static str),
    /// The store loses a task's part of it.
    CheckpointLost(&'static str, u32),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => Just(Event::Reconcile),
        6 => (0usize..6).prop_map(Event::Crash),
        8 => (1u8..4).prop_map(Event::Tick),
        1 => (130u8..140).prop_map(Event::Tick),
        2 => (1u32..5).prop_map(Event::Replicas),
        2 => (1u8..4).prop_map(Event::Image),
        1 => any::<bool>().prop_map(Event::Suspend),
        1 => (0u8..3).prop_map(Event::RestartNonce),
        2 => (0u32..4).prop_map(Event::KillContainer),
        2 => ((0u32..4), any::<bool>()).prop_map(|(ordinal, away)| Event::PodAway(ordinal, away)),
        1 => any::<bool>().prop_map(Event::StoreBroken),
        1 => Just(Event::StatusWiped),
        1 => (4u32..7).prop_map(Event::Partitions),
        1 => (2u8..5).prop_map(Event::Grow),
        1 => Just(Event::Orphan),
        1 => any::<bool>().prop_map(Event::KeepsState),
        1 => prop_oneof![Just("Block"), Just("UseLatest"), Just("Abort")].prop_map(Event::Policy),
        1 => any::<bool>().prop_map(Event::Saved),
        2 => prop::option::of((name(), 0i64..2)).prop_map(Event::RestoreFrom),
        2 => (name(), prop_oneof![3 => Just("Complete"), 1 => Just("Pinning"), 1 => Just("Failed")])
            .prop_map(|(name, phase)| Event::Checkpoint(name, phase)),
        1 => name().prop_map(Event::CheckpointDeleted),
        1 => (name(), 0u32..4).prop_map(|(name, task)| Event::CheckpointLost(name, task)),
    ]
}

fn name() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b")]
}

fn happen(world: &mut World, event: &Event) {
    match event {
        Event::Reconcile => drop(world.reconcile(None)),
        Event::Crash(prefix) => drop(world.reconcile(Some(*prefix))),
        Event::Tick(seconds) => (0..*seconds).for_each(|_| world.tick()),
        Event::Replicas(replicas) => world.change("replicas", json!(replicas)),
        Event::Image(tag) => world.change("image", json!(format!("example.org/streamagg:{tag}"))),
        Event::Suspend(suspend) => world.change("suspend", json!(suspend)),
        Event::RestartNonce(nonce) => world.change("restartNonce", json!(nonce)),
        Event::KillContainer(ordinal) => world.restart_container(*ordinal),
        Event::PodAway(ordinal, away) => {
            if let Some(pod) = world.pods.get_mut(ordinal) {
                pod.down = *away;
            }
        }
        Event::StoreBroken(broken) => world.store_broken = *broken,
        Event::StatusWiped => world.status = Default::default(),
        Event::Grow(size) => {
            let size = u64::from(*size).max(fixtures::desired(&world.spec, None).volume.unwrap().bytes >> 30);
            world.change("state", json!({"volume": {"size": format!("{size}Gi")}}));
        }
        Event::Orphan => world.set = None,
        Event::KeepsState(keeps) => {
            let state = if *keeps { "Retain" } else { "Delete" };
            world.change("deletionPolicy", json!({"state": state}));
        }
        Event::Policy(policy) => world.change("upgrade", json!({"onCheckpointFailure": policy})),
        Event::Saved(saved) => world.saved = *saved,
        Event::RestoreFrom(None) => world.change("restoreFrom", json!(null)),
        Event::RestoreFrom(Some((name, more))) => {
            let (old, before) = (&world.spec["restoreFrom"], world.spec["restoreFrom"]["nonce"].as_i64());
            // As the API server has it: another checkpoint needs a higher nonce.
            let more = if old["checkpoint"] == *name { *more } else { 1 };
            let nonce = before.map_or(1, |before| before + more);
            world.change("restoreFrom", json!({"checkpoint": name, "nonce": nonce}));
        }
        Event::Checkpoint(name, phase) if !world.kept.contains_key(*name) => world.keep(name, phase),
        Event::Checkpoint(..) => {}
        Event::CheckpointDeleted(name) => world.delete_checkpoint(name),
        Event::CheckpointLost(name, task) => drop(world.lost.insert(((*name).to_owned(), *task))),
        Event::Partitions(count) => world.task_count = world.task_count.max(*count),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_converges(events in prop::collection::vec(event(), 1..60)) {
        converges(&events);
    }

    #[test]
    fn any_history_can_be_ended(events in prop::collection::vec(event(), 1..30), broken in any::<bool>()) {
        let mut world = World::new(4, 2);
        world.change("deletionPolicy", json!({"state": "Delete"}));
        world.reconcile(None);
        let (before, after) = events.split_at(events.len() / 2);
        before.iter().for_each(|event| happen(&mut world, event));
        world.delete();
        let late = |event: &&Event| !matches!(event, Event::KeepsState(_));
        after.iter().filter(late).for_each(|event| happen(&mut world, event));
        world.store_broken = broken;
        ends(world);
    }
}

fn converges(events: &[Event]) {
    let mut world = World::new(4, 2);
    for event in events {
        happen(&mut world, event);
    }
    world.store_broken = false;
    world.pods.values_mut().for_each(|pod| pod.down = false);
    // What was given up is tried again with the next generation.
    world.change("upgrade", json!({"onCheckpointFailure": "Block"}));
    can_go_back(&mut world);
    world.settle(600);
    reached(&world);
    let before = world.observe();
    let plan = world.reconcile(None);
    assert!(plan.is_settled(&before), "a second look finds work: {plan:#?}");
    ends(world);
}

/// A random history once.
#[test]
fn partitions_are_added_while_an_order_cannot_be_carried_out() {
    converges(&[
        Event::Reconcile,
        Event::Tick(3),
        Event::Replicas(4),
        Event::Reconcile,
        Event::Reconcile,
        Event::Partitions(5),
        Event::RestoreFrom(Some(("a", 0))),
    ]);
}

/// A random history that once had a task in the checkpoint which no pod was ever given.
#[test]
fn partitions_are_added_before_the_checkpoint_that_was_ordered_is_there() {
    converges(&[
        Event::Reconcile,
        Event::Reconcile,
        Event::Replicas(4),
        Event::Tick(130),
        Event::Reconcile,
        Event::Reconcile,
        Event::Reconcile,
        Event::Partitions(5),
        Event::RestoreFrom(Some(("b", 0))),
        Event::Checkpoint("b", "Complete"),
    ]);
}

/// A deleted object goes within its deadline, with its volumes or without.
fn ends(mut world: World) {
    // A policy that no look has seen before the end protects nothing.
    let held = !world.finalizers.is_empty();
    world.delete();
    for _ in 0..700 {
        world.tick();
        world.reconcile(None);
        if world.gone {
            let deletes = held && world.spec["deletionPolicy"]["state"] == "Delete";
            assert!(!deletes || world.claims.is_empty(), "{:?}", world.claims);
            return;
        }
    }
    panic!("not gone: {:?}\n{:#?}", world.finalizers, world.status);
}

/// What the spec asks to go back to is there and whole; else a higher number asks for one that is.
fn can_go_back(world: &mut World) {
    // Pods have to tell how many tasks there are.
    for _ in 0..60 {
        world.tick();
        world.reconcile(None);
    }
    if world.resolve().is_err() || !world.lost.is_empty() {
        // A checkpoint has no task that was never assigned: partitions that were added get theirs while nothing is ordered.
        world.change("restoreFrom", json!(null));
        for _ in 0..300 {
            if assigned(world) == Some(world.task_count as usize) {
                break;
            }
            world.tick();
            world.reconcile(None);
        }
        world.keep("c", "Complete");
        world.change("restoreFrom", json!({"checkpoint": "c", "nonce": 1_000}));
    }
}

fn assigned(world: &World) -> Option<usize> {
    let (_, assignment) = world.assignment.as_ref()?;
    Some(assignment.tasks.len())
}

/// What the spec asks for is in force.
fn reached(world: &World) {
    let set = world.set.as_ref().unwrap();
    let wish = world.wish();
    let desired = wish.desired().unwrap();
    assert_eq!(set.revision, desired.revision);
    assert_eq!(set.volume, desired.volume);
    if desired.suspend {
        assert_eq!((set.replicas, world.pods.len()), (0, 0));
        return;
    }
    if let Some(order) = &desired.restore {
        let done = |task: &u32| world.positions.get(task) >= Some(&order.nonce);
        assert!(order.tasks.keys().all(done), "{order:?}: {:?}", world.positions);
        let restored = world.status.restored.as_ref().map(|last| last.nonce.unsigned_abs());
        assert_eq!(restored, Some(order.nonce));
    }
    assert_eq!(set.replicas, desired.replicas);
    let (_, assignment) = world.assignment.as_ref().unwrap();
    assert_eq!(assignment.tasks.len(), world.task_count as usize);
    assert!(assignment.tasks.values().all(|owner| *owner < desired.replicas));
    assert!(world.pods.values().all(|pod| pod.revision == desired.revision));
}
