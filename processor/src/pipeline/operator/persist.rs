//! A task's state as keys and values, and back. Keyspace and formats are in `state::codec`; a layout document beside
//! the rows says what their words mean, so that a changed spec can still read them.

use std::sync::Arc;

use super::Task;
use super::count::CountSet;
use super::paging::{Paging, Room, bytes_in_memory};
use super::pane::Maker;
use crate::aggregation::layout::Layout;
use crate::aggregation::rows::RowStore;
use crate::pipeline::builder::{Plan, STATE_FORMAT, StateLayout};
use crate::pipeline::position::TaskPosition;
use crate::state::backend::{Backend, Changes, Error, Reader};
use crate::state::codec;

impl Task {
    /// Appends every change of the state since the last call, the position included.
    pub fn take_changes(&mut self, changes: &mut Changes) {
        if std::mem::take(&mut self.unsaved.layout) {
            changes.delete_range(&[codec::PANE_ROW], &[codec::ENGINE_END]);
            put_json(changes, codec::LAYOUT, &self.plan.state_layout);
        }
        for (set, start_ms) in std::mem::take(&mut self.unsaved.purged_panes) {
            let range = codec::pane_range(set, start_ms);
            changes.delete_range(&range.start, &range.end);
        }
        for (window, end_ms) in std::mem::take(&mut self.unsaved.purged_late) {
            let range = codec::late_range(window, end_ms);
            changes.delete_range(&range.start, &range.end);
        }
        for (window, end_ms) in std::mem::take(&mut self.unsaved.purged_instances) {
            let range = codec::instance_range(window, end_ms);
            changes.delete_range(&range.start, &range.end);
        }
        let (mut key, mut value) = (Vec::new(), Vec::new());
        self.take_cells(changes);
        self.take_counts(changes);
        for (index, set) in self.sets.iter_mut().enumerate() {
            for pane in set.panes_mut() {
                let dirty = pane.take_dirty(self.paging.epoch());
                pane.stored |= !dirty.is_empty();
                for row in dirty {
                    codec::write_pane_key(index, pane.start_ms, self.keys.bytes(pane.keys[row as usize]), &mut key);
                    codec::write_row(pane.born_ms(row), &self.plan.layout, pane.values(row), &mut value);
                    changes.put(&key, &value);
                }
            }
        }
        for id in std::mem::take(&mut self.late.dirty) {
            let (end_ms, window, key_id) = id;
            if let Some(count) = self.late.counts.get(&id) {
                codec::write_late_key(window, end_ms, self.keys.bytes(key_id), &mut key);
                changes.put(&key, &count.to_le_bytes());
            }
        }
        if std::mem::take(&mut self.unsaved.latenesses) {
            put_json(changes, codec::LATENESSES, &self.latenesses());
        }
        if let Some(document) = self.ticks.take_changed(&self.plan) {
            changes.put(codec::TICKS, &document);
        }
        if let Some(bits) = self.bad_ratio.take_changed() {
            changes.put(codec::BAD_RATIO, &bits);
        }
        put_json(changes, codec::POSITION, &self.position);
        self.paging.end_epoch();
    }

    /// The task that a store holds, or `None` when it holds none. State of a compatible older spec is read into the
    /// new one: aggregates added begin with the events from here on, those dropped are forgotten.
    ///
    /// # Errors
    /// [`Error::Incompatible`] when the spec changed in a way that the state cannot follow, [`Error::Corrupt`] when a
    /// value cannot be read.
    pub fn restore(plan: Arc<Plan>, backend: &dyn Backend) -> Result<Option<Task>, Error> {
        Self::restore_with(plan, backend, Paging::default())
    }

    /// As [`Self::restore`], of a task whose clean rows may leave memory ([`Self::page`]): no more rows are read into it
    /// than these bytes take, except to give them another layout.
    ///
    /// # Errors
    /// As [`Self::restore`].
    pub fn restore_paged(plan: Arc<Plan>, reader: &Reader, budget_bytes: usize) -> Result<Option<Task>, Error> {
        let paging = Paging::new(reader.clone(), budget_bytes);
        Self::restore_with(plan, reader.backend(), paging)
    }

