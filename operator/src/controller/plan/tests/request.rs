//! A checkpoint asked for by annotation: asked of every pod, polled, reported once, and never in the way of a change.

use serde_json::json;
use streamagg_crds::v1alpha1::RequestPhase;

use super::running;
use super::world::World;
use crate::controller::plan::{Action, Note};

fn asked(world: &mut World, id: &str) {
    world.requests.checkpoint = Some(id.to_owned());
}

fn phase(world: &World) -> Option<(String, RequestPhase)> {
    let request = world.status.checkpoint_request.as_ref()?;
    Some((request.id.clone(), request.phase))
}

/// Reconciles some rounds; answers the pods asked and what was said.
fn rounds(world: &mut World, count: usize) -> (Vec<String>, Vec<Note>) {
    let (mut pods, mut notes) = (Vec::new(), Vec::new());
    for _ in 0..count {
        world.tick();
        let plan = world.reconcile(None);
        notes.extend(plan.notes);
        for action in plan.actions {
            match action {
                Action::Checkpoint { pod, .. } => pods.push(pod.name),
                other => assert!(!matches!(other, Action::Drain { .. }), "{other:?}"),
            }
        }
    }
    (pods, notes)
}

#[test]
fn every_pod_is_asked_until_all_tasks_have_it_and_then_nobody() {
    let mut world = running();
    asked(&mut world, "a");
    let (pods, notes) = rounds(&mut world, 10);
    assert_eq!(
        pods,
        ["sample-0", "sample-1", "sample-0", "sample-1"],
        "asked and polled"
    );
    assert_eq!(phase(&world), Some(("a".to_owned(), RequestPhase::Complete)));
    let request = world.status.checkpoint_request.clone().unwrap();
    assert!(request.tasks == 4 && request.completed_at.is_some(), "{request:?}");
    let reasons: Vec<_> = notes.iter().map(|note| note.reason.as_str()).collect();
    assert_eq!(reasons, ["CheckpointComplete"]);
    assert_eq!(world.reason("Ready").as_deref(), Some("Running"), "tasks ran on");
    // The annotation may go or stay; what was done stays written.
    world.requests.checkpoint = None;
    assert_eq!(rounds(&mut world, 3).0, Vec::<String>::new());
    assert_eq!(phase(&world), Some(("a".to_owned(), RequestPhase::Complete)));
}

#[test]
fn a_failed_one_says_why_and_another_id_tries_again() {
    let mut world = running();
    world.store_broken = true;
    asked(&mut world, "a");
    let (_, notes) = rounds(&mut world, 5);
    assert_eq!(phase(&world), Some(("a".to_owned(), RequestPhase::Failed)));
    assert!(notes.len() == 1 && notes[0].warning, "{notes:?}");
    assert!(notes[0].message.contains("annotate with another id"), "{notes:?}");
    world.store_broken = false;
    assert_eq!(
        rounds(&mut world, 5).0,
        Vec::<String>::new(),
        "the old id is not asked again"
    );
    asked(&mut world, "b");
    rounds(&mut world, 5);
    assert_eq!(phase(&world), Some(("b".to_owned(), RequestPhase::Complete)));
}

#[test]
fn a_rollout_and_a_pause_go_first() {
    let mut world = running();
    world.paused = true;
    asked(&mut world, "a");
    assert_eq!(rounds(&mut world, 3).0, Vec::<String>::new());
    assert_eq!(phase(&world), Some(("a".to_owned(), RequestPhase::Pending)));
    world.paused = false;
    world.change("image", json!("example.org/streamagg:2"));
    world.reconcile(None);
    assert_eq!(phase(&world), Some(("a".to_owned(), RequestPhase::Pending)));
    world.settle(100);
    rounds(&mut world, 5);
    assert_eq!(phase(&world), Some(("a".to_owned(), RequestPhase::Complete)));
}

#[test]
fn a_pod_that_never_answers_ends_it_with_a_verdict() {
    let mut world = running();
    asked(&mut world, "a");
    world.pods.get_mut(&1).unwrap().down = true;
    rounds(&mut world, 2);
    assert_eq!(phase(&world), Some(("a".to_owned(), RequestPhase::InProgress)));
    rounds(&mut world, 700);
    assert_eq!(phase(&world), Some(("a".to_owned(), RequestPhase::Failed)));
    let message = world.status.checkpoint_request.unwrap().message;
    assert!(message.contains("tasks [") && message.contains("600 s"), "{message}");
}

#[test]
fn suspended_or_without_a_store_it_fails_at_once_and_says_what_to_do() {
    for (key, value, hint) in [
        ("suspend", json!(true), "resume"),
        (
            "state",
            json!({"backend": "RocksDB", "volume": {"size": "1Gi"}, "checkpoints": null}),
            "spec.state.checkpoints.store",
        ),
    ] {
        let mut world = running();
        world.change(key, value);
        world.settle(100);
        asked(&mut world, "a");
        rounds(&mut world, 2);
        assert_eq!(phase(&world), Some(("a".to_owned(), RequestPhase::Failed)));
        let message = world.status.checkpoint_request.unwrap().message;
        assert!(message.contains(hint), "{message}");
    }
}
