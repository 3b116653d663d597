//! Step Checkpoint: which tasks must drain, and when that is over. Must not hold what follows (`rollout`).

use streamagg_crds::admin::{OperationPhase, TaskState};
use streamagg_crds::v1alpha1::{Rollout, RolloutKind};

use super::assignment::{balance, moves};
use super::{Action, Plan, PodTarget, upkeep};
use crate::controller::observed::{Observed, PodFacts};

/// How far the drain is.
pub enum Drained {
    /// Every task concerned is drained, or taken as it is.
    All,
    /// Not yet.
    Waiting,
    /// A checkpoint failed, or a running task does not finish.
    Failed(String),
}

/// Where one task stands.
enum Task<'a> {
    Done,
    Pending(&'a PodFacts),
    Failed(String),
    /// Nobody runs it; it is waited for until the deadline, then taken as it is.
    Absent,
}

/// Asks the pods to drain what has to drain; asking again polls.
pub fn plan(rollout: &Rollout, observed: &Observed, late: bool, plan: &mut Plan) -> Drained {
    let id = operation_id(rollout);
    let mut waiting = false;
    let mut failed = None;
    let mut asks: Vec<(&PodFacts, Vec<u32>)> = Vec::new();
    for (task, owner) in concerned(rollout, observed) {
        match look(task, owner, &id, observed) {
            Task::Done => {}
            Task::Absent => waiting |= !late,
            Task::Failed(error) => failed = failed.or(Some(error)),
            Task::Pending(pod) => {
                waiting = true;
                match asks.iter_mut().find(|(asked, _)| asked.uid == pod.uid) {
                    Some((_, tasks)) => tasks.push(task),
                    None => asks.push((pod, vec![task])),
                }
            }
        }
    }
    if let Some(error) = failed {
        return Drained::Failed(error);
    }
    if late && !asks.is_empty() {
        let names: Vec<_> = asks
            .iter()
            .map(|(pod, tasks)| format!("{} (tasks {tasks:?})", pod.name))
            .collect();
        return Drained::Failed(format!(
            "not drained by the deadline: {}; see that Kafka and the checkpoint store answer",
            names.join(", ")
        ));
    }
    for (pod, tasks) in asks {
        if let Some(pod) = target(pod) {
            plan.actions.push(Action::Drain {
                pod,
                id: id.clone(),
                tasks,
            });
        }
    }
    if waiting { Drained::Waiting } else { Drained::All }
}

/// Whether a task that has to be drained works on its owner.
pub fn still_running(rollout: &Rollout, observed: &Observed) -> bool {
    let id = operation_id(rollout);
    let pending = |(task, owner): (u32, u32)| matches!(look(task, owner, &id, observed), Task::Pending(_));
    concerned(rollout, observed).into_iter().any(pending)
}

/// A new id for each try: a failed operation stays failed under its old one.
fn operation_id(rollout: &Rollout) -> String {
    match rollout.attempts {
        0 => rollout.id.clone(),
        attempts => format!("{}-try{attempts}", rollout.id),
    }
}

/// The tasks that must drain, with the ordinal that runs them by the assignment.
pub(super) fn concerned(rollout: &Rollout, observed: &Observed) -> Vec<(u32, u32)> {
    let tasks = upkeep::tasks(observed);
    match rollout.kind {
        RolloutKind::Rescale => {
            let replicas = rollout.target_replicas.unsigned_abs();
            moves(tasks, &balance(tasks, upkeep::task_count(observed), replicas))
        }
        RolloutKind::Upgrade
        | RolloutKind::Restart
        | RolloutKind::Suspend
        | RolloutKind::Resume
        | RolloutKind::Restore => tasks.iter().map(|(task, owner)| (*task, *owner)).collect(),
    }
}

fn look<'a>(task: u32, owner: u32, id: &str, observed: &'a Observed) -> Task<'a> {
    let mut owners = observed.pods.iter().filter(|pod| pod.ordinal == owner && !pod.deleting);
    let Some(pod) = owners.next() else {
        // A pod that the set no longer has will not come back to drain.
        let gone = observed.stateful_set.as_ref().is_none_or(|set| owner >= set.replicas);
        return if gone { Task::Done } else { Task::Absent };
    };
    if let Some(error) = failure(pod, task, id) {
        return Task::Failed(error);
    }
    match pod.task_state(task) {
        Some(TaskState::Drained) => Task::Done,
        // A stopped task cannot drain; the change may well be its cure.
        Some(TaskState::Stopped) => Task::Done,
        Some(TaskState::Running | TaskState::Draining) => Task::Pending(pod),
        Some(TaskState::Starting | TaskState::Restoring | TaskState::Replaying | TaskState::Released) | None => {
            if pod.hopeless().is_some() {
                Task::Done
            } else {
                Task::Absent
            }
        }
    }
}

fn failure(pod: &PodFacts, task: u32, id: &str) -> Option<String> {
    let operation = pod.drain.as_ref().filter(|operation| operation.id == id)?;
    let row = operation
        .tasks
        .iter()
        .find(|row| row.task == task && row.phase == OperationPhase::Failed)?;
    let problem = row.problem.clone().unwrap_or_default();
    Some(format!(
        "{} task {task}: {} {}",
        pod.name, problem.reason, problem.message
    ))
}

/// The pod as an address to talk to.
pub fn target(pod: &PodFacts) -> Option<PodTarget> {
    let address = pod.address.clone()?;
    Some(PodTarget {
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        address,
    })
}
