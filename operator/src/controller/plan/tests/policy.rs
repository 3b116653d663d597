//! What a failed checkpoint before a change leads to (`spec.upgrade.onCheckpointFailure`).

use serde_json::json;
use streamagg_crds::admin::TaskState;

use super::running;
use super::world::World;
use crate::controller::plan::Note;

/// Running, with a store that fails from now on, and a policy for that.
fn failing(policy: &str) -> World {
    let mut world = running();
    world.change("upgrade", json!({"onCheckpointFailure": policy}));
    world.settle(10);
    world.store_broken = true;
    world
}

fn rounds(world: &mut World, count: usize) -> Vec<Note> {
    let mut notes = Vec::new();
    for _ in 0..count {
        world.tick();
        notes.extend(world.reconcile(None).notes);
    }
    notes
}

fn reasons(notes: &[Note]) -> Vec<&str> {
    notes
        .iter()
        .filter(|note| note.warning)
        .map(|note| note.reason.as_str())
        .collect()
}

/// Every task runs. A pod that came for a change that was given up has none, and stays for the next try.
fn all_run(world: &World) -> bool {
    let states: Vec<_> = world.pods.values().flat_map(|pod| pod.tasks.values()).collect();
    states.len() == world.task_count as usize && states.iter().all(|state| **state == TaskState::Running)
}

#[test]
fn abort_gives_the_change_up_once_and_the_next_generation_tries_again() {
    for (key, value) in [
        ("image", json!("example.org/streamagg:2")),
        ("replicas", json!(3)),
        ("suspend", json!(true)),
        ("restartNonce", json!(1)),
    ] {
        let mut world = failing("Abort");
        let before = world.set.clone().unwrap();
        world.change(key, value.clone());
        let notes = rounds(&mut world, 60);
        assert_eq!(reasons(&notes), ["RolloutAborted"], "{key}");
        assert_eq!(world.reason("RolloutSucceeded").as_deref(), Some("Aborted"), "{key}");
        assert_eq!(world.reason("Stalled").as_deref(), Some("CheckpointFailed"), "{key}");
        assert_eq!(
            (world.reason("Reconciling"), &world.status.rollout),
            (None, &None),
            "{key}"
        );
        let message = world.status.message.clone().unwrap();
        assert!(
            message.contains("given up") && message.contains("restartNonce"),
            "{message}"
        );
        let set = world.set.clone().unwrap();
        assert_eq!((&set.revision, &set.image), (&before.revision, &before.image), "{key}");
        assert!(all_run(&world), "{key}: the old revision goes on");
        // It stays so, without a write, even when the store is back.
        world.store_broken = false;
        for _ in 0..5 {
            world.tick();
            let observed = world.observe();
            let plan = world.reconcile(None);
            assert!(plan.only_reports(&observed), "{key}: {plan:#?}");
        }
        world.change("restartNonce", json!(7));
        world.settle(200);
        assert_eq!(
            (world.reason("Stalled"), &world.status.aborted_rollout),
            (None, &None),
            "{key}"
        );
        if key == "image" {
            assert_eq!(world.set.as_ref().unwrap().image, value.as_str().unwrap());
        }
    }
}

#[test]
fn abort_waits_for_a_slow_drain_and_forgives_two_failures() {
    let mut world = failing("Abort");
    world.change("image", json!("example.org/streamagg:2"));
    rounds(&mut world, 10);
    assert!(
        world
            .status
            .rollout
            .as_ref()
            .is_some_and(|rollout| rollout.attempts == 1)
    );
    world.store_broken = false;
    world.settle(200);
    assert_eq!(world.set.as_ref().unwrap().image, "example.org/streamagg:2");
    assert_eq!(world.status.aborted_rollout, None);
}

#[test]
fn use_latest_goes_on_after_three_tries_with_what_volumes_hold() {
    let mut world = failing("UseLatest");
    world.change("image", json!("example.org/streamagg:2"));
    let notes = rounds(&mut world, 60);
    assert_eq!(reasons(&notes), ["CheckpointSkipped"]);
    assert_eq!(world.set.as_ref().unwrap().image, "example.org/streamagg:2");
    assert_eq!(world.reason("RolloutSucceeded").as_deref(), Some("Completed"));
    assert!(all_run(&world));
}

#[test]
fn use_latest_moves_no_task_that_could_not_be_restored_where_it_goes() {
    for (saved, pods) in [(false, 2), (true, 1)] {
        let mut world = failing("UseLatest");
        world.saved = saved;
        world.change("replicas", json!(1));
        rounds(&mut world, 100);
        assert_eq!(world.pods.len(), pods, "checkpoints: {saved}");
        if saved {
            assert_eq!(world.reason("Ready").as_deref(), Some("Running"));
        } else {
            assert_eq!(world.reason("Stalled").as_deref(), Some("CheckpointFailed"));
            let message = world.status.message.clone().unwrap();
            assert!(message.contains("has no checkpoint in the store"), "{message}");
        }
        assert!(all_run(&world));
        world.store_broken = false;
        world.settle(200);
        assert_eq!(world.pods.len(), 1);
    }
}
