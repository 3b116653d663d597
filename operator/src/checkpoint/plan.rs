//! What to do for a checkpoint: ask the pods for it, have it pinned, and release it when the object is deleted. Pure.
//!
//! The status is the write-ahead log: the finalizer is there before anything is asked, and each task's checkpoint stands
//! in the status before it is pinned, so whoever comes after a crash pins or releases the same.
//! Must not hold how anything is carried out (`apply`).

mod conditions;
mod pins;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use streamagg_crds::admin::{CheckpointInfo, OperationStatus};
use streamagg_crds::v1alpha1::{CheckpointPhase, StreamCheckpointStatus, TaskCheckpoint};

use crate::controller::observed::Observed;
use crate::controller::plan::operation::{self, Ask, LIMIT, Part, Progress};
use crate::controller::plan::{Note, PodTarget};
use crate::labels::PINS_FINALIZER;
use conditions::Why;

/// How long pins may take beyond the checkpoint itself.
const PIN_LIMIT: SignedDuration = SignedDuration::from_secs(600);
/// How often retention may take a checkpoint before it is pinned.
const RETRIES_MAX: i32 = 3;
/// While pods are at it.
const REQUEUE_ACTIVE: Duration = Duration::from_secs(1);
/// While something else goes first.
const REQUEUE_WAITING: Duration = Duration::from_secs(5);
/// Nothing is left to do; the watch tells of a deletion.
const REQUEUE_DONE: Duration = Duration::from_secs(3600);
/// How to try again: an object is one checkpoint.
const AGAIN: &str = "then create another StreamCheckpoint";

