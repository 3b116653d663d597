//! `allowedLateness` changed under a running task: what was closed stays closed, what is open takes late events for as
//! long as the new spec says. Must not repeat what holds under one spec.

use proptest::prelude::*;
use proptest::sample::Index;
use streamagg_processor::pipeline::operator::Task;
use streamagg_processor::state::memory::MemoryBackend;
use streamagg_tests::generator::{self, Case};
use streamagg_tests::oracle::{self, Entry, Expected, Function, Shape, Spec, Trigger, Window};

use super::engine::{START_OFFSET, assert_same, cases, commit, entries, plan, run};
use super::oracle_cases::spec;

/// What happens to a task at a place in the log.
#[derive(Clone, Debug)]
enum Stop {
    /// It is restored under the same spec.
    Restart,
    /// It is restored under these latenesses, by window.
    Change(Vec<i64>),
}

fn restore(spec: &Spec, backend: &MemoryBackend) -> Task {
    let restored = Task::restore(plan(spec), backend).expect("the state is readable");
    restored.expect("there is a task")
}

fn with_lateness(spec: &Spec, lateness_ms: &[i64]) -> Spec {
    let mut spec = spec.clone();
    for (window, lateness_ms) in spec.windows.iter_mut().zip(lateness_ms) {
        // Windows that no event is late for allow none.
        if !matches!(window.shape, Shape::Global | Shape::Count) {
            window.lateness_ms = *lateness_ms;
        }
    }
    spec
}

/// Runs a case with these stops, in order; answers what it puts out and its state at the end.
fn run_with(case: &Case, stops: &[(usize, Stop)], cuts: &[usize]) -> (Vec<Expected>, MemoryBackend) {
    let (mut seen, mut backend, mut spec) = (Vec::new(), MemoryBackend::default(), case.spec.clone());
    let mut task = Task::new(plan(&spec), START_OFFSET);
    let mut at = 0;
    for (place, stop) in stops {
        run(&mut task, case, at, *place, cuts, &mut seen);
        at = *place;
        commit(&mut task, &mut backend);
        if let Stop::Change(lateness_ms) = stop {
            spec = with_lateness(&spec, lateness_ms);
        }
        task = restore(&spec, &backend);
        // The first epoch under a spec writes what it is to remember.
        commit(&mut task, &mut backend);
    }
    run(&mut task, case, at, case.log.len(), cuts, &mut seen);
    commit(&mut task, &mut backend);
    (seen, backend)
}

/// What the oracle says of the same, without the entries that caused results.
fn expected(case: &Case, stops: &[(usize, Stop)]) -> Vec<Expected> {
    let mut specs = vec![(0, case.spec.clone())];
    for (at, stop) in stops {
        if let Stop::Change(lateness_ms) = stop {
            let last = &specs[specs.len() - 1].1;
            specs.push((*at, with_lateness(last, lateness_ms)));
        }
    }
    let mut outputs = oracle::outputs_across(&specs, &case.log);
    for output in &mut outputs {
        if let Expected::Result { entry, .. } = output {
            *entry = 0;
        }
    }
    outputs
}

fn changes() -> impl Strategy<Value = Vec<(Index, Vec<i64>)>> {
    let lateness = prop_oneof![1 => Just(0), 2 => 0..400i64];
    prop::collection::vec((any::<Index>(), prop::collection::vec(lateness, 8)), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(150), failure_persistence: None, ..ProptestConfig::default() })]

    /// Raised, lowered and raised again anywhere: the oracle's bytes, and the same state at the end wherever it restarts.
    #[test]
    fn what_was_closed_stays_closed_however_the_lateness_changes(
        case in generator::case(120), changes in changes(), restarts in generator::places(), cuts in generator::cuts(),
    ) {
        let places = case.log.len() + 1;
        let mut stops: Vec<(usize, Stop)> =
            changes.into_iter().map(|(at, lateness_ms)| (at.index(places), Stop::Change(lateness_ms))).collect();
        stops.sort_by_key(|(at, _)| *at);
        let (seen, backend) = run_with(&case, &stops, &cuts);
        assert_same(&seen, &expected(&case, &stops), &case);

        stops.extend(restarts.iter().map(|at| (at.index(places), Stop::Restart)));
        stops.sort_by_key(|(at, _)| *at);
        let (again, restarted) = run_with(&case, &stops, &cuts);
        assert_same(&again, &seen, &case);
        prop_assert_eq!(entries(&restarted), entries(&backend));
    }
}

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

