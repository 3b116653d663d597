//! What is decided by the clock: idle partitions, ticks, times from the future. The clock is moved, not waited for.
//! Must not test what the records alone decide.

use std::collections::BTreeSet;

use rdkafka::message::{Headers, Message};
use serde_json::Value;

use super::child::Processor;
use super::rig::{Job, More, eventually};

pub(super) const HOUR_MS: i64 = 3_600_000;
/// Where the events of a round begin: behind whatever idle advances have made of the watermark.
const ROUND_MS: i64 = 100 * HOUR_MS;

pub(super) const IDLE: More = More {
    source: "",
    event: "\n    idle: {after: 1h}",
    window: "",
    spec: "",
    state: "",
};

/// Failpoints on both sides of the commit.
const AROUND_A_COMMIT: [&str; 2] = ["before-commit", "after-commit-before-state"];

fn job(test: &str, partitions: u32, more: More) -> Job {
    let mut job = Job::new(test, partitions);
    job.more = more;
    job
}

pub(super) fn round_ms(round: usize) -> i64 {
    5_000_000 + i64::try_from(round).expect("few") * ROUND_MS
}

/// A round of `count` events, then an hour passes: the processor dies at `failpoint` as it decides. Answers the next one,
/// for which another hour has passed: a decision that was not committed never was, the clock decides anew.
fn crash_at_the_hour(job: &Job, round: usize, count: u32, failpoint: &str) -> Processor {
    job.produce_from(round_ms(round), count);
    let mut processor = job.start("data");
    job.assert_exact();
    processor.kill();
    let mut processor = job.start_with("data", &["--assign-all"], Some(failpoint), "");
    processor.await_ready();
    job.move_clock(HOUR_MS);
    processor.wait_for_crash();
    let processor = job.start("data");
    processor.await_ready();
    job.move_clock(HOUR_MS);
    processor
}

