//! `source.kafka.loadShedding` on a real broker: a task that is too far behind keeps a share of the records, says so, and
//! publishes exactly what the records kept give, each once, also when it is killed meanwhile. Shares nothing with the engine:
//! which records are kept follows from the decision records in the control topic.

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::message::Message;
use serde_json::Value;

use super::child::Processor;
use super::rig::{Event, Job, WATERMARK_BOUND_MS, WINDOW_MS, eventually};

/// Of each partition; at 2,000 a second they take 15 s, and after two the task is too far behind.
const EVENTS: u32 = 30_000;

fn job(test: &str, partitions: u32) -> Job {
    let mut job = Job::new(test, partitions);
    job.more.source = ", maxRecordsPerSecond: 2000, loadShedding: {whenBehind: 2s, keepAtLeast: 0.1}";
    job.produce(EVENTS);
    job
}

/// Status rows of the tasks that read the source.
fn rows(processor: &Processor) -> Result<Vec<Value>, String> {
    let status = processor.status()?;
    let rows: Vec<Value> = (status["tasks"].as_array().into_iter().flatten())
        .filter(|row| row["stage"] != "Window" && row["keptShare"].is_number())
        .cloned()
        .collect();
    if rows.is_empty() {
        Err(status.to_string())
    } else {
        Ok(rows)
    }
}

fn await_shedding(processor: &Processor) {
    eventually("a share of the records is kept", || {
        let rows = rows(processor)?;
        let sheds = rows.iter().any(|row| row["keptShare"].as_f64() < Some(1.0));
        if sheds { Ok(()) } else { Err(format!("{rows:?}")) }
    });
}

/// All is read, and all is kept again.
fn await_caught_up(job: &Job, processor: &Processor) {
    let (each, tasks) = (job.produced() / job.partitions as usize, job.partitions as usize);
    eventually("all is read and kept", || {
        let rows = rows(processor)?;
        let is_over = |row: &Value| row["inputOffset"] == each && row["keptShare"] == 1.0;
        if rows.len() == tasks && rows.iter().all(is_over) {
            Ok(())
        } else {
            Err(format!("{rows:?}"))
        }
    });
}

/// Results as [`Job::published`] gives them, with the share that each says.
fn results(job: &Job) -> Vec<(String, f64)> {
    let mut results = Vec::new();
    job.read(&format!("{}-out", job.name), &mut |message| {
        let value: Value = serde_json::from_slice(message.payload().expect("a value")).expect("JSON");
        let (key, values) = (value["key"]["k"].as_str().expect("text"), &value["values"]);
        let line = format!("{} {key} n={} s={}", value["start"], values["n"], values["s"]);
        results.push((line, value["keptShare"].as_f64().expect("every result says it")));
    });
    results
}

/// What is said to be of all records is of all records; some is, and some is not.
fn assert_honest(job: &Job) {
    let (results, whole) = (results(job), job.expected(true));
    let (of_all, of_some): (Vec<_>, Vec<_>) = results.iter().partition(|(_, share)| *share == 1.0);
    let untrue: Vec<_> = of_all.iter().filter(|(line, _)| !whole.contains(line)).collect();
    assert!(untrue.is_empty(), "said to be of all records: {untrue:?}");
    assert!(!of_all.is_empty() && !of_some.is_empty(), "{results:?}");
    assert!(
        of_some.iter().all(|(_, share)| [0.5, 0.25, 0.125].contains(share)),
        "{results:?}"
    );
}

/// From which offset on the share is halved how often, by the decision records.
fn decided(job: &Job) -> BTreeMap<i64, u32> {
    let mut decided = BTreeMap::new();
    job.read(&format!("{}-control", job.name), &mut |message| {
        let key: Value = serde_json::from_slice(message.key().expect("a key")).expect("JSON");
        // Those without a number are marks of owners.
        if let Some(number) = key["decision"]["controlSeq"].as_u64().filter(|number| *number > 0) {
            let value: Value =
                serde_json::from_slice(message.payload().expect("no checkpoint was made")).expect("JSON");
            let halvings = value["kind"]["share"]["halvings"].as_u64().expect("of shedding");
            let offset = value["inputOffset"].as_i64().expect("a number");
            decided.insert(number, (offset, u32::try_from(halvings).expect("few")));
        }
    });
    decided.into_values().collect()
}

/// The documented choice: SplitMix64 of the offset mixed with that of the partition begins with so many zeros.
fn is_kept(partition: u64, offset: u64, halvings: u32) -> bool {
    let split_mix = |seed: u64| {
        let word = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    };
    split_mix(split_mix(partition) ^ offset).leading_zeros() >= halvings
}

