//! Pins: whom to ask to keep the tasks' checkpoints or to let go of them, and when that is over.
//! Any pod of the job can do it for any task, since all have the store. Must not hold the checkpoint itself.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use streamagg_crds::admin::{CHECKPOINT_MISSING, OperationPhase, TaskOperation};
use streamagg_crds::v1alpha1::CheckpointPhase;

use super::{AGAIN, Action, Aggregation, LIMIT, PIN_LIMIT, REQUEUE_ACTIVE, REQUEUE_WAITING, RETRIES_MAX, Step, Why};
use crate::controller::observed::PodFacts;
use crate::controller::plan::drain::target;
use crate::controller::plan::{self, PodTarget};
use crate::controller::restore;
use crate::labels::PINS_FINALIZER;

/// How long a deleted object waits for pods to release what it keeps. Longer than an upgrade's pods are away.
const RELEASE_LIMIT: SignedDuration = SignedDuration::from_secs(300);

impl<'a> Step<'a> {
    fn tasks(&self) -> impl Iterator<Item = (u32, &'a str)> + use<'a> {
        let rows = self.facts.status.tasks.iter();
        rows.map(|row| (row.task.unsigned_abs(), row.id.as_str()))
    }

    /// The last answer about a task, of whichever pod.
    fn answers(&self, id: &str) -> Vec<&'a TaskOperation> {
        let operations = self.facts.pins.values().filter(|answer| answer.id == id);
        operations.flat_map(|answer| &answer.tasks).collect()
    }

    /// Pins what the log names.
    pub(super) fn pin(&mut self) -> Why {
        let id = self.operation();
        let answers = self.answers(&id);
        let failure = answers.iter().find_map(|row| row.problem.as_ref()).cloned();
        let waits: Vec<(u32, String)> = self
            .tasks()
            .filter(|(task, _)| !is_complete(&answers, *task))
            .map(|(task, id)| (task, id.to_owned()))
            .collect();
        self.requeue = REQUEUE_ACTIVE;
        if waits.is_empty() {
            return self.complete();
        }
        let since = self.since();
        if failure
            .as_ref()
            .is_some_and(|problem| problem.reason == CHECKPOINT_MISSING)
        {
            return self.begin_anew();
        }
        let words = failure
            .map(|problem| format!(": {}", problem.message))
            .unwrap_or_default();
        if self.facts.now.duration_since(since) >= LIMIT + PIN_LIMIT {
            let message = format!(
                "the checkpoints of tasks {:?} could not be marked as kept{words}; look at the checkpoint store, {AGAIN}",
                waits.iter().map(|(task, _)| task).collect::<Vec<_>>()
            );
            return self.fail("PinFailed", message);
        }
        let asks = self.by_pod(waits.iter().map(|(task, _)| *task));
        for (pod, tasks) in asks {
            let wanted = waits.iter().filter(|(task, _)| tasks.contains(task)).cloned();
            self.actions.push(Action::Pin {
                pod,
                id: id.clone(),
                holder: self.facts.uid.clone(),
                checkpoints: wanted.collect(),
            });
        }
        let tasks: Vec<_> = waits.iter().map(|(task, _)| task).collect();
        Why::Waiting {
            reason: "Pinning",
            message: format!("the checkpoints of tasks {tasks:?} are marked as kept{words}"),
        }
    }

    fn complete(&mut self) -> Why {
        self.status.phase = Some(CheckpointPhase::Complete);
        self.status.completed_at = Some(Time(self.facts.now));
        let size = self.status.size.clone().unwrap_or_default();
        let message = format!(
            "{} tasks, {size}; kept until this object is deleted",
            self.status.tasks.len()
        );
        self.note(false, "CheckpointComplete", message.clone());
        Why::Complete(message)
    }

    /// Retention was faster: another checkpoint, under another id.
    fn begin_anew(&mut self) -> Why {
        if self.status.retries >= RETRIES_MAX {
            let message = format!(
                "retention took a task's checkpoint before it could be kept, {} times in a row; raise \
                 spec.state.checkpoints.retain.count of the aggregation, {AGAIN}",
                RETRIES_MAX + 1
            );
            return self.fail("PinFailed", message);
        }
        self.status.retries += 1;
        self.status.phase = Some(CheckpointPhase::InProgress);
        self.status.started_at = Some(Time(self.facts.now));
        Why::Waiting {
            reason: "Checkpointing",
            message: "retention took a task's checkpoint before it could be kept; another is taken".to_owned(),
        }
    }

