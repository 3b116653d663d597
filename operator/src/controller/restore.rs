//! A user's restore (`spec.restoreFrom`): what was ordered so far, what the spec asks for now, and whether it can be had. Pure.
//! Must not hold how a restore is carried out (`plan`, and the pods).
//!
//! An order stands from the moment its rollout has passed `Commit`: the log has it, then the job file that the template
//! mounts, then `status.restored`. Whichever of them is lost, the others still say it, and no StreamCheckpoint is read again.

use std::collections::BTreeMap;

use kube::ResourceExt;
use serde_json::Value;
use streamagg_crds::admin::{Stage, TaskState, TaskStatus};
use streamagg_crds::job_file::Restore;
use streamagg_crds::v1alpha1::{
    CheckpointPhase, RestoreFrom, RolloutStep, StreamAggregation, StreamCheckpoint, StreamCheckpointStatus,
};
use streamagg_crds::validate::{self, SpecError};

use super::observed::Observed;
use super::plan::{Verdict, Wish, task_count, tasks};
use crate::names;

/// The field that names the checkpoint.
const CHECKPOINT_FIELD: &str = "spec.restoreFrom.checkpoint";

/// How the order stands in a job file's text.
const MEMBER: &str = "\"restore\":";

/// Why what the spec asks for cannot be begun. What runs goes on meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The spec names what can never be gone back to.
    Invalid(SpecError),
    /// Somebody has to help.
    Stalled(Verdict),
    /// It begins by itself.
    Waits(Verdict),
}

impl From<Obstacle> for Wish {
    fn from(obstacle: Obstacle) -> Self {
        match obstacle {
            Obstacle::Invalid(problem) => Self::Invalid(vec![problem]),
            Obstacle::Stalled(verdict) => Self::Stalled(verdict),
            Obstacle::Waits(verdict) => Self::Waits(verdict),
        }
    }
}

/// The orders in job files, by the names of their ConfigMaps.
pub fn in_job_files(children: &[Value]) -> BTreeMap<String, Restore> {
    let order = |child: &Value| {
        // Most have none, and a job file is long.
        let text = child["data"]
            .get(names::JOB_KEY)?
            .as_str()
            .filter(|text| text.contains(MEMBER))?;
        let mut file: Value = serde_json::from_str(text).ok()?;
        let order = serde_json::from_value(file.get_mut("restore")?.take()).ok()?;
        Some((child["metadata"]["name"].as_str()?.to_owned(), order))
    };
    children.iter().filter_map(order).collect()
}

/// The order that pods are given: in the job file of the template, or of pods whose set is lost.
pub fn mounted(observed: &Observed) -> Option<Restore> {
    let order = |name: &Option<String>| observed.orders.get(name.as_ref()?);
    let orders: Vec<&Restore> = match &observed.stateful_set {
        Some(set) => order(&set.job_config_map).into_iter().collect(),
        None => observed
            .pods
            .iter()
            .filter_map(|pod| order(&pod.job_config_map))
            .collect(),
    };
    orders.into_iter().max_by_key(|order| order.nonce).cloned()
}

/// The order that pods have, or get whatever becomes of its StreamCheckpoint: it has passed `Commit`.
pub fn given(observed: &Observed) -> Option<Restore> {
    let log = observed.rollout().filter(|rollout| rollout.step > RolloutStep::Commit);
    let log = log.and_then(|rollout| rollout.restore.as_ref()).map(Restore::from);
    newest(log, mounted(observed))
}

fn newest(one: Option<Restore>, other: Option<Restore>) -> Option<Restore> {
    one.into_iter().chain(other).max_by_key(|order| order.nonce)
}

fn last_done(observed: &Observed) -> Option<Restore> {
    observed.status.restored.as_ref().map(Restore::from)
}

/// The order that stands: given, or carried out before. One that failed is taken back with the wish.
fn standing(restore_from: Option<&RestoreFrom>, observed: &Observed) -> Option<Restore> {
    let given = given(observed).filter(|order| restore_from.is_some() || !can_be_taken_back(order, observed));
    newest(given, last_done(observed))
}

