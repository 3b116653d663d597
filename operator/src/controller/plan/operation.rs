//! A checkpoint of every task while it runs on, as an operation of the pods: whom to ask, and when it is there or has
//! failed. Must not hold who wants it (`request`, the checkpoints' own controller) or drains (`drain`): those stop tasks.

use k8s_openapi::jiff::SignedDuration;
use streamagg_crds::admin::{CheckpointInfo, OperationPhase, TaskOperation, TaskState};

use super::drain::target;
use super::{PodTarget, upkeep};
use crate::controller::observed::{Observed, PodFacts};

/// How long all tasks may take.
pub const LIMIT: SignedDuration = SignedDuration::from_secs(600);

/// How far the operation is.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// A task says why it will not be.
    Failed(String),
    /// Every task has it.
    Complete(Vec<(u32, Option<CheckpointInfo>)>),
    /// Some tasks have not.
    Waiting {
        /// Which.
        tasks: Vec<u32>,
        /// Of how many.
        of: usize,
        /// Every pod that runs one of them, once; asking again polls.
        ask: Vec<PodTarget>,
    },
}

/// How far the operation `id` is, by the pods' last answers.
pub fn progress(id: &str, observed: &Observed) -> Progress {
    let rows = rows(id, observed);
    if let Some(failure) = rows.iter().find_map(Row::failure) {
        return Progress::Failed(failure);
    }
    let waits: Vec<_> = rows.iter().filter(|row| !row.is_complete()).collect();
    if waits.is_empty() && !rows.is_empty() {
        let all = rows.iter().map(|row| (row.task, row.checkpoint().cloned()));
        return Progress::Complete(all.collect());
    }
    Progress::Waiting {
        tasks: waits.iter().map(|row| row.task).collect(),
        of: rows.len(),
        ask: ask(&waits),
    }
}

fn ask(waits: &[&Row<'_>]) -> Vec<PodTarget> {
    let mut asked: Vec<PodTarget> = Vec::new();
    for pod in waits.iter().filter_map(|row| row.pod.filter(|_| row.runs)) {
        if !asked.iter().any(|known| known.uid == pod.uid) {
            asked.extend(target(pod));
        }
    }
    asked
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

    fn checkpoint(&self) -> Option<&CheckpointInfo> {
        self.answer.and_then(|row| row.checkpoint.as_ref())
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
