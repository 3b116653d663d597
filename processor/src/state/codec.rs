//! The keyspace of a task's state and the codec of each kind of entry. Tags are never used again for something else.
//!
//! | first byte | then | value |
//! |---|---|---|
//! | `0x01 'L'` | – | layout document (JSON): what the words of rows mean; its `format` is this table's version |
//! | `0x01 'P'` | – | position (JSON) |
//! | `0x01 'B'` | – | one bit per record of the last 10,000: was it a dead letter |
//! | `0x02` | pane set (1 byte), pane start (8, order-preserving), key bytes | watermark at birth, words (8 bytes each, little-endian), variable state (length in 4 bytes, bytes) |
//! | `0x03` | window (1 byte), window end (8, order-preserving), key bytes | number of late firings (8 bytes, little-endian) |
//! | `0x01 'T'` | – | when windows last fired by processing time (JSON by window) |
//! | `0x04` | window (1 byte), window end (8, order-preserving), key bytes | cell, bound: the start |
//! | `0x05` | window (1 byte), session start (8, order-preserving), key bytes | cell, bound: the end |
//! | `0x01 'S'` | – | source partitions of a window task: watermark, sequence and lineage of each (JSON) |
//! | `0x06` | pane set (1 byte), barred (8, order-preserving), pane start (8, order-preserving), key bytes | as `0x02` |
//! | `0x07` | window (1 byte), place among the last events (8, order-preserving; −1: the counters), key bytes | a place: smallest and largest time (8 each), row; the counters: events, events at the last pane, panes (8 each), then as a place for the present block |
//! | `0x01 'C'` | – | what each window allows, and up to which end earlier specs have closed it (JSON by window) |
//! | `0x40`–`0x7f` | the shell's entries | |
//!
//! A cell is: bound, events, events since the last pane, panes (8 bytes each), index of the last pane (8), its timing
//! (1; 0 for none), whether it was final (1), whether published values follow (1), length of the row (4), row, published row.

use std::ops::Range;

use crate::aggregation::layout::Layout;
use crate::aggregation::rows::{RowMut, RowRef};

/// The layout document.
pub const LAYOUT: &[u8] = b"\x01L";
/// The position.
pub const POSITION: &[u8] = b"\x01P";
/// Window of bad records.
pub const BAD_RATIO: &[u8] = b"\x01B";
/// Tag of a row of a pane.
pub const PANE_ROW: u8 = 0x02;
/// Tag of the late firings of a window and key.
pub const LATE_FIRINGS: u8 = 0x03;
/// When windows last fired by processing time.
pub const TICKS: &[u8] = b"\x01T";
/// What windows allow, and what of them earlier specs have closed.
pub const LATENESSES: &[u8] = b"\x01C";
/// Tag of a key in a window instance that keeps values of its own.
pub const INSTANCE_CELL: u8 = 0x04;
/// Tag of a session.
pub const SESSION_CELL: u8 = 0x05;
/// Source partitions of a window task.
pub const SOURCES: &[u8] = b"\x01S";
/// Tag of a row of a pane that some of its windows do not take.
pub const BARRED_ROW: u8 = 0x06;
/// Tag of a key in a count window.
pub const COUNT_ROW: u8 = 0x07;
/// First tag that is not the engine's.
pub const ENGINE_END: u8 = 0x40;

/// Times in keys sort as bytes: the sign bit is flipped.
fn time_bytes(time_ms: i64) -> [u8; 8] {
    ((time_ms as u64) ^ (1 << 63)).to_be_bytes()
}

fn write_timed_key(tag: u8, index: usize, time_ms: i64, key: &[u8], out: &mut Vec<u8>) {
    debug_assert!(index < 256, "the number of windows is bounded by validation");
    out.clear();
    out.extend_from_slice(&[tag, index as u8]);
    out.extend_from_slice(&time_bytes(time_ms));
    out.extend_from_slice(key);
}

/// Writes the key of a row.
pub fn write_pane_key(set: usize, start_ms: i64, key: &[u8], out: &mut Vec<u8>) {
    write_timed_key(PANE_ROW, set, start_ms, key, out);
}

/// Writes the key of a count of late firings.
pub fn write_late_key(window: usize, end_ms: i64, key: &[u8], out: &mut Vec<u8>) {
    write_timed_key(LATE_FIRINGS, window, end_ms, key, out);
}

/// Writes the key of a cell of an instance.
pub fn write_instance_key(window: usize, end_ms: i64, key: &[u8], out: &mut Vec<u8>) {
    write_timed_key(INSTANCE_CELL, window, end_ms, key, out);
}

/// Writes the key of a session.
pub fn write_session_key(window: usize, start_ms: i64, key: &[u8], out: &mut Vec<u8>) {
    write_timed_key(SESSION_CELL, window, start_ms, key, out);
}

