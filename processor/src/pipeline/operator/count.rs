//! Count windows: the last events of every key, and results over them. An event is two rows richer at most, whatever the
//! size: events are taken in blocks of the size, and when a block is full each of its rows becomes what is behind it in
//! the block. So the last `size` events are always one row of the block before and the head of the present one.
//! Must not hold: when the input ends; order across windows.

mod leaving;

use super::emit::{Emitter, Firing, Operation, PaneLabel, Timing};
use super::pane::Maker;
use super::size::Measure;
use crate::aggregation::layout::Layout;
use crate::aggregation::rows::{RowMut, RowRef, RowStore};
use crate::core::key::KeyTable;
use crate::pipeline::builder::Plan;
use crate::window::count::CountRule;
use crate::window::types::Window;

/// Words before the accumulators of a row: the smallest and the largest time of its events.
const TIMES: usize = 2;
/// A key without events.
const NONE: u32 = u32::MAX;

/// Counters of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Events in all.
    pub events: u64,
    /// Events when it fired last.
    pub fired_at: u64,
    /// Panes so far.
    pub fired: u64,
}

/// The events of one key.
#[derive(Clone, Debug)]
struct Entry {
    key: u32,
    counts: Counts,
    /// All events of the present block.
    head: u32,
    /// By place: below that of the next event the events of the present block, one a row; from there on rows of the
    /// block before, each with all that came behind it.
    places: Vec<u32>,
    /// Events when it was stored last; absent: everything is to be stored.
    saved: Option<u64>,
    dirty: bool,
    /// Epoch of its last change, while it is not dirty.
    changed: u64,
}

/// The keys of one count window of the spec.
#[derive(Clone, Debug)]
pub(super) struct CountSet {
    /// Index and rank of the window.
    window: (usize, usize),
    rule: CountRule,
    rows: RowStore,
    entries: Vec<Entry>,
    /// By key: its entry.
    by_key: Vec<u32>,
    dirty: Vec<u32>,
    /// Whether the store holds what is no more.
    cleared: bool,
    /// Keys that only the store has, and their rows.
    left: Left,
}

/// What is not in memory.
#[derive(Clone, Copy, Debug, Default)]
struct Left {
    keys: usize,
    rows: usize,
}

impl CountSet {
    pub fn new(plan: &Plan, index: usize, rule: CountRule) -> Self {
        Self {
            window: (index, plan.windows[index].rank),
            rule,
            rows: RowStore::new(&plan.layout, TIMES),
            entries: Vec::new(),
            by_key: Vec::new(),
            dirty: Vec::new(),
            cleared: false,
            left: Left::default(),
        }
    }

    pub fn index(&self) -> usize {
        self.window.0
    }

    /// Keys that have events.
    pub fn len(&self) -> usize {
        self.entries.len() + self.left.keys
    }

    /// Rows of state, in memory or not.
    pub fn rows(&self) -> usize {
        self.rows.len() + self.left.rows
    }

    /// Bytes on the heap.
    pub fn bytes(&self, measure: Measure) -> usize {
        let places = self.entries.iter().map(|entry| measure.list(&entry.places));
        let lists = measure.list(&self.entries) + measure.list(&self.by_key) + measure.list(&self.dirty);
        measure.rows(&self.rows) + lists + places.sum::<usize>()
    }

    /// The key of an entry.
    pub fn key(&self, entry: u32) -> u32 {
        self.entries[entry as usize].key
    }

