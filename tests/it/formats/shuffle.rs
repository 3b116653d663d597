//! The fixture of records between the two stages. Must not repeat rows, which are encoded as those of state are.

use std::fs;

use streamagg_processor::core::share::{Share, Shed};
use streamagg_processor::pipeline::position::NO_WATERMARK;
use streamagg_processor::pipeline::shuffle::{self, CellPartial, Header, Message, Partial};

use super::{assert_fixture, bytes, fixture};

#[test]
fn records_of_the_shuffle_topic_are_read_and_written_as_they_always_were() {
    let header = Header {
        layout: 0x0123_4567_89ab_cdef,
        source: 3,
        sources: 8,
        sequence: 41,
        lineage: "018f2c6e",
    };
    let rows = [
        (0, -60_000, NO_WATERMARK, &b"\"key\":\"a\""[..], &b"row"[..]),
        (255, i64::MAX, 7, b"", b""),
    ];
    let (mut partials, mut cells, mut records) = (Vec::new(), Vec::new(), [const { Vec::new() }; 5]);
    for (set, start_ms, barred_ms, key, row) in rows {
        shuffle::write_partial(
            set,
            start_ms,
            barred_ms,
            key,
            |out| out.extend_from_slice(row),
            &mut partials,
        );
    }
    shuffle::write_partials(&header, &partials, &mut records[0]);
    shuffle::write_watermark(&header, 1_700_000_000_000, &mut records[1]);
    shuffle::write_layout(&header, b"{\"format\":1}", &mut records[2]);
    let mut shed = Shed::NOTHING;
    shed.keep(Share { halvings: 2 });
    shed.saw(1_700_000_000_000);
    shuffle::write_shed(&header, &shed, &mut records[3]);
    let visit = CellPartial {
        window: 2,
        span_ms: (-60_000, 1_700_000_000_000),
        events: 300,
        key: b"\"key\":\"a\"",
        row: b"row",
    };
    shuffle::write_cell(&visit, &mut cells);
    shuffle::write_cells(&header, &cells, &mut records[4]);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let text = records.map(|record| hex(&record)).join("\n") + "\n";
    assert_fixture("shuffle-1/records.hex", &text);

    let stored = fs::read_to_string(fixture("shuffle-1/records.hex")).unwrap();
    let stored: Vec<Vec<u8>> = stored.lines().map(bytes).collect();
    let Some((found, Message::Partials(partials))) = shuffle::read(&stored[0]) else {
        panic!("partials are read as {:?}", shuffle::read(&stored[0]))
    };
    assert_eq!(found, header);
    let partials: Vec<_> = partials.map(|partial| partial.unwrap()).collect();
    let expected = rows.map(|(set, start_ms, barred_ms, key, row)| Partial {
        set,
        start_ms,
        barred_ms,
        key,
        row,
    });
    assert_eq!(partials, expected);
    assert_eq!(
        shuffle::read(&stored[1]),
        Some((header, Message::Watermark(1_700_000_000_000)))
    );
    assert_eq!(
        shuffle::read(&stored[2]),
        Some((header, Message::Layout(b"{\"format\":1}")))
    );
    assert_eq!(shuffle::read(&stored[3]), Some((header, Message::Shed(shed))));
    let Some((found, Message::Cells(mut cells))) = shuffle::read(&stored[4]) else {
        panic!("cells are read as {:?}", shuffle::read(&stored[4]))
    };
    assert_eq!((found, cells.next(), cells.next()), (header, Some(Some(visit)), None));
}
