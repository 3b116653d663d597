//! The keyspace of a task's state and the codec of each kind of entry. Tags are never used again for something else.
//!
//! | first byte | then | value |
//! |---|---|---|
//! | `0x01 'L'` | – | layout document (JSON): what the words of rows mean; its `format` is this table's version |
//! | `0x01 'P'` | – | position (JSON) |
//! | `0x01 'B'` | – | one bit per record of the last 10,000: was it a dead letter |
//! | `0x02` | pane set (1 byte), pane start (8, order-preserving), key bytes | watermark at birth, words (8 bytes each, little-endian), variable state (length in 4 bytes, bytes) |
//! | `0x03` | window (1 byte), window end (8, order-preserving), key bytes | number of late firings (8 bytes, little-endian) |
//! | `0x40`–`0x7f` | the shell's entries | |

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

/// Index, time and key bytes of a key written by [`write_pane_key`] or [`write_late_key`].
pub fn read_timed_key(bytes: &[u8]) -> Option<(usize, i64, &[u8])> {
    let (index, rest) = bytes.get(1..)?.split_first()?;
    let (time, key) = rest.split_first_chunk::<8>()?;
    Some((usize::from(*index), (u64::from_be_bytes(*time) ^ (1 << 63)) as i64, key))
}

fn time_range(tag: u8, index: usize, time_ms: i64) -> Range<Vec<u8>> {
    let (mut start, mut end) = (Vec::new(), Vec::new());
    write_timed_key(tag, index, time_ms, &[], &mut start);
    write_timed_key(tag, index, time_ms.saturating_add(1), &[], &mut end);
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

/// Writes a row.
pub fn write_row(born_ms: i64, layout: &Layout, row: RowRef<'_>, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&born_ms.to_le_bytes());
    layout.encode(row, out);
}

/// Reads a row of `layout` and answers its birth; `None` for anything that [`write_row`] did not write.
pub fn read_row(bytes: &[u8], layout: &Layout, row: RowMut<'_>) -> Option<i64> {
    let (born, rest) = bytes.split_first_chunk::<8>()?;
    layout.decode(rest, row).then(|| i64::from_le_bytes(*born))
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
