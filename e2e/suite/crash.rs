//! Crashes on a real broker, real RocksDB and the release binary: SIGKILL at random times and at every failpoint,
//! volumes lost or set back, a zombie that comes back to life, a user who goes back to checkpoints, a broker that dies or
//! stands still, all under load. Nothing may be lost, repeated or wrong.
//!
//! `STREAMAGG_KILLS` sets the number of random kills (60) of all phases together, `STREAMAGG_SEED` the seed. Phases run side
//! by side on one broker: most of a kill is waiting for the next start. What happens to a broker (`outage`) has its own.
#![expect(clippy::panic, reason = "helpers of tests fail the test that calls them")]

#[path = "crash/back.rs"]
mod back;
#[path = "crash/faults.rs"]
mod faults;
#[path = "crash/manifest.rs"]
mod manifest;
#[path = "crash/outage.rs"]
mod outage;
#[path = "crash/phases.rs"]
mod phases;
#[path = "crash/volume.rs"]
mod volume;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use phases::{at_least_once, every_fault_in_turn, long_replay, other_shapes};
use streamagg_crds::job_file::JobFile;
use streamagg_crds::parse_manifest;
use streamagg_crds::validate::resolve;
use streamagg_e2e::broker::{Broker, Loader};
use streamagg_e2e::load::Load;
use streamagg_e2e::process::{Home, Processor};
use streamagg_e2e::random::Random;
use streamagg_e2e::traffic::{Shape, Traffic};
use streamagg_e2e::verify::Verifier;
use streamagg_e2e::wait::{Seen, await_condition};
use tempfile::TempDir;

const BROKER: &str = "crash";
const PARTITIONS: i32 = 3;
const RATE: u64 = 1_500;
const KILLS_DEFAULT: u64 = 60;
/// From so many kills on, one phase has every kind of fault.
const ALL_FAULTS_KILLS: u64 = 16;
const START_MS: i64 = 1_760_000_000_000;
/// So many kills of a phase without failpoints set a volume back.
const VOLUME_SET_BACK_KILLS: u64 = 7;
/// Above window, lateness and bound together, in event time.
const CLOSING_MS: i64 = 20_000;
const PROGRESS_MAX: Duration = Duration::from_secs(150);
/// Of a processor's log, where a phase fails.
const LOG_LINES: usize = 25;
/// A kill on every side of a restore, and more.
const RESTORES_LEAST: u64 = 5;
/// How often the phase of other windows is killed: volumes are lost, kept and set back meanwhile.
const SHAPES_KILLS: u64 = 7;
/// What phases without transactions begin with.
const AT_LEAST_ONCE: &str = "at-least-once";
/// The phases whose windows are sessions and grow, and whose aggregates have state of any size.
const SHAPES: &str = "shapes";
/// The failpoints; `mid-replay` needs a long replay and has a phase of its own, `after-fork` needs a changed spec and is left
/// to the processor's own tests.
const FAILPOINTS: [&str; 5] = [
    "before-commit",
    "after-commit-before-state",
    "after-claim",
    "mid-checkpoint-upload",
    "after-manifest",
];
/// Failpoints that no processor dies of: whether an epoch was committed gets lost on the way.
const OUTCOMES_LOST: [&str; 2] = ["request-lost", "answer-lost"];
const SHAPE: Shape = Shape {
    partitions: PARTITIONS,
    step_ms: 10,
    disorder_ms: 220,
    late_one_in: 50,
    late_by_ms: 15_000,
    bad_one_in: 200,
    tenants: 8,
    scattered: false,
};
/// For two stages: keys are in any partition.
const SCATTERED: Shape = Shape {
    scattered: true,
    ..SHAPE
};
/// So many keys that each has an event in some 2 s of event time, so that sessions end and late events join some.
const SPARSE: Shape = Shape {
    tenants: 150,
    late_one_in: 20,
    ..SHAPE
};

