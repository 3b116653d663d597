//! What a pod of the simulator keeps: its volume, what of it is in memory, and checkpoints in the store.
//! Must not decide what the protocol decides.

use std::sync::Arc;

use streamagg_processor::pipeline::builder::Plan;
use streamagg_processor::pipeline::operator::Task;
use streamagg_processor::state::backend::{Backend, Changes};
use streamagg_processor::state::checkpoint::{self, Kept, RetentionRule};
use streamagg_processor::state::recovery::Position;

use super::{Checkpoint, Held, World};
use crate::paging::Store;
use crate::simulator::manifest;

/// Memory that a task which starts may take at most, in steps of so many bytes.
const STEP_BYTES: u64 = 1_000;

/// The task that entries hold, else an empty one, and where its rows are. With a budget rows may leave memory.
pub fn loaded(plan: Arc<Plan>, held: Option<&Store>, budget: Option<u64>) -> (Task, Store) {
    let Some(store) = held else {
        let (mut task, store) = (Task::new(plan, 0), Store::default());
        if budget.is_some() {
            task.page(store.reader());
        }
        return (task, store);
    };
    let store = store.clone();
    let task = match budget {
        Some(steps) => {
            let bytes = usize::try_from(steps * STEP_BYTES).expect("a few thousand");
            Task::restore_paged(plan, &store.reader(), bytes)
        }
        None => Task::restore(plan, &store),
    };
    (task.expect("readable").expect("a task is there"), store)
}

impl World {
    /// The task that a volume holds, else an empty one, and where its rows are.
    pub(super) fn load(&mut self, pod: u32) -> (Task, Store) {
        let budget = self.pages.then(|| self.below(4));
        let volume = self.pods[pod as usize].volume.as_ref();
        let (task, store) = loaded(Arc::clone(&self.plan), volume.map(|(_, store)| store), budget);
        if task.rows_left_in_store() > 0 {
            self.note("starts with rows on the volume", pod);
        }
        (task, store)
    }

    /// L is written after K, and is a prefix of it (I2).
    pub(super) fn save(&mut self, pod: u32, task: &mut Task, mut store: Store, position: &Position) {
        assert!(task.take_failure().is_none(), "what has left memory is on the volume");
        let mut changes = Changes::default();
        task.take_changes(&mut changes);
        store.apply(&changes).expect("memory takes everything");
        let committed = self.committed.as_ref().map(Position::place);
        assert!(committed >= Some(position.place()), "local state is ahead");
        self.pods[pod as usize].volume = Some((position.clone(), store));
        if self.pages {
            // What a budget decides elsewhere.
            let quarters = usize::try_from(self.below(5)).expect("small");
            task.evict_to(task.state_bytes() / 4 * quarters);
            if task.rows_left_in_store() > 0 {
                self.note("rows left memory", pod);
            }
        }
    }

    /// The volume of a pod as it is now.
    fn held(&self, pod: u32) -> Option<Held> {
        let volume = self.pods[pod as usize].volume.as_ref();
        volume.map(|(position, store)| (position.clone(), store.snapshot()))
    }

    /// The newest checkpoint is damaged, if another one is left from which the decisions reach the committed position.
    pub(super) fn damage(&mut self, pod: u32) {
        let floor = self.committed.as_ref().map_or(0, |position| position.decision_floor);
        let Some((last, others)) = self.store.split_last_mut() else {
            return;
        };
        let mut others = others.iter().filter(|other| !other.damaged);
        if others.any(|other| other.manifest.position.control_seq >= floor) {
            last.damaged = true;
            self.note("damaged", pod);
        }
    }

    pub(super) fn checkpoint(&mut self, pod: u32) {
        let (Some(held), Some(committed)) = (self.held(pod), self.committed.clone()) else {
            return;
        };
        let manifest = manifest(held.0.clone(), self.below(1 << 32), self.trace.len());
        self.store.push(Checkpoint {
            manifest,
            held,
            damaged: false,
        });
        let ordered = self.order.as_ref().map(|(_, id)| id);
        let kept = |checkpoint| {
            let Checkpoint { manifest, damaged, .. }: &Checkpoint = checkpoint;
            Kept {
                manifest,
                pinned: ordered == Some(&manifest.id),
                verified: !*damaged,
            }
        };
        let kept: Vec<Kept<'_>> = self.store.iter().map(kept).collect();
        let rule = RetentionRule { count: 2, age_ms: None };
        let expired = checkpoint::expired(&kept, &committed, rule, 0);
        self.store
            .retain(|checkpoint| !expired.contains(&checkpoint.manifest.id));
        if !expired.is_empty() {
            self.note("expired", pod);
        }
        if let Some(process) = &mut self.pods[pod as usize].process {
            let positions = self.store.iter().map(|checkpoint| &checkpoint.manifest.position);
            process.floor = checkpoint::decision_floor(positions);
        }
    }
}
