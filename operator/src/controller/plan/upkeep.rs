//! What holds at any time: the assignment covers all tasks and every pod knows it; drained tasks are woken when no
//! rollout needs them drained; job files nobody refers to go. Must not move a task that has an owner (`rollout`).

use std::collections::BTreeMap;

use streamagg_crds::admin::TaskState;
use streamagg_crds::v1alpha1::{RolloutKind, RolloutStep};

use super::assignment::{balance, moves, successor};
use super::drain::target;
use super::{Action, Plan};
use crate::controller::observed::{Observed, PodFacts};

/// Tasks and owners by the assignment in force.
pub fn tasks(observed: &Observed) -> &BTreeMap<u32, u32> {
    static NONE: BTreeMap<u32, u32> = BTreeMap::new();
    observed
        .assignment
        .as_ref()
        .map_or(&NONE, |live| &live.assignment.tasks)
}

/// Number of tasks as the pods report it; 0 until one has.
pub fn task_count(observed: &Observed) -> u32 {
    admins(observed)
        .filter_map(|(_, admin)| admin.task_count)
        .max()
        .unwrap_or(0)
}

fn admins(observed: &Observed) -> impl Iterator<Item = (&PodFacts, &streamagg_crds::admin::PodStatus)> {
    observed
        .pods
        .iter()
        .filter(|pod| !pod.deleting)
        .filter_map(|pod| Some((pod, pod.admin.as_ref()?)))
}

/// Replicas of the live set.
pub fn replicas(observed: &Observed) -> u32 {
    observed.stateful_set.as_ref().map_or(0, |set| set.replicas)
}

/// Highest generation anybody has seen: ConfigMap, status, pods, committed positions.
pub fn generation_max(observed: &Observed) -> u64 {
    let map = observed
        .assignment
        .as_ref()
        .map_or(0, |live| live.assignment.generation);
    let status = observed
        .status
        .assignment_generation
        .and_then(|seen| u64::try_from(seen).ok())
        .unwrap_or(0);
    let pods = observed.admins();
    pods.map(|admin| admin.generation.max(admin.generation_seen))
        .max()
        .unwrap_or(0)
        .max(map)
        .max(status)
}

/// Every pod is there, of the revision in force and ready, and every task runs on its owner.
pub fn all_running(observed: &Observed) -> bool {
    let Some(set) = observed.stateful_set.as_ref() else {
        return false;
    };
    if set.replicas == 0 {
        return true;
    }
    let ready = |ordinal: &u32| {
        let mut pods = observed.pods.iter();
        pods.any(|pod| pod.ordinal == *ordinal && pod.ready && !pod.deleting && pod.revision == set.revision)
    };
    let tasks = tasks(observed);
    let generation = observed
        .assignment
        .as_ref()
        .map_or(0, |live| live.assignment.generation);
    let runs = |(task, owner): (&u32, &u32)| {
        admins(observed).any(|(pod, admin)| {
            pod.ordinal == *owner && admin.generation == generation && pod.task_state(*task) == Some(TaskState::Running)
        })
    };
    (0..set.replicas).all(|ordinal| ready(&ordinal)) && !tasks.is_empty() && tasks.iter().all(runs)
}

/// Plans the upkeep; a rollout's own actions come first.
pub fn plan(observed: &Observed, plan: &mut Plan) {
    let writes = plan
        .actions
        .iter()
        .any(|action| matches!(action, Action::WriteAssignment { .. }));
    if !writes && let Some(action) = write(observed) {
        plan.actions.push(action);
    }
    push(observed, plan);
    clean(observed, plan);
}

