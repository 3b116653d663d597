//! Formats for ever: what released engines stored stands in `tests/fixtures`, the present engine reads it, goes on from
//! it and writes the same bytes. Must not hold fixtures of formats that nothing ever wrote.
//!
//! A format that changes gets a number and a directory of its own; the old one stays. `STREAMAGG_WRITE_FIXTURES=1`
//! writes the files of a new one, or anew before its release.

mod shuffle;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use streamagg_crds::assignment::Assignment;
use streamagg_crds::job_file::JobFile;
use streamagg_crds::manifest::parse_manifest;
use streamagg_crds::validate::resolve;
use streamagg_processor::core::share::Share;
use streamagg_processor::pipeline::builder::Plan;
use streamagg_processor::pipeline::operator::merge::Cut;
use streamagg_processor::pipeline::operator::{StepStatus, Task};
use streamagg_processor::pipeline::output::{Output, Outputs, Record};
use streamagg_processor::pipeline::position::{Decision, DecisionKind};
use streamagg_processor::state::backend::{Backend, Changes};
use streamagg_processor::state::checkpoint::{FileEntry, FileFormat, MANIFEST_VERSION, Manifest};
use streamagg_processor::state::codec;
use streamagg_processor::state::memory::MemoryBackend;
use streamagg_processor::state::recovery::position::{Ancestor, POSITION_VERSION, Place};
use streamagg_processor::state::recovery::{Birth, LastInput, Position};

/// Events before the state was saved, and all of them.
const SAVED_AT: i64 = 700;
const EVENTS: i64 = 760;

fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures")).join(name)
}

