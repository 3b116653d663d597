//! The status that people and tools read, from what was seen and decided. Pure.
//! kstatus' contract: `Reconciling` and `Stalled` are present only while True, and never both.
//! Must not hold when the status is written (`status`).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use streamagg_crds::v1alpha1::{RestoreOrder, Rollout, RolloutKind, RolloutStep, StreamAggregationStatus};

use super::{Note, Plan, Verdict, Wish, health, upkeep, volumes};
use crate::controller::observed::Observed;
use crate::controller::{restore, summary};
use crate::labels;

/// A condition that holds now.
pub struct Held {
    type_: &'static str,
    status: bool,
    reason: String,
    message: String,
}

impl Held {
    /// A condition.
    pub fn new(type_: &'static str, status: bool, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            type_,
            status,
            reason: reason.into(),
            message: message.into(),
        }
    }
}

/// The status after this reconcile. `name` is the aggregation's.
pub fn status(name: &str, wish: &Wish, observed: &Observed, plan: &Plan) -> StreamAggregationStatus {
    let old = &observed.status;
    let stalled = stalled(wish, observed, plan);
    let ready = ready(wish, observed, plan, stalled.as_ref());
    let message = stalled
        .as_ref()
        .map_or_else(|| ready.message.clone(), |verdict| verdict.message.clone());
    let state = state(observed, plan, stalled.as_ref(), &ready);
    let set = observed.stateful_set.as_ref();
    let pods_ready = observed.pods.iter().filter(|pod| pod.ready && !pod.deleting).count();
    let pods_wanted = plan.replicas.or(wanted_replicas(wish, observed)).unwrap_or(0);
    let assignment = observed
        .assignment
        .as_ref()
        .and_then(|live| i64::try_from(live.assignment.generation).ok());
    let mut held = vec![ready];
    held.extend(stalled.map(|verdict| Held::new("Stalled", true, verdict.reason, verdict.message)));
    held.extend(reconciling(wish, observed, plan, &held));
    held.push(available(observed));
    held.push(spec_valid(wish, plan));
    held.extend(health::conditions(wish, observed, plan));
    StreamAggregationStatus {
        observed_generation: observed.generation,
        conditions: conditions(held, observed),
        state: Some(state),
        message: Some(message),
        replicas: i32::try_from(observed.pods.len()).unwrap_or(i32::MAX),
        ready_replicas: i32::try_from(pods_ready).unwrap_or(i32::MAX),
        replicas_text: Some(format!("{pods_ready}/{pods_wanted}")),
        selector: Some(labels::selector_string(name)),
        tasks: summary::tasks_summary(observed).or_else(|| old.tasks.clone().filter(|_| pods_wanted == 0)),
        assignment_generation: assignment.max(old.assignment_generation),
        revision: pipeline_revision(wish, observed).or_else(|| old.revision.clone()),
        current_revision: set.map(|set| set.revision.clone()),
        last_stable_revision: plan
            .stable_revision
            .clone()
            .or_else(|| old.last_stable_revision.clone()),
        image: set.map(|set| set.image.clone()),
        restart_nonce: set.and_then(|set| set.restart_nonce),
        restored: restore::done(observed).as_ref().map(RestoreOrder::from),
        aborted_rollout: aborted(observed, plan),
        rollout: plan.rollout.clone(),
        checkpoint_request: plan
            .checkpoint_request
            .clone()
            .or_else(|| old.checkpoint_request.clone()),
    }
}

/// What was given up counts for its generation; what is done since makes it past.
fn aborted(observed: &Observed, plan: &Plan) -> Option<Rollout> {
    let old = observed.status.aborted_rollout.clone();
    let stands = |old: &Rollout| old.generation == observed.generation && !plan.completed;
    plan.aborted.clone().or_else(|| old.filter(stands))
}

