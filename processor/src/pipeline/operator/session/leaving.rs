//! Sessions that leave memory, for the store has them, and come back. The store finds them by their start and key only, so
//! what stays of each is enough to find it by a key and in time. Must not hold: which of them leave, or when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use hashbrown::HashTable;
use smallvec::SmallVec;

use super::{NOT_SCHEDULED, SessionSet, Span};
use crate::core::key::{self, KeyTable};
use crate::pipeline::builder::Plan;
use crate::pipeline::operator::cell::Cells;
use crate::pipeline::operator::paging::Oldest;
use crate::pipeline::operator::pane::Maker;
use crate::pipeline::operator::size::Measure;
use crate::state::codec;

/// Entries of the queue below which none are looked for that say nothing any more.
const QUEUE_MIN: usize = 1_024;

/// What stays in memory of a session that has left it. Two of different keys may be alike, and then either will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stub {
    /// Of its key.
    hash: u64,
    start_ms: i64,
}

/// Sessions that are brought back before they are due, at most: of neighbours in time the store is asked once.
const AHEAD: usize = 64;

/// The sessions that only the store has.
#[derive(Clone, Debug, Default)]
pub(super) struct Left {
    stubs: HashTable<Stub>,
    /// (watermark, hash of a key): then its sessions are looked at. Some of them may be back by then.
    queue: BinaryHeap<Reverse<(i64, u64)>>,
    /// Length of the queue at which it is cleared of those.
    queue_max: usize,
}

impl Left {
    /// Bytes on the heap.
    pub fn bytes(&self, measure: Measure) -> usize {
        let queued = match measure {
            Measure::Asked => self.queue.capacity(),
            Measure::Written => self.queue.len(),
        };
        self.stubs.allocation_size() + queued * size_of::<Reverse<(i64, u64)>>()
    }

    /// When one of them has to be looked at.
    pub fn next_due(&self) -> i64 {
        self.queue.peek().map_or(i64::MAX, |Reverse((due_ms, _))| *due_ms)
    }

    fn insert(&mut self, stub: Stub, due_ms: i64) {
        self.stubs.insert_unique(stub.hash, stub, |stub| stub.hash);
        self.queue.push(Reverse((due_ms, stub.hash)));
        if self.queue.len() > self.queue_max {
            self.clear_queue();
            self.queue_max = self.queue.len() * 2 + QUEUE_MIN;
        }
    }

    /// One look at a key is enough, the first: all of its sessions come back then.
    fn clear_queue(&mut self) {
        let mut looks: Vec<(u64, i64)> = self
            .queue
            .drain()
            .map(|Reverse((due_ms, hash))| (hash, due_ms))
            .collect();
        looks.sort_unstable();
        looks.dedup_by_key(|(hash, _)| *hash);
        let stubs = &self.stubs;
        looks.retain(|(hash, _)| stubs.find(*hash, |stub| stub.hash == *hash).is_some());
        self.queue = looks
            .into_iter()
            .map(|(hash, due_ms)| Reverse((due_ms, hash)))
            .collect();
    }

    /// Those of keys with this hash: of one key, nearly always.
    fn of(&self, hash: u64) -> SmallVec<[Stub; 4]> {
        self.stubs
            .iter_hash(hash)
            .filter(|stub| stub.hash == hash)
            .copied()
            .collect()
    }

    fn remove(&mut self, stub: &Stub) {
        if let Ok(found) = self.stubs.find_entry(stub.hash, |other| other == stub) {
            found.remove();
        }
    }

    /// Takes out those to look at when the watermark comes here, and some that are due next.
    fn take_due(&mut self, watermark_ms: i64) -> Vec<Stub> {
        let (mut due, mut ahead) = (Vec::new(), 0);
        while let Some(Reverse((due_ms, hash))) = self.queue.peek().copied() {
            ahead += usize::from(due_ms > watermark_ms);
            if ahead > AHEAD {
                break;
            }
            self.queue.pop();
            let stubs = self.of(hash);
            stubs.iter().for_each(|stub| self.remove(stub));
            due.extend(stubs);
        }
        due
    }
}

