//! The running aggregate of a sliding window on shared panes: each firing adds the pane that came in and takes the one
//! that went out away again, instead of merging all of them anew. Exact, for sums are; an extreme that leaves with its
//! pane is found anew among those that stay. It is derived from the panes and never stored.
//! Must not hold: when windows fire, state that the panes do not have.

use super::pane::Pane;
use super::size::list_bytes;
use crate::aggregation::layout::Layout;
use crate::aggregation::rows::{RowRef, RowStore};
use crate::core::key::KeyTable;
use crate::window::types::Window;

/// From so many panes a window on, a running aggregate is cheaper than merging (each pane is then merged twice).
pub(super) const PANES_MIN: i64 = 6;

const NONE: u32 = u32::MAX;
/// Word of a row before its accumulators: panes of the window that hold the key.
const PANES: usize = 0;

/// All keys of a window over the panes of its next firing, as far as they are complete.
#[derive(Clone, Debug)]
pub(super) struct Running {
    /// Start of the first pane within, and end of the last one.
    start_ms: i64,
    end_ms: i64,
    rows: RowStore,
    /// By key: its row.
    row_of: Vec<u32>,
    /// (key, row) in the order of key bytes.
    order: Vec<(u32, u32)>,
    /// Keys that were not there at the last firing; they stand at the end of `order`.
    has_new: bool,
    /// Keys whose row is out of date.
    stale: Vec<u32>,
}

impl Running {
    pub fn new(layout: &Layout) -> Self {
        Self {
            start_ms: i64::MAX,
            end_ms: i64::MIN,
            rows: RowStore::new(layout, 1),
            row_of: Vec::new(),
            order: Vec::new(),
            has_new: false,
            stale: Vec::new(),
        }
    }

    /// An event has changed the row of a key in the pane at this time.
    #[inline]
    pub fn changed(&mut self, start_ms: i64, key: u32) {
        if start_ms < self.end_ms && start_ms >= self.start_ms {
            self.stale.push(key);
        }
    }

    /// Brings in the panes of `window`; `panes` are those that it covers, ascending.
    pub fn enter(&mut self, window: &Window, panes: &[Pane], layout: &Layout, keys: &KeyTable) {
        if self.start_ms != window.start_ms || self.end_ms > window.end_ms {
            let end_ms = i64::MIN;
            *self = Self {
                end_ms,
                ..Self::new(layout)
            };
        }
        let entered = panes.partition_point(|pane| pane.start_ms < self.end_ms);
        for pane in &panes[entered..] {
            self.add(pane, layout);
        }
        (self.start_ms, self.end_ms) = (window.start_ms, window.end_ms);
        self.mend(panes, layout);
        if std::mem::take(&mut self.has_new) {
            // Stable: it finds the sorted run before the new keys.
            self.order.sort_by(|a, b| keys.bytes(a.0).cmp(keys.bytes(b.0)));
        }
    }

    /// Takes the panes before `start_ms` away, where the next firing begins; they are `panes`.
    pub fn leave(&mut self, start_ms: i64, panes: &[Pane], layout: &Layout) {
        let mut emptied = false;
        for pane in panes {
            for (row, key) in pane.keys.iter().enumerate() {
                let merged = self.row_of.get(*key as usize).copied().unwrap_or(NONE);
                debug_assert_ne!(merged, NONE, "what leaves has entered");
                if merged == NONE {
                    continue;
                }
                let held = &mut self.rows.header_mut(merged)[PANES];
                *held -= 1;
                if *held == 0 {
                    self.row_of[*key as usize] = NONE;
                    self.rows.release(merged);
                    emptied = true;
                } else if !layout.deduct(self.rows.get_mut(merged), pane.values(row as u32)) {
                    self.stale.push(*key);
                }
            }
        }
        self.start_ms = start_ms;
        if emptied {
            let row_of = &self.row_of;
            self.order.retain(|(key, _)| row_of[*key as usize] != NONE);
        }
    }

    /// Every key with its values, in the order of key bytes.
    pub fn iter(&self) -> impl Iterator<Item = (u32, RowRef<'_>)> {
        self.order.iter().map(|(key, row)| (*key, self.rows.get(*row)))
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let lists = list_bytes(&self.row_of) + list_bytes(&self.order) + list_bytes(&self.stale);
        self.rows.heap_bytes() + lists
    }

    fn add(&mut self, pane: &Pane, layout: &Layout) {
        for (row, key) in pane.keys.iter().enumerate() {
            if self.row_of.len() <= *key as usize {
                self.row_of.resize(*key as usize + 1, NONE);
            }
            let values = pane.values(row as u32);
            let mut merged = self.row_of[*key as usize];
            if merged == NONE {
                merged = self.rows.push_copy(values);
                self.row_of[*key as usize] = merged;
                self.order.push((*key, merged));
                self.has_new = true;
            } else {
                layout.merge(self.rows.get_mut(merged), values);
            }
            self.rows.header_mut(merged)[PANES] += 1;
        }
    }

    /// Merges anew, over the panes within, the rows that are out of date.
    fn mend(&mut self, panes: &[Pane], layout: &Layout) {
        let mut stale = std::mem::take(&mut self.stale);
        stale.sort_unstable();
        stale.dedup();
        for key in &stale {
            let found = panes.iter().filter_map(|pane| Some(pane.values(pane.find(*key)?)));
            let mut held = 0;
            let mut merged = self.row_of.get(*key as usize).copied().unwrap_or(NONE);
            for values in found {
                if held == 0 && merged != NONE {
                    self.rows.copy(merged, values);
                } else if held == 0 {
                    if self.row_of.len() <= *key as usize {
                        self.row_of.resize(*key as usize + 1, NONE);
                    }
                    merged = self.rows.push_copy(values);
                    self.row_of[*key as usize] = merged;
                    self.order.push((*key, merged));
                    self.has_new = true;
                } else {
                    layout.merge(self.rows.get_mut(merged), values);
                }
                held += 1;
            }
            // A key that no pane holds has left with its last one.
            if held > 0 {
                self.rows.header_mut(merged)[PANES] = held;
            }
        }
        stale.clear();
        self.stale = stale;
    }
}
