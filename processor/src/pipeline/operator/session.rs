//! Sessions: per key, stretches of event time that grow and join as events come. A session is due at its end and, a
//! gap and the lateness later, when no event that is not late can reach it any more.
//! Must not hold: when the watermark moves; order across windows.

mod leaving;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use smallvec::SmallVec;

use self::leaving::Left;
use super::END_OF_INPUT;
use super::cell::Cells;
use super::closing::{self, Closing};
use super::emit::{Emitter, Timing};
use super::instance::{close, timing};
use super::size::Measure;
use crate::aggregation::rows::RowRef;
use crate::core::key::KeyTable;
use crate::pipeline::builder::Plan;
use crate::pipeline::shuffle::CellPartial;
use crate::window::session::SessionRule;
use crate::window::types::Window;

/// A session that stands in no queue.
const NOT_SCHEDULED: i64 = i64::MAX;

/// Where the session of a cell lies.
#[derive(Clone, Copy, Debug)]
struct Span {
    start_ms: i64,
    end_ms: i64,
    /// When it is looked at next; entries of the queue that say otherwise are out of date.
    scheduled_ms: i64,
    /// Start under which the store knows it.
    stored_ms: Option<i64>,
}

/// What became of an event, or of a session that another task has formed.
pub(super) struct Added {
    /// The session it is in.
    pub window: Window,
    pub slot: u32,
    /// How many sessions there are more than before: each refers to its key.
    pub gained: isize,
}

/// The sessions of one window of the spec.
#[derive(Clone, Debug)]
pub(super) struct SessionSet {
    window: (usize, usize),
    rule: SessionRule,
    pub closing: Closing,
    pub cells: Cells,
    /// By slot of the cell.
    spans: Vec<Span>,
    /// By key: slots, ascending by start.
    by_key: Vec<SmallVec<[u32; 4]>>,
    /// (watermark, slot): at the latest then the session is looked at. Its end moves with every event, its place in
    /// the queue does not.
    queue: BinaryHeap<Reverse<(i64, u32)>>,
    pub dirty: Vec<u32>,
    /// Sessions that the store knows and that are no more: (start, key bytes).
    pub removed: BTreeSet<(i64, Vec<u8>)>,
    /// Those that only the store has.
    left: Left,
}

impl SessionSet {
    pub fn new(plan: &Plan, index: usize, rule: SessionRule) -> Self {
        let window = &plan.windows[index];
        Self {
            window: (index, window.rank),
            rule,
            closing: closing::of_window(window),
            cells: Cells::new(plan, &window.plan, true),
            spans: Vec::new(),
            by_key: Vec::new(),
            queue: BinaryHeap::new(),
            dirty: Vec::new(),
            removed: BTreeSet::new(),
            left: Left::default(),
        }
    }

    /// Bytes on the heap.
    pub fn bytes(&self, measure: Measure) -> usize {
        let spilled = self
            .by_key
            .iter()
            .filter(|slots| slots.spilled())
            .map(SmallVec::capacity);
        let slots = spilled.sum::<usize>() * size_of::<u32>() + measure.list(&self.by_key);
        let queue = self.queue.len() * size_of::<Reverse<(i64, u32)>>();
        let lists = measure.list(&self.spans) + measure.list(&self.dirty);
        self.cells.bytes(measure) + lists + slots + queue + self.left.bytes(measure)
    }

    pub fn index(&self) -> usize {
        self.window.0
    }

    /// The sessions, of any key, that begin at a time.
    pub fn windows_from(&self, start_ms: i64) -> impl Iterator<Item = Window> {
        let slots = self.by_key.iter().flatten();
        slots
            .map(|slot| self.window_of(*slot))
            .filter(move |window| window.start_ms == start_ms)
    }

    /// The sessions of a key with their slots, ascending.
    pub fn of_key(&self, key: u32) -> impl Iterator<Item = (Window, u32)> {
        let slots = self.by_key.get(key as usize).map_or(&[][..], |slots| slots);
        slots.iter().map(|slot| (self.window_of(*slot), *slot))
    }

    /// Whether an event comes too late to be sure of finding the session it belongs to.
    pub fn is_late(&self, time_ms: i64, gap_ms: i64, watermark_ms: i64) -> bool {
        self.closing.at(time_ms.saturating_add(gap_ms)) <= watermark_ms
    }

    /// When no event that is not late can reach a session with this end any more: one of the longest gap.
    pub fn closes_at(&self, end_ms: i64) -> i64 {
        self.closing.at(end_ms.saturating_add(self.rule.longest_gap_ms()))
    }

    fn window_of(&self, slot: u32) -> Window {
        let span = &self.spans[slot as usize];
        Window {
            end_ms: span.end_ms,
            start_ms: span.start_ms,
            rank: self.window.1,
            index: self.window.0,
        }
    }

    /// The session of an event alone.
    pub fn span_of(&self, time_ms: i64, gap_ms: i64) -> (i64, i64) {
        self.rule.span_of(time_ms, gap_ms)
    }