/// Epoch by which a session leaves memory: what has fired is not needed until it closes, most of the time.
fn age_of(span: &Span, changed: u64, watermark_ms: i64) -> u64 {
    if span.end_ms <= watermark_ms { 0 } else { changed }
}

impl SessionSet {
    /// Sessions, in memory or not.
    pub fn len(&self) -> usize {
        self.cells.len() + self.left()
    }

    /// Sessions that only the store has.
    pub fn left(&self) -> usize {
        self.left.stubs.len()
    }

    /// When each session that may leave memory was changed last.
    pub fn clean_ages(&self, watermark_ms: i64) -> impl Iterator<Item = u64> {
        let clean = self.cells.clean();
        clean.map(move |(slot, age)| age_of(&self.spans[slot as usize], age, watermark_ms))
    }

    /// Takes the oldest of the clean sessions out of memory.
    pub fn evict(&mut self, oldest: &mut Oldest, plan: &Plan, watermark_ms: i64, keys: &mut KeyTable) {
        if !self.clean_ages(watermark_ms).any(|age| oldest.may_take(age)) {
            return;
        }
        let kept = Cells::new(plan, &plan.windows[self.window.0].plan, true);
        let cells = std::mem::replace(&mut self.cells, kept);
        let spans = std::mem::take(&mut self.spans);
        self.queue.clear();
        self.dirty.clear();
        let mut by_key = std::mem::take(&mut self.by_key);
        for slot in by_key.iter_mut().flat_map(std::mem::take) {
            let (span, key) = (spans[slot as usize], cells.get(slot).key);
            let age = cells.clean_since(slot).map(|age| age_of(&span, age, watermark_ms));
            if age.is_some_and(|age| oldest.takes(age)) {
                self.leave(keys.hash_of(key), (span.start_ms, span.end_ms), watermark_ms);
                keys.release(key);
                continue;
            }
            let kept = self.cells.take_over(&cells, slot);
            debug_assert_eq!(kept as usize, self.spans.len(), "none is free yet");
            self.spans.push(span);
            self.spans[kept as usize].scheduled_ms = NOT_SCHEDULED;
            self.schedule(kept, watermark_ms);
            if self.cells.get(kept).dirty {
                self.dirty.push(kept);
            }
        }
        self.enter_all(by_key);
    }

    /// Finds the sessions in memory by their keys once more, in a table that has room for these.
    fn enter_all(&mut self, mut by_key: Vec<SmallVec<[u32; 4]>>) {
        // In the order in which they were taken over: by key, then ascending by start.
        for slot in 0..self.spans.len() as u32 {
            by_key[self.cells.get(slot).key as usize].push(slot);
        }
        self.by_key = by_key;
    }

    /// Notes a session that is not in memory.
    pub fn leave(&mut self, hash: u64, (start_ms, end_ms): (i64, i64), watermark_ms: i64) {
        let due_ms = self.due_at(end_ms, watermark_ms);
        self.left.insert(Stub { hash, start_ms }, due_ms);
    }

    /// Brings the sessions of a key into memory.
    pub fn bring(&mut self, key: u32, watermark_ms: i64, maker: &mut Maker<'_>) {
        if self.left.stubs.is_empty() {
            return;
        }
        let mut stored_key = Vec::new();
        for stub in self.left.of(maker.keys.hash_of(key)) {
            codec::write_session_key(self.window.0, stub.start_ms, maker.keys.bytes(key), &mut stored_key);
            let (plan, epoch, keys) = (maker.plan, maker.paging.epoch(), &mut *maker.keys);
            let found = maker.paging.get(&stored_key, |bytes| {
                self.put_back(key, &stub, bytes, watermark_ms, (plan, epoch), keys)
            });
            // It may be of another key with the same hash.
            if found == Some(true) {
                self.left.remove(&stub);
            }
        }
    }

