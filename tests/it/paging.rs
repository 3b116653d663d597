//! Tasks whose rows leave memory: same bytes and same state as any other, whatever leaves it when, across crashes and
//! changes of the spec; and memory that stays within its bound.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use proptest::sample::Index;
use streamagg_crds::manifest::parse_manifest;
use streamagg_crds::validate::resolve;
use streamagg_processor::pipeline::builder::Plan;
use streamagg_processor::pipeline::operator::query::{Answer, Question};
use streamagg_processor::pipeline::operator::{StepStatus, Task};
use streamagg_processor::pipeline::output::{Outputs, Record};
use streamagg_processor::state::backend::{Backend, Changes, Error, Reader, Visit};
use streamagg_processor::state::codec;
use streamagg_processor::state::memory::MemoryBackend;
use streamagg_tests::generator;
use streamagg_tests::oracle::Expected;

use super::engine::{START_OFFSET, assert_same, cases, entries, oracle_form, plan, run, stops};
use super::migration::{run_across, widened};

/// A store that the task reads while it is written to, as RocksDB is.
#[derive(Clone, Default)]
pub struct Store {
    entries: Arc<Mutex<MemoryBackend>>,
    /// Whether reading fails.
    is_broken: Arc<Mutex<bool>>,
}

impl Store {
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::new(self.clone()))
    }

    /// The same entries, which no longer change with these.
    pub fn snapshot(&self) -> Self {
        Self {
            entries: Arc::new(Mutex::new(self.entries.lock().unwrap().clone())),
            is_broken: Arc::default(),
        }
    }

    fn check(&self) -> Result<(), Error> {
        if *self.is_broken.lock().unwrap() {
            return Err(Error::Store {
                message: "the disk is gone".to_owned(),
            });
        }
        Ok(())
    }

    fn layout(&self) -> Option<Vec<u8>> {
        self.get(codec::LAYOUT).expect("reads")
    }

    /// What the shell does behind its transaction.
    fn commit(&mut self, task: &mut Task) {
        let failure = task.take_failure();
        assert!(failure.is_none(), "what was read is there: {failure:?}");
        let mut changes = Changes::default();
        task.take_changes(&mut changes);
        self.apply(&changes).unwrap();
    }
}

impl Backend for Store {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.check()?;
        self.entries.lock().unwrap().get(key)
    }

    fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), Error> {
        self.check()?;
        let entries = self.entries.lock().unwrap();
        entries.scan(prefix, visit)
    }

    fn apply(&mut self, changes: &Changes) -> Result<(), Error> {
        self.entries.lock().unwrap().apply(changes)
    }
}

fn restored(plan: &Arc<Plan>, store: &Store, budget_bytes: usize) -> Task {
    let reader = store.reader();
    let task = Task::restore_paged(Arc::clone(plan), &reader, budget_bytes).expect("the state is readable");
    task.unwrap_or_else(|| {
        let mut task = Task::new(Arc::clone(plan), START_OFFSET);
        task.page(reader);
        task
    })
}

/// What the task answers about keys that have results and their open windows: the newest first, as many as given.
fn answers(task: &mut Task, published: &[Expected], most: usize) -> Vec<String> {
    let keys = published.iter().rev().filter_map(|output| match output {
        // A result's key is an object of the members that are the key of the state.
        Expected::Result { key, .. } => Some(key.strip_prefix('{')?.strip_suffix('}')?.as_bytes().to_vec()),
        Expected::Late { .. } | Expected::Dead { .. } => None,
    });
    let mut answers = Vec::new();
    for key in keys.take(most) {
        let answer = task.answer(&Question::Windows { key });
        let Answer::Windows { windows, .. } = &answer else {
            panic!("{answer:?} is about something else");
        };
        let index = |name: &String| task.window_names().iter().position(|other| other == name);
        let open: Vec<_> = windows
            .iter()
            .filter_map(|open| Some((index(&open.window)?, open.start?)))
            .collect();
        answers.push(format!("{answer:?}"));
        for (window, start_ms) in open {
            task.evict_to(0);
            answers.push(format!("{:?}", task.answer(&Question::Standing { window, start_ms })));
        }
    }
    answers
}

