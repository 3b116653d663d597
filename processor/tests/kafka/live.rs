//! The input changes under a task that runs: retention overtakes it, its topic goes and comes back as another one, its
//! records are bad. Must not test what a start finds of the input (`input`).

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::child::Processor;
use super::rig::{Job, PATIENCE, eventually};

/// Of 3,000 records, those before this offset are deleted.
const DELETED: usize = 2_400;

/// A task that reads 150 records a second has read the first of 3,000 when most are deleted.
fn overtaken(test: &str, on_truncated: &str) -> (Job, Processor) {
    let mut job = Job::new(test, 1);
    // No more is fetched ahead than a batch: what the client has, no deletion takes away.
    let source = format!(
        r#", onTruncated: {on_truncated}, maxRecordsPerSecond: 150,
      properties: {{queued.min.messages: "1", fetch.message.max.bytes: "1024"}}"#
    );
    job.more.source = source.leak();
    for _ in 0..10 {
        job.produce(300);
    }
    let processor = job.start("data");
    eventually("the first records are read", || {
        let status = processor.status()?;
        let is_begun = status["tasks"][0]["inputOffset"].as_i64() > Some(0);
        is_begun.then_some(()).ok_or_else(|| status.to_string())
    });
    job.delete_records_before(0, i64::try_from(DELETED).expect("small"));
    (job, processor)
}

#[test]
fn retention_that_overtakes_a_slow_task_stops_it_and_the_offsets_are_named() {
    let (job, processor) = overtaken("overtaken", "Stop");
    let message = processor.await_problem("InputTruncated");
    let status = processor.status().expect("answers");
    let read = &status["tasks"][0]["inputOffset"];
    for part in [format!("starts at offset {DELETED}"), format!("ends at {read}")] {
        assert!(message.contains(&part), "{part}: {message}");
    }
    let (found, whole) = (job.published(), job.expected(true));
    let wrong: Vec<&String> = found.iter().filter(|line| !whole.contains(*line)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Offsets that task 0 has passed over, once it says so.
fn await_skipped(processor: &Processor) -> usize {
    const SERIES: &str = r#"streamagg_skipped_offsets_total{task="0"} "#;
    eventually("what was deleted is passed over", || {
        let metrics = processor.metrics();
        let count = metrics.lines().find_map(|line| line.strip_prefix(SERIES));
        count.and_then(|count| count.parse().ok()).ok_or(metrics)
    })
}

#[test]
fn a_slow_task_that_may_skip_goes_on_behind_what_retention_took_and_counts_it() {
    let (job, processor) = overtaken("passedover", "Skip");
    let skipped = await_skipped(&processor);
    assert!((1..DELETED).contains(&skipped), "{skipped}");
    job.forget(DELETED - skipped..DELETED);
    job.assert_exact();
    assert_eq!(await_skipped(&processor), skipped, "once");
}

#[test]
fn a_source_topic_deleted_under_a_task_is_missed_and_another_by_its_name_is_refused() {
    let mut job = Job::new("vanished", 1);
    job.produce(1_000);
    let mut processor = job.start("data");
    job.assert_exact();
    let before = job.published().len();
    job.delete_topic(&job.name);
    // The client believes it half a minute after it saw the topic first, not sooner.
    let message = processor.await_problem("TopicMissing");
    assert!(message.contains(&job.name), "{message}");
    job.create_topic(&job.name);
    let message = processor.await_problem("InputRecreated");
    assert!(message.contains("another jobId"), "{message}");
    // Nor when it is longer than what was read of the first one.
    job.look_at_partitions_again();
    job.produce(2_000);
    processor.kill();
    let processor = job.start("data");
    processor.await_problem("InputRecreated");
    assert_eq!(job.published().len(), before, "nothing is published again");
}

fn produce_bad(job: &Job, count: usize) {
    let producer: BaseProducer = job.client().create().expect("a producer");
    for _ in 0..count {
        let record = BaseRecord::<str, str>::to(&job.name).partition(0).payload("no event");
        assert!(producer.send(record).is_ok());
    }
    producer.flush(PATIENCE).expect("the broker takes them");
}

/// Records in the topic of dead letters.
fn dead_letters(job: &Job) -> usize {
    let mut count = 0;
    job.read(&format!("{}-dead", job.name), &mut |_| count += 1);
    count
}

/// The task has stopped at the record with which there are too many bad ones, and everything before it is out.
fn await_too_many(job: &Job, processor: &Processor, bad: usize, seen: usize) {
    let message = processor.await_problem("TooManyBadRecords");
    let part = format!("{bad} of the last {seen} records");
    assert!(message.contains(&part), "{part}: {message}");
    assert_eq!(dead_letters(job), bad);
    job.assert_exact();
}

#[test]
fn too_many_bad_records_stop_a_task_and_a_restart_does_not_forgive() {
    let mut job = Job::new("toomanybad", 1);
    job.more.spec = "\n  maxBadRatio: 0.5";
    job.produce(500);
    let mut processor = job.start("data");
    job.assert_exact();
    produce_bad(&job, 1_000);
    // Judged from 1,000 records on: 500 of them are not more than half.
    await_too_many(&job, &processor, 501, 1_001);
    let counted = r#"streamagg_dead_letters_total{reason="JsonInvalid",task="0"} 501"#;
    let metrics = processor.metrics();
    assert!(metrics.lines().any(|line| line == counted), "{metrics}");
    processor.kill();
    let mut processor = job.start("data");
    await_too_many(&job, &processor, 502, 1_002);
    processor.kill();
    job.more.spec = "\n  maxBadRatio: 0.8";
    let _processor = job.start("data");
    job.produce(1_000);
    job.assert_exact();
    assert_eq!(dead_letters(&job), 1_000, "each once");
}

#[test]
fn a_client_that_is_silent_although_there_is_more_gives_way_to_another() {
    let mut job = Job::new("silent", 1);
    // As a client that has lost its brokers: the records are there, and the first fetch takes longer than is waited for.
    job.more.source = r#", properties: {fetch.min.bytes: "100000000", fetch.wait.max.ms: "25000"}"#;
    job.produce(1_000);
    let processor = job.start("data");
    job.assert_exact();
    let replaced = r#"streamagg_errors_total{class="retry",kind="ReaderSilent",task="0"}"#;
    assert_eq!(processor.counted(replaced), 1, "{}", processor.metrics());
}
