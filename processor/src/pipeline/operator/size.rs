//! How much memory the state takes: what its tables have asked of the allocator, an estimate for trees and heaps.
//! Must not hold: limits, or what is done when they are reached.

use super::Task;
use super::instance::{Instance, InstanceSet};
use super::pane::{Pane, PaneSet};
use crate::aggregation::rows::RowStore;
use crate::core::key::KeyTable;

/// What a small entry of a B-tree takes with its share of the nodes, bytes.
const TREE_ENTRY_BYTES: usize = 48;

/// Which bytes of a table count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// All that it has asked of the allocator.
    Asked,
    /// Those that were written to: the rest takes no memory yet.
    Written,
}

impl Measure {
    /// Of a list, without what its items have on the heap.
    pub fn list<T>(self, list: &Vec<T>) -> usize {
        match self {
            Self::Asked => list_bytes(list),
            Self::Written => size_of_val(&list[..]),
        }
    }

    /// Of keys.
    fn keys(self, keys: &KeyTable) -> usize {
        match self {
            Self::Asked => keys.heap_bytes(),
            Self::Written => keys.bytes_in_use(),
        }
    }

    /// Of rows.
    pub fn rows(self, rows: &RowStore) -> usize {
        match self {
            Self::Asked => rows.heap_bytes(),
            Self::Written => rows.bytes_in_use(),
        }
    }
}

impl Task {
    /// Bytes of memory that the state takes on the heap: keys, rows, variable state of aggregates and the tables that
    /// find them. Looks at every row when aggregates have variable state: for a metric, not for every batch.
    pub fn state_bytes(&self) -> usize {
        self.bytes(Measure::Asked)
    }

    /// As [`Self::state_bytes`], without what tables have asked for ahead: what is held against the memory that the task may
    /// use.
    pub fn bytes_in_use(&self) -> usize {
        self.bytes(Measure::Written)
    }

    fn bytes(&self, measure: Measure) -> usize {
        let shared: usize = self.sets.iter().map(|set| set.bytes(measure)).sum();
        let own: usize = self.instances.iter().map(|set| set.bytes(measure)).sum();
        let sessions: usize = self.sessions.iter().map(|set| set.bytes(measure)).sum();
        let counts: usize = self.counts.iter().map(|set| set.bytes(measure)).sum();
        let late = (self.late.counts.len() + self.late.dirty.len()) * TREE_ENTRY_BYTES;
        measure.keys(&self.keys) + shared + own + sessions + counts + self.singles.heap_bytes() + late
    }
}

impl PaneSet {
    pub(super) fn bytes(&self, measure: Measure) -> usize {
        let panes = self.panes().iter().map(|pane| size_of::<Pane>() + pane.bytes(measure));
        self.table_bytes() + panes.sum::<usize>()
    }
}

impl InstanceSet {
    fn bytes(&self, measure: Measure) -> usize {
        let entry = size_of::<Instance>() + TREE_ENTRY_BYTES;
        let instances = self.instances.values().map(|instance| entry + instance.bytes(measure));
        self.cells.bytes(measure) + instances.sum::<usize>()
    }
}

/// Bytes of a list on the heap.
pub(super) fn list_bytes<T>(list: &Vec<T>) -> usize {
    list.capacity() * size_of::<T>()
}