/// How much of the state stays in memory after a commit, in quarters; 5: nothing is asked to leave.
fn shares() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![3 => Just(0usize), 2 => 1..=5usize], 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(250), failure_persistence: None, ..ProptestConfig::default() })]

    /// I1, whatever the memory, what leaves it and where a crash is.
    #[test]
    fn what_leaves_memory_and_when_changes_no_byte(
        case in generator::case(150), cuts in generator::cuts(), shares in shares(),
        commits in generator::places(), more in generator::places(), crashes in generator::places(),
    ) {
        let plan = plan(&case.spec);
        let mut straight = Task::new(Arc::clone(&plan), START_OFFSET);
        let mut store = Store::default();
        let mut task = restored(&plan, &store, 0);
        let (mut published, mut pending) = (Vec::new(), Vec::new());
        let (mut at, mut committed) = (0, 0);
        let mut shares = shares.iter().copied().cycle();
        let commits = [commits, more].concat();
        for (place, crash) in stops(&commits, &crashes, case.log.len()) {
            run(&mut task, &case, at, place, &cuts, &mut pending);
            at = place;
            let share = shares.next().expect("shares are not empty");
            if crash {
                task = restored(&plan, &store, share * 1000);
                pending.clear();
                at = committed;
            } else {
                store.commit(&mut task);
                published.append(&mut pending);
                committed = at;
                let rows = task.rows();
                task.evict_to(if share == 5 { usize::MAX } else { task.state_bytes() / 4 * share });
                prop_assert_eq!(task.rows(), rows, "rows are counted wherever they are");
            }
        }
        run(&mut task, &case, at, case.log.len(), &cuts, &mut pending);
        published.append(&mut pending);
        assert_same(&published, &oracle_form(&case.spec, &case.log), &case);
        run(&mut straight, &case, 0, case.log.len(), &cuts, &mut Vec::new());
        prop_assert_eq!(task.position(), straight.position());
        prop_assert_eq!(task.open_windows(), straight.open_windows());
        prop_assert_eq!(answers(&mut task, &published, 5), answers(&mut straight, &published, 5));
        // The state is the same state, byte for byte: what is left in the store is not written again.
        let mut fresh = Store::default();
        fresh.commit(&mut straight);
        store.commit(&mut task);
        prop_assert_eq!(entries(&store.entries.lock().unwrap()), entries(&fresh.entries.lock().unwrap()));
    }

    /// Under a changed spec all rows are read, written anew, and may leave memory again.
    #[test]
    fn a_changed_spec_finds_the_rows_that_had_left_memory(
        case in generator::case(120), at in any::<Index>(), cuts in generator::cuts(),
    ) {
        let at = at.index(case.log.len() + 1);
        let (wide, mut store, mut seen) = (widened(&case.spec), Store::default(), Vec::new());
        let mut task = restored(&plan(&case.spec), &store, 0);
        for (from, to) in [(0, at / 2), (at / 2, at)] {
            run(&mut task, &case, from, to, &cuts, &mut seen);
            store.commit(&mut task);
            task.evict_to(0);
        }
        let mut task = restored(&plan(&wide), &store, 0);
        task.evict_to(0);
        let (left, layout) = (task.rows_left_in_store(), store.layout());
        store.commit(&mut task);
        // What the new spec adds may be there already: a rate is a count.
        prop_assert!(left == 0 || store.layout() == layout, "the store had {left} rows in another layout");
        task.evict_to(0);
        run(&mut task, &case, at, case.log.len(), &cuts, &mut seen);
        store.commit(&mut task);
        prop_assert_eq!(seen, run_across(&case, at, &cuts, &case.spec, &wide));
    }
}

/// Over many keys.
const MANIFEST: &str = r#"
apiVersion: streamagg.io/v1alpha1
kind: StreamAggregation
metadata: {name: many}
spec:
  source: {kafka: {bootstrapServers: ["b:1"], topics: [t]}, partitioning: {byKey: {}}}
  event: {timestamp: {field: /ts, unit: Milliseconds}, watermark: {boundedOutOfOrderness: {bound: 0s}}}
  groupBy: [{name: k, field: /k}]
  windows: [WINDOWS]
  aggregates:
    - {name: n, count: {}}
    - {name: s, sum: {field: /v}}
    - {name: p, percentile: {field: /v, quantiles: [0.5]}}
  sink: {kafka: {topic: r}}
"#;

/// A minute's window of 10 s panes with lateness, and one of a minute.
const ON_PANES: &str =
    "{name: hop, sliding: {size: 1m, slide: 10s}, allowedLateness: 1m}, {name: minute, tumbling: {size: 1m}}";

fn many(windows: &str) -> Arc<Plan> {
    let manifest = parse_manifest(&MANIFEST.replace("WINDOWS", windows)).unwrap();
    Arc::new(Plan::compile(&resolve(&manifest.spec, "tests", "many").unwrap()))
}