/// Events that follow from the conditions, beside the plan's own.
pub fn notes(old: &StreamAggregationStatus, new: &StreamAggregationStatus) -> Vec<Note> {
    let find = |status: &StreamAggregationStatus, type_: &str| {
        let condition = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == type_ && condition.status == "True");
        condition.map(|condition| (condition.reason.clone(), condition.message.clone()))
    };
    let subject = format!("generation-{}", new.observed_generation);
    let note = |warning, reason, message| Note {
        warning,
        reason,
        subject: subject.clone(),
        message,
    };
    let mut notes = Vec::new();
    match (find(old, "Stalled"), find(new, "Stalled")) {
        (old, Some((reason, message))) if old.as_ref().map(|(reason, _)| reason) != Some(&reason) => {
            notes.push(note(true, reason, message));
        }
        _ => {}
    }
    let misuse = |status: &StreamAggregationStatus| {
        let mut all = status.conditions.iter();
        all.find(|condition| condition.type_ == "AnnotationsValid")
            .map(|found| found.message.clone())
    };
    if let Some(message) = misuse(new).filter(|message| misuse(old).as_ref() != Some(message)) {
        notes.push(note(true, "AnnotationIgnored".to_owned(), message));
    }
    if let (None, Some((reason, message))) = (find(old, "Ready"), find(new, "Ready")) {
        notes.push(note(false, reason, message));
    }
    notes
}

fn wanted_replicas(wish: &Wish, observed: &Observed) -> Option<u32> {
    let live = observed.stateful_set.as_ref().map(|set| set.replicas);
    match wish.desired() {
        Some(desired) if desired.suspend => Some(0),
        Some(desired) => Some(desired.replicas),
        None => live,
    }
}

fn pipeline_revision(wish: &Wish, observed: &Observed) -> Option<String> {
    let set = observed.stateful_set.as_ref()?;
    let mut pods = observed.pods.iter().filter(|pod| pod.revision == set.revision);
    let reported = pods
        .find_map(|pod| pod.admin.as_ref())
        .map(|admin| admin.revision.clone());
    let built = wish.desired().filter(|desired| desired.revision == set.revision);
    reported
        .filter(|revision| !revision.is_empty())
        .or_else(|| built.map(|desired| desired.pipeline_revision.clone()))
}

fn stalled(wish: &Wish, observed: &Observed, plan: &Plan) -> Option<Verdict> {
    if observed.deleting() {
        return None;
    }
    if let Wish::Invalid(problems) = wish {
        let list = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let runs = observed.stateful_set.is_some();
        let tail = if runs {
            " (the last good spec goes on running)"
        } else {
            ""
        };
        return Some(Verdict {
            reason: "SpecInvalid".to_owned(),
            message: format!("{list}{tail}"),
        });
    }
    if plan.verdict.is_some() {
        return plan.verdict.clone();
    }
    if let Wish::Stalled(verdict) = wish {
        return Some(verdict.clone());
    }
    // Problems of the pods that a rollout is about to replace are its reason, not its failure.
    if plan.rollout.is_some() {
        return None;
    }
    let hopeless = |pod: &crate::controller::observed::PodFacts| Some((pod.name.clone(), pod.hopeless()?));
    observed
        .pods
        .iter()
        .filter(|pod| !pod.deleting)
        .find_map(hopeless)
        .map(|(pod, problem)| Verdict {
            reason: problem.reason,
            message: format!("{pod}: {}", problem.message),
        })
}

