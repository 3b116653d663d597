//! Conditions beside the main ones: what runs below its spec, checkpoints, volumes, the last rollout, a pause. Pure.
//! Must not hold `Ready`, `Reconciling`, `Stalled` or `Available` (`conditions`).

use streamagg_crds::admin::{TaskState, TaskStatus};
use streamagg_crds::v1alpha1::Rollout;

use super::conditions::Held;
use super::{Plan, Wish, upkeep, volumes};
use crate::controller::desired::Desired;
use crate::controller::observed::{Observed, PodFacts, SINK_FAILING};
use crate::controller::summary;

/// A checkpoint is overdue after so many intervals.
const INTERVALS_MAX: i64 = 3;
/// And not before this time: the upload itself takes a while.
const OVERDUE_MIN_MS: i64 = 120_000;
/// Lag below this is no reason to worry, however it moves.
const LAG_MIN: i64 = 10_000;

/// All that hold now.
pub fn conditions(wish: &Wish, observed: &Observed, plan: &Plan) -> Vec<Held> {
    let desired = wish.desired();
    let mut held: Vec<Held> = paused(plan).into_iter().collect();
    held.extend(annotations(observed));
    if observed.deleting() {
        return held;
    }
    held.extend(degraded(desired, observed, plan));
    held.extend(desired.and_then(|desired| checkpointed(desired, observed)));
    held.extend(rollout_succeeded(observed, plan));
    held.extend(desired.and_then(|desired| storage_ready(desired, observed, plan)));
    held
}

fn paused(plan: &Plan) -> Option<Held> {
    let waiting = plan.paused?;
    let message =
        format!("annotation streamagg.io/paused: {waiting} changes wait; pods run on; remove the annotation to go on");
    Some(Held::new("ReconciliationPaused", true, "Annotation", message))
}

/// Present only while False.
fn annotations(observed: &Observed) -> Option<Held> {
    let problems = &observed.requests.problems;
    let message = problems.join("; ");
    (!problems.is_empty()).then(|| Held::new("AnnotationsValid", false, "NotUnderstood", message))
}

/// Running below spec; present only while True.
fn degraded(desired: Option<&Desired>, observed: &Observed, plan: &Plan) -> Option<Held> {
    let set = observed.stateful_set.as_ref()?;
    let living = || observed.pods.iter().filter(|pod| !pod.deleting);
    let held = |reason, message| Some(Held::new("Degraded", true, reason, message));
    if let Some((pod, crash)) = living().find_map(|pod| Some((pod, pod.crash.as_ref()?))) {
        return held("CrashLooping", format!("{}: {crash}", pod.name));
    }
    if let Some(message) = living().find_map(|pod| trouble(pod, "DiskFull")) {
        let hint = "raise spec.state.volume.size";
        return held("DiskPressure", format!("{message}; {hint}"));
    }
    if let Some(message) = living().find_map(|pod| trouble(pod, SINK_FAILING)) {
        return held(SINK_FAILING, message);
    }
    if let Some(Fresh::No(_, message)) = desired.and_then(|desired| freshness(desired, observed)) {
        return held("CheckpointFailing", message);
    }
    let ready = living().filter(|pod| pod.ready).count();
    let started = observed.status.last_stable_revision.is_some();
    if started && plan.rollout.is_none() && ready < set.replicas as usize {
        let message = format!(
            "{ready} of {} pods are ready; {}",
            set.replicas,
            summary::waiting_for(observed)
        );
        return held("PodsNotReady", message);
    }
    let samples = &observed.lag_samples;
    let rises = samples.len() >= LAG_SAMPLES && samples.windows(2).all(|pair| pair[0] < pair[1]);
    let last = samples.last().copied().unwrap_or(0);
    if rises && last >= LAG_MIN {
        let message = format!(
            "{last} records behind and falling further behind for {} minutes; raise spec.replicas or spec.resources",
            samples.len() - 1
        );
        return held("LagGrowing", message);
    }
    None
}

/// Samples of the lag, one a minute, that have to rise one by one.
pub const LAG_SAMPLES: usize = 6;

/// What a pod or one of its tasks says about `reason`.
fn trouble(pod: &PodFacts, reason: &str) -> Option<String> {
    let admin = pod.admin.as_ref()?;
    let rows = admin.tasks.iter().filter_map(|row| row.problem.as_ref());
    let mut all = admin.problem.iter().chain(rows);
    let problem = all.find(|problem| problem.reason == reason)?;
    Some(format!("{}: {}", pod.name, problem.message))
}

