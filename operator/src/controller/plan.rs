//! Step `plan`: facts in, decision out. No clock, no client; the same facts give the same plan.
//!
//! The write-ahead log (`status.rollout`) *as read* authorises the actions; the log this plan writes is persisted
//! after them and authorises those of the next reconcile. So a crash after any action is met by the same plan.
//! Must not hold how actions are carried out (`apply`).

pub mod assignment;
mod children;
mod choose;
pub mod conditions;
mod deletion;
mod difference;
pub(crate) mod drain;
pub mod health;
pub(crate) mod operation;
mod policy;
mod request;
mod restoring;
mod rollout;
mod upkeep;
mod volumes;

pub(super) use upkeep::all_running;
pub(crate) use upkeep::{task_count, tasks};

use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use serde_json::Value;
use streamagg_crds::assignment::Assignment;
use streamagg_crds::v1alpha1::{CheckpointRequest, Rollout};
use streamagg_crds::validate::SpecError;

use super::desired::Desired;
use super::observed::{Foreign, Observed, StatefulSetFacts};

/// One effect on the cluster or a pod; each is idempotent, or guarded by UID or resourceVersion.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Server-side apply of a simple child (Service, ServiceAccount, PodDisruptionBudget, job ConfigMap).
    ApplyChild(Box<Value>),
    /// Create the token Secret with a fresh random token, unless it is there.
    CreateToken,
    /// Server-side apply of the whole StatefulSet; the only action that changes the pod template.
    ApplyStatefulSet(Box<StatefulSet>),
    /// Change replicas and partition only, if nobody changed the StatefulSet meanwhile.
    ScaleStatefulSet {
        /// `spec.replicas`.
        replicas: u32,
        /// `spec.updateStrategy.rollingUpdate.partition`.
        partition: i32,
        /// The version it was decided on.
        resource_version: String,
    },
    /// Write the assignment: create it when there was none, else replace exactly the version seen.
    WriteAssignment {
        /// The new assignment.
        assignment: Assignment,
        /// The version seen.
        resource_version: Option<String>,
    },
    /// `POST /v1/assignment` of what the ConfigMap holds.
    Push {
        /// Pod to tell.
        pod: PodTarget,
        /// The assignment as read from the ConfigMap.
        assignment: Assignment,
    },
    /// `POST /v1/drain`; asking again polls.
    Drain {
        /// Pod to ask.
        pod: PodTarget,
        /// Id of the operation.
        id: String,
        /// Tasks to drain.
        tasks: Vec<u32>,
    },
    /// `POST /v1/checkpoint` of tasks of a pod; asking again polls.
    Checkpoint {
        /// Pod to ask.
        pod: PodTarget,
        /// Id of the operation.
        id: String,
        /// Tasks.
        tasks: Vec<u32>,
    },
    /// Delete a pod under a UID precondition.
    DeletePod {
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
    },
    /// Delete the StatefulSet under a UID precondition.
    DeleteStatefulSet {
        /// Its UID.
        uid: String,
        /// What becomes of its pods.
        propagation: Propagation,
    },
    /// Ask for a larger volume, if nobody changed the claim meanwhile.
    GrowClaim {
        /// Its name.
        name: String,
        /// The version it was decided on.
        resource_version: String,
        /// The new size.
        size: String,
    },
    /// Delete a volume claim under a UID precondition.
    DeleteClaim {
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
    },
    /// Replace the aggregation's finalizers, if nobody changed it meanwhile.
    SetFinalizers {
        /// All of them.
        finalizers: Vec<String>,
        /// The version it was decided on.
        resource_version: String,
    },
    /// Delete a job ConfigMap that nothing refers to, under a UID precondition.
    DeleteJobConfigMap {
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
    },
}

