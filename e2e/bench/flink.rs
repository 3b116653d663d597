//! Flink's SQL on the same topics, exactly once, in one JVM whose CPU is read from the kernel.
//! Must not be kinder to the processor than to Flink: the JVM's start and its compiling are left out of the ratio.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use streamagg_e2e::broker::Broker;
use streamagg_e2e::wait::{Seen, await_condition, pause};

use super::drain::Drained;
use super::feed::produce;
use super::job::{PARTITIONS, Process};
use super::live;
use super::workload::{Input, Query, Workload};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/flink.sh");
const DEADLINE: Duration = Duration::from_secs(600);
/// Between two looks at CPU and progress.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// The share of the events behind which the JVM is taken to be warm.
const WARM: f64 = 0.4;
/// Between two checkpoints of a drain: as long as the processor goes without a commit at most.
const DRAIN_INTERVAL: &str = "5 s";
/// Between two checkpoints where it is killed: as for the processor.
const DISTURBED_INTERVAL: &str = "10 s";
/// Between two checkpoints under live traffic: results are visible after a checkpoint only.
const LIVE_INTERVAL: &str = "100 ms";
/// The eight aggregates: name, type, expression.
const EIGHT: [(&str, &str, &str); 8] = [
    ("requests", "BIGINT", "COUNT(*)"),
    ("prompt", "BIGINT", "SUM(`usage`.prompt)"),
    ("completion", "BIGINT", "SUM(`usage`.completion)"),
    ("cost", "DOUBLE", "SUM(cost_usd)"),
    ("latency", "DOUBLE", "AVG(latency_ms)"),
    ("ttft", "DOUBLE", "AVG(ttft_ms)"),
    ("fastest", "DOUBLE", "MIN(latency_ms)"),
    ("slowest", "DOUBLE", "MAX(latency_ms)"),
];

/// What one query needs besides its columns.
#[derive(Clone, Copy)]
struct Statement<'a> {
    bootstrap: &'a str,
    input: &'a str,
    output: &'a str,
    query: &'a Query,
    bound: &'a str,
    interval: &'a str,
    /// Ends at the end of the topic.
    is_bounded: bool,
    /// The checkpoint that it goes on from.
    from: Option<&'a Path>,
}

