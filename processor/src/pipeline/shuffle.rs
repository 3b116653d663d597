//! Records of the shuffle topic between the two stages of `partitioning: any`: partials, in-band watermarks and the layouts
//! that partials are in.
//! Must not hold: what is combined or when a window fires.
//!
//! | bytes | |
//! |---|---|
//! | 1 | format, [`FORMAT`] |
//! | 1 | kind: 1 partials, 2 watermark, 3 layout, 4 shed, 5 cells |
//! | 8 | fingerprint of the layout that the rows are in |
//! | 4 | source partition |
//! | 4 | how many source partitions there are |
//! | 8 | sequence: ascends from record to record of a source partition |
//! | 1, n | lineage of the source partition's history, with its length before |
//! | watermark: 8 | ms since the epoch |
//! | layout: n | the layout's document, as it stands beside stored state |
//! | shed: 1, 1, 9 · 8 | [`Shed`]: halvings now and before; for 1 to 9 of them how new what was shed may be, ms since the epoch |
//! | partials, each: 1, 8, 8 | pane set, start of the pane, barred (below) |
//! | 4, n | canonical bytes of the key |
//! | 4, n | the row |
//! | cells, each: 1, 8, 8, 8 | window by its place in the spec, start and end of the instance, number of events |
//! | 4, n | canonical bytes of the key |
//! | 4, n | the row |
//!
//! Numbers are little-endian. *Barred* is the watermark that barred the events of a partial from windows: they count in
//! those that are purged above it. [`NO_WATERMARK`](super::position::NO_WATERMARK) where no window barred them.

use std::marker::PhantomData;
use std::ops::Range;

use crate::core::share::Shed;

/// Version of the table above.
pub const FORMAT: u8 = 1;
/// Bytes of the partials of one record at most; a larger partial stands alone, so that a topic that refuses it refuses
/// nothing else.
pub const RECORD_BYTES_MAX: usize = 256 << 10;
/// Longest lineage, in bytes.
pub const LINEAGE_BYTES_MAX: usize = u8::MAX as usize;

const PARTIALS: u8 = 1;
const WATERMARK: u8 = 2;
const LAYOUT: u8 = 3;
const SHED: u8 = 4;
const CELLS: u8 = 5;

/// Where a record of the shuffle topic goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To this partition.
    One(u32),
    /// To every partition.
    Every,
}

/// A record for the shuffle topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShuffleRecord {
    /// Where it goes.
    pub destination: Destination,
    /// Its value, in [`Shuffle::bytes`].
    pub value: Range<usize>,
    /// Of a watermark, the record of the step's batch that it comes from; the clock's comes from none.
    pub cause: Option<usize>,
}

/// Records for the shuffle topic, in the order in which each partition must receive them.
#[derive(Clone, Debug, Default)]
pub struct Shuffle {
    /// Values of the records.
    pub bytes: Vec<u8>,
    /// The records in order.
    pub list: Vec<ShuffleRecord>,
}

impl Shuffle {
    /// Forgets everything, keeps the buffers.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.list.clear();
    }

    /// Values of the records for a partition, in order.
    pub fn of_partition(&self, partition: u32) -> impl Iterator<Item = &[u8]> {
        let ours = move |record: &&ShuffleRecord| match record.destination {
            Destination::One(other) => other == partition,
            Destination::Every => true,
        };
        self.list
            .iter()
            .filter(ours)
            .map(|record| &self.bytes[record.value.clone()])
    }

    pub(super) fn push(&mut self, destination: Destination, write: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        let start = self.bytes.len();
        write(&mut self.bytes);
        let value = start..self.bytes.len();
        self.list.push(ShuffleRecord {
            destination,
            value: value.clone(),
            cause: None,
        });
        &self.bytes[value]
    }
}

/// What every record begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Fingerprint of the layout of its rows.
    pub layout: u64,
    /// Source partition that it comes from.
    pub source: u32,
    /// Source partitions in all.
    pub sources: u32,
    /// Ascends from record to record of a source partition.
    pub sequence: u64,
    /// Which history of the source partition's task it belongs to.
    pub lineage: &'a str,
}

/// A record, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Rows of shared panes.
    Partials(Parts<'a, Partial<'a>>),
    /// Rows of windows that keep values of their own.
    Cells(Parts<'a, CellPartial<'a>>),
    /// How far event time has come in the source partition, in ms: everything before this record is counted.
    Watermark(i64),
    /// The document of the layout whose fingerprint the header has. It comes before everything else in that layout.
    Layout(&'a [u8]),
    /// What the source partition has shed of the records before this one.
    Shed(Shed),
}

