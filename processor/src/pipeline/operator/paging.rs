//! Rows of shared panes that leave memory and come back: what is clean may, for the store has it. A task whose memory
//! is bounded behaves like any other, byte for byte; it only asks the store for what it does not hold.
//! Must not hold: when changes are applied to the store (the shell), rows of windows with values of their own.

use super::Task;
use super::pane::PaneSet;
use crate::aggregation::layout::Layout;
use crate::aggregation::rows::{RowMut, RowRef, RowStore};
use crate::state::backend::{Error, Reader};
use crate::state::codec;

/// Events or partials between two looks at the memory, at least and at most: a look visits every key.
const LOOK_RECORDS: (u64, u64) = (4_096, 500_000);
/// What a row takes beside its stored key and value: header, number of the key, entries of the tables.
const ROW_OVERHEAD_BYTES: usize = 96;

/// Where rows are that are not in memory, and how much of it there is.
#[derive(Clone, Debug, Default)]
pub(super) struct Paging {
    reader: Option<Reader>,
    budget_bytes: usize,
    /// How much the task has taken when its memory is looked at next.
    next_look: u64,
    /// Partials taken: a record of the first stage has many.
    partials: u64,
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

    /// How much of the state may be read into memory when a task begins; absent: all.
    pub fn room_at_start(&self) -> Option<usize> {
        self.reader.as_ref().map(|_| target(self.budget_bytes))
    }

    pub fn took_partial(&mut self) {
        self.partials += 1;
    }

    fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
    }

    /// Reads one row into `row`; answers its birth, or nothing where the store has none.
    pub fn read(&mut self, stored_key: &[u8], layout: &Layout, row: RowMut<'_>) -> Option<i64> {
        let found = self.reader().and_then(|reader| reader.backend().get(stored_key));
        let decoded = found.and_then(|bytes| match bytes {
            Some(bytes) => codec::read_row(&bytes, layout, row).map(Some).ok_or_else(damaged),
            None => Ok(None),
        });
        decoded.unwrap_or_else(|error| {
            self.fail(error);
            None
        })
    }

    /// Visits the stored rows of a pane by key, in the order of key bytes.
    pub fn rows_of(&mut self, set: usize, start_ms: i64, layout: &Layout, mut visit: impl FnMut(&[u8], RowRef<'_>)) {
        let mut rows = RowStore::new(layout, 0);
        let row = rows.push();
        let mut prefix = Vec::new();
        codec::write_pane_key(set, start_ms, &[], &mut prefix);
        let scanned = self.reader().and_then(|reader| {
            reader.backend().scan(&prefix, &mut |key, value| {
                codec::read_row(value, layout, rows.get_mut(row)).ok_or_else(damaged)?;
                visit(&key[prefix.len()..], rows.get(row));
                Ok(())
            })
        });
        if let Err(error) = scanned {
            self.fail(error);
        }
    }

    fn reader(&self) -> Result<&Reader, Error> {
        self.reader.as_ref().ok_or_else(|| Error::Store {
            message: "rows have left memory and there is no store to read them from".to_owned(),
        })
    }
}

fn damaged() -> Error {
    Error::Corrupt {
        what: "row: not in its format".to_owned(),
    }
}

/// What is evicted is evicted for a while: rows go until a quarter of the memory is free.
fn target(budget_bytes: usize) -> usize {
    budget_bytes - budget_bytes / 4
}

/// What a stored row is going to take in memory, roughly: its variable state takes what it does in the store.
pub(super) fn bytes_in_memory(key: &[u8], value: &[u8], row_bytes: usize) -> usize {
    key.len() + value.len() + row_bytes + ROW_OVERHEAD_BYTES
}

impl Task {
    /// From now on clean rows may leave memory, and are read from this store: the one that this task's changes are
    /// applied to. Without shared panes it changes nothing.
    pub fn page(&mut self, reader: Reader) {
        if !self.sets.is_empty() {
            self.paging = Paging::new(reader, self.paging.budget_bytes);
        }
    }

    /// The changes that [`Task::take_changes`] gave last are in the store. Rows that were not changed for the longest
    /// leave memory, if the state takes more of it than this.
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
        // An event makes a row in each set at most; half, for keys and variable state grow beside the rows.
        let row_bytes = (bytes / self.resident().max(1)).max(ROW_OVERHEAD_BYTES) * self.sets.len().max(1) * 2;
        let records_left = (budget_bytes.saturating_sub(bytes) / row_bytes) as u64;
        self.paging.next_look = taken + records_left.clamp(LOOK_RECORDS.0, LOOK_RECORDS.1);
    }

    /// Whether the memory is to be looked at: rows leave it only when what they hold is committed and in the store.
    pub fn wants_commit(&self) -> bool {
        self.paging.reader.is_some() && self.taken() >= self.paging.next_look
    }

    /// Records, and what came in them as partials.
    fn taken(&self) -> u64 {
        self.stats.records + self.paging.partials
    }

    /// Clean rows leave memory, those first that were not changed for the longest, until the state takes about so many
    /// bytes. Only what is in the store may be clean: call it behind [`Task::take_changes`] and its application.
    pub fn evict_to(&mut self, bytes: usize) {
        let (resident, in_use) = (self.resident(), self.bytes_in_use());
        let excess = in_use.saturating_sub(bytes);
        if self.paging.reader.is_none() || resident == 0 || excess == 0 {
            return;
        }
        let row_bytes = (in_use / resident).max(1);
        let mut ages: Vec<u64> = self.sets.iter().flat_map(|set| set.clean_ages()).collect();
        let count = (excess / row_bytes + 1).min(ages.len());
        let Some(last) = count.checked_sub(1) else {
            return;
        };
        let (older, newest, _) = ages.select_nth_unstable(last);
        let newest = *newest;
        let mut of_newest = count - older.iter().filter(|age| **age < newest).count();
        for set in &mut self.sets {
            set.evict(newest, &mut of_newest, &mut self.keys);
        }
    }

    /// Why the store could not be read, if it could not. The task is then of no more use, and what it has put out
    /// since the last commit must not be published.
    pub fn take_failure(&mut self) -> Option<Error> {
        self.paging.failure.take()
    }

    fn resident(&self) -> usize {
        self.sets.iter().map(PaneSet::resident).sum()
    }

    /// Rows that only the store has.
    pub fn rows_left_in_store(&self) -> usize {
        self.sets.iter().map(PaneSet::left).sum()
    }
}
