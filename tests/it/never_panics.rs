//! Whatever bytes come in, nothing panics: events, manifests, overrides, keys and rows of state, positions, state read
//! back after damage. Must not look at what comes out.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;
use streamagg_crds::manifest::parse_manifest;
use streamagg_crds::overrides::{self, Override};
use streamagg_processor::pipeline::operator::Task;
use streamagg_processor::pipeline::output::{Outputs, Record};
use streamagg_processor::state::backend::{Backend, Changes};
use streamagg_processor::state::codec;
use streamagg_processor::state::memory::MemoryBackend;
use streamagg_processor::state::recovery::Position;
use streamagg_tests::generator;

use super::engine::{START_OFFSET, cases, commit, plan, run};

/// Bytes put over, cut out or put in at places.
fn damage() -> impl Strategy<Value = Vec<(Index, u8, u8)>> {
    prop::collection::vec((any::<Index>(), 0..4u8, any::<u8>()), 1..6)
}

fn damaged(bytes: &[u8], damage: &[(Index, u8, u8)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (place, kind, byte) in damage {
        let at = place.index(bytes.len() + 1);
        match kind {
            0 if at < bytes.len() => bytes[at] = *byte,
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 => bytes.truncate(at),
            _ => bytes.insert(at, *byte),
        }
    }
    bytes
}

const MANIFEST: &str = include_str!("../../config/samples/llm-by-model.yaml");

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(80), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_events_are_judged(case in generator::case(30), damage in damage(), noise in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut task = Task::new(plan(&case.spec), START_OFFSET);
        let mut values: Vec<Vec<u8>> =
            case.log.iter().filter_map(|entry| entry.record()).map(|(value, _)| damaged(value, &damage)).collect();
        values.push(noise);
        let record = |(offset, value)| Record { timestamp_ms: Some(offset), ..Record::new(offset, value) };
        let records: Vec<Record<'_>> = (0..).zip(values.iter().map(Vec::as_slice)).map(record).collect();
        task.step(&records, &mut Outputs::default());
        task.end_of_input(&mut Outputs::default());
    }

    #[test]
    fn damaged_manifests_and_overrides_are_refused_or_read(damage in damage(), path in "[a-z.\\[\\]0-9]{0,30}=.{0,20}", name in "[A-Z_0-9]{0,30}") {
        let text = String::from_utf8_lossy(&damaged(MANIFEST.as_bytes(), &damage)).into_owned();
        let _ = parse_manifest(&text);
        let mut value = serde_json::json!({"spec": {"windows": [{}]}});
        let flag = Override::from_flag(&path).ok();
        let variable = Override::from_environment(&format!("{}{name}", overrides::ENVIRONMENT_PREFIX), &path);
        let given: Vec<Override> = flag.into_iter().chain(variable).collect();
        let _ = overrides::apply(&mut value, &given);
    }

    #[test]
    fn damaged_state_is_refused_or_read(case in generator::case(40), damage in damage(), which in any::<Index>()) {
        let plan = plan(&case.spec);
        let mut task = Task::new(Arc::clone(&plan), START_OFFSET);
        run(&mut task, &case, 0, case.log.len(), &[7], &mut Vec::new());
        let mut backend = MemoryBackend::default();
        commit(&mut task, &mut backend);
        let mut entries = Vec::new();
        backend.scan(&[], &mut |key, value| { entries.push((key.to_vec(), value.to_vec())); Ok(()) }).expect("memory reads");
        let (key, value) = &entries[which.index(entries.len())];
        for (key, value) in [(key.clone(), damaged(value, &damage)), (damaged(key, &damage), value.clone())] {
            let mut changes = Changes::default();
            changes.put(&key, &value);
            let mut copy = backend.clone();
            copy.apply(&changes).expect("memory takes everything");
            let _ = Task::restore(Arc::clone(&plan), &copy);
        }
    }

    #[test]
    fn any_bytes_as_keys_rows_and_positions(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        let _ = codec::read_timed_key(&bytes);
        let _ = serde_json::from_slice::<Position>(&bytes);
    }
}

#[test]
fn the_corpus_of_every_fuzz_target_is_refused_or_read() {
    let corpus = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus"));
    for (name, target) in streamagg_tests::fuzz::TARGETS {
        let directory = std::fs::read_dir(corpus.join(name)).unwrap_or_else(|error| panic!("corpus {name}: {error}"));
        let mut files = 0;
        for entry in directory {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            target(&bytes);
            // And what is near it.
            for length in (0..bytes.len()).step_by((bytes.len() / 20).max(1)) {
                target(&bytes[..length]);
                let mut flipped = bytes.clone();
                flipped[length] ^= 1 << (length % 8);
                target(&flipped);
            }
            files += 1;
        }
        assert!(files >= 6, "corpus {name} has {files} files");
    }
}
