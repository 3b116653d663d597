//! The end of an aggregation. With `state: Retain` owner references do all; with `state: Delete` a finalizer holds the
//! object until its tasks are checkpointed, its pods are gone and its volume claims deleted, or the time is up.
//! It needs neither status nor pods nor a valid spec. Must not recreate anything.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use streamagg_crds::v1alpha1::{Rollout, RolloutKind, RolloutStep, StateRetention};

use super::drain::{self, Drained};
use super::{Action, Note, Plan, Propagation, REQUEUE_ACTIVE, REQUEUE_IDLE};
use crate::controller::desired::Desired;
use crate::controller::observed::Observed;
use crate::labels::FINALIZER;

/// A checkpoint that failed is tried again after this time, under another id.
const TRY_SECONDS: i64 = 30;

/// Puts the finalizer on, or takes it off, as the policy of a living object says. Nothing else happens in that look.
pub fn hold(desired: Option<&Desired>, observed: &Observed) -> Option<Action> {
    desired?;
    let wanted = observed.deletion_policy.state == StateRetention::Delete;
    (wanted != observed.has_finalizer()).then(|| finalizers(observed, wanted))
}

fn finalizers(observed: &Observed, ours: bool) -> Action {
    let others = observed.finalizers.iter().filter(|finalizer| *finalizer != FINALIZER);
    Action::SetFinalizers {
        finalizers: others.cloned().chain(ours.then(|| FINALIZER.to_owned())).collect(),
        resource_version: observed.resource_version.clone(),
    }
}

/// What is left to do for an object deleted at `deleted_at`.
pub fn plan(desired: Option<&Desired>, observed: &Observed, deleted_at: Timestamp) -> Plan {
    let mut plan = Plan {
        rollout: observed.status.rollout.clone(),
        requeue: REQUEUE_IDLE,
        ..Plan::default()
    };
    if !observed.has_finalizer() {
        plan.waiting = Some("being deleted; volumes and checkpoints are kept".to_owned());
        return plan;
    }
    plan.requeue = REQUEUE_ACTIVE;
    if observed.deletion_policy.state == StateRetention::Retain {
        plan.actions.push(finalizers(observed, false));
        return plan;
    }
    let timeout = SignedDuration::from_millis(i64::try_from(observed.deletion_policy.timeout.ms()).unwrap_or(i64::MAX));
    let until = deleted_at.saturating_add(timeout).unwrap_or(Timestamp::MAX);
    let late = observed.now >= until;
    if let Some(wait) = stop_pods(desired, observed, deleted_at, late, &mut plan) {
        plan.waiting = Some(format!("being deleted: {wait}, until {until} at most"));
        return plan;
    }
    delete_claims(observed, &mut plan);
    plan
}

/// What is waited for before volumes may go.
fn stop_pods(
    desired: Option<&Desired>,
    observed: &Observed,
    deleted_at: Timestamp,
    late: bool,
    plan: &mut Plan,
) -> Option<String> {
    if let Some(set) = observed.stateful_set.as_ref().filter(|set| !set.deleting) {
        let wanted = observed.deletion_policy.final_checkpoint && desired.is_some_and(|desired| desired.has_store);
        // A task that nobody runs is waited for like any other: only the time up ends that, and is told.
        let drained = if wanted {
            drain::plan(&last_checkpoint(observed, deleted_at), observed, false, plan)
        } else {
            Drained::All
        };
        let problem = match drained {
            Drained::All => None,
            Drained::Waiting if !late => return Some("waiting for the final checkpoint".to_owned()),
            Drained::Waiting => Some("not all tasks ended in time".to_owned()),
            Drained::Failed(error) if !late => return Some(format!("the final checkpoint failed ({error})")),
            Drained::Failed(error) => Some(error),
        };
        if let Some(problem) = problem {
            plan.actions.clear();
            plan.notes.push(Note {
                warning: true,
                reason: "FinalCheckpointFailed".to_owned(),
                subject: "deletion".to_owned(),
                message: format!("deleted without a final checkpoint of every task: {problem}"),
            });
        }
        plan.actions.push(Action::DeleteStatefulSet {
            uid: set.uid.clone(),
            propagation: Propagation::Foreground,
        });
        return (!late).then(|| "waiting for the pods to end".to_owned());
    }
    let remain = observed.stateful_set.is_some() || !observed.pods.is_empty();
    (remain && !late).then(|| {
        let names: Vec<_> = observed.pods.iter().map(|pod| pod.name.as_str()).collect();
        format!("waiting for the pods to end ({})", names.join(", "))
    })
}

/// The final checkpoint as an operation of the pods; a new one every [`TRY_SECONDS`], since a failed one stays failed.
fn last_checkpoint(observed: &Observed, deleted_at: Timestamp) -> Rollout {
    let seconds = observed.now.duration_since(deleted_at).as_secs();
    Rollout {
        id: format!("delete-{}-{}", observed.generation, seconds / TRY_SECONDS),
        kind: RolloutKind::Suspend,
        generation: observed.generation,
        target_revision: String::new(),
        target_replicas: 0,
        target_restart_nonce: 0,
        step: RolloutStep::Checkpoint,
        restore: None,
        checkpoint: None,
        without_checkpoint: None,
        started_at: Time(deleted_at),
        step_started_at: None,
        deadline: None,
        attempts: 0,
        last_error: None,
    }
}

/// Claims first, the finalizer when none is left that is not on its way. A claim that a pod still holds goes with it.
fn delete_claims(observed: &Observed, plan: &mut Plan) {
    let deletes = observed.claims.iter().filter(|claim| !claim.deleting);
    plan.actions.extend(deletes.map(|claim| Action::DeleteClaim {
        name: claim.name.clone(),
        uid: claim.uid.clone(),
    }));
    if plan.actions.is_empty() {
        plan.actions.push(finalizers(observed, false));
    }
    plan.waiting = Some("being deleted: its volumes go".to_owned());
}
