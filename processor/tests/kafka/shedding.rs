//! `source.kafka.loadShedding` on a real broker: a task that is too far behind keeps a share of the records, says so, and
//! publishes exactly what the records kept give, each once, also when it is killed meanwhile. Shares nothing with the engine:
//! which records are kept follows from the decision records in the control topic or, of tasks that write none, from what they
//! have said and committed.

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

/// Results as [`Job::published`] gives them, with the share that each says, if it says one.
fn results(job: &Job) -> Vec<(String, Option<f64>)> {
    let mut results = Vec::new();
    job.read(&format!("{}-out", job.name), &mut |message| {
        let value: Value = serde_json::from_slice(message.payload().expect("a value")).expect("JSON");
        let (key, values) = (value["key"]["k"].as_str().expect("text"), &value["values"]);
        let line = format!("{} {key} n={} s={}", value["start"], values["n"], values["s"]);
        results.push((line, value["keptShare"].as_f64()));
    });
    results
}

/// Of a source partition: from which offset on the share is halved how often.
type Decided = BTreeMap<i64, u32>;

/// How often the share was halved that an offset met.
fn halvings_at(decided: &Decided, offset: i64) -> u32 {
    decided.range(..=offset).last().map_or(0, |(_, halvings)| *halvings)
}

/// No result says a greater share than was kept when a record of its window came; some are of all records, some are not.
fn assert_honest(job: &Job, decided: &[Decided]) {
    let mut most: BTreeMap<i64, u32> = BTreeMap::new();
    for (events, decided) in job.log.lock().expect("not poisoned").values().zip(decided) {
        for (offset, (time, ..)) in (0..).zip(events) {
            let most = most.entry(time.div_euclid(WINDOW_MS) * WINDOW_MS).or_default();
            *most = halvings_at(decided, offset).max(*most);
        }
    }
    let results: Vec<(String, f64)> = results(job)
        .into_iter()
        .map(|(line, share)| (line, share.expect("every result says it")))
        .collect();
    let kept_of = |line: &str| {
        let start = line.split(' ').next().and_then(|start| start.parse::<i64>().ok());
        0.5_f64.powi(i32::try_from(most[&start.expect("a start")]).expect("few"))
    };
    let untrue: Vec<_> = results.iter().filter(|(line, share)| *share > kept_of(line)).collect();
    assert!(untrue.is_empty(), "of fewer records than it is said: {untrue:?}");
    let (of_all, of_some): (Vec<_>, Vec<_>) = results.iter().partition(|(_, share)| *share == 1.0);
    assert!(!of_all.is_empty() && !of_some.is_empty(), "{results:?}");
    assert!(
        of_some.iter().all(|(_, share)| [0.5, 0.25, 0.125].contains(share)),
        "{results:?}"
    );
}

/// What the decision records say of the first partition.
fn decided(job: &Job) -> Decided {
    let mut decided = BTreeMap::new();
    job.read(&format!("{}-control", job.name), &mut |message| {
        let key: Value = serde_json::from_slice(message.key().expect("a key")).expect("JSON");
        // Those without a number are marks of owners; those without a value say that no checkpoint needs the one before.
        if let Some(number) = key["decision"]["controlSeq"].as_u64()
            && let Some(value) = message.payload()
        {
            let value: Value = serde_json::from_slice(value).expect("JSON");
            let halvings = value["kind"]["share"]["halvings"].as_u64().expect("of shedding");
            let offset = value["inputOffset"].as_i64().expect("a number");
            decided.insert(number, (offset, u32::try_from(halvings).expect("few")));
        }
    });
    decided.into_values().collect()
}

/// What a task says in the log of one of its lives.
fn said(processor: &Processor, task: usize) -> Decided {
    let log = std::fs::read_to_string(&processor.log).expect("a log");
    let said = log.lines().filter(|line| line.contains("load shedding: from here on"));
    let field = |line: &str, name: &str| -> Option<f64> {
        let mut fields = line.split_whitespace();
        fields.find_map(|field| field.strip_prefix(name)?.parse().ok())
    };
    let of_task = said.filter(|line| field(line, "task=") == Some(task as f64));
    let decisions = of_task.map(|line| {
        let share = field(line, "share=").expect("it says which");
        let halvings = (0..).find(|halvings| 0.5_f64.powi(*halvings) <= share);
        let offset = field(line, "offset=").expect("it says where");
        (offset as i64, halvings.expect("a share").unsigned_abs())
    });
    decisions.collect()
}