/// A new assignment without moving a task: lost, behind the pods, incomplete, or to wake drained tasks.
fn write(observed: &Observed) -> Option<Action> {
    let replicas = ordinals(observed)?;
    let Some(live) = observed.assignment.as_ref() else {
        let tasks = held(observed);
        let wanted = successor(generation_max(observed), tasks);
        return Some(Action::WriteAssignment {
            assignment: wanted,
            resource_version: None,
        });
    };
    let pods_hold = if live.assignment.tasks.is_empty() {
        held(observed)
    } else {
        BTreeMap::new()
    };
    let current = if pods_hold.is_empty() {
        &live.assignment.tasks
    } else {
        &pods_hold
    };
    let completed = balance(current, task_count(observed), replicas);
    let completes = completed != *current && moves(current, &completed).is_empty();
    let behind = generation_max(observed) > live.assignment.generation;
    if !(completes || behind || !pods_hold.is_empty() || wakes(observed)) {
        return None;
    }
    let tasks = if completes { completed } else { current.clone() };
    if tasks.is_empty() && !behind {
        return None;
    }
    Some(Action::WriteAssignment {
        assignment: successor(generation_max(observed), tasks),
        resource_version: Some(live.resource_version.clone()),
    })
}

/// Ordinals that may be given tasks: those there are, but not those that a rescale takes away.
fn ordinals(observed: &Observed) -> Option<u32> {
    let set = observed.stateful_set.as_ref()?;
    let rescale = observed
        .rollout()
        .filter(|rollout| rollout.kind == RolloutKind::Rescale);
    Some(rescale.map_or(set.replicas, |rollout| {
        set.replicas.min(rollout.target_replicas.unsigned_abs())
    }))
}

/// The assignment as the pods hold it, when the ConfigMap is lost. Of two holders the higher generation counts.
fn held(observed: &Observed) -> BTreeMap<u32, u32> {
    let mut holders: Vec<_> = admins(observed).collect();
    holders.sort_by_key(|(pod, admin)| (admin.generation, pod.ordinal));
    let rows = holders
        .iter()
        .flat_map(|(pod, admin)| admin.tasks.iter().map(|row| (row.task, pod.ordinal)));
    rows.collect()
}

/// A task is drained on its owner although no rollout wants it so: a change was given up after its drain.
fn wakes(observed: &Observed) -> bool {
    let wanted_drained = observed.rollout().is_some_and(|rollout| match rollout.step {
        RolloutStep::Checkpoint | RolloutStep::Verify | RolloutStep::Commit | RolloutStep::Apply => true,
        // A suspended set has no pods; the others are past their drain or before it.
        RolloutStep::Plan | RolloutStep::Restore | RolloutStep::Stabilize => rollout.kind == RolloutKind::Suspend,
    });
    let generation = observed
        .assignment
        .as_ref()
        .map_or(0, |live| live.assignment.generation);
    let drained = |(task, owner): (&u32, &u32)| {
        admins(observed).any(|(pod, admin)| {
            pod.ordinal == *owner && admin.generation == generation && pod.task_state(*task) == Some(TaskState::Drained)
        })
    };
    !wanted_drained && tasks(observed).iter().any(drained)
}

/// Tells every pod that is behind; only what was read from the ConfigMap is ever pushed.
fn push(observed: &Observed, plan: &mut Plan) {
    let Some(live) = observed.assignment.as_ref() else {
        return;
    };
    for (pod, admin) in admins(observed) {
        if admin.generation < live.assignment.generation
            && let Some(pod) = target(pod)
        {
            plan.actions.push(Action::Push {
                pod,
                assignment: live.assignment.clone(),
            });
        }
    }
}

/// Job files that neither the template, nor a pod, nor a template in transition refers to.
fn clean(observed: &Observed, plan: &mut Plan) {
    let Some(set) = observed.stateful_set.as_ref() else {
        return;
    };
    if plan.rollout.is_some() || observed.rollout().is_some() || !set.settled || !set.observed {
        return;
    }
    // The job file of a change that was given up is wanted, and in use by nobody.
    if plan.aborted.is_some() || observed.status.aborted_rollout.is_some() {
        return;
    }
    let mut used: Vec<&str> = set.job_config_map.as_deref().into_iter().collect();
    used.extend(observed.pods.iter().filter_map(|pod| pod.job_config_map.as_deref()));
    let template_changes = plan
        .actions
        .iter()
        .any(|action| matches!(action, Action::ApplyStatefulSet(_)));
    for map in observed
        .job_config_maps
        .iter()
        .filter(|map| !template_changes && !used.contains(&map.name.as_str()))
    {
        plan.actions.push(Action::DeleteJobConfigMap {
            name: map.name.clone(),
            uid: map.uid.clone(),
        });
    }
}