    /// Counts the event of a time in, which `count` adds to a row; answers the window that it completes.
    pub fn add(
        &mut self,
        (key, time_ms): (u32, i64),
        maker: &mut Maker<'_>,
        mut count: impl FnMut(RowMut<'_>),
    ) -> Option<Window> {
        self.bring(key, maker);
        let number = self.entry(key, maker.keys);
        let entry = &mut self.entries[number as usize];
        let place = self.rule.place(entry.counts.events);
        match entry.places.get(place) {
            // What the block before had behind this place is behind the window's size now.
            Some(row) => self.rows.clear(*row),
            None => {
                maker.paging.count(1);
                entry.places.push(self.rows.push());
            }
        }
        for row in [entry.head, entry.places[place]] {
            let times = self.rows.header_mut(row);
            let is_first = place == 0 || row != entry.head;
            let (least, most) = if is_first {
                (i64::MAX, i64::MIN)
            } else {
                (times[0] as i64, times[1] as i64)
            };
            times[0] = least.min(time_ms) as u64;
            times[1] = most.max(time_ms) as u64;
            count(self.rows.get_mut(row));
        }
        entry.counts.events += 1;
        let events = entry.counts.events;
        if self.rule.place(events) == 0 {
            self.close_block(number, &maker.plan.layout);
        }
        self.mark(number);
        self.rule.is_due(events).then(|| self.window_of(number))
    }

    fn entry(&mut self, key: u32, keys: &mut KeyTable) -> u32 {
        if let Some(known) = self.find(key) {
            return known;
        }
        if self.by_key.len() <= key as usize {
            self.by_key.resize(key as usize + 1, NONE);
        }
        keys.retain(key);
        let number = self.entries.len() as u32;
        self.entries.push(Entry {
            key,
            counts: Counts::default(),
            head: self.rows.push(),
            places: Vec::new(),
            saved: None,
            dirty: false,
            changed: 0,
        });
        self.by_key[key as usize] = number;
        number
    }

    /// The block is full: each of its rows becomes what is behind it, itself included, and the head begins anew.
    fn close_block(&mut self, number: u32, layout: &Layout) {
        let entry = &self.entries[number as usize];
        for pair in entry.places.windows(2).rev() {
            let (row, behind) = (pair[0], pair[1]);
            self.rows.merge_within(layout, row, behind);
            let times = [self.rows.header(behind)[0], self.rows.header(behind)[1]];
            widen(self.rows.header_mut(row), times);
        }
        self.rows.clear(entry.head);
    }

    /// The rows that have the last events together: of the block before and of the present one.
    fn parts(&self, number: u32) -> (Option<u32>, Option<u32>) {
        let entry = &self.entries[number as usize];
        let place = self.rule.place(entry.counts.events);
        let before = (entry.counts.events >= self.rule.size).then(|| entry.places[place]);
        (before, (place > 0).then_some(entry.head))
    }

    /// The window over the last events of a key that has some.
    pub fn window_of(&self, number: u32) -> Window {
        let (before, head) = self.parts(number);
        let mut times = [i64::MAX as u64, i64::MIN as u64];
        for row in [before, head].into_iter().flatten() {
            let header = self.rows.header(row);
            widen(&mut times, [header[0], header[1]]);
        }
        Window {
            end_ms: (times[1] as i64).saturating_add(1),
            start_ms: times[0] as i64,
            rank: self.window.1,
            index: self.window.0,
        }
    }

    /// The entry of a key that has events in memory.
    pub fn find(&self, key: u32) -> Option<u32> {
        self.by_key.get(key as usize).copied().filter(|number| *number != NONE)
    }

    /// The values over the last events of a key that has some: one row.
    pub fn values(&self, number: u32, layout: &Layout) -> RowStore {
        let mut values = RowStore::new(layout, 0);
        let row = values.push();
        let (before, head) = self.parts(number);
        for part in [before, head].into_iter().flatten() {
            layout.merge(values.get_mut(row), self.rows.get(part));
        }
        values
    }

    /// Writes the result over the last events of a key. It is never written again.
    pub fn fire(&mut self, window: Window, number: u32, emitter: &mut Emitter<'_>) {
        let (before, head) = self.parts(number);
        let row = self.rows.push();
        for part in [before, head].into_iter().flatten() {
            self.rows.merge_within(&emitter.plan.layout, row, part);
        }
        let entry = &mut self.entries[number as usize];
        emitter.emit(&Firing {
            operation: Operation::Upsert,
            window,
            key: emitter.keys.bytes(entry.key),
            pane: PaneLabel {
                index: entry.counts.fired,
                timing: Timing::OnTime,
                is_final: true,
            },
            values: self.rows.get(row),
        });
        (entry.counts.fired_at, entry.counts.fired) = (entry.counts.events, entry.counts.fired + 1);
        self.rows.release(row);
        self.mark(number);
    }

    /// Keys that have events since their last result: the input has ended, and all are in memory.
    pub fn waiting(&self, due: &mut Vec<(Window, Option<u32>)>) {
        for (number, entry) in (0..).zip(&self.entries) {
            if entry.counts.events > entry.counts.fired_at {
                due.push((self.window_of(number), Some(number)));
            }
        }
    }

    /// Forgets everything: the input has ended.
    pub fn clear(&mut self, keys: &mut KeyTable) {
        for entry in self.entries.drain(..) {
            self.cleared |= entry.saved.is_some();
            keys.release(entry.key);
            self.rows.release(entry.head);
            for row in entry.places {
                self.rows.release(row);
            }
        }
        self.by_key.clear();
        self.dirty.clear();
    }

    fn mark(&mut self, number: u32) {
        let entry = &mut self.entries[number as usize];
        if !std::mem::replace(&mut entry.dirty, true) {
            self.dirty.push(number);
        }
    }

    /// Whether the store holds entries that are no more; answers it once.
    pub fn take_cleared(&mut self) -> bool {
        std::mem::take(&mut self.cleared)
    }

    /// Says what has changed of each key since the last call: its counters and head, then places.
    pub fn take_changed(&mut self, epoch: u64, mut put: impl FnMut(u32, Option<usize>, &Counts, [i64; 2], RowRef<'_>)) {
        for number in std::mem::take(&mut self.dirty) {
            let entry = &mut self.entries[number as usize];
            (entry.dirty, entry.changed) = (false, epoch);
            let times = |row: u32| [self.rows.header(row)[0] as i64, self.rows.header(row)[1] as i64];
            put(
                entry.key,
                None,
                &entry.counts,
                times(entry.head),
                self.rows.get(entry.head),
            );
            let (size, events) = (self.rule.size, entry.counts.events);
            let changed = match entry.saved {
                Some(saved) if saved / size == events / size => self.rule.place(saved)..self.rule.place(events),
                Some(_) | None => 0..entry.places.len(),
            };
            for place in changed {
                let row = entry.places[place];
                put(entry.key, Some(place), &entry.counts, times(row), self.rows.get(row));
            }
            entry.saved = Some(events);
        }
    }

    /// Puts back what [`Self::take_changed`] said: counters and head of a key first, then its places in order. False for
    /// what it cannot have said. `copy` fills the row.
    #[must_use]
    pub fn load(
        &mut self,
        key: u32,
        place: Option<usize>,
        stored: (Counts, [i64; 2]),
        keys: &mut KeyTable,
        copy: impl FnOnce(RowMut<'_>),
    ) -> bool {
        let (counts, times) = stored;
        let row = match (place, self.find(key)) {
            (None, None) => {
                let number = self.entry(key, keys);
                let entry = &mut self.entries[number as usize];
                entry.counts = counts;
                entry.saved = Some(counts.events);
                entry.head
            }
            (Some(place), Some(number)) => {
                let entry = &mut self.entries[number as usize];
                if place != entry.places.len() {
                    return false;
                }
                entry.places.push(self.rows.push());
                entry.places[place]
            }
            (None, Some(_)) | (Some(_), None) => return false,
        };
        self.set_times(row, times);
        copy(self.rows.get_mut(row));
        true
    }

    fn set_times(&mut self, row: u32, times: [i64; 2]) {
        let header = self.rows.header_mut(row);
        header.copy_from_slice(&times.map(|time| time as u64));
    }

    /// Whether every key has the places that its events need.
    pub fn is_whole(&self) -> bool {
        let is_whole =
            |entry: &Entry| entry.counts.events > 0 && entry.places.len() == self.rule.places(entry.counts.events);
        self.entries.iter().all(is_whole)
    }

    /// Everything is to be written anew.
    pub fn mark_all(&mut self) {
        for number in 0..self.entries.len() as u32 {
            self.mark(number);
            self.entries[number as usize].saved = None;
        }
    }
}

/// Widens the times of a row by those of another one.
fn widen(times: &mut [u64], [least, most]: [u64; 2]) {
    times[0] = (times[0] as i64).min(least as i64) as u64;
    times[1] = (times[1] as i64).max(most as i64) as u64;
}
