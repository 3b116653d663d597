//! What pods do when the operator asks them. Must not know why it asks.

use streamagg_crds::admin::{OperationPhase, OperationStatus, TaskOperation, TaskState};
use streamagg_crds::assignment::Assignment;

use super::World;
use super::nature::take;

impl World {
    pub(super) fn push(&mut self, uid: &str, assignment: &Assignment) {
        let written = self.written.get(&assignment.generation);
        assert_eq!(written, Some(&assignment.tasks), "pushed what no ConfigMap held");
        if let Some((ordinal, pod)) = self.pods.iter_mut().find(|(_, pod)| pod.uid == uid) {
            take(*ordinal, pod, assignment);
        }
    }

    pub(super) fn drain(&mut self, uid: &str, id: &str, tasks: &[u32]) {
        let broken = self.store_broken;
        let Some(pod) = self.pods.values_mut().find(|pod| pod.uid == uid && !pod.down) else {
            return;
        };
        let mut rows = Vec::new();
        for task in tasks {
            let phase = match pod.tasks.get_mut(task) {
                Some(_) if broken => OperationPhase::Failed,
                Some(state @ TaskState::Running) => {
                    *state = TaskState::Draining;
                    OperationPhase::InProgress
                }
                Some(TaskState::Draining) => OperationPhase::InProgress,
                Some(_) | None => OperationPhase::Complete,
            };
            rows.push(TaskOperation {
                task: *task,
                phase,
                ..TaskOperation::default()
            });
        }
        pod.drain = Some(OperationStatus {
            id: id.to_owned(),
            tasks: rows,
        });
    }

    /// A checkpoint takes one poll to be complete and stops no task.
    pub(super) fn checkpoint(&mut self, uid: &str, id: &str) {
        let broken = self.store_broken;
        let Some(pod) = self.pods.values_mut().find(|pod| pod.uid == uid && !pod.down) else {
            return;
        };
        let again = pod.checkpoint.as_ref().is_some_and(|operation| operation.id == id);
        let phase = match (broken, again) {
            (true, _) => OperationPhase::Failed,
            (false, true) => OperationPhase::Complete,
            (false, false) => OperationPhase::InProgress,
        };
        let row = |task: &u32| TaskOperation {
            task: *task,
            phase,
            ..TaskOperation::default()
        };
        pod.checkpoint = Some(OperationStatus {
            id: id.to_owned(),
            tasks: pod.tasks.keys().map(row).collect(),
        });
    }
}
