//! Rows of state: a fixed run of 64-bit words each (a header of the owner's, then the accumulators), and beside them
//! the variable state of those accumulators that need some. Panes and sessions keep their rows in one of these.
//! Must not hold: what words mean (`layout`), or which key or window a row belongs to.

use super::extra::Extra;
use super::layout::Layout;

/// Rows of one layout.
#[derive(Clone, Debug)]
pub struct RowStore {
    words: Vec<u64>,
    extras: Vec<Extra>,
    free: Vec<u32>,
    header: usize,
    /// Words of a row with its header.
    used: usize,
    /// Words from row to row: at least one, so that rows can be counted.
    stride: usize,
    /// Variable state of a row to which nothing was added.
    blank: Vec<Extra>,
}

/// A row to read.
#[derive(Clone, Copy, Debug)]
pub struct RowRef<'a> {
    /// Words of the accumulators.
    pub words: &'a [u64],
    /// Variable state of the accumulators that need some.
    pub extras: &'a [Extra],
}

/// A row to change.
#[derive(Debug)]
pub struct RowMut<'a> {
    /// Words of the accumulators.
    pub words: &'a mut [u64],
    /// Variable state of the accumulators that need some.
    pub extras: &'a mut [Extra],
}

impl RowMut<'_> {
    /// The row to read.
    pub fn as_ref(&self) -> RowRef<'_> {
        RowRef {
            words: self.words,
            extras: self.extras,
        }
    }
}

impl RowStore {
    /// An empty store whose rows have `header` words for their owner.
    pub fn new(layout: &Layout, header: usize) -> Self {
        Self {
            words: Vec::new(),
            extras: Vec::new(),
            free: Vec::new(),
            header,
            used: header + layout.words(),
            stride: (header + layout.words()).max(1),
            blank: layout.blank_extras(),
        }
    }

    /// Makes room for so many more rows.
    pub fn reserve(&mut self, rows: usize) {
        self.words.reserve(rows * self.stride);
        self.extras.reserve(rows * self.blank.len());
    }

    /// Reads something of every cache line of a row, so that it is near when it is needed; the answer means nothing.
    pub fn touch(&self, row: u32) -> u64 {
        const LINE_WORDS: usize = 8;
        let start = row as usize * self.stride;
        let words = self.words.get(start..start + self.stride).unwrap_or_default();
        words.iter().step_by(LINE_WORDS).fold(0, |sum, word| sum ^ word)
    }

    /// A new row, all zero; the number of a released one is used again.
    pub fn push(&mut self) -> u32 {
        if let Some(row) = self.free.pop() {
            return row;
        }
        let row = self.slots();
        self.words.resize(self.words.len() + self.stride, 0);
        self.extras.extend_from_slice(&self.blank);
        row as u32
    }

    /// A new row with the accumulators of another one of the same layout, and a header of zeros.
    pub fn push_copy(&mut self, other: RowRef<'_>) -> u32 {
        let row = self.push();
        self.copy(row, other);
        row
    }

    /// Sets the accumulators of a row to those of another one of the same layout.
    pub fn copy(&mut self, row: u32, other: RowRef<'_>) {
        let target = self.get_mut(row);
        target.words.copy_from_slice(other.words);
        target.extras.clone_from_slice(other.extras);
    }

    /// Forgets a row; its number may be used again.
    pub fn release(&mut self, row: u32) {
        debug_assert!(!self.free.contains(&row), "a row is released once");
        self.clear(row);
        self.free.push(row);
    }

    /// Makes a row as it was when it was new.
    pub fn clear(&mut self, row: u32) {
        let start = row as usize * self.stride;
        self.words[start..start + self.stride].fill(0);
        let extras = row as usize * self.blank.len();
        self.extras[extras..extras + self.blank.len()].clone_from_slice(&self.blank);
    }

    /// Takes a row out of a store whose rows are never released; the last row gets its number.
    pub fn swap_remove(&mut self, row: u32) {
        debug_assert!(self.free.is_empty(), "rows of such a store are never released");
        let (row, last, extras) = (row as usize, self.slots() - 1, self.blank.len());
        self.words.copy_within(last * self.stride.., row * self.stride);
        for index in 0..extras {
            self.extras.swap(row * extras + index, last * extras + index);
        }
        self.words.truncate(last * self.stride);
        self.extras.truncate(last * extras);
    }

    /// Gives back the memory of released rows: those behind them move up. Answers the new number of each.
    pub fn compact(&mut self) -> Vec<u32> {
        let mut numbers: Vec<u32> = vec![0; self.slots()];
        for row in self.free.drain(..) {
            numbers[row as usize] = u32::MAX;
        }
        let (mut kept, extras) = (0, self.blank.len());
        for (row, number) in numbers.iter_mut().enumerate().filter(|(_, number)| **number == 0) {
            let start = row * self.stride;
            self.words.copy_within(start..start + self.stride, kept * self.stride);
            for index in (0..extras).filter(|_| row != kept) {
                self.extras.swap(kept * extras + index, row * extras + index);
            }
            *number = kept as u32;
            kept += 1;
        }
        self.words.truncate(kept * self.stride);
        self.extras.truncate(kept * extras);
        self.shrink_to_fit();
        numbers
    }

    /// Gives back memory that no row needs.
    pub fn shrink_to_fit(&mut self) {
        self.words.shrink_to_fit();
        self.extras.shrink_to_fit();
    }

    /// The owner's words of a row.
    pub fn header(&self, row: u32) -> &[u64] {
        let start = row as usize * self.stride;
        &self.words[start..start + self.header]
    }

    /// The owner's words of a row.
    pub fn header_mut(&mut self, row: u32) -> &mut [u64] {
        let start = row as usize * self.stride;
        &mut self.words[start..start + self.header]
    }

