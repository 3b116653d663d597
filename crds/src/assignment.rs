//! Which pod runs which task: the operator decides, the pods obey. Rules in ARCHITECTURE.md (ownership).
//! Must not hold: how an assignment is computed (operator) or how a task is taken over (processor).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Version of the assignment document that this build writes.
pub const ASSIGNMENT_VERSION: u32 = 1;

/// The assignment in force: every task and the StatefulSet ordinal of the pod that runs it.
///
/// A generation is never reused; a pod takes only a higher one. A task that is absent is run by nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Assignment {
    /// Version of this document, [`ASSIGNMENT_VERSION`].
    pub version: u32,
    /// Rises with every change; 0 means that nothing was assigned yet.
    pub generation: u64,
    /// Task (source partition) → ordinal of its pod.
    pub tasks: BTreeMap<u32, u32>,
}

impl Assignment {
    /// Tasks that `ordinal` runs, in order.
    pub fn tasks_of(&self, ordinal: u32) -> impl Iterator<Item = u32> + '_ {
        self.tasks
            .iter()
            .filter(move |(_, owner)| **owner == ordinal)
            .map(|(task, _)| *task)
    }
}
