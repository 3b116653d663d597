//! Rows that leave memory, for the store has them, and come back. Must not hold: which of them, or when.

use super::{BORN, CHANGED, Pane, PaneSet, key_hash, range};
use crate::aggregation::layout::Layout;
use crate::aggregation::rows::{RowRef, RowStore};
use crate::core::key::KeyTable;
use crate::pipeline::builder::Plan;
use crate::pipeline::operator::paging::{Oldest, Paging};
use crate::state::codec;

/// What making a row needs beside its pane.
pub(in crate::pipeline::operator) struct Maker<'a> {
    pub plan: &'a Plan,
    pub keys: &'a mut KeyTable,
    pub paging: &'a mut Paging,
}

impl Pane {
    /// Brings the row of a key back from the store, if that has one.
    pub(super) fn fetch(&mut self, set: usize, key: u32, maker: &mut Maker<'_>) -> Option<u32> {
        let mut stored_key = Vec::new();
        codec::write_pane_key(set, self.start_ms, maker.keys.bytes(key), &mut stored_key);
        let row = self.push(key, 0);
        let values = self.rows.get_mut(row);
        let read = |bytes: &[u8]| codec::read_row(bytes, &maker.plan.layout, values);
        let Some(born_ms) = maker.paging.get(&stored_key, read) else {
            self.remove(row);
            return None;
        };
        maker.keys.retain(key);
        let header = self.rows.header_mut(row);
        (header[BORN], header[CHANGED]) = (born_ms as u64, maker.paging.epoch() << 1);
        self.left = self.left.saturating_sub(1);
        Some(row)
    }

    /// Visits the rows that the store has, by key, in the order of key bytes.
    pub fn visit_stored(
        &self,
        set: usize,
        layout: &Layout,
        paging: &mut Paging,
        mut visit: impl FnMut(&[u8], RowRef<'_>),
    ) {
        let mut rows = RowStore::new(layout, 0);
        let row = rows.push();
        let mut prefix = Vec::new();
        codec::write_pane_key(set, self.start_ms, &[], &mut prefix);
        paging.scan(&prefix, |key, value| {
            codec::read_row(value, layout, rows.get_mut(row))?;
            visit(key, rows.get(row));
            Some(())
        });
    }

    /// Takes a row out; the last one gets its number.
    fn remove(&mut self, row: u32) {
        let key = self.keys.swap_remove(row as usize);
        if let Ok(found) = self.index.find_entry(key_hash(key), |other| *other == row) {
            found.remove();
        }
        self.rows.swap_remove(row);
        if let Some(moved) = self.keys.get(row as usize) {
            let last = self.keys.len() as u32;
            if let Some(number) = self.index.find_mut(key_hash(*moved), |other| *other == last) {
                *number = row;
            }
        }
    }

    /// When each clean row was changed last.
    fn clean_ages(&self) -> impl Iterator<Item = u64> {
        // With rows that the store has not, the numbers of rows must stay as they are.
        let rows = if self.dirty.is_empty() {
            self.keys.len() as u32
        } else {
            0
        };
        (0..rows).map(|row| self.rows.header(row)[CHANGED] >> 1)
    }

    /// Takes the oldest of its rows out, if they are clean.
    fn evict(&mut self, oldest: &mut Oldest, keys: &mut KeyTable) -> bool {
        if !self.dirty.is_empty() {
            return false;
        }
        let before = self.left;
        for row in (0..self.keys.len() as u32).rev() {
            if oldest.takes(self.rows.header(row)[CHANGED] >> 1) {
                keys.release(self.keys[row as usize]);
                self.remove(row);
                self.left += 1;
            }
        }
        self.rows.shrink_to_fit();
        self.keys.shrink_to_fit();
        let keys = &self.keys;
        self.index.shrink_to_fit(|row| key_hash(keys[*row as usize]));
        self.left > before
    }
}

impl PaneSet {
    /// Rows, in memory or not.
    pub fn rows(&self) -> usize {
        self.resident() + self.left()
    }

    /// Rows that only the store has.
    pub fn left(&self) -> usize {
        self.panes.iter().map(|pane| pane.left).sum()
    }

    /// When each row that may leave memory was changed last.
    pub fn clean_ages(&self) -> impl Iterator<Item = u64> {
        self.panes.iter().flat_map(|pane| pane.clean_ages())
    }

    /// Takes the oldest of the clean rows out of memory.
    pub fn evict(&mut self, oldest: &mut Oldest, keys: &mut KeyTable) {
        for pane in &mut self.panes {
            if pane.evict(oldest, keys) {
                // Rows have other numbers now, and running aggregates are over all rows or none.
                pane.id = self.next_id;
                self.next_id = self.next_id.wrapping_add(1).max(1);
                self.running.clear();
            }
        }
    }

    /// Keys have numbers below this.
    pub fn shrink(&mut self, keys: usize) {
        self.recent.truncate(keys);
        self.recent.shrink_to_fit();
    }

    /// Brings the rows of a key in `[start_ms, end_ms)` into memory.
    pub fn bring(&mut self, start_ms: i64, end_ms: i64, key: u32, maker: &mut Maker<'_>) {
        let range = range(&self.panes, start_ms, end_ms);
        for pane in &mut self.panes[range] {
            if pane.left > 0 && pane.find(key).is_none() {
                pane.fetch(self.index, key, maker);
            }
        }
    }

    /// Notes a stored row that is not read into memory.
    pub fn leave(&mut self, plan: &Plan, start_ms: i64) {
        let index = match self.panes.binary_search_by_key(&start_ms, |pane| pane.start_ms) {
            Ok(index) => index,
            Err(index) => {
                self.make_pane(plan, index, start_ms);
                index
            }
        };
        let pane = &mut self.panes[index];
        (pane.stored, pane.left) = (true, pane.left + 1);
    }
}
