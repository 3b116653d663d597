//! Entry points for bytes of any kind: they are refused or read, never a panic, and what is read holds what is promised.
//! The targets of `tests/fuzz` call these with what a fuzzer thinks of, a test with the corpus beside them.
//! Must not hold the corpus.
#![expect(clippy::panic, reason = "a broken promise fails the fuzzer or the test that calls")]

use std::fmt::Debug;
use std::sync::{Arc, OnceLock};

use serde::Serialize;
use serde::de::DeserializeOwned;
use streamagg_crds::assignment::Assignment;
use streamagg_crds::job_file::JobFile;
use streamagg_crds::manifest::parse_manifest;
use streamagg_crds::validate::resolve;
use streamagg_processor::embed::{Aggregate, Stream, TimeUnit, Watermark, Window};
use streamagg_processor::pipeline::builder::Plan;
use streamagg_processor::pipeline::operator::Task;
use streamagg_processor::pipeline::output::{Output, Outputs, Record};
use streamagg_processor::pipeline::position::Decision;
use streamagg_processor::state::backend::{Backend, Changes};
use streamagg_processor::state::checkpoint::Manifest;
use streamagg_processor::state::memory::MemoryBackend;
use streamagg_processor::state::recovery::{Birth, Position};

/// A target takes any bytes.
pub type Target = fn(&[u8]);

/// Every target by the name of its corpus.
pub const TARGETS: [(&str, Target); 5] = [
    ("manifest", manifest),
    ("event", event),
    ("expression", expression),
    ("state", state),
    ("control", control),
];

/// A manifest as text: one that is accepted has a plan.
pub fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = parse_manifest(&String::from_utf8_lossy(bytes)) {
        match resolve(&manifest.spec, "fuzz", "fuzz") {
            Ok(job) => drop(Plan::compile(&job)),
            Err(errors) => panic!("accepted, then refused: {errors:?}"),
        }
    }
}

/// The jobs of the fixtures with their state: every kind of window, every aggregate.
const FIXTURES: [(&str, &str); 2] = [
    (
        include_str!("../fixtures/state-1/job.yaml"),
        include_str!("../fixtures/state-1/state.hex"),
    ),
    (
        include_str!("../fixtures/state-1-more/job.yaml"),
        include_str!("../fixtures/state-1-more/state.hex"),
    ),
];

fn compile(text: &str) -> Arc<Plan> {
    let job = parse_manifest(text).and_then(|manifest| resolve(&manifest.spec, "fuzz", "fuzz"));
    Arc::new(Plan::compile(&job.unwrap_or_else(|errors| {
        panic!("the job of the fixtures is refused: {errors:?}")
    })))
}

/// The jobs of the fixtures, and the last one once more with elements for events.
fn plans() -> &'static [Arc<Plan>] {
    static PLANS: OnceLock<Vec<Arc<Plan>>> = OnceLock::new();
    PLANS.get_or_init(|| {
        let mut plans: Vec<Arc<Plan>> = FIXTURES.iter().map(|(job, _)| compile(job)).collect();
        let exploding = FIXTURES[1]
            .0
            .replace("  groupBy:", "  explode: {field: /list}\n  groupBy:");
        plans.push(compile(&exploding.replace("field: /key", "field: /list/key")));
        plans
    })
}

/// Steps over lines and looks at what comes out: every result is one JSON object, every record has one fate.
fn step(task: &mut Task, lines: &[u8]) {
    let first = task.position().input_offset;
    if first == i64::MAX || first.checked_add(lines.len() as i64 + 1).is_none() {
        return;
    }
    let records: Vec<Record<'_>> = (first..)
        .zip(lines.split(|byte| *byte == b'\n'))
        .map(|(offset, line)| Record::new(offset, line))
        .collect();
    let mut outputs = Outputs::default();
    task.step(&records, &mut outputs);
    task.end_of_input(&mut outputs);
    for output in &outputs.list {
        match output {
            Output::Result(result) => {
                for range in [&result.key, &result.value] {
                    let read =
                        serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(outputs.slice(range));
                    assert!(read.is_ok(), "{}", String::from_utf8_lossy(outputs.slice(range)));
                }
            }
            Output::Late(late) => assert!(late.record < records.len()),
            Output::Dead(dead) => assert!(dead.record < records.len()),
        }
    }
}

