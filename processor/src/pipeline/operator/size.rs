//! How much memory the state takes: what its tables have asked of the allocator, an estimate for trees and heaps.
//! Must not hold: limits, or what is done when they are reached.

use super::Task;
use super::count::CountSet;
use super::instance::{Instance, InstanceSet};
use super::pane::{Pane, PaneSet};
use super::session::SessionSet;

/// What a small entry of a B-tree takes with its share of the nodes, bytes.
const TREE_ENTRY_BYTES: usize = 48;

impl Task {
    /// Bytes of memory that the state takes on the heap: keys, rows, variable state of aggregates and the tables that
    /// find them. Looks at every row when aggregates have variable state: for a metric, not for every batch.
    pub fn state_bytes(&self) -> usize {
        self.bytes_beside(self.sets.iter().map(PaneSet::heap_bytes).sum())
    }

    /// As [`Self::state_bytes`], without what rows of panes have asked for ahead: what is held against the memory that the
    /// task may use.
    pub fn bytes_in_use(&self) -> usize {
        self.bytes_beside(self.sets.iter().map(PaneSet::bytes_in_use).sum())
    }

    fn bytes_beside(&self, shared: usize) -> usize {
        let own: usize = self.instances.iter().map(InstanceSet::heap_bytes).sum();
        let sessions: usize = self.sessions.iter().map(SessionSet::heap_bytes).sum();
        let late = (self.late.counts.len() + self.late.dirty.len()) * TREE_ENTRY_BYTES;
        let counts: usize = self.counts.iter().map(CountSet::heap_bytes).sum();
        self.keys.heap_bytes() + shared + own + sessions + counts + self.singles.heap_bytes() + late
    }
}

impl PaneSet {
    pub(super) fn heap_bytes(&self) -> usize {
        let panes = self.panes().iter().map(|pane| size_of::<Pane>() + pane.heap_bytes());
        self.table_bytes() + panes.sum::<usize>()
    }

    fn bytes_in_use(&self) -> usize {
        let panes = self.panes().iter().map(|pane| size_of::<Pane>() + pane.bytes_in_use());
        self.table_bytes() + panes.sum::<usize>()
    }
}

impl InstanceSet {
    fn heap_bytes(&self) -> usize {
        let entry = size_of::<Instance>() + TREE_ENTRY_BYTES;
        let instances = self.instances.values().map(|instance| entry + instance.heap_bytes());
        self.cells.heap_bytes() + instances.sum::<usize>()
    }
}

/// Bytes of a list on the heap.
pub(super) fn list_bytes<T>(list: &Vec<T>) -> usize {
    list.capacity() * size_of::<T>()
}
