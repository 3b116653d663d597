//! Cells of instances and sessions as keys and values, and back. Must not know what triggers do with them.

use std::sync::Arc;

use super::Task;
use super::cell::{Cells, StoredCell};
use super::emit::{PaneLabel, Timing};
use super::persist::{Migration, corrupt};
use crate::aggregation::layout::Layout;
use crate::aggregation::rows::{RowMut, RowStore};
use crate::pipeline::builder::{Place, StateLayout};
use crate::state::backend::{Backend, Changes, Error};
use crate::state::codec::{self, CellHeader};

impl Task {
    /// Appends the changed cells, and that sessions are no more.
    pub(super) fn take_cells(&mut self, changes: &mut Changes) {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for set in &mut self.instances {
            let index = set.index();
            for ((end_ms, start_ms), instance) in &mut set.instances {
                for slot in std::mem::take(&mut instance.dirty) {
                    let cell = set.cells.get_mut(slot);
                    if !std::mem::take(&mut cell.dirty) {
                        continue;
                    }
                    instance.stored = true;
                    codec::write_instance_key(index, *end_ms, self.keys.bytes(cell.key), &mut key);
                    write_cell(&self.plan.layout, &set.cells, slot, *start_ms, &mut value);
                    changes.put(&key, &value);
                }
            }
        }
        for set in &mut self.sessions {
            let index = set.index();
            for (start_ms, key_bytes) in std::mem::take(&mut set.removed) {
                codec::write_session_key(index, start_ms, &key_bytes, &mut key);
                changes.delete(&key);
            }
            for slot in std::mem::take(&mut set.dirty) {
                let cell = set.cells.get_mut(slot);
                if !std::mem::take(&mut cell.dirty) {
                    continue;
                }
                let key_id = cell.key;
                let (start_ms, end_ms) = set.store(slot);
                codec::write_session_key(index, start_ms, self.keys.bytes(key_id), &mut key);
                write_cell(&self.plan.layout, &set.cells, slot, end_ms, &mut value);
                changes.put(&key, &value);
            }
        }
    }

    pub(super) fn load_cells(
        &mut self,
        stored: &StateLayout,
        migration: &Migration,
        backend: &dyn Backend,
    ) -> Result<(), Error> {
        let layout = Layout::of_stored(&stored.accumulators);
        let shared = self.plan.layout.shared_with(&layout);
        let plan = Arc::clone(&self.plan);
        let mut rows = RowStore::new(&layout, 0);
        let stored_rows = [rows.push(), rows.push()];
        for tag in [codec::INSTANCE_CELL, codec::SESSION_CELL] {
            backend.scan(&[tag], &mut |key, value| {
                let (window, time_ms, key_bytes) =
                    codec::read_timed_key(key).ok_or_else(|| corrupt("cell key", "too short"))?;
                let window = migration
                    .windows
                    .get(window)
                    .ok_or_else(|| corrupt("cell key", "unknown window"))?;
                let (bound_ms, cell, has_published) = read_cell(value, &layout, &mut rows, stored_rows)?;
                let copy = |published: bool, row: RowMut<'_>| {
                    plan.layout
                        .adopt(row, &layout, rows.get(stored_rows[usize::from(published)]), &shared);
                };
                let key = self.keys.intern(key_bytes);
                let watermark_ms = self.position.watermark_ms;
                match (self.plan.windows[*window].place, tag) {
                    (Place::Instances(number), codec::INSTANCE_CELL) => {
                        let set = &mut self.instances[number];
                        let span = (bound_ms, time_ms);
                        let (slot, _) = set.cell(span, key, watermark_ms, &mut self.keys);
                        set.cells.load(slot, cell, has_published, &copy);
                        if let Some(instance) = set.instances.get_mut(&(time_ms, bound_ms)) {
                            instance.stored = true;
                        }
                        Ok(())
                    }
                    (Place::Sessions(number), codec::SESSION_CELL) => {
                        let set = &mut self.sessions[number];
                        self.keys.retain(key);
                        let slot = set.load(key, time_ms, bound_ms, watermark_ms);
                        set.cells.load(slot, cell, has_published, &copy);
                        Ok(())
                    }
                    (Place::Panes(_) | Place::Instances(_) | Place::Sessions(_) | Place::Counts(_), _) => {
                        Err(corrupt("cell key", "a window of another kind"))
                    }
                }
            })?;
        }
        Ok(())
    }

    pub(super) fn mark_cells_clean(&mut self) {
        for set in &mut self.instances {
            for instance in set.instances.values_mut() {
                for slot in std::mem::take(&mut instance.dirty) {
                    set.cells.get_mut(slot).dirty = false;
                }
            }
        }
        for set in &mut self.sessions {
            for slot in std::mem::take(&mut set.dirty) {
                set.cells.get_mut(slot).dirty = false;
            }
        }
    }
}

fn write_cell(layout: &Layout, cells: &Cells, slot: u32, bound_ms: i64, out: &mut Vec<u8>) {
    let cell = cells.get(slot);
    let header = CellHeader {
        bound_ms,
        events: cell.events,
        since: cell.since,
        fired: cell.fired,
        last: cell.last.map(|pane| (pane.index, pane.timing as u8, pane.is_final)),
    };
    let (row, published) = cells.values(slot);
    codec::write_cell(&header, layout, row, published, out);
}

/// Bound, counters and whether there are published values; the values themselves are read into two rows.
fn read_cell(
    bytes: &[u8],
    layout: &Layout,
    rows: &mut RowStore,
    [values, published]: [u32; 2],
) -> Result<(i64, StoredCell, bool), Error> {
    let wrong = || corrupt("cell", "not in its format");
    let (header, value_bytes, published_bytes) = codec::read_cell(bytes).ok_or_else(wrong)?;
    if !layout.decode(value_bytes, rows.get_mut(values)) {
        return Err(wrong());
    }
    if published_bytes.is_some_and(|bytes| !layout.decode(bytes, rows.get_mut(published))) {
        return Err(wrong());
    }
    let last = match header.last {
        None => None,
        Some((index, code, is_final)) => {
            let timing = Timing::from_code(code).ok_or_else(wrong)?;
            Some(PaneLabel {
                index,
                timing,
                is_final,
            })
        }
    };
    let cell = StoredCell {
        events: header.events,
        since: header.since,
        fired: header.fired,
        last,
    };
    Ok((header.bound_ms, cell, published_bytes.is_some()))
}
