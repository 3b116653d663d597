//! At-least-once delivery through kills, lost volumes and old ones: nothing is lost, nothing is wrong, some of it comes
//! again. Must not test exactly-once delivery.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::rig::{Job, More, copy_tree, eventually};

fn job(test: &str, partitions: u32) -> Job {
    let mut job = Job::new(test, partitions);
    job.more = More {
        spec: "\n  delivery: AtLeastOnce",
        ..More::default()
    };
    job
}

/// Waits until every result is there; none may be other than expected.
fn assert_nothing_lost(job: &Job) {
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
    let processor = job.start("data");
    processor.await_ready();
    job.produce(1_000);
    assert_nothing_lost(&job);
}
