//! `event.maxDrift` on a real broker: a partition that is too far ahead waits for the slowest, of the same pod and of
//! another, as long as that one gets on and no longer. Must not repeat what two stages show.

use serde_json::Value;

use super::child::Processor;
use super::rig::{Job, eventually};
use super::stages::{assign, pod};

/// Behind the window tasks.
const FAST: u32 = 2;
const SLOW: u32 = 3;
/// Of event time, s: as many as it has events.
const FAST_EVENTS: u32 = 10_000;
/// At 1,000 a second it takes 15 s, and its event time goes on by 75 s.
const SLOW_EVENTS: u32 = 15_000;

/// A job whose first partition is read through in 10 s if nothing holds it back.
fn job(test: &str) -> Job {
    let mut job = Job::new(test, 2).in_two_stages(2);
    job.more.source = ", maxRecordsPerSecond: 1000";
    job.more.event = "\n    maxDrift: 30s";
    job.produce_apart(5_000_000, 1_000, 0..1, FAST_EVENTS);
    job.produce_apart(5_000_000, 5, 1..2, SLOW_EVENTS);
    job
}

fn row(processor: &Processor, task: u32) -> Result<Value, String> {
    let status = processor.status()?;
    let mut rows = status["tasks"].as_array().into_iter().flatten();
    let row = rows.find(|row| row["task"] == task);
    row.cloned().ok_or_else(|| status.to_string())
}

/// The fast partition is seen waiting before it is read through.
fn await_waiting(processor: &Processor) {
    eventually("the fast partition waits for the slow one", || {
        let row = row(processor, FAST)?;
        assert!(
            row["inputOffset"].as_i64() < Some(i64::from(FAST_EVENTS)),
            "not held back: {row}"
        );
        if row["waitsFor"] == 1 {
            Ok(())
        } else {
            Err(row.to_string())
        }
    });
}

/// What the metrics say of how long it was held back, if ever.
fn held_back(processor: &Processor, task: u32) -> Option<String> {
    let metric = format!(r#"streamagg_held_back_seconds_total{{by="drift",task="{task}"}}"#);
    let metrics = processor.metrics();
    metrics
        .lines()
        .find(|line| line.starts_with(&metric))
        .map(str::to_owned)
}

/// The slow one has come to its end, and no event will follow: nobody waits for it. It waited for nobody itself but, at
/// its first start, for the first records of the fast one.
fn assert_ends(job: &Job, fast: &Processor, slow: &Processor, slow_before: Option<&str>) {
    for (processor, task, events) in [(slow, SLOW, SLOW_EVENTS), (fast, FAST, FAST_EVENTS)] {
        eventually("all is read", || {
            let row = row(processor, task)?;
            let is_read = row["inputOffset"] == events && row["waitsFor"].is_null();
            if is_read { Ok(()) } else { Err(row.to_string()) }
        });
    }
    job.assert_exact();
    assert!(held_back(fast, FAST).is_some());
    let slow = held_back(slow, SLOW);
    assert_eq!(slow.as_deref(), slow_before, "the slowest waits for nobody");
}

#[test]
fn a_partition_that_is_too_far_ahead_waits_for_the_slowest_until_that_has_no_more() {
    let job = job("drift");
    let processor = job.start("data");
    await_waiting(&processor);
    // Whoever waits has time for anything else.
    processor.operate("/v1/checkpoint?id=meanwhile");
    // A wait is counted when it is over: whoever has answered is in none that began before.
    let before = held_back(&processor, SLOW);
    await_waiting(&processor);
    assert_ends(&job, &processor, &processor, before.as_deref());
}

#[test]
fn a_partition_waits_for_one_of_another_pod_and_not_for_a_pod_that_is_gone() {
    let job = job("drifts");
    assign(&job, 1, r#"{"0":0,"1":1,"2":0,"3":1}"#);
    let (fast, mut slow) = (pod(&job, 0, None), pod(&job, 1, None));
    await_waiting(&fast);
    slow.kill();
    eventually("nobody waits for what nobody reads", || {
        let row = row(&fast, FAST)?;
        if row["waitsFor"].is_null() {
            Ok(())
        } else {
            Err(row.to_string())
        }
    });
    let slow = pod(&job, 1, None);
    assert_ends(&job, &fast, &slow, None);
}

#[test]
fn a_partition_that_waits_leaves_when_it_is_told_to() {
    let job = job("driftend");
    let processor = job.start("data");
    await_waiting(&processor);
    processor.terminate();
    let processor = job.start("data");
    assert_ends(&job, &processor, &processor, None);
}
