//! Every condition in every reason that `docs/operator.md` lists can come about, and no other does in these situations.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::json;
use streamagg_crds::v1alpha1::RolloutStep;
use streamagg_crds::validate::SpecError;

use super::health::{checkpoints, problem, rows};
use super::running;
use super::world::World;
use crate::controller::observed::{Foreign, NEED_A_PERSON, Observed};
use crate::controller::plan::{Verdict, Wish, conditions, plan};
use crate::controller::requests::Requests;

type Reasons = BTreeSet<(String, String)>;

fn see(wish: &Wish, observed: &Observed, verdict: Option<&str>, seen: &mut Reasons) {
    let mut plan = plan(wish, observed);
    if let Some(reason) = verdict {
        // As `reconcile_once` says it of a refused write.
        plan.verdict = Some(Verdict {
            reason: reason.to_owned(),
            message: "refused".to_owned(),
        });
    }
    let status = conditions::status("sample", wish, observed, &plan);
    for condition in status.conditions {
        assert!(!condition.message.is_empty(), "{} says nothing", condition.type_);
        seen.insert((condition.type_, condition.reason));
    }
}

/// Reconciles until nothing is left, and looks at the status after each.
fn live(world: &mut World, rounds: usize, seen: &mut Reasons) {
    for _ in 0..rounds {
        world.tick();
        see(&world.wish(), &world.observe(), None, seen);
        world.reconcile(None);
    }
}

/// The world in `step` of an upgrade.
fn at(step: RolloutStep) -> World {
    let mut world = running();
    world.change("image", json!("example.org/streamagg:2"));
    for _ in 0..60 {
        world.reconcile(None);
        if world.status.rollout.as_ref().map(|rollout| rollout.step) == Some(step) {
            return world;
        }
        world.tick();
    }
    panic!("never in {step:?}: {:?}", world.steps);
}

fn documented() -> Reasons {
    let text = include_str!("../../../../../docs/operator.md");
    let table = text.split("## Conditions and reasons").nth(1).expect("the section");
    let table = table.split("\n## ").next().unwrap_or_default();
    let cell = |text: &str| text.trim().trim_matches('`').to_owned();
    let row = |line: &str| {
        let cells: Vec<_> = line.strip_prefix("| `")?.split('|').collect();
        let [type_, reasons, meaning, next, _] = cells[..] else {
            panic!("a row of four cells: {line}")
        };
        assert!(!meaning.trim().is_empty() && !next.trim().is_empty(), "{line}");
        Some(
            reasons
                .split(',')
                .map(|reason| (cell(type_), cell(reason)))
                .collect::<Vec<_>>(),
        )
    };
    table.lines().filter_map(row).flatten().collect()
}

fn changes(seen: &mut Reasons) {
    let mut world = World::new(4, 2);
    live(&mut world, 60, seen);
    for (key, value) in [
        ("image", json!("example.org/streamagg:2")),
        ("replicas", json!(4)),
        ("replicas", json!(1)),
        ("suspend", json!(true)),
        ("suspend", json!(false)),
    ] {
        world.change(key, value);
        live(&mut world, 60, seen);
    }
    world.change("image", json!("example.org/streamagg:3"));
    world.reconcile(None);
    world.change("image", json!("example.org/streamagg:2"));
    live(&mut world, 10, seen);
    world.paused = true;
    live(&mut world, 2, seen);
    world.change("image", json!("example.org/streamagg:4"));
    live(&mut world, 2, seen);
}

fn back(seen: &mut Reasons) {
    let mut world = running();
    world.change("restoreFrom", json!({"checkpoint": "a", "nonce": 1}));
    live(&mut world, 2, seen);
    world.keep("a", "Pinning");
    live(&mut world, 2, seen);
    world.kept.clear();
    world.keep("a", "Complete");
    live(&mut world, 60, seen);
}

fn damage(seen: &mut Reasons) {
    let world = running();
    let mut look = |change: &dyn Fn(&mut Observed)| {
        let mut observed = world.observe();
        change(&mut observed);
        see(&world.wish(), &observed, None, seen);
    };
    look(&|observed| observed.pods[1].ready = false);
    look(&|observed| observed.pods.iter_mut().for_each(|pod| pod.admin = None));
    look(&|observed| observed.pods[1].crash = Some("ended".to_owned()));
    look(&|observed| observed.pods[0].admin.as_mut().unwrap().problem = problem("DiskFull"));
    look(&|observed| rows(observed).for_each(|row| row.problem = problem("SinkFailing")));
    look(&|observed| rows(observed).for_each(|row| row.problem = problem("CheckpointFailed")));
    look(&|observed| observed.lag_samples = (1..7).map(|minute| minute * 9_000).collect());
    look(&|observed| checkpoints(observed, 5, 100));
    look(&|observed| checkpoints(observed, 5, 1_000));
    look(&|observed| observed.claims[0].phase = "Pending".to_owned());
    look(&|observed| observed.claims[0].phase = "Lost".to_owned());
    look(&|observed| observed.claims[0].capacity_bytes = 1);
    look(&|observed| observed.deleted_at = Some(Timestamp::UNIX_EPOCH));
    look(&|observed| {
        observed.foreign = vec![Foreign {
            object: "service sample".to_owned(),
            passing: false,
        }];
    });
    look(&|observed| {
        observed.requests = Requests {
            problems: vec!["annotation streamagg.io/fence: not supported yet".to_owned()],
            ..Requests::default()
        };
    });
    for reason in [
        "ImagePull",
        "PodConfigInvalid",
        "RestartBudgetExhausted",
        "Unschedulable",
    ] {
        look(&|observed| observed.pods[0].failure = problem(reason));
    }
    for reason in NEED_A_PERSON {
        look(&|observed| observed.pods[0].admin.as_mut().unwrap().problem = problem(reason));
    }
    let invalid = Wish::Invalid(vec![SpecError::new("spec.windows", "is empty")]);
    see(&invalid, &world.observe(), None, seen);
    for reason in ["Forbidden", "VolumeStuck"] {
        see(&world.wish(), &world.observe(), Some(reason), seen);
    }
}

fn stuck(seen: &mut Reasons) {
    let world = at(RolloutStep::Plan);
    let mut observed = world.observe();
    let rollout = observed.status.rollout.as_mut().unwrap();
    rollout.attempts = 3;
    rollout.last_error = Some("the store does not answer".to_owned());
    see(&world.wish(), &observed, None, seen);
    let world = at(RolloutStep::Restore);
    let mut observed = world.observe();
    observed.pods.iter_mut().for_each(|pod| pod.admin = None);
    let past = observed.now - SignedDuration::from_secs(1);
    observed.status.rollout.as_mut().unwrap().deadline = Some(Time(past));
    see(&world.wish(), &observed, None, seen);
}

#[test]
fn every_documented_reason_can_come_about_and_every_other_is_documented() {
    let mut seen = Reasons::new();
    changes(&mut seen);
    back(&mut seen);
    damage(&mut seen);
    stuck(&mut seen);
    let documented = documented();
    let missing: Vec<_> = documented.difference(&seen).collect();
    let unknown: Vec<_> = seen.difference(&documented).collect();
    assert!(missing.is_empty(), "documented, and never came about: {missing:?}");
    assert!(unknown.is_empty(), "not in docs/operator.md: {unknown:?}");
}