    /// Takes in what spans these times, which `count` adds to a cell: in a new session, in the one it touches, or in what
    /// those it touches become together. What was published of sessions that are no more is taken back. Answers the
    /// session it is in.
    pub fn add(
        &mut self,
        key: u32,
        (mut start_ms, mut end_ms): (i64, i64),
        emitter: &mut Emitter<'_>,
        count: impl FnOnce(&mut Cells, u32),
    ) -> Added {
        let layout = &emitter.plan.layout;
        let (rule, added) = (self.rule, (start_ms, end_ms));
        let slots = self.by_key.get(key as usize).map_or(&[][..], |slots| slots);
        let spans = &self.spans;
        let span = |slot: u32| (spans[slot as usize].start_ms, spans[slot as usize].end_ms);
        let touched: SmallVec<[u32; 4]> = slots
            .iter()
            .copied()
            .filter(|slot| rule.joins(added, span(*slot)))
            .collect();
        for slot in &touched {
            start_ms = start_ms.min(span(*slot).0);
            end_ms = end_ms.max(span(*slot).1);
        }
        let Some((first, others)) = touched.split_first() else {
            let slot = self.insert(key, start_ms, end_ms);
            count(&mut self.cells, slot);
            self.touch(slot, emitter.position.watermark_ms);
            return self.added(slot, 1);
        };
        if !others.is_empty() || span(*first) != (start_ms, end_ms) {
            // By (end, start), as firings go; sessions of a key do not overlap, so that is their order.
            for slot in &touched {
                self.cells.retract(*slot, self.window_of(*slot), emitter);
                self.cells.restart(*slot, layout);
            }
            for slot in others {
                self.cells.absorb(*first, *slot, layout);
                self.forget(*slot, emitter.keys);
            }
            self.move_to(*first, start_ms, end_ms, emitter.keys);
        }
        count(&mut self.cells, *first);
        self.touch(*first, emitter.position.watermark_ms);
        self.added(*first, -(others.len() as isize))
    }

    fn added(&self, slot: u32, gained: isize) -> Added {
        Added {
            window: self.window_of(slot),
            slot,
            gained,
        }
    }

    fn insert(&mut self, key: u32, start_ms: i64, end_ms: i64) -> u32 {
        let slot = self.cells.insert(key);
        self.place(slot, key, start_ms, end_ms);
        slot
    }

    /// Says where the session of a new cell lies.
    fn place(&mut self, slot: u32, key: u32, start_ms: i64, end_ms: i64) {
        let span = Span {
            start_ms,
            end_ms,
            scheduled_ms: NOT_SCHEDULED,
            stored_ms: None,
        };
        match self.spans.get_mut(slot as usize) {
            Some(old) => *old = span,
            None => self.spans.push(span),
        }
        if self.by_key.len() <= key as usize {
            self.by_key.resize(key as usize + 1, SmallVec::new());
        }
        let spans = &self.spans;
        let slots = &mut self.by_key[key as usize];
        let place = slots.partition_point(|other| spans[*other as usize].start_ms < start_ms);
        slots.insert(place, slot);
    }

    /// Takes a session out; the store is told.
    fn forget(&mut self, slot: u32, keys: &KeyTable) {
        let key = self.cells.get(slot).key;
        self.by_key[key as usize].retain(|other| *other != slot);
        let span = &mut self.spans[slot as usize];
        span.scheduled_ms = NOT_SCHEDULED;
        if let Some(start_ms) = span.stored_ms.take() {
            self.removed.insert((start_ms, keys.bytes(key).to_vec()));
        }
        self.cells.remove(slot);
    }

    fn move_to(&mut self, slot: u32, start_ms: i64, end_ms: i64, keys: &KeyTable) {
        let span = &mut self.spans[slot as usize];
        if span.start_ms != start_ms
            && let Some(stored_ms) = span.stored_ms.take()
        {
            let key = self.cells.get(slot).key;
            self.removed.insert((stored_ms, keys.bytes(key).to_vec()));
        }
        (span.start_ms, span.end_ms) = (start_ms, end_ms);
    }

    fn touch(&mut self, slot: u32, watermark_ms: i64) {
        self.mark(slot);
        self.schedule(slot, watermark_ms);
    }

    fn mark(&mut self, slot: u32) {
        let cell = self.cells.get_mut(slot);
        if !cell.dirty {
            cell.dirty = true;
            self.dirty.push(slot);
        }
    }

    /// Makes sure that the session is looked at when it is due.
    fn schedule(&mut self, slot: u32, watermark_ms: i64) {
        let due_ms = self.due_at(self.spans[slot as usize].end_ms, watermark_ms);
        let span = &mut self.spans[slot as usize];
        if due_ms < span.scheduled_ms {
            span.scheduled_ms = due_ms;
            self.queue.push(Reverse((due_ms, slot)));
        }
    }

    /// When a session with this end fires or closes next.
    fn due_at(&self, end_ms: i64, watermark_ms: i64) -> i64 {
        if end_ms > watermark_ms {
            end_ms
        } else {
            self.closes_at(end_ms)
        }
    }