    /// The accumulators of a row.
    pub fn get(&self, row: u32) -> RowRef<'_> {
        let start = row as usize * self.stride;
        let extras = row as usize * self.blank.len();
        RowRef {
            words: &self.words[start + self.header..start + self.used],
            extras: &self.extras[extras..extras + self.blank.len()],
        }
    }

    /// The accumulators of a row.
    pub fn get_mut(&mut self, row: u32) -> RowMut<'_> {
        let start = row as usize * self.stride;
        let extras = row as usize * self.blank.len();
        RowMut {
            words: &mut self.words[start + self.header..start + self.used],
            extras: &mut self.extras[extras..extras + self.blank.len()],
        }
    }

    /// Merges row `from` into row `to` of the same store; `from` stays as it is.
    pub fn merge_within(&mut self, layout: &Layout, to: u32, from: u32) {
        debug_assert_ne!(to, from, "a row is not merged into itself");
        let (to, from) = (to as usize, from as usize);
        let [words, others] = pair(&mut self.words, self.stride, to, from);
        let [extras, other_extras] = pair(&mut self.extras, self.blank.len(), to, from);
        let into = RowMut {
            words: &mut words[self.header..self.used],
            extras,
        };
        let other = RowRef {
            words: &others[self.header..self.used],
            extras: other_extras,
        };
        layout.merge(into, other);
    }

    /// Bytes of one row, without what its variable state has on the heap.
    pub fn row_bytes(&self) -> usize {
        self.stride * size_of::<u64>() + self.blank.len() * size_of::<Extra>()
    }

    /// Rows in use.
    pub fn len(&self) -> usize {
        self.slots() - self.free.len()
    }

    /// Whether no row is in use.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes on the heap; looks at every row when rows have variable state.
    pub fn heap_bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
            + self.extras.capacity() * size_of::<Extra>()
            + self.extras.iter().map(Extra::heap_bytes).sum::<usize>()
    }

    /// As [`Self::heap_bytes`], without what was asked of the allocator ahead and never written to.
    pub fn bytes_in_use(&self) -> usize {
        size_of_val(&self.words[..])
            + size_of_val(&self.extras[..])
            + self.extras.iter().map(Extra::heap_bytes).sum::<usize>()
    }

    fn slots(&self) -> usize {
        self.words.len() / self.stride
    }
}

/// Chunks `first` and `second` (two different ones) of `len` items each.
fn pair<T>(items: &mut [T], len: usize, first: usize, second: usize) -> [&mut [T]; 2] {
    let (low, high) = (first.min(second), first.max(second));
    let (head, tail) = items.split_at_mut(high * len);
    let (low, high) = (&mut head[low * len..(low + 1) * len], &mut tail[..len]);
    if first < second { [low, high] } else { [high, low] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregation::function::Function;
    use crate::aggregation::layout::Source;

    #[test]
    fn rows_of_one_store_are_merged_in_either_direction() {
        let mut layout = Layout::default();
        layout.push("n", &Function::Count, &[]);
        let mut store = RowStore::new(&layout, 1);
        let rows = [store.push(), store.push(), store.push()];
        for (row, count) in rows.iter().zip([1, 10, 100]) {
            store.get_mut(*row).words[0] = count;
        }
        store.merge_within(&layout, rows[0], rows[2]);
        store.merge_within(&layout, rows[2], rows[1]);
        let counts = rows.map(|row| store.get(row).words[0]);
        assert_eq!(counts, [101, 10, 110]);
    }

    #[test]
    fn rows_behind_released_ones_move_up() {
        let mut layout = Layout::default();
        layout.push("n", &Function::Count, &[]);
        let field = Source {
            identity: "/f".to_owned(),
            index: 0,
        };
        layout.push("f", &Function::First, &[field]);
        let mut store = RowStore::new(&layout, 1);
        let rows: Vec<u32> = (0..5).map(|_| store.push()).collect();
        for row in &rows {
            store.header_mut(*row)[0] = u64::from(*row) + 10;
            store.get_mut(*row).extras[0] = Extra::Text(row.to_string().into_bytes());
        }
        store.release(rows[1]);
        store.release(rows[3]);
        let numbers = store.compact();
        assert_eq!(numbers, [0, u32::MAX, 1, u32::MAX, 2]);
        assert_eq!((store.len(), store.push()), (3, 3));
        for (before, now) in [(0, 0), (2, 1), (4, 2)] {
            assert_eq!(store.header(now), &[before + 10]);
            let text = &store.get(now).extras[0];
            assert!(
                matches!(text, Extra::Text(text) if *text == before.to_string().into_bytes()),
                "{text:?}"
            );
        }
        assert_eq!(store.header(3), &[0]);
    }

    #[test]
    fn a_released_row_comes_back_empty() {
        let mut layout = Layout::default();
        layout.push("n", &Function::Count, &[]);
        let mut store = RowStore::new(&layout, 2);
        let (first, second) = (store.push(), store.push());
        store.get_mut(first).words[0] = 7;
        store.header_mut(first)[1] = 8;
        store.header_mut(second)[0] = 9;
        assert_eq!((store.get(first).words, store.header(first)), (&[7][..], &[0, 8][..]));
        let copy = store.push_copy(RowRef {
            words: &[7],
            extras: &[],
        });
        assert_eq!(
            (store.get(copy).words, store.header(copy), store.len()),
            (&[7][..], &[0, 0][..], 3)
        );
        store.release(first);
        assert_eq!(store.len(), 2);
        assert_eq!(store.push(), first);
        assert_eq!((store.get(first).words, store.header(first)), (&[0][..], &[0, 0][..]));
        assert_eq!(store.header(second), &[9, 0]);
    }
}
