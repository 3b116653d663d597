//! Which rollout is under way: the one in the log while it is still wanted, else the one that the difference
//! between the spec and the world asks for. Must not hold what a rollout does (`rollout`).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use streamagg_crds::v1alpha1::{Rollout, RolloutKind, RolloutStep};

use super::assignment::{balance, moves};
use super::{Note, Plan, Verdict, difference, policy, restoring, upkeep};
use crate::controller::desired::Desired;
use crate::controller::observed::{Observed, StatefulSetFacts};

/// The rollout to work on now. It may act only if it is the one in the log as read; a new one is written first.
pub fn rollout(desired: Option<&Desired>, observed: &Observed, plan: &mut Plan) -> Option<Rollout> {
    let set = observed.stateful_set.as_ref()?;
    let current = observed.rollout();
    let Some(desired) = desired else {
        // An invalid spec starts nothing; what had passed its Commit is finished, what had not is given up.
        return current.filter(|rollout| committed(rollout, set)).cloned();
    };
    let replicas = replicas_in_force(desired, observed, plan);
    if let Some(rollout) = current
        && still_wanted(rollout, desired, observed, replicas)
        && !(rollout.step >= RolloutStep::Restore && stranded(observed, set))
        // While it is only watched, any further change goes first.
        && !(rollout.step == RolloutStep::Stabilize && kind(desired, observed, set, replicas).is_some())
    {
        return Some(rollout.clone());
    }
    let kind = kind(desired, observed, set, replicas)?;
    let rollout = begin(kind, desired, observed, set, replicas);
    if let Some(verdict) = policy::given_up(&rollout, observed) {
        plan.verdict = Some(verdict);
        return None;
    }
    plan.notes.push(Note {
        warning: false,
        reason: "RolloutStarted".to_owned(),
        subject: rollout.id.clone(),
        message: describe(&rollout, set, desired, observed),
    });
    Some(rollout)
}

fn committed(rollout: &Rollout, set: &StatefulSetFacts) -> bool {
    match rollout.kind {
        RolloutKind::Upgrade | RolloutKind::Restart | RolloutKind::Resume | RolloutKind::Restore => {
            rollout.step > RolloutStep::Commit && rollout.target_revision == set.revision
        }
        RolloutKind::Rescale | RolloutKind::Suspend => rollout.step >= RolloutStep::Commit,
    }
}

/// `spec.replicas`, unless tasks would have to move with nothing to restore them from.
fn replicas_in_force(desired: &Desired, observed: &Observed, plan: &mut Plan) -> u32 {
    let tasks = upkeep::tasks(observed);
    let wanted = balance(tasks, upkeep::task_count(observed), desired.replicas);
    if desired.has_store || moves(tasks, &wanted).is_empty() {
        return desired.replicas;
    }
    let kept = tasks.values().max().map_or(desired.replicas, |last| last + 1);
    plan.verdict = Some(Verdict {
        reason: "SpecInvalid".to_owned(),
        message: format!(
            "spec.replicas: without a checkpoint store the state of a task cannot move to another pod; \
             set spec.state.checkpoints.store, or set replicas back to {kept} (which goes on running)"
        ),
    });
    plan.replicas = Some(kept);
    kept
}

/// A task belongs to an ordinal that the set no longer has: no restore can end, only a rescale helps.
fn stranded(observed: &Observed, set: &StatefulSetFacts) -> bool {
    set.replicas > 0 && upkeep::tasks(observed).values().any(|owner| *owner >= set.replicas)
}

/// The rollout in the log leads to what the spec asks for. Another number of replicas does not supersede an
/// upgrade: it follows it.
fn still_wanted(rollout: &Rollout, desired: &Desired, observed: &Observed, replicas: u32) -> bool {
    match rollout.kind {
        RolloutKind::Upgrade | RolloutKind::Restart => !desired.suspend && rollout.target_revision == desired.revision,
        RolloutKind::Resume => {
            !desired.suspend
                && rollout.target_revision == desired.revision
                && rollout.target_replicas.unsigned_abs() == replicas
        }
        RolloutKind::Rescale => {
            let revision = observed.stateful_set.as_ref().map(|set| &set.revision);
            let same = revision == Some(&desired.revision) && !stale_pod(desired, observed);
            !desired.suspend && rollout.target_replicas.unsigned_abs() == replicas && same
        }
        RolloutKind::Suspend => desired.suspend,
        // Of a suspended set only the template changes.
        RolloutKind::Restore => {
            let pods = observed.stateful_set.as_ref().is_none_or(|set| set.replicas > 0);
            !(desired.suspend && pods) && rollout.target_revision == desired.revision
        }
    }
}

