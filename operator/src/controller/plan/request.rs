//! A checkpoint that somebody asked for by annotation: whom to ask, and when it is there or has failed.
//! Must not hold checkpoints of a rollout (`drain`): those stop the tasks, this one does not.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use streamagg_crds::v1alpha1::{CheckpointRequest, RequestPhase};

use super::operation::{self, Ask, LIMIT, Part, Progress};
use super::{Action, Note, Plan};
use crate::controller::desired::Desired;
use crate::controller::observed::Observed;

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
        if phase == RequestPhase::Pending {
            // What goes first does not count.
            request.started_at = None;
        }
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
    let (tasks, of, asks) = match operation::progress(&request.id, observed, Part::WithState) {
        Progress::Failed(failure) => return say(RequestPhase::Failed, format!("{failure}; {AGAIN}")),
        Progress::Complete(rows) => {
            let bytes: u64 = rows
                .iter()
                .flat_map(|(_, checkpoint)| checkpoint)
                .map(|found| found.bytes)
                .sum();
            request.tasks = i32::try_from(rows.len()).unwrap_or(i32::MAX);
            request.bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            request.phase = RequestPhase::Complete;
            request.message = format!("{} tasks, {bytes} bytes", rows.len());
            return;
        }
        Progress::Waiting { tasks, of, ask } => (tasks, of, ask),
    };
    let since = request.started_at.get_or_insert(Time(observed.now)).0;
    request.phase = RequestPhase::InProgress;
    request.message = format!("tasks {tasks:?} of {of} are waited for");
    if observed.now.duration_since(since) >= LIMIT {
        request.phase = RequestPhase::Failed;
        request.message = format!(
            "tasks {tasks:?} did not end within {} s; see their pods' logs and the checkpoint store, then {AGAIN}",
            LIMIT.as_secs()
        );
        return;
    }
    plan.actions
        .extend(asks.into_iter().map(|Ask { pod, tasks }| Action::Checkpoint {
            pod,
            id: request.id.clone(),
            tasks,
        }));
}
