//! The source topic changes under the job: truncated, re-created, missing, quiet. Must not test the store.

use super::child::Processor;
use super::rig::{Job, eventually};

#[test]
fn unread_input_that_was_deleted_stops_the_task() {
    let job = Job::new("truncated", 1);
    job.produce(2_000);
    let processor = job.start("data");
    job.assert_exact();
    processor.terminate();
    job.produce(2_000);
    job.delete_records_before(0, 3_000);
    let processor = job.start("data");
    let message = processor.await_problem("InputTruncated");
    assert!(message.contains("3000"), "{message}");
}

#[test]
fn deleted_markers_behind_the_last_record_are_not_taken_for_lost_input() {
    let job = Job::new("quiet", 1);
    job.produce(2_000);
    let mut processor = job.start("data");
    job.assert_exact();
    let epoch = |processor: &Processor| processor.status().ok()?["tasks"][0]["epoch"].as_u64();
    let before = epoch(&processor).expect("an epoch");
    // A transaction upstream that is given up: records nobody may read, and a marker.
    job.produce_aborted(10);
    eventually("the position knows that it passed them", || match epoch(&processor) {
        Some(now) if now > before => Ok(()),
        other => Err(format!("epoch {other:?}, was {before}")),
    });
    processor.kill();
    // Retention takes everything: 2,000 records, 10 aborted ones and the marker.
    job.delete_records_before(0, 2_011);
    let processor = job.start("data");
    processor.await_ready();
    job.produce(2_000);
    job.assert_exact();
}

#[test]
fn a_source_topic_created_anew_is_noticed() {
    let job = Job::new("recreated", 1);
    job.produce(2_000);
    let processor = job.start("data");
    job.assert_exact();
    processor.terminate();
    job.delete_topic(&job.name);
    job.create_topic(&job.name);
    let processor = job.start("data");
    processor.await_problem("InputRecreated");
}

#[test]
fn a_missing_source_topic_is_named_and_awaited() {
    let job = Job::without_topic("missing", 1);
    let processor = job.start("data");
    let message = processor.await_problem("TopicMissing");
    assert!(
        message.contains(&job.name) && message.contains("spec.source.kafka.topics"),
        "{message}"
    );
    job.create_topic(&job.name);
    job.produce(2_000);
    job.assert_exact();
}
