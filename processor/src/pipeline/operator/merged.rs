//! The rows of all keys of a window, merged over its panes: those in memory and those that only the store has.
//! Must not hold: which panes a window has, or what it fires.

use super::paging::Paging;
use super::pane::Pane;
use crate::aggregation::layout::Layout;
use crate::aggregation::rows::{RowRef, RowStore};
use crate::core::key::KeyTable;

const NONE: u32 = u32::MAX;

/// A key: of the task, or one that the task does not know for none of its rows is in memory.
#[derive(Clone, Copy, Debug)]
enum Name {
    Known(u32),
    Stranger(u32),
}

/// One row a key.
#[derive(Debug)]
pub(super) struct Merged {
    rows: RowStore,
    list: Vec<(Name, u32)>,
    /// Row of each key of the task, and of each stranger.
    row_of: Vec<u32>,
    row_of_stranger: Vec<u32>,
    strangers: KeyTable,
}

impl Merged {
    pub fn new(layout: &Layout, keys: &KeyTable) -> Self {
        Self {
            rows: RowStore::new(layout, 0),
            list: Vec::new(),
            row_of: vec![NONE; keys.capacity()],
            row_of_stranger: Vec::new(),
            strangers: KeyTable::default(),
        }
    }

    /// Makes room for so many keys.
    pub fn reserve(&mut self, keys: usize) {
        self.list.reserve(keys);
        self.rows.reserve(keys);
    }

    /// Brings in what a pane has in memory.
    pub fn add(&mut self, pane: &Pane, layout: &Layout) {
        for (row, key) in pane.keys.iter().enumerate() {
            self.merge(Name::Known(*key), pane.values(row as u32), layout);
        }
    }

    /// Brings in what only the store has of a pane.
    pub fn add_left(&mut self, set: usize, pane: &Pane, layout: &Layout, keys: &KeyTable, paging: &mut Paging) {
        if pane.left == 0 {
            return;
        }
        pane.visit_stored(set, layout, paging, |bytes, values| {
            let name = match keys.find(crate::core::key::hash(bytes), bytes) {
                // What is in memory is newer.
                Some(known) if pane.find(known.id()).is_some() => return,
                Some(known) => Name::Known(known.id()),
                None => Name::Stranger(self.strangers.intern(bytes)),
            };
            self.merge(name, values, layout);
        });
    }

    fn merge(&mut self, name: Name, values: RowRef<'_>, layout: &Layout) {
        let merged = match name {
            Name::Known(key) => &mut self.row_of[key as usize],
            Name::Stranger(number) => {
                if self.row_of_stranger.len() <= number as usize {
                    self.row_of_stranger.resize(number as usize + 1, NONE);
                }
                &mut self.row_of_stranger[number as usize]
            }
        };
        if *merged == NONE {
            *merged = self.rows.push_copy(values);
            self.list.push((name, *merged));
        } else {
            layout.merge(self.rows.get_mut(*merged), values);
        }
    }

    /// Keys.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    fn bytes<'a>(&'a self, name: Name, keys: &'a KeyTable) -> &'a [u8] {
        match name {
            Name::Known(key) => keys.bytes(key),
            Name::Stranger(number) => self.strangers.bytes(number),
        }
    }

    /// Calls with the bytes of every key and its values, in the order of key bytes.
    pub fn for_each(mut self, keys: &KeyTable, mut visit: impl FnMut(&[u8], RowRef<'_>)) {
        let mut list = std::mem::take(&mut self.list);
        list.sort_unstable_by(|a, b| self.bytes(a.0, keys).cmp(self.bytes(b.0, keys)));
        for (name, row) in list {
            visit(self.bytes(name, keys), self.rows.get(row));
        }
    }
}
