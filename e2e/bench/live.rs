//! Live traffic: how long a result takes from the send of the event that closes its window to a reader of committed
//! records. Must not know who aggregates.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use streamagg_e2e::broker::{Broker, Loader};
use streamagg_e2e::traffic::partition_of;
use streamagg_e2e::verify::Verifier;

use super::feed::{member, produce};
use super::job::{EIGHT, Job, PARTITIONS, Shape};

/// Events a second.
const RATE: u64 = 10_000;
const SECONDS: u64 = 60;
/// Events in all.
pub const EVENTS: u64 = RATE * SECONDS;
/// Length of the window, ms.
const WINDOW_MS: i64 = 1_000;
/// Windows of the first seconds are left out: clients and topics are new.
const WARM_UP_MS: i64 = 20_000;
/// Events for the broker to warm up with.
const WARM_UP_EVENTS: u64 = 20 * RATE;
/// Bound of out-of-orderness, ms.
const BOUND_MS: i64 = 100;

/// When the event that closes a window was sent: by (source partition, window end).
type Closings = Arc<Mutex<BTreeMap<(i32, i64), Instant>>>;

/// Produces live traffic in a thread of its own and notes when each window's closing event was sent.
fn load(mut loader: Loader, closings: Closings) -> JoinHandle<Result<u64, String>> {
    let start = jiff::Timestamp::now();
    let options = format!("events={EVENTS},rate={RATE},seed=3,keys=2000,disorder=50,start={start:.3}");
    std::thread::spawn(move || {
        let mut due = BTreeMap::new();
        produce(&mut loader, &options, RATE, |line, partition| {
            let time = member(line, "\"ts\":\"").parse::<jiff::Timestamp>();
            let time = time.map_or(0, |time| time.as_millisecond());
            let next = due.entry(partition).or_insert((time / WINDOW_MS + 1) * WINDOW_MS);
            while time - BOUND_MS >= *next {
                if let Ok(mut noted) = closings.lock() {
                    noted.insert((partition, *next), Instant::now());
                }
                *next += WINDOW_MS;
            }
            Ok(())
        })
    })
}

/// Latencies in ms of the results in `topic`, while live traffic goes to `input`. `identify` tells end and key.
pub fn observe(
    broker: &Broker,
    input: &str,
    topic: &str,
    identify: fn(&Value) -> Option<(i64, String)>,
) -> Result<Vec<f64>, String> {
    let mut results = broker.reader(topic)?;
    let closings: Closings = Arc::default();
    let producing = load(broker.loader(input)?, Arc::clone(&closings));
    let from_end = jiff::Timestamp::now().as_millisecond() + WARM_UP_MS;
    let mut latencies = Vec::new();
    while !producing.is_finished() {
        let Some(output) = results.next(Duration::from_millis(10))? else {
            continue;
        };
        let read = Instant::now();
        let value = serde_json::from_str(&output.value).map_err(|error| error.to_string())?;
        let (end, user) = identify(&value).ok_or_else(|| format!("not a result: {}", output.value))?;
        let closing = (partition_of(&user, PARTITIONS), end);
        let sent = closings
            .lock()
            .ok()
            .and_then(|closings| closings.get(&closing).copied());
        if let (Some(sent), true) = (sent, end >= from_end) {
            latencies.push(read.duration_since(sent).as_secs_f64() * 1000.0);
        }
    }
    producing.join().map_err(|_| "the producer panicked".to_owned())??;
    latencies.sort_by(f64::total_cmp);
    Ok(latencies)
}

/// Percentiles of sorted latencies.
pub fn percentiles(latencies: &[f64]) -> Value {
    let at = |share: f64| {
        let index = (latencies.len() as f64 * share) as usize;
        latencies.get(index).copied().unwrap_or(f64::NAN)
    };
    json!({
        "p50Ms": at(0.5), "p95Ms": at(0.95), "p99Ms": at(0.99),
        "maxMs": latencies.last().copied().unwrap_or(f64::NAN), "results": latencies.len(),
    })
}

fn shape<'a>(name: &'a str, input: &'a str, window: &'a str) -> Shape<'a> {
    Shape {
        name,
        input,
        bound: "100ms",
        window,
        aggregates: EIGHT,
        sink: "",
        more: "  state: {backend: RocksDB, volume: {size: 10Gi}}\n",
    }
}

/// Many short transactions: the broker's JVM compiles what they need, as it has on any broker that is in use.
pub fn warm_up(broker: &Broker, directory: &Path) -> Result<(), String> {
    let shape = shape("warm", "warm-in", "tumbling: {size: 50ms}");
    let job = Job::create(broker, directory, &shape)?;
    let processor = job.start(0)?;
    let start = jiff::Timestamp::now();
    let options = format!("events={WARM_UP_EVENTS},rate={RATE},seed=6,keys=200,disorder=50,start={start:.3}");
    produce(&mut broker.loader(shape.input)?, &options, RATE, |_, _| Ok(()))?;
    processor.kill()
}

/// W8: 10,000 events a second, tumbling windows of a second; the results of a task in all partitions, by their keys.
pub fn latency(broker: &Broker, directory: &Path) -> Result<Value, String> {
    measure(broker, directory, &shape("w8", "w8-in", "tumbling: {size: 1s}"))
}

/// W8T: the results of a task in one partition.
pub fn latency_by_task(broker: &Broker, directory: &Path) -> Result<Value, String> {
    let shape = Shape {
        sink: ", partitioner: Task",
        ..shape("w8t", "w8t-in", "tumbling: {size: 1s}")
    };
    measure(broker, directory, &shape)
}

fn measure(broker: &Broker, directory: &Path, shape: &Shape<'_>) -> Result<Value, String> {
    let job = Job::create(broker, directory, shape)?;
    let processor = job.start(0)?;
    let latencies = observe(broker, shape.input, &job.output, |value| {
        Some((value["end"].as_i64()?, value["key"]["user"].as_str()?.to_owned()))
    })?;
    let cpu = processor.cpu_seconds();
    let mut verifier = Verifier::open(broker, &job.resolved)?;
    verifier.await_clean(Duration::from_secs(60))?;
    drop(processor);
    let mut figures = percentiles(&latencies);
    figures["cpuSecondsPerMillion"] = json!(cpu / EVENTS as f64 * 1e6);
    Ok(figures)
}