/// Of a task that writes no decision records: what it had committed when its second life began, which lies before the
/// second mark of an owner.
fn committed_by_the_first(job: &Job, task: usize) -> (i64, u32) {
    let (mut marks, mut committed) = (0, None);
    job.read_partition(&format!("{}-control", job.name), task, &mut |message| {
        let key: Value = serde_json::from_slice(message.key().expect("a key")).expect("JSON");
        marks += u32::from(key["decision"]["controlSeq"] == 0);
        if marks == 1 && key["position"].is_object() {
            let value: Value = serde_json::from_slice(message.payload().expect("a position")).expect("JSON");
            let stands = &value["enginePosition"];
            let halvings = stands["shed"]["share"]["halvings"].as_u64().unwrap_or(0);
            let offset = stands["inputOffset"].as_i64().expect("a number");
            committed = Some((offset, u32::try_from(halvings).expect("few")));
        }
    });
    assert_eq!(marks, 2, "one for each life");
    committed.expect("something was committed")
}

/// What was decided in two lives of a task that writes no decision records: what the first had not committed never was.
fn decided_in_two_lives(job: &Job, lives: [&Processor; 2], task: usize) -> Decided {
    let (offset, halvings) = committed_by_the_first(job, task);
    let mut decided = said(lives[0], task);
    assert!(!decided.is_empty(), "{}", lives[0].log_text());
    decided.split_off(&offset);
    decided.insert(offset, halvings);
    decided.extend(said(lives[1], task));
    decided
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

/// What the records that are kept give, in the form of [`Job::expected`]: the windows that the watermark of every partition
/// has passed.
fn expected_of_kept(job: &Job, decided: &[Decided]) -> BTreeSet<String> {
    let log = job.log.lock().expect("not poisoned");
    assert_eq!(log.len(), decided.len(), "of each partition");
    let mut windows: BTreeMap<(i64, u32), (i64, i64)> = BTreeMap::new();
    let mut slowest = i64::MAX;
    for ((partition, events), decided) in log.iter().zip(decided) {
        let is_kept = |offset: i64| {
            let number = u64::try_from(offset).expect("not negative");
            is_kept(u64::from(*partition), number, halvings_at(decided, offset))
        };
        let kept: Vec<&Event> = (0..)
            .zip(events)
            .filter(|(offset, _)| is_kept(*offset))
            .map(|(_, event)| event)
            .collect();
        let newest = kept.iter().map(|(time, ..)| *time).max().expect("some are kept");
        slowest = slowest.min(newest);
        for (time, key, value) in kept {
            let window = windows
                .entry((time.div_euclid(WINDOW_MS) * WINDOW_MS, *key))
                .or_default();
            *window = (window.0 + 1, window.1 + value);
        }
    }
    let closed = windows
        .into_iter()
        .filter(|((start, _), _)| start + WINDOW_MS <= slowest - WATERMARK_BOUND_MS);
    closed
        .map(|((start, key), (count, sum))| format!("{start} k{key} n={count} s={sum}"))
        .collect()
}

fn assert_exact(job: &Job, decided: &[Decided]) {
    job.assert_exactly(&expected_of_kept(job, decided));
    assert_honest(job, decided);
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
    assert_exact(&job, &[decided(&job)]);
    processor.kill();
    // A replay from birth, much faster than the job ever was, keeps the same records.
    job.lose("data");
    let processor = job.start("data");
    processor.await_ready();
    job.produce(400);
    await_caught_up(&job, &processor);
    assert_exact(&job, &[decided(&job)]);
    processor.assert_replayed_exactly();
}

#[test]
fn of_two_stages_the_first_sheds_and_the_results_of_the_second_are_of_what_it_keeps_and_say_so() {
    let job = job("sheds", 2).in_two_stages(2);
    let mut first = job.start("data");
    await_shedding(&first);
    first.kill();
    let second = job.start("data");
    await_shedding(&second);
    await_caught_up(&job, &second);
    job.produce(1_000);
    await_caught_up(&job, &second);
    // The first partitions of the control topic are those of the window tasks.
    assert_eq!(
        decided(&job),
        BTreeMap::new(),
        "what a window task reads is shed already"
    );
    let of_first_stage = [2, 3].map(|task| decided_in_two_lives(&job, [&first, &second], task));
    assert_exact(&job, &of_first_stage);
}

#[test]
fn under_a_spec_without_it_every_record_is_kept_from_the_first_and_no_result_says_a_share() {
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
    let decided = decided(&job);
    assert_eq!(decided.values().last(), Some(&0), "{decided:?}");
    job.assert_exactly(&expected_of_kept(&job, &[decided]));
    // Also of windows that were open then.
    let says: Vec<bool> = results(&job).iter().map(|(_, share)| share.is_some()).collect();
    let before = says.iter().take_while(|says| **says).count();
    assert!((1..says.len()).contains(&before), "{says:?}");
    assert!(!says[before..].contains(&true), "{says:?}");
}