fn ready(wish: &Wish, observed: &Observed, plan: &Plan, stalled: Option<&Verdict>) -> Held {
    if observed.deleting() {
        let message = plan.waiting.clone().unwrap_or_else(|| "being deleted".to_owned());
        return Held::new("Ready", false, "Deleting", message);
    }
    if let Some(verdict) = stalled {
        let reason = if verdict.reason == "SpecInvalid" {
            "SpecInvalid"
        } else {
            "Stalled"
        };
        return Held::new("Ready", false, reason, verdict.message.clone());
    }
    if plan.paused.is_some_and(|waiting| waiting > 0) {
        let message = "paused by the annotation streamagg.io/paused before the spec is in force; remove it to go on";
        return Held::new("Ready", false, "Paused", message);
    }
    if let Wish::Waits(verdict) = wish {
        return Held::new("Ready", false, verdict.reason.clone(), verdict.message.clone());
    }
    if let Some(message) = wish.desired().and_then(|desired| volumes::pending(desired, observed)) {
        return Held::new("Ready", false, "Resizing", message);
    }
    if let Some(rollout) = under_way(plan) {
        let restoring = rollout.step >= RolloutStep::Restore;
        let reason = if restoring { "Restoring" } else { "RollingOut" };
        return Held::new("Ready", false, reason, progress(rollout, observed));
    }
    let suspended = wish.desired().is_some_and(|desired| desired.suspend);
    let Some(set) = observed.stateful_set.as_ref() else {
        return Held::new("Ready", false, "WaitingForPods", "pods are being created");
    };
    if suspended && set.replicas == 0 {
        let message = "suspended: no pods run, state is kept; set spec.suspend to false to go on";
        let back = restore::under_way(observed).map(|order| format!(" from StreamCheckpoint {}", order.checkpoint));
        return Held::new(
            "Ready",
            true,
            "Suspended",
            format!("{message}{}", back.unwrap_or_default()),
        );
    }
    if upkeep::all_running(observed) {
        if let Some(message) = health::overdue(wish.desired(), observed) {
            return Held::new("Ready", true, "CheckpointOverdue", message);
        }
        let count = upkeep::tasks(observed).len();
        let message = format!(
            "{count} tasks run on {} pods",
            set.replicas.min(u32::try_from(count).unwrap_or(u32::MAX))
        );
        return Held::new("Ready", true, "Running", message);
    }
    Held::new("Ready", false, "WaitingForPods", summary::waiting_for(observed))
}

/// The rollout, unless all of it is in force and it is only watched.
fn under_way(plan: &Plan) -> Option<&Rollout> {
    plan.rollout
        .as_ref()
        .filter(|rollout| rollout.step != RolloutStep::Stabilize)
}

fn progress(rollout: &Rollout, observed: &Observed) -> String {
    let what = match rollout.step {
        RolloutStep::Plan => "written down, waiting for pods".to_owned(),
        RolloutStep::Checkpoint | RolloutStep::Verify => "tasks drain to their committed positions".to_owned(),
        RolloutStep::Commit => "committed".to_owned(),
        RolloutStep::Apply => "pods are being changed".to_owned(),
        RolloutStep::Restore | RolloutStep::Stabilize => match restore::under_way(observed) {
            Some(order) => {
                let (left, of) = (restore::left(&order, observed).len(), order.tasks.len());
                let waits = summary::waiting_for(observed);
                format!(
                    "{} of {of} tasks went back to StreamCheckpoint {}, {waits}",
                    of - left,
                    order.checkpoint
                )
            }
            None => summary::waiting_for(observed),
        },
    };
    format!(
        "{:?} of generation {}, step {:?}: {what}",
        rollout.kind, rollout.generation, rollout.step
    )
}

fn reconciling(wish: &Wish, observed: &Observed, plan: &Plan, held: &[Held]) -> Option<Held> {
    let stands = observed.deleting() || plan.paused.is_some();
    if stands || held.iter().any(|condition| condition.type_ == "Stalled") {
        return None;
    }
    let message = held.first().map(|ready| ready.message.clone()).unwrap_or_default();
    if let Wish::Waits(verdict) = wish {
        return Some(Held::new("Reconciling", true, verdict.reason.clone(), message));
    }
    if wish
        .desired()
        .and_then(|desired| volumes::pending(desired, observed))
        .is_some()
    {
        return Some(Held::new("Reconciling", true, "Resizing", message));
    }
    let Some(rollout) = under_way(plan) else {
        let new = observed.status.last_stable_revision.is_none() && plan.stable_revision.is_none();
        let is_ready = held.first().is_some_and(|ready| ready.status);
        return (new && !is_ready).then(|| Held::new("Reconciling", true, "NewGeneration", message));
    };
    let reason = match (rollout.kind, rollout.step) {
        (RolloutKind::Suspend, _) => "Suspending",
        (RolloutKind::Rescale, RolloutStep::Checkpoint | RolloutStep::Verify) => "Draining",
        (RolloutKind::Rescale, _) => "Rescaling",
        (_, RolloutStep::Plan) => "NewGeneration",
        (_, RolloutStep::Checkpoint | RolloutStep::Verify) => "Checkpointing",
        (_, RolloutStep::Commit | RolloutStep::Apply | RolloutStep::Restore | RolloutStep::Stabilize) => "Restoring",
    };
    Some(Held::new("Reconciling", true, reason, message))
}

