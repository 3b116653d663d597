//! Panes: the rows of a stretch of event time, one row a key. Windows are unions of panes.
//! Must not hold: when a window fires; order of outputs.

mod leaving;

use std::ops::Range;

use hashbrown::HashTable;

pub(super) use self::leaving::Maker;
use super::running::{PANES_MIN, Running};
use super::size::{Measure, list_bytes};
use crate::aggregation::layout::Layout;
use crate::aggregation::rows::{RowMut, RowRef, RowStore};
use crate::core::key::KeyTable;
use crate::pipeline::builder::{PaneSetPlan, PaneWindow, Plan};
use crate::window::types::Window;

/// Words of a row before its accumulators: watermark at its birth; twice the epoch in which it was changed before, and
/// one while it is changed and not stored.
const ROW_HEADER: usize = 2;
const BORN: usize = 0;
const CHANGED: usize = 1;
const DIRTY: u64 = 1;

/// The rows of `[start, start + width)`.
#[derive(Clone, Debug)]
pub(super) struct Pane {
    pub start_ms: i64,
    /// Purged once the watermark is here: every window that contains it is.
    pub purge_at_ms: i64,
    /// Distinguishes panes of a set for the cache of recent rows.
    id: u32,
    /// Key of each row.
    pub keys: Vec<u32>,
    rows: RowStore,
    index: HashTable<u32>,
    pub dirty: Vec<u32>,
    /// Whether the store holds rows of it.
    pub stored: bool,
    /// Rows that only the store has.
    pub left: usize,
}

impl Pane {
    /// Row `row`'s accumulators.
    pub fn values(&self, row: u32) -> RowRef<'_> {
        self.rows.get(row)
    }

    /// Watermark when the row was made: a window whose end is above it has fired the row on time.
    pub fn born_ms(&self, row: u32) -> i64 {
        self.rows.header(row)[BORN] as i64
    }

    /// Row of a key.
    pub fn find(&self, key: u32) -> Option<u32> {
        self.index
            .find(key_hash(key), |row| self.keys[*row as usize] == key)
            .copied()
    }

    /// Rows changed since the last call, which was in an earlier epoch.
    pub fn take_dirty(&mut self, epoch: u64) -> Vec<u32> {
        let dirty = std::mem::take(&mut self.dirty);
        for row in &dirty {
            self.rows.header_mut(*row)[CHANGED] = epoch << 1;
        }
        dirty
    }

    /// Bytes on the heap.
    pub fn bytes(&self, measure: Measure) -> usize {
        let lists = measure.list(&self.keys) + measure.list(&self.dirty);
        measure.rows(&self.rows) + lists + self.index.allocation_size()
    }

    fn push(&mut self, key: u32, born_ms: i64) -> u32 {
        let row = self.rows.push();
        self.keys.push(key);
        self.rows.header_mut(row)[BORN] = born_ms as u64;
        let keys = &self.keys;
        self.index
            .insert_unique(key_hash(key), row, |row| key_hash(keys[*row as usize]));
        row
    }

    fn mark_dirty(&mut self, row: u32) -> RowMut<'_> {
        let changed = &mut self.rows.header_mut(row)[CHANGED];
        if *changed & DIRTY == 0 {
            *changed |= DIRTY;
            self.dirty.push(row);
        }
        self.rows.get_mut(row)
    }

    /// The row of a key that has none in memory: from the store, or a new one.
    fn make_row(&mut self, set: usize, key: u32, born_ms: i64, maker: &mut Maker<'_>) -> u32 {
        let fetched = if self.left > 0 {
            self.fetch(set, key, maker)
        } else {
            None
        };
        fetched.unwrap_or_else(|| {
            maker.keys.retain(key);
            maker.paging.count(1);
            self.push(key, born_ms)
        })
    }
}

