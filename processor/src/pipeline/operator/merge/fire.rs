//! Which windows of a window task fire, and with what: rows that every window takes and those that some do not.
//! Must not move the watermark or purge.

use super::super::emit::{PaneLabel, Timing};
use super::super::pane::Pane;
use super::{Barred, END_OF_INPUT, WindowTask};
use crate::aggregation::rows::RowStore;
use crate::pipeline::builder::{Place, Plan};
use crate::pipeline::output::Outputs;
use crate::pipeline::position::NO_WATERMARK;
use crate::window::types::Window;

impl WindowTask {
    pub(super) fn fire_on_time(&mut self, window: Window, outputs: &mut Outputs) {
        let task = &mut self.task;
        let lateness_ms = task.plan.windows[window.index].plan.allowed_lateness_ms;
        let mut merged = task.merged_rows(&window);
        for pane in barred_panes(&task.plan, &self.barred, &window) {
            merged.add(pane, &task.plan.layout);
        }
        let pane = PaneLabel {
            index: 0,
            timing: Timing::OnTime,
            is_final: lateness_ms == 0 || task.position.watermark_ms == END_OF_INPUT,
        };
        task.emit_merged(merged, window, pane, outputs);
    }

    /// Windows that had ended when partials of this record came fire again, once for each key.
    pub(super) fn fire_late(&mut self, outputs: &mut Outputs) {
        if self.firing.is_empty() {
            return;
        }
        let mut firing = std::mem::take(&mut self.firing);
        let keys = &self.task.keys;
        firing.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| keys.bytes(a.1).cmp(keys.bytes(b.1))));
        firing.dedup();
        for (window, key) in &firing {
            self.fire_key(*window, *key, outputs);
        }
        firing.clear();
        self.firing = firing;
    }

    fn fire_key(&mut self, window: Window, key: u32, outputs: &mut Outputs) {
        let task = &mut self.task;
        let mut rows = RowStore::new(&task.plan.layout, 0);
        let merged = rows.push();
        let mut fired_on_time = false;
        task.bring(&window, key);
        let panes = task.panes_of(&window).iter();
        for pane in panes.chain(barred_panes(&task.plan, &self.barred, &window)) {
            if let Some(row) = pane.find(key) {
                fired_on_time |= pane.born_ms(row) < window.end_ms;
                task.plan.layout.merge(rows.get_mut(merged), pane.values(row));
            }
        }
        let id = (window.end_ms, window.index, key);
        let count = task.late.count(id, &mut task.keys);
        let pane = PaneLabel {
            index: *count + u64::from(fired_on_time),
            timing: Timing::Late,
            is_final: false,
        };
        *count += 1;
        task.late.dirty.insert(id);
        task.emit(window, key, pane, rows.get(merged), outputs);
    }
}

/// Panes that a window takes of those that some windows do not.
pub(in super::super) fn barred_panes<'a>(
    plan: &'a Plan,
    barred: &'a Barred,
    window: &Window,
) -> impl Iterator<Item = &'a Pane> {
    let compiled = &plan.windows[window.index];
    let purged_at_ms = window.end_ms.saturating_add(compiled.plan.allowed_lateness_ms);
    let (start_ms, end_ms) = (window.start_ms, window.end_ms);
    let set = match compiled.place {
        Place::Panes(set) => Some(set),
        Place::Instances(_) | Place::Sessions(_) | Place::Counts(_) => None,
    };
    let sets = set.map(|set| barred.range((set, NO_WATERMARK)..(set, purged_at_ms)));
    sets.into_iter()
        .flatten()
        .flat_map(move |(_, set)| set.range(start_ms, end_ms))
}
