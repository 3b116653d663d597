//! State that leaves memory and comes back: what is clean may, for the store has it. A task whose memory is bounded
//! behaves like any other, byte for byte; it only asks the store for what it does not hold.
//! Must not hold: when changes are applied to the store (the shell).

use super::Task;
use super::count::CountSet;
use super::instance::InstanceSet;
use super::pane::{Maker, PaneSet};
use super::session::SessionSet;
use crate::state::backend::{Backend, Error, Reader, Visit};

/// Events, partials and rows between two looks at the memory, at least and at most: a look visits every key.
const LOOK_AFTER: (u64, u64) = (4_096, 500_000);
/// What a row takes beside its stored key and value: header, number of the key, entries of the tables.
const ROW_OVERHEAD_BYTES: usize = 96;
/// Attempts at a look to come down to what is asked for.
const EVICTIONS_MAX: usize = 4;

/// Where rows are that are not in memory, and how much of it there is.
#[derive(Clone, Debug, Default)]
pub(super) struct Paging {
    reader: Option<Reader>,
    budget_bytes: usize,
    /// How much the task has taken when its memory is looked at next.
    next_look: u64,
    /// What came beside records: partials, rows that were made, and those that came back.
    beside: u64,
    /// Number of the epoch: a row remembers when it was changed last.
    epoch: u64,
    /// The first read that failed.
    failure: Option<Error>,
}

impl Paging {
    pub fn new(reader: Reader, budget_bytes: usize) -> Self {
        Self {
            reader: Some(reader),
            budget_bytes,
            ..Self::default()
        }
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    pub fn end_epoch(&mut self) {
        self.epoch += 1;
    }

    /// How much of the state may be read into memory when a task begins.
    pub fn room_at_start(&self) -> Room {
        Room {
            bytes: self.reader.as_ref().map(|_| target(self.budget_bytes)),
        }
    }

    /// Counts what has to do with memory and is no record.
    pub fn count(&mut self, rows: u64) {
        self.beside += rows;
    }

    fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
    }

    /// What the store has under a key, as `read` understands it; nothing where it has none.
    pub fn get<T>(&mut self, stored_key: &[u8], read: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
        let found = self.reader().and_then(|reader| reader.backend().get(stored_key));
        let understood = found.and_then(|bytes| match bytes {
            Some(bytes) => read(&bytes).map(Some).ok_or_else(damaged),
            None => Ok(None),
        });
        self.beside += u64::from(!matches!(understood, Ok(None)));
        understood.unwrap_or_else(|error| {
            self.fail(error);
            None
        })
    }

    /// Visits what the store has under keys with this prefix, in their order, each without the prefix; `visit` answers
    /// nothing for what it does not understand.
    pub fn scan(&mut self, prefix: &[u8], mut visit: impl FnMut(&[u8], &[u8]) -> Option<()>) {
        let visit = |key: &[u8], value: &[u8]| visit(&key[prefix.len()..], value);
        self.visit(visit, |backend, visit| backend.scan(prefix, visit));
    }

    /// The same of several prefixes, which ascend and are those of few keys, each with its prefix.
    pub fn scan_each(&mut self, prefixes: &[Vec<u8>], visit: impl FnMut(&[u8], &[u8]) -> Option<()>) {
        self.visit(visit, |backend, visit| backend.scan_each(prefixes, visit));
    }

    fn visit(
        &mut self,
        mut visit: impl FnMut(&[u8], &[u8]) -> Option<()>,
        scan: impl FnOnce(&dyn Backend, &mut Visit<'_>) -> Result<(), Error>,
    ) {
        let mut found = 0;
        let mut counted = |key: &[u8], value: &[u8]| {
            found += 1;
            visit(key, value).ok_or_else(damaged)
        };
        let scanned = (self.reader()).and_then(|reader| scan(reader.backend(), &mut counted));
        scanned.unwrap_or_else(|error| self.fail(error));
        self.beside += found;
    }

    /// What left memory is not in the store.
    pub fn miss(&mut self, what: &str) {
        self.fail(Error::Corrupt {
            what: format!("{what} is not there any more"),
        });
    }

    fn reader(&self) -> Result<&Reader, Error> {
        self.reader.as_ref().ok_or_else(|| Error::Store {
            message: "state has left memory and there is no store to read it from".to_owned(),
        })
    }
}

/// What leaves memory next: what was not changed for the longest, by the epoch of its last change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Oldest {
    newest: u64,
    /// How many of those that were changed in the newest of these epochs.
    of_newest: usize,
}