/// Events, one a line.
pub fn event(bytes: &[u8]) {
    for plan in plans() {
        step(&mut Task::new(Arc::clone(plan), 0), bytes);
    }
}

/// A CEL expression, evaluated over an event with something of everything.
pub fn expression(bytes: &[u8]) {
    const EVENT: &[u8] = br#"{"ts":1,"a":1,"b":-2.5e3,"c":"text \u00e9","d":true,"e":null,"f":[1,"x",{"g":2}],"g":{"h":{"i":9223372036854775807}}}"#;
    let text = String::from_utf8_lossy(bytes);
    let stream = Stream::new()
        .event_time("/ts", TimeUnit::Milliseconds)
        .watermark(Watermark::monotonic())
        .derive("value", &text)
        .window("all", Window::global())
        .aggregate("last", Aggregate::last("value"))
        .sink(|_| Ok(()));
    if let Ok(pipeline) = stream.build() {
        let mut run = pipeline.start(0);
        let ended = run.push(&[Record::new(0, EVENT), Record::new(1, br#"{"ts":2}"#)]);
        assert!(
            ended.and_then(|()| run.finish()).is_ok(),
            "without max_bad_ratio nothing ends a run"
        );
    }
}

/// Keys and values of a store.
type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// Entries of the fixtures' states.
fn entries() -> &'static [Entries] {
    static ENTRIES: OnceLock<Vec<Entries>> = OnceLock::new();
    let decode = |hex: &str| -> Vec<u8> {
        let digits = hex.as_bytes().chunks_exact(2);
        digits
            .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect()
    };
    let read = |state: &str| -> Entries {
        let pairs = state.lines().filter_map(|line| line.split_once(' '));
        pairs.map(|(key, value)| (decode(key), decode(value))).collect()
    };
    ENTRIES.get_or_init(|| FIXTURES.iter().map(|(_, state)| read(state)).collect())
}

/// States with one entry's value replaced: the first byte says which entry's, the rest is the value. State that is
/// taken is gone on from.
pub fn state(bytes: &[u8]) {
    let Some((which, value)) = bytes.split_first() else {
        return;
    };
    for (entries, plan) in entries().iter().zip(plans()) {
        let mut changes = Changes::default();
        for (key, value) in entries {
            changes.put(key, value);
        }
        let key = &entries[usize::from(*which) % entries.len()].0;
        changes.put(key, value);
        let mut backend = MemoryBackend::default();
        assert!(backend.apply(&changes).is_ok(), "memory takes everything");
        if let Ok(Some(mut task)) = Task::restore(Arc::clone(plan), &backend) {
            step(
                &mut task,
                br#"{"ts":1700000300000,"key":"often","n":1,"x":2,"user":"u","tenth":3}"#,
            );
            task.take_changes(&mut Changes::default());
        }
    }
}

/// Documents of the control topic, of checkpoints and of the operator: what is read is written back the same.
pub fn control(bytes: &[u8]) {
    document::<Birth>(bytes);
    document::<Position>(bytes);
    document::<Decision>(bytes);
    document::<Manifest>(bytes);
    document::<Assignment>(bytes);
    document::<JobFile>(bytes);
}

fn document<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(document) = serde_json::from_slice::<T>(bytes) else {
        return;
    };
    let text = serde_json::to_vec(&document).unwrap_or_default();
    match serde_json::from_slice::<T>(&text) {
        Ok(again) => assert_eq!(again, document),
        Err(error) => panic!("{error} in what was written of {document:?}"),
    }
}