/// Writes the key of a row that windows purged at `barred_ms` or below do not take.
pub fn write_barred_key(set: usize, barred_ms: i64, start_ms: i64, key: &[u8], out: &mut Vec<u8>) {
    write_timed_key(BARRED_ROW, set, barred_ms, &time_bytes(start_ms), out);
    out.extend_from_slice(key);
}

/// Set, barred, pane start and key bytes of a key written by [`write_barred_key`].
pub fn read_barred_key(bytes: &[u8]) -> Option<(usize, i64, i64, &[u8])> {
    let (set, barred_ms, rest) = read_timed_key(bytes)?;
    let (start, key) = rest.split_first_chunk::<8>()?;
    Some((set, barred_ms, (u64::from_be_bytes(*start) ^ (1 << 63)) as i64, key))
}

/// Keys of all rows of a pane that windows purged at `barred_ms` or below do not take.
pub fn barred_range(set: usize, barred_ms: i64, start_ms: i64) -> Range<Vec<u8>> {
    let (mut start, mut end) = (Vec::new(), Vec::new());
    write_barred_key(set, barred_ms, start_ms, &[], &mut start);
    match start_ms.checked_add(1) {
        Some(next_ms) => write_barred_key(set, barred_ms, next_ms, &[], &mut end),
        None => end = time_range(BARRED_ROW, set, barred_ms).end,
    }
    start..end
}

/// Index, time and key bytes of a key written by [`write_pane_key`] or [`write_late_key`].
pub fn read_timed_key(bytes: &[u8]) -> Option<(usize, i64, &[u8])> {
    let (index, rest) = bytes.get(1..)?.split_first()?;
    let (time, key) = rest.split_first_chunk::<8>()?;
    Some((usize::from(*index), (u64::from_be_bytes(*time) ^ (1 << 63)) as i64, key))
}

fn time_range(tag: u8, index: usize, time_ms: i64) -> Range<Vec<u8>> {
    let (mut start, mut end) = (Vec::new(), Vec::new());
    write_timed_key(tag, index, time_ms, &[], &mut start);
    match time_ms.checked_add(1) {
        Some(next_ms) => write_timed_key(tag, index, next_ms, &[], &mut end),
        // Behind the end of time there is the next index; 255 is the last and behind it there is the next tag.
        None if index < 255 => write_timed_key(tag, index + 1, i64::MIN, &[], &mut end),
        None => end.push(tag + 1),
    }
    start..end
}

/// Keys of all rows of a pane.
pub fn pane_range(set: usize, start_ms: i64) -> Range<Vec<u8>> {
    time_range(PANE_ROW, set, start_ms)
}

/// Keys of all late firings of a window instance.
pub fn late_range(window: usize, end_ms: i64) -> Range<Vec<u8>> {
    time_range(LATE_FIRINGS, window, end_ms)
}

/// Keys of all cells of an instance.
pub fn instance_range(window: usize, end_ms: i64) -> Range<Vec<u8>> {
    time_range(INSTANCE_CELL, window, end_ms)
}

/// Writes the key of the counters of a key in a count window, or of a place among its last events.
pub fn write_count_key(window: usize, place: Option<usize>, key: &[u8], out: &mut Vec<u8>) {
    write_timed_key(COUNT_ROW, window, place.map_or(-1, |place| place as i64), key, out);
}

/// Keys of everything in a count window.
pub fn count_range(window: usize) -> Range<Vec<u8>> {
    let mut start = Vec::new();
    write_timed_key(COUNT_ROW, window, i64::MIN, &[], &mut start);
    start..time_range(COUNT_ROW, window, i64::MAX).end
}

/// Writes numbers and a row behind them.
pub fn write_numbered_row(numbers: &[i64], layout: &Layout, row: RowRef<'_>, out: &mut Vec<u8>) {
    out.clear();
    numbers
        .iter()
        .for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
    layout.encode(row, out);
}

/// Reads what [`write_numbered_row`] wrote; `None` for anything else.
pub fn read_numbered_row<const N: usize>(bytes: &[u8], layout: &Layout, row: RowMut<'_>) -> Option<[i64; N]> {
    let (numbers, rest) = read_numbers(bytes)?;
    layout.decode(rest, row).then_some(numbers)
}

/// The numbers of what [`write_numbered_row`] wrote, and the bytes of its row.
pub fn read_numbers<const N: usize>(bytes: &[u8]) -> Option<([i64; N], &[u8])> {
    let (numbers, row) = bytes.split_at_checked(N * 8)?;
    let mut read = [0; N];
    for (number, bytes) in read.iter_mut().zip(numbers.as_chunks::<8>().0) {
        *number = i64::from_le_bytes(*bytes);
    }
    Some((read, row))
}

/// What a cell begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellHeader {
    /// The end of the window that is not in the key.
    pub bound_ms: i64,
    /// Events in all.
    pub events: u64,
    /// Events since the last pane.
    pub since: u64,
    /// Panes so far.
    pub fired: u64,
    /// Index, timing (not 0) and finality of the last pane.
    pub last: Option<(u64, u8, bool)>,
}

