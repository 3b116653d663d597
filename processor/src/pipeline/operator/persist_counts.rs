//! Count windows as keys and values, and back. Must not know when they fire.

use std::sync::Arc;

use super::Task;
use super::count::Counts;
use super::paging::bytes_in_memory;
use super::persist::{Restoring, corrupt};
use crate::aggregation::rows::{RowMut, RowStore};
use crate::core::key;
use crate::pipeline::builder::Place;
use crate::state::backend::{Changes, Error};
use crate::state::codec;

impl Task {
    /// Appends the changed keys of count windows, and that all are no more.
    pub(super) fn take_counts(&mut self, changes: &mut Changes) {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let (layout, keys, epoch) = (&self.plan.layout, &self.keys, self.paging.epoch());
        for set in &mut self.counts {
            let index = set.index();
            if set.take_cleared() {
                let range = codec::count_range(index);
                changes.delete_range(&range.start, &range.end);
            }
            set.take_changed(epoch, |key_id, place, counts, [least, most], row| {
                codec::write_count_key(index, place, keys.bytes(key_id), &mut key);
                let counters = [counts.events, counts.fired_at, counts.fired].map(|number| number as i64);
                let numbers = [counters[0], counters[1], counters[2], least, most];
                let first = if place.is_some() { counters.len() } else { 0 };
                codec::write_numbered_row(&numbers[first..], layout, row, &mut value);
                changes.put(&key, &value);
            });
        }
    }

    pub(super) fn load_counts(&mut self, from: &mut Restoring<'_>) -> Result<(), Error> {
        let Restoring {
            layout,
            shared,
            migration,
            backend,
            room,
        } = from;
        let plan = Arc::clone(&self.plan);
        let mut rows = RowStore::new(layout, 0);
        let row = rows.push();
        let row_bytes = rows.row_bytes();
        backend.scan(&[codec::COUNT_ROW], &mut |key, value| {
            let wrong = || corrupt("count window", "not in its format");
            let (window, place, key_bytes) = codec::read_timed_key(key).ok_or_else(wrong)?;
            let window = migration.windows.get(window).ok_or_else(wrong)?;
            let Place::Counts(number) = plan.windows[*window].place else {
                return Err(corrupt("count window", "a window of another kind"));
            };
            let set = &mut self.counts[number];
            let known = self.keys.find(key::hash(key_bytes), key_bytes);
            let is_left = known.and_then(|known| set.find(known.id())).is_none();
            let (place, counts, times) = if place < 0 {
                let (counts, times, values) = Counts::read(value).ok_or_else(wrong)?;
                layout
                    .decode(values, rows.get_mut(row))
                    .then_some(())
                    .ok_or_else(wrong)?;
                if !room.takes(bytes_in_memory(key, value, row_bytes) * set.rows_of(&counts)) {
                    set.leave(&counts);
                    return Ok(());
                }
                (None, counts, times)
            } else if is_left && set.left() > 0 {
                return Ok(());
            } else {
                let times = codec::read_numbered_row(value, layout, rows.get_mut(row)).ok_or_else(wrong)?;
                (usize::try_from(place).ok(), Counts::default(), times)
            };
            let id = self.keys.intern(key_bytes);
            let copy = |target: RowMut<'_>| plan.layout.adopt(target, layout, rows.get(row), shared);
            let is_right = set.load(id, place, (counts, times), &mut self.keys, copy);
            is_right.then_some(()).ok_or_else(wrong)
        })?;
        if self.counts.iter().all(super::CountSet::is_whole) {
            Ok(())
        } else {
            Err(corrupt("count window", "events of a key are missing"))
        }
    }
}