    /// Each task with the pod to ask: its owner, else any that answers. Nobody answers: nobody is asked.
    fn by_pod(&self, tasks: impl Iterator<Item = u32>) -> Vec<(PodTarget, Vec<u32>)> {
        let Some(aggregation) = &self.facts.aggregation else {
            return Vec::new();
        };
        let mut asks: Vec<(PodTarget, Vec<u32>)> = Vec::new();
        for task in tasks {
            let Some(pod) = self.pod_for(task, aggregation).and_then(target) else {
                continue;
            };
            match asks.iter_mut().find(|(asked, _)| asked.uid == pod.uid) {
                Some((_, tasks)) => tasks.push(task),
                None => asks.push((pod, vec![task])),
            }
        }
        asks
    }

    fn pod_for(&self, task: u32, aggregation: &'a Aggregation) -> Option<&'a PodFacts> {
        let owner = plan::tasks(&aggregation.observed).get(&task);
        let job = self.facts.status.job_id.as_ref();
        // Another aggregation of this name may have another place in the store.
        let answers = |pod: &&PodFacts| {
            let admin = pod.admin.as_ref().filter(|_| !pod.deleting);
            admin.is_some_and(|admin| job.is_none_or(|job| admin.job_id == *job))
        };
        let pods = || aggregation.observed.pods.iter().filter(answers);
        pods().find(|pod| Some(&pod.ordinal) == owner).or_else(|| pods().next())
    }

    /// The end: what is pinned is released, then the finalizer goes. It goes in any case, at the latest at the limit.
    pub(super) fn release(&mut self) -> Why {
        let deleting = |message: &str| Why::Deleting(message.to_owned());
        if !self.facts.is_held() {
            return deleting("being deleted");
        }
        if let Some(why) = self.in_use() {
            self.requeue = REQUEUE_WAITING;
            return Why::Deleting(why);
        }
        let since = self.status.release_started_at.get_or_insert(Time(self.facts.now)).0;
        let id = format!("release-{}", self.facts.uid);
        let answers = self.answers(&id);
        let waits: Vec<u32> = self
            .tasks()
            .map(|(task, _)| task)
            .filter(|task| !is_complete(&answers, *task))
            .collect();
        if waits.is_empty() {
            return self.let_go();
        }
        let failure = answers.iter().find_map(|row| row.problem.as_ref()).cloned();
        let asks = self.by_pod(waits.iter().copied());
        let words = match (&failure, asks.is_empty()) {
            (Some(problem), _) => problem.message.clone(),
            (None, true) => "no pod of the aggregation answers".to_owned(),
            (None, false) => "the pods are asked".to_owned(),
        };
        let until = since.saturating_add(RELEASE_LIMIT).unwrap_or(Timestamp::MAX);
        if self.facts.now >= until || asks.is_empty() && self.is_hopeless() {
            self.note(true, "PinsNotReleased", self.left_behind(&waits, &words));
            return self.let_go();
        }
        for (pod, tasks) in asks {
            self.actions.push(Action::Release {
                pod,
                id: id.clone(),
                holder: self.facts.uid.clone(),
                tasks,
            });
        }
        self.requeue = REQUEUE_ACTIVE;
        Why::Deleting(format!(
            "being deleted: what it keeps of tasks {waits:?} is released ({words}), until {until} at most"
        ))
    }

    /// An aggregation that goes back to it needs it until all its tasks have.
    fn in_use(&self) -> Option<String> {
        let facts = self.facts;
        let aggregation = facts.aggregation.as_ref().filter(|found| !found.observed.deleting())?;
        let nonce = restore::needs(&facts.name, &aggregation.observed)?;
        Some(format!(
            "being deleted: StreamAggregation {} goes back to it (restoreFrom nonce {nonce}); it is released when all tasks have",
            facts.of
        ))
    }

    /// No pod will come that could release anything.
    fn is_hopeless(&self) -> bool {
        let aggregation = self.facts.aggregation.as_ref();
        aggregation.is_none_or(|aggregation| aggregation.observed.deleting() || !aggregation.has_store)
    }

    fn left_behind(&self, tasks: &[u32], words: &str) -> String {
        let job = self.facts.status.job_id.clone().unwrap_or_default();
        format!(
            "deleted, but the checkpoints of tasks {tasks:?} stay in the store ({words}); to let retention have them, delete \
             the objects {job}/tasks/TASK/pins/*/{}",
            self.facts.uid
        )
    }

    fn let_go(&mut self) -> Why {
        let others = self
            .facts
            .finalizers
            .iter()
            .filter(|finalizer| *finalizer != PINS_FINALIZER);
        self.actions.push(Action::SetFinalizers(others.cloned().collect()));
        Why::Deleting("being deleted".to_owned())
    }
}

fn is_complete(answers: &[&TaskOperation], task: u32) -> bool {
    let complete = |row: &&TaskOperation| row.task == task && row.phase == OperationPhase::Complete;
    answers.iter().any(complete)
}