const CELL_HEADER: usize = 5 * 8 + 3;

/// Writes a cell.
pub fn write_cell(
    header: &CellHeader,
    layout: &Layout,
    row: RowRef<'_>,
    published: Option<RowRef<'_>>,
    out: &mut Vec<u8>,
) {
    out.clear();
    let (index, timing, is_final) = header.last.unwrap_or_default();
    out.extend_from_slice(&header.bound_ms.to_le_bytes());
    for number in [header.events, header.since, header.fired, index] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&[timing, u8::from(is_final), u8::from(published.is_some())]);
    let length_at = out.len();
    out.extend_from_slice(&[0; 4]);
    layout.encode(row, out);
    let length = (out.len() - length_at - 4) as u32;
    out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    if let Some(published) = published {
        layout.encode(published, out);
    }
}

/// Header, row and published row of a stored cell.
type CellParts<'a> = (CellHeader, &'a [u8], Option<&'a [u8]>);

/// The parts of a cell; `None` for bytes that are no cell.
pub fn read_cell(bytes: &[u8]) -> Option<CellParts<'_>> {
    let (head, rest) = bytes.split_at_checked(CELL_HEADER)?;
    let number = |at: usize| Some(u64::from_le_bytes(head.get(at * 8..at * 8 + 8)?.try_into().ok()?));
    let [timing, is_final, has_published] = *head.last_chunk::<3>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (row, published) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    if is_final > 1 || has_published > 1 || (has_published == 0 && !published.is_empty()) {
        return None;
    }
    let header = CellHeader {
        bound_ms: number(0)? as i64,
        events: number(1)?,
        since: number(2)?,
        fired: number(3)?,
        last: if timing == 0 {
            None
        } else {
            Some((number(4)?, timing, is_final == 1))
        },
    };
    Some((header, row, (has_published == 1).then_some(published)))
}

/// Writes a row.
pub fn write_row(born_ms: i64, layout: &Layout, row: RowRef<'_>, out: &mut Vec<u8>) {
    write_numbered_row(&[born_ms], layout, row, out);
}

/// Reads a row of `layout` and answers its birth; `None` for anything that [`write_row`] did not write.
pub fn read_row(bytes: &[u8], layout: &Layout, row: RowMut<'_>) -> Option<i64> {
    read_numbered_row(bytes, layout, row).map(|[born_ms]| born_ms)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::aggregation::function::Function;
    use crate::aggregation::rows::RowStore;

    proptest! {
        #[test]
        fn keys_round_trip_and_sort_by_time(set in 0usize..256, a in any::<i64>(), b in any::<i64>(), key in prop::collection::vec(any::<u8>(), 0..20)) {
            let (mut first, mut second) = (Vec::new(), Vec::new());
            write_pane_key(set, a, &key, &mut first);
            write_pane_key(set, b, &[], &mut second);
            prop_assert_eq!(read_timed_key(&first), Some((set, a, &key[..])));
            if a != b {
                prop_assert_eq!(first < second, a < b);
            }
            if a < i64::MAX {
                prop_assert!(pane_range(set, a).contains(&first));
                prop_assert!(!pane_range(set, a.wrapping_add(1)).contains(&first));
            }
        }

        #[test]
        fn keys_of_barred_rows_round_trip_and_a_pane_is_one_range(
            set in 0usize..256, barred in any::<i64>(), start in any::<i64>(), key in prop::collection::vec(any::<u8>(), 0..20), other in any::<i64>(),
        ) {
            let mut bytes = Vec::new();
            write_barred_key(set, barred, start, &key, &mut bytes);
            prop_assert_eq!(read_barred_key(&bytes), Some((set, barred, start, &key[..])));
            prop_assert_eq!(read_barred_key(&bytes[..17]), None);
            prop_assert!(barred_range(set, barred, start).contains(&bytes));
            prop_assert_eq!(barred_range(set, barred, other).contains(&bytes), other == start);
            prop_assert_eq!(barred_range(set, other, start).contains(&bytes), other == barred);
        }

        #[test]
        fn rows_round_trip(born in any::<i64>(), word in any::<u64>()) {
            let mut layout = Layout::default();
            layout.push("n", &Function::Count, &[]);
            let mut rows = RowStore::new(&layout, 0);
            let (row, copy) = (rows.push(), rows.push());
            rows.get_mut(row).words[0] = word;
            let mut bytes = Vec::new();
            write_row(born, &layout, rows.get(row), &mut bytes);
            prop_assert_eq!(read_row(&bytes, &layout, rows.get_mut(copy)), Some(born));
            prop_assert_eq!(rows.get(copy).words, &[word]);
            prop_assert_eq!(read_row(&bytes[1..], &layout, rows.get_mut(copy)), None);
        }
    }
}
