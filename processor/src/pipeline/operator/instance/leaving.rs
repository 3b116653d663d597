//! Cells of instances that leave memory, for the store has them, and come back. Must not hold: which of them, or when.

use super::{Instance, InstanceSet};
use crate::core::key::KeyTable;
use crate::pipeline::builder::Plan;
use crate::pipeline::operator::cell::Cells;
use crate::pipeline::operator::paging::Oldest;
use crate::pipeline::operator::pane::Maker;
use crate::state::codec;
use crate::window::types::{Assigner, Window};

impl Instance {
    /// Brings the cell of a key back from the store, if that has one.
    pub(super) fn fetch(
        &mut self,
        window: usize,
        end_ms: i64,
        key: u32,
        cells: &mut Cells,
        maker: &mut Maker<'_>,
    ) -> Option<u32> {
        if self.left == 0 {
            return None;
        }
        let mut stored_key = Vec::new();
        codec::write_instance_key(window, end_ms, maker.keys.bytes(key), &mut stored_key);
        let (layout, epoch) = (&maker.plan.layout, maker.paging.epoch());
        let (slot, _) = (maker.paging).get(&stored_key, |bytes| cells.bring(key, bytes, layout, epoch))?;
        maker.keys.retain(key);
        self.enter(slot, cells);
        self.left -= 1;
        Some(slot)
    }

    /// Brings every cell back that only the store has.
    fn fetch_all(&mut self, window: usize, end_ms: i64, cells: &mut Cells, maker: &mut Maker<'_>) {
        if self.left == 0 {
            return;
        }
        let mut prefix = Vec::new();
        codec::write_instance_key(window, end_ms, &[], &mut prefix);
        let (layout, epoch, keys) = (&maker.plan.layout, maker.paging.epoch(), &mut *maker.keys);
        maker.paging.scan(&prefix, |key_bytes, value| {
            let key = keys.intern(key_bytes);
            // What is in memory is newer.
            if self.find(key, cells).is_none() {
                keys.retain(key);
                let (slot, _) = cells.bring(key, value, layout, epoch)?;
                self.enter(slot, cells);
                self.left = self.left.saturating_sub(1);
            }
            Some(())
        });
        if std::mem::take(&mut self.left) > 0 {
            maker.paging.miss("a key of a window");
        }
    }

    /// The oldest of its clean cells leave; the others go to another place.
    fn evict(&mut self, from: &Cells, to: &mut Cells, oldest: &mut Oldest, keys: &mut KeyTable) {
        let slots = std::mem::take(self).slots;
        for slot in slots {
            let key = from.get(slot).key;
            if from.clean_since(slot).is_some_and(|age| oldest.takes(age)) {
                keys.release(key);
                self.left += 1;
                continue;
            }
            let slot = to.take_over(from, slot);
            self.enter(slot, to);
            if to.get(slot).dirty {
                self.dirty.push(slot);
            }
        }
    }
}

impl InstanceSet {
    /// Cells, in memory or not.
    pub fn len(&self) -> usize {
        self.cells.len() + self.left()
    }

    /// Cells that only the store has.
    pub fn left(&self) -> usize {
        self.instances.values().map(|instance| instance.left).sum()
    }

    /// Instances that cover a time, about.
    pub fn spans_of_a_time(&self, plan: &Plan) -> usize {
        match &plan.windows[self.window.0].plan.assigner {
            Assigner::Aligned(aligned) => (aligned.size_ms() / aligned.slide_ms()).max(1) as usize,
            Assigner::Calendar(_) | Assigner::Global | Assigner::Session(_) | Assigner::Count(_) => 1,
        }
    }

    /// When each cell that may leave memory was changed last.
    pub fn clean_ages(&self) -> impl Iterator<Item = u64> {
        self.cells.clean().map(|(_, age)| age)
    }

    /// Takes the oldest of the clean cells out of memory.
    pub fn evict(&mut self, oldest: &mut Oldest, plan: &Plan, keys: &mut KeyTable) {
        if !self.clean_ages().any(|age| oldest.may_take(age)) {
            return;
        }
        let kept = Cells::new(plan, &plan.windows[self.window.0].plan, false);
        let cells = std::mem::replace(&mut self.cells, kept);
        for instance in self.instances.values_mut() {
            let (stored, left) = (instance.stored, instance.left);
            instance.evict(&cells, &mut self.cells, oldest, keys);
            (instance.stored, instance.left) = (stored, instance.left + left);
        }
    }

    /// Brings the cells of a key into memory.
    pub fn bring(&mut self, key: u32, maker: &mut Maker<'_>) {
        for ((end_ms, _), instance) in &mut self.instances {
            if instance.find(key, &self.cells).is_none() {
                instance.fetch(self.window.0, *end_ms, key, &mut self.cells, maker);
            }
        }
    }

    /// Brings all of an instance into memory.
    pub fn bring_instance(&mut self, window: &Window, maker: &mut Maker<'_>) {
        if let Some(instance) = self.instances.get_mut(&(window.end_ms, window.start_ms)) {
            instance.fetch_all(self.window.0, window.end_ms, &mut self.cells, maker);
        }
    }

    /// Notes a stored cell that is not read into memory.
    pub fn leave(&mut self, (start_ms, end_ms): (i64, i64)) {
        let instance = self.instances.entry((end_ms, start_ms)).or_default();
        (instance.stored, instance.left) = (true, instance.left + 1);
    }
}
