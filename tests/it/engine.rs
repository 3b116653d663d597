//! The engine against the batch oracle: same bytes whatever the batch cuts, epochs, crash points and restores.

use std::ops::Range;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;
use streamagg_crds::manifest::parse_manifest;
use streamagg_crds::validate::resolve;
use streamagg_processor::core::share::Share;
use streamagg_processor::pipeline::builder::Plan;
use streamagg_processor::pipeline::operator::{StepStatus, Task};
use streamagg_processor::pipeline::output::{Output, Outputs, Record};
use streamagg_processor::pipeline::position::{Decision, DecisionKind, TaskPosition};
use streamagg_processor::state::backend::{Backend, Changes};
use streamagg_processor::state::memory::MemoryBackend;
use streamagg_tests::generator::{self, Case};
use streamagg_tests::oracle::{self, Entry, Expected, Spec};

pub use crate::around::record;

/// Where the log of a test begins.
pub const START_OFFSET: i64 = 0;
/// First bytes of the keys of rows, late firings and cells; what stays is layout, position, lateness, ticks and bad-record
/// window.
const PANE_STATE: std::ops::RangeInclusive<u8> = 0x02..=0x07;

pub fn plan(spec: &Spec) -> Arc<Plan> {
    let document = serde_json::json!({
        "apiVersion": "streamagg.io/v1alpha1",
        "kind": "StreamAggregation",
        "metadata": {"name": "property"},
        "spec": generator::manifest(spec),
    });
    let manifest = parse_manifest(&document.to_string()).unwrap_or_else(|errors| panic!("{errors:?} in {document:#}"));
    let job = resolve(&manifest.spec, "tests", "property").expect("a valid spec resolves");
    Arc::new(Plan::compile(&job))
}

/// What outputs of the engine look like to the oracle; `entries` maps batch indices to log entries.
pub fn expected_form(outputs: &Outputs, entries: &[usize], decided_by: usize) -> Vec<Expected> {
    let text = |range: &Range<usize>| String::from_utf8(outputs.slice(range).to_vec()).expect("results are UTF-8");
    let form = |output: &Output| match output {
        // A result does not say which record caused it; order and the seams of batches do.
        Output::Result(result) => Expected::Result {
            entry: decided_by,
            key: text(&result.key),
            value: text(&result.value),
        },
        Output::Late(late) => Expected::Late {
            entry: entries[late.record],
            windows: late.windows.clone(),
            watermark_ms: late.watermark_ms,
            lateness_ms: late.lateness_ms,
        },
        Output::Dead(dead) => Expected::Dead {
            entry: entries[dead.record],
            reason: dead.reason.as_str(),
            watermark_ms: dead.watermark_ms,
        },
    };
    outputs.list.iter().map(form).collect()
}

/// The oracle's outputs without the entry that caused each result, which the engine does not tell.
pub fn oracle_form(spec: &Spec, log: &[Entry]) -> Vec<Expected> {
    let mut outputs = oracle::outputs(spec, log);
    for output in &mut outputs {
        if let Expected::Result { entry, .. } = output {
            *entry = 0;
        }
    }
    outputs
}

/// Runs `log[from..to]` through a task in batches of the given sizes.
pub fn run(task: &mut Task, case: &Case, from: usize, to: usize, cuts: &[usize], seen: &mut Vec<Expected>) {
    let mut outputs = Outputs::default();
    let mut sizes = cuts.iter().copied().cycle();
    let mut at = from;
    task.set_clock(clock_at(case, from));
    while at < to {
        outputs.clear();
        let mut entries = Vec::new();
        match &case.log[at] {
            Entry::Record(_) | Entry::Stamped(..) | Entry::Shed(_) => {
                let size = sizes.next().expect("cuts are not empty");
                let is_record = |entry: &usize| case.log[*entry].record().is_some();
                entries.extend((at..to).take(size).take_while(is_record));
                let records: Vec<Record<'_>> = entries.iter().map(|entry| record(case, *entry)).collect();
                assert_eq!(task.step(&records, &mut outputs), StepStatus::Continue);
                at += entries.len();
            }
            Entry::Clock(now_ms) => {
                task.set_clock(Some(*now_ms));
                at += 1;
            }
            entry @ (Entry::IdleAdvance(_) | Entry::Tick(_) | Entry::Share(_)) => {
                let decision = decision(entry, task.position().input_offset).expect("it is one");
                task.decide(&decision, &mut outputs);
                at += 1;
            }
            Entry::EndOfInput => {
                task.end_of_input(&mut outputs);
                at += 1;
            }
        }
        seen.extend(expected_form(&outputs, &entries, 0));
    }
}

