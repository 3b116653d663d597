//! What comes to the second stage of `partitioning: any` for windows that are over: late output with the reason `AfterPurge`,
//! through crashes. Must not test late events of the first stage's own partitions.

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::message::{Headers, Message};
use serde_json::Value;

use super::rig::{Job, WINDOW_MS, eventually};
use super::stages;

/// Count and sum by the start of a window and the key.
type Sums = BTreeMap<(i64, String), (i64, i64)>;

/// Everything in the topic of late events, together by window and key: all of it comes after the purge.
fn after_purge(job: &Job) -> Sums {
    let mut sums = Sums::new();
    job.read(&format!("{}-late", job.name), &mut |message| {
        let headers = message.headers().expect("headers").iter();
        let headers: BTreeMap<&str, &[u8]> = headers
            .map(|header| (header.key, header.value.unwrap_or_default()))
            .collect();
        assert_eq!(headers["streamagg-reason"], b"AfterPurge", "{headers:?}");
        assert_eq!(headers["streamagg-window"], b"w", "{headers:?}");
        let value: Value = serde_json::from_slice(message.payload().expect("a value")).expect("JSON");
        let number = |value: &Value| value.as_i64().expect("a number");
        let start = number(&value["start"]);
        assert_eq!(
            (&value["reason"], number(&value["end"])),
            (&"AfterPurge".into(), start + WINDOW_MS)
        );
        let key = value["key"]["k"].as_str().expect("text").to_owned();
        let sum = sums.entry((start, key)).or_default();
        sum.0 += number(&value["values"]["n"]);
        sum.1 += number(&value["values"]["s"]);
    });
    sums
}

/// Start of the window of a result as [`Job::expected`] gives it.
fn start_of(line: &str) -> i64 {
    let start = line.split(' ').next().and_then(|start| start.parse().ok());
    start.expect("it begins with that")
}

#[test]
fn what_an_added_partition_has_for_windows_that_are_over_comes_after_the_purge_once_and_is_in_no_result() {
    let mut job = stages::job("stagelate").with_late_topic();
    job.produce(2_000);
    let processor = job.start("data");
    job.assert_exact();
    processor.terminate();
    let over = job.expected(false);
    let starts: BTreeSet<i64> = over.iter().map(|line| start_of(line)).collect();
    job.add_partition();
    // The first of them are for windows that are over, the others end windows of all three partitions.
    job.produce(4_000);
    for failpoint in [
        "before-commit:2",
        "after-commit-before-state:3",
        "before-commit:5",
        "after-commit-before-state:6",
    ] {
        job.crash_while_producing(failpoint);
    }
    let processor = job.start("data");
    job.produce(400);
    let mut wanted = Sums::new();
    for (time, key, value) in &job.log.lock().expect("not poisoned")[&2] {
        let start = time.div_euclid(WINDOW_MS) * WINDOW_MS;
        if starts.contains(&start) {
            let sum = wanted.entry((start, format!("k{key}"))).or_default();
            *sum = (sum.0 + 1, sum.1 + value);
        }
    }
    assert!(!wanted.is_empty(), "a test without any shows nothing");
    let later = job.expected(false).into_iter();
    let later = later.filter(|line| !starts.contains(&start_of(line)));
    job.assert_exactly(&over.iter().cloned().chain(later).collect());
    assert_eq!(after_purge(&job), wanted);
    processor.terminate();
    // Nor does anything come again, from local state or from the input.
    let processor = job.start("data");
    job.produce(400);
    let results = job.published().len();
    eventually("more results", || match job.published().len() {
        now if now > results => Ok(()),
        now => Err(format!("{now} as before")),
    });
    assert_eq!(after_purge(&job), wanted);
    processor.terminate();
}
