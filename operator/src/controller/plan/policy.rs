//! What a failed checkpoint before a change leads to: `spec.upgrade.onCheckpointFailure`. Must not hold how tasks drain.
//!
//! `UseLatest` never goes back behind what is there: each task starts from the newest of its volume and its checkpoints,
//! and replays the input up to its committed position. So a task needs one of the two where it goes.

use streamagg_crds::v1alpha1::{CheckpointFailurePolicy, Rollout, RolloutKind};

use super::rollout::{ATTEMPTS_BEFORE_VERDICT, Outcome, overdue};
use super::{Note, Plan, Verdict, drain};
use crate::controller::desired::Desired;
use crate::controller::observed::Observed;
use crate::controller::summary;

/// Decides after a try that failed.
pub(super) fn after_failure(
    desired: Option<&Desired>,
    observed: &Observed,
    rollout: &Rollout,
    error: String,
) -> Outcome {
    let policy = desired.map(|desired| desired.on_checkpoint_failure).unwrap_or_default();
    let last = overdue(rollout, observed) || rollout.attempts + 1 >= ATTEMPTS_BEFORE_VERDICT;
    match policy {
        CheckpointFailurePolicy::Block => Outcome::Retry(error),
        CheckpointFailurePolicy::UseLatest | CheckpointFailurePolicy::Abort if !last => Outcome::Retry(error),
        CheckpointFailurePolicy::UseLatest => match without_base(desired, observed, rollout) {
            Some(task) => Outcome::Retry(format!(
                "{error}; task {task} has no checkpoint in the store that it could be restored from, so UseLatest cannot go on"
            )),
            None => Outcome::Without(error),
        },
        CheckpointFailurePolicy::Abort => Outcome::Abort(error),
    }
}

/// A task that keeps no volume where it goes, and has no checkpoint either.
fn without_base(desired: Option<&Desired>, observed: &Observed, rollout: &Rollout) -> Option<u32> {
    let keeps_volume = match rollout.kind {
        RolloutKind::Upgrade
        | RolloutKind::Restart
        | RolloutKind::Suspend
        | RolloutKind::Resume
        | RolloutKind::Restore => desired.is_some_and(|desired| desired.volume.is_some()),
        RolloutKind::Rescale => false,
    };
    let has_checkpoint = |task: u32| {
        let mut rows = summary::rows(observed);
        // A task without state goes on from its committed position.
        rows.any(|row| row.task == task && (row.checkpoint.is_some() || !row.stage.keeps_state()))
    };
    let mut tasks = drain::concerned(rollout, observed).into_iter().map(|(task, _)| task);
    tasks.find(|task| !keeps_volume && !has_checkpoint(*task))
}

/// Tells people of a decision, and writes a change that is given up where it is found again.
pub(super) fn note(rollout: &Rollout, outcome: &Outcome, plan: &mut Plan) {
    let (reason, message) = match outcome {
        Outcome::Without(error) => {
            let message =
                format!("goes on without a checkpoint of every task (upgrade.onCheckpointFailure: UseLatest): {error}");
            ("CheckpointSkipped", message)
        }
        Outcome::Abort(error) => {
            plan.aborted = Some(Rollout {
                attempts: rollout.attempts + 1,
                last_error: Some(error.clone()),
                ..rollout.clone()
            });
            let message = format!("is given up (upgrade.onCheckpointFailure: Abort): {error}");
            ("RolloutAborted", message)
        }
        Outcome::Stay | Outcome::Go(_) | Outcome::Retry(_) | Outcome::Done => return,
    };
    plan.notes.push(Note {
        warning: true,
        reason: reason.to_owned(),
        subject: rollout.id.clone(),
        message: format!("{:?} of generation {} {message}", rollout.kind, rollout.generation),
    });
}

/// Whether `rollout` is what was given up, and the verdict people get then.
pub(super) fn given_up(rollout: &Rollout, observed: &Observed) -> Option<Verdict> {
    let aborted = observed.status.aborted_rollout.as_ref()?;
    let of = |rollout: &Rollout| {
        let target = (rollout.target_revision.clone(), rollout.target_replicas);
        (rollout.kind, rollout.generation, target)
    };
    (of(aborted) == of(rollout)).then(|| Verdict {
        reason: "CheckpointFailed".to_owned(),
        message: format!(
            "{:?} was given up (upgrade.onCheckpointFailure: Abort): {}; the old revision goes on; raise spec.restartNonce \
             (or change the spec) to try again",
            aborted.kind,
            aborted.last_error.as_deref().unwrap_or_default()
        ),
    })
}