enum Fresh {
    Yes(String),
    /// Reason and message.
    No(&'static str, String),
    /// No task runs yet.
    Unknown,
}

/// Whether every running task's newest checkpoint holds all that was committed, or is young enough.
fn freshness(desired: &Desired, observed: &Observed) -> Option<Fresh> {
    let bound = desired
        .checkpoint_interval_ms?
        .saturating_mul(INTERVALS_MAX)
        .max(OVERDUE_MIN_MS);
    let rows: Vec<&TaskStatus> = summary::rows(observed)
        .filter(|row| row.state == TaskState::Running && row.stage.keeps_state())
        .collect();
    if rows.is_empty() {
        return Some(Fresh::Unknown);
    }
    let failing = rows.iter().find_map(|row| {
        let problem = row.problem.as_ref()?;
        (problem.reason == "CheckpointFailed").then(|| format!("task {}: {}", row.task, problem.message))
    });
    if let Some(message) = failing {
        return Some(Fresh::No("Failing", message));
    }
    let now_ms = observed.now.as_millisecond();
    let running_ms = observed
        .running_since
        .map_or(0, |since| now_ms - since.as_millisecond());
    for row in rows {
        match &row.checkpoint {
            None if running_ms <= bound => return Some(Fresh::Unknown),
            None => {
                let message = format!(
                    "task {} has no checkpoint; see the log of its pod and spec.state.checkpoints.store",
                    row.task
                );
                return Some(Fresh::No("NeverCompleted", message));
            }
            // It holds all there is: nothing new to save.
            Some(newest) if newest.input_offset >= row.input_offset => {}
            Some(newest) if now_ms - newest.completed_at_ms > bound && running_ms > bound => {
                let seconds = (now_ms - newest.completed_at_ms) / 1000;
                let message = format!(
                    "the newest checkpoint of task {} is {seconds} s old; see the log of its pod and the checkpoint store",
                    row.task
                );
                return Some(Fresh::No("Overdue", message));
            }
            Some(_) => {}
        }
    }
    Some(Fresh::Yes("every task has a checkpoint within the bound".to_owned()))
}

/// The newest checkpoint is too old: all runs, and a lost pod would have much to replay.
pub fn overdue(desired: Option<&Desired>, observed: &Observed) -> Option<String> {
    match freshness(desired?, observed)? {
        Fresh::No("Overdue", message) => Some(message),
        Fresh::No(..) | Fresh::Yes(_) | Fresh::Unknown => None,
    }
}

/// Only with a checkpoint store. While no task runs it stays as it was.
fn checkpointed(desired: &Desired, observed: &Observed) -> Option<Held> {
    match freshness(desired, observed)? {
        Fresh::Yes(message) => Some(Held::new("Checkpointed", true, "Completed", message)),
        Fresh::No(reason, message) => Some(Held::new("Checkpointed", false, reason, message)),
        Fresh::Unknown => before(observed, "Checkpointed").or_else(|| {
            let message = "no checkpoint was due yet";
            Some(Held::new("Checkpointed", false, "NeverCompleted", message))
        }),
    }
}

/// A condition as it was written last.
fn before(observed: &Observed, type_: &'static str) -> Option<Held> {
    let mut all = observed.status.conditions.iter();
    let old = all.find(|condition| condition.type_ == type_)?;
    Some(Held::new(
        type_,
        old.status == "True",
        old.reason.clone(),
        old.message.clone(),
    ))
}

/// Outcome of the last rollout; absent before the first.
fn rollout_succeeded(observed: &Observed, plan: &Plan) -> Option<Held> {
    let name = |rollout: &Rollout| format!("{:?} of generation {}", rollout.kind, rollout.generation);
    let held = |status, reason, message| Some(Held::new("RolloutSucceeded", status, reason, message));
    match (&plan.rollout, observed.rollout()) {
        (Some(rollout), _) => {
            let message = format!("{}: step {:?}", name(rollout), rollout.step);
            held(false, "InProgress", message)
        }
        (None, Some(rollout)) if plan.completed => held(true, "Completed", name(rollout)),
        (None, Some(rollout)) if plan.aborted.is_some() => {
            let message = format!("{} was given up: its checkpoint failed", name(rollout));
            held(false, "Aborted", message)
        }
        (None, Some(rollout)) => {
            let message = format!(
                "{} was given up in step {:?}: the spec no longer asks for it",
                name(rollout),
                rollout.step
            );
            held(false, "Aborted", message)
        }
        (None, None) => before(observed, "RolloutSucceeded"),
    }
}

fn storage_ready(desired: &Desired, observed: &Observed, plan: &Plan) -> Option<Held> {
    let wanted = desired.volume.as_ref()?;
    let held = |status, reason, message| Some(Held::new("StorageReady", status, reason, message));
    let used: Vec<_> = observed
        .claims
        .iter()
        .filter(|claim| volumes::in_use(claim, observed))
        .collect();
    if let Some(verdict) = plan.verdict.as_ref().filter(|verdict| verdict.reason == "VolumeStuck") {
        return held(false, "VolumeStuck", verdict.message.clone());
    }
    if let Some(lost) = used.iter().find(|claim| claim.phase == "Lost") {
        let message = format!(
            "{}: its volume is gone; delete the claim and its pod to start from a checkpoint",
            lost.name
        );
        return held(false, "Lost", message);
    }
    if let Some(pending) = used.iter().find(|claim| claim.phase == "Pending") {
        let message = format!(
            "{} has no volume yet; see `kubectl describe pvc {}`",
            pending.name, pending.name
        );
        return held(false, "Pending", message);
    }
    if let Some(message) = volumes::pending(desired, observed) {
        return held(false, "Resizing", message);
    }
    let count = upkeep::replicas(observed).min(u32::try_from(used.len()).unwrap_or(u32::MAX));
    held(true, "Bound", format!("{count} volumes of {}", wanted.size))
}
