//! Figures and sentences about pods and tasks for the status. Pure. Must not hold decisions.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use streamagg_crds::admin::{PodStatus, TaskState, TaskStatus};
use streamagg_crds::v1alpha1::{CheckpointRef, TasksSummary};

use super::observed::{Observed, PodFacts};
use super::plan::tasks;

/// The row of each task by its owner.
pub fn rows(observed: &Observed) -> impl Iterator<Item = &TaskStatus> {
    tasks(observed).iter().filter_map(|(task, owner)| {
        let mut pods = observed
            .pods
            .iter()
            .filter(|pod| pod.ordinal == *owner && !pod.deleting);
        pods.find_map(|pod| pod.admin.as_ref())?
            .tasks
            .iter()
            .find(|row| row.task == *task)
    })
}

/// Tasks that process.
pub fn running(observed: &Observed) -> usize {
    rows(observed).filter(|row| row.state == TaskState::Running).count()
}

/// All tasks together; absent until there is an assignment or while no pod answers.
pub fn tasks_summary(observed: &Observed) -> Option<TasksSummary> {
    let count = tasks(observed).len();
    let rows: Vec<_> = rows(observed).collect();
    if count == 0 || rows.is_empty() {
        return None;
    }
    let complete = rows.len() == count;
    let watermark_ms = rows
        .iter()
        .map(|row| row.watermark_ms)
        .min()
        .flatten()
        .filter(|_| complete);
    let lag: Option<i64> = rows.iter().map(|row| row.lag).sum();
    Some(TasksSummary {
        count: i32::try_from(count).unwrap_or(i32::MAX),
        running: i32::try_from(running(observed)).unwrap_or(i32::MAX),
        lag: lag.filter(|_| complete),
        watermark_ms,
        watermark_lag: watermark_ms.map(|watermark| age(observed.now.as_millisecond() - watermark)),
        epoch: rows
            .iter()
            .map(|row| row.epoch)
            .max()
            .and_then(|epoch| i64::try_from(epoch).ok()),
        newest_checkpoint: newest_checkpoint(&rows).filter(|_| complete),
    })
}

/// The oldest of the tasks' newest checkpoints: what the whole job could go back to.
fn newest_checkpoint(rows: &[&TaskStatus]) -> Option<CheckpointRef> {
    let with_state = rows.iter().filter(|row| row.stage.keeps_state());
    let all: Option<Vec<_>> = with_state.map(|row| row.checkpoint.as_ref()).collect();
    let oldest = all?.into_iter().min_by_key(|checkpoint| checkpoint.completed_at_ms)?;
    let time = Timestamp::from_millisecond(oldest.completed_at_ms).ok().map(Time);
    Some(CheckpointRef {
        id: oldest.id.clone(),
        time,
    })
}

/// A duration as kubectl would print an age: one unit.
fn age(milliseconds: i64) -> String {
    let seconds = milliseconds.max(0) / 1000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// What is waited for, in one sentence that names the first pod.
pub fn waiting_for(observed: &Observed) -> String {
    let Some(set) = observed.stateful_set.as_ref() else {
        return "waiting for pods".to_owned();
    };
    for ordinal in 0..set.replicas {
        let Some(pod) = observed.pods.iter().find(|pod| pod.ordinal == ordinal && !pod.deleting) else {
            return format!("waiting for pod {ordinal} of {} to be created", set.replicas);
        };
        if let Some(reason) = pod_waits(pod) {
            return format!("waiting for {}: {reason}", pod.name);
        }
    }
    if tasks(observed).is_empty() {
        return "waiting for the pods to learn the number of tasks from Kafka".to_owned();
    }
    "waiting for tasks to move to their new pods".to_owned()
}

fn pod_waits(pod: &PodFacts) -> Option<String> {
    let Some(admin) = &pod.admin else {
        return Some("its admin server does not answer yet".to_owned());
    };
    if let Some(problem) = &admin.problem {
        return Some(format!("{}: {}", problem.reason, problem.message));
    }
    task_waits(admin).or_else(|| (!pod.ready).then(|| "it is not ready".to_owned()))
}

fn task_waits(admin: &PodStatus) -> Option<String> {
    let row = admin.tasks.iter().find(|row| row.state != TaskState::Running)?;
    let percent = row
        .progress
        .map(|share| format!(" ({:.0} %)", share * 100.0))
        .unwrap_or_default();
    let problem = row
        .problem
        .as_ref()
        .map(|problem| format!(", {}: {}", problem.reason, problem.message));
    Some(format!(
        "task {} is {:?}{percent}{}",
        row.task,
        row.state,
        problem.unwrap_or_default()
    ))
}
