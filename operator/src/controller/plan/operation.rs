//! A checkpoint of every task while it runs on, as an operation of the pods: whom to ask, and when it is there or has
//! failed. Must not hold who wants it (`request`, the checkpoints' own controller) or drains (`drain`): those stop tasks.

use k8s_openapi::jiff::SignedDuration;
use streamagg_crds::admin::{CheckpointInfo, OperationPhase, Stage, TaskOperation, TaskState};

use super::drain::target;
use super::{PodTarget, upkeep};
use crate::controller::observed::{Observed, PodFacts};

/// How long all tasks may take.
pub const LIMIT: SignedDuration = SignedDuration::from_secs(600);

/// Which tasks an operation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Those that keep state, and those that nobody knows: no pod tells of them.
    WithState,
    /// Those of the first of two stages, which are what their committed position says, and those that nobody knows.
    FirstStage,
}

impl Part {
    fn has(self, stage: Option<Stage>) -> bool {
        stage.is_none_or(|stage| stage.keeps_state() == (self == Self::WithState))
    }
}

/// A pod and the tasks it is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// Whom.
    pub pod: PodTarget,
    /// For which; never none.
    pub tasks: Vec<u32>,
}

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
        ask: Vec<Ask>,
    },
}

/// How far the operation `id` is with these tasks, by the pods' last answers.
pub fn progress(id: &str, observed: &Observed, part: Part) -> Progress {
    let mut rows = rows(id, observed);
    rows.retain(|row| part.has(row.stage));
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

fn ask(waits: &[&Row<'_>]) -> Vec<Ask> {
    let mut asked: Vec<Ask> = Vec::new();
    for row in waits.iter().filter(|row| row.runs) {
        let Some(pod) = row.pod.and_then(target) else {
            continue;
        };
        match asked.iter_mut().find(|ask| ask.pod.uid == pod.uid) {
            Some(ask) => ask.tasks.push(row.task),
            None => asked.push(Ask {
                pod,
                tasks: vec![row.task],
            }),
        }
    }
    asked
}

/// Whether there is a first of two stages, as far as pods tell.
pub fn has_first_stage(observed: &Observed) -> bool {
    observed
        .admins()
        .flat_map(|admin| &admin.tasks)
        .any(|row| !row.stage.keeps_state())
}

/// One task, its owner and what that answered.
struct Row<'a> {
    task: u32,
    pod: Option<&'a PodFacts>,
    /// Absent: nobody tells of it.
    stage: Option<Stage>,
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
        let status = pod.and_then(|pod| pod.task(*task));
        Row {
            task: *task,
            pod,
            stage: status.map(|status| status.stage),
            runs: status.is_some_and(|status| status.state == TaskState::Running),
            answer: operation.and_then(|operation| operation.tasks.iter().find(|row| row.task == *task)),
        }
    };
    upkeep::tasks(observed).iter().map(row).collect()
}
