//! Events that go on one by one: count windows take them by their order. Must not hold: windows.

use super::size::list_bytes;
use crate::aggregation::inputs::Inputs;
use crate::aggregation::layout::Layout;
use crate::aggregation::rows::{RowRef, RowStore};
use crate::core::key::KeyTable;
use crate::pipeline::builder::Plan;

/// An event with its values in a row of its own.
#[derive(Clone, Copy, Debug)]
struct Single {
    key: u32,
    time_ms: i64,
    row: u32,
}

/// The events of the open epoch of a combine task, in order.
#[derive(Clone, Debug)]
pub(super) struct Singles {
    list: Vec<Single>,
    rows: RowStore,
}

impl Singles {
    pub fn new(plan: &Plan) -> Self {
        Self {
            list: Vec::new(),
            rows: RowStore::new(&plan.layout, 0),
        }
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        list_bytes(&self.list) + self.rows.heap_bytes()
    }

    /// Keeps an event.
    pub fn add(&mut self, key: u32, layout: &Layout, inputs: &Inputs<'_>, keys: &mut KeyTable) {
        let row = self.rows.push();
        layout.add(self.rows.get_mut(row), inputs);
        keys.retain(key);
        let time_ms = inputs.place.time_ms;
        self.list.push(Single { key, time_ms, row });
    }

    /// Hands out every event with its key, and forgets them.
    pub fn take_all(&mut self, keys: &mut KeyTable, mut take: impl FnMut(i64, &[u8], RowRef<'_>)) {
        for Single { key, time_ms, row } in self.list.drain(..) {
            take(time_ms, keys.bytes(key), self.rows.get(row));
            self.rows.release(row);
            keys.release(key);
        }
    }
}