/// The decision that an entry of the log stands for.
pub fn decision(entry: &Entry, input_offset: i64) -> Option<Decision> {
    let kind = match *entry {
        Entry::IdleAdvance(watermark_ms) => DecisionKind::IdleAdvance { watermark_ms },
        Entry::Tick(now_ms) => DecisionKind::Tick { now_ms },
        Entry::Share(halvings) => DecisionKind::Share(Share { halvings }),
        Entry::Record(_) | Entry::Stamped(..) | Entry::Shed(_) | Entry::Clock(_) | Entry::EndOfInput => return None,
    };
    Some(Decision { input_offset, kind })
}

/// What the clock says at a place in the log.
pub fn clock_at(case: &Case, place: usize) -> Option<i64> {
    case.log[..place].iter().rev().find_map(|entry| match entry {
        Entry::Clock(now_ms) => Some(*now_ms),
        _ => None,
    })
}

/// Runs a whole log and collects the decisions that the shell would commit.
fn run_deciding(task: &mut Task, case: &Case, cuts: &[usize], seen: &mut Vec<Expected>, decisions: &mut Vec<Decision>) {
    let mut sizes = cuts.iter().copied().cycle();
    let mut at = 0;
    while at < case.log.len() {
        let mut outputs = Outputs::default();
        let mut entries = Vec::new();
        match &case.log[at] {
            Entry::Record(_) | Entry::Stamped(..) | Entry::Shed(_) => {
                let size = sizes.next().expect("cuts are not empty");
                let is_record = |entry: &usize| case.log[*entry].record().is_some();
                entries.extend((at..case.log.len()).take(size).take_while(is_record));
                let records: Vec<Record<'_>> = entries.iter().map(|entry| record(case, *entry)).collect();
                assert_eq!(task.step(&records, &mut outputs), StepStatus::Continue);
            }
            Entry::Clock(now_ms) => task.set_clock(Some(*now_ms)),
            entry @ (Entry::IdleAdvance(_) | Entry::Tick(_) | Entry::Share(_)) => {
                let decision = decision(entry, task.position().input_offset).expect("it is one");
                task.decide(&decision, &mut outputs);
                decisions.push(decision);
            }
            Entry::EndOfInput => task.end_of_input(&mut outputs),
        }
        decisions.append(&mut outputs.decisions);
        seen.extend(expected_form(&outputs, &entries, 0));
        at += entries.len().max(1);
    }
}

/// Commits an epoch: what the shell does after its transaction.
pub fn commit(task: &mut Task, backend: &mut MemoryBackend) {
    let mut changes = Changes::default();
    task.take_changes(&mut changes);
    backend.apply(&changes).expect("memory accepts everything");
}

fn restored(plan: &Arc<Plan>, backend: &MemoryBackend) -> Task {
    match Task::restore(Arc::clone(plan), backend).expect("the state is readable") {
        Some(task) => task,
        None => Task::new(Arc::clone(plan), START_OFFSET),
    }
}