impl Action {
    /// Static name for metrics and logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ApplyChild(_) => "apply_child",
            Self::CreateToken => "create_token",
            Self::ApplyStatefulSet(_) => "apply_stateful_set",
            Self::ScaleStatefulSet { .. } => "scale_stateful_set",
            Self::WriteAssignment { .. } => "write_assignment",
            Self::Push { .. } => "push",
            Self::Drain { .. } => "drain",
            Self::Checkpoint { .. } => "checkpoint",
            Self::DeletePod { .. } => "delete_pod",
            Self::DeleteJobConfigMap { .. } => "delete_job_config_map",
            Self::DeleteStatefulSet { .. } => "delete_stateful_set",
            Self::GrowClaim { .. } => "grow_claim",
            Self::DeleteClaim { .. } => "delete_claim",
            Self::SetFinalizers { .. } => "set_finalizers",
        }
    }
}

/// What becomes of the pods of a deleted StatefulSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They run on.
    Orphan,
    /// They go first.
    Foreground,
}

/// A pod to talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodTarget {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Base address of its admin server.
    pub address: String,
}

/// Something worth an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// A warning rather than a plain note.
    pub warning: bool,
    /// CamelCase reason.
    pub reason: String,
    /// What it was said about: the rollout, or the generation. Events that agree in reason and subject become one.
    pub subject: String,
    /// One sentence.
    pub message: String,
}

/// Why the rollout cannot go on without help, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Stable reason of the `Stalled` condition.
    pub reason: String,
    /// What happened and what to do next.
    pub message: String,
}

impl Plan {
    /// Nothing is to be done: the status may say something new, and that is all.
    pub fn only_reports(&self, observed: &Observed) -> bool {
        let quiet = self.actions.is_empty() && self.notes.is_empty();
        quiet
            && !self.completed
            && self.aborted.is_none()
            && self.stable_revision.is_none()
            && self.rollout.as_ref() == observed.rollout()
    }
}

/// What to do now.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Effects, in order.
    pub actions: Vec<Action>,
    /// The write-ahead log after this reconcile.
    pub rollout: Option<Rollout>,
    /// What keeps the spec from being carried out, besides the spec's own problems.
    pub verdict: Option<Verdict>,
    /// What an object that is being deleted waits for.
    pub waiting: Option<String>,
    /// How many effects a pause holds back; absent without a pause.
    pub paused: Option<usize>,
    /// The rollout in the log has reached its end.
    pub completed: bool,
    /// The rollout in the log is given up for good, with its last error.
    pub aborted: Option<Rollout>,
    /// Replicas in force, where they differ from the spec's.
    pub replicas: Option<u32>,
    /// The checkpoint asked for by annotation, where this reconcile says something new of it.
    pub checkpoint_request: Option<CheckpointRequest>,
    /// Revision that has just become stable.
    pub stable_revision: Option<String>,
    /// Events.
    pub notes: Vec<Note>,
    /// When to look again.
    pub requeue: Duration,
}

impl Plan {
    /// Nothing is left to do or to wait for: no effect, and the log stays as it is.
    pub fn is_settled(&self, observed: &Observed) -> bool {
        self.actions.is_empty() && self.rollout.is_none() && observed.rollout().is_none()
    }
}

/// Look again at once: the step just written has work to do.
const REQUEUE_NOW: Duration = Duration::from_millis(50);
/// While something is under way.
const REQUEUE_ACTIVE: Duration = Duration::from_secs(1);
/// Nothing to do; figures are refreshed.
const REQUEUE_IDLE: Duration = Duration::from_secs(10);

/// The spec as `validate` and `build` left it.
#[derive(Clone, Debug)]
pub enum Wish {
    /// It can be carried out.
    Valid(Box<Desired>),
    /// It cannot; what runs goes on.
    Invalid(Vec<SpecError>),
    /// It is right, and cannot be begun until somebody helps; what runs goes on.
    Stalled(Verdict),
    /// It is right, and begins by itself once what it waits for is there; what runs goes on.
    Waits(Verdict),
}