/// Everything of one run.
struct Harness {
    name: String,
    directory: PathBuf,
    job: PathBuf,
    home: Home,
    verifier: Verifier,
    /// What produces, at rest.
    idle: Option<(Loader, Traffic)>,
    /// What produces, at work.
    load: Option<Load>,
    tasks: u32,
    /// How many of them are the second stage's; they come first.
    window_tasks: u32,
    random: Random,
    generation: u64,
    /// Checkpoints of the job that are pinned: ids by task.
    kept: Vec<BTreeMap<String, String>>,
    /// Of the last order.
    nonce: u64,
    started: Instant,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    kills: u64,
    aborts: Vec<&'static str>,
    outcomes_lost: Vec<&'static str>,
    volumes_lost: u64,
    volumes_set_back: u64,
    zombies: u64,
    /// By failpoint, and without one.
    restores: Vec<&'static str>,
    broker_restarts: u64,
    broker_pauses: u64,
    /// Results that took back others, and late events, at the end.
    taken_back: usize,
    late: usize,
}

impl Harness {
    fn new(broker: &Broker, name: &str, directory: &Path, seed: u64, shape: Shape) -> Result<Self, String> {
        let may_repeat = name.starts_with(AT_LEAST_ONCE);
        let delivery = if may_repeat { "AtLeastOnce" } else { "ExactlyOnce" };
        let computed = match name.starts_with(SHAPES) {
            true => manifest::OF_ANY_SIZE,
            false => manifest::OF_ONE_SIZE,
        };
        let manifest = manifest::manifest(&broker.bootstrap, name, delivery, shape.scattered, computed);
        let manifest = parse_manifest(&manifest).map_err(|errors| format!("{errors:?}"))?;
        let resolved = resolve(&manifest.spec, "e2e", name).map_err(|errors| format!("{errors:?}"))?;
        let topics: Vec<String> = ["in", "out", "late", "dead"]
            .map(|part| format!("{name}-{part}"))
            .into();
        let topics: Vec<_> = topics.iter().map(|topic| (topic.as_str(), shape.partitions)).collect();
        broker.create_topics(&topics)?;
        let io = |error: std::io::Error| error.to_string();
        let home = Home::create(&directory.join("home-1"), &directory.join("store")).map_err(io)?;
        let window_tasks = resolved.source.shuffle_partitions.unwrap_or(0);
        let tasks = shape.partitions.unsigned_abs() + window_tasks;
        home.assign(1, tasks).map_err(io)?;
        let job = directory.join("job.json");
        let file = JobFile::new("e2e", name, "uid-of-the-crash-test", manifest.spec);
        std::fs::write(&job, serde_json::to_string(&file).map_err(|error| error.to_string())?).map_err(io)?;
        let loader = broker.loader(&format!("{name}-in"))?;
        let mut verifier = Verifier::open(broker, &resolved)?;
        verifier.may_repeat = may_repeat;
        Ok(Self {
            name: name.to_owned(),
            directory: directory.to_owned(),
            job,
            home,
            verifier,
            idle: Some((loader, Traffic::new(seed, shape, START_MS))),
            load: None,
            tasks,
            window_tasks,
            random: Random::new(seed ^ 0x5eed),
            generation: 1,
            kept: Vec::new(),
            nonce: 0,
            started: Instant::now(),
            counts: Counts::default(),
        })
    }

    fn start_load(&mut self) -> Result<(), String> {
        let (loader, traffic) = self.idle.take().ok_or("the load runs already")?;
        self.load = Some(Load::start(loader, traffic, RATE));
        Ok(())
    }

    /// So many records at once, then one on each partition that closes all windows before it.
    fn produce_and_close(&mut self, records: u64) -> Result<(), String> {
        if let Some(load) = self.load.take() {
            self.idle = Some(load.stop()?);
        }
        let (loader, traffic) = self.idle.as_mut().ok_or("there is nothing to produce with")?;
        for _ in 0..records {
            loader.send(&traffic.next_message())?;
        }
        let mut close = || {
            for message in traffic.close(CLOSING_MS) {
                loader.send(&message)?;
            }
            loader.flush()
        };
        // Once more by another client, if need be.
        close().or_else(|_| close())
    }

    fn say(&self, what: &str) {
        println!("{:7.1} s  {}: {what}", self.started.elapsed().as_secs_f64(), self.name);
    }

    fn start(&self, failpoint: Option<&str>) -> Result<Processor, String> {
        self.home.start(&self.job, failpoint)
    }

