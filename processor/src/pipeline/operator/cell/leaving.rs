//! Cells that leave memory, for the store has them, and come back. Must not hold: which of them, or when.

use streamagg_crds::resolved::Repeat;

use super::{Cells, Stored};
use crate::aggregation::layout::Layout;

impl Cells {
    /// No change since this epoch.
    pub fn mark_clean(&mut self, slot: u32, epoch: u64) {
        let cell = self.get_mut(slot);
        (cell.dirty, cell.changed) = (false, epoch);
    }

    /// Whether what stands like this may be in the store only. A tick finds what waits for it in memory.
    pub fn may_leave(&self, since: u64) -> bool {
        let ticks = |repeat| matches!(repeat, Repeat::TimeMs(_));
        since == 0 || !(self.trigger.early.is_some_and(ticks) || ticks(self.trigger.late))
    }

    /// The cells that may leave, and when each was changed last.
    pub fn clean(&self) -> impl Iterator<Item = (u32, u64)> {
        let slots = 0..self.cells.len() as u32;
        slots.filter_map(|slot| Some((slot, self.clean_since(slot)?)))
    }

    /// When a cell was changed last, if it may leave.
    pub fn clean_since(&self, slot: u32) -> Option<u64> {
        let cell = self.get(slot);
        (cell.is_used && !cell.dirty && self.may_leave(cell.since)).then_some(cell.changed)
    }

    /// Gives back the memory of removed cells: those behind them move up. Answers the new number of each.
    pub fn compact(&mut self) -> Vec<u32> {
        let (rows, published) = (self.rows.compact(), self.published.compact());
        let mut numbers = Vec::with_capacity(self.cells.len());
        let mut kept = 0;
        self.cells.retain_mut(|cell| {
            numbers.push(if cell.is_used { kept } else { u32::MAX });
            kept += u32::from(cell.is_used);
            cell.row = rows[cell.row as usize];
            cell.published = cell.published.map(|row| published[row as usize]);
            cell.is_used
        });
        self.cells.shrink_to_fit();
        self.free = Vec::new();
        numbers
    }

    /// A cell as the store has it, and its bound; nothing for bytes that are no cell.
    pub fn bring(&mut self, key: u32, bytes: &[u8], layout: &Layout, epoch: u64) -> Option<(u32, i64)> {
        let stored = Stored::read(bytes)?;
        let slot = self.insert(key);
        let has_published = stored.published.is_some();
        let is_right = self.load(slot, stored.cell, has_published, |is_published, row| {
            let published = stored.published.filter(|_| is_published);
            layout.decode(published.unwrap_or(stored.values), row)
        });
        self.mark_clean(slot, epoch);
        if is_right {
            return Some((slot, stored.bound_ms));
        }
        self.remove(slot);
        None
    }
}
