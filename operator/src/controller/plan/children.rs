//! Children that only have to be there and look right. Must not hold the StatefulSet's changes (`rollout`).

use serde_json::Value;
use streamagg_crds::assignment::{ASSIGNMENT_VERSION, Assignment};

use super::{Action, Plan, upkeep};
use crate::controller::build::{PARTITION_HOLD, stateful_set_with};
use crate::controller::desired::Desired;
use crate::controller::observed::Observed;

/// Applies each simple child that is missing or differs, before anything that refers to it.
pub fn plan(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    let objects = &desired.objects;
    let wanted = [
        json(&objects.service_account),
        json(&objects.service),
        json(&objects.disruption_budget),
        json(&objects.network_policy),
        json(&objects.job),
    ];
    for object in wanted {
        let live = observed.children.iter().find(|live| same_object(live, &object));
        if !live.is_some_and(|live| contains(live, &object)) {
            plan.actions.push(Action::ApplyChild(Box::new(object)));
        }
    }
    if !observed.token_exists {
        plan.actions.push(Action::CreateToken);
    }
}

/// Size of a set whose pods run on without it: it comes back as it was, and a rescale or suspension follows by its
/// steps.
fn orphaned(observed: &Observed) -> Option<u32> {
    let pods = observed.pods.iter().map(|pod| pod.ordinal).max()?;
    let owners = upkeep::tasks(observed).values().copied().max().unwrap_or(0);
    Some(pods.max(owners) + 1)
}

/// The set is not there: the first creation, it was replaced to let its volumes grow, or somebody deleted it.
pub fn create_stateful_set(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    if desired.waits_for_token {
        return;
    }
    if observed.assignment.is_none() {
        let assignment = Assignment {
            version: ASSIGNMENT_VERSION,
            ..Assignment::default()
        };
        plan.actions.push(Action::WriteAssignment {
            assignment,
            resource_version: None,
        });
    }
    let replicas = orphaned(observed).unwrap_or(if desired.suspend { 0 } else { desired.replicas });
    let stateful_set = stateful_set_with(desired, replicas, PARTITION_HOLD);
    plan.actions.push(Action::ApplyStatefulSet(Box::new(stateful_set)));
}

fn json<T: serde::Serialize>(object: &T) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

fn same_object(left: &Value, right: &Value) -> bool {
    let identity = |value: &Value| (value.get("kind").cloned(), value.pointer("/metadata/name").cloned());
    identity(left) == identity(right)
}

/// Everything `wanted` says is so in `live`; what the API server added does not count. Comparing fields rather
/// than a stored hash also heals what somebody edited.
fn contains(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted.iter().all(|(key, wanted)| match live.get(key) {
            Some(live) => contains(live, wanted),
            None => false,
        }),
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| contains(live, wanted))
        }
        (live, wanted) => live == wanted,
    }
}