#[test]
fn the_last_windows_of_a_partition_that_is_quiet_for_months_come_out() {
    let job = job("idle", 2, IDLE);
    job.produce(2_000);
    let processor = job.start("data");
    job.assert_exact();
    job.move_clock(90 * 24 * HOUR_MS);
    job.assert_exactly(&job.expected(true));
    assert!(
        processor
            .metrics()
            .contains(r#"streamagg_decisions_total{kind="idle",task="1"} 1"#),
        "{}",
        processor.metrics()
    );
    processor.terminate();
    // What comes behind it counts, and a replay from birth obeys the decision with another clock.
    job.lose("data");
    job.lose("store");
    std::fs::remove_file(job.directory("ahead")).expect("removes");
    let processor = job.start("data");
    job.produce_from(5_000_000 + 91 * 24 * HOUR_MS, 2_000);
    job.assert_exact();
    processor.assert_replayed_exactly();
}

#[test]
fn a_crash_around_an_idle_advance_publishes_exactly_once() {
    let job = job("idlecrash", 1, IDLE);
    for (round, failpoint) in AROUND_A_COMMIT.into_iter().enumerate() {
        let mut processor = crash_at_the_hour(&job, round, 400, failpoint);
        job.assert_exactly(&job.expected(true));
        processor.kill();
        job.lose("data");
        let mut processor = job.start("data");
        processor.await_ready();
        job.assert_exactly(&job.expected(true));
        processor.assert_replayed_exactly();
        processor.kill();
    }
}

#[test]
fn a_partition_with_an_open_transaction_upstream_is_not_idle() {
    let job = job("open", 1, IDLE);
    job.produce(2_000);
    let processor = job.start("data");
    job.assert_exact();
    let open = job.produce_open(1);
    job.move_clock(2 * HOUR_MS);
    eventually("the processor has looked at the end", || {
        let text = processor.log_text();
        text.contains("silent, but not idle").then_some(()).ok_or(text)
    });
    job.assert_exact();
    rdkafka::producer::Producer::abort_transaction(&open, std::time::Duration::from_secs(30)).expect("aborts");
    job.assert_exactly(&job.expected(true));
}

const TICKS: More = More {
    source: "",
    event: "",
    window: ", trigger: {early: {every: 1h}}",
    spec: "",
    state: "",
};

#[test]
fn a_crash_around_a_tick_publishes_its_panes_exactly_once() {
    crash_around_ticks(&job("tickcrash", 1, TICKS));
}

/// Windows tick where they are: it is a window task that decides, and replays what it decided.
#[test]
fn a_crash_around_a_tick_of_the_second_stage_publishes_its_panes_exactly_once() {
    crash_around_ticks(&job("stagetick", 2, TICKS).in_two_stages(1));
}

fn crash_around_ticks(job: &Job) {
    let mut early = BTreeSet::new();
    for (round, failpoint) in AROUND_A_COMMIT.into_iter().enumerate() {
        let mut processor = crash_at_the_hour(job, round, 380, failpoint);
        let closed = job.expected(false);
        early.extend(job.expected(true).into_iter().filter(|line| !closed.contains(line)));
        let panes = eventually("the early panes", || {
            let panes = job.published_when(|timing| timing == "Early");
            let enough = panes.len() >= early.len();
            if enough { Ok(panes) } else { Err(format!("{panes:?}")) }
        });
        let distinct: BTreeSet<String> = panes.iter().cloned().collect();
        assert_eq!((&distinct, panes.len()), (&early, early.len()), "each once");
        processor.kill();
        job.lose("data");
        let mut processor = job.start("data");
        processor.await_ready();
        job.assert_exact();
        processor.assert_replayed_exactly();
        processor.kill();
    }
}

#[test]
fn a_time_from_the_future_is_a_dead_letter_also_when_it_has_become_the_past() {
    let job = job(
        "skew",
        1,
        More {
            event: "\n    maxFutureSkew: 1h",
            ..More::default()
        },
    );
    job.produce(1_000);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    let ahead_ms = i64::try_from(now.as_millis()).expect("a time") + 2 * HOUR_MS;
    job.produce_raw(&format!(r#"{{"ts":{ahead_ms},"k":"k0","v":1}}"#));
    job.produce(1_000);
    let mut processor = job.start("data");
    job.assert_exact();
    assert_eq!(dead_reasons(&job), ["TimestampInFuture"]);
    processor.kill();
    job.lose("data");
    job.move_clock(10 * HOUR_MS);
    let processor = job.start("data");
    job.produce(1_000);
    job.assert_exact();
    assert_eq!(dead_reasons(&job), ["TimestampInFuture"]);
    processor.assert_replayed_exactly();
}

#[test]
fn decisions_that_no_checkpoint_needs_leave_the_control_topic() {
    let mut more = IDLE;
    more.event = "\n    idle: {after: 1h}\n    maxFutureSkew: 1h";
    let job = job("tombstones", 1, more);
    job.produce(1_000);
    for _ in 0..3 {
        job.produce_raw(r#"{"ts":95617584000000,"k":"k0","v":1}"#);
    }
    let mut processor = job.start("data");
    job.assert_exact();
    eventually("three decisions", || match decisions(&job) {
        (3, 0) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    processor.operate("/v1/checkpoint?id=one");
    // Tombstones go with the next epoch.
    job.produce_raw(r#"{"ts":95617584000000,"k":"k0","v":1}"#);
    eventually("the floor rises to the checkpoint", || match decisions(&job) {
        (1, 3) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    job.produce(1_000);
    job.assert_exact();
    processor.kill();
    job.lose("data");
    let processor = job.start("data");
    job.produce(1_000);
    job.assert_exact();
    assert!(processor.status().expect("answers")["tasks"][0]["restoredFrom"].is_string());
    assert_eq!(dead_reasons(&job).len(), 4);
}

/// Reasons of the dead letters.
fn dead_reasons(job: &Job) -> Vec<String> {
    let mut reasons = Vec::new();
    job.read(&format!("{}-dead", job.name), &mut |message| {
        let headers = message.headers().expect("headers");
        let reason = headers.iter().find(|header| header.key == "streamagg-reason");
        let text = reason.and_then(|header| header.value).expect("a reason");
        reasons.push(String::from_utf8_lossy(text).into_owned());
    });
    reasons
}

/// Decisions that a reader of the control topic finds, and the committed floor.
pub(super) fn decisions(job: &Job) -> (usize, u64) {
    let (mut found, mut floor) = (BTreeSet::new(), 0);
    job.read(&format!("{}-control", job.name), &mut |message| {
        let key: Value = serde_json::from_slice(message.key().expect("a key")).expect("JSON");
        let value: Option<Value> = message
            .payload()
            .map(|bytes| serde_json::from_slice(bytes).expect("JSON"));
        if let Some(decision) = key.get("decision") {
            let number = decision["controlSeq"].as_u64().expect("a number");
            match value {
                Some(_) => found.insert(number),
                None => found.remove(&number),
            };
        } else if let Some(position) = value.filter(|_| key.get("position").is_some()) {
            floor = position["decisionFloor"].as_u64().expect("a number");
        }
    });
    (found.len(), floor)
}