    /// Brings those sessions into memory that fire or close when the watermark goes from `from` to `to`.
    pub fn bring_due(&mut self, from_ms: i64, to_ms: i64, maker: &mut Maker<'_>) {
        if !self.left.stubs.is_empty() && self.left.next_due() <= to_ms {
            let due = self.left.take_due(to_ms);
            self.bring_stubs(due, from_ms, maker);
        }
    }

    /// Brings the sessions, of any key, into memory that begin at a time.
    pub fn bring_start(&mut self, start_ms: i64, watermark_ms: i64, maker: &mut Maker<'_>) {
        let begin = self.left.stubs.iter().filter(|stub| stub.start_ms == start_ms);
        let begin: Vec<Stub> = begin.copied().collect();
        begin.iter().for_each(|stub| self.left.remove(stub));
        self.bring_stubs(begin, watermark_ms, maker);
    }

    /// Brings the sessions of stubs that were taken out into memory.
    fn bring_stubs(&mut self, mut stubs: Vec<Stub>, watermark_ms: i64, maker: &mut Maker<'_>) {
        if stubs.is_empty() {
            return;
        }
        stubs.sort_unstable_by_key(|stub| (stub.start_ms, stub.hash));
        let starts = stubs.chunk_by(|one, other| one.start_ms == other.start_ms);
        let prefixes: Vec<Vec<u8>> = starts
            .map(|stubs| {
                let mut prefix = Vec::new();
                codec::write_session_key(self.window.0, stubs[0].start_ms, &[], &mut prefix);
                prefix
            })
            .collect();
        let (plan, epoch, keys) = (maker.plan, maker.paging.epoch(), &mut *maker.keys);
        let mut missing = stubs.len();
        maker.paging.scan_each(&prefixes, |stored_key, value| {
            let (_, start_ms, key_bytes) = codec::read_timed_key(stored_key)?;
            let stub = Stub {
                hash: key::hash(key_bytes),
                start_ms,
            };
            let place = stubs.binary_search_by_key(&(start_ms, stub.hash), |stub| (stub.start_ms, stub.hash));
            if place.is_ok() {
                let key = keys.intern(key_bytes);
                let is_back = self.put_back(key, &stub, value, watermark_ms, (plan, epoch), keys)?;
                missing = missing.saturating_sub(usize::from(is_back));
            }
            Some(())
        });
        if missing > 0 {
            maker.paging.miss("a session");
        }
    }

    /// Puts a stored session back, if it is not back already.
    fn put_back(
        &mut self,
        key: u32,
        stub: &Stub,
        bytes: &[u8],
        watermark_ms: i64,
        (plan, epoch): (&Plan, u64),
        keys: &mut KeyTable,
    ) -> Option<bool> {
        if self.of_key(key).any(|(window, _)| window.start_ms == stub.start_ms) {
            return Some(false);
        }
        let (slot, end_ms) = self.cells.bring(key, bytes, &plan.layout, epoch)?;
        keys.retain(key);
        self.place(slot, key, stub.start_ms, end_ms);
        self.spans[slot as usize].stored_ms = Some(stub.start_ms);
        self.schedule(slot, watermark_ms);
        Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_that_are_alike_each_is_found_once_and_not_too_late() {
        let (mut left, stub) = (Left::default(), Stub { hash: 1, start_ms: 5 });
        left.insert(stub, 10);
        left.insert(stub, 12);
        left.insert(Stub { start_ms: 7, ..stub }, 20);
        assert_eq!((left.of(1).len(), left.of(2).len(), left.next_due()), (3, 0, 10));
        // One came back by its key, and nobody can say which.
        left.remove(&stub);
        assert_eq!(left.take_due(10).len(), 2, "all of the key, some before they are due");
        assert_eq!((left.take_due(30).len(), left.next_due()), (0, i64::MAX));
    }

    #[test]
    fn the_queue_does_not_grow_with_sessions_that_come_and_go() {
        let (mut left, stub) = (Left::default(), Stub { hash: 1, start_ms: 5 });
        for due_ms in 0..100_000 {
            left.insert(stub, due_ms);
            left.remove(&stub);
        }
        assert!(left.queue.len() <= 2 * QUEUE_MIN, "{}", left.queue.len());
    }
}