    /// Whether the number of events makes a session fire now.
    pub fn is_due(&self, window: &Window, slot: u32, watermark_ms: i64) -> bool {
        self.cells.is_due(slot, window.end_ms <= watermark_ms)
    }

    /// The session of a key that is this window.
    pub fn find(&self, window: &Window, key: u32) -> Option<u32> {
        let slots = self.by_key.get(key as usize)?;
        let is = |slot: &&u32| self.spans[**slot as usize].start_ms == window.start_ms;
        slots.iter().find(is).copied()
    }

    /// Sessions in memory that fire or close when the watermark goes from `from` to `to`; they leave the queue.
    pub fn due_between(&mut self, from_ms: i64, to_ms: i64, due: &mut Vec<(Window, Option<u32>)>) {
        while let Some(Reverse((due_ms, slot))) = self.queue.peek().copied() {
            if due_ms > to_ms {
                break;
            }
            self.queue.pop();
            let Some(span) = self
                .spans
                .get_mut(slot as usize)
                .filter(|span| span.scheduled_ms == due_ms)
            else {
                continue;
            };
            span.scheduled_ms = NOT_SCHEDULED;
            let end_ms = span.end_ms;
            if (end_ms > from_ms && end_ms <= to_ms) || self.closes_at(end_ms) <= to_ms {
                due.push((self.window_of(slot), Some(slot)));
            } else {
                self.schedule(slot, from_ms);
            }
        }
    }

    /// Fires a session: on time when its end lies behind `from`, and what is left when it closes. A session on time
    /// is never final but at the end of the input: an event may still extend it.
    pub fn fire(&mut self, window: Window, slot: u32, from_ms: i64, emitter: &mut Emitter<'_>) {
        let watermark = emitter.position.watermark_ms;
        if window.end_ms > from_ms && self.cells.trigger().on_time {
            let is_final = watermark == END_OF_INPUT;
            self.cells.publish(slot, window, Timing::OnTime, is_final, emitter);
        }
        if self.closes_at(window.end_ms) <= watermark {
            close(&mut self.cells, slot, window, emitter);
        } else {
            self.touch(slot, watermark);
        }
    }

    /// Fires one session early or late.
    pub fn fire_key(&mut self, window: Window, slot: u32, emitter: &mut Emitter<'_>) {
        let timing = timing(window.end_ms, emitter.position.watermark_ms);
        self.cells.publish(slot, window, timing, false, emitter);
        self.mark(slot);
    }

    /// Sessions that a tick fires: changed ones before their end (`early`) or behind it (`late`).
    pub fn ticked(&self, early: bool, late: bool, watermark_ms: i64, due: &mut Vec<(Window, Option<u32>)>) {
        for slot in self.by_key.iter().flatten() {
            let ended = self.spans[*slot as usize].end_ms <= watermark_ms;
            if self.cells.get(*slot).since > 0 && (if ended { late } else { early }) {
                due.push((self.window_of(*slot), Some(*slot)));
            }
        }
    }

    /// Removes a session if it has closed, and its reference to the key.
    pub fn purge(&mut self, slot: u32, watermark_ms: i64, keys: &mut KeyTable) {
        if self.closes_at(self.spans[slot as usize].end_ms) <= watermark_ms {
            let key = self.cells.get(slot).key;
            self.forget(slot, keys);
            keys.release(key);
        }
    }

    /// Hands out every session that was touched since the last call, and forgets them: none was stored or published.
    pub fn take_all(&mut self, keys: &mut KeyTable, mut take: impl FnMut(CellPartial<'_>, RowRef<'_>)) {
        for slot in std::mem::take(&mut self.dirty) {
            if !std::mem::take(&mut self.cells.get_mut(slot).dirty) {
                continue;
            }
            let (window, key) = (self.window_of(slot), self.cells.get(slot).key);
            take(self.cells.partial(slot, &window, keys), self.cells.values(slot).0);
            self.forget(slot, keys);
            keys.release(key);
        }
        self.queue.clear();
    }

    /// Watermark at which a session has to be looked at next.
    pub fn next_due(&self) -> i64 {
        let next_ms = self.queue.peek().map_or(i64::MAX, |Reverse((due_ms, _))| *due_ms);
        next_ms.min(self.left.next_due())
    }

    /// Start and end of a session, and that the store knows it from now on.
    pub fn store(&mut self, slot: u32) -> (i64, i64) {
        let span = &mut self.spans[slot as usize];
        span.stored_ms = Some(span.start_ms);
        (span.start_ms, span.end_ms)
    }

    /// Puts a stored session back, without its values; it refers to its key.
    pub fn load(&mut self, key: u32, start_ms: i64, end_ms: i64, watermark_ms: i64) -> u32 {
        let slot = self.insert(key, start_ms, end_ms);
        self.spans[slot as usize].stored_ms = Some(start_ms);
        self.touch(slot, watermark_ms);
        slot
    }
}