/// Whether what an order has not moved yet may go on where it is: all of that is stopped, so nothing of it goes back in this
/// moment. Of two stages one alone must never go back: what is between them would no longer fit. Window tasks wait for all of
/// the first stage, so they are not stopped while that is.
pub fn can_be_taken_back(order: &Restore, observed: &Observed) -> bool {
    let left = left(order, observed);
    let rows: Vec<_> = order.tasks.keys().filter_map(|task| row(*task, observed)).collect();
    let first_is_left = left
        .iter()
        .any(|task| row(*task, observed).is_some_and(|row| row.stage == Stage::Combine));
    let stays = |row: &TaskStatus| row.state == TaskState::Stopped || (row.stage == Stage::Window && first_is_left);
    let stopped = |task: &u32| row(*task, observed).is_some_and(stays);
    let alone = rows.iter().all(|row| row.stage == Stage::Whole);
    !left.is_empty() && left.iter().all(stopped) && (alone || left.len() == order.tasks.len())
}

fn row(task: u32, observed: &Observed) -> Option<&TaskStatus> {
    let mut pods = observed.pods.iter().filter(|pod| !pod.deleting);
    pods.find_map(|pod| pod.task(task))
}

/// Tasks of `order` that have not carried it out, as far as pods tell.
pub fn left(order: &Restore, observed: &Observed) -> Vec<u32> {
    let done = |task: u32| row(task, observed).is_some_and(|row| row.restore_nonce >= order.nonce);
    order.tasks.keys().copied().filter(|task| !done(*task)).collect()
}

/// The last order that every task has carried out.
pub fn done(observed: &Observed) -> Option<Restore> {
    let mounted = mounted(observed).filter(|order| left(order, observed).is_empty());
    newest(mounted, last_done(observed))
}

/// The order that pods are given and have not all carried out.
pub fn under_way(observed: &Observed) -> Option<Restore> {
    let nonce = done(observed).map_or(0, |order| order.nonce);
    mounted(observed).filter(|order| order.nonce > nonce)
}

/// The nonce for which this aggregation still needs the StreamCheckpoint `name`.
pub fn needs(name: &str, observed: &Observed) -> Option<u64> {
    let log = observed.rollout().and_then(|rollout| rollout.restore.as_ref());
    let orders = log.map(Restore::from).into_iter().chain(under_way(observed));
    let mut orders = orders.filter(|order| order.checkpoint == name);
    orders.next().map(|order| order.nonce)
}

/// What the spec asks for beyond what stands: then its StreamCheckpoint has to be looked at.
pub fn asked<'a>(restore_from: Option<&'a RestoreFrom>, observed: &Observed) -> Option<&'a RestoreFrom> {
    restore_from.filter(|asked| asked.nonce.unsigned_abs() > used(restore_from, observed))
}

/// The highest nonce that was used, also by an order that only some tasks have carried out.
fn used(restore_from: Option<&RestoreFrom>, observed: &Observed) -> u64 {
    let stands = standing(restore_from, observed).map_or(0, |order| order.nonce);
    let rows = observed.admins().flat_map(|admin| &admin.tasks);
    rows.map(|row| row.restore_nonce).max().unwrap_or(0).max(stands)
}

/// The order for the job file.
///
/// # Errors
/// What keeps the spec's from being begun.
pub fn resolve(aggregation: &StreamAggregation, observed: &Observed) -> Result<Option<Restore>, Obstacle> {
    let standing = standing(aggregation.spec.restore_from.as_ref(), observed);
    let Some(wanted) = &aggregation.spec.restore_from else {
        return Ok(standing);
    };
    if asked(Some(wanted), observed).is_none() {
        return used_up(wanted, standing, used(Some(wanted), observed));
    }
    if aggregation.spec.state.checkpoints.is_none() {
        let message = "there is no checkpoint store to restore from; set spec.state.checkpoints.store";
        return Err(Obstacle::Invalid(SpecError::new("spec.restoreFrom", message)));
    }
    let checkpoint = usable(wanted, observed.restore_source.as_deref())?;
    let status = checkpoint.status.clone().unwrap_or_default();
    fits(&wanted.checkpoint, checkpoint, &status, aggregation)?;
    let order = Restore {
        nonce: wanted.nonce.unsigned_abs(),
        checkpoint: wanted.checkpoint.clone(),
        tasks: status
            .tasks
            .iter()
            .map(|row| (row.task.unsigned_abs(), row.id.clone()))
            .collect(),
    };
    covers(&order, observed)?;
    // A set that is gone comes back as it was; the order follows by its steps.
    Ok(if observed.stateful_set.is_some() {
        Some(order)
    } else {
        standing
    })
}

