//! A checkpoint that somebody asked for by annotation: whom to ask, and when it is there or has failed.
//! Must not hold checkpoints of a rollout (`drain`): those stop the tasks, this one does not.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::SignedDuration;
use streamagg_crds::admin::{OperationPhase, TaskOperation, TaskState};
use streamagg_crds::v1alpha1::{CheckpointRequest, RequestPhase};

use super::drain::target;
use super::{Action, Note, Plan, upkeep};
use crate::controller::desired::Desired;
use crate::controller::observed::{Observed, PodFacts};

/// How long all tasks may take.
const LIMIT: SignedDuration = SignedDuration::from_secs(600);
/// How to try again: an id is an operation, and a failed one stays failed.
const AGAIN: &str = "annotate with another id to try again";

/// Carries the request on; what has ended stays as it was written until another id is asked for.
pub fn plan(desired: Option<&Desired>, observed: &Observed, plan: &mut Plan) {
    let Some(id) = observed.requests.checkpoint.as_ref() else {
        return;
    };
    let old = observed.status.checkpoint_request.as_ref().filter(|old| old.id == *id);
    let mut request = old.cloned().unwrap_or_else(|| CheckpointRequest {
        id: id.clone(),
        phase: RequestPhase::Pending,
        message: String::new(),
        started_at: None,
        completed_at: None,
        tasks: 0,
        bytes: 0,
    });
    if ended(request.phase) {
        return;
    }
    advance(desired, observed, &mut request, plan);
    if ended(request.phase) {
        request.completed_at = Some(Time(observed.now));
        plan.notes.push(Note {
            warning: request.phase == RequestPhase::Failed,
            reason: format!("Checkpoint{:?}", request.phase),
            subject: format!("checkpoint-{id}"),
            message: format!("checkpoint {id}: {}", request.message),
        });
    }
    plan.checkpoint_request = Some(request);
}

fn ended(phase: RequestPhase) -> bool {
    match phase {
        RequestPhase::Complete | RequestPhase::Failed => true,
        RequestPhase::Pending | RequestPhase::InProgress => false,
    }
}

fn advance(desired: Option<&Desired>, observed: &Observed, request: &mut CheckpointRequest, plan: &mut Plan) {
    let mut say = |phase, message: String| {
        request.phase = phase;
        request.message = message;
    };
    if desired.is_some_and(|desired| !desired.has_store) {
        let message = format!("there is nowhere to keep it; set spec.state.checkpoints.store, then {AGAIN}");
        return say(RequestPhase::Failed, message);
    }
    if desired.is_some_and(|desired| desired.suspend) {
        let message = format!("suspended: the checkpoint before it holds all there is; resume, then {AGAIN}");
        return say(RequestPhase::Failed, message);
    }
    if observed.paused {
        return say(RequestPhase::Pending, "waits until the pause is taken off".to_owned());
    }
    if plan.rollout.is_some() || observed.rollout().is_some() {
        return say(RequestPhase::Pending, "waits for the rollout to end".to_owned());
    }
    let rows = rows(&request.id, observed);
    if let Some(failed) = rows.iter().find_map(|row| row.failure()) {
        return say(RequestPhase::Failed, format!("{failed}; {AGAIN}"));
    }
    let waits: Vec<_> = rows.iter().filter(|row| !row.is_complete()).collect();
    if waits.is_empty() && !rows.is_empty() {
        let (tasks, bytes) = (rows.len(), rows.iter().map(Row::bytes).sum::<u64>());
        request.tasks = i32::try_from(tasks).unwrap_or(i32::MAX);
        request.bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        request.phase = RequestPhase::Complete;
        request.message = format!("{tasks} tasks, {bytes} bytes");
        return;
    }
    let since = request.started_at.get_or_insert(Time(observed.now)).0;
    let tasks: Vec<_> = waits.iter().map(|row| row.task).collect();
    request.phase = RequestPhase::InProgress;
    request.message = format!("tasks {tasks:?} of {} are waited for", rows.len());
    if observed.now.duration_since(since) >= LIMIT {
        request.phase = RequestPhase::Failed;
        request.message = format!(
            "tasks {tasks:?} did not end within {} s; see their pods' logs and the checkpoint store, then {AGAIN}",
            LIMIT.as_secs()
        );
        return;
    }
    ask(&request.id, &waits, plan);
}

/// Every pod once; asking again polls.
fn ask(id: &str, waits: &[&Row<'_>], plan: &mut Plan) {
    let mut asked: Vec<&str> = Vec::new();
    for pod in waits.iter().filter_map(|row| row.pod.filter(|_| row.runs)) {
        if !asked.contains(&pod.uid.as_str())
            && let Some(target) = target(pod)
        {
            asked.push(&pod.uid);
            plan.actions.push(Action::Checkpoint {
                pod: target,
                id: id.to_owned(),
            });
        }
    }
}

/// One task, its owner and what that answered.
struct Row<'a> {
    task: u32,
    pod: Option<&'a PodFacts>,
    runs: bool,
    answer: Option<&'a TaskOperation>,
}

impl Row<'_> {
    fn is_complete(&self) -> bool {
        self.answer.is_some_and(|row| row.phase == OperationPhase::Complete)
    }

    fn bytes(&self) -> u64 {
        let checkpoint = self.answer.and_then(|row| row.checkpoint.as_ref());
        checkpoint.map_or(0, |checkpoint| checkpoint.bytes)
    }

    fn failure(&self) -> Option<String> {
        let row = self.answer.filter(|row| row.phase == OperationPhase::Failed)?;
        let problem = row.problem.clone().unwrap_or_default();
        Some(format!("task {}: {} {}", row.task, problem.reason, problem.message))
    }
}

fn rows<'a>(id: &str, observed: &'a Observed) -> Vec<Row<'a>> {
    let row = |(task, owner): (&u32, &u32)| {
        let mut pods = observed.pods.iter();
        let pod = pods.find(|pod| pod.ordinal == *owner && !pod.deleting);
        let operation = pod.and_then(|pod| pod.checkpoint.as_ref());
        let operation = operation.filter(|operation| operation.id == id);
        Row {
            task: *task,
            pod,
            runs: pod.and_then(|pod| pod.task_state(*task)) == Some(TaskState::Running),
            answer: operation.and_then(|operation| operation.tasks.iter().find(|row| row.task == *task)),
        }
    };
    upkeep::tasks(observed).iter().map(row).collect()
}
