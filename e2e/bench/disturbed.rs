//! A million open windows under load: how long a checkpoint stops the tasks, and how soon a killed processor goes on.
//! Must not measure speed.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use streamagg_e2e::broker::{Broker, Reader};
use streamagg_e2e::checker::OutputRecord;
use streamagg_e2e::checker::batch::Batch;
use streamagg_e2e::process::{metrics, sum_of};
use streamagg_e2e::wait::{Seen, await_condition};

use super::drain::{await_consumed, compare, places};
use super::feed::{generate, produce};
use super::flink;
use super::job::{EIGHT, Job, PARTITIONS, Process, Shape};
use super::workload::Input;

/// Events a second while things happen, and for how many seconds.
const RATE: u64 = 100_000;
const SECONDS: u64 = 40;
/// Events before that: nearly every key has a window then.
const FIRST: u64 = 3_000_000;
const OPTIONS: &str = "rate=100000,keys=1000000,disorder=2000";
/// One event in a thousand is bad: each is a dead letter, and so a committed output that tells how far a task has come.
const BAD: &str = ",bad=0.001";
const DEADLINE: Duration = Duration::from_secs(60);
const SHAPE: Shape<'static> = Shape {
    name: "w9",
    input: "w9-in",
    bound: "5s",
    window: "tumbling: {size: 6h}",
    aggregates: EIGHT,
    sink: "",
    more: concat!(
        "  state:\n    backend: RocksDB\n    volume: {size: 10Gi}\n    memoryBudget: 1Gi\n",
        "    checkpoints: {interval: 10s, retain: {count: 3}, store: {volume: {claimName: bench}}}\n"
    ),
};

/// The events: those that come first, and those that come while things happen. `more` are further options.
fn phases(more: &str) -> [String; 2] {
    let live = RATE * SECONDS;
    [
        format!("events={FIRST},seed=4,{OPTIONS}{more}"),
        format!("events={live},seed=5,{OPTIONS}{more},start=2026-01-01T00:00:30Z"),
    ]
}

/// The same by Flink, which has no dead letters: without bad events.
pub fn beside_flink(broker: &Broker, directory: &Path) -> Result<Value, String> {
    let [first, live] = phases("");
    flink::recovery_and_checkpoint(broker, directory, [&first, &live], RATE)
}

/// W9 and W10 on one job.
pub fn recovery_and_checkpoint(broker: &Broker, directory: &Path) -> Result<Value, String> {
    let job = Job::create(broker, directory, &SHAPE)?;
    let admin = free_port()?;
    let mut processor = job.start(admin)?;
    let mut loader = broker.loader(SHAPE.input)?;
    let [first, live] = phases(BAD);
    let mut records = produce(&mut loader, &first, 0, |_, _| Ok(()))?;
    await_consumed(broker, &job, records)?;
    let mut figures = json!({});
    records += std::thread::scope(|scope| {
        let producing = scope.spawn(|| produce(&mut loader, &live, RATE, |_, _| Ok(())));
        let happened = disturb(broker, &job, &mut processor, admin, &mut figures);
        let produced = producing.join().map_err(|_| "the producer panicked".to_owned())?;
        happened.and(produced)
    })?;
    records += produce(&mut loader, Input::CLOSING, 0, |_, _| Ok(()))?;
    await_consumed(broker, &job, records)?;
    figures["residentMiB"] = json!(processor.mebibytes("VmRSS"));
    drop(processor);
    let mut batch = Batch::new(&job.resolved, |_| true);
    for options in phases(BAD) {
        generate(&options, |partition, _, line| batch.take(partition, line.as_bytes()))?;
    }
    let dead = batch.dead;
    let mut rows = batch.rows()?;
    figures["windows"] = json!(rows.expected);
    compare(broker, &job, &mut rows)?;
    match places(broker, &job.dead)? {
        found if found == dead => Ok(figures),
        found => Err(format!("{found} dead letters, not {dead}")),
    }
}

