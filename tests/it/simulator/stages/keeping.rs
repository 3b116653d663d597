//! Checkpoints of two stages: those of window tasks, and those of the job, which take the window tasks first.
//! Must not decide what the protocol decides.

use streamagg_processor::pipeline::stage::Stage;
use streamagg_processor::state::checkpoint::{self, Kept, Manifest, RetentionRule};
use streamagg_processor::state::recovery::Position;

use super::{FirstStage, PODS, World};
use crate::paging::Store;
use crate::simulator::manifest;

/// Checkpoints of the job that nobody has deleted yet.
const JOBS_KEPT: usize = 2;

pub(super) struct Checkpoint {
    pub manifest: Manifest,
    pub damaged: bool,
    /// Of a window task.
    pub rows: Option<Store>,
    /// Of a combine task: what it had written, and how many of its events had been refused.
    pub written: Option<(FirstStage, usize)>,
}

impl World {
    /// The operator asks the tasks in turn for a checkpoint of the job, those that run; the rest is asked later.
    pub(super) fn checkpoint_job(&mut self) {
        let nonce = self.order.as_ref().map_or(0, |(nonce, _)| *nonce);
        let committed = self.ledgers.iter().map(|ledger| ledger.shown.committed.as_ref());
        // Not while tasks go back one by one.
        if !committed.flatten().all(|position| position.restore_nonce == nonce) {
            return;
        }
        let (sources, count) = (self.scene.logs.len() as u32, self.ledgers.len() as u32);
        for task in (sources..count).chain(0..sources) {
            if self.making.contains_key(&task) {
                continue;
            }
            let pod = self.assignment.tasks[&task];
            let Some(id) = self.keep(pod, task, nonce) else {
                return;
            };
            self.making.insert(task, id);
        }
        self.jobs.push(std::mem::take(&mut self.making));
        if self.jobs.len() > JOBS_KEPT {
            self.jobs.remove(0);
        }
        self.note("checkpoint of the job", 0, 0);
    }

    /// A window task makes a checkpoint by itself.
    pub(super) fn checkpoint(&mut self, pod: u32, task: u32) {
        if self.role(task).stage == Stage::Window {
            let nonce = self.order.as_ref().map_or(0, |(nonce, _)| *nonce);
            self.keep(pod, task, nonce);
        }
    }

    /// A running task comes to the store as it was committed last, if that is behind this order.
    fn keep(&mut self, pod: u32, task: u32, nonce: u64) -> Option<String> {
        let position = self.running_at(pod, task)?.clone();
        let is_current = self.is_plain(task) || self.ledgers[task as usize].shown.committed.as_ref() == Some(&position);
        if !is_current || position.restore_nonce != nonce {
            return None;
        }
        if self.pods[pod as usize]
            .windows
            .get(&task)
            .is_some_and(|process| process.token < self.ledgers[task as usize].token)
        {
            // Whoever goes on from there does not repeat what came before it, a part of which a later process may have repeated.
            self.overlapped.insert(task);
        }
        let rows = self.pods[pod as usize].volumes.get(&task);
        let rows = rows.map(|(_, store)| store.snapshot());
        let first = self.first.get(task as usize).cloned();
        let written = first.map(|first| (first, self.refused[task as usize].len()));
        let manifest = manifest(position, self.below(1 << 32), self.trace.len());
        let id = manifest.id.clone();
        self.store[task as usize].push(Checkpoint {
            manifest,
            damaged: false,
            rows,
            written,
        });
        self.expire(pod, task, &id);
        Some(id)
    }

    pub(super) fn running_at(&self, pod: u32, task: u32) -> Option<&Position> {
        let held = &self.pods[pod as usize];
        let combining = held.combining.get(&task).map(|process| &process.committed);
        combining.or(held.windows.get(&task).map(|process| &process.committed))
    }

    /// A process dies, and what it leaves may be gone, or older than it was.
    pub(super) fn lose_volume(&mut self, pod: u32, task: u32) {
        self.drop_process(pod, task);
        let what = self.below(6);
        let held = &mut self.pods[pod as usize];
        let what = match (what, held.volumes.remove(&task), held.copies.get(&task)) {
            (0 | 1, Some(_), None) | (0, Some(_), Some(_)) => "volume lost",
            (1, _, Some((position, store))) => {
                let older = (position.clone(), store.snapshot());
                held.volumes.insert(task, older);
                "older volume"
            }
            (2, Some((position, store)), _) => {
                held.copies.insert(task, (position.clone(), store.snapshot()));
                held.volumes.insert(task, (position, store));
                "volume copied"
            }
            (_, left, _) => {
                held.volumes.extend(left.map(|left| (task, left)));
                "crash"
            }
        };
        self.note(what, pod, task);
    }

    /// The checkpoints of a window task are damaged, but not one that it is yet to go back to: that is found out before
    /// anything is done.
    pub(super) fn damage(&mut self, pod: u32, task: u32) {
        let has_followed = self.has_followed(task);
        let ordered = self.order.as_ref().and_then(|(_, ids)| ids.get(&task));
        let ordered = ordered.filter(|_| !has_followed);
        let mut damaged = false;
        for checkpoint in &mut self.store[task as usize] {
            if checkpoint.rows.is_some() && ordered != Some(&checkpoint.manifest.id) {
                (checkpoint.damaged, damaged) = (true, true);
            }
        }
        if damaged {
            self.note("damaged", pod, task);
        }
        if damaged && has_followed && self.below(2) == 0 {
            // And what the pod has of it with them.
            self.drop_process(pod, task);
            self.pods[pod as usize].volumes.remove(&task);
        }
    }

    /// Whether a task has gone back as it was ordered, and nobody is left who would write that it has not.
    fn has_followed(&self, task: u32) -> bool {
        let running = (0..PODS as u32).filter_map(|pod| self.running_at(pod, task));
        let known = running.chain(&self.ledgers[task as usize].shown.committed);
        known
            .map(|position| !self.awaits_order(position))
            .reduce(|all, one| all && one)
            == Some(true)
    }

    /// What the rule does not keep, nor anybody pins, goes.
    fn expire(&mut self, pod: u32, task: u32, newest: &str) {
        let jobs = self.jobs.iter().chain(self.order.as_ref().map(|(_, ids)| ids));
        let pins: Vec<&String> = jobs.chain([&self.making]).filter_map(|ids| ids.get(&task)).collect();
        let kept = |checkpoint| {
            let Checkpoint { manifest, damaged, .. }: &Checkpoint = checkpoint;
            Kept {
                manifest,
                pinned: pins.contains(&&manifest.id) || manifest.id == newest,
                verified: !*damaged,
            }
        };
        let kept: Vec<Kept<'_>> = self.store[task as usize].iter().map(kept).collect();
        let committed = self.running_at(pod, task).expect("it runs");
        let rule = RetentionRule { count: 1, age_ms: None };
        let expired = checkpoint::expired(&kept, committed, rule, 0);
        self.store[task as usize].retain(|checkpoint| !expired.contains(&checkpoint.manifest.id));
        if !expired.is_empty() {
            self.note("expired", pod, task);
        }
    }

    pub(super) fn stored(&self, task: u32, id: &str) -> &Checkpoint {
        let mut all = self.store[task as usize].iter();
        all.find(|checkpoint| checkpoint.manifest.id == id)
            .expect("it is pinned or was listed")
    }
}
