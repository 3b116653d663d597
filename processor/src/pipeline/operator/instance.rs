//! Instances of aligned, calendar and global windows that keep values of their own, a row a key.
//! Must not hold: when the watermark moves; order across windows.

mod leaving;

use std::collections::BTreeMap;

use hashbrown::HashTable;

use super::END_OF_INPUT;
use super::cell::Cells;
use super::closing::{self, Closing};
use super::emit::{Emitter, Timing};
use super::pane::{Maker, key_hash};
use super::size::Measure;
use crate::aggregation::rows::RowRef;
use crate::core::key::KeyTable;
use crate::pipeline::builder::Plan;
use crate::pipeline::shuffle::CellPartial;
use crate::window::types::{Assigner, Window};

/// All keys of one instance.
#[derive(Clone, Debug, Default)]
pub(super) struct Instance {
    slots: Vec<u32>,
    index: HashTable<u32>,
    pub dirty: Vec<u32>,
    /// Whether the store holds cells of it.
    pub stored: bool,
    /// Cells that only the store has.
    left: usize,
}

impl Instance {
    /// Keys in it.
    pub fn len(&self) -> usize {
        self.slots.len() + self.left
    }

    /// Bytes on the heap.
    pub fn bytes(&self, measure: Measure) -> usize {
        measure.list(&self.slots) + measure.list(&self.dirty) + self.index.allocation_size()
    }

    fn find(&self, key: u32, cells: &Cells) -> Option<u32> {
        let is = |slot: &u32| cells.get(*slot).key == key;
        self.index.find(key_hash(key), is).copied()
    }

    /// Takes in a cell of a key that has none here.
    fn enter(&mut self, slot: u32, cells: &Cells) {
        self.slots.push(slot);
        let hash = |slot: &u32| key_hash(cells.get(*slot).key);
        self.index.insert_unique(hash(&slot), slot, hash);
    }
}

/// The instances of one window of the spec, by (end, start).
#[derive(Clone, Debug)]
pub(super) struct InstanceSet {
    /// Index and rank of the window.
    window: (usize, usize),
    pub closing: Closing,
    pub cells: Cells,
    pub instances: BTreeMap<(i64, i64), Instance>,
    /// The calendar's answer used last: finding it costs more than all the rest.
    recent: (i64, i64),
}

impl InstanceSet {
    pub fn new(plan: &Plan, index: usize) -> Self {
        let window = &plan.windows[index];
        Self {
            window: (index, window.rank),
            closing: closing::of_window(window),
            cells: Cells::new(plan, &window.plan, false),
            instances: BTreeMap::new(),
            recent: (0, 0),
        }
    }

    pub fn index(&self) -> usize {
        self.window.0
    }

    /// Start and end of every instance that covers a time.
    pub fn spans_of(&mut self, plan: &Plan, time_ms: i64, spans: &mut Vec<(i64, i64)>) {
        match &plan.windows[self.window.0].plan.assigner {
            Assigner::Aligned(aligned) => {
                spans.extend(aligned.ends_of_pane(time_ms, 1).map(|end| (aligned.start_of(end), end)));
            }
            Assigner::Calendar(calendar) => {
                if !(self.recent.0 <= time_ms && time_ms < self.recent.1) {
                    self.recent = calendar.span_of(time_ms);
                }
                spans.push(self.recent);
            }
            Assigner::Global => spans.push(Window::ALL_TIME),
            // These have sets of their own kind.
            Assigner::Session(_) | Assigner::Count(_) => {}
        }
    }

    /// Whether an instance takes no more events.
    pub fn is_closed(&self, end_ms: i64, watermark_ms: i64) -> bool {
        self.closing.at(end_ms) <= watermark_ms
    }

    pub fn window(&self, (start_ms, end_ms): (i64, i64)) -> Window {
        Window {
            end_ms,
            start_ms,
            rank: self.window.1,
            index: self.window.0,
        }
    }

    /// The cell of a key, made when new, and the watermark at which an instance that had to be made is due.
    pub fn cell(
        &mut self,
        (start_ms, end_ms): (i64, i64),
        key: u32,
        watermark_ms: i64,
        maker: &mut Maker<'_>,
    ) -> (u32, i64) {
        let mut due_ms = i64::MAX;
        let instance = self.instances.entry((end_ms, start_ms)).or_insert_with(|| {
            due_ms = due(end_ms, self.closing, watermark_ms);
            Instance::default()
        });
        let cells = &mut self.cells;
        let known = instance.find(key, cells);
        let known = known.or_else(|| instance.fetch(self.window.0, end_ms, key, cells, maker));
        let slot = known.unwrap_or_else(|| {
            maker.keys.retain(key);
            maker.paging.count(1);
            let slot = cells.insert(key);
            instance.enter(slot, cells);
            slot
        });
        mark(instance, cells, slot);
        (slot, due_ms)
    }

    /// A cell of a key that has none, to put a stored one back.
    pub fn load(&mut self, (start_ms, end_ms): (i64, i64), key: u32, keys: &mut KeyTable) -> u32 {
        let instance = self.instances.entry((end_ms, start_ms)).or_default();
        instance.stored = true;
        keys.retain(key);
        let slot = self.cells.insert(key);
        instance.enter(slot, &self.cells);
        mark(instance, &mut self.cells, slot);
        slot
    }

    /// The cell of a key that has one in memory.
    pub fn find(&self, window: &Window, key: u32) -> Option<u32> {
        let instance = self.instances.get(&(window.end_ms, window.start_ms))?;
        instance.find(key, &self.cells)
    }

