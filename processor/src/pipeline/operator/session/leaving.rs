//! Sessions that leave memory, for the store has them, and come back. The store finds them by their start and key only, so
//! what stays of each is enough to find it by a key and in time. Must not hold: which of them leave, or when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use hashbrown::HashTable;

use super::{NOT_SCHEDULED, SessionSet, Span};
use crate::core::key::{self, KeyTable};
use crate::pipeline::builder::Plan;
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
        self.put(stub);
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

    fn put(&mut self, stub: Stub) {
        self.stubs.insert_unique(stub.hash, stub, |stub| stub.hash);
    }

    /// Takes out those of keys with this hash: of one key, nearly always.
    fn take(&mut self, hash: u64) -> Vec<Stub> {
        let mut taken = Vec::new();
        while let Ok(found) = self.stubs.find_entry(hash, |stub| stub.hash == hash) {
            taken.push(found.remove().0);
        }
        taken.sort_unstable_by_key(|stub| stub.start_ms);
        taken
    }

    /// Takes out those that begin at a time.
    fn take_start(&mut self, start_ms: i64) -> Vec<Stub> {
        self.stubs.extract_if(|stub| stub.start_ms == start_ms).collect()
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
            due.extend(self.take(hash));
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
    pub fn evict(&mut self, oldest: &mut Oldest, watermark_ms: i64, keys: &mut KeyTable) {
        let mut by_key = std::mem::take(&mut self.by_key);
        for slots in &mut by_key {
            slots.retain(|slot| {
                let (slot, span) = (*slot, self.spans[*slot as usize]);
                let age = self.cells.clean_since(slot).map(|age| age_of(&span, age, watermark_ms));
                let leaves = age.is_some_and(|age| oldest.takes(age));
                if leaves {
                    let key = self.cells.get(slot).key;
                    self.leave(keys.hash_of(key), (span.start_ms, span.end_ms), watermark_ms);
                    keys.release(key);
                    self.cells.remove(slot);
                }
                !leaves
            });
        }
        self.by_key = by_key;
        if self.cells.has_gaps() {
            let numbers = self.cells.compact();
            self.renumber(&numbers, watermark_ms);
        }
    }

    /// Cells have other numbers.
    fn renumber(&mut self, numbers: &[u32], watermark_ms: i64) {
        let mut slots = numbers.iter();
        self.spans
            .retain(|_| slots.next().is_some_and(|number| *number != u32::MAX));
        self.spans.shrink_to_fit();
        for slot in self.by_key.iter_mut().flatten() {
            *slot = numbers[*slot as usize];
        }
        self.dirty.clear();
        self.queue = BinaryHeap::new();
        for slot in 0..self.spans.len() as u32 {
            self.spans[slot as usize].scheduled_ms = NOT_SCHEDULED;
            self.schedule(slot, watermark_ms);
            if self.cells.get(slot).dirty {
                self.dirty.push(slot);
            }
        }
    }

    /// Keys have numbers below this.
    pub fn shrink(&mut self, keys: usize) {
        self.by_key.truncate(keys);
        self.by_key.shrink_to_fit();
        self.left.stubs.shrink_to_fit(|stub| stub.hash);
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
        for stub in self.left.take(maker.keys.hash_of(key)) {
            codec::write_session_key(self.window.0, stub.start_ms, maker.keys.bytes(key), &mut stored_key);
            let (plan, epoch, keys) = (maker.plan, maker.paging.epoch(), &mut *maker.keys);
            let found = maker.paging.get(&stored_key, |bytes| {
                self.put_back(key, &stub, bytes, watermark_ms, (plan, epoch), keys)
            });
            // It is of another key with the same hash; the queue has still got it.
            if found != Some(true) {
                self.left.put(stub);
            }
        }
    }

    /// Brings those sessions into memory that fire or close when the watermark goes from `from` to `to`.
    pub fn bring_due(&mut self, from_ms: i64, to_ms: i64, maker: &mut Maker<'_>) {
        if self.left.next_due() <= to_ms {
            let due = self.left.take_due(to_ms);
            self.bring_stubs(due, from_ms, maker);
        }
    }

    /// Brings the sessions, of any key, into memory that begin at a time.
    pub fn bring_start(&mut self, start_ms: i64, watermark_ms: i64, maker: &mut Maker<'_>) {
        let begin = self.left.take_start(start_ms);
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
        let slots = self.by_key.get(key as usize).map_or(&[][..], |slots| slots);
        let start_of = |slot: &u32| self.spans[*slot as usize].start_ms;
        let is_back = slots.binary_search_by_key(&stub.start_ms, start_of).is_ok();
        // What the store has under this key may be about to go: then the stub is another key's.
        if is_back || self.removed.contains(&(stub.start_ms, keys.bytes(key).to_vec())) {
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
        assert_eq!((left.take(2).len(), left.next_due()), (0, 10));
        // One came back by its key, and nobody can say which.
        let taken = left.take(1);
        assert_eq!(taken, [stub, stub, Stub { start_ms: 7, ..stub }]);
        taken[1..].iter().for_each(|stub| left.put(*stub));
        assert_eq!(left.take_due(10).len(), 2, "all of the key, some before they are due");
        assert_eq!((left.take_due(30).len(), left.next_due()), (0, i64::MAX));
    }

    #[test]
    fn the_queue_does_not_grow_with_sessions_that_come_and_go() {
        let (mut left, stub) = (Left::default(), Stub { hash: 1, start_ms: 5 });
        for due_ms in 0..100_000 {
            left.insert(stub, due_ms);
            left.take(1);
        }
        assert!(left.queue.len() <= 2 * QUEUE_MIN, "{}", left.queue.len());
    }
}
