//! At-least-once delivery through kills, lost volumes and old ones: nothing is lost, nothing is wrong, some of it comes
//! again. Must not test exactly-once delivery.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::rig::{Job, More, copy_tree, eventually};
use super::stages;

fn job(test: &str, partitions: u32) -> Job {
    at_least_once(Job::new(test, partitions))
}

pub(super) fn at_least_once(mut job: Job) -> Job {
    job.more = More {
        spec: "\n  delivery: AtLeastOnce",
        ..More::default()
    };
    job
}

/// Waits until every result is there; none may be other than expected.
pub(super) fn assert_nothing_lost(job: &Job) {
    let expected = job.expected(false);
    assert!(!expected.is_empty(), "a test without results shows nothing");
    eventually("all results", || {
        let published: BTreeSet<String> = job.published().into_iter().collect();
        let wrong: Vec<&String> = published.difference(&expected).collect();
        assert!(wrong.is_empty(), "wrong: {wrong:?}");
        let lost = expected.difference(&published).count();
        if lost == 0 {
            Ok(())
        } else {
            Err(format!("{lost} are missing"))
        }
    });
}

#[test]
fn kills_at_random_times_lose_nothing_also_with_the_volume() {
    let job = job("leastkill", 2);
    let mut seed = 54_321_u64;
    for round in 0..6 {
        let mut processor = job.start("data");
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let end = Instant::now() + Duration::from_millis(300 + (seed >> 33) % 2_500);
        while Instant::now() < end {
            job.produce(400);
        }
        processor.kill();
        if round % 3 == 2 {
            job.lose("data");
        }
    }
    let processor = job.start("data");
    assert_nothing_lost(&job);
    assert!(
        !processor.metrics().contains("streamagg_replays_total{"),
        "nothing is suppressed"
    );
    processor.terminate();
    job.lose("data");
    let processor = job.start("data");
    job.produce(1_000);
    assert_nothing_lost(&job);
    assert!(processor.status().expect("answers")["tasks"][0]["restoredFrom"].is_string());
}

/// Between the stages everything counts once, so no result is wrong.
#[test]
fn two_stages_lose_nothing_and_count_nothing_twice_through_kills_and_lost_volumes() {
    let job = at_least_once(stages::job("leaststages"));
    for round in 0..6 {
        job.produce(600);
        let mut processor = match round % 3 {
            // The first commits are of combine tasks, which have no local state.
            0 => job.start_with("data", &["--assign-all"], Some("before-commit:6"), ""),
            1 => job.start_with("data", &["--assign-all"], Some("after-commit-before-state:6"), ""),
            _ => job.start("data"),
        };
        if round % 3 == 2 {
            assert_nothing_lost(&job);
            processor.kill();
            job.lose("data");
        } else {
            job.produce_until_crash(&mut processor);
        }
    }
    let processor = job.start("data");
    job.produce(600);
    assert_nothing_lost(&job);
    assert!(
        !processor.metrics().contains("streamagg_replays_total{"),
        "nothing is suppressed"
    );
    let published = job.published();
    let distinct: BTreeSet<&String> = published.iter().collect();
    assert!(published.len() > distinct.len(), "what had no local state came again");
}

#[test]
fn a_crash_before_the_position_or_before_local_state_puts_results_out_again() {
    let job = job("leastcrash", 1);
    for failpoint in ["before-commit:2", "after-commit-before-state:2"] {
        job.crash_while_producing(failpoint);
        let mut processor = job.start("data");
        job.produce(400);
        assert_nothing_lost(&job);
        processor.kill();
    }
    let published = job.published();
    let distinct: BTreeSet<&String> = published.iter().collect();
    assert!(published.len() > distinct.len(), "what had no local state came again");
}

#[test]
fn local_state_is_the_truth_whether_the_position_is_behind_it_ahead_of_it_or_gone() {
    let job = job("leasttruth", 1);
    job.produce(2_000);
    let mut processor = job.start("data");
    assert_nothing_lost(&job);
    processor.kill();
    copy_tree(&job.directory("data"), &job.directory("old"));
    let mut processor = job.start("data");
    job.produce(2_000);
    assert_nothing_lost(&job);
    processor.kill();
    let mut processor = job.start("old");
    job.produce(1_000);
    assert_nothing_lost(&job);
    processor.kill();
    job.delete_topic(&format!("{}-control", job.name));
    let before = job.published().len();
    let processor = job.start("data");
    processor.await_ready();
    job.produce(1_000);
    assert_nothing_lost(&job);
    // The state of before the old one was put in its place: it knows the first 4,000 of 5,000 events.
    let again = job.published().len() - before;
    assert!(
        again < job.expected(false).len() / 2,
        "it does not begin from nothing: {again}"
    );
}
