//! Count windows as keys and values, and back. Must not know when they fire.

use std::sync::Arc;

use super::Task;
use super::count::Counts;
use super::persist::{Migration, corrupt};
use crate::aggregation::layout::Layout;
use crate::aggregation::rows::RowStore;
use crate::pipeline::builder::{Place, StateLayout};
use crate::state::backend::{Backend, Changes, Error};
use crate::state::codec;

impl Task {
    /// Appends the changed keys of count windows, and that all are no more.
    pub(super) fn take_counts(&mut self, changes: &mut Changes) {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let (layout, keys) = (&self.plan.layout, &self.keys);
        for set in &mut self.counts {
            let index = set.index();
            if set.take_cleared() {
                let range = codec::count_range(index);
                changes.delete_range(&range.start, &range.end);
            }
            set.take_changed(|key_id, place, counts, [least, most], row| {
                codec::write_count_key(index, place, keys.bytes(key_id), &mut key);
                let counters = [counts.events, counts.fired_at, counts.fired].map(|number| number as i64);
                let numbers = [counters[0], counters[1], counters[2], least, most];
                let first = if place.is_some() { counters.len() } else { 0 };
                codec::write_numbered_row(&numbers[first..], layout, row, &mut value);
                changes.put(&key, &value);
            });
        }
    }

    pub(super) fn load_counts(
        &mut self,
        stored: &StateLayout,
        migration: &Migration,
        backend: &dyn Backend,
    ) -> Result<(), Error> {
        let layout = Layout::of_stored(&stored.accumulators);
        let shared = self.plan.layout.shared_with(&layout);
        let plan = Arc::clone(&self.plan);
        let mut rows = RowStore::new(&layout, 0);
        let row = rows.push();
        backend.scan(&[codec::COUNT_ROW], &mut |key, value| {
            let wrong = || corrupt("count window", "not in its format");
            let (window, place, key_bytes) = codec::read_timed_key(key).ok_or_else(wrong)?;
            let window = migration.windows.get(window).ok_or_else(wrong)?;
            let Place::Counts(number) = plan.windows[*window].place else {
                return Err(corrupt("count window", "a window of another kind"));
            };
            let (place, numbers) = if place < 0 {
                let read = codec::read_numbered_row::<5>(value, &layout, rows.get_mut(row));
                (None, read.ok_or_else(wrong)?)
            } else {
                let [least, most] = codec::read_numbered_row(value, &layout, rows.get_mut(row)).ok_or_else(wrong)?;
                (usize::try_from(place).ok(), [0, 0, 0, least, most])
            };
            let [events, fired_at, fired, least, most] = numbers;
            if place.is_none() && !(events > 0 && (0..=events).contains(&fired_at) && (0..=events).contains(&fired)) {
                return Err(wrong());
            }
            let counts = Counts {
                events: events as u64,
                fired_at: fired_at as u64,
                fired: fired as u64,
            };
            let id = self.keys.intern(key_bytes);
            let copy = |target: crate::aggregation::rows::RowMut<'_>| {
                plan.layout.adopt(target, &layout, rows.get(row), &shared);
            };
            let is_right = self.counts[number].load(id, place, (counts, [least, most]), &mut self.keys, copy);
            is_right.then_some(()).ok_or_else(wrong)
        })?;
        if self.counts.iter().all(super::CountSet::is_whole) {
            Ok(())
        } else {
            Err(corrupt("count window", "events of a key are missing"))
        }
    }
}