/// Compares with a fixture, or writes it when that is asked for.
fn assert_fixture(name: &str, found: &str) {
    let path = fixture(name);
    if std::env::var_os("STREAMAGG_WRITE_FIXTURES").is_some() {
        fs::write(&path, found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let differs = found
        .lines()
        .zip(expected.lines())
        .find(|(found, expected)| found != expected);
    assert!(
        found == expected,
        "{name} is written otherwise now; the first line that differs: {differs:?}"
    );
}

/// Directories of stored state, with the kinds of entries in each.
const STATES: [(&str, &[u8]); 2] = [("state-1", &[1, 2, 3, 4, 5]), ("state-1-more", &[1, 5, 7])];

fn plan(state: &str) -> Arc<Plan> {
    let text = fs::read_to_string(fixture(&format!("{state}/job.yaml"))).unwrap();
    let manifest = parse_manifest(&text).unwrap_or_else(|errors| panic!("{errors:?}"));
    Arc::new(Plan::compile(&resolve(&manifest.spec, "tests", "formats").unwrap()))
}

/// An event by its offset: two keys, one of them mostly; some late, some broken; users that are many, tenths that are few.
fn event(offset: i64) -> String {
    let mixed = offset.wrapping_mul(7_919) % 1_000;
    let ts = 1_700_000_000_000 + offset * 400 - if offset % 97 == 0 { 70_000 } else { 0 };
    let key = if offset % 40 == 0 { "rare" } else { "often" };
    let part = if offset % 3 == 0 { ",\"part\":\"p\"" } else { "" };
    let x = if offset % 111 == 7 {
        "\"text\"".to_owned()
    } else {
        format!("{}.{:02}", mixed - 200, offset % 100)
    };
    format!(
        "{{\"ts\":{ts},\"key\":\"{key}\"{part},\"n\":{mixed},\"x\":{x},\"user\":\"user-{}\",\"tenth\":{}}}",
        (offset * 31) % 601,
        mixed / 100
    )
}

/// Steps over events `from..to`, ticks now and then, and gives the results as lines.
fn run(task: &mut Task, from: i64, to: i64) -> String {
    let mut out = String::new();
    let mut outputs = Outputs::default();
    for offset in from..to {
        if offset % 50 == 0 {
            let kind = DecisionKind::Tick {
                now_ms: 1_700_000_500_000 + offset * 1_000,
            };
            task.decide(
                &Decision {
                    input_offset: offset,
                    kind,
                },
                &mut outputs,
            );
        }
        let value = event(offset);
        let status = task.step(&[Record::new(offset, value.as_bytes())], &mut outputs);
        assert_eq!(status, StepStatus::Continue);
    }
    if to == EVENTS {
        task.end_of_input(&mut outputs);
    }
    for output in &outputs.list {
        if let Output::Result(result) = output {
            out.push_str(std::str::from_utf8(outputs.slice(&result.value)).unwrap());
            out.push('\n');
        }
    }
    out
}

fn commit(task: &mut Task, backend: &mut MemoryBackend) {
    let mut changes = Changes::default();
    task.take_changes(&mut changes);
    backend.apply(&changes).unwrap();
}

/// Pairs of a store, one a line in hex, a space between key and value.
fn dump(backend: &MemoryBackend) -> String {
    let mut out = String::new();
    backend
        .scan(&[], &mut |key, value| {
            for bytes in [key, value] {
                for byte in bytes {
                    write!(out, "{byte:02x}").unwrap();
                }
                out.push(' ');
            }
            out.pop();
            out.push('\n');
            Ok(())
        })
        .unwrap();
    out
}

/// Bytes written as hex.
fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks_exact(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.map(byte).collect()
}

fn pairs(text: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ').unwrap();
        (bytes(key), bytes(value))
    };
    text.lines().map(pair).collect()
}

fn store(pairs: &[(Vec<u8>, Vec<u8>)]) -> MemoryBackend {
    let mut changes = Changes::default();
    for (key, value) in pairs {
        changes.put(key, value);
    }
    let mut backend = MemoryBackend::default();
    backend.apply(&changes).unwrap();
    backend
}

fn stored(state: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    pairs(&fs::read_to_string(fixture(&format!("{state}/state.hex"))).unwrap())
}

#[test]
fn the_state_is_written_as_it_always_was() {
    for (state, tags) in STATES {
        let mut task = Task::new(plan(state), 0);
        run(&mut task, 0, SAVED_AT);
        let mut backend = MemoryBackend::default();
        commit(&mut task, &mut backend);
        assert_fixture(&format!("{state}/state.hex"), &dump(&backend));
        for tag in tags {
            let is_there = stored(state).iter().any(|(key, _)| key[0] == *tag);
            assert!(is_there, "{state}: no entry of kind {tag}");
        }
        assert_fixture(&format!("{state}/results.jsonl"), &run(&mut task, SAVED_AT, EVENTS));
    }
}

#[test]
fn state_of_format_1_is_read_and_gone_on_from() {
    for (state, _) in STATES {
        let with = stored(state);
        // State from before it said what the windows allow: the entry is added, all others stay as they were.
        let mut without = with.clone();
        without.retain(|(key, _)| key != codec::LATENESSES);
        assert_eq!(without.len() + 1, with.len(), "{state}");
        for pairs in [&with, &without] {
            let mut backend = store(pairs);
            let mut task = Task::restore(plan(state), &backend).unwrap().unwrap();
            commit(&mut task, &mut backend);
            let written = dump(&backend);
            assert_eq!(
                written,
                dump(&store(&with)),
                "{state}: reading and writing changes nothing"
            );
            assert_fixture(&format!("{state}/results.jsonl"), &run(&mut task, SAVED_AT, EVENTS));
        }
    }
}

#[test]
fn state_cut_short_anywhere_is_refused_or_read_and_of_another_format_refused() {
    for (state, _) in STATES {
        let (plan, pairs) = (plan(state), stored(state));
        let (mut refused, mut cuts) = (0, 0);
        for (index, (_, value)) in pairs.iter().enumerate() {
            // Every length of a small value; of a large one its edges.
            for length in (0..value.len()).filter(|length| *length < 40 || value.len() - length < 10) {
                let mut damaged = pairs.clone();
                damaged[index].1.truncate(length);
                cuts += 1;
                let restored = Task::restore(Arc::clone(&plan), &store(&damaged));
                refused += usize::from(!matches!(restored, Ok(Some(_))));
            }
        }
        assert!(refused > cuts * 9 / 10, "{state}: {refused} of {cuts} were refused");
        let mut newer = pairs;
        let layout = newer.iter_mut().find(|(key, _)| key == b"\x01L").unwrap();
        layout.1 = String::from_utf8(layout.1.clone())
            .unwrap()
            .replace("\"format\":1", "\"format\":2")
            .into_bytes();
        let error = Task::restore(plan, &store(&newer)).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("format 2 is not readable"), "{error}");
    }
}

#[test]
fn a_key_of_a_count_window_of_which_an_entry_is_missing_is_refused() {
    let pairs = stored("state-1-more");
    let entries: Vec<usize> = (0..pairs.len()).filter(|index| pairs[*index].0[0] == 7).collect();
    for index in entries {
        let mut damaged = pairs.clone();
        damaged.remove(index);
        let error = Task::restore(plan("state-1-more"), &store(&damaged))
            .map(|_| ())
            .unwrap_err();
        assert!(error.to_string().contains("count window"), "{error}");
    }
}