impl Oldest {
    /// So many of these.
    fn among(mut ages: Vec<u64>, count: usize) -> Option<Self> {
        let count = count.min(ages.len());
        let last = count.checked_sub(1)?;
        let (older, newest, _) = ages.select_nth_unstable(last);
        let newest = *newest;
        let of_newest = count - older.iter().filter(|age| **age < newest).count();
        Some(Self { newest, of_newest })
    }

    /// Whether something of this age is among them; it is counted.
    pub fn takes(&mut self, age: u64) -> bool {
        let takes = age < self.newest || (age == self.newest && self.of_newest > 0);
        self.of_newest -= usize::from(takes && age == self.newest);
        takes
    }
}

/// How much of a stored state is still read into memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Absent: all of it.
    bytes: Option<usize>,
}

impl Room {
    /// For everything.
    pub const ENDLESS: Self = Self { bytes: None };

    /// Whether there is room for what takes so many bytes; it is counted.
    pub fn takes(&mut self, bytes: usize) -> bool {
        let left = self.bytes.map(|room| room.checked_sub(bytes));
        self.bytes = left.map(Option::unwrap_or_default);
        left != Some(None)
    }
}

fn damaged() -> Error {
    Error::Corrupt {
        what: "what was stored: not in its format".to_owned(),
    }
}

/// What is evicted is evicted for a while: state leaves until a quarter of the memory is free.
fn target(budget_bytes: usize) -> usize {
    budget_bytes - budget_bytes / 4
}

/// What a stored row is going to take in memory, roughly: its variable state takes what it does in the store.
pub(super) fn bytes_in_memory(key: &[u8], value: &[u8], row_bytes: usize) -> usize {
    key.len() + value.len() + row_bytes + ROW_OVERHEAD_BYTES
}

impl Task {
    /// From now on clean state may leave memory, and is read from this store: the one that this task's changes are
    /// applied to.
    pub fn page(&mut self, reader: Reader) {
        self.paging = Paging::new(reader, self.paging.budget_bytes);
    }

    /// The changes that [`Task::take_changes`] gave last are in the store. What was not changed for the longest leaves
    /// memory, if the state takes more of it than this.
    pub fn applied(&mut self, budget_bytes: usize) {
        let before = std::mem::replace(&mut self.paging.budget_bytes, budget_bytes);
        let taken = self.taken();
        let looks = taken >= self.paging.next_look || budget_bytes < before;
        if self.paging.reader.is_none() || !looks {
            return;
        }
        let mut bytes = self.bytes_in_use();
        if bytes > budget_bytes {
            self.evict_to(target(budget_bytes));
            bytes = self.bytes_in_use();
        }
        // Half as many rows, for each has its event: what grows with that is no row, but keys and variable state.
        let row_bytes = (bytes / self.resident().max(1)).max(ROW_OVERHEAD_BYTES);
        let left = (budget_bytes.saturating_sub(bytes) / row_bytes) as u64;
        self.paging.next_look = taken + left.clamp(LOOK_AFTER.0, LOOK_AFTER.1);
    }

    /// Whether the memory is to be looked at: state leaves it only when it is committed and in the store.
    pub fn wants_commit(&self) -> bool {
        self.paging.reader.is_some() && self.taken() >= self.paging.next_look
    }

    /// Records, what came in them as partials, and rows that they made or brought.
    fn taken(&self) -> u64 {
        self.stats.records + self.paging.beside
    }