impl Statement<'_> {
    fn sql(&self) -> String {
        let Self {
            bootstrap,
            input,
            output,
            query,
            bound,
            interval,
            from,
            ..
        } = self;
        let columns = || EIGHT.iter().chain(query.columns);
        let types: String = columns().map(|(name, kind, _)| format!(", `{name}` {kind}")).collect();
        let values: String = columns().map(|(_, _, value)| format!(", {value}")).collect();
        let bounded = if self.is_bounded {
            ", 'scan.bounded.mode' = 'latest-offset'"
        } else {
            ""
        };
        let recovery = from.map_or_else(String::new, |from| {
            format!("SET 'execution.state-recovery.path' = 'file://{}';\n", from.display())
        });
        let source = match query.condition {
            "TRUE" => query.window.to_owned(),
            _ => query.window.replace("TABLE events", "TABLE passed"),
        };
        format!(
            r"SET 'execution.runtime-mode' = 'streaming';
SET 'table.dml-sync' = 'true';
SET 'table.local-time-zone' = 'UTC';
SET 'execution.checkpointing.interval' = '{interval}';
SET 'execution.checkpointing.mode' = 'EXACTLY_ONCE';
{recovery}CREATE TABLE events (
  ts TIMESTAMP_LTZ(3), `user` STRING, model STRING, `status` INT, `usage` ROW<prompt BIGINT, completion BIGINT>,
  cost_usd DOUBLE, latency_ms DOUBLE, ttft_ms DOUBLE, WATERMARK FOR ts AS ts - {bound}
) WITH ('connector' = 'kafka', 'topic' = '{input}', 'properties.bootstrap.servers' = '{bootstrap}',
  'properties.group.id' = '{output}', 'scan.startup.mode' = 'earliest-offset'{bounded},
  'format' = 'json', 'json.timestamp-format.standard' = 'ISO-8601');
CREATE TEMPORARY VIEW passed AS SELECT *, `usage`.prompt + `usage`.completion AS tokens FROM events WHERE {condition};
CREATE TABLE results (`start` TIMESTAMP(3), `end` TIMESTAMP(3), `user` STRING{types}) WITH (
  'connector' = 'kafka', 'topic' = '{output}', 'properties.bootstrap.servers' = '{bootstrap}', 'format' = 'json',
  'sink.delivery-guarantee' = 'exactly-once', 'sink.transactional-id-prefix' = '{output}',
  'properties.transaction.timeout.ms' = '600000');
INSERT INTO results SELECT window_start, window_end, `user`{values} FROM TABLE({source})
GROUP BY window_start, window_end, `user`;
",
            condition = query.condition,
        )
    }

    fn start(&self, directory: &Path) -> Result<Process, String> {
        let work = self.work(directory);
        std::fs::create_dir_all(&work).map_err(|error| error.to_string())?;
        let file = work.join("query.sql");
        std::fs::write(&file, self.sql()).map_err(|error| error.to_string())?;
        let mut command = Command::new(SCRIPT);
        command.arg("run").arg(&file).arg(&work);
        Process::start(command, &work.join("log"))
    }

    /// Where its logs and checkpoints are.
    fn work(&self, directory: &Path) -> PathBuf {
        directory.join(self.output)
    }

    fn whole_log(&self, directory: &Path) -> String {
        std::fs::read_to_string(self.work(directory).join("log")).unwrap_or_default()
    }

    /// The checkpoint that was completed last, and how long it took in s, by the coordinator's own words.
    fn newest_checkpoint(&self, directory: &Path) -> Result<(PathBuf, f64), String> {
        let log = self.whole_log(directory);
        let completed = log.lines().rfind(|line| line.contains("Completed checkpoint "));
        let parsed = completed.and_then(|line| {
            let number = line.split("Completed checkpoint ").nth(1)?.split(' ').next()?;
            let ms = line.split("checkpointDuration=").nth(1)?.split(' ').next()?;
            Some((format!("chk-{number}"), ms.parse::<f64>().ok()? / 1e3))
        });
        let (name, seconds) = parsed.ok_or_else(|| format!("no checkpoint in {}", self.log(directory)))?;
        // One directory a job.
        let jobs = std::fs::read_dir(self.work(directory).join("checkpoints")).map_err(|error| error.to_string())?;
        let mut places = jobs.flatten().map(|job| job.path().join(&name));
        let place = places.find(|place| place.join("_metadata").is_file());
        Ok((place.ok_or_else(|| format!("{name} is not there"))?, seconds))
    }

    /// What the JVM said last, for an error.
    fn log(&self, directory: &Path) -> String {
        let text = self.whole_log(directory);
        let from = text.len().saturating_sub(3_000);
        text.get(text.ceil_char_boundary(from)..).unwrap_or_default().to_owned()
    }
}

/// Fetches Flink, once.
pub fn fetch() -> Result<(), String> {
    match Command::new(SCRIPT).arg("fetch").status() {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("{SCRIPT} fetch: {other:?}")),
    }
}