    fn restore_with(plan: Arc<Plan>, backend: &dyn Backend, paging: Paging) -> Result<Option<Task>, Error> {
        let Some(layout) = backend.get(codec::LAYOUT)? else {
            return Ok(None);
        };
        let stored = parse_layout(&layout)?;
        let position: TaskPosition = match backend.get(codec::POSITION)? {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| corrupt("position", error))?,
            None => return Err(corrupt("position", "it is missing")),
        };
        let migration = Migration::between(&stored, &plan.state_layout)?;
        let mut task = Task::at(Arc::clone(&plan), position);
        task.paging = paging;
        let latenesses = backend
            .get(codec::LATENESSES)?
            .map(|bytes| serde_json::from_slice(&bytes));
        let latenesses = latenesses.transpose().map_err(|error| corrupt("latenesses", error))?;
        task.close_again(&latenesses.unwrap_or_default());
        // Rows in another layout are all written anew with the next epoch; otherwise the store is up to date.
        task.unsaved.layout = stored != plan.state_layout;
        let room = if task.unsaved.layout {
            Room::ENDLESS
        } else {
            task.paging.room_at_start()
        };
        let layout = Layout::of_stored(&stored.accumulators);
        let mut from = Restoring {
            shared: plan.layout.shared_with(&layout),
            layout,
            migration: &migration,
            backend,
            room,
        };
        task.load_rows(&mut from)?;
        task.load_late(&migration, backend)?;
        task.load_cells(&mut from)?;
        task.load_counts(&mut from)?;
        if let Some(document) = backend.get(codec::TICKS)? {
            (task.ticks.load(&plan, &document)).map_err(|error| corrupt("ticks", error))?;
        }
        if let Some(bits) = backend.get(codec::BAD_RATIO)?
            && !task.bad_ratio.load(&bits)
        {
            return Err(corrupt("bad-record window", "wrong length"));
        }
        task.next_due_ms = task.next_due();
        if task.unsaved.layout {
            task.ticks.mark_changed();
            task.counts.iter_mut().for_each(CountSet::mark_all);
        } else {
            task.mark_clean();
        }
        Ok(Some(task))
    }

    fn load_rows(&mut self, from: &mut Restoring<'_>) -> Result<(), Error> {
        let Restoring {
            layout,
            shared,
            migration,
            backend,
            room,
        } = from;
        let mut rows = RowStore::new(layout, 0);
        let row = rows.push();
        let plan = Arc::clone(&self.plan);
        let row_bytes = rows.row_bytes();
        backend.scan(&[codec::PANE_ROW], &mut |key, value| {
            let (set, start_ms, key_bytes) =
                codec::read_timed_key(key).ok_or_else(|| corrupt("row key", "too short"))?;
            let born_ms =
                codec::read_row(value, layout, rows.get_mut(row)).ok_or_else(|| corrupt("row", "not in its format"))?;
            let Some(set) = migration.sets.get(set) else {
                return Err(corrupt("row key", "unknown pane set"));
            };
            if !room.takes(bytes_in_memory(key, value, row_bytes)) {
                self.sets[*set].leave(&plan, start_ms);
                return Ok(());
            }
            let key = self.keys.intern(key_bytes);
            let mut maker = Maker {
                plan: &plan,
                keys: &mut self.keys,
                paging: &mut self.paging,
            };
            let values = self.sets[*set].load_row(start_ms, key, born_ms, &mut maker);
            plan.layout.adopt(values, layout, rows.get(row), shared);
            Ok(())
        })
    }

    fn load_late(&mut self, migration: &Migration, backend: &dyn Backend) -> Result<(), Error> {
        backend.scan(&[codec::LATE_FIRINGS], &mut |key, value| {
            let (window, end_ms, key_bytes) =
                codec::read_timed_key(key).ok_or_else(|| corrupt("late firing", "too short"))?;
            let count = value
                .try_into()
                .map(u64::from_le_bytes)
                .map_err(|error| corrupt("late firing", error))?;
            let Some(window) = migration.windows.get(window) else {
                return Err(corrupt("late firing", "unknown window"));
            };
            let id = (end_ms, *window, self.keys.intern(key_bytes));
            *self.late.count(id, &mut self.keys) = count;
            self.late.dirty.insert(id);
            Ok(())
        })
    }

    fn mark_clean(&mut self) {
        for pane in self.sets.iter_mut().flat_map(|set| set.panes_mut()) {
            pane.take_dirty(0);
        }
        self.late.dirty.clear();
        self.mark_cells_clean();
    }
}

