//! Going back to a checkpoint, as a rollout: when it is wanted, what it is called, and when it will not come about.
//! Must not hold what was ordered and whether it can be had (`controller::restore`).

use streamagg_crds::admin::{TaskState, TaskStatus};
use streamagg_crds::job_file::Restore;
use streamagg_crds::v1alpha1::{RestoreOrder, Rollout, RolloutKind, RolloutStep};

use super::rollout::overdue;
use super::{Verdict, difference};
use crate::controller::desired::Desired;
use crate::controller::observed::{Observed, SINK_FAILING, StatefulSetFacts};
use crate::controller::restore;

/// The spec's order is not carried out by all tasks yet.
pub(super) fn pending(desired: &Desired, observed: &Observed) -> bool {
    nonce(desired.restore.as_ref()) > nonce(restore::done(observed).as_ref())
}

/// The template does not have the spec's order yet.
pub(super) fn unmounted(desired: &Desired, observed: &Observed) -> bool {
    nonce(desired.restore.as_ref()) > nonce(restore::mounted(observed).as_ref())
}

fn nonce(order: Option<&Restore>) -> u64 {
    order.map_or(0, |order| order.nonce)
}

/// What tasks have done since is taken back, so nothing has to be drained. The log is read again before `Commit` is passed:
/// a checkpoint whose deletion began before the log named it may be released by then. An order that stands has passed it.
pub(super) fn first_step(desired: &Desired, observed: &Observed) -> RolloutStep {
    if nonce(restore::given(observed).as_ref()) == nonce(desired.restore.as_ref()) {
        RolloutStep::Apply
    } else {
        RolloutStep::Commit
    }
}

/// What a rollout of this kind has to write down before anything is touched.
pub(super) fn ordered(kind: RolloutKind, desired: &Desired) -> Option<RestoreOrder> {
    let order = desired.restore.as_ref().filter(|_| kind == RolloutKind::Restore);
    order.map(RestoreOrder::from)
}

pub(super) fn describe(rollout: &Rollout, set: &StatefulSetFacts, desired: &Desired, observed: &Observed) -> String {
    let order = rollout.restore.as_ref();
    let (name, nonce) = order.map_or(("", 0), |order| (order.checkpoint.as_str(), order.nonce));
    let changes = difference::changes(set, desired, observed);
    let changes = changes.map_or_else(String::new, |changes| format!(", with a change ({changes})"));
    format!("back to StreamCheckpoint {name} for restoreFrom nonce {nonce}{changes}")
}

/// Why tasks will not go back by themselves: one has stopped, or one runs and knows nothing of it.
pub(super) fn verdict(order: &Restore, rollout: &Rollout, observed: &Observed) -> Option<Verdict> {
    let failed = |message: String| {
        let take_back = if restore::can_be_taken_back(order, observed) {
            "; or take spec.restoreFrom off: those tasks go on where they are"
        } else {
            ""
        };
        let message = format!(
            "{message}; tasks {:?} of {} have not gone back to StreamCheckpoint {}: mend what is said, or go back to another \
             (raise spec.restoreFrom.nonce){take_back}",
            restore::left(order, observed),
            order.tasks.len(),
            order.checkpoint
        );
        let reason = "RestoreFailed".to_owned();
        Verdict { reason, message }
    };
    let pods = observed.pods.iter().filter(|pod| !pod.deleting);
    let rows = pods.flat_map(|pod| {
        pod.admin
            .iter()
            .flat_map(move |admin| admin.tasks.iter().map(move |row| (pod, row)))
    });
    let behind = |row: &TaskStatus| row.restore_nonce < order.nonce && order.tasks.contains_key(&row.task);
    for (pod, row) in rows.filter(|(_, row)| behind(row)) {
        let problem = row.problem.clone().unwrap_or_default();
        match row.state {
            TaskState::Stopped if problem.reason != SINK_FAILING => {
                let (name, task) = (&pod.name, row.task);
                return Some(failed(format!(
                    "{name}: task {task}: {}: {}",
                    problem.reason, problem.message
                )));
            }
            TaskState::Running if overdue(rollout, observed) => {
                let (name, task) = (&pod.name, row.task);
                let message =
                    format!("{name}: task {task} runs and did not go back: its image is older than restoreFrom");
                return Some(failed(message));
            }
            _ => {}
        }
    }
    None
}
