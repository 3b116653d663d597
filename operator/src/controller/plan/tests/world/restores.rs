//! What the spec comes to with the StreamCheckpoints of the model, and tasks that go back to them. Must not know what the operator decides.

use serde_json::json;
use streamagg_crds::admin::TaskState;
use streamagg_crds::job_file::Restore;
use streamagg_crds::v1alpha1::{StreamAggregation, StreamCheckpoint};

use super::World;
use crate::controller::observed::Observed;
use crate::controller::plan::Wish;
use crate::controller::{fixtures, restore};

impl World {
    /// The spec, validated and built; kept per generation and order, since that is most of a round's cost. (The image is
    /// given in every spec here, so nothing else of the live set flows in.)
    pub fn wish(&self) -> Wish {
        let order = match self.resolve() {
            Ok(order) => order,
            Err(obstacle) => return obstacle.into(),
        };
        let mut built = self.built.borrow_mut();
        match built.as_ref() {
            Some((generation, of, wish)) if *generation == self.generation && *of == order => wish.clone(),
            Some(_) | None => {
                let desired = fixtures::desired_with(&self.spec, None, order.clone());
                let wish = Wish::Valid(Box::new(desired));
                built.insert((self.generation, order, wish)).2.clone()
            }
        }
    }

    /// A StreamCheckpoint of all tasks that pods were given, in `phase`; one that was there is there no more.
    pub fn keep(&mut self, name: &str, phase: &str) {
        let version = self.next_version();
        let tasks: Vec<u32> = match &self.assignment {
            Some((_, assignment)) => assignment.tasks.keys().copied().collect(),
            None => (0..self.task_count).collect(),
        };
        let row = |task| json!({"task": task, "id": format!("{name}.{version}.{task}"), "epoch": 1, "inputOffset": 1, "bytes": 1});
        let object = json!({
            "apiVersion": "streamagg.io/v1alpha1", "kind": "StreamCheckpoint", "metadata": {"name": name},
            "spec": {"aggregation": "sample"},
            "status": {
                "phase": phase, "message": "as it is", "aggregationUid": "uid-1", "jobId": "default.sample",
                "tasks": tasks.into_iter().map(row).collect::<Vec<_>>(),
            },
        });
        self.kept
            .insert(name.to_owned(), serde_json::from_value(object).unwrap());
    }

    /// A user deletes it; it goes when nobody needs it.
    pub fn delete_checkpoint(&mut self, name: &str) {
        let now = self.now;
        if let Some(object) = self.kept.get_mut(name) {
            object.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
        }
    }

    /// The object; kept per generation, since to read it takes longer than a round.
    pub(super) fn aggregation(&self) -> StreamAggregation {
        let mut kept = self.aggregation.borrow_mut();
        match kept.as_ref() {
            Some((generation, aggregation)) if *generation == self.generation => aggregation.clone(),
            Some(_) | None => {
                let fresh = fixtures::aggregation(&self.spec);
                kept.insert((self.generation, fresh)).1.clone()
            }
        }
    }

    pub(super) fn source(&self, observed: &Observed) -> Option<Box<StreamCheckpoint>> {
        let wanted = self.spec.get("restoreFrom").filter(|wanted| !wanted.is_null())?;
        let wanted = serde_json::from_value(wanted.clone()).unwrap();
        let asked = restore::asked(Some(&wanted), observed)?;
        self.kept.get(&asked.checkpoint).cloned().map(Box::new)
    }

    pub fn resolve(&self) -> Result<Option<Restore>, restore::Obstacle> {
        restore::resolve(&self.aggregation(), &self.observe())
    }

    /// Each task carries out an order once, as it starts; what is deleted and not needed is released.
    pub(super) fn go_back(&mut self) {
        let observed = self.observe();
        self.kept.retain(|name, object| {
            object.metadata.deletion_timestamp.is_none() || restore::needs(name, &observed).is_some()
        });
        for pod in self.pods.values_mut().filter(|pod| pod.boot == 0 && !pod.down) {
            let Some(order) = pod.job.as_ref().and_then(|job| observed.orders.get(job)) else {
                continue;
            };
            let starts = pod.tasks.iter_mut().filter(|(_, state)| **state == TaskState::Starting);
            for (task, state) in starts {
                let nonce = self.positions.entry(*task).or_default();
                let Some(id) = order.tasks.get(task).filter(|_| order.nonce > *nonce) else {
                    continue;
                };
                if self.lost.contains(&(order.checkpoint.clone(), *task)) {
                    *state = TaskState::Stopped;
                    continue;
                }
                let objects = self.kept.values().filter_map(|object| object.status.as_ref());
                let mut rows = objects.flat_map(|status| &status.tasks);
                assert!(rows.any(|row| row.id == *id), "{id} is no longer kept");
                *nonce = order.nonce;
            }
        }
    }
}
