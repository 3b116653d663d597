//! Benchmarks of the processor on a real broker: throughput exactly once, end-to-end latency, recovery after SIGKILL.
//! Prints a table for people and a JSON line for scripts. The output of every run is checked before a figure counts.
//! Must not assert anything about time.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use streamagg_crds::parse_manifest;
use streamagg_crds::validate::resolve;
use streamagg_e2e::broker::{Broker, Loader, Reader};
use streamagg_e2e::traffic::{Message, partition_of};
use streamagg_e2e::verify::Verifier;
use streamagg_e2e::wait::{Seen, await_condition, pause};

const BROKER: &str = "bench";
const PARTITIONS: i32 = 4;
const EVENTS_DEFAULT: u64 = 1_000_000;
const LATENCY_RATE: u64 = 10_000;
const LATENCY_SECONDS: u64 = 30;
const DEADLINE: Duration = Duration::from_secs(300);

fn main() -> std::process::ExitCode {
    let events = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(EVENTS_DEFAULT);
    match run(events) {
        Ok(figures) => {
            println!("{}", json!({"broker": figures}));
            std::process::ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(events: u64) -> Result<Value, String> {
    let broker = Broker::start(BROKER)?;
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let figures = throughput(&broker, directory.path(), events)
        .and_then(|first| Ok(json!({"throughput": first, "live": live(&broker, directory.path())?})));
    Broker::delete(BROKER)?;
    figures
}

/// A job with its topics, and the processor that runs it.
struct Bench {
    manifest: PathBuf,
    data: PathBuf,
    verifier: Option<Verifier>,
}

impl Bench {
    fn create(broker: &Broker, directory: &Path, name: &str, window: &str, bound: &str) -> Result<Self, String> {
        let text = manifest(&broker.bootstrap, name, window, bound);
        let parsed = parse_manifest(&text).map_err(|errors| format!("{errors:?}"))?;
        let job = resolve(&parsed.spec, "bench", name).map_err(|errors| format!("{errors:?}"))?;
        let topics = ["in", "out", "late", "dead"].map(|part| format!("{name}-{part}"));
        broker.create_topics(&topics.each_ref().map(|topic| (topic.as_str(), PARTITIONS)))?;
        let manifest = directory.join(format!("{name}.yaml"));
        std::fs::write(&manifest, text).map_err(|error| error.to_string())?;
        let verifier = Some(Verifier::open(broker, &job)?);
        Ok(Self {
            manifest,
            data: directory.join(name),
            verifier,
        })
    }

    fn start(&self) -> Result<Processor, String> {
        let program = binary("streamagg-processor")?;
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.manifest.with_extension("log"));
        let child = Command::new(&program)
            .args(["serve", "--assign-all", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(&self.data)
            .arg("--job")
            .arg(&self.manifest)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.map_err(|error| error.to_string())?)
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        Ok(Processor { child })
    }
}

/// A child that does not outlive the benchmark.
struct Processor {
    child: Child,
}

impl Processor {
    fn proc_file(&self, name: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).unwrap_or_default()
    }

    /// User and system seconds so far, all threads.
    fn cpu_seconds(&self) -> f64 {
        /// Linux reports in hundredths of a second to user space, whatever its own tick.
        const TICKS: f64 = 100.0;
        let stat = self.proc_file("stat");
        let after_name = stat.rsplit(") ").next().unwrap_or_default();
        let ticks = after_name
            .split(' ')
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<f64>().ok());
        ticks.sum::<f64>() / TICKS
    }

    fn peak_mib(&self) -> f64 {
        let status = self.proc_file("status");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap_or_default();
        line.trim()
            .trim_end_matches(" kB")
            .trim()
            .parse::<f64>()
            .unwrap_or(f64::NAN)
            / 1024.0
    }

    fn kill(mut self) -> Result<(), String> {
        self.child
            .kill()
            .and_then(|()| self.child.wait())
            .map(drop)
            .map_err(|error| error.to_string())
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn binary(name: &str) -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let path = own.with_file_name(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(format!("{} is not there; build it: make binaries", path.display()))
    }
}

fn manifest(bootstrap: &str, name: &str, window: &str, bound: &str) -> String {
    format!(
        r#"
apiVersion: streamagg.io/v1alpha1
kind: StreamAggregation
metadata: {{name: {name}, namespace: bench}}
spec:
  source: {{kafka: {{bootstrapServers: ["{bootstrap}"], topics: [{name}-in]}}, partitioning: {{byKey: {{}}}}}}
  event: {{timestamp: {{field: /ts}}, watermark: {{boundedOutOfOrderness: {{bound: {bound}}}}}}}
  groupBy: [{{name: user, field: /user}}]
  windows: [{{name: w, tumbling: {{size: {window}}}}}]
  aggregates:
    - {{name: requests, count: {{}}}}
    - {{name: prompt, sum: {{field: /usage/prompt}}}}
    - {{name: completion, sum: {{field: /usage/completion}}}}
    - {{name: cost, sum: {{field: /cost_usd}}}}
    - {{name: latency, average: {{field: /latency_ms}}}}
    - {{name: ttft, average: {{field: /ttft_ms}}}}
    - {{name: fastest, min: {{field: /latency_ms}}}}
    - {{name: slowest, max: {{field: /latency_ms}}}}
  sink: {{kafka: {{topic: {name}-out}}}}
  lateEvents: {{kafka: {{topic: {name}-late}}}}
  deadLetters: {{kafka: {{topic: {name}-dead}}}}
  state: {{backend: RocksDB, volume: {{size: 10Gi}}}}
"#
    )
}

/// Text of a string member; the generator writes no escapes.
fn member<'a>(line: &'a str, name: &str) -> &'a str {
    let at = line.find(name).map_or(line.len(), |at| at + name.len());
    line[at..].split('"').next().unwrap_or_default()
}

