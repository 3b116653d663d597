//! What Kubernetes and the pods do by themselves, second by second. Must not know what the operator decides.

use std::collections::BTreeMap;

use k8s_openapi::jiff::SignedDuration;
use streamagg_crds::admin::TaskState;
use streamagg_crds::assignment::Assignment;

use super::{PodModel, World};
use crate::controller::observed::ClaimFacts;

impl World {
    /// Kubernetes and the pods do one second's work.
    pub fn tick(&mut self) {
        self.now += SignedDuration::from_secs(1);
        self.pods.retain(|_, pod| !pod.deleting);
        let mounted = self
            .assignment
            .as_ref()
            .map(|(_, assignment)| assignment.clone())
            .unwrap_or_default();
        for (ordinal, pod) in &mut self.pods {
            if pod.boot > 0 && self.broken_revision.as_ref() != Some(&pod.revision) {
                pod.boot -= 1;
                if pod.boot == 0 {
                    take(*ordinal, pod, &mounted);
                }
            }
        }
        self.go_back();
        for pod in self.pods.values_mut() {
            for state in pod.tasks.values_mut() {
                *state = match *state {
                    TaskState::Starting => TaskState::Running,
                    TaskState::Draining => TaskState::Drained,
                    other => other,
                };
            }
        }
        self.stateful_set_controller();
    }

    fn stateful_set_controller(&mut self) {
        let version = self.version;
        if self
            .set
            .as_ref()
            .is_some_and(|set| set.deleting && self.pods.is_empty())
        {
            self.set = None;
        }
        let Some(set) = self.set.as_mut().filter(|set| !set.deleting) else {
            return;
        };
        for claim in self.claims.values_mut() {
            claim.phase = "Bound".to_owned();
            claim.capacity_bytes = claim.requested_bytes;
        }
        set.observed = true;
        self.pods
            .iter_mut()
            .filter(|(ordinal, _)| **ordinal >= set.replicas)
            .for_each(|(_, pod)| pod.deleting = true);
        for ordinal in 0..set.replicas {
            let bytes = set.volume.as_ref().map_or(0, |volume| volume.bytes);
            self.claims.entry(ordinal).or_insert_with(|| ClaimFacts {
                name: format!("data-sample-{ordinal}"),
                uid: format!("claim-{ordinal}-{version}"),
                ordinal,
                phase: "Pending".to_owned(),
                requested_bytes: bytes,
                ..ClaimFacts::default()
            });
            let held = i64::from(ordinal) < i64::from(set.partition);
            let revision = if held { &self.current_revision } else { &set.revision };
            let job = if held { &self.current_job } else { &set.job_config_map };
            self.pods.entry(ordinal).or_insert_with(|| PodModel {
                uid: format!("pod-{ordinal}-{version}-{}", self.now.as_second()),
                revision: revision.clone(),
                job: job.clone(),
                deleting: false,
                boot: 2,
                down: false,
                generation: 0,
                tasks: BTreeMap::new(),
                drain: None,
                checkpoint: None,
            });
        }
        let updated = self
            .pods
            .values()
            .all(|pod| pod.revision == set.revision && pod.boot == 0 && !pod.down);
        if updated && self.pods.len() == set.replicas as usize {
            self.current_revision = set.revision.clone();
            self.current_job = set.job_config_map.clone();
        }
        set.settled = self.current_revision == set.revision;
    }

    /// A container is killed: its pod starts over with what is mounted.
    pub fn restart_container(&mut self, ordinal: u32) {
        if let Some(pod) = self.pods.get_mut(&ordinal) {
            pod.boot = 2;
            pod.generation = 0;
            pod.tasks.clear();
            pod.drain = None;
        }
    }
}

/// A pod takes only a higher generation; drained tasks it keeps wake up.
pub fn take(ordinal: u32, pod: &mut PodModel, assignment: &Assignment) {
    if pod.boot > 0 || pod.down || assignment.generation <= pod.generation {
        return;
    }
    pod.generation = assignment.generation;
    let mut tasks = BTreeMap::new();
    for task in assignment.tasks_of(ordinal) {
        let state = match pod.tasks.get(&task) {
            Some(TaskState::Running) => TaskState::Running,
            _ => TaskState::Starting,
        };
        tasks.insert(task, state);
    }
    pod.tasks = tasks;
}
