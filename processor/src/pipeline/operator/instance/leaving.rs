//! Cells of instances that leave memory, for the store has them, and come back. Must not hold: which of them, or when.

use super::{Instance, InstanceSet};
use crate::core::key::KeyTable;
use crate::pipeline::operator::cell::Cells;
use crate::pipeline::operator::paging::Oldest;
use crate::pipeline::operator::pane::{Maker, key_hash};
use crate::state::codec;
use crate::window::types::Window;

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

    /// The oldest of its clean cells leave.
    fn evict(&mut self, cells: &mut Cells, oldest: &mut Oldest, keys: &mut KeyTable) {
        let left = &mut self.left;
        self.slots.retain(|slot| {
            let leaves = cells.clean_since(*slot).is_some_and(|age| oldest.takes(age));
            if leaves {
                keys.release(cells.get(*slot).key);
                cells.remove(*slot);
                *left += 1;
            }
            !leaves
        });
    }

    /// Forgets its cells.
    pub(super) fn empty(&mut self, cells: &mut Cells, keys: &mut KeyTable) {
        for slot in self.slots.drain(..) {
            keys.release(cells.get(slot).key);
            cells.remove(slot);
        }
        self.index.clear();
        self.dirty.clear();
    }

    /// Its cells have other numbers.
    fn renumber(&mut self, numbers: &[u32], cells: &Cells) {
        for slot in self.slots.iter_mut().chain(&mut self.dirty) {
            *slot = numbers[*slot as usize];
        }
        self.slots.shrink_to_fit();
        self.index.clear();
        let hash = |slot: &u32| key_hash(cells.get(*slot).key);
        for slot in &self.slots {
            self.index.insert_unique(hash(slot), *slot, hash);
        }
        self.index.shrink_to_fit(hash);
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

    /// When each cell that may leave memory was changed last.
    pub fn clean_ages(&self) -> impl Iterator<Item = u64> {
        self.cells.clean().map(|(_, age)| age)
    }

    /// Takes the oldest of the clean cells out of memory.
    pub fn evict(&mut self, oldest: &mut Oldest, keys: &mut KeyTable) {
        for instance in self.instances.values_mut() {
            instance.evict(&mut self.cells, oldest, keys);
        }
        if self.cells.has_gaps() {
            let numbers = self.cells.compact();
            for instance in self.instances.values_mut() {
                instance.renumber(&numbers, &self.cells);
            }
        }
    }

    /// An instance that has fired for the last time needs no cells any more: the next may need as much memory.
    pub fn forget_closed(&mut self, window: &Window, watermark_ms: i64, keys: &mut KeyTable) {
        if !self.is_closed(window.end_ms, watermark_ms) {
            return;
        }
        if let Some(instance) = self.instances.get_mut(&(window.end_ms, window.start_ms)) {
            instance.empty(&mut self.cells, keys);
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