/// Produces the generator's lines, `rate` a second (0: as fast as they come), and hands each to `sent`.
fn produce(loader: &mut Loader, options: &str, rate: u64, mut sent: impl FnMut(&str, i32)) -> Result<u64, String> {
    let mut generator = Command::new(binary("streamagg-processor")?)
        .args(["generate", options])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let lines = BufReader::new(generator.stdout.take().ok_or("the generator has no output")?).lines();
    let (started, mut count) = (Instant::now(), 0);
    for line in lines {
        let line = line.map_err(|error| error.to_string())?;
        let user = member(&line, "\"user\":\"").to_owned();
        let partition = partition_of(&user, PARTITIONS);
        while rate > 0 && count > rate * started.elapsed().as_millis() as u64 / 1000 {
            pause(Duration::from_millis(1));
        }
        sent(&line, partition);
        loader.send(&Message {
            partition,
            key: user,
            value: line.into_bytes(),
        })?;
        count += 1;
    }
    loader.flush()?;
    let _ = generator.wait();
    Ok(count)
}

/// Drains a full topic: W2 of the performance document on one processor with four tasks.
fn throughput(broker: &Broker, directory: &Path, events: u64) -> Result<Value, String> {
    let mut bench = Bench::create(broker, directory, "throughput", "10s", "5s")?;
    let options = format!("events={events},rate=100000,seed=1,keys=20000,disorder=2000");
    let mut loader = broker.loader("throughput-in")?;
    produce(&mut loader, &options, 0, |_, _| {})?;
    // One event a partition far ahead closes every window.
    let closing = "events=64,rate=100,seed=2,keys=64,start=2026-06-01T00:00:00Z";
    let produced = events + produce(&mut loader, closing, 0, |_, _| {})?;
    let processor = bench.start()?;
    let started = Instant::now();
    let mut control = broker.reader("bench.throughput-control");
    let seconds = await_condition("the processor to reach the end of the topic", DEADLINE, || {
        let reader = match &mut control {
            Ok(reader) => reader,
            Err(error) => {
                let seen = error.clone();
                control = broker.reader("bench.throughput-control");
                return Seen::NotYet(seen);
            }
        };
        if let Err(error) = reader.read_on() {
            return Seen::NotYet(error);
        }
        let done = consumed(reader);
        if done >= produced {
            Seen::Done(started.elapsed().as_secs_f64())
        } else {
            Seen::NotYet(format!("{done} of {produced}"))
        }
    })?;
    let (cpu, peak) = (processor.cpu_seconds(), processor.peak_mib());
    processor.kill()?;
    let report = bench.verifier.take().ok_or("no verifier")?.await_clean(DEADLINE)?;
    let millions = produced as f64 / 1e6;
    println!(
        "exactly once on the broker, tumble 10 s, 8 aggregates, 20,000 keys, {PARTITIONS} partitions, 529 B events"
    );
    println!(
        "  {:>10.0} events/s from start to the end of the topic ({seconds:.1} s, start-up included)",
        produced as f64 / seconds
    );
    println!(
        "  {:>10.3} CPU s per million events, {peak:.0} MiB at most",
        cpu / millions
    );
    println!("  output checked: {report}");
    Ok(json!({"events": produced, "seconds": seconds, "cpuSecondsPerMillion": cpu / millions, "peakMiB": peak}))
}

/// Events consumed according to the newest committed position of every task.
fn consumed(control: &Reader) -> u64 {
    let mut newest = BTreeMap::new();
    for (source, output) in &control.records {
        let document: Value = serde_json::from_str(&output.value).unwrap_or_default();
        if let Some(count) = find(&document, "inputCount").and_then(Value::as_u64) {
            newest.insert(source.partition, count);
        }
    }
    newest.values().sum()
}

fn find<'a>(document: &'a Value, name: &str) -> Option<&'a Value> {
    let members = document.as_object()?;
    members
        .get(name)
        .or_else(|| members.values().find_map(|member| find(member, name)))
}