/// A pre-aggregated row: the events of a key in a pane since the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial<'a> {
    /// Pane set of the plan.
    pub set: usize,
    /// Start of the pane, ms.
    pub start_ms: i64,
    /// Windows purged at this watermark or below do not take it.
    pub barred_ms: i64,
    /// Canonical bytes of the key.
    pub key: &'a [u8],
    /// The row, as its layout encodes it.
    pub row: &'a [u8],
}

/// A pre-aggregated row of a window that keeps values of its own: the events of a key in an instance since the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellPartial<'a> {
    /// Place of the window in the spec.
    pub window: usize,
    /// The instance, from start to end in ms. Of a session, what these events span, their gaps included; of a count window the
    /// one event.
    pub span_ms: (i64, i64),
    /// How many events.
    pub events: u64,
    /// Canonical bytes of the key.
    pub key: &'a [u8],
    /// The row, as its layout encodes it.
    pub row: &'a [u8],
}

/// What a record has many of.
pub trait Part<'a>: Sized {
    /// Reads the first; answers what is behind it, or `None` where the bytes are none.
    fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])>;
}

/// Parts of one record that are still to be read. It ends with `Some(None)` where the bytes are no part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts<'a, P> {
    rest: &'a [u8],
    part: PhantomData<P>,
}

/// Appends an in-band watermark.
pub fn write_watermark(header: &Header<'_>, watermark_ms: i64, out: &mut Vec<u8>) {
    write_header(WATERMARK, header, out);
    out.extend_from_slice(&watermark_ms.to_le_bytes());
}

/// Appends the layout that the source partition goes on in.
pub fn write_layout(header: &Header<'_>, document: &[u8], out: &mut Vec<u8>) {
    write_header(LAYOUT, header, out);
    out.extend_from_slice(document);
}

/// Appends what was shed.
pub fn write_shed(header: &Header<'_>, shed: &Shed, out: &mut Vec<u8>) {
    write_header(SHED, header, out);
    out.extend_from_slice(&shed.to_bytes());
}

/// Appends a record of partials written by [`write_partial`].
pub fn write_partials(header: &Header<'_>, partials: &[u8], out: &mut Vec<u8>) {
    write_header(PARTIALS, header, out);
    out.extend_from_slice(partials);
}

/// Appends a record of cells written by [`write_cell`].
pub fn write_cells(header: &Header<'_>, cells: &[u8], out: &mut Vec<u8>) {
    write_header(CELLS, header, out);
    out.extend_from_slice(cells);
}

/// Appends one partial without its row, which `write_row` appends.
pub fn write_partial(
    set: usize,
    start_ms: i64,
    barred_ms: i64,
    key: &[u8],
    write_row: impl FnOnce(&mut Vec<u8>),
    out: &mut Vec<u8>,
) {
    debug_assert!(set < 256, "the number of windows is bounded by validation");
    out.push(set as u8);
    out.extend_from_slice(&start_ms.to_le_bytes());
    out.extend_from_slice(&barred_ms.to_le_bytes());
    write_sized(|out| out.extend_from_slice(key), out);
    write_sized(write_row, out);
}

/// Appends one cell.
pub fn write_cell(cell: &CellPartial<'_>, out: &mut Vec<u8>) {
    debug_assert!(cell.window < 256, "the number of windows is bounded by validation");
    out.push(cell.window as u8);
    out.extend_from_slice(&cell.span_ms.0.to_le_bytes());
    out.extend_from_slice(&cell.span_ms.1.to_le_bytes());
    out.extend_from_slice(&cell.events.to_le_bytes());
    write_sized(|out| out.extend_from_slice(cell.key), out);
    write_sized(|out| out.extend_from_slice(cell.row), out);
}

fn write_header(kind: u8, header: &Header<'_>, out: &mut Vec<u8>) {
    debug_assert!(
        header.lineage.len() <= LINEAGE_BYTES_MAX,
        "lineages are short unique ids"
    );
    out.extend_from_slice(&[FORMAT, kind]);
    out.extend_from_slice(&header.layout.to_le_bytes());
    out.extend_from_slice(&header.source.to_le_bytes());
    out.extend_from_slice(&header.sources.to_le_bytes());
    out.extend_from_slice(&header.sequence.to_le_bytes());
    out.push(header.lineage.len() as u8);
    out.extend_from_slice(header.lineage.as_bytes());
}

fn write_sized(write: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
    let length_at = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let length = (out.len() - length_at - 4) as u32;
    out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
}

