//! A window task's state as keys and values, and back: that of any task, the barred rows and what is known of the source
//! partitions. Keyspace and formats are in `state::codec`.

use std::sync::Arc;

use super::earlier::Earlier;
use super::{PaneSet, WindowTask};
use crate::aggregation::layout::Layout;
use crate::aggregation::rows::RowStore;
use crate::pipeline::builder::{Plan, StateLayout};
use crate::pipeline::operator::Task;
use crate::pipeline::operator::persist::{Migration, corrupt, parse_layout};
use crate::state::backend::{Backend, Changes, Error, Reader};
use crate::state::codec;

impl WindowTask {
    /// Appends every change of the state since the last call, the position included.
    pub fn take_changes(&mut self, changes: &mut Changes) {
        self.task.take_changes(changes);
        for (set, barred_ms, start_ms) in std::mem::take(&mut self.purged) {
            let range = codec::barred_range(set, barred_ms, start_ms);
            changes.delete_range(&range.start, &range.end);
        }
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for ((index, barred_ms), set) in &mut self.barred {
            for pane in set.panes_mut() {
                let dirty = pane.take_dirty(self.task.paging.epoch());
                pane.stored |= !dirty.is_empty();
                for row in dirty {
                    let key_bytes = self.task.keys.bytes(pane.keys[row as usize]);
                    codec::write_barred_key(*index, *barred_ms, pane.start_ms, key_bytes, &mut key);
                    codec::write_row(pane.born_ms(row), &self.task.plan.layout, pane.values(row), &mut value);
                    changes.put(&key, &value);
                }
            }
        }
        if let Some(document) = self.sources.take_changed() {
            changes.put(codec::SOURCES, &document);
        }
    }

    /// The task that a store holds, or `None` when it holds none.
    ///
    /// # Errors
    /// As [`Task::restore`].
    pub fn restore(plan: Arc<Plan>, backend: &dyn Backend) -> Result<Option<Self>, Error> {
        Self::restore_with(plan, backend, |plan| Task::restore(plan, backend))
    }

    /// As [`Self::restore`], of a task whose clean rows may leave memory ([`Self::page`]).
    ///
    /// # Errors
    /// As [`Self::restore`].
    pub fn restore_paged(plan: Arc<Plan>, reader: &Reader, budget_bytes: usize) -> Result<Option<Self>, Error> {
        Self::restore_with(plan, reader.backend(), |plan| {
            Task::restore_paged(plan, reader, budget_bytes)
        })
    }

    fn restore_with(
        plan: Arc<Plan>,
        backend: &dyn Backend,
        restore: impl FnOnce(Arc<Plan>) -> Result<Option<Task>, Error>,
    ) -> Result<Option<Self>, Error> {
        let (Some(layout), Some(task)) = (backend.get(codec::LAYOUT)?, restore(Arc::clone(&plan))?) else {
            return Ok(None);
        };
        let stored = parse_layout(&layout)?;
        let mut restored = Self::around(task);
        restored.load_barred(&stored, &Migration::between(&stored, &plan.state_layout)?, backend)?;
        if let Some(document) = backend.get(codec::SOURCES)? {
            restored.sources =
                serde_json::from_slice(&document).map_err(|error| corrupt("source partitions", error))?;
        }
        if stored != plan.state_layout {
            restored.sources.remember(stored);
        }
        let earlier = restored.sources.layouts().iter();
        restored.earlier = earlier
            .filter_map(|layout| Some((layout.fingerprint(), Earlier::new(layout, &plan).ok()?)))
            .collect();
        if !restored.task.unsaved.layout {
            for pane in restored.barred.values_mut().flat_map(PaneSet::panes_mut) {
                pane.take_dirty(0);
            }
        }
        restored.task.next_due_ms = restored.next_due();
        Ok(Some(restored))
    }

    fn load_barred(&mut self, stored: &StateLayout, migration: &Migration, backend: &dyn Backend) -> Result<(), Error> {
        let plan = Arc::clone(&self.task.plan);
        let layout = Layout::of_stored(&stored.accumulators);
        let shared = plan.layout.shared_with(&layout);
        let mut rows = RowStore::new(&layout, 0);
        let row = rows.push();
        backend.scan(&[codec::BARRED_ROW], &mut |key, value| {
            let (set, barred_ms, start_ms, key_bytes) =
                codec::read_barred_key(key).ok_or_else(|| corrupt("key of a barred row", "too short"))?;
            let born_ms = codec::read_row(value, &layout, rows.get_mut(row))
                .ok_or_else(|| corrupt("barred row", "not in its format"))?;
            let Some(index) = migration.sets.get(set) else {
                return Err(corrupt("key of a barred row", "unknown pane set"));
            };
            let key = self.task.keys.intern(key_bytes);
            let made = || PaneSet::new(*index, &plan.pane_sets[*index]);
            let set = self.barred.entry((*index, barred_ms)).or_insert_with(made);
            let (values, _) = set.rare_row(&plan, start_ms, key, born_ms, &mut self.task.keys);
            plan.layout.adopt(values, &layout, rows.get(row), &shared);
            Ok(())
        })?;
        for pane in self.barred.values_mut().flat_map(PaneSet::panes_mut) {
            pane.stored = true;
        }
        Ok(())
    }
}