/// Drains the topic of a workload and checks number and sums of the results.
pub fn drain(
    broker: &Broker,
    directory: &Path,
    workload: &Workload,
    (records, own): (u64, &Drained),
) -> Result<Value, String> {
    let query = workload.flink.as_ref().ok_or("no query")?;
    let output = format!("{}-flink", workload.id.to_lowercase());
    broker.create_topics(&[(&output, PARTITIONS)])?;
    let statement = Statement {
        bootstrap: &broker.bootstrap,
        input: workload.input.topic,
        output: &output,
        query,
        bound: "INTERVAL '5' SECOND",
        interval: DRAIN_INTERVAL,
        is_bounded: true,
        from: None,
    };
    let mut process = statement.start(directory)?;
    let (started, mut looks, mut peak) = (Instant::now(), Vec::new(), 0_f64);
    let progress = Progress::new(broker, workload.input.topic, &output)?;
    let is_good = loop {
        // A process that has ended has no figures any more, so they are read first.
        let look = (progress.consumed(), process.cpu_seconds());
        peak = peak.max(process.mebibytes("VmHWM"));
        if let Some(is_good) = process.ended() {
            break is_good;
        }
        looks.push(look);
        if started.elapsed() > DEADLINE {
            break false;
        }
        pause(LOOK_AGAIN);
    };
    let seconds = started.elapsed().as_secs_f64();
    let (found, sum) = totals(broker, &output)?;
    if !is_good || found == 0 {
        return Err(format!("Flink on {}: {}", workload.id, statement.log(directory)));
    }
    // The last checkpoint before the end is the last figure of progress.
    let total = looks.last().map_or(f64::NAN, |look| look.1) / records as f64 * 1e6;
    let steady = steady(&looks, records).unwrap_or(total);
    Ok(json!({
        "events": records, "seconds": seconds, "eventsPerSecond": (records as f64 / seconds).round(),
        "cpuSecondsPerMillion": steady, "cpuSecondsPerMillionWithStart": total, "peakMiB": peak, "results": found,
        "sameResults": found == own.results && sum == own.summed, "countedEvents": sum,
    }))
}

/// CPU seconds per million events once the JVM is warm: between two looks that saw progress.
fn steady(looks: &[(u64, f64)], records: u64) -> Option<f64> {
    let first = looks
        .iter()
        .find(|(consumed, _)| *consumed as f64 >= records as f64 * WARM)?;
    let last = looks
        .iter()
        .find(|(consumed, _)| *consumed >= looks.last().map_or(0, |last| last.0))?;
    (last.0 > first.0).then(|| (last.1 - first.1) / (last.0 - first.0) as f64 * 1e6)
}

/// How far a consumer group has come.
struct Progress {
    consumer: BaseConsumer,
    partitions: TopicPartitionList,
}

impl Progress {
    fn new(broker: &Broker, topic: &str, group: &str) -> Result<Self, String> {
        let consumer = ClientConfig::new()
            .set("bootstrap.servers", &broker.bootstrap)
            .set("group.id", group)
            .create()
            .map_err(|error| error.to_string())?;
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_range(topic, 0, PARTITIONS - 1);
        Ok(Self { consumer, partitions })
    }

    /// By partition; nothing while the broker does not answer.
    fn offsets(&self) -> Vec<u64> {
        let committed = self
            .consumer
            .committed_offsets(self.partitions.clone(), Duration::from_secs(5));
        let offset = |offset: Offset| match offset {
            Offset::Offset(offset) => u64::try_from(offset).unwrap_or_default(),
            _ => 0,
        };
        committed.map_or_else(
            |_| Vec::new(),
            |list| list.elements().iter().map(|element| offset(element.offset())).collect(),
        )
    }

    fn consumed(&self) -> u64 {
        self.offsets().into_iter().sum()
    }

    /// Waits until it has come to `total` records.
    fn await_consumed(&self, total: u64) -> Result<(), String> {
        await_condition("all records consumed by Flink", DEADLINE, || match self.consumed() {
            consumed if consumed >= total => Seen::Done(()),
            consumed => Seen::NotYet(format!("{consumed} of {total}")),
        })
    }

    /// Waits until every partition is further than `before`: a checkpoint was completed since.
    fn await_all_beyond(&self, before: &[u64]) -> Result<(), String> {
        await_condition("a checkpoint of Flink", DEADLINE, || match self.offsets() {
            now if now.len() == before.len() && now.iter().zip(before).all(|(now, before)| now > before) => {
                Seen::Done(())
            }
            now => Seen::NotYet(format!("{now:?} from {before:?}")),
        })
    }
}

/// Number of results and the events they count, without the windows of the closing events.
fn totals(broker: &Broker, topic: &str) -> Result<(usize, u64), String> {
    let closing = Input::CLOSING_DAY;
    let (mut results, mut events) = (0, 0);
    broker.reader(topic)?.visit(&mut |message| {
        let value: Value =
            serde_json::from_slice(message.payload().unwrap_or_default()).map_err(|error| error.to_string())?;
        let end = value["end"].as_str().ok_or("a result without an end")?;
        if !end.starts_with(closing) {
            results += 1;
            events += value["requests"].as_u64().unwrap_or_default();
        }
        Ok(())
    })?;
    Ok((results, events))
}