/// Reads a record; `None` for bytes that no engine of this format wrote. [`format_of`] tells a newer format.
pub fn read(bytes: &[u8]) -> Option<(Header<'_>, Message<'_>)> {
    let (head, rest) = bytes.split_first_chunk::<27>()?;
    let [format, kind, numbers @ .., lineage_length] = head;
    let (layout, numbers) = numbers.split_first_chunk::<8>()?;
    let (source, numbers) = numbers.split_first_chunk::<4>()?;
    let (sources, numbers) = numbers.split_first_chunk::<4>()?;
    let (lineage, rest) = rest.split_at_checked(usize::from(*lineage_length))?;
    let header = Header {
        layout: u64::from_le_bytes(*layout),
        source: u32::from_le_bytes(*source),
        sources: u32::from_le_bytes(*sources),
        sequence: u64::from_le_bytes(numbers.try_into().ok()?),
        lineage: std::str::from_utf8(lineage).ok()?,
    };
    let message = match (*format, *kind) {
        (FORMAT, PARTIALS) => Message::Partials(Parts::of(rest)),
        (FORMAT, CELLS) => Message::Cells(Parts::of(rest)),
        (FORMAT, WATERMARK) => Message::Watermark(i64::from_le_bytes(rest.try_into().ok()?)),
        (FORMAT, LAYOUT) => Message::Layout(rest),
        (FORMAT, SHED) => Message::Shed(Shed::from_bytes(rest.try_into().ok()?)),
        _ => return None,
    };
    Some((header, message))
}

/// Version of the format that a record says it has.
pub fn format_of(bytes: &[u8]) -> Option<u8> {
    bytes.first().copied()
}

impl<'a, P> Parts<'a, P> {
    fn of(rest: &'a [u8]) -> Self {
        let part = PhantomData;
        Self { rest, part }
    }
}

impl<'a, P: Part<'a>> Iterator for Parts<'a, P> {
    type Item = Option<P>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let (part, rest) = P::read(self.rest).unzip();
        self.rest = rest.unwrap_or_default();
        Some(part)
    }
}

impl<'a> Part<'a> for Partial<'a> {
    fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (set, rest) = bytes.split_first()?;
        let (start, rest) = rest.split_first_chunk::<8>()?;
        let (barred, rest) = rest.split_first_chunk::<8>()?;
        let (key, rest) = read_sized(rest)?;
        let (row, rest) = read_sized(rest)?;
        let partial = Self {
            set: usize::from(*set),
            start_ms: i64::from_le_bytes(*start),
            barred_ms: i64::from_le_bytes(*barred),
            key,
            row,
        };
        Some((partial, rest))
    }
}

impl<'a> Part<'a> for CellPartial<'a> {
    fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (window, rest) = bytes.split_first()?;
        let (start, rest) = rest.split_first_chunk::<8>()?;
        let (end, rest) = rest.split_first_chunk::<8>()?;
        let (events, rest) = rest.split_first_chunk::<8>()?;
        let (key, rest) = read_sized(rest)?;
        let (row, rest) = read_sized(rest)?;
        let cell = Self {
            window: usize::from(*window),
            span_ms: (i64::from_le_bytes(*start), i64::from_le_bytes(*end)),
            events: u64::from_le_bytes(*events),
            key,
            row,
        };
        Some((cell, rest))
    }
}