/// A document is written as its fixture and read from it.
fn assert_document<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(name: &str, document: &T) {
    let name = format!("documents-1/{name}.json");
    assert_fixture(&name, &format!("{}\n", serde_json::to_string(document).unwrap()));
    let text = fs::read_to_string(fixture(&name)).unwrap();
    assert_eq!(serde_json::from_str::<T>(&text).unwrap(), *document, "{name}");
    // Cut short it is refused: these documents decide what a task starts from.
    for length in (0..text.trim_end().len()).filter(|length| text.is_char_boundary(*length)) {
        assert!(
            serde_json::from_str::<T>(&text[..length]).is_err(),
            "{name} cut to {length} bytes"
        );
    }
}

fn position() -> Position {
    let mut task = Task::new(plan("state-1"), 0);
    run(&mut task, 0, 3);
    Position {
        version: POSITION_VERSION,
        uid: "5f0c7a1e-0000-4000-8000-000000000001".to_owned(),
        job_id: "observability.llm".to_owned(),
        task: 3,
        lineage: "018f2c6e".to_owned(),
        ancestors: vec![Ancestor {
            lineage: "018f0000".to_owned(),
            fork: Place {
                input_count: 40,
                control_seq: 2,
                input_offset: 41,
            },
            decisions: None,
        }],
        restore_nonce: 1,
        revision: "a1b2c3d4e5".to_owned(),
        engine: "0.1.0".to_owned(),
        revision_since: 12,
        decisions_since: 0,
        generation: 7,
        epoch: 99,
        engine_position: task.position(),
        control_seq: 5,
        decision_floor: 2,
        last_input: Some(LastInput {
            offset: 2,
            digest: u64::MAX,
        }),
        seen_offset: Some(9),
        adopted: Vec::new(),
        combine: None,
    }
}

#[test]
fn documents_of_the_control_topic_are_read_and_written_as_they_always_were() {
    let birth = Birth {
        version: POSITION_VERSION,
        uid: "5f0c7a1e-0000-4000-8000-000000000001".to_owned(),
        job_id: "observability.llm".to_owned(),
        task: 3,
        start_offset: 17,
        partitions: 8,
    };
    assert_document("birth", &birth);
    assert_document("position", &position());
    let mut without = position();
    (without.seen_offset, without.last_input) = (None, None);
    assert_document("position-at-birth", &without);
    let mut shedding = position();
    shedding.engine_position.shed.keep(Share { halvings: 2 });
    shedding.engine_position.shed.saw(1_700_000_000_000);
    assert_document("position-shedding", &shedding);
    let mut forked = position();
    forked.ancestors[0].decisions = Some(4);
    assert_document("position-forked", &forked);
    let mut adopted = position();
    adopted.adopted = vec!["5f0c7a1e-0000-4000-8000-000000000000".to_owned()];
    assert_document("position-adopted", &adopted);
    for (name, kind) in [
        ("idle-advance", DecisionKind::IdleAdvance { watermark_ms: -5 }),
        (
            "future-skew",
            DecisionKind::FutureSkew {
                now_ms: 1_700_000_000_000,
            },
        ),
        ("tick", DecisionKind::Tick { now_ms: i64::MAX }),
        ("share", DecisionKind::Share(Share { halvings: 3 })),
        (
            "cut",
            DecisionKind::Cut(Cut {
                source: 2,
                lineage: "rewind-1-018f2c6e".to_owned(),
                parent: "018f0000".to_owned(),
                sequence: 41,
            }),
        ),
    ] {
        assert_document(&format!("decision-{name}"), &Decision { input_offset: 18, kind });
    }
}

#[test]
fn checkpoint_manifests_are_read_and_written_as_they_always_were() {
    let file = |name: &str, size| FileEntry {
        name: name.to_owned(),
        size,
        sha256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".to_owned(),
        object: format!("files/{name}"),
    };
    let manifest = |format, base: Option<&str>| Manifest {
        version: MANIFEST_VERSION,
        id: "00000099-018f2c6e".to_owned(),
        position: position(),
        format,
        completed_at_ms: 1_700_000_123_456,
        base: base.map(ToOwned::to_owned),
        files: vec![file("000012.sst", 4_096), file("CURRENT", 16)],
    };
    assert_document(
        "checkpoint-rocksdb",
        &manifest(FileFormat::RocksDB, Some("00000098-018f2c6e")),
    );
    assert_document("checkpoint-pairs", &manifest(FileFormat::Pairs, None));
}

#[test]
fn documents_between_operator_and_pods_are_read_and_written_as_they_always_were() {
    let text = fs::read_to_string(fixture("state-1/job.yaml")).unwrap();
    let spec = parse_manifest(&text).unwrap().spec;
    assert_document("job-file", &JobFile::new("observability", "llm", "uid-1", spec));
    let assignment = Assignment {
        version: 1,
        generation: 7,
        tasks: [(0, 0), (1, 1), (2, 0)].into(),
    };
    assert_document("assignment", &assignment);
}
