//! A pipeline inside a program against the batch oracle: same bytes as the oracle's, with and without closures, however
//! the input is cut, and after restores. Must not look inside the engine.

use std::cell::RefCell;

use proptest::prelude::*;
use streamagg_processor::embed::{DeadLetter, LateEvent, Operators, Pipeline, Record, SinkError, Stream, WindowResult};
use streamagg_processor::pipeline::position::NO_WATERMARK;
use streamagg_processor::state::backend::{Backend, Changes};
use streamagg_processor::state::memory::MemoryBackend;
use streamagg_tests::generator::{self, Case};
use streamagg_tests::oracle::{Entry, Expected};

use super::engine::{START_OFFSET, cases, oracle_form, record};

/// Runs a case through a pipeline of its manifest. With `restores` every cut ends in a restore of the state it left.
fn outputs(case: &Case, cuts: &[usize], closures: bool, restores: bool) -> Vec<Expected> {
    let document = serde_json::json!({
        "apiVersion": "streamagg.io/v1alpha1",
        "kind": "StreamAggregation",
        "metadata": {"name": "embedded"},
        "spec": generator::manifest(&case.spec),
    });
    let declared = Stream::from_manifest(&document.to_string());
    let stream = declared.unwrap_or_else(|errors| panic!("{errors} in {document:#}"));
    let seen = RefCell::new(Vec::new());
    if closures {
        let stream = stream
            .filter(|_| true)
            .map(|record, out| out.extend_from_slice(record.value))
            .flat_map(|record, elements| elements.push(record.value));
        collect(stream, &seen, case, cuts, restores);
    } else {
        collect(stream, &seen, case, cuts, restores);
    }
    seen.into_inner()
}

/// Gives a stream sinks that note everything in the oracle's form, and drives it.
fn collect<O: Operators + Clone, R, L, D>(
    stream: Stream<O, R, L, D>,
    seen: &RefCell<Vec<Expected>>,
    case: &Case,
    cuts: &[usize],
    restores: bool,
) {
    let is_at = |entry: &usize, offset: i64| case.offsets[*entry] == offset && case.log[*entry].record().is_some();
    let entry_of = |offset: i64| {
        let found = (0..case.log.len()).find(|entry| is_at(entry, offset));
        found.expect("a record of the case")
    };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("results are UTF-8");
    let note = |output| {
        seen.borrow_mut().push(output);
        Ok(())
    };
    let pipeline = stream
        .sink(|result| {
            note(Expected::Result {
                entry: 0,
                key: text(result.key),
                value: text(result.value),
            })
        })
        .late_events(|late| {
            note(Expected::Late {
                entry: entry_of(late.offset),
                windows: late.windows.to_owned(),
                watermark_ms: late.watermark_ms,
                lateness_ms: late.lateness_ms,
            })
        })
        .dead_letters(|dead| {
            note(Expected::Dead {
                entry: entry_of(dead.offset),
                reason: dead.reason.as_str(),
                watermark_ms: dead.watermark_ms.unwrap_or(NO_WATERMARK),
            })
        })
        .build()
        .unwrap_or_else(|errors| panic!("{errors}"));
    drive(&pipeline, case, cuts, restores);
}

fn drive<O, R, L, D>(pipeline: &Pipeline<O, R, L, D>, case: &Case, cuts: &[usize], restores: bool)
where
    O: Operators + Clone,
    R: FnMut(&WindowResult<'_>) -> Result<(), SinkError> + Clone,
    L: FnMut(&LateEvent<'_>) -> Result<(), SinkError> + Clone,
    D: FnMut(&DeadLetter<'_>) -> Result<(), SinkError> + Clone,
{
    let mut backend = MemoryBackend::default();
    let mut run = pipeline.clone().start(START_OFFSET);
    let (mut sizes, mut at, mut clock) = (cuts.iter().copied().cycle(), 0, None);
    while at < case.log.len() {
        let mut consumed = 1;
        match &case.log[at] {
            Entry::Record(_) | Entry::Stamped(..) => {
                let size = sizes.next().expect("cuts are not empty");
                let is_record = |entry: &usize| case.log[*entry].record().is_some();
                let entries = (at..case.log.len()).take(size).take_while(is_record);
                let records: Vec<Record<'_>> = entries.map(|entry| record(case, entry)).collect();
                run.push(&records).expect("nothing ends a run");
                consumed = records.len();
            }
            Entry::IdleAdvance(watermark_ms) => run.advance_watermark(*watermark_ms).expect("sinks take all"),
            Entry::Tick(now_ms) => run.tick(*now_ms).expect("sinks take all"),
            Entry::Clock(now_ms) => {
                clock = Some(*now_ms);
                run.set_clock(clock);
            }
            Entry::Share(_) | Entry::Shed(_) => unreachable!("taken out"),
            Entry::EndOfInput => run.finish().expect("sinks take all"),
        }
        at += consumed;
        if restores {
            let mut changes = Changes::default();
            run.take_changes(&mut changes);
            backend.apply(&changes).expect("memory takes everything");
            let restored = pipeline.clone().restore(&backend).expect("state can be read");
            run = restored.expect("state is there");
            run.set_clock(clock);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(60), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_embedded_pipeline_gives_the_oracles_bytes(
        case in generator::case(100), cuts in generator::cuts(), closures in any::<bool>(), restores in any::<bool>(),
    ) {
        let case = case.without_shedding();
        let expected = oracle_form(&case.spec, &case.log);
        prop_assert_eq!(outputs(&case, &cuts, closures, restores), expected);
    }
}
