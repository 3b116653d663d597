//! Records of a case as the engine takes them, with what the oracle has around them. Must not add anything to it.

use std::sync::LazyLock;

use streamagg_processor::pipeline::output::{Envelope, Record};
use streamagg_tests::generator::Case;
use streamagg_tests::oracle;

/// Records after which what is around them comes again.
const ROUND: usize = 7;

/// What is around the record of an entry, as the oracle has it.
pub fn envelope(entry: usize) -> &'static Envelope<'static> {
    static ENVELOPES: LazyLock<Vec<Envelope<'static>>> = LazyLock::new(|| {
        let envelope = |around: &'static oracle::Around| Envelope {
            topic: Some(oracle::PLACE.0),
            partition: oracle::PLACE.1,
            key: around.key,
            headers: around.headers.to_vec(),
        };
        (0..ROUND).map(|entry| envelope(oracle::around(entry))).collect()
    });
    &ENVELOPES[entry % ROUND]
}

/// The record of an entry.
pub fn record(case: &Case, entry: usize) -> Record<'_> {
    let Some((value, timestamp_ms)) = case.log[entry].record() else {
        panic!("entry {entry} is no record")
    };
    Record {
        timestamp_ms,
        envelope: Some(envelope(entry)),
        ..Record::new(case.offsets[entry], value)
    }
}