impl Wish {
    /// The desired state, unless the spec is invalid or cannot be begun.
    pub fn desired(&self) -> Option<&Desired> {
        match self {
            Self::Valid(desired) => Some(desired),
            Self::Invalid(_) | Self::Stalled(_) | Self::Waits(_) => None,
        }
    }
}

/// Decides what to do.
pub fn plan(wish: &Wish, observed: &Observed) -> Plan {
    if let Some(deleted_at) = observed.deleted_at {
        return deletion::plan(wish.desired(), observed, deleted_at);
    }
    if let Some(foreign) = observed.foreign.first() {
        return wait_for_owner(foreign, observed);
    }
    let mut plan = Plan {
        requeue: REQUEUE_IDLE,
        ..Plan::default()
    };
    let desired = wish.desired();
    // Before there is anything to lose.
    plan.actions.extend(deletion::hold(desired, observed));
    if let Some(desired) = desired {
        children::plan(desired, observed, &mut plan);
    }
    match (&observed.stateful_set, desired) {
        (Some(set), Some(desired)) if set.deleting || replaces_set(desired, observed, set, &mut plan) => {
            plan.rollout = observed.status.rollout.clone();
        }
        (Some(_), _) => {
            let chosen = choose::rollout(desired, observed, &mut plan);
            rollout::plan(desired, observed, chosen, &mut plan);
            upkeep::plan(observed, &mut plan);
            request::plan(desired, observed, &mut plan);
        }
        (None, Some(desired)) => children::create_stateful_set(desired, observed, &mut plan),
        (None, None) => {}
    }
    plan.requeue = match wish {
        Wish::Waits(_) => REQUEUE_ACTIVE.min(requeue(observed, &plan)),
        Wish::Valid(_) | Wish::Invalid(_) | Wish::Stalled(_) => requeue(observed, &plan),
    };
    if observed.paused { pause(plan, observed) } else { plan }
}

/// A paused aggregation is looked at and reported, nothing more; pods go on with what they have.
fn pause(plan: Plan, observed: &Observed) -> Plan {
    let starts = plan.rollout.is_some() || observed.rollout().is_some();
    Plan {
        paused: Some(plan.actions.len().max(usize::from(starts))),
        actions: Vec::new(),
        notes: Vec::new(),
        rollout: observed.status.rollout.clone(),
        stable_revision: None,
        completed: false,
        aborted: None,
        requeue: REQUEUE_IDLE,
        ..plan
    }
}

fn replaces_set(desired: &Desired, observed: &Observed, set: &StatefulSetFacts, plan: &mut Plan) -> bool {
    let mut steps = Plan::default();
    let replaces = volumes::plan(desired, observed, set, &mut steps);
    plan.actions.append(&mut steps.actions);
    plan.notes.append(&mut steps.notes);
    replaces
}

/// Objects of others are never taken over. Those of an earlier aggregation of this name go by themselves.
fn wait_for_owner(foreign: &Foreign, observed: &Observed) -> Plan {
    let verdict = (!foreign.passing).then(|| Verdict {
        reason: "NameConflict".to_owned(),
        message: format!(
            "{} exists and is not ours; remove or rename it, or rename the aggregation",
            foreign.object
        ),
    });
    Plan {
        rollout: observed.status.rollout.clone(),
        verdict,
        requeue: REQUEUE_ACTIVE,
        ..Plan::default()
    }
}

fn requeue(observed: &Observed, plan: &Plan) -> Duration {
    let step = |rollout: Option<&Rollout>| rollout.map(|rollout| (rollout.id.clone(), rollout.step));
    if step(plan.rollout.as_ref()) != step(observed.rollout()) {
        REQUEUE_NOW
    } else if plan.rollout.is_some()
        || !plan.actions.is_empty()
        || !all_running(observed)
        || plan.checkpoint_request.is_some()
    {
        REQUEUE_ACTIVE
    } else {
        REQUEUE_IDLE
    }
}

#[cfg(test)]
mod tests;