/// First difference, readable.
pub fn assert_same(engine: &[Expected], oracle: &[Expected], case: &Case) {
    let same = engine.iter().zip(oracle).take_while(|(a, b)| a == b).count();
    if same == engine.len() && same == oracle.len() {
        return;
    }
    panic!(
        "output {same} differs ({} against {})\n engine: {:?}\n oracle: {:?}\ncase: {case:?}",
        engine.len(),
        oracle.len(),
        engine.get(same),
        oracle.get(same),
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(400), failure_persistence: None, ..ProptestConfig::default() })]

    /// I1, and the first law: the batch oracle's bytes, whatever the cuts.
    #[test]
    fn the_engine_gives_the_oracles_bytes_whatever_the_batch_cuts(
        case in generator::case(150), cuts in generator::cuts(), other_cuts in generator::cuts(),
    ) {
        let plan = plan(&case.spec);
        let (mut seen, mut again) = (Vec::new(), Vec::new());
        let mut task = Task::new(Arc::clone(&plan), START_OFFSET);
        run(&mut task, &case, 0, case.log.len(), &cuts, &mut seen);
        assert_same(&seen, &oracle_form(&case.spec, &case.log), &case);
        let mut second = Task::new(plan, START_OFFSET);
        run(&mut second, &case, 0, case.log.len(), &other_cuts, &mut again);
        prop_assert_eq!(second.position(), task.position());
        prop_assert_eq!(task.position().output_seq, seen.len() as u64);
    }

    /// I2: a task restored from any committed epoch goes on as if nothing had happened.
    #[test]
    fn a_crash_at_any_point_changes_no_byte(
        case in generator::case(120), cuts in generator::cuts(),
        commits in generator::places(), crashes in generator::places(),
    ) {
        let plan = plan(&case.spec);
        let mut straight = Task::new(Arc::clone(&plan), START_OFFSET);
        let mut expected = Vec::new();
        run(&mut straight, &case, 0, case.log.len(), &cuts, &mut expected);

        let mut backend = MemoryBackend::default();
        let mut task = Task::new(Arc::clone(&plan), START_OFFSET);
        // Outputs of an epoch count when it is committed; those of a lost one are produced again.
        let (mut published, mut pending) = (Vec::new(), Vec::new());
        let (mut at, mut committed) = (0, 0);
        for (place, crash) in stops(&commits, &crashes, case.log.len()) {
            run(&mut task, &case, at, place, &cuts, &mut pending);
            at = place;
            if crash {
                task = restored(&plan, &backend);
                pending.clear();
                at = committed;
            } else {
                commit(&mut task, &mut backend);
                published.append(&mut pending);
                committed = at;
                // The next owner reads the same state as this one has.
                let next = restored(&plan, &backend);
                prop_assert_eq!(next.position(), task.position());
                prop_assert_eq!((next.rows(), next.keys()), (task.rows(), task.keys()));
            }
        }
        run(&mut task, &case, at, case.log.len(), &cuts, &mut pending);
        published.append(&mut pending);
        assert_same(&published, &expected, &case);
        prop_assert_eq!(task.position(), straight.position());
        // And the final state is the same state, byte for byte.
        let mut fresh = MemoryBackend::default();
        commit(&mut straight, &mut fresh);
        commit(&mut task, &mut backend);
        prop_assert_eq!(entries(&backend), entries(&fresh));
    }

    /// Decisions pin the clock: a replay that has no clock obeys them and gives the same bytes and the same position.
    #[test]
    fn a_replay_obeys_the_decisions_and_never_the_clock(
        case in generator::case(120), cuts in generator::cuts(), other_cuts in generator::cuts(),
    ) {
        let plan = plan(&case.spec);
        let mut live = Task::new(Arc::clone(&plan), START_OFFSET);
        let (mut seen, mut decisions) = (Vec::new(), Vec::new());
        run_deciding(&mut live, &case, &cuts, &mut seen, &mut decisions);
        assert_same(&seen, &oracle_form(&case.spec, &case.log), &case);

        let mut replay = Task::new(plan, START_OFFSET);
        let (mut again, mut next) = (Vec::new(), 0);
        let records: Vec<usize> = (0..case.log.len()).filter(|entry| case.log[*entry].record().is_some()).collect();
        let mut sizes = other_cuts.iter().copied().cycle();
        let mut done = 0;
        loop {
            while let Some(decision) = decisions.get(next).filter(|decision: &&Decision| {
                decision.input_offset <= replay.position().input_offset
            }) {
                let mut outputs = Outputs::default();
                replay.decide(decision, &mut outputs);
                again.extend(expected_form(&outputs, &[], 0));
                next += 1;
            }
            if done == records.len() {
                break;
            }
            let due = decisions.get(next).map_or(i64::MAX, |decision| decision.input_offset);
            let size = sizes.next().expect("cuts are not empty");
            let batch: Vec<usize> =
                records[done..].iter().take(size).take_while(|entry| case.offsets[**entry] < due).copied().collect();
            // A decision may stand in a gap: at least one record is stepped over.
            let batch = if batch.is_empty() { vec![records[done]] } else { batch };
            let input: Vec<Record<'_>> = batch.iter().map(|entry| record(&case, *entry)).collect();
            let mut outputs = Outputs::default();
            assert_eq!(replay.step(&input, &mut outputs), StepStatus::Continue);
            prop_assert!(outputs.decisions.is_empty(), "a replay decides nothing");
            again.extend(expected_form(&outputs, &batch, 0));
            done += batch.len();
        }
        if matches!(case.log.last(), Some(Entry::EndOfInput)) {
            let mut outputs = Outputs::default();
            replay.end_of_input(&mut outputs);
            again.extend(expected_form(&outputs, &[], 0));
        }
        assert_same(&again, &seen, &case);
        prop_assert_eq!(replay.position(), live.position());
    }

    /// State is bounded: when every window is closed nothing of the panes remains, in memory or in the store.
    #[test]
    fn when_the_watermark_has_passed_everything_no_pane_state_is_left(
        case in generator::case(120), cuts in generator::cuts(), commits in generator::places(),
    ) {
        let plan = plan(&case.spec);
        let mut backend = MemoryBackend::default();
        let mut task = Task::new(Arc::clone(&plan), START_OFFSET);
        let mut at = 0;
        for (place, _) in stops(&commits, &[], case.log.len()) {
            run(&mut task, &case, at, place, &cuts, &mut Vec::new());
            commit(&mut task, &mut backend);
            at = place;
        }
        run(&mut task, &case, at, case.log.len(), &cuts, &mut Vec::new());
        task.end_of_input(&mut Outputs::default());
        commit(&mut task, &mut backend);
        prop_assert_eq!((task.rows(), task.keys(), task.open_windows()), (0, 0, 0));
        let left: Vec<_> = entries(&backend).into_iter().filter(|(key, _)| PANE_STATE.contains(&key[0])).collect();
        prop_assert!(left.is_empty(), "{left:?}");
        prop_assert!(entries(&backend).len() <= 5, "{:?}", entries(&backend));
    }

    /// The watermark never goes back, and a task's own position says how far it is.
    #[test]
    fn the_watermark_is_monotone_and_the_position_counts(case in generator::case(120)) {
        let mut task = Task::new(plan(&case.spec), START_OFFSET);
        let mut seen = Vec::new();
        let mut before: TaskPosition = task.position();
        for entry in 0..case.log.len() {
            run(&mut task, &case, entry, entry + 1, &[1], &mut seen);
            let now = task.position();
            prop_assert!(now.watermark_ms >= before.watermark_ms);
            let is_record = case.log[entry].record().is_some();
            prop_assert_eq!(now.input_count, before.input_count + u64::from(is_record));
            prop_assert_eq!(now.output_seq, seen.len() as u64);
            if is_record {
                prop_assert_eq!(now.input_offset, case.offsets[entry] + 1);
                let is_empty = case.log[entry].record().is_some_and(|(value, _)| value.is_empty());
                prop_assert!(is_empty || now.input_hash != before.input_hash);
            }
            before = now;
        }
    }

    /// A window covers its event, and two events with one key are in one sink partition.
    #[test]
    fn a_window_covers_its_event(spec in generator::spec(), time in -100_000_000i64..100_000_000) {
        for window in spec.windows.iter().filter(|window| window.shape == oracle::Shape::Sliding) {
            for start in oracle::starts(window, time) {
                prop_assert!(start <= time && time < start + window.size_ms);
                prop_assert_eq!((start - window.offset_ms).rem_euclid(window.slide_ms), 0);
            }
        }
    }
}

