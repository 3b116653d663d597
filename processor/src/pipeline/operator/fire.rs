//! Firing windows as the watermark advances and as events come.
//! Outputs of one moment go in order of (end, start, window name, key bytes); what events absorb is taken back first.

use super::emit::{Emitter, Firing, Operation, PaneLabel, Timing};
use super::merge::Barred;
use super::merged::Merged;
use super::pane::{Maker, Pane, PaneSet};
use super::session::Added;
use super::{CountSet, END_OF_INPUT, InstanceSet, SessionSet, Task};
use crate::aggregation::rows::RowStore;
use crate::pipeline::builder::Place;
use crate::pipeline::output::Outputs;
use crate::window::types::Window;

/// A window that fires; with a slot, for the key of that cell only.
pub(super) type Due = (Window, Option<u32>);

/// The windows that are not on shared panes.
pub(super) struct OwnSets<'a> {
    pub instances: &'a mut [InstanceSet],
    pub sessions: &'a mut [SessionSet],
    pub counts: &'a mut [CountSet],
}

impl Task {
    /// Moves the watermark up (never down), fires what has ended and purges what cannot change any more.
    pub(super) fn advance_watermark(&mut self, to_ms: i64, outputs: &mut Outputs) {
        let from_ms = self.position.watermark_ms;
        if to_ms <= from_ms {
            return;
        }
        self.position.watermark_ms = to_ms;
        if to_ms < self.next_due_ms {
            return;
        }
        let due = self.due_between(from_ms, to_ms, &Barred::new());
        for due in &due {
            if !self.fire_own(*due, from_ms, outputs) {
                self.fire_on_time(due.0, outputs);
            }
        }
        if self.is_to_purge(from_ms, to_ms, &due) {
            self.purge(to_ms, &due);
        }
        self.next_due_ms = self.next_due();
    }

    /// Whether something may have to be forgotten. Sessions are looked at before they are due; what is kept must not depend
    /// on when, so nothing is purged then.
    pub(super) fn is_to_purge(&self, from_ms: i64, to_ms: i64, due: &[Due]) -> bool {
        let ended = to_ms == END_OF_INPUT;
        ended || !due.is_empty() || self.sets.iter().any(|set| set.next_due(from_ms) <= to_ms)
    }

    /// Fires a window that keeps values of its own when the watermark has come from `from_ms`; false for one on shared panes.
    pub(super) fn fire_own(&mut self, (window, slot): Due, from_ms: i64, outputs: &mut Outputs) -> bool {
        let place = self.plan.windows[window.index].place;
        if let Place::Instances(number) = place {
            self.fire_instance(number, window, from_ms, outputs);
            return true;
        }
        let (sets, mut emitter) = self.own_sets(outputs);
        match (place, slot) {
            (Place::Panes(_) | Place::Instances(_), _) => return false,
            (Place::Sessions(number), Some(slot)) => {
                sets.sessions[number].fire(window, slot, from_ms, &mut emitter);
            }
            (Place::Counts(number), Some(slot)) => sets.counts[number].fire(window, slot, &mut emitter),
            // They are due by their slots.
            (Place::Sessions(_) | Place::Counts(_), None) => {}
        }
        true
    }

    fn fire_instance(&mut self, number: usize, window: Window, from_ms: i64, outputs: &mut Outputs) {
        let (sets, mut maker) = self.makers();
        sets.instances[number].bring_instance(&window, &mut maker);
        let (sets, mut emitter) = self.own_sets(outputs);
        sets.instances[number].fire(window, from_ms, &mut emitter);
        self.instances[number].forget_closed(&window, self.position.watermark_ms, &mut self.keys);
    }

    /// Watermark at which something fires or is purged next.
    pub(super) fn next_due(&self) -> i64 {
        let watermark_ms = self.position.watermark_ms;
        let shared = self.sets.iter().map(|set| set.next_due(watermark_ms));
        let own = self.instances.iter().map(|set| set.next_due(watermark_ms));
        let sessions = self.sessions.iter().map(|set| set.next_due());
        shared.chain(own).chain(sessions).min().unwrap_or(i64::MAX)
    }