fn read_sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: Header<'static> = Header {
        layout: 7,
        source: 3,
        sources: 4,
        sequence: 9,
        lineage: "line",
    };

    proptest! {
        #[test]
        fn partials_round_trip_and_their_damage_is_seen(
            rows in prop::collection::vec(
                (0usize..256, any::<i64>(), any::<i64>(), prop::collection::vec(any::<u8>(), 0..20), prop::collection::vec(any::<u8>(), 0..20)),
                0..5,
            ),
            header in (any::<u64>(), any::<u32>(), any::<u32>(), any::<u64>(), "[a-z0-9-]{0,40}"), cut in 1usize..30,
        ) {
            let header = Header { layout: header.0, source: header.1, sources: header.2, sequence: header.3, lineage: &header.4 };
            let (mut partials, mut record) = (Vec::new(), Vec::new());
            for (set, start, barred, key, row) in &rows {
                write_partial(*set, *start, *barred, key, |out| out.extend_from_slice(row), &mut partials);
            }
            write_partials(&header, &partials, &mut record);
            let (read_header, message) = read(&record).expect("it was written by write_partials");
            prop_assert_eq!(read_header, header);
            let Message::Partials(read_rows) = message else { panic!("partials were written") };
            let read_rows: Vec<_> = read_rows.map(|row| row.expect("whole")).collect();
            let expected = rows.iter().map(|(set, start_ms, barred_ms, key, row)| Partial {
                set: *set, start_ms: *start_ms, barred_ms: *barred_ms, key, row,
            });
            prop_assert_eq!(read_rows, expected.collect::<Vec<_>>());
            // Cut anywhere within a partial, the last one is found to be damaged.
            if cut <= 24 && !rows.is_empty() {
                let Some((_, Message::Partials(damaged))) = read(&record[..record.len() - cut.min(partials.len() - 1)]) else {
                    return Ok(());
                };
                let list: Vec<_> = damaged.collect();
                prop_assert!(list.len() < rows.len() || list.last().is_some_and(Option::is_none), "{list:?}");
            }
        }

        #[test]
        fn cells_round_trip_and_their_damage_is_seen(
            rows in prop::collection::vec(
                (0usize..256, any::<(i64, i64)>(), any::<u64>(), prop::collection::vec(any::<u8>(), 0..20), prop::collection::vec(any::<u8>(), 0..20)),
                0..5,
            ),
            cut in 1usize..30,
        ) {
            let (mut cells, mut record) = (Vec::new(), Vec::new());
            let written: Vec<CellPartial<'_>> = rows
                .iter()
                .map(|(window, span_ms, events, key, row)| CellPartial { window: *window, span_ms: *span_ms, events: *events, key, row })
                .collect();
            for cell in &written {
                write_cell(cell, &mut cells);
            }
            write_cells(&HEADER, &cells, &mut record);
            let Some((HEADER, Message::Cells(found))) = read(&record) else { panic!("cells were written") };
            prop_assert_eq!(found.map(|cell| cell.expect("whole")).collect::<Vec<_>>(), written);
            if !rows.is_empty() {
                let Some((_, Message::Cells(damaged))) = read(&record[..record.len() - cut.min(cells.len() - 1)]) else {
                    return Ok(());
                };
                let list: Vec<_> = damaged.collect();
                prop_assert!(list.len() < rows.len() || list.last().is_some_and(Option::is_none), "{list:?}");
            }
        }

        #[test]
        fn watermarks_round_trip(watermark in any::<i64>()) {
            let mut record = Vec::new();
            write_watermark(&HEADER, watermark, &mut record);
            prop_assert_eq!(read(&record), Some((HEADER, Message::Watermark(watermark))));
            for cut in 0..record.len() {
                prop_assert_eq!(read(&record[..cut]), None);
            }
        }

        #[test]
        fn layouts_round_trip(document in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut record = Vec::new();
            write_layout(&HEADER, &document, &mut record);
            prop_assert_eq!(read(&record), Some((HEADER, Message::Layout(&document))));
        }

        #[test]
        fn no_bytes_make_the_reader_fail(
            bytes in prop::collection::vec(any::<u8>(), 0..120), known in any::<bool>(), of_cells in any::<bool>(),
        ) {
            let mut bytes = bytes;
            if known && bytes.len() > 2 {
                bytes[..2].copy_from_slice(&[FORMAT, if of_cells { CELLS } else { PARTIALS }]);
            }
            match read(&bytes) {
                Some((_, Message::Partials(partials))) => prop_assert!(partials.count() <= bytes.len()),
                Some((_, Message::Cells(cells))) => prop_assert!(cells.count() <= bytes.len()),
                Some((_, Message::Watermark(_) | Message::Layout(_) | Message::Shed(_))) | None => {}
            }
        }
    }

    /// The bytes of this format, for ever: a reader of a later version must still understand them.
    #[test]
    fn the_format_is_what_the_table_says() {
        let (mut partials, mut record) = (Vec::new(), Vec::new());
        write_partial(
            2,
            1000,
            i64::MIN,
            b"k",
            |out| out.extend_from_slice(b"row"),
            &mut partials,
        );
        write_partials(&HEADER, &partials, &mut record);
        let expected = concat!(
            "0101",
            "0700000000000000",
            "03000000",
            "04000000",
            "0900000000000000",
            "046c696e65",
            "02",
            "e803000000000000",
            "0000000000000080",
            "010000006b",
            "03000000726f77"
        );
        assert_eq!(hex::encode(&record), expected);
        assert_eq!(format_of(&record), Some(1));
        record[0] = 2;
        assert_eq!(
            (read(&record), format_of(&record)),
            (None, Some(2)),
            "a newer format is told from damage"
        );
    }

    #[test]
    fn a_partition_sees_its_own_records_and_those_for_every_one_in_order() {
        let mut shuffle = Shuffle::default();
        for (destination, text) in [
            (Destination::One(0), "a"),
            (Destination::One(1), "b"),
            (Destination::Every, "c"),
            (Destination::One(0), "d"),
        ] {
            shuffle.push(destination, |out| out.extend_from_slice(text.as_bytes()));
        }
        let seen = |partition| {
            shuffle
                .of_partition(partition)
                .map(|value| value[0] as char)
                .collect::<String>()
        };
        assert_eq!(
            (seen(0), seen(1), seen(2)),
            ("acd".to_owned(), "bc".to_owned(), "c".to_owned())
        );
    }
}
