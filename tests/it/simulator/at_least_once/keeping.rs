//! What a pod keeps that delivers at least once, checkpoints in the store, and a user who orders to go back to them.
//! Must not decide what the protocol decides.

use std::sync::Arc;

use streamagg_processor::pipeline::operator::Task;
use streamagg_processor::state::backend::{Backend, Changes};
use streamagg_processor::state::checkpoint::{self, Kept, RetentionRule};

use super::{Checkpoint, Held, Pod, Process, World};
use crate::paging::Store;
use crate::simulator::manifest;
use crate::simulator::world::loaded;

impl World {
    /// The task that a volume holds, else an empty one, and where its rows are.
    pub(super) fn load(&mut self, pod: u32) -> (Task, Store) {
        let budget = self.pages.then(|| self.below(4));
        let held = self.pods[pod as usize].volume.as_ref();
        let (task, store) = loaded(Arc::clone(&self.plan), held.map(|held| &held.store), budget);
        if task.rows_left_in_store() > 0 {
            self.note("starts with rows on the volume", pod);
        }
        (task, store)
    }

    /// What a process has done comes to its volume; `store` is where its rows are.
    pub(super) fn save(&mut self, pod: u32, process: &mut Process) {
        let volume = self.pods[pod as usize].volume.take().expect("a process has one");
        self.save_to(pod, process, volume.store);
    }

    pub(super) fn save_to(&mut self, pod: u32, process: &mut Process, mut store: Store) {
        let task = &mut process.task;
        assert!(task.take_failure().is_none(), "what has left memory is on the volume");
        let mut changes = Changes::default();
        task.take_changes(&mut changes);
        store.apply(&changes).expect("memory takes everything");
        self.pods[pod as usize].volume = Some(Held {
            position: process.committed.clone(),
            store,
            past: process.past.clone(),
        });
        if self.pages {
            // What a budget decides elsewhere.
            let quarters = usize::try_from(self.below(5)).expect("small");
            task.evict_to(task.state_bytes() / 4 * quarters);
            if task.rows_left_in_store() > 0 {
                self.note("rows left memory", pod);
            }
        }
    }

    /// A process dies, and what it leaves may be gone, or older than it was.
    pub(super) fn lose_volume(&mut self, pod: u32) {
        let what = self.below(6);
        let held = &mut self.pods[pod as usize];
        held.process = None;
        let what = match what {
            0 => {
                held.volume = None;
                "volume lost"
            }
            1 if held.copy.is_some() => {
                held.volume = held.copy.as_ref().map(Held::snapshot);
                "older volume"
            }
            2 => {
                held.copy = held.volume.as_ref().map(Held::snapshot);
                "volume copied"
            }
            _ => "crash",
        };
        self.note(what, pod);
    }

    /// Brokers lose what they have acknowledged: the last positions, or all where there are no more.
    pub(super) fn lose_committed(&mut self, pod: u32) {
        let lost = usize::try_from(1 + self.below(3)).expect("few");
        let left = self.earlier.len().checked_sub(lost);
        self.earlier.truncate(left.map_or(0, |left| left + 1));
        self.committed = self.earlier.pop().filter(|_| left.is_some());
        self.is_forgotten = true;
        if self.committed.is_none() {
            self.birth = None;
            self.note("emptied", pod);
        }
        self.note("committed position lost", pod);
    }

    /// The newest checkpoint is damaged, unless it is the one that was ordered: that is found out before anything is done.
    pub(super) fn damage(&mut self, pod: u32) {
        let ordered = self.order.as_ref().map(|(_, id)| id);
        let last = self.store.last_mut();
        if let Some(last) = last.filter(|last| ordered != Some(&last.manifest.id)) {
            last.damaged = true;
            self.note("damaged", pod);
        }
    }

    pub(super) fn checkpoint(&mut self, pod: u32) {
        let Pod { volume, process, .. } = &self.pods[pod as usize];
        let (Some(held), Some(process)) = (volume.as_ref().map(Held::snapshot), process) else {
            return;
        };
        let committed = process.committed.clone();
        // Whoever goes on from there does not repeat what came before it, a part of which a later process may have repeated.
        self.overlapped |= process.started < self.started;
        let manifest = manifest(held.position.clone(), self.below(1 << 32), self.trace.len());
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
    }

    /// The user orders to go back to any checkpoint.
    pub(super) fn order(&mut self, pod: u32) {
        let whole: Vec<&Checkpoint> = self.store.iter().filter(|checkpoint| !checkpoint.damaged).collect();
        if whole.is_empty() {
            return;
        }
        let random = usize::try_from(self.random >> 1).expect("64 bits");
        // Often the one that has come furthest: behind a rewind that is of the history that it left.
        let furthest = whole
            .iter()
            .max_by_key(|checkpoint| checkpoint.manifest.position.place());
        let chosen = match self.random.is_multiple_of(2) {
            true => furthest.expect("not empty"),
            false => &whole[random % whole.len()],
        };
        let id = chosen.manifest.id.clone();
        let nonce = self.order.as_ref().map_or(0, |(nonce, _)| *nonce) + 1 + self.below(3);
        self.order = Some((nonce, id));
        self.note("ordered", pod);
    }
}