/// When the event that closes a window was sent: by (source partition, window end).
type Closings = Arc<Mutex<BTreeMap<(i32, i64), Instant>>>;

const WINDOW_MS: i64 = 1_000;
/// Windows of the first seconds are left out: topics are created and the transaction coordinator wakes.
const WARM_UP_MS: i64 = 5_000;
const BOUND_MS: i64 = 100;

/// Produces live traffic in a thread of its own and notes when each window's closing event was sent.
fn load(mut loader: Loader, closings: Closings) -> JoinHandle<Result<u64, String>> {
    let events = LATENCY_RATE * LATENCY_SECONDS;
    let start = jiff::Timestamp::now();
    let options = format!("events={events},rate={LATENCY_RATE},seed=3,keys=2000,disorder=50,start={start:.3}");
    std::thread::spawn(move || {
        let mut due = BTreeMap::new();
        produce(&mut loader, &options, LATENCY_RATE, |line, partition| {
            let time = member(line, "\"ts\":\"").parse::<jiff::Timestamp>();
            let time = time.map_or(0, |time| time.as_millisecond());
            let next = due.entry(partition).or_insert((time / WINDOW_MS + 1) * WINDOW_MS);
            while time - BOUND_MS >= *next {
                if let Ok(mut noted) = closings.lock() {
                    noted.insert((partition, *next), Instant::now());
                }
                *next += WINDOW_MS;
            }
        })
    })
}

/// What a reader of the results sees.
#[derive(Default)]
struct Observed {
    latencies_ms: Vec<f64>,
    from_end: i64,
    newest_end: i64,
    killed: Option<Instant>,
    recovery_seconds: Option<f64>,
}

impl Observed {
    fn take(&mut self, value: &Value, closings: &Closings) {
        let read = Instant::now();
        let end = value["end"].as_i64().unwrap_or_default();
        if let Some(killed) = self.killed {
            // A window that had not fired before the kill: its result was worked out by the new process.
            if end > self.newest_end {
                self.recovery_seconds.get_or_insert(killed.elapsed().as_secs_f64());
            }
            return;
        }
        self.newest_end = self.newest_end.max(end);
        let user = value["key"]["user"].as_str().unwrap_or_default();
        let closing = (partition_of(user, PARTITIONS), end);
        let sent = closings
            .lock()
            .ok()
            .and_then(|closings| closings.get(&closing).copied());
        if let (Some(sent), true) = (sent, end >= self.from_end) {
            self.latencies_ms.push(read.duration_since(sent).as_secs_f64() * 1000.0);
        }
    }

    fn latency_ms(&self, share: f64) -> f64 {
        let index = (self.latencies_ms.len() as f64 * share) as usize;
        self.latencies_ms.get(index).copied().unwrap_or(f64::NAN)
    }
}

/// Live traffic: latency from the send of a closing event to the read of a committed result, then a SIGKILL.
fn live(broker: &Broker, directory: &Path) -> Result<Value, String> {
    let mut bench = Bench::create(broker, directory, "live", "1s", "100ms")?;
    let mut processor = bench.start()?;
    let closings: Closings = Arc::default();
    let producing = load(broker.loader("live-in")?, Arc::clone(&closings));
    let mut results = broker.reader("live-out")?;
    let from_end = jiff::Timestamp::now().as_millisecond() + WARM_UP_MS;
    let mut observed = Observed {
        from_end,
        ..Observed::default()
    };
    let started = Instant::now();
    while !producing.is_finished() {
        if observed.killed.is_none() && started.elapsed() > Duration::from_secs(LATENCY_SECONDS * 2 / 3) {
            processor.kill()?;
            observed.killed = Some(Instant::now());
            processor = bench.start()?;
        }
        if let Some(output) = results.next_output(Duration::from_millis(10))? {
            let value = serde_json::from_str(&output.value).map_err(|error| error.to_string())?;
            observed.take(&value, &closings);
        }
    }
    producing.join().map_err(|_| "the producer panicked".to_owned())??;
    let report = bench
        .verifier
        .take()
        .ok_or("no verifier")?
        .await_clean(Duration::from_secs(60))?;
    drop(processor);
    observed.latencies_ms.sort_by(f64::total_cmp);
    let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|share| observed.latency_ms(share));
    let (count, recovery) = (
        observed.latencies_ms.len(),
        observed.recovery_seconds.unwrap_or(f64::NAN),
    );
    println!("live at {LATENCY_RATE} events/s, tumble 1 s: send of the closing event to read of the committed result");
    println!("  p50 {p50:.0} ms, p95 {p95:.0} ms, p99 {p99:.0} ms over {count} results");
    println!("  SIGKILL under this load, restarted at once: first new result after {recovery:.2} s");
    println!("  output checked: {report}");
    Ok(json!({"p50Ms": p50, "p95Ms": p95, "p99Ms": p99, "results": count, "recoverySeconds": recovery}))
}