/// The minimum is what is left when one pod is away, and at least one task.
fn available(observed: &Observed) -> Held {
    let tasks = upkeep::tasks(observed);
    let running = summary::running(observed);
    let load = |ordinal: &u32| tasks.values().filter(|owner| *owner == ordinal).count();
    let largest = tasks.values().map(load).max().unwrap_or(0);
    let minimum = tasks.len().saturating_sub(largest).max(1);
    let message = format!("{running} of {} tasks run, at least {minimum} must", tasks.len());
    if running >= minimum {
        Held::new("Available", true, "MinimumAvailable", message)
    } else {
        Held::new("Available", false, "Unavailable", message)
    }
}

fn spec_valid(wish: &Wish, plan: &Plan) -> Held {
    match (wish, &plan.verdict) {
        (Wish::Invalid(problems), _) => {
            let list = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            Held::new("SpecValid", false, "SpecInvalid", list)
        }
        (Wish::Valid(_) | Wish::Stalled(_) | Wish::Waits(_), Some(verdict)) if verdict.reason == "SpecInvalid" => {
            Held::new("SpecValid", false, "SpecInvalid", verdict.message.clone())
        }
        (Wish::Valid(_) | Wish::Stalled(_) | Wish::Waits(_), _) => {
            Held::new("SpecValid", true, "Valid", "the spec can be carried out")
        }
    }
}

fn state(observed: &Observed, plan: &Plan, stalled: Option<&Verdict>, ready: &Held) -> String {
    let state = match (stalled, under_way(plan)) {
        _ if observed.deleting() => "Deleting",
        (Some(_), _) => "Stalled",
        (None, _) if plan.paused.is_some() => "Paused",
        (None, Some(rollout)) => match rollout.kind {
            RolloutKind::Upgrade => "Upgrading",
            RolloutKind::Restart => "Restarting",
            RolloutKind::Rescale => "Rescaling",
            RolloutKind::Suspend => "Suspending",
            RolloutKind::Resume => "Resuming",
            RolloutKind::Restore => "Restoring",
        },
        (None, None) if ready.reason == "WaitingForCheckpoint" => "Waiting",
        (None, None) if ready.reason == "Suspended" => "Suspended",
        (None, None) if ready.status => "Running",
        (None, None) if observed.status.last_stable_revision.is_none() => "Starting",
        (None, None) => "Recovering",
    };
    state.to_owned()
}

/// `lastTransitionTime` moves only when the status of a condition flips.
fn conditions(held: Vec<Held>, observed: &Observed) -> Vec<Condition> {
    let old = &observed.status.conditions;
    let condition = |held: Held| {
        let status = if held.status { "True" } else { "False" };
        let before = old
            .iter()
            .find(|before| before.type_ == held.type_ && before.status == status);
        Condition {
            type_: held.type_.to_owned(),
            status: status.to_owned(),
            observed_generation: Some(observed.generation),
            last_transition_time: before.map_or(Time(observed.now), |before| before.last_transition_time.clone()),
            reason: held.reason,
            message: held.message.chars().take(MESSAGE_LENGTH_MAX).collect(),
        }
    };
    held.into_iter().map(condition).collect()
}

/// Longest condition message; the API allows 32,768 characters, people read fewer.
const MESSAGE_LENGTH_MAX: usize = 2_000;
