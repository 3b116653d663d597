//! Cells: one key in one window instance, with values of its own and what it has published. For windows whose
//! triggers or panes the shared panes cannot serve. Must not hold: where instances lie in time, or which are due.

mod leaving;

use streamagg_crds::resolved::{Repeat, Trigger};
use streamagg_crds::v1alpha1::Panes;

use super::emit::{Emitter, Firing, Operation, PaneLabel, Timing};
use super::size::Measure;
use crate::aggregation::inputs::Inputs;
use crate::aggregation::layout::Layout;
use crate::aggregation::rows::{RowMut, RowRef, RowStore};
use crate::core::key::KeyTable;
use crate::pipeline::builder::Plan;
use crate::pipeline::shuffle::CellPartial;
use crate::state::codec;
use crate::window::types::{Window, WindowPlan};

/// One key in one instance.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub key: u32,
    /// Values of all its events; with panes `Discarding` of those since the last pane.
    row: u32,
    /// What a retraction takes back, where there may be one: the last values, with `Discarding` of all panes so far.
    published: Option<u32>,
    /// Events in all.
    pub events: u64,
    /// Events since the last pane.
    pub since: u64,
    /// Panes so far.
    pub fired: u64,
    /// The last pane.
    pub last: Option<PaneLabel>,
    /// Whether it is in a list of changed cells.
    pub dirty: bool,
    /// Epoch of its last change, while it is in none.
    changed: u64,
    /// Whether a key is in it; otherwise its number is free.
    is_used: bool,
}

/// What of a cell is stored beside its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredCell {
    pub events: u64,
    pub since: u64,
    pub fired: u64,
    pub last: Option<PaneLabel>,
}

/// A stored cell, its values not read yet.
pub(super) struct Stored<'a> {
    /// The time of its window that is not in its key.
    pub bound_ms: i64,
    pub cell: StoredCell,
    pub values: &'a [u8],
    pub published: Option<&'a [u8]>,
}

impl<'a> Stored<'a> {
    /// Nothing for bytes that are no cell.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (header, values, published) = codec::read_cell(bytes)?;
        let last = match header.last {
            None => None,
            Some((index, code, is_final)) => Some(PaneLabel {
                index,
                timing: Timing::from_code(code)?,
                is_final,
            }),
        };
        let cell = StoredCell {
            events: header.events,
            since: header.since,
            fired: header.fired,
            last,
        };
        Some(Self {
            bound_ms: header.bound_ms,
            cell,
            values,
            published,
        })
    }
}

/// The cells of one window of the spec.
#[derive(Clone, Debug)]
pub(super) struct Cells {
    cells: Vec<Cell>,
    free: Vec<u32>,
    rows: RowStore,
    published: RowStore,
    trigger: Trigger,
    panes: Panes,
    /// Whether instances may be absorbed by others, so that any result may have to be taken back.
    may_merge: bool,
}

impl Cells {
    pub fn new(plan: &Plan, window: &WindowPlan, may_merge: bool) -> Self {
        Self {
            cells: Vec::new(),
            free: Vec::new(),
            rows: RowStore::new(&plan.layout, 0),
            published: RowStore::new(&plan.layout, 0),
            trigger: window.trigger,
            panes: window.panes,
            may_merge,
        }
    }

    pub fn trigger(&self) -> &Trigger {
        &self.trigger
    }

    pub fn get(&self, slot: u32) -> &Cell {
        &self.cells[slot as usize]
    }

    pub fn get_mut(&mut self, slot: u32) -> &mut Cell {
        &mut self.cells[slot as usize]
    }

    pub fn len(&self) -> usize {
        self.cells.len() - self.free.len()
    }

    /// Whether memory is held that no cell needs.
    pub fn has_gaps(&self) -> bool {
        !self.free.is_empty()
    }

    /// Bytes on the heap.
    pub fn bytes(&self, measure: Measure) -> usize {
        let lists = measure.list(&self.cells) + measure.list(&self.free);
        lists + measure.rows(&self.rows) + measure.rows(&self.published)
    }

    /// An empty cell.
    pub fn insert(&mut self, key: u32) -> u32 {
        let cell = Cell {
            key,
            row: self.rows.push(),
            published: None,
            events: 0,
            since: 0,
            fired: 0,
            last: None,
            dirty: false,
            changed: 0,
            is_used: true,
        };
        self.put(cell)
    }

    fn put(&mut self, cell: Cell) -> u32 {
        match self.free.pop() {
            Some(slot) => {
                self.cells[slot as usize] = cell;
                slot
            }
            None => {
                self.cells.push(cell);
                (self.cells.len() - 1) as u32
            }
        }
    }

    pub fn remove(&mut self, slot: u32) {
        let cell = &mut self.cells[slot as usize];
        self.rows.release(cell.row);
        if let Some(row) = cell.published {
            self.published.release(row);
        }
        // A list of changed cells may still name it.
        (cell.dirty, cell.is_used) = (false, false);
        self.free.push(slot);
    }

