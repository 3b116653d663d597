//! Plays the control topic: which restore each task's committed position has seen. Must not know what the operator decides.

use std::collections::{BTreeMap, BTreeSet};

use streamagg_crds::admin::{CHECKPOINT_MISSING, Problem, TaskState};
use streamagg_crds::job_file::JobFile;

/// The committed positions of all jobs.
#[derive(Debug, Default)]
pub struct Positions {
    /// Nonce by job and task.
    nonces: BTreeMap<(String, u32), u64>,
    /// Tasks that went back, in order, with the checkpoint and whether it was kept then.
    pub went_back: Vec<(u32, String, bool)>,
    /// Checkpoints that are not in the store, whatever is pinned.
    pub lost: BTreeSet<String>,
}

impl Positions {
    /// Nonce of the last restore that `task` has carried out.
    pub fn nonce(&self, job: &str, task: u32) -> u64 {
        self.nonces.get(&(job.to_owned(), task)).copied().unwrap_or(0)
    }

    /// A task starts: an order that its position has not seen is carried out first. Answers what it comes to.
    pub fn start(&mut self, file: &JobFile, task: u32, is_kept: impl Fn(u32, &str) -> bool) -> TaskState {
        let Some(order) = &file.restore else {
            return TaskState::Running;
        };
        let seen = self.nonces.entry((file.job_id.clone(), task)).or_default();
        match order.tasks.get(&task) {
            Some(id) if order.nonce > *seen => {
                if self.lost.contains(id) {
                    return TaskState::Stopped;
                }
                *seen = order.nonce;
                self.went_back.push((task, id.clone(), is_kept(task, id)));
                TaskState::Running
            }
            Some(_) | None => TaskState::Running,
        }
    }
}

/// Why a task does not go back.
pub fn missing() -> Problem {
    Problem {
        reason: CHECKPOINT_MISSING.to_owned(),
        message: "the checkpoint is not in the store".to_owned(),
    }
}
