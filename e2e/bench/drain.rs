//! A full topic is read to its end by one processor with four tasks, exactly once; every result is compared.
//! Must not know Flink.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use rdkafka::message::Message as _;
use serde_json::{Value, json};
use streamagg_e2e::broker::{Broker, Reader};
use streamagg_e2e::checker::SourceRecord;
use streamagg_e2e::checker::batch::{Batch, Rows};
use streamagg_e2e::wait::{Seen, await_condition};

use super::feed::{generate, produce};
use super::job::{Job, PARTITIONS, Shape};
use super::workload::{Input, Workload};

const DEADLINE: Duration = Duration::from_secs(300);

/// Topics that are filled already, with the number of records in each.
#[derive(Default)]
pub struct Filled {
    records: BTreeMap<&'static str, u64>,
}

impl Filled {
    /// Fills the topic unless it is; answers how many records it has.
    pub fn fill(&mut self, broker: &Broker, input: &Input, events: u64) -> Result<u64, String> {
        if let Some(records) = self.records.get(input.topic) {
            return Ok(*records);
        }
        broker.create_topics(&[(input.topic, PARTITIONS)])?;
        let mut loader = broker.loader(input.topic)?;
        let mut records = 0;
        let answered = input.answered(events);
        for options in answered.iter().map(String::as_str).chain([Input::CLOSING]) {
            records += produce(&mut loader, options, 0, |_, _| Ok(()))?;
        }
        self.records.insert(input.topic, records);
        Ok(records)
    }
}

/// The answer to a workload, from the same events.
pub fn answer<'a>(job: &'a Job, workload: &Workload, events: u64) -> Result<Batch<'a>, String> {
    let mut batch = Batch::new(&job.resolved, workload.passes);
    for options in workload.input.answered(events) {
        generate(&options, |partition, _, line| batch.take(partition, line.as_bytes()))?;
    }
    Ok(batch)
}

/// The job of a workload.
pub fn job(broker: &Broker, directory: &Path, workload: &Workload) -> Result<Job, String> {
    let shape = Shape {
        name: &workload.id.to_lowercase(),
        input: workload.input.topic,
        bound: "5s",
        window: workload.window,
        aggregates: &workload.aggregates,
        sink: "",
        more: workload.more,
    };
    Job::create(broker, directory, &shape)
}

/// What came of a workload.
pub struct Drained {
    /// For the file.
    pub figures: Value,
    /// Number of results.
    pub results: usize,
    /// What their counts of events add up to.
    pub summed: u64,
}

/// Runs the processor over the topic and compares every result.
pub fn drain(job: &Job, broker: &Broker, workload: &Workload, events: u64, records: u64) -> Result<Drained, String> {
    let processor = job.start(0)?;
    let started = Instant::now();
    await_consumed(broker, job, records)?;
    let seconds = started.elapsed().as_secs_f64();
    let (cpu, peak, resident) = (
        processor.cpu_seconds(),
        processor.mebibytes("VmHWM"),
        processor.mebibytes("VmRSS"),
    );
    processor.kill()?;
    let batch = answer(job, workload, events)?;
    let (late, dead) = (batch.late, batch.dead);
    let mut rows = batch.rows()?;
    compare(broker, job, &mut rows)?;
    let side = [
        (&job.resolved.late_topic, late),
        (&job.resolved.dead_letter_topic, dead),
    ];
    for (topic, expected) in side {
        let topic = topic.as_deref().unwrap_or_default();
        let found = places(broker, topic)?;
        if found != expected {
            return Err(format!("{topic} has {found} records, not {expected}"));
        }
    }
    let millions = records as f64 / 1e6;
    let figures = json!({
        "events": records,
        "results": rows.expected,
        "late": late,
        "seconds": seconds,
        "eventsPerSecond": (records as f64 / seconds).round(),
        "cpuSecondsPerMillion": cpu / millions,
        "peakMiB": peak,
        "residentMiB": resident,
    });
    Ok(Drained {
        figures,
        results: rows.expected,
        summed: rows.summed,
    })
}

/// Compares every result in the job's topic.
pub fn compare(broker: &Broker, job: &Job, rows: &mut Rows) -> Result<(), String> {
    let mut results = broker.reader(&job.output)?;
    results.visit(&mut |message| rows.take(&String::from_utf8_lossy(message.payload().unwrap_or_default())))?;
    match rows.missing() {
        0 => Ok(()),
        missing => Err(format!("{missing} of {} results are missing", rows.expected)),
    }
}

/// Number of records of a side topic; each has to name another source record.
pub fn places(broker: &Broker, topic: &str) -> Result<u64, String> {
    let mut reader = broker.reader(topic)?;
    reader.read_on()?;
    let mut seen = BTreeSet::new();
    for output in &reader.records {
        let header = |name: &str| output.headers.get(name).cloned().unwrap_or_default();
        let place = (header("streamagg-partition"), header("streamagg-offset"));
        if !seen.insert(place.clone()) {
            return Err(format!("{topic} has {place:?} again"));
        }
    }
    Ok(seen.len() as u64)
}

/// Waits until committed positions cover so many records.
pub fn await_consumed(broker: &Broker, job: &Job, records: u64) -> Result<(), String> {
    let mut control = None;
    await_condition("the processor to reach the end of the topic", DEADLINE, || {
        if control.is_none() {
            match broker.source_reader(&job.control) {
                Ok(reader) => control = Some(reader),
                Err(error) => return Seen::NotYet(error),
            }
        }
        let Some(reader) = &mut control else {
            return Seen::NotYet("no control topic".to_owned());
        };
        match reader.read_on() {
            Err(error) => Seen::NotYet(error),
            Ok(_) => match consumed(reader) {
                done if done >= records => Seen::Done(()),
                done => Seen::NotYet(format!("{done} of {records}")),
            },
        }
    })
}

/// Records consumed according to the newest committed position of every task.
fn consumed(control: &Reader<SourceRecord>) -> u64 {
    let mut newest = BTreeMap::new();
    for record in &control.records {
        let document: Value = serde_json::from_slice(&record.value).unwrap_or_default();
        if let Some(count) = find(&document, "inputCount").and_then(Value::as_u64) {
            newest.insert(record.partition, count);
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

/// The line of a person's table.
pub fn line(title: &str, who: &str, figures: &Value) -> String {
    let number = |name: &str| figures[name].as_f64().unwrap_or(f64::NAN);
    format!(
        "{title:42} {who:10} {:>9.3} {:>11.0} {:>9.0} {:>10.0} {:>8.1}",
        number("cpuSecondsPerMillion"),
        number("eventsPerSecond"),
        number("peakMiB"),
        number("results"),
        number("seconds"),
    )
}

/// Head of that table.
pub fn head() -> String {
    format!(
        "{:42} {:10} {:>9} {:>11} {:>9} {:>10} {:>8}",
        "workload", "by", "CPU s/M", "events/s", "peak MiB", "results", "seconds"
    )
}