/// What the records that are kept give, in the form of [`Job::expected`]: the windows that the watermark has passed.
fn expected_of_kept(job: &Job) -> BTreeSet<String> {
    let decided = decided(job);
    let log = job.log.lock().expect("not poisoned");
    let is_kept = |offset: i64| {
        let halvings = decided.range(..=offset).last().map_or(0, |(_, halvings)| *halvings);
        is_kept(0, u64::try_from(offset).expect("not negative"), halvings)
    };
    let kept: Vec<&Event> = (0..)
        .zip(&log[&0])
        .filter(|(offset, _)| is_kept(*offset))
        .map(|(_, event)| event)
        .collect();
    let newest = kept.iter().map(|(time, ..)| *time).max().expect("some are kept");
    let mut windows: BTreeMap<(i64, u32), (i64, i64)> = BTreeMap::new();
    for (time, key, value) in kept {
        let window = windows
            .entry((time.div_euclid(WINDOW_MS) * WINDOW_MS, *key))
            .or_default();
        *window = (window.0 + 1, window.1 + value);
    }
    let closed = windows
        .into_iter()
        .filter(|((start, _), _)| start + WINDOW_MS <= newest - WATERMARK_BOUND_MS);
    closed
        .map(|((start, key), (count, sum))| format!("{start} k{key} n={count} s={sum}"))
        .collect()
}

#[test]
fn a_task_that_is_behind_sheds_and_publishes_what_the_records_kept_give_through_kills_and_lost_volumes() {
    let job = job("shed", 1);
    let mut processor = job.start("data");
    await_shedding(&processor);
    processor.kill();
    let mut processor = job.start("data");
    await_shedding(&processor);
    let metrics = processor.metrics();
    for metric in [
        r#"streamagg_kept_share{task="0"} 0."#,
        r#"streamagg_records_shed_total{task="0"} "#,
    ] {
        assert!(metrics.contains(metric), "{metric}: {metrics}");
    }
    await_caught_up(&job, &processor);
    job.produce(1_000);
    await_caught_up(&job, &processor);
    job.assert_exactly(&expected_of_kept(&job));
    assert_honest(&job);
    processor.kill();
    // A replay from birth, much faster than the job ever was, keeps the same records.
    job.lose("data");
    let processor = job.start("data");
    processor.await_ready();
    job.produce(400);
    await_caught_up(&job, &processor);
    job.assert_exactly(&expected_of_kept(&job));
    processor.assert_replayed_exactly();
}

#[test]
fn of_two_stages_the_first_sheds_and_the_results_of_the_second_say_so() {
    let job = job("sheds", 2).in_two_stages(2);
    let mut processor = job.start("data");
    await_shedding(&processor);
    processor.kill();
    let processor = job.start("data");
    await_shedding(&processor);
    await_caught_up(&job, &processor);
    job.produce(1_000);
    await_caught_up(&job, &processor);
    let window_of = |line: &str| line.split(" n=").next().unwrap_or_default().to_owned();
    let last = job.expected(false).into_iter().next_back().expect("some");
    eventually("the last results", || {
        let results = results(&job);
        if results.iter().any(|(line, _)| window_of(line) == window_of(&last)) {
            Ok(())
        } else {
            Err(format!("no {last}"))
        }
    });
    assert_honest(&job);
    let windows: Vec<String> = (results(&job).into_iter()).map(|(line, _)| window_of(&line)).collect();
    // The first partitions of the control topic are those of the window tasks.
    assert_eq!(
        decided(&job),
        BTreeMap::new(),
        "what a window task reads is shed already"
    );
    let distinct: BTreeSet<&String> = windows.iter().collect();
    assert_eq!(windows.len(), distinct.len(), "a window comes once for a key");
}

#[test]
fn under_a_spec_without_it_every_record_is_kept_from_the_first() {
    let mut job = job("shednone", 1);
    let processor = job.start("data");
    await_shedding(&processor);
    processor.terminate();
    job.more.source = ", maxRecordsPerSecond: 2000";
    let processor = job.start("data");
    eventually("all is read, and the gauge says so", || {
        let (status, metrics) = (processor.status()?, processor.metrics());
        let is_read = status["tasks"][0]["inputOffset"] == job.produced();
        if is_read && metrics.contains("streamagg_kept_share{task=\"0\"} 1\n") {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    let metrics = processor.metrics();
    let mut shed = metrics
        .lines()
        .filter(|line| line.starts_with("streamagg_records_shed_total{"));
    assert!(shed.all(|line| line.ends_with(" 0")), "{metrics}");
}
