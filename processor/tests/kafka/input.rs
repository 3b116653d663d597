//! The source topic changes under the job: truncated, re-created, missing, quiet. Must not test the store.

use std::time::Duration;

use rdkafka::message::Message;
use rdkafka::producer::Producer;
use streamagg_processor::kafka::consumer::PartitionReader;
use streamagg_processor::kafka::settings::Settings;

use super::child::Processor;
use super::rig::{Job, More, PATIENCE, copy_tree, eventually};

/// Start-up seeks twice without reading between, when the last record is checked and there is nothing to replay:
/// librdkafka aborted the process, now and then, over the second assignment of a partition; always over thousands.
#[test]
fn a_reader_sought_twice_reads_from_the_last_place() {
    let job = Job::new("sought", 1);
    job.produce(100);
    let mut settings = Settings::default();
    for (name, value) in [
        ("bootstrap.servers", job.reach.tests.as_str()),
        ("group.id", &job.name),
        ("auto.offset.reset", "error"),
    ] {
        settings.set(name, value);
    }
    let reader = PartitionReader::open(&settings, (job.name.clone(), 0)).expect("opens");
    let first_read = || {
        eventually("a record", || {
            let mut batch = Vec::new();
            let read = reader.poll(1, Duration::from_secs(1), &mut batch);
            batch.first().map(Message::offset).ok_or(format!("{read:?}"))
        })
    };
    for round in 0..5 {
        reader.seek(round);
        assert_eq!(first_read(), round);
        for passing in (0..90).cycle().take(3_000) {
            reader.seek(passing);
        }
        reader.seek(99 - round);
        assert_eq!(first_read(), 99 - round);
    }
}

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

/// A job that passes over what was deleted; it has consumed its 2,000 records and ended.
fn skipping(test: &str) -> Job {
    let mut job = Job::new(test, 1);
    job.more = More {
        source: ", onTruncated: Skip",
        ..More::default()
    };
    job.produce(2_000);
    let processor = job.start("data");
    job.assert_exact();
    processor.terminate();
    job
}

/// Of 2,000 records more, the first half is deleted before anybody reads it.
fn delete_unread(job: &Job) {
    job.produce(2_000);
    job.delete_records_before(0, 3_000);
    job.forget(2_000..3_000);
}

#[test]
fn deleted_input_is_skipped_once_and_for_all() {
    let job = skipping("skipped");
    copy_tree(&job.directory("data"), &job.directory("old"));
    delete_unread(&job);
    let flags = ["--assign-all"];
    // The epoch that notes it, before and behind its commit; then one that has read on.
    for failpoint in [
        "before-commit",
        "after-commit-before-state",
        "after-commit-before-state",
    ] {
        job.start_with("data", &flags, Some(failpoint), "").wait_for_crash();
    }
    let processor = job.start("data");
    job.assert_exact();
    let log = processor.log_text();
    assert!(!log.contains("InputTruncated"), "it was noted before: {log}");
    // The state from before lacks what was between.
    drop(processor);
    job.lose("store");
    let processor = job.start("old");
    processor.await_problem("StateLost");
}

#[test]
fn behind_a_gap_a_checkpoint_is_made_at_once() {
    let job = skipping("gap");
    delete_unread(&job);
    let mut processor = job.start("data");
    job.assert_exact();
    let text = processor.metrics();
    assert!(
        text.contains(r#"streamagg_skipped_offsets_total{task="0"} 1000"#),
        "{text}"
    );
    eventually("a checkpoint behind the gap", || {
        let log = processor.log_text();
        log.contains("checkpoint complete").then_some(()).ok_or(log)
    });
    processor.kill();
    job.lose("data");
    let processor = job.start("data");
    job.produce_from(9_000_000, 2_000);
    job.assert_exact();
    assert!(processor.status().expect("answers")["tasks"][0]["restoredFrom"].is_string());
}

#[test]
fn aborted_events_count_nowhere_and_deleted_with_their_marker_they_are_not_taken_for_lost_input() {
    let job = Job::new("quiet", 1);
    job.produce(2_000);
    let mut processor = job.start("data");
    job.assert_exact();
    let epoch = |processor: &Processor| processor.status().ok()?["tasks"][0]["epoch"].as_u64();
    let before = epoch(&processor).expect("an epoch");
    // A transaction upstream that is given up: events nobody may read, one for the open window and one that would
    // end it, and a marker.
    let given_up = [
        r#"{"ts":5009900,"k":"k0","v":1000}"#,
        r#"{"ts":5020000,"k":"k0","v":1000}"#,
    ];
    let open = job.open_transaction(&given_up);
    open.abort_transaction(PATIENCE).expect("aborts");
    eventually("the position knows that it passed them", || match epoch(&processor) {
        Some(now) if now > before => Ok(()),
        other => Err(format!("epoch {other:?}, was {before}")),
    });
    job.assert_exact();
    processor.kill();
    // Retention takes everything: 2,000 records, 2 aborted ones and the marker.
    job.delete_records_before(0, 2_003);
    let processor = job.start("data");
    processor.await_ready();
    job.produce(2_000);
    job.assert_exact();
    let dead_letters = job.offsets(&format!("{}-dead", job.name), 0);
    assert_eq!(dead_letters, (0, 0), "they are not even bad events");
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