/// Number of cases a property is tried with; `STREAMAGG_CASES` multiplies for a long soak.
pub fn cases(usual: u32) -> u32 {
    let times = std::env::var("STREAMAGG_CASES").map_or(1, |text| text.parse().expect("STREAMAGG_CASES is a number"));
    usual * times
}

pub fn entries(backend: &MemoryBackend) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut list = Vec::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        list.push((key.to_vec(), value.to_vec()));
        Ok(())
    };
    backend.scan(&[], &mut visit).expect("memory can be read");
    list
}

/// Commits (false) and crashes (true) as places in the log, in order.
pub fn stops(commits: &[Index], crashes: &[Index], len: usize) -> Vec<(usize, bool)> {
    let commits = commits.iter().map(|place| (place.index(len + 1), false));
    let mut stops: Vec<_> = commits
        .chain(crashes.iter().map(|place| (place.index(len + 1), true)))
        .collect();
    stops.sort();
    stops
}

#[test]
fn too_many_bad_records_stop_the_task_at_the_record_whatever_the_cuts() {
    let spec = Spec {
        timestamp: vec!["ts".to_owned()],
        unit: oracle::Unit::Milliseconds,
        bound_ms: 0,
        watermark: oracle::Watermark::Bounded,
        skew_ms: None,
        sheds: false,
        explode: None,
        group_by: Vec::new(),
        windows: vec![oracle::Window {
            name: "m".to_owned(),
            size_ms: 10,
            slide_ms: 10,
            offset_ms: 0,
            lateness_ms: 0,
            closed_ms: oracle::NO_WATERMARK,
            shape: oracle::Shape::default(),
            trigger: oracle::Trigger::default(),
            panes: oracle::Panes::default(),
        }],
        aggregates: vec![("n".to_owned(), oracle::Function::Count, Vec::new())],
    };
    let mut document = generator::manifest(&spec);
    document["maxBadRatio"] = serde_json::json!(0.5);
    let document = serde_json::json!({
        "apiVersion": "streamagg.io/v1alpha1", "kind": "StreamAggregation", "metadata": {"name": "bad"}, "spec": document,
    });
    let manifest = parse_manifest(&document.to_string()).expect("a valid manifest");
    let plan = Arc::new(Plan::compile(
        &resolve(&manifest.spec, "tests", "bad").expect("a valid spec"),
    ));
    // Records 0..=998 are bad; record 999 is the thousandth, from which on the ratio is judged.
    let record = |offset: i64| Record::new(offset, if offset < 2000 { b"x" } else { b"{\"ts\":1}" });
    for size in [1usize, 7, 1000, 5000] {
        let mut task = Task::new(Arc::clone(&plan), START_OFFSET);
        let records: Vec<Record<'_>> = (0..5000).map(record).collect();
        let mut consumed_in_all = 0;
        for batch in records.chunks(size) {
            let mut outputs = Outputs::default();
            match task.step(batch, &mut outputs) {
                StepStatus::Continue => consumed_in_all += batch.len(),
                StepStatus::TooManyBadRecords { consumed, bad, seen } => {
                    assert_eq!(
                        (consumed_in_all + consumed, bad, seen),
                        (1000, 1000, 1000),
                        "in batches of {size}"
                    );
                    assert_eq!(task.position().input_offset, 1000);
                    break;
                }
            }
        }
        assert_eq!(task.position().output_seq, 1000, "in batches of {size}");
    }
}