/// W8 by Flink.
pub fn latency(broker: &Broker, directory: &Path) -> Result<Value, String> {
    broker.create_topics(&[("w8-flink-in", PARTITIONS), ("w8-flink", PARTITIONS)])?;
    let statement = Statement {
        bootstrap: &broker.bootstrap,
        input: "w8-flink-in",
        output: "w8-flink",
        query: &Query {
            window: "TUMBLE(TABLE events, DESCRIPTOR(ts), INTERVAL '1' SECOND)",
            columns: &[],
            condition: "TRUE",
        },
        bound: "INTERVAL '0.100' SECOND",
        interval: LIVE_INTERVAL,
        is_bounded: false,
        from: None,
    };
    let process = statement.start(directory)?;
    let latencies = live::observe(broker, statement.input, statement.output, |value| {
        let end: jiff::civil::DateTime = value["end"].as_str()?.parse().ok()?;
        let end = end.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_millisecond();
        Some((end, value["user"].as_str()?.to_owned()))
    })?;
    if latencies.is_empty() {
        return Err(format!("Flink on W8: {}", statement.log(directory)));
    }
    let mut figures = live::percentiles(&latencies);
    figures["cpuSecondsPerMillionWithStart"] = json!(process.cpu_seconds() / live::EVENTS as f64 * 1e6);
    figures["checkpointInterval"] = json!(LIVE_INTERVAL);
    Ok(figures)
}

/// W9 and W10 by Flink, whose coordinator and workers are one JVM here: that is killed, and another goes on from the newest
/// checkpoint. `first` and `live` are options of the generator; what is live comes at `rate` events a second.
pub fn recovery_and_checkpoint(
    broker: &Broker,
    directory: &Path,
    [first, live]: [&str; 2],
    rate: u64,
) -> Result<Value, String> {
    let (input, output) = ("w9-flink-in", "w9-flink");
    broker.create_topics(&[(input, PARTITIONS), (output, PARTITIONS)])?;
    let statement = Statement {
        bootstrap: &broker.bootstrap,
        input,
        output,
        query: &Query {
            window: "TUMBLE(TABLE events, DESCRIPTOR(ts), INTERVAL '6' HOUR)",
            columns: &[],
            condition: "TRUE",
        },
        bound: "INTERVAL '5' SECOND",
        interval: DISTURBED_INTERVAL,
        is_bounded: false,
        from: None,
    };
    let mut loader = broker.loader(input)?;
    let mut events = produce(&mut loader, first, 0, |_, _| Ok(()))?;
    let mut process = statement.start(directory)?;
    let progress = Progress::new(broker, input, output)?;
    progress.await_consumed(events)?;
    let mut figures = json!({"checkpointInterval": DISTURBED_INTERVAL});
    events += std::thread::scope(|scope| {
        let producing = scope.spawn(|| produce(&mut loader, live, rate, |_, _| Ok(())));
        let mut disturb = || {
            progress.await_all_beyond(&progress.offsets())?;
            let before = progress.offsets();
            let killed = Instant::now();
            process.signal_kill()?;
            let (newest, seconds) = statement.newest_checkpoint(directory)?;
            figures["checkpointSeconds"] = json!(seconds);
            let again = Statement {
                from: Some(&newest),
                ..statement
            };
            process = again.start(directory)?;
            progress.await_all_beyond(&before)?;
            figures["recoverySeconds"] = json!(killed.elapsed().as_secs_f64());
            Ok::<(), String>(())
        };
        let happened = disturb();
        let produced = producing.join().map_err(|_| "the producer panicked".to_owned())?;
        happened.and(produced)
    })?;
    let closing = produce(&mut loader, Input::CLOSING, 0, |_, _| Ok(()))?;
    progress.await_consumed(events + closing)?;
    let (results, counted) = totals(broker, output)?;
    figures["results"] = json!(results);
    match counted == events {
        true => Ok(figures),
        false => Err(format!(
            "Flink counted {counted} of {events} events: {}",
            statement.log(directory)
        )),
    }
}