    /// Waits until results come that were not there before.
    fn await_progress(&mut self, processor: &mut Processor) -> Result<(), String> {
        let before = self.verifier.results()?;
        let verifier = &mut self.verifier;
        let outcome = await_condition("new results", PROGRESS_MAX, || {
            if !processor.is_running() {
                return Seen::Done(Err("the processor ended by itself".to_owned()));
            }
            match verifier.results() {
                Ok(now) if now > before => Seen::Done(Ok(())),
                Ok(now) => Seen::NotYet(format!("{now} results as before")),
                Err(error) => Seen::NotYet(error),
            }
        });
        outcome
            .and_then(|seen| seen)
            .map_err(|problem| self.with_status(problem))
    }

    /// A problem with what the processor says of its tasks now.
    fn with_status(&self, problem: String) -> String {
        match self.home.ask("GET", "/v1/status", "") {
            Ok(status) => format!("{problem}\nstatus: {status}"),
            Err(error) => format!("{problem}\nno status: {error}"),
        }
    }

    fn check(&mut self) -> Result<(), String> {
        let report = self.verifier.check_so_far()?;
        let [panes, late, dead] = report.right;
        self.say(&format!(
            "{} kills, {} records in: {panes} panes, {late} late and {dead} dead records are right so far",
            self.counts.kills,
            self.verifier.source_len()
        ));
        Ok(())
    }

    /// Ends the load, closes all windows and waits until everything is there.
    fn finish(&mut self) -> Result<(), String> {
        self.produce_and_close(0)?;
        let mut processor = self.start(None)?;
        let outcome = self.verifier.await_clean(Duration::from_secs(180));
        let report = outcome.map_err(|problem| self.with_status(problem))?;
        self.say(&format!("{} records in: {report}", self.verifier.source_len()));
        (self.counts.taken_back, self.counts.late) = (report.taken_back, report.right[1]);
        processor.signal("TERM")?;
        let ending = processor.ended("the end after SIGTERM", Duration::from_secs(60))?;
        if ending != (Some(0), None) {
            return Err(format!("after SIGTERM the processor ended with {ending:?}"));
        }
        // Nothing comes afterwards, either.
        self.verifier.await_clean(Duration::from_secs(1)).map(drop)
    }
}

fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |text| {
        text.parse().unwrap_or_else(|_| panic!("{variable} is no number"))
    })
}

/// Tests run one after the other: what one does to its broker and the machine is not for the other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One phase with topics and directories of its own; on failure the directory is kept.
fn phase(
    broker: &Broker,
    name: &str,
    seed: u64,
    shape: Shape,
    run: impl Fn(&mut Harness) -> Result<(), String>,
) -> Counts {
    let (mut harness, directory) = set_up(broker, name, seed, shape);
    let outcome = run(&mut harness);
    judge([(harness, directory)], outcome).remove(0)
}

fn set_up(broker: &Broker, name: &str, seed: u64, shape: Shape) -> (Harness, TempDir) {
    println!("{name}, seed {seed}");
    let directory = tempfile::Builder::new()
        .prefix("streamagg-crash-")
        .tempdir()
        .expect("a temporary directory");
    // Topics of an earlier run may still be there: every run has its own.
    let topics = format!("{name}-{}", std::process::id());
    let harness = Harness::new(broker, &topics, directory.path(), seed, shape).expect("the harness is set up");
    (harness, directory)
}

/// Ends phases that ran side by side, with what came of them all.
fn judge(phases: impl IntoIterator<Item = (Harness, TempDir)>, outcome: Result<(), String>) -> Vec<Counts> {
    let (mut counts, mut remains) = (Vec::new(), String::new());
    for (harness, directory) in phases {
        harness.say(&format!("{:?}", harness.counts));
        if outcome.is_err() {
            remains += &format!(
                "\n{}: job, logs and state are kept in {}; last in the log:\n{}",
                harness.name,
                directory.keep().display(),
                harness.home.end_of_log(LOG_LINES)
            );
        }
        counts.push(harness.counts);
    }
    if let Err(problem) = outcome {
        panic!("{problem}{remains}");
    }
    counts
}