/// Everything the plan looks at.
#[derive(Clone, Debug)]
pub struct Facts {
    /// When it was looked at; the only clock here.
    pub now: Timestamp,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`: names the operation of the pods and holds the pins.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// When it was deleted, if it was.
    pub deleted_at: Option<Timestamp>,
    /// Its finalizers, ours and others'.
    pub finalizers: Vec<String>,
    /// `spec.aggregation`.
    pub of: String,
    /// Status as read.
    pub status: StreamCheckpointStatus,
    /// The aggregation, if there is one and it is needed.
    pub aggregation: Option<Aggregation>,
    /// The pods' last answers about pins, by their UID.
    pub pins: BTreeMap<String, OperationStatus>,
}

/// The aggregation as far as a checkpoint cares.
#[derive(Clone, Debug)]
pub struct Aggregation {
    /// `metadata.uid`.
    pub uid: String,
    /// There is a checkpoint store.
    pub has_store: bool,
    /// `spec.suspend`.
    pub suspended: bool,
    /// All else, with the pods' answers to this checkpoint.
    pub observed: Observed,
}

impl Facts {
    /// Something is left to do that the pods do.
    pub fn needs_aggregation(&self) -> bool {
        if self.deleted_at.is_some() {
            self.is_held() && !self.status.tasks.is_empty()
        } else {
            !ended(self.status.phase)
        }
    }

    fn is_held(&self) -> bool {
        self.finalizers.iter().any(|finalizer| finalizer == PINS_FINALIZER)
    }
}

/// One effect; each is idempotent or guarded by the resourceVersion.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Replace the finalizers, if nobody changed the object meanwhile.
    SetFinalizers(Vec<String>),
    /// `POST /v1/checkpoint` of tasks of a pod; asking again polls.
    Checkpoint {
        /// Pod to ask.
        pod: PodTarget,
        /// Id of the operation.
        id: String,
        /// Tasks.
        tasks: Vec<u32>,
    },
    /// `POST /v1/pins`; asking again polls.
    Pin {
        /// Pod to ask.
        pod: PodTarget,
        /// Id under which the answer is kept.
        id: String,
        /// Whose pins.
        holder: String,
        /// Ids by task.
        checkpoints: BTreeMap<u32, String>,
    },
    /// `DELETE /v1/pins`; asking again polls.
    Release {
        /// Pod to ask.
        pod: PodTarget,
        /// Id under which the answer is kept.
        id: String,
        /// Whose pins.
        holder: String,
        /// Tasks.
        tasks: Vec<u32>,
    },
}

impl Action {
    /// Static name for metrics and logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::SetFinalizers(_) => "set_finalizers",
            Self::Checkpoint { .. } => "checkpoint",
            Self::Pin { .. } => "pin",
            Self::Release { .. } => "release",
        }
    }
}

/// What to do now.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Effects, in order.
    pub actions: Vec<Action>,
    /// The status after them.
    pub status: StreamCheckpointStatus,
    /// Events.
    pub notes: Vec<Note>,
    /// When to look again.
    pub requeue: Duration,
}

impl Plan {
    /// Nothing is left that pods would do.
    pub fn is_over(&self) -> bool {
        self.requeue == REQUEUE_DONE
    }
}

fn ended(phase: Option<CheckpointPhase>) -> bool {
    match phase {
        Some(CheckpointPhase::Complete | CheckpointPhase::Failed) => true,
        Some(
            CheckpointPhase::Pending
            | CheckpointPhase::InProgress
            | CheckpointPhase::FirstStage
            | CheckpointPhase::Pinning,
        )
        | None => false,
    }
}

/// Decides what to do.
pub fn plan(facts: &Facts) -> Plan {
    let mut step = Step {
        facts,
        status: facts.status.clone(),
        actions: Vec::new(),
        notes: Vec::new(),
        requeue: REQUEUE_DONE,
    };
    let why = if facts.deleted_at.is_some() {
        step.release()
    } else if ended(facts.status.phase) {
        step.as_it_was()
    } else if !facts.is_held() {
        let ours = facts.finalizers.iter().cloned().chain([PINS_FINALIZER.to_owned()]);
        step.actions.push(Action::SetFinalizers(ours.collect()));
        step.wait("Checkpointing", "begins".to_owned())
    } else {
        match facts.status.phase {
            Some(CheckpointPhase::Pinning) => step.pin(),
            _ => step.take(),
        }
    };
    conditions::write(&mut step.status, facts, why);
    Plan {
        actions: step.actions,
        status: step.status,
        notes: step.notes,
        requeue: step.requeue,
    }
}

/// A look at work.
struct Step<'a> {
    facts: &'a Facts,
    status: StreamCheckpointStatus,
    actions: Vec<Action>,
    notes: Vec<Note>,
    requeue: Duration,
}

impl Step<'_> {
    /// What has ended stays as it was written.
    fn as_it_was(&self) -> Why {
        let message = self.status.message.clone().unwrap_or_default();
        match self.status.phase {
            Some(CheckpointPhase::Complete) => Why::Complete(message),
            _ => Why::Failed {
                reason: conditions::reason_of_failure(&self.status),
                message,
            },
        }
    }

    /// Something else goes first; that time does not count.
    fn wait(&mut self, reason: &'static str, message: String) -> Why {
        // What the second stage has is written down: the first may follow at any time.
        if self.status.phase != Some(CheckpointPhase::FirstStage) {
            self.status.phase = Some(CheckpointPhase::Pending);
        }
        self.status.started_at = None;
        self.requeue = if self.actions.is_empty() {
            REQUEUE_WAITING
        } else {
            REQUEUE_ACTIVE
        };
        Why::Waiting { reason, message }
    }

    fn fail(&mut self, reason: &str, message: String) -> Why {
        self.status.phase = Some(CheckpointPhase::Failed);
        self.status.completed_at = Some(Time(self.facts.now));
        self.actions.clear();
        self.note(true, "CheckpointFailed", message.clone());
        Why::Failed {
            reason: reason.to_owned(),
            message,
        }
    }

    fn note(&mut self, warning: bool, reason: &str, message: String) {
        self.notes.push(Note {
            warning,
            reason: reason.to_owned(),
            subject: "checkpoint".to_owned(),
            message,
        });
    }

    /// Id of the pods' operation; another after each retry, since a finished one stays finished.
    fn operation(&self) -> String {
        match self.status.retries {
            0 => format!("scp-{}", self.facts.uid),
            retries => format!("scp-{}-{retries}", self.facts.uid),
        }
    }

    fn since(&mut self) -> Timestamp {
        self.status.started_at.get_or_insert(Time(self.facts.now)).0
    }

    /// The checkpoint itself, as pods take it while their tasks run on.
    fn take(&mut self) -> Why {
        let facts = self.facts;
        let Some(aggregation) = &facts.aggregation else {
            let message = format!("there is no StreamAggregation {} in this namespace", self.facts.of);
            return self.wait("WaitingForAggregation", message);
        };
        let observed = &aggregation.observed;
        if let Some((reason, message)) = goes_first(aggregation) {
            return self.wait(reason, message);
        }
        if !aggregation.has_store {
            let of = &self.facts.of;
            let message = format!(
                "there is nowhere to keep it; set spec.state.checkpoints.store of StreamAggregation {of}, {AGAIN}"
            );
            return self.fail("NoCheckpointStore", message);
        }
        if self.status.phase == Some(CheckpointPhase::FirstStage)
            && self.status.aggregation_uid.as_ref() != Some(&aggregation.uid)
        {
            let message = format!(
                "StreamAggregation {} was deleted and made anew when its window tasks had their checkpoints; {AGAIN}",
                self.facts.of
            );
            return self.fail("AggregationReplaced", message);
        }
        let operation = self.operation();
        // What a window task has merged was committed by the first stage before: taken in this order, the positions hold it.
        let (part, phase) = match self.status.phase {
            Some(CheckpointPhase::FirstStage) => (Part::FirstStage, CheckpointPhase::FirstStage),
            _ => (Part::WithState, CheckpointPhase::InProgress),
        };
        match operation::progress(&operation, observed, part) {
            Progress::Failed(failure) => self.fail(
                "CheckpointFailed",
                format!("{failure}; look at the checkpoint store, {AGAIN}"),
            ),
            Progress::Complete(rows) => self.taken(aggregation, part, rows),
            Progress::Waiting { tasks, of, ask } => {
                let since = self.since();
                if self.facts.now.duration_since(since) >= LIMIT {
                    let message = format!(
                        "tasks {tasks:?} did not end within {} s; see their pods' logs and the checkpoint store, {AGAIN}",
                        LIMIT.as_secs()
                    );
                    return self.fail("CheckpointFailed", message);
                }
                let asks = ask.into_iter().map(|Ask { pod, tasks }| Action::Checkpoint {
                    pod,
                    id: operation.clone(),
                    tasks,
                });
                self.actions.extend(asks);
                self.status.phase = Some(phase);
                self.requeue = REQUEUE_ACTIVE;
                Why::Waiting {
                    reason: "Checkpointing",
                    message: format!("tasks {tasks:?} of {of} are waited for"),
                }
            }
        }
    }

    /// These tasks have it: it is written down before the others are asked and anything is pinned.
    fn taken(&mut self, aggregation: &Aggregation, part: Part, rows: Vec<(u32, Option<CheckpointInfo>)>) -> Why {
        let all: Option<Vec<TaskCheckpoint>> = rows.iter().map(|(task, found)| row(*task, found.as_ref()?)).collect();
        let Some(taken) = all else {
            let message =
                format!("a task's pod has no checkpoint store yet; once the change of its spec is in force, {AGAIN}");
            return self.fail("NoCheckpointStore", message);
        };
        // Rows of a try that retention was faster than may be pinned: they stay until this one's take their place.
        let mut tasks = std::mem::take(&mut self.status.tasks);
        tasks.retain(|old| taken.iter().all(|new| new.task != old.task));
        tasks.extend(taken);
        tasks.sort_unstable_by_key(|row| row.task);
        self.requeue = REQUEUE_ACTIVE;
        if part == Part::WithState && operation::has_first_stage(&aggregation.observed) {
            self.status.aggregation_uid = Some(aggregation.uid.clone());
            self.status.tasks = tasks;
            self.status.phase = Some(CheckpointPhase::FirstStage);
            return Why::Waiting {
                reason: "Checkpointing",
                message: "every window task has it; where the first stage stands is noted".to_owned(),
            };
        }
        let bytes: i64 = tasks.iter().map(|task| task.bytes).fold(0, i64::saturating_add);
        let admin = aggregation.observed.admins().next();
        let status = &mut self.status;
        status.aggregation_uid = Some(aggregation.uid.clone());
        status.job_id = admin.map(|admin| admin.job_id.clone());
        status.revision = admin.map(|admin| admin.revision.clone());
        status.task_count = i32::try_from(tasks.len()).ok();
        status.bytes = Some(bytes);
        status.size = Some(conditions::size(bytes));
        status.tasks = tasks;
        status.phase = Some(CheckpointPhase::Pinning);
        Why::Waiting {
            reason: "Pinning",
            message: "every task has it; it is marked as kept".to_owned(),
        }
    }
}

/// What goes before a checkpoint.
fn goes_first(aggregation: &Aggregation) -> Option<(&'static str, String)> {
    let observed = &aggregation.observed;
    if observed.deleting() {
        return Some(("WaitingForAggregation", "the aggregation is being deleted".to_owned()));
    }
    if aggregation.suspended {
        let message = "the aggregation is suspended; it is taken when the aggregation runs again";
        return Some(("AggregationSuspended", message.to_owned()));
    }
    if observed.paused {
        let message = "the aggregation is paused; it is taken when the pause is taken off";
        return Some(("AggregationPaused", message.to_owned()));
    }
    let rollout = observed.rollout()?;
    let message = format!("waits for the rollout {} to end", rollout.id);
    Some(("RollingOut", message))
}

fn row(task: u32, found: &CheckpointInfo) -> Option<TaskCheckpoint> {
    Some(TaskCheckpoint {
        task: i32::try_from(task).ok()?,
        id: found.id.clone(),
        epoch: i64::try_from(found.epoch).unwrap_or(i64::MAX),
        input_offset: found.input_offset,
        bytes: i64::try_from(found.bytes).unwrap_or(i64::MAX),
    })
}

#[cfg(test)]
mod tests;