fn lines(keys: u64, from: u64, to: u64, ms_each: u64) -> Vec<Vec<u8>> {
    let line = |n: u64| {
        // Steps of a prime visit every key before one comes again.
        let key = n * 7_919 % keys;
        format!(r#"{{"ts":{},"k":"key-{key}","v":{}}}"#, n * ms_each, n % 1000).into_bytes()
    };
    (from..to).map(line).collect()
}

fn step(task: &mut Task, lines: &[Vec<u8>], first: u64, outputs: &mut Outputs) {
    let numbered = (first as i64..).zip(lines);
    let records: Vec<Record<'_>> = numbered.map(|(offset, line)| Record::new(offset, line)).collect();
    assert_eq!(task.step(&records, outputs), StepStatus::Continue);
}

/// Records between two looks at the memory, at least.
const BATCH: u64 = 4_096;

/// Runs a log with and without a bound of the memory; answers the bounded task, and how many rows it had in the store only,
/// at most.
fn bounded(windows: &str, lines: &[Vec<u8>], budget: usize) -> (Task, usize) {
    let (mut free, mut store) = (Task::new(many(windows), START_OFFSET), Store::default());
    let mut task = restored(&many(windows), &store, budget);
    let (mut most, mut most_free, mut most_left) = (0, 0, 0);
    let mut outputs = Outputs::default();
    for (first, lines) in (0..).step_by(BATCH as usize).zip(lines.chunks(BATCH as usize)) {
        for task in [&mut free, &mut task] {
            step(task, lines, first, &mut outputs);
            outputs.clear();
        }
        most_free = most_free.max(free.bytes_in_use());
        if task.wants_commit() {
            store.commit(&mut task);
            task.applied(budget);
        }
        most = most.max(task.bytes_in_use());
        most_left = most_left.max(task.rows_left_in_store());
    }
    // The position has the hash of everything that was put out.
    assert_eq!(task.position(), free.position());
    assert!(most_free > 2 * budget, "{windows}: {most_free} bytes would be held");
    assert!(most < budget + budget / 2, "{windows}: {most} bytes were held");
    // Nor does one that starts up read more than its memory holds.
    store.commit(&mut task);
    let next = restored(&many(windows), &store, budget);
    let in_use = next.bytes_in_use();
    assert!(
        in_use < budget + budget / 4,
        "{windows}: {in_use} bytes, {} left",
        next.rows_left_in_store()
    );
    assert_eq!((next.rows(), next.position()), (task.rows(), task.position()));
    (task, most_left)
}

#[test]
fn the_state_of_many_keys_stays_within_its_memory_and_gives_the_same_results() {
    let (task, most_left) = bounded(ON_PANES, &lines(20_000, 0, 100_000, 1), 5 << 20);
    assert!(task.position().output_seq > 100_000);
    assert!(most_left > 50_000, "{most_left} rows had left memory");
}

/// Every kind of window that keeps values of its own: many keys of which each has some events, and then some once more.
#[test]
fn so_does_that_of_windows_with_values_of_their_own() {
    let lines = lines(40_000, 0, 100_000, 1);
    for (windows, mebibytes, results) in [
        ("{name: w, session: {gap: 15s}, allowedLateness: 20s}", 8, 10_000),
        ("{name: w, calendar: {unit: Day, timeZone: UTC}}", 5, 0),
        ("{name: w, count: {size: 2}}", 8, 40_000),
        (
            "{name: w, global: {}, trigger: {early: {everyEvents: 2}}, panes: Retracting}",
            5,
            40_000,
        ),
        (
            "{name: w, tumbling: {size: 1m}, trigger: {early: {everyEvents: 2}}, allowedLateness: 1m}",
            8,
            40_000,
        ),
    ] {
        let (task, most_left) = bounded(windows, &lines, mebibytes << 20);
        let sent = task.position().output_seq;
        assert!(sent >= results, "{windows}: {sent} results");
        assert!(most_left > 20_000, "{windows}: {most_left} rows had left memory");
    }
}

/// What an event takes depends on the windows that it is in, and what a firing brought does not stay.
#[test]
fn neither_many_windows_of_an_event_nor_a_large_firing_take_more_memory_for_long() {
    const BUDGET: usize = 6 << 20;
    let (mut store, mut outputs) = (Store::default(), Outputs::default());
    let hundred = many("{name: w, sliding: {size: 100s, slide: 1s}, trigger: {early: {everyEvents: 9}}}");
    let mut task = restored(&hundred, &store, BUDGET);
    let mut most = 0;
    for first in (0..8_192).step_by(64) {
        step(&mut task, &lines(40_000, first, first + 64, 1), first, &mut outputs);
        most = most.max(task.bytes_in_use());
        if task.wants_commit() {
            store.commit(&mut task);
            task.applied(BUDGET);
        }
    }
    assert!(
        most < 2 * BUDGET && task.rows() > 500_000,
        "{most} bytes for {} rows",
        task.rows()
    );

    let mut store = Store::default();
    let mut task = restored(&many("{name: w, calendar: {unit: Day, timeZone: UTC}}"), &store, BUDGET);
    let mut committed = |task: &mut Task, from, ms_each| {
        step(task, &lines(40_000, from, from + BATCH, ms_each), from, &mut outputs);
        store.commit(task);
        task.applied(BUDGET);
        task.bytes_in_use()
    };
    for from in (0..36_864).step_by(BATCH as usize) {
        assert!(committed(&mut task, from, 1) < BUDGET);
    }
    assert!(task.rows_left_in_store() > 20_000);
    // The next day fires all that there is.
    let after = committed(&mut task, 40_960, 100_000);
    assert!(task.position().output_seq > 40_000 && after < BUDGET, "{after} bytes");
}

#[test]
fn a_key_with_many_sessions_has_them_back_one_by_one() {
    let (mut store, mut outputs) = (Store::default(), Outputs::default());
    let mut task = restored(&many("{name: w, session: {gap: 1s}, allowedLateness: 30d}"), &store, 0);
    for first in (0..8_192).step_by(BATCH as usize) {
        step(&mut task, &lines(1, first, first + BATCH, 5_000), first, &mut outputs);
        store.commit(&mut task);
        task.evict_to(0);
    }
    assert_eq!(task.rows_left_in_store(), 8_192);
    step(&mut task, &lines(1, 8_192, 8_193, 5_000), 8_192, &mut outputs);
    assert!(task.take_failure().is_none());
    assert_eq!((task.rows_left_in_store(), task.rows()), (0, 8_193));
}

#[test]
fn a_session_that_came_back_is_looked_at_by_its_new_end_only() {
    let (mut store, mut outputs) = (Store::default(), Outputs::default());
    let mut task = restored(&many("{name: w, session: {gap: 1s}}"), &store, 0);
    let event = |key: &str, ms: i64| format!(r#"{{"ts":{ms},"k":"{key}","v":1}}"#).into_bytes();
    step(&mut task, &[event("a", 0)], 0, &mut outputs);
    store.commit(&mut task);
    task.evict_to(0);
    assert_eq!((task.rows_left_in_store(), task.next_due_ms()), (1, 1000));
    step(&mut task, &[event("a", 500), event("b", 1200)], 1, &mut outputs);
    assert_eq!((task.rows_left_in_store(), task.next_due_ms()), (0, 1500));
}

/// Damage is told, whatever is damaged, and nothing else is made of it.
#[test]
fn what_cannot_be_read_back_of_windows_with_values_of_their_own_is_told() {
    for windows in [
        "{name: w, session: {gap: 15s}}",
        "{name: w, calendar: {unit: Day, timeZone: UTC}}",
        "{name: w, count: {size: 5}}",
    ] {
        for length in [0, 8, 47, 60] {
            let (mut store, mut outputs) = (Store::default(), Outputs::default());
            let mut task = restored(&many(windows), &store, 0);
            step(&mut task, &lines(10, 0, 40, 1), 0, &mut outputs);
            store.commit(&mut task);
            task.evict_to(0);
            assert!(task.rows_left_in_store() >= 10, "{windows}");
            let stored = entries(&store.entries.lock().unwrap());
            let mut damage = Changes::default();
            for (key, value) in stored.iter().filter(|(key, _)| key[0] > 0x01) {
                damage.put(key, &value[..length]);
            }
            store.apply(&damage).unwrap();
            step(&mut task, &lines(10, 40, 80, 1), 40, &mut outputs);
            let failure = task.take_failure().map(|error| error.to_string());
            let is_told = failure
                .as_ref()
                .is_some_and(|failure| failure.contains("not in its format"));
            assert!(is_told, "{windows} {length}: {failure:?}");
        }
    }
}

#[test]
fn rows_changed_last_stay_and_a_store_that_cannot_be_read_is_told() {
    let mut store = Store::default();
    let mut task = restored(&many(ON_PANES), &store, 0);
    let mut outputs = Outputs::default();
    step(&mut task, &lines(1000, 0, 1000, 1), 0, &mut outputs);
    store.commit(&mut task);
    step(&mut task, &lines(10, 1000, 1010, 1), 1000, &mut outputs);
    store.commit(&mut task);
    task.evict_to(task.state_bytes() / 2);
    let (left, rows) = (task.rows_left_in_store(), task.rows());
    assert!(left > 300 && left < rows, "{left} of {rows}");
    // The ten keys of the newest epoch are in memory: the store is not asked.
    *store.is_broken.lock().unwrap() = true;
    step(&mut task, &lines(10, 1010, 1020, 1), 1010, &mut outputs);
    assert!(task.take_failure().is_none());
    assert_eq!(task.rows_left_in_store(), left);
    // Others are not, and a failure is told once.
    step(&mut task, &lines(1000, 1020, 2000, 1), 1020, &mut outputs);
    let error = task.take_failure().expect("a row could not be read");
    assert_eq!(error.to_string(), "state store: the disk is gone");
    assert!(task.take_failure().is_none());
}