    /// Counts one event in.
    pub fn add(&mut self, slot: u32, layout: &Layout, inputs: &Inputs<'_>) {
        let cell = &mut self.cells[slot as usize];
        cell.events += 1;
        cell.since += 1;
        layout.add(self.rows.get_mut(cell.row), inputs);
    }

    /// Counts in what another task has of so many events.
    pub fn merge(&mut self, slot: u32, layout: &Layout, events: u64, values: RowRef<'_>) {
        let cell = &mut self.cells[slot as usize];
        cell.events += events;
        cell.since += events;
        layout.merge(self.rows.get_mut(cell.row), values);
    }

    /// Whether the number of events makes a cell fire; `ended`: the watermark has passed the end of its window.
    pub fn is_due(&self, slot: u32, ended: bool) -> bool {
        let repeat = if ended {
            Some(self.trigger.late)
        } else {
            self.trigger.early
        };
        match repeat {
            Some(Repeat::Events(events)) => self.get(slot).since >= events,
            Some(Repeat::TimeMs(_)) | None => false,
        }
    }

    /// Writes a pane of a cell, taking the one before back where that is asked for.
    pub fn publish(&mut self, slot: u32, window: Window, timing: Timing, is_final: bool, emitter: &mut Emitter<'_>) {
        if self.panes == Panes::Retracting {
            self.retract(slot, window, emitter);
        }
        let cell = &mut self.cells[slot as usize];
        let pane = PaneLabel {
            index: cell.fired,
            timing,
            is_final,
        };
        emitter.emit(&Firing {
            operation: Operation::Upsert,
            window,
            key: emitter.keys.bytes(cell.key),
            pane,
            values: self.rows.get(cell.row),
        });
        let layout = &emitter.plan.layout;
        if self.may_merge || self.panes == Panes::Retracting {
            if self.panes != Panes::Discarding
                && let Some(old) = cell.published.take()
            {
                self.published.release(old);
            }
            let kept = *cell.published.get_or_insert_with(|| self.published.push());
            layout.merge(self.published.get_mut(kept), self.rows.get(cell.row));
        }
        if self.panes == Panes::Discarding {
            self.rows.release(cell.row);
            cell.row = self.rows.push();
        }
        cell.since = 0;
        cell.fired += 1;
        cell.last = Some(pane);
    }

    /// Takes back what a cell has published, if it has.
    pub fn retract(&self, slot: u32, window: Window, emitter: &mut Emitter<'_>) {
        let cell = &self.cells[slot as usize];
        if let (Some(pane), Some(published)) = (cell.last, cell.published) {
            emitter.emit(&Firing {
                operation: Operation::Retract,
                window,
                key: emitter.keys.bytes(cell.key),
                pane,
                values: self.published.get(published),
            });
        }
    }

    /// The cell becomes another instance's: nothing is published of it yet.
    pub fn restart(&mut self, slot: u32, layout: &Layout) {
        let cell = &mut self.cells[slot as usize];
        if let Some(published) = cell.published.take() {
            if self.panes == Panes::Discarding {
                layout.merge(self.rows.get_mut(cell.row), self.published.get(published));
            }
            self.published.release(published);
        }
        (cell.since, cell.fired, cell.last) = (cell.events, 0, None);
    }

    /// Takes the events of `from`, which is [restarted](Self::restart), into `to`.
    pub fn absorb(&mut self, to: u32, from: u32, layout: &Layout) {
        let other = self.get(from).clone();
        let row = self.get(to).row;
        self.rows.merge_within(layout, row, other.row);
        let cell = self.get_mut(to);
        cell.events += other.events;
        cell.since += other.since;
    }

    /// The values of a cell, and those published where they are kept.
    pub fn values(&self, slot: u32) -> (RowRef<'_>, Option<RowRef<'_>>) {
        let cell = self.get(slot);
        let published = cell.published.map(|row| self.published.get(row));
        (self.rows.get(cell.row), published)
    }

    /// A cell of an instance for the task that has all of its events, but for the row.
    pub fn partial<'a>(&self, slot: u32, window: &Window, keys: &'a KeyTable) -> CellPartial<'a> {
        let cell = self.get(slot);
        CellPartial {
            window: window.index,
            span_ms: (window.start_ms, window.end_ms),
            events: cell.events,
            key: keys.bytes(cell.key),
            row: &[],
        }
    }

    /// Puts a stored cell back. `copy` fills a row, that of its values (`false`) or that of the published ones (`true`), if
    /// it can.
    pub fn load(
        &mut self,
        slot: u32,
        stored: StoredCell,
        has_published: bool,
        copy: impl Fn(bool, RowMut<'_>) -> bool,
    ) -> bool {
        let row = self.get(slot).row;
        let mut is_right = copy(false, self.rows.get_mut(row));
        let published = has_published.then(|| self.published.push());
        if let Some(row) = published {
            is_right &= copy(true, self.published.get_mut(row));
        }
        let cell = self.get_mut(slot);
        cell.published = published;
        (cell.events, cell.since, cell.fired, cell.last) = (stored.events, stored.since, stored.fired, stored.last);
        is_right
    }
}