    /// What fires or closes when the watermark goes from `from` to `to`, in order; `barred`: rows beside the task's own.
    pub(super) fn due_between(&mut self, from_ms: i64, to_ms: i64, barred: &Barred) -> Vec<Due> {
        let mut due = ended_between(self.sets.iter().chain(barred.values()), from_ms, to_ms);
        for set in &self.instances {
            set.due_between(from_ms, to_ms, &mut due);
        }
        let (own, mut maker) = self.makers();
        for set in own.sessions {
            set.bring_due(from_ms, to_ms, &mut maker);
            set.due_between(from_ms, to_ms, &mut due);
        }
        if to_ms == END_OF_INPUT {
            for set in own.counts {
                set.bring_every_key(&mut maker);
                set.waiting(&mut due);
            }
        }
        self.sort(&mut due);
        due
    }

    /// Puts firings in order; those of one window and time that have a slot by the bytes of their keys.
    pub(super) fn sort(&self, due: &mut [Due]) {
        let key = |(window, slot): &Due| {
            slot.map(|slot| {
                self.keys.bytes(match self.plan.windows[window.index].place {
                    Place::Sessions(number) => self.sessions[number].cells.get(slot).key,
                    Place::Instances(number) => self.instances[number].cells.get(slot).key,
                    Place::Counts(number) => self.counts[number].key(slot),
                    // Shared panes have no slots.
                    Place::Panes(_) => return &[][..],
                })
            })
        };
        due.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| key(a).cmp(&key(b))));
    }

    fn fire_on_time(&mut self, window: Window, outputs: &mut Outputs) {
        let is_final =
            self.plan.windows[window.index].plan.allowed_lateness_ms == 0 || self.position.watermark_ms == END_OF_INPUT;
        let pane = PaneLabel {
            index: 0,
            timing: Timing::OnTime,
            is_final,
        };
        if self.fire_running(window, pane, outputs) {
            return;
        }
        let merged = self.merged_rows(&window);
        self.emit_merged(merged, window, pane, outputs);
    }

    /// Fires a window from its running aggregate; false when it has none.
    fn fire_running(&mut self, window: Window, pane: PaneLabel, outputs: &mut Outputs) -> bool {
        let Place::Panes(number) = self.plan.windows[window.index].place else {
            return false;
        };
        let layout = &self.plan.layout;
        let set = &mut self.sets[number];
        let Some(running) = set.running(&window, layout, &self.keys) else {
            return false;
        };
        let mut emitter = Emitter {
            plan: &self.plan,
            keys: &self.keys,
            position: &mut self.position,
            stats: &mut self.stats,
            outputs,
        };
        for (key, values) in running.iter() {
            let operation = Operation::Upsert;
            emitter.emit(&Firing {
                operation,
                window,
                key: emitter.keys.bytes(key),
                pane,
                values,
            });
        }
        set.slide(&window, layout);
        true
    }

    /// All keys of a window, with what its panes have of them together.
    pub(super) fn merged_rows(&mut self, window: &Window) -> Merged {
        let (layout, keys) = (&self.plan.layout, &self.keys);
        let mut merged = Merged::new(layout, keys);
        let Place::Panes(set) = self.plan.windows[window.index].place else {
            return merged;
        };
        let panes = self.sets[set].range(window.start_ms, window.end_ms);
        merged.reserve(panes.iter().map(|pane| pane.keys.len()).max().unwrap_or(0));
        for pane in panes {
            merged.add(pane, layout);
            merged.add_left(set, pane, layout, keys, &mut self.paging);
        }
        merged
    }

    /// Brings the rows of a key in the panes of a window into memory.
    pub(super) fn bring(&mut self, window: &Window, key: u32) {
        if let Place::Panes(set) = self.plan.windows[window.index].place {
            let mut maker = Maker {
                plan: &self.plan,
                keys: &mut self.keys,
                paging: &mut self.paging,
            };
            self.sets[set].bring(window.start_ms, window.end_ms, key, &mut maker);
        }
    }

    pub(super) fn panes_of(&self, window: &Window) -> &[Pane] {
        match self.plan.windows[window.index].place {
            Place::Panes(set) => self.sets[set].range(window.start_ms, window.end_ms),
            Place::Instances(_) | Place::Sessions(_) | Place::Counts(_) => &[],
        }
    }

    /// Counts the event in hand in its sessions. What was published of sessions that it joins is taken back.
    pub(super) fn add_to_sessions(&mut self, event_time_ms: i64, key: u32, outputs: &mut Outputs) {
        if self.scratch.sessions.is_empty() {
            return;
        }
        // Taken out, for the sets need the rest of the task.
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut firing = std::mem::take(&mut scratch.firing);
        let inputs = scratch.inputs(event_time_ms);
        for number in &scratch.sessions {
            self.bring_sessions(*number, key);
            let (sets, mut emitter) = self.own_sets(outputs);
            let set = &mut sets.sessions[*number];
            let (span, layout) = (
                set.span_of(event_time_ms, scratch.gap_ms(*number)),
                &emitter.plan.layout,
            );
            let added = set.add(key, span, &mut emitter, |cells, slot| cells.add(slot, layout, &inputs));
            firing.extend(self.joined(*number, key, &added));
        }
        scratch.firing = firing;
        self.scratch = scratch;
    }

    /// Something was added to the sessions of a key; answers the one that is due for it.
    pub(super) fn joined(&mut self, number: usize, key: u32, added: &Added) -> Option<Window> {
        let set = &self.sessions[number];
        for _ in 0..added.gained.max(0) {
            self.keys.retain(key);
            self.paging.count(1);
        }
        for _ in 0..(-added.gained).max(0) {
            self.keys.release(key);
        }
        self.next_due_ms = self.next_due_ms.min(set.next_due());
        let is_due = set.is_due(&added.window, added.slot, self.position.watermark_ms);
        is_due.then_some(added.window)
    }

    /// Windows that the event in hand makes fire, for its key: those that have ended and those that count events.
    pub(super) fn fire_for_event(&mut self, key: u32, outputs: &mut Outputs) {
        let mut windows = std::mem::take(&mut self.scratch.firing);
        windows.sort_unstable();
        for window in &windows {
            self.fire_key(*window, key, outputs);
        }
        self.scratch.firing = windows;
    }

    pub(super) fn fire_key(&mut self, window: Window, key: u32, outputs: &mut Outputs) {
        match self.plan.windows[window.index].place {
            Place::Panes(_) => self.fire_late(window, key, outputs),
            Place::Instances(number) => {
                let (sets, mut emitter) = self.own_sets(outputs);
                if let Some(slot) = sets.instances[number].find(&window, key) {
                    sets.instances[number].fire_key(window, slot, &mut emitter);
                }
            }
            Place::Sessions(number) => {
                let (sets, mut emitter) = self.own_sets(outputs);
                if let Some(slot) = sets.sessions[number].find(&window, key) {
                    sets.sessions[number].fire_key(window, slot, &mut emitter);
                }
            }
            Place::Counts(number) => {
                let (sets, mut emitter) = self.own_sets(outputs);
                if let Some(entry) = sets.counts[number].find(key) {
                    sets.counts[number].fire(window, entry, &mut emitter);
                }
            }
        }
    }

    /// The windows with cells of their own, and what brings them into memory: disjoint parts of the task.
    pub(super) fn makers(&mut self) -> (OwnSets<'_>, Maker<'_>) {
        let sets = OwnSets {
            instances: &mut self.instances,
            sessions: &mut self.sessions,
            counts: &mut self.counts,
        };
        let maker = Maker {
            plan: &self.plan,
            keys: &mut self.keys,
            paging: &mut self.paging,
        };
        (sets, maker)
    }

    /// Brings the sessions of a key into memory: what is added to one may touch any of them.
    pub(super) fn bring_sessions(&mut self, number: usize, key: u32) {
        let watermark_ms = self.position.watermark_ms;
        let (sets, mut maker) = self.makers();
        sets.sessions[number].bring(key, watermark_ms, &mut maker);
    }

    /// The windows with cells of their own, and what writes their results: disjoint parts of the task.
    pub(super) fn own_sets<'a>(&'a mut self, outputs: &'a mut Outputs) -> (OwnSets<'a>, Emitter<'a>) {
        let sets = OwnSets {
            instances: &mut self.instances,
            sessions: &mut self.sessions,
            counts: &mut self.counts,
        };
        let emitter = Emitter {
            plan: &self.plan,
            keys: &self.keys,
            position: &mut self.position,
            stats: &mut self.stats,
            outputs,
        };
        (sets, emitter)
    }

    /// A window on shared panes that has ended and still takes events fires again for the key of one.
    fn fire_late(&mut self, window: Window, key: u32, outputs: &mut Outputs) {
        let mut rows = RowStore::new(&self.plan.layout, 0);
        let merged = rows.push();
        let mut fired_on_time = false;
        self.bring(&window, key);
        for pane in self.panes_of(&window) {
            if let Some(row) = pane.find(key) {
                fired_on_time |= pane.born_ms(row) < window.end_ms;
                self.plan.layout.merge(rows.get_mut(merged), pane.values(row));
            }
        }
        let id = (window.end_ms, window.index, key);
        let count = self.late.count(id, &mut self.keys);
        let pane = PaneLabel {
            index: *count + u64::from(fired_on_time),
            timing: Timing::Late,
            is_final: false,
        };
        *count += 1;
        self.late.dirty.insert(id);
        self.emit(window, key, pane, rows.get(merged), outputs);
    }

    /// Forgets what no event can reach any more.
    pub(super) fn purge(&mut self, watermark_ms: i64, due: &[Due]) {
        let (late, unsaved, closing) = (&mut self.late, &mut self.unsaved, &self.closing);
        let purged = |id: &(i64, usize, u32)| closing[id.1].at(id.0) <= watermark_ms;
        for id in late
            .counts
            .range(..(watermark_ms, 0, 0))
            .map(|(id, _)| *id)
            .filter(purged)
            .collect::<Vec<_>>()
        {
            late.counts.remove(&id);
            late.dirty.remove(&id);
            self.keys.release(id.2);
            unsaved.purged_late.insert((id.1, id.0));
        }
        for (index, set) in self.sets.iter_mut().enumerate() {
            set.purge(watermark_ms, &mut self.keys, |pane| {
                if pane.stored {
                    unsaved.purged_panes.push((index, pane.start_ms));
                }
            });
        }
        for set in &mut self.instances {
            let index = set.index();
            set.purge(watermark_ms, &mut self.keys, |end_ms| {
                unsaved.purged_instances.push((index, end_ms));
            });
        }
        if watermark_ms == END_OF_INPUT {
            self.counts.iter_mut().for_each(|set| set.clear(&mut self.keys));
        }
        for (window, slot) in due {
            if let (Place::Sessions(number), Some(slot)) = (self.plan.windows[window.index].place, slot) {
                self.sessions[number].purge(*slot, watermark_ms, &mut self.keys);
            }
        }
    }
}

/// Windows on these panes whose end lies in `(from, to]`, each once.
fn ended_between<'a>(sets: impl Iterator<Item = &'a PaneSet>, from_ms: i64, to_ms: i64) -> Vec<Due> {
    let mut ended = Vec::new();
    for set in sets {
        for (start, window) in set.pane_windows() {
            let aligned = &window.aligned;
            let (Some(first), Some(last)) = (
                aligned.first_end_of_pane_above(start, set.width_ms(), from_ms),
                aligned.last_end_of_pane(start, set.width_ms()),
            ) else {
                continue;
            };
            let mut end_ms = first;
            while end_ms <= to_ms.min(last) {
                let window = Window {
                    end_ms,
                    start_ms: aligned.start_of(end_ms),
                    rank: window.rank,
                    index: window.index,
                };
                ended.push((window, None));
                end_ms += aligned.slide_ms();
            }
        }
    }
    ended.sort_unstable();
    ended.dedup();
    ended
}