/// A store whose state is read, under the present spec.
pub(super) struct Restoring<'a> {
    /// Of its rows, and which of their accumulators the present layout has.
    pub layout: Layout,
    pub shared: Vec<(usize, usize)>,
    pub migration: &'a Migration,
    pub backend: &'a dyn Backend,
    /// For what is read into memory.
    pub room: Room,
}

/// How stored state is read under the present spec.
#[derive(Clone, Debug)]
pub(super) struct Migration {
    /// Stored pane set → present one.
    pub sets: Vec<usize>,
    /// Stored window → present one.
    pub windows: Vec<usize>,
}

impl Migration {
    pub fn between(stored: &StateLayout, present: &StateLayout) -> Result<Self, Error> {
        let refuse = |what: String| Err(Error::Incompatible { what });
        if stored.group_by != present.group_by {
            return refuse(format!(
                "groupBy changed from {:?} to {:?}",
                stored.group_by, present.group_by
            ));
        }
        if stored.explode != present.explode {
            let name = |explode: &Option<String>| explode.clone().unwrap_or_else(|| "nothing".to_owned());
            return refuse(format!(
                "explode changed from {} to {}",
                name(&stored.explode),
                name(&present.explode)
            ));
        }
        let mut windows = Vec::with_capacity(stored.windows.len());
        for window in &stored.windows {
            match present.windows.iter().position(|other| other == window) {
                Some(index) => windows.push(index),
                None => {
                    return refuse(format!(
                        "window {:?} was removed or has another size, slide or offset",
                        window.name
                    ));
                }
            }
        }
        let mut sets = Vec::with_capacity(stored.pane_sets.len());
        for set in &stored.pane_sets {
            match present.pane_sets.iter().position(|other| other == set) {
                Some(index) => sets.push(index),
                None => return refuse("a window was added that cuts the panes of the others differently".to_owned()),
            }
        }
        let migration = Self { sets, windows };
        match migration.moved(stored, present) {
            Some(window) => refuse(format!(
                "window {window:?} would be on other panes than those that have its events: leave the windows in the order \
                 in which they were, and put new ones behind them"
            )),
            None => Ok(migration),
        }
    }
}

impl Migration {
    /// A window whose panes are in a set that it is not in any more. Which windows share panes depends on their order.
    fn moved<'a>(&self, stored: &'a StateLayout, present: &StateLayout) -> Option<&'a str> {
        let names = || stored.windows.iter().map(|window| window.name.as_str());
        let (Some(before), Some(now)) = (stored.sets_of_windows(), present.sets_of_windows()) else {
            return names().next();
        };
        let stays = |before: Option<usize>, window: usize| before.map(|set| self.sets[set]) == now[window];
        let places = before.into_iter().zip(&self.windows);
        let mut moved = names()
            .zip(places)
            .filter(|(_, (before, window))| !stays(*before, **window));
        moved.next().map(|(name, _)| name)
    }
}

pub(super) fn parse_layout(bytes: &[u8]) -> Result<StateLayout, Error> {
    let document: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| corrupt("layout", error))?;
    let format = document.get("format").and_then(serde_json::Value::as_u64).unwrap_or(0);
    if format != u64::from(STATE_FORMAT) {
        let found = u32::try_from(format).unwrap_or(u32::MAX);
        return Err(Error::Format {
            found,
            readable: STATE_FORMAT,
        });
    }
    serde_json::from_value(document).map_err(|error| corrupt("layout", error))
}

pub(super) fn put_json(changes: &mut Changes, key: &[u8], value: &impl serde::Serialize) {
    // Plain structs of numbers and strings always serialise; an empty value would be refused as corrupt on reading.
    changes.put(key, &serde_json::to_vec(value).unwrap_or_default());
}

pub(super) fn corrupt(what: &str, why: impl std::fmt::Display) -> Error {
    Error::Corrupt {
        what: format!("{what}: {why}"),
    }
}
