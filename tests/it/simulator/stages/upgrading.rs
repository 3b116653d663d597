//! A spec that changes while the tasks of both stages run: an aggregate is added, and pods come to have it one after the other.
//! Must not decide what the protocol decides.

use std::ops::Range;
use std::sync::Arc;

use streamagg_processor::pipeline::builder::Plan;
use streamagg_processor::pipeline::operator::merge::WindowTask;
use streamagg_processor::state::backend::{Backend, Changes};
use streamagg_processor::state::recovery::Position;
use streamagg_tests::oracle::{Expected, Spec};

use super::World;
use crate::engine::plan;
use crate::migration::widened;
use crate::paging::Store;

/// What stands before the first aggregate that is added, among the values of a result.
const ADDED: &str = r#","y0":"#;

/// The spec, and in some worlds the one that follows it.
pub(super) fn plans(spec: &Spec, changes: bool) -> Vec<Arc<Plan>> {
    let later = changes.then(|| plan(&widened(spec)));
    std::iter::once(plan(spec)).chain(later).collect()
}

/// An output as it is under the first spec.
pub(super) fn of_first_spec(output: &Expected) -> Expected {
    let mut output = output.clone();
    if let Expected::Result { value, .. } = &mut output
        && let Some(at) = value.rfind(ADDED)
    {
        value.replace_range(at.., "}}");
    }
    output
}

/// Whether a result has the aggregates that were added.
pub(super) fn has_added(output: &Expected) -> bool {
    matches!(output, Expected::Result { value, .. } if value.contains(ADDED))
}

impl World {
    pub(super) fn plan_of(&self, pod: u32) -> Arc<Plan> {
        Arc::clone(&self.plans[self.pods[pod as usize].spec])
    }

    fn newest_spec(&self) -> usize {
        self.plans.len() - 1
    }

    pub(super) fn is_behind_spec(&self, pod: u32) -> bool {
        self.pods[pod as usize].spec < self.newest_spec()
    }

    /// Whether a pod is replaced now: one of them comes late, so that both specs are at work.
    pub(super) fn is_due_for_spec(&mut self, pod: u32) -> bool {
        let is_first = self.pods.iter().all(|pod| pod.spec == 0);
        self.is_behind_spec(pod) && self.below(if is_first { 40 } else { 150 }) == 0
    }

    /// A pod is replaced by one that has the newest spec.
    pub(super) fn upgrade(&mut self, pod: u32) {
        if self.is_behind_spec(pod) {
            for task in 0..self.ledgers.len() as u32 {
                self.drop_process(pod, task);
            }
            self.pods[pod as usize].spec = self.newest_spec();
            self.note("upgraded", pod, 0);
        }
    }

    /// Nobody starts under an earlier spec what has gone on under the newest one: such a pod is replaced first.
    pub(super) fn upgrade_for(&mut self, pod: u32, task: u32) {
        let revision = self.owner(pod, task).revision;
        let ledger = &self.ledgers[task as usize];
        let known = ledger.shown.committed.iter();
        let known = known.chain(ledger.acknowledged.iter().flat_map(|all| &all.committed));
        let stored = self.store[task as usize]
            .iter()
            .map(|checkpoint| &checkpoint.manifest.position);
        let is_newer = |position: &Position| position.revision > revision;
        if known.chain(stored).any(is_newer) {
            self.upgrade(pod);
        }
    }

    /// A window task whose pod does not have a spec yet that the first stage has. It waits for that.
    pub(super) fn waits_for_spec(&mut self, pod: u32, task: u32) {
        assert!(
            self.is_behind_spec(pod),
            "it can read what is written: {:#?}",
            self.trace
        );
        self.drop_process(pod, task);
        self.note("waits for the newer spec", pod, task);
    }

    /// A window task whose source partition begins in the layout of a newer spec takes that for an earlier one: it loses what
    /// was added, and nothing else. The next spec that it has then knows nothing of it.
    pub(super) fn look_for_newer(&mut self, pod: u32, task: u32, taken: Range<usize>) {
        let partition = self.partition(task);
        if self.is_behind_spec(pod) && self.newer[partition].range(taken).next().is_some() {
            self.unaware.insert(task);
            self.note("takes a newer spec for an earlier one", pod, task);
        }
    }

    /// An empty window task that has had all specs.
    pub(super) fn of_all_specs(&self) -> WindowTask {
        let (first, later) = self.plans.split_first().expect("there is one");
        let first = WindowTask::new(Arc::clone(first), 0);
        later.iter().fold(first, |mut before, plan| {
            let (mut store, mut changes) = (Store::default(), Changes::default());
            before.take_changes(&mut changes);
            store.apply(&changes).expect("memory takes everything");
            let restored = WindowTask::restore(Arc::clone(plan), &store);
            restored.expect("it follows").expect("a task is there")
        })
    }
}