fn window(shape: Shape, size_ms: i64, slide_ms: i64) -> Window {
    Window {
        name: "w".to_owned(),
        shape,
        size_ms,
        slide_ms,
        offset_ms: 0,
        lateness_ms: 0,
        closed_ms: oracle::NO_WATERMARK,
        trigger: Trigger::default(),
        panes: oracle::Panes::default(),
    }
}

fn case(windows: Vec<Window>, times_ms: &[i64]) -> Case {
    Case {
        spec: Spec {
            aggregates: vec![("n".to_owned(), Function::Count, Vec::new())],
            ..spec(0, windows)
        },
        offsets: (0..times_ms.len() as i64).collect(),
        log: (times_ms.iter())
            .map(|time_ms| Entry::Record(format!(r#"{{"ts":{time_ms},"k":"a"}}"#).into_bytes()))
            .collect(),
    }
}

/// What a task puts out behind the change of lateness from nothing to an hour before entry `at`: of a result the pane's
/// index and the count, of a late event the windows.
fn behind(case: &Case, at: usize) -> Vec<String> {
    let mut seen = Vec::new();
    let mut backend = MemoryBackend::default();
    let mut task = Task::new(plan(&case.spec), START_OFFSET);
    run(&mut task, case, 0, at, &[1], &mut Vec::new());
    commit(&mut task, &mut backend);
    let hour = with_lateness(&case.spec, &vec![HOUR_MS; case.spec.windows.len()]);
    run(&mut restore(&hour, &backend), case, at, case.log.len(), &[1], &mut seen);
    let line = |output: &Expected| match output {
        Expected::Result { value, .. } => {
            let value: serde_json::Value = serde_json::from_str(value).expect("results are JSON");
            let (window, pane) = (value["window"].as_str().expect("text"), &value["pane"]);
            format!("{window} {} {} {}", value["op"], pane["index"], value["values"]["n"]).replace('"', "")
        }
        Expected::Late { windows, .. } => format!("late {windows}"),
        Expected::Dead { reason, .. } => (*reason).to_owned(),
    };
    seen.iter().map(line).collect()
}

/// Before, the late event's window began anew: its one event took the place of a final result of three.
#[test]
fn a_purged_window_is_not_opened_again_by_a_longer_lateness() {
    let own = Window {
        trigger: Trigger {
            closing: true,
            ..Trigger::default()
        },
        ..window(Shape::Sliding, MINUTE_MS, MINUTE_MS)
    };
    let tumbling = window(Shape::Sliding, MINUTE_MS, MINUTE_MS);
    for window in [tumbling, own, window(Shape::Session, 0, MINUTE_MS / 2)] {
        let times_ms = [1_000, 2_000, 3_000, 2 * MINUTE_MS, 4_000];
        let case = case(vec![window], &times_ms);
        assert_eq!(behind(&case, 4), ["late w"], "{:?}", case.spec.windows);
    }
    const DAY_MS: i64 = 24 * HOUR_MS;
    let days = case(vec![window(Shape::Day, 0, 0)], &[1_000, DAY_MS + 1_000, 2_000]);
    assert_eq!(behind(&days, 2), ["late w"]);
}

/// A window that still takes events when the lateness is raised takes them for the whole of the new one.
#[test]
fn an_open_window_takes_events_for_the_longer_lateness() {
    let minute = window(Shape::Sliding, MINUTE_MS, MINUTE_MS);
    // The change comes at 1:10: the second minute is open, the first closed.
    let times_ms = [
        1_000,
        61_000,
        70_000,
        62_000,
        2 * MINUTE_MS,
        63_000,
        2_000,
        2 * MINUTE_MS + HOUR_MS,
        64_000,
    ];
    let case = case(vec![minute], &times_ms);
    assert_eq!(
        behind(&case, 3),
        ["w Upsert 0 3", "w Upsert 1 4", "late w", "w Upsert 0 1", "late w"]
    );
}

/// The pane is still there for a longer window: it counts the event, the closed one does not.
#[test]
fn a_closed_window_on_a_pane_that_another_still_holds_stays_closed() {
    let longer = Window {
        name: "x".to_owned(),
        ..window(Shape::Sliding, 10 * MINUTE_MS, 10 * MINUTE_MS)
    };
    let case = case(
        vec![window(Shape::Sliding, MINUTE_MS, MINUTE_MS), longer],
        &[1_000, 2 * MINUTE_MS, 2_000, 10 * MINUTE_MS],
    );
    assert_eq!(behind(&case, 2), ["w Upsert 0 1", "x Upsert 0 3"]);
}