    /// Clean state leaves memory, what was not changed for the longest first, until the rest takes about so many bytes.
    /// Only what is in the store may be clean: call it behind [`Task::take_changes`] and its application.
    pub fn evict_to(&mut self, bytes: usize) {
        if self.paging.reader.is_none() {
            return;
        }
        // What a row takes is only roughly known, since not everything leaves with it.
        for _ in 0..EVICTIONS_MAX {
            let (resident, in_use) = (self.resident(), self.bytes_in_use());
            let excess = in_use.saturating_sub(bytes);
            let row_bytes = (in_use / resident.max(1)).max(1);
            let oldest = Oldest::among(self.clean_ages(), excess / row_bytes + 1);
            if let Some(oldest) = oldest.filter(|_| excess > 0) {
                self.evict(oldest);
            }
            if excess > 0 {
                self.shrink();
            }
            if self.resident() == resident {
                break;
            }
        }
    }

    fn evict(&mut self, mut oldest: Oldest) {
        let watermark_ms = self.position.watermark_ms;
        for set in &mut self.sets {
            set.evict(&mut oldest, &mut self.keys);
        }
        for set in &mut self.instances {
            set.evict(&mut oldest, &mut self.keys);
        }
        for set in &mut self.sessions {
            set.evict(&mut oldest, watermark_ms, &mut self.keys);
        }
        for set in &mut self.counts {
            set.evict(&mut oldest, &mut self.keys);
        }
    }

    /// Gives back what no key needs any more.
    fn shrink(&mut self) {
        self.keys.shrink();
        let keys = self.keys.capacity();
        self.sets.iter_mut().for_each(|set| set.shrink(keys));
        self.sessions.iter_mut().for_each(|set| set.shrink(keys));
        self.counts.iter_mut().for_each(|set| set.shrink(keys));
    }

    fn clean_ages(&self) -> Vec<u64> {
        let watermark_ms = self.position.watermark_ms;
        let mut ages = Vec::new();
        ages.extend(self.sets.iter().flat_map(|set| set.clean_ages()));
        ages.extend(self.instances.iter().flat_map(|set| set.clean_ages()));
        ages.extend(self.sessions.iter().flat_map(|set| set.clean_ages(watermark_ms)));
        ages.extend(self.counts.iter().flat_map(|set| set.clean_ages()));
        ages
    }

    /// Why the store could not be read, if it could not. The task is then of no more use, and what it has put out
    /// since the last commit must not be published.
    pub fn take_failure(&mut self) -> Option<Error> {
        self.paging.failure.take()
    }

    /// What memory holds, in parts that leave it by themselves.
    fn resident(&self) -> usize {
        let shared: usize = self.sets.iter().map(PaneSet::resident).sum();
        let own: usize = self.instances.iter().map(|set| set.cells.len()).sum();
        let sessions: usize = self.sessions.iter().map(|set| set.cells.len()).sum();
        let counts: usize = self.counts.iter().map(CountSet::resident).sum();
        shared + own + sessions + counts
    }

    /// Rows that only the store has.
    pub fn rows_left_in_store(&self) -> usize {
        let shared: usize = self.sets.iter().map(PaneSet::left).sum();
        let own: usize = self.instances.iter().map(InstanceSet::left).sum();
        let sessions: usize = self.sessions.iter().map(SessionSet::left).sum();
        let counts: usize = self.counts.iter().map(CountSet::left).sum();
        shared + own + sessions + counts
    }

    /// Brings what the store has of a key into memory.
    pub(super) fn bring_all(&mut self, key: u32) {
        let watermark_ms = self.position.watermark_ms;
        let mut maker = Maker {
            plan: &self.plan,
            keys: &mut self.keys,
            paging: &mut self.paging,
        };
        for set in &mut self.sets {
            set.bring(i64::MIN, i64::MAX, key, &mut maker);
        }
        for set in &mut self.instances {
            set.bring(key, &mut maker);
        }
        for set in &mut self.sessions {
            set.bring(key, watermark_ms, &mut maker);
        }
        for set in &mut self.counts {
            set.bring(key, &mut maker);
        }
    }
}