/// A checkpoint, a kill, and another with the volume gone, while events come in.
fn disturb(broker: &Broker, job: &Job, processor: &mut Process, admin: u16, figures: &mut Value) -> Result<(), String> {
    let before = Snapshots::read(admin)?;
    let after = await_condition("a checkpoint of every task", DEADLINE, || {
        match Snapshots::read(admin) {
            Ok(after) if after.is_behind(&before, f64::from(PARTITIONS)) => Seen::Done(after),
            Ok(after) => Seen::NotYet(format!(
                "{} snapshots, {} checkpoints",
                after.snapshots, after.checkpoints
            )),
            Err(error) => Seen::NotYet(error),
        }
    })?;
    figures["checkpointPauseMs"] = json!(1e3 * (after.pause - before.pause) / (after.snapshots - before.snapshots));
    figures["checkpointSeconds"] = json!((after.seconds - before.seconds) / (after.checkpoints - before.checkpoints));
    let mut watch = Watch {
        dead: broker.reader(&job.dead)?,
        newest: BTreeMap::new(),
    };
    figures["diskKeptSeconds"] = json!(watch.recovery(job, processor, || Ok(()))?);
    let lose = || std::fs::remove_dir_all(&job.data).map_err(|error| error.to_string());
    figures["diskLostSeconds"] = json!(watch.recovery(job, processor, lose)?);
    Ok(())
}

/// Follows the dead letters, which every task keeps writing.
struct Watch {
    dead: Reader<OutputRecord>,
    /// Newest source offset by partition.
    newest: BTreeMap<String, i64>,
}

impl Watch {
    /// Whether the record is newer than any before it.
    fn is_new(&mut self, output: &OutputRecord) -> Option<String> {
        let header = |name: &str| output.headers.get(name).cloned().unwrap_or_default();
        let (partition, offset) = (
            header("streamagg-partition"),
            header("streamagg-offset").parse::<i64>().ok()?,
        );
        let newest = self.newest.entry(partition.clone()).or_insert(-1);
        let is_newer = offset > *newest;
        *newest = offset.max(*newest);
        is_newer.then_some(partition)
    }

    /// SIGKILL, then `lose`, then a new process: seconds until every task has committed something new.
    fn recovery(
        &mut self,
        job: &Job,
        processor: &mut Process,
        lose: impl FnOnce() -> Result<(), String>,
    ) -> Result<f64, String> {
        let killed = Instant::now();
        processor.signal_kill()?;
        lose()?;
        *processor = job.start(0)?;
        // What was committed before the kill.
        self.dead.read_on()?;
        for output in std::mem::take(&mut self.dead.records) {
            self.is_new(&output);
        }
        let mut going_on = BTreeMap::new();
        while going_on.len() < PARTITIONS.unsigned_abs() as usize {
            if let Some(output) = self.dead.next(Duration::from_millis(20))?
                && let Some(partition) = self.is_new(&output)
            {
                going_on.entry(partition).or_insert_with(|| killed.elapsed());
            }
            if killed.elapsed() > DEADLINE {
                return Err(format!("only {} tasks go on {DEADLINE:?} after a kill", going_on.len()));
            }
        }
        let last = going_on.values().max().copied().unwrap_or_default();
        Ok(last.as_secs_f64())
    }
}

/// What the metrics say of checkpoints, all tasks together.
#[derive(Default)]
struct Snapshots {
    pause: f64,
    snapshots: f64,
    seconds: f64,
    checkpoints: f64,
}

impl Snapshots {
    /// Whether so many were begun and so many completed since: an upload takes longer than its snapshot, and those that
    /// complete first were begun before.
    fn is_behind(&self, before: &Self, count: f64) -> bool {
        self.snapshots >= before.snapshots + count && self.checkpoints >= before.checkpoints + count
    }

    fn read(admin: u16) -> Result<Self, String> {
        let text = metrics(admin).map_err(|error| error.to_string())?;
        let sum = |name: &str| sum_of(&text, name);
        Ok(Self {
            pause: sum("streamagg_checkpoint_snapshot_seconds_sum"),
            snapshots: sum("streamagg_checkpoint_snapshot_seconds_count"),
            seconds: sum("streamagg_checkpoint_seconds_sum"),
            checkpoints: sum("streamagg_checkpoint_seconds_count"),
        })
    }
}

fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    listener
        .local_addr()
        .map(|address| address.port())
        .map_err(|error| error.to_string())
}