/// A phase with every kind of fault.
fn every_fault(broker: &Broker, name: &str, seed: u64, shape: Shape, kills: u64) -> u64 {
    let counts = phase(broker, name, seed, shape, |harness| every_fault_in_turn(harness, kills));
    assert!(counts.kills >= kills, "{name}: only {} of {kills} kills", counts.kills);
    assert!(
        FAILPOINTS.iter().all(|failpoint| counts.aborts.contains(failpoint)),
        "{name}: not at every failpoint: {counts:?}"
    );
    assert_lost_outcomes(&counts);
    if kills >= ALL_FAULTS_KILLS {
        assert!(
            counts.volumes_lost > 0 && counts.volumes_set_back > 0 && counts.zombies > 0,
            "{name}: {counts:?}"
        );
    }
    counts.kills
}

fn assert_lost_outcomes(counts: &Counts) {
    let lost = |name: &&str| counts.outcomes_lost.contains(name);
    assert!(OUTCOMES_LOST.iter().all(lost), "{counts:?}");
}

#[test]
fn crashes_lose_nothing_repeat_nothing_and_change_nothing() {
    let _alone = alone();
    let (kills, seed) = (number("STREAMAGG_KILLS", KILLS_DEFAULT), number("STREAMAGG_SEED", 1));
    let broker = Broker::start(BROKER).expect("the broker starts");
    let (one_stage, two_stages) = (kills.div_ceil(2), kills.div_ceil(3));
    let others = kills.saturating_sub(one_stage + two_stages).max(VOLUME_SET_BACK_KILLS);
    let restores = (kills / 10).max(RESTORES_LEAST);
    let scattered = Shape {
        scattered: true,
        ..SPARSE
    };
    let done = std::thread::scope(|scope| {
        let lanes = [
            scope.spawn(|| {
                every_fault(&broker, "crash", seed, SHAPE, one_stage) + of_other_shapes(&broker, SHAPES, seed, SPARSE)
            }),
            scope.spawn(|| {
                every_fault(&broker, "two-stages", seed, SCATTERED, two_stages)
                    + of_other_shapes(&broker, &format!("{SHAPES}-two-stages"), seed, scattered)
                    + back_and_forth(&broker, "back", seed, SHAPE, restores)
            }),
            scope.spawn(|| {
                without_transactions_and_long(&broker, seed, others)
                    + back_and_forth(&broker, "back-two-stages", seed, SCATTERED, restores)
            }),
        ];
        lanes
            .map(|lane| lane.join().expect("every phase passes"))
            .iter()
            .sum::<u64>()
    });
    assert!(done >= kills, "only {done} of {kills} kills");
    println!("{done} kills");
    Broker::delete(BROKER).expect("the broker can be removed");
}

/// A phase in which a user goes back to checkpoints, and on to others.
fn back_and_forth(broker: &Broker, name: &str, seed: u64, shape: Shape, restores: u64) -> u64 {
    let counts = phase(broker, name, seed, shape, |harness| back::and_forth(harness, restores));
    for place in back::PLACES {
        assert!(counts.restores.contains(&place), "{name}: not at {place}: {counts:?}");
    }
    counts.kills
}

/// A phase with windows and aggregates of any size.
fn of_other_shapes(broker: &Broker, name: &str, seed: u64, shape: Shape) -> u64 {
    let counts = phase(broker, name, seed, shape, |harness| other_shapes(harness, SHAPES_KILLS));
    assert!(counts.volumes_lost > 0 && counts.volumes_set_back > 0, "{counts:?}");
    assert!(counts.taken_back > 0 && counts.late > 0, "{counts:?}");
    counts.kills
}

fn without_transactions_and_long(broker: &Broker, seed: u64, kills: u64) -> u64 {
    let one = Shape { partitions: 1, ..SHAPE };
    let long = phase(broker, "long-replay", seed, one, long_replay);
    assert!(long.aborts.contains(&"mid-replay"), "{long:?}");
    let repeating = phase(broker, AT_LEAST_ONCE, seed, SHAPE, |harness| {
        at_least_once(harness, kills)
    });
    let in_two_stages = format!("{AT_LEAST_ONCE}-two-stages");
    let two_stages = phase(broker, &in_two_stages, seed, SCATTERED, |harness| {
        at_least_once(harness, kills)
    });
    for counts in [&repeating, &two_stages] {
        assert_lost_outcomes(counts);
        assert!(counts.volumes_lost > 0 && counts.volumes_set_back > 0, "{counts:?}");
    }
    long.kills + repeating.kills + two_stages.kills
}