/// What the difference between spec and world asks for. It rests on the live objects only, so that a rollout whose
/// log was lost is found again.
fn kind(desired: &Desired, observed: &Observed, set: &StatefulSetFacts, replicas: u32) -> Option<RolloutKind> {
    if desired.suspend && (set.replicas > 0 || !observed.pods.is_empty()) {
        return Some(RolloutKind::Suspend);
    }
    if set.replicas == 0 {
        if restoring::unmounted(desired, observed) {
            return Some(RolloutKind::Restore);
        }
        // Without pods there is nothing else to roll out; `rollout` applies the template.
        return (!desired.suspend).then_some(RolloutKind::Resume);
    }
    if set.revision != desired.revision || stale_pod(desired, observed) {
        if restoring::pending(desired, observed) {
            return Some(RolloutKind::Restore);
        }
        let asked = set.restart_nonce != Some(desired.restart_nonce) || set.restart_request != desired.restart_request;
        let restart = set.content == desired.content && asked;
        return Some(if restart {
            RolloutKind::Restart
        } else {
            RolloutKind::Upgrade
        });
    }
    let tasks = upkeep::tasks(observed);
    let moved = !moves(tasks, &balance(tasks, upkeep::task_count(observed), replicas)).is_empty();
    (set.replicas != replicas || moved).then_some(RolloutKind::Rescale)
}

fn stale_pod(desired: &Desired, observed: &Observed) -> bool {
    let mut pods = observed.pods.iter();
    pods.any(|pod| !pod.deleting && pod.revision != desired.revision)
}

fn begin(kind: RolloutKind, desired: &Desired, observed: &Observed, set: &StatefulSetFacts, replicas: u32) -> Rollout {
    let target_replicas = match kind {
        RolloutKind::Upgrade | RolloutKind::Restart | RolloutKind::Restore => set.replicas,
        RolloutKind::Rescale | RolloutKind::Resume => replicas,
        RolloutKind::Suspend => 0,
    };
    let step = match kind {
        RolloutKind::Resume => RolloutStep::Apply,
        RolloutKind::Restore => restoring::first_step(desired, observed),
        RolloutKind::Upgrade | RolloutKind::Restart | RolloutKind::Rescale | RolloutKind::Suspend => RolloutStep::Plan,
    };
    let kind_name = format!("{kind:?}").to_lowercase();
    Rollout {
        id: format!("{kind_name}-{}-{}", observed.generation, observed.now.as_millisecond()),
        kind,
        generation: observed.generation,
        target_revision: desired.revision.clone(),
        target_replicas: i32::try_from(target_replicas).unwrap_or(i32::MAX),
        target_restart_nonce: desired.restart_nonce,
        step,
        restore: restoring::ordered(kind, desired),
        checkpoint: None,
        without_checkpoint: None,
        started_at: Time(observed.now),
        step_started_at: Some(Time(observed.now)),
        deadline: Some(Time(observed.now + super::rollout::limit(step))),
        attempts: 0,
        last_error: None,
    }
}

fn describe(rollout: &Rollout, set: &StatefulSetFacts, desired: &Desired, observed: &Observed) -> String {
    let what = match rollout.kind {
        RolloutKind::Upgrade => {
            let changes = difference::describe(set, desired, observed);
            format!(
                "upgrade from revision {} to {} ({changes})",
                set.revision, desired.revision
            )
        }
        RolloutKind::Restart => match &desired.restart_request {
            Some(request) if set.restart_request != desired.restart_request => {
                format!("restart for annotation streamagg.io/restart={request}")
            }
            Some(_) | None => format!("restart for restartNonce {}", desired.restart_nonce),
        },
        RolloutKind::Rescale => format!("rescale from {} to {} replicas", set.replicas, rollout.target_replicas),
        RolloutKind::Suspend => "suspend".to_owned(),
        RolloutKind::Resume => format!("resume with {} replicas", rollout.target_replicas),
        RolloutKind::Restore => restoring::describe(rollout, set, desired, observed),
    };
    let tail = if observed.rollout().is_some() {
        "; the rollout that was under way is superseded"
    } else {
        ""
    };
    format!("generation {}: {what}{tail}", rollout.generation)
}
