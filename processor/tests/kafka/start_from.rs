//! Where a job begins in a topic that was there before it: resolved once, at its birth. Must not test what is read from
//! there on.

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::rig::{Event, Job, PATIENCE, client};

/// Kafka's timestamp of the first record that counts, in `startFrom` and in ms.
const FROM: (&str, i64) = ("timestamp: \"2024-05-06T07:08:09.010Z\"", 1_714_979_289_010);
/// Events of one batch.
const COUNT: i64 = 500;

/// Produces a batch whose records carry this timestamp, and whose events follow those of the batch before. `counts`:
/// results are expected of them.
fn produce_at(job: &Job, batch: i64, timestamp_ms: i64, counts: bool) {
    let producer: BaseProducer = client(&job.reach.tests).create().expect("a producer");
    let events = (0..COUNT).map(|index| (5_000_000 + (batch * COUNT + index) * 10, (index % 7) as u32, index % 11));
    let events: Vec<Event> = events.collect();
    for (time, key, value) in &events {
        let value = format!(r#"{{"ts":{time},"k":"k{key}","v":{value}}}"#);
        let record = BaseRecord::<str, str>::to(&job.name).partition(0).payload(&value);
        assert!(producer.send(record.timestamp(timestamp_ms)).is_ok());
    }
    producer.flush(PATIENCE).expect("the broker takes them");
    if counts {
        job.expect(&events);
    }
}

fn job(test: &str, start_from: &'static str) -> Job {
    let mut job = Job::new(test, 1);
    job.start_from = start_from;
    job
}

/// It was born, and is killed before there was anything to read; what comes now comes behind where it began, and
/// counts, also where everything is replayed from birth.
fn assert_begins_once(job: &Job, (batch, timestamp_ms): (i64, i64)) {
    for (round, loses) in [(0, false), (1, true)] {
        job.start("data").await_ready();
        produce_at(job, batch + round, timestamp_ms, true);
        if loses {
            job.lose("data");
        }
        let processor = job.start("data");
        job.assert_exact();
        if loses {
            processor.assert_replayed_exactly();
        }
    }
}

#[test]
fn a_job_begins_at_the_first_record_that_is_not_before_the_time() {
    let job = job("fromtime", FROM.0);
    produce_at(&job, 0, FROM.1 - 1, false);
    produce_at(&job, 1, FROM.1, true);
    // Behind it everything counts, whatever it says of its time.
    produce_at(&job, 2, FROM.1 - 1, true);
    produce_at(&job, 3, FROM.1 + 1, true);
    let _processor = job.start("data");
    job.assert_exact();
}

#[test]
fn where_no_record_is_as_late_as_the_time_a_job_begins_at_the_end_and_does_not_look_again() {
    let job = job("fromfuture", FROM.0);
    produce_at(&job, 0, FROM.1 - 1, false);
    assert_begins_once(&job, (1, FROM.1 - 1));
}

#[test]
fn the_end_of_the_topic_is_where_it_was_when_the_job_was_born() {
    let job = job("fromlatest", "latest: {}");
    produce_at(&job, 0, FROM.1, false);
    assert_begins_once(&job, (1, FROM.1));
}

#[test]
fn the_oldest_record_is_the_first_that_is_left() {
    let job = job("fromearliest", "earliest: {}");
    produce_at(&job, 0, FROM.1, false);
    job.delete_records_before(0, COUNT);
    produce_at(&job, 1, FROM.1, true);
    let processor = job.start("data");
    job.assert_exact();
    drop(processor);
    job.lose("data");
    let processor = job.start("data");
    produce_at(&job, 2, FROM.1, true);
    job.assert_exact();
    processor.assert_replayed_exactly();
}
