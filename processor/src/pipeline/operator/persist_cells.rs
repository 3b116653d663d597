//! Cells of instances and sessions as keys and values, and back. Must not know what triggers do with them.

use std::sync::Arc;

use super::Task;
use super::cell::{Cells, Stored, StoredCell};
use super::paging::bytes_in_memory;
use super::persist::{Restoring, corrupt};
use crate::aggregation::layout::Layout;
use crate::aggregation::rows::{RowMut, RowStore};
use crate::core::key;
use crate::pipeline::builder::Place;
use crate::state::backend::{Changes, Error};
use crate::state::codec::{self, CellHeader};

impl Task {
    /// Appends the changed cells, and that sessions are no more.
    pub(super) fn take_cells(&mut self, changes: &mut Changes) {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let epoch = self.paging.epoch();
        for set in &mut self.instances {
            let index = set.index();
            for ((end_ms, start_ms), instance) in &mut set.instances {
                for slot in std::mem::take(&mut instance.dirty) {
                    let cell = set.cells.get(slot);
                    if !cell.dirty {
                        continue;
                    }
                    instance.stored = true;
                    codec::write_instance_key(index, *end_ms, self.keys.bytes(cell.key), &mut key);
                    set.cells.mark_clean(slot, epoch);
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
                let cell = set.cells.get(slot);
                if !cell.dirty {
                    continue;
                }
                let key_id = cell.key;
                set.cells.mark_clean(slot, epoch);
                let (start_ms, end_ms) = set.store(slot);
                codec::write_session_key(index, start_ms, self.keys.bytes(key_id), &mut key);
                write_cell(&self.plan.layout, &set.cells, slot, end_ms, &mut value);
                changes.put(&key, &value);
            }
        }
    }

    pub(super) fn load_cells(&mut self, from: &mut Restoring<'_>) -> Result<(), Error> {
        let Restoring {
            layout,
            shared,
            migration,
            backend,
            room,
        } = from;
        let plan = Arc::clone(&self.plan);
        let mut rows = RowStore::new(layout, 0);
        let stored_rows = [rows.push(), rows.push()];
        let row_bytes = rows.row_bytes();
        for tag in [codec::INSTANCE_CELL, codec::SESSION_CELL] {
            backend.scan(&[tag], &mut |key, value| {
                let (window, time_ms, key_bytes) =
                    codec::read_timed_key(key).ok_or_else(|| corrupt("cell key", "too short"))?;
                let window = migration
                    .windows
                    .get(window)
                    .ok_or_else(|| corrupt("cell key", "unknown window"))?;
                let (bound_ms, cell, has_published) = read_cell(value, layout, &mut rows, stored_rows)?;
                let copy = |published: bool, row: RowMut<'_>| {
                    plan.layout
                        .adopt(row, layout, rows.get(stored_rows[usize::from(published)]), shared);
                    true
                };
                let has_room = room.takes(bytes_in_memory(key, value, row_bytes));
                let watermark_ms = self.position.watermark_ms;
                match (self.plan.windows[*window].place, tag) {
                    (Place::Instances(number), codec::INSTANCE_CELL) => {
                        let set = &mut self.instances[number];
                        let span = (bound_ms, time_ms);
                        if !has_room && set.cells.may_leave(cell.since) {
                            set.leave(span);
                            return Ok(());
                        }
                        let key = self.keys.intern(key_bytes);
                        let slot = set.load(span, key, &mut self.keys);
                        set.cells.load(slot, cell, has_published, copy);
                        Ok(())
                    }
                    (Place::Sessions(number), codec::SESSION_CELL) => {
                        let set = &mut self.sessions[number];
                        if !has_room && set.cells.may_leave(cell.since) {
                            set.leave(key::hash(key_bytes), (time_ms, bound_ms), watermark_ms);
                            return Ok(());
                        }
                        let key = self.keys.intern(key_bytes);
                        self.keys.retain(key);
                        let slot = set.load(key, time_ms, bound_ms, watermark_ms);
                        set.cells.load(slot, cell, has_published, copy);
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
                    set.cells.mark_clean(slot, 0);
                }
            }
        }
        for set in &mut self.sessions {
            for slot in std::mem::take(&mut set.dirty) {
                set.cells.mark_clean(slot, 0);
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
    let stored = Stored::read(bytes).ok_or_else(wrong)?;
    if !layout.decode(stored.values, rows.get_mut(values)) {
        return Err(wrong());
    }
    if (stored.published).is_some_and(|bytes| !layout.decode(bytes, rows.get_mut(published))) {
        return Err(wrong());
    }
    Ok((stored.bound_ms, stored.cell, stored.published.is_some()))
}