/// A number that was used goes back no more; the same words are no new wish.
fn used_up(wanted: &RestoreFrom, standing: Option<Restore>, used: u64) -> Result<Option<Restore>, Obstacle> {
    let last = standing.as_ref();
    if last.is_some_and(|last| last.nonce == wanted.nonce.unsigned_abs() && last.checkpoint == wanted.checkpoint) {
        return Ok(standing);
    }
    let stay = last.map(|last| {
        format!(
            " (or put {{checkpoint: {}, nonce: {}}} to stay)",
            last.checkpoint, last.nonce
        )
    });
    let message = format!(
        "{} is used up; give a number above {used} to go back again{}",
        wanted.nonce,
        stay.unwrap_or_default()
    );
    Err(Obstacle::Invalid(SpecError::new("spec.restoreFrom.nonce", message)))
}

/// The StreamCheckpoint, if it is there and kept.
fn usable<'a>(wanted: &RestoreFrom, found: Option<&'a StreamCheckpoint>) -> Result<&'a StreamCheckpoint, Obstacle> {
    let name = &wanted.checkpoint;
    let missing = |what: String| {
        let message = format!("{CHECKPOINT_FIELD}: StreamCheckpoint {name} {what}; name another (kubectl get scp)");
        let reason = "CheckpointMissing".to_owned();
        Obstacle::Stalled(Verdict { reason, message })
    };
    let Some(checkpoint) = found else {
        return Err(missing("is not there in this namespace".to_owned()));
    };
    if checkpoint.metadata.deletion_timestamp.is_some() {
        return Err(missing("is being deleted, and no longer kept".to_owned()));
    }
    let status = checkpoint.status.as_ref();
    let message = status.and_then(|status| status.message.clone()).unwrap_or_default();
    match status.and_then(|status| status.phase) {
        Some(CheckpointPhase::Complete) => Ok(checkpoint),
        Some(CheckpointPhase::Failed) => Err(missing(format!("has failed ({message})"))),
        phase => {
            let phase = phase.map_or_else(|| "Pending".to_owned(), |phase| format!("{phase:?}"));
            let message = format!("waits for StreamCheckpoint {name}, which is {phase}: {message}");
            let reason = "WaitingForCheckpoint".to_owned();
            Err(Obstacle::Waits(Verdict { reason, message }))
        }
    }
}

/// Whether it is of this very aggregation: another's tasks, positions and store are others.
fn fits(
    name: &str,
    checkpoint: &StreamCheckpoint,
    status: &StreamCheckpointStatus,
    aggregation: &StreamAggregation,
) -> Result<(), Obstacle> {
    let refuse = |what: String| {
        let message = format!("StreamCheckpoint {name} is {what}; name one of this aggregation (kubectl get scp)");
        Err(Obstacle::Invalid(SpecError::new(CHECKPOINT_FIELD, message)))
    };
    let of = &checkpoint.spec.aggregation;
    if *of != aggregation.name_any() {
        return refuse(format!("of StreamAggregation {of}"));
    }
    if status.aggregation_uid != aggregation.uid() {
        return refuse("of an aggregation of this name that was deleted".to_owned());
    }
    let namespace = aggregation.namespace().unwrap_or_default();
    let job_id = validate::job_id(&aggregation.spec, &namespace, &aggregation.name_any());
    match &status.job_id {
        Some(job) if *job != job_id => refuse(format!("of job {job}, and this is {job_id}")),
        Some(_) | None => Ok(()),
    }
}

/// A job of which only some tasks went back would be at no moment of its input.
fn covers(order: &Restore, observed: &Observed) -> Result<(), Obstacle> {
    let known = tasks(observed).keys().next_back().map_or(0, |last| last + 1);
    let count = known.max(task_count(observed));
    let without: Vec<u32> = (0..count).filter(|task| !order.tasks.contains_key(task)).collect();
    if without.is_empty() {
        return Ok(());
    }
    let message = format!(
        "StreamCheckpoint {} does not hold tasks {without:?} of {count}: partitions were added since; name a later one",
        order.checkpoint
    );
    Err(Obstacle::Invalid(SpecError::new(CHECKPOINT_FIELD, message)))
}

#[cfg(test)]
mod tests;
