//! Partials of windows that keep values of their own, which fire one by one: what a partial absorbs is taken back first.
//! Must not hold: rows of shared panes.

use std::sync::Arc;

use super::{PurgedPartial, WindowTask};
use crate::aggregation::rows::RowMut;
use crate::core::timestamp::{EVENT_TIME_MAX_MS, EVENT_TIME_MIN_MS};
use crate::pipeline::builder::Place;
use crate::pipeline::output::Outputs;
use crate::pipeline::shuffle::CellPartial;
use crate::window::types::Window;

impl WindowTask {
    /// Reads one partial and merges it; answers what is damaged where it cannot be one.
    pub(super) fn read_cell(
        &mut self,
        layout: u64,
        mut cell: CellPartial<'_>,
        outputs: &mut Outputs,
        purged: &mut Vec<PurgedPartial>,
    ) -> Result<(), &'static str> {
        if let Some(earlier) = self.earlier.get(&layout).filter(|_| layout != self.layout) {
            cell.window = earlier.window(cell.window).ok_or("a window")?;
        }
        self.read_row(layout, cell.row)?;
        self.task.paging.count(1);
        let plan = Arc::clone(&self.task.plan);
        let window = plan.windows.get(cell.window).ok_or("a window")?;
        if !can_be(cell.span_ms) {
            return Err("the times of a window");
        }
        if std::str::from_utf8(cell.key).is_err() {
            return Err("a key");
        }
        if self.is_purged(window.place, cell.span_ms.1) {
            self.task.stats.losses[cell.window] += 1;
            let name = window.plan.name.clone();
            purged.push(self.purged_partial(name, cell.span_ms, cell.key));
            return Ok(());
        }
        let key = self.task.keys.intern(cell.key);
        if let Some(due) = self.add_cell(window.place, key, &cell, outputs)? {
            self.task.fire_key(due, key, outputs);
        }
        Ok(())
    }

    /// Whether what ends here has been purged: its source partition is younger than the watermark.
    fn is_purged(&self, place: Place, end_ms: i64) -> bool {
        let watermark_ms = self.task.position.watermark_ms;
        match place {
            Place::Instances(number) => self.task.instances[number].is_closed(end_ms, watermark_ms),
            Place::Sessions(number) => self.task.sessions[number].closes_at(end_ms) <= watermark_ms,
            Place::Panes(_) | Place::Counts(_) => false,
        }
    }

    /// Merges the row that was read; answers the window that the number of its events makes fire.
    fn add_cell(
        &mut self,
        place: Place,
        key: u32,
        cell: &CellPartial<'_>,
        outputs: &mut Outputs,
    ) -> Result<Option<Window>, &'static str> {
        let (task, values) = (&mut self.task, self.row.get(0));
        let plan = Arc::clone(&task.plan);
        let (layout, watermark_ms) = (&plan.layout, task.position.watermark_ms);
        match place {
            Place::Panes(_) => Err("the kind of a window"),
            Place::Instances(number) => {
                let (sets, mut maker) = task.makers();
                let set = &mut sets.instances[number];
                let (slot, due_ms) = set.cell(cell.span_ms, key, watermark_ms, &mut maker);
                task.next_due_ms = task.next_due_ms.min(due_ms);
                let set = &mut task.instances[number];
                set.cells.merge(slot, layout, cell.events, values);
                let is_due = set.cells.is_due(slot, cell.span_ms.1 <= watermark_ms);
                Ok(is_due.then(|| set.window(cell.span_ms)))
            }
            Place::Sessions(number) => {
                task.bring_sessions(number, key);
                let (sets, mut emitter) = task.own_sets(outputs);
                let set = &mut sets.sessions[number];
                let added = set.add(key, cell.span_ms, &mut emitter, |cells, slot| {
                    cells.merge(slot, layout, cell.events, values);
                });
                Ok(task.joined(number, key, &added))
            }
            Place::Counts(number) => {
                let (sets, mut maker) = task.makers();
                let merge = |row: RowMut<'_>| layout.merge(row, values);
                Ok(sets.counts[number].add((key, cell.span_ms.0), &mut maker, merge))
            }
        }
    }
}

/// Whether a window can have these times.
fn can_be((start_ms, end_ms): (i64, i64)) -> bool {
    (start_ms, end_ms) == Window::ALL_TIME
        || start_ms < end_ms && start_ms <= EVENT_TIME_MAX_MS && end_ms > EVENT_TIME_MIN_MS
}
