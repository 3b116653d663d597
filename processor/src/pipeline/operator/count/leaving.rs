//! Keys of count windows that leave memory, for the store has them, and come back. Must not hold: which of them, or when.

use super::{CountSet, Counts, Entry, Left, NONE};
use crate::aggregation::layout::Layout;
use crate::core::key::KeyTable;
use crate::pipeline::operator::paging::Oldest;
use crate::pipeline::operator::pane::Maker;
use crate::state::codec;

impl Counts {
    /// Counters of a key and the times of its present block, as they are stored, and the bytes of the block's row.
    pub fn read(bytes: &[u8]) -> Option<(Self, [i64; 2], &[u8])> {
        let ([events, fired_at, fired, least, most], row) = codec::read_numbers(bytes)?;
        let is_right = events > 0 && (0..=events).contains(&fired_at) && (0..=events).contains(&fired);
        let counts = Self {
            events: events as u64,
            fired_at: fired_at as u64,
            fired: fired as u64,
        };
        is_right.then_some((counts, [least, most], row))
    }
}

impl Entry {
    /// Whether the store has all of it.
    fn is_clean(&self) -> bool {
        !self.dirty && self.saved.is_some()
    }
}

impl CountSet {
    /// Keys in memory.
    pub fn resident(&self) -> usize {
        self.entries.len()
    }

    /// Rows that only the store has.
    pub fn left(&self) -> usize {
        self.left.rows
    }

    /// When each key that may leave memory was changed last.
    pub fn clean_ages(&self) -> impl Iterator<Item = u64> {
        let clean = self.entries.iter().filter(|entry| entry.is_clean());
        clean.map(|entry| entry.changed)
    }

    /// Takes the oldest of the clean keys out of memory.
    pub fn evict(&mut self, oldest: &mut Oldest, keys: &mut KeyTable) {
        let before = self.entries.len();
        let mut entries = std::mem::take(&mut self.entries);
        entries.retain(|entry| {
            let leaves = entry.is_clean() && oldest.takes(entry.changed);
            if leaves {
                keys.release(entry.key);
                self.leave(&entry.counts);
                let rows = entry.places.iter().chain([&entry.head]);
                rows.for_each(|row| self.rows.release(*row));
            }
            !leaves
        });
        self.entries = entries;
        if self.entries.len() < before {
            self.renumber();
        }
    }

    /// Entries and rows move up to where others were.
    fn renumber(&mut self) {
        let rows = self.rows.compact();
        self.entries.shrink_to_fit();
        self.by_key.fill(NONE);
        self.dirty.clear();
        for (number, entry) in (0..).zip(&mut self.entries) {
            for row in entry.places.iter_mut().chain([&mut entry.head]) {
                *row = rows[*row as usize];
            }
            self.by_key[entry.key as usize] = number;
            if entry.dirty {
                self.dirty.push(number);
            }
        }
    }

    /// Keys have numbers below this.
    pub fn shrink(&mut self, keys: usize) {
        self.by_key.truncate(keys);
        self.by_key.shrink_to_fit();
    }

    /// Notes a key that is not in memory.
    pub fn leave(&mut self, counts: &Counts) {
        self.left = Left {
            keys: self.left.keys + 1,
            rows: self.left.rows + self.rows_of(counts),
        };
    }

    /// Rows of a key.
    pub fn rows_of(&self, counts: &Counts) -> usize {
        1 + self.rule.places(counts.events)
    }

    /// Brings the events of a key into memory, if the store has some.
    pub fn bring(&mut self, key: u32, maker: &mut Maker<'_>) {
        if self.left.keys == 0 || self.find(key).is_some() {
            return;
        }
        let (index, layout, epoch) = (self.index(), &maker.plan.layout, maker.paging.epoch());
        let mut stored_key = Vec::new();
        codec::write_count_key(index, None, maker.keys.bytes(key), &mut stored_key);
        let keys = &mut *maker.keys;
        let head = (maker.paging).get(&stored_key, |bytes| self.bring_head(key, bytes, layout, keys));
        let Some((number, counts)) = head else {
            return;
        };
        for place in 0..self.rule.places(counts.events) {
            codec::write_count_key(index, Some(place), maker.keys.bytes(key), &mut stored_key);
            let row = self.rows.push();
            self.entries[number as usize].places.push(row);
            let found = maker.paging.get(&stored_key, |bytes| {
                let (times, values) = codec::read_numbers(bytes)?;
                self.set_times(row, times);
                layout.decode(values, self.rows.get_mut(row)).then_some(())
            });
            if found.is_none() {
                maker.paging.miss("an event of a count window");
            }
        }
        self.entries[number as usize].changed = epoch;
        self.left.keys -= 1;
        self.left.rows = self.left.rows.saturating_sub(self.rows_of(&counts));
    }

    /// The entry of a key from its stored counters, its places still missing.
    fn bring_head(&mut self, key: u32, bytes: &[u8], layout: &Layout, keys: &mut KeyTable) -> Option<(u32, Counts)> {
        let (counts, times, values) = Counts::read(bytes)?;
        let number = self.entry(key, keys);
        let head = self.entries[number as usize].head;
        self.set_times(head, times);
        if !layout.decode(values, self.rows.get_mut(head)) {
            return None;
        }
        let entry = &mut self.entries[number as usize];
        (entry.counts, entry.saved) = (counts, Some(counts.events));
        Some((number, counts))
    }

    /// Brings all keys into memory.
    pub fn bring_every_key(&mut self, maker: &mut Maker<'_>) {
        if self.left.keys == 0 {
            return;
        }
        let (mut prefix, mut found) = (Vec::new(), Vec::new());
        codec::write_count_key(self.index(), None, &[], &mut prefix);
        maker.paging.scan(&prefix, |key, _| {
            found.push(key.to_vec());
            Some(())
        });
        for bytes in found {
            let key = maker.keys.intern(&bytes);
            self.bring(key, maker);
        }
        if std::mem::take(&mut self.left).keys > 0 {
            maker.paging.miss("a key of a count window");
        }
    }
}