    /// Instances that fire or close when the watermark goes from `from` to `to`.
    pub fn due_between(&self, from_ms: i64, to_ms: i64, due: &mut Vec<(Window, Option<u32>)>) {
        for (end_ms, start_ms) in self.instances.range(..=(to_ms, i64::MAX)).map(|(id, _)| *id) {
            if end_ms > from_ms || self.is_closed(end_ms, to_ms) {
                due.push((self.window((start_ms, end_ms)), None));
            }
        }
    }

    /// Fires an instance, all of it in memory, for every key: on time when its end lies behind `from`, and what is left when it closes.
    pub fn fire(&mut self, window: Window, from_ms: i64, emitter: &mut Emitter<'_>) {
        let watermark = emitter.position.watermark_ms;
        let on_time = window.end_ms > from_ms && self.cells.trigger().on_time;
        let closes = self.is_closed(window.end_ms, watermark);
        let on_time_is_final = self.closing.is_immediate() || watermark == END_OF_INPUT;
        let Some(instance) = self.instances.get_mut(&(window.end_ms, window.start_ms)) else {
            return;
        };
        let mut slots = instance.slots.clone();
        slots.sort_unstable_by_key(|slot| emitter.keys.bytes(self.cells.get(*slot).key));
        for slot in slots {
            let before = self.cells.get(slot).fired;
            if on_time {
                self.cells
                    .publish(slot, window, Timing::OnTime, on_time_is_final, emitter);
            }
            if closes {
                close(&mut self.cells, slot, window, emitter);
            }
            if self.cells.get(slot).fired > before {
                mark(instance, &mut self.cells, slot);
            }
        }
    }

    /// Cells that a tick fires: changed ones before their end (`early`) or behind it (`late`).
    pub fn ticked(&self, early: bool, late: bool, watermark_ms: i64, due: &mut Vec<(Window, Option<u32>)>) {
        for ((end_ms, start_ms), instance) in &self.instances {
            if (*end_ms > watermark_ms && early) || (*end_ms <= watermark_ms && late) {
                let changed = instance.slots.iter().filter(|slot| self.cells.get(**slot).since > 0);
                due.extend(changed.map(|slot| (self.window((*start_ms, *end_ms)), Some(*slot))));
            }
        }
    }

    /// Fires one key early or late.
    pub fn fire_key(&mut self, window: Window, slot: u32, emitter: &mut Emitter<'_>) {
        let timing = timing(window.end_ms, emitter.position.watermark_ms);
        self.cells.publish(slot, window, timing, false, emitter);
        if let Some(instance) = self.instances.get_mut(&(window.end_ms, window.start_ms)) {
            mark(instance, &mut self.cells, slot);
        }
    }

    /// Hands out every cell and forgets it: none was stored or published.
    pub fn take_all(&mut self, keys: &mut KeyTable, mut take: impl FnMut(CellPartial<'_>, RowRef<'_>)) {
        while let Some(((end_ms, start_ms), instance)) = self.instances.pop_first() {
            let window = self.window((start_ms, end_ms));
            for slot in instance.slots {
                take(self.cells.partial(slot, &window, keys), self.cells.values(slot).0);
                keys.release(self.cells.get(slot).key);
                self.cells.remove(slot);
            }
        }
    }

    /// Removes what is closed; answers the ends of those that the store knows.
    pub fn purge(&mut self, watermark_ms: i64, keys: &mut KeyTable, mut purged: impl FnMut(i64)) {
        while let Some(entry) = self.instances.first_entry() {
            let (end_ms, _) = *entry.key();
            if self.closing.at(end_ms) > watermark_ms {
                break;
            }
            let mut instance = entry.remove();
            instance.empty(&mut self.cells, keys);
            if instance.stored {
                purged(end_ms);
            }
        }
    }

    /// Watermark at which something fires or closes next.
    pub fn next_due(&self, watermark_ms: i64) -> i64 {
        let first = self.instances.keys().next();
        let next = self
            .instances
            .range((watermark_ms.saturating_add(1), i64::MIN)..)
            .next();
        let ends = first.into_iter().chain(next.map(|(id, _)| id));
        ends.map(|(end_ms, _)| due(*end_ms, self.closing, watermark_ms))
            .min()
            .unwrap_or(i64::MAX)
    }
}

/// Next watermark that concerns an instance: its end, then its close.
fn due(end_ms: i64, closing: Closing, watermark_ms: i64) -> i64 {
    if end_ms > watermark_ms {
        end_ms
    } else {
        closing.at(end_ms)
    }
}

/// Timing of a pane that is neither on time nor the last.
pub(super) fn timing(end_ms: i64, watermark_ms: i64) -> Timing {
    if end_ms > watermark_ms {
        Timing::Early
    } else {
        Timing::Late
    }
}

/// What is left when a window closes: a `Final` pane where one is asked for, otherwise what was not written yet.
pub(super) fn close(cells: &mut Cells, slot: u32, window: Window, emitter: &mut Emitter<'_>) {
    let cell = cells.get(slot);
    if cell.last.is_some_and(|pane| pane.is_final) {
        return;
    }
    if cells.trigger().closing {
        cells.publish(slot, window, Timing::Final, true, emitter);
    } else if cell.since > 0 {
        cells.publish(slot, window, Timing::Late, true, emitter);
    }
}

fn mark(instance: &mut Instance, cells: &mut Cells, slot: u32) {
    let cell = cells.get_mut(slot);
    if !cell.dirty {
        cell.dirty = true;
        instance.dirty.push(slot);
    }
}