/// Spreads small consecutive numbers over the table (Fibonacci hashing).
pub(super) fn key_hash(key: u32) -> u64 {
    u64::from(key).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Panes of one width, ascending by start, and the windows that consist of them.
#[derive(Clone, Debug)]
pub(super) struct PaneSet {
    /// Index in the plan.
    index: usize,
    width_ms: i64,
    windows: Vec<PaneWindow>,
    has_gaps: bool,
    panes: Vec<Pane>,
    /// Index of the pane used last.
    last: usize,
    next_id: u32,
    /// By key: (pane id, row) used last. Events of a key mostly stay in one pane for a while. A key's number is used
    /// again only when no pane holds the key, and pane ids never come back: an entry cannot go stale.
    recent: Vec<(u32, u32)>,
    /// Running aggregates of sliding windows that have fired, by index in the spec.
    running: Vec<(usize, Running)>,
}

impl PaneSet {
    pub fn new(index: usize, set: &PaneSetPlan) -> Self {
        Self {
            index,
            width_ms: set.width_ms,
            windows: set.windows.clone(),
            has_gaps: set.windows.iter().any(|window| window.aligned.has_gaps()),
            panes: Vec::new(),
            last: 0,
            next_id: 1,
            recent: Vec::new(),
            running: Vec::new(),
        }
    }

    pub fn width_ms(&self) -> i64 {
        self.width_ms
    }

    /// Whether some times lie in no window of the set.
    pub fn has_gaps(&self) -> bool {
        self.has_gaps
    }

    /// Rows in memory.
    pub fn resident(&self) -> usize {
        self.panes.iter().map(|pane| pane.keys.len()).sum()
    }

    pub fn panes(&self) -> &[Pane] {
        &self.panes
    }

    /// Bytes on the heap beside the panes.
    pub fn table_bytes(&self) -> usize {
        let running = self.running.iter().map(|(_, running)| running.heap_bytes());
        list_bytes(&self.recent) + running.sum::<usize>()
    }

    pub fn panes_mut(&mut self) -> &mut [Pane] {
        &mut self.panes
    }

    /// Panes within `[start_ms, end_ms)`, ascending.
    pub fn range(&self, start_ms: i64, end_ms: i64) -> &[Pane] {
        &self.panes[range(&self.panes, start_ms, end_ms)]
    }

    /// (pane start, window) of every pane and every window of the set.
    pub fn pane_windows(&self) -> impl Iterator<Item = (i64, &PaneWindow)> {
        self.panes
            .iter()
            .flat_map(|pane| self.windows.iter().map(|window| (pane.start_ms, window)))
    }

    /// Reads what an event of `key` at `start_ms` will need, if it needs what was used last; the answer means nothing.
    pub fn touch(&self, start_ms: i64, key: u32) -> u64 {
        match (self.panes.get(self.last), self.recent.get(key as usize)) {
            (Some(pane), Some((id, row))) if pane.id == *id && pane.start_ms == start_ms => pane.rows.touch(*row),
            _ => 0,
        }
    }

    /// The accumulators of `key` in the pane at `start_ms`, made when new and marked dirty, and the watermark at which
    /// a pane that had to be made is due next (otherwise never).
    pub fn row(&mut self, start_ms: i64, key: u32, watermark_ms: i64, maker: &mut Maker<'_>) -> (RowMut<'_>, i64) {
        let mut due_ms = i64::MAX;
        for (_, running) in &mut self.running {
            running.changed(start_ms, key);
        }
        if self.panes.get(self.last).is_none_or(|pane| pane.start_ms != start_ms) {
            self.last = match self.panes.binary_search_by_key(&start_ms, |pane| pane.start_ms) {
                Ok(index) => index,
                Err(index) => {
                    self.make_pane(maker.plan, index, start_ms);
                    due_ms = self.next_due_of(&self.panes[index], watermark_ms);
                    index
                }
            };
        }
        let pane = &mut self.panes[self.last];
        if self.recent.len() <= key as usize {
            self.recent.resize(key as usize + 1, (0, 0));
        }
        let recent = &mut self.recent[key as usize];
        if recent.0 != pane.id {
            let row = match pane.find(key) {
                Some(row) => row,
                None => pane.make_row(self.index, key, watermark_ms, maker),
            };
            *recent = (pane.id, row);
        }
        (pane.mark_dirty(recent.1), due_ms)
    }

    /// As [`Self::row`], for one of many sets that few keys reach: without the cache of recent rows, which has an entry
    /// for every key of the task.
    pub fn rare_row(
        &mut self,
        plan: &Plan,
        start_ms: i64,
        key: u32,
        watermark_ms: i64,
        keys: &mut KeyTable,
    ) -> (RowMut<'_>, i64) {
        let mut due_ms = i64::MAX;
        debug_assert!(self.running.is_empty(), "windows of such a set fire by merging");
        let index = match self.panes.binary_search_by_key(&start_ms, |pane| pane.start_ms) {
            Ok(index) => index,
            Err(index) => {
                self.make_pane(plan, index, start_ms);
                due_ms = self.next_due_of(&self.panes[index], watermark_ms);
                index
            }
        };
        let pane = &mut self.panes[index];
        let row = match pane.find(key) {
            Some(row) => row,
            None => {
                keys.retain(key);
                pane.push(key, watermark_ms)
            }
        };
        (pane.mark_dirty(row), due_ms)
    }

    /// The running aggregate of a window that fires, over its panes; `None` where merging them is cheaper or no
    /// value can be taken away again.
    pub fn running(&mut self, window: &Window, layout: &Layout, keys: &KeyTable) -> Option<&Running> {
        let aligned = &self.windows.iter().find(|known| known.index == window.index)?.aligned;
        let slides = !aligned.is_cumulative() && aligned.slide_ms() < aligned.size_ms();
        let is_cheaper = slides && aligned.size_ms() / self.width_ms >= PANES_MIN && layout.is_deductible();
        if !is_cheaper || self.left() > 0 {
            return None;
        }
        let known = self.running.iter().position(|(index, _)| *index == window.index);
        let place = known.unwrap_or_else(|| {
            self.running.push((window.index, Running::new(layout)));
            self.running.len() - 1
        });
        let range = range(&self.panes, window.start_ms, window.end_ms);
        let running = &mut self.running[place].1;
        running.enter(window, &self.panes[range], layout, keys);
        Some(running)
    }

    /// The window has fired: its running aggregate loses what the next one does not cover.
    pub fn slide(&mut self, window: &Window, layout: &Layout) {
        let Some(place) = self.running.iter().position(|(index, _)| *index == window.index) else {
            return;
        };
        let Some(known) = self.windows.iter().find(|known| known.index == window.index) else {
            return;
        };
        let next_ms = window.start_ms + known.aligned.slide_ms();
        let range = range(&self.panes, window.start_ms, next_ms);
        self.running[place].1.leave(next_ms, &self.panes[range], layout);
    }

    /// Puts back a stored row; answers its accumulators.
    pub fn load_row(&mut self, start_ms: i64, key: u32, born_ms: i64, maker: &mut Maker<'_>) -> RowMut<'_> {
        let (_, _) = self.row(start_ms, key, born_ms, maker);
        let pane = &mut self.panes[self.last];
        pane.stored = true;
        let row = self.recent[key as usize].1;
        pane.mark_dirty(row)
    }

    fn make_pane(&mut self, plan: &Plan, index: usize, start_ms: i64) {
        let purge_at = |window: &PaneWindow| {
            let end = window.aligned.last_end_of_pane(start_ms, self.width_ms)?;
            Some(end.saturating_add(window.allowed_lateness_ms))
        };
        let pane = Pane {
            start_ms,
            purge_at_ms: self.windows.iter().filter_map(purge_at).max().unwrap_or(i64::MIN),
            id: self.next_id,
            keys: Vec::new(),
            rows: RowStore::new(&plan.layout, ROW_HEADER),
            index: HashTable::new(),
            dirty: Vec::new(),
            stored: false,
            left: 0,
        };
        self.next_id = self.next_id.wrapping_add(1).max(1);
        self.panes.insert(index, pane);
    }

    /// Watermark at which something of the set fires or is purged next.
    pub fn next_due(&self, watermark_ms: i64) -> i64 {
        self.panes
            .iter()
            .map(|pane| self.next_due_of(pane, watermark_ms))
            .min()
            .unwrap_or(i64::MAX)
    }

    fn next_due_of(&self, pane: &Pane, watermark_ms: i64) -> i64 {
        let first_end = |window: &PaneWindow| {
            window
                .aligned
                .first_end_of_pane_above(pane.start_ms, self.width_ms, watermark_ms)
        };
        self.windows
            .iter()
            .filter_map(first_end)
            .min()
            .unwrap_or(i64::MAX)
            .min(pane.purge_at_ms)
    }

    /// Removes the panes that are due for it and gives back their keys.
    pub fn purge(&mut self, watermark_ms: i64, keys: &mut KeyTable, mut purged: impl FnMut(&Pane)) {
        self.panes.retain(|pane| {
            let keep = pane.purge_at_ms > watermark_ms;
            if !keep {
                pane.keys.iter().for_each(|key| keys.release(*key));
                purged(pane);
            }
            keep
        });
        self.last = 0;
    }
}

/// Indices of the panes within `[start_ms, end_ms)`.
fn range(panes: &[Pane], start_ms: i64, end_ms: i64) -> Range<usize> {
    let from = panes.partition_point(|pane| pane.start_ms < start_ms);
    from..panes.partition_point(|pane| pane.start_ms < end_ms)
}
