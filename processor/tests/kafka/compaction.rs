//! The broker compacts the control topic while a job commits: what is left is enough to go on, with the volume and
//! without it. Must not test what a reader makes of the records (`clock`).

use streamagg_processor::kafka::config::control_topic;

use super::clock::{HOUR_MS, IDLE, decisions, round_ms};
use super::rig::{Job, eventually};

/// As soon and as thoroughly as a broker compacts: a segment ends after a second (its size, of which Kafka 4 takes none
/// below 1 MiB, does not end it), and nothing is kept for slow readers.
const AT_ONCE: [(&str, &str); 6] = [
    ("cleanup.policy", "compact"),
    ("segment.ms", "1000"),
    ("segment.bytes", "1048576"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("max.compaction.lag.ms", "1000"),
    ("delete.retention.ms", "1"),
];
/// Rounds of events with an hour of silence behind each, for which an idle advance is decided.
const ROUNDS: usize = 3;

/// Produces behind everything that was decided.
fn produce(job: &Job, count: u32) {
    job.produce_from(round_ms(ROUNDS), count);
}

/// Records that a reader of the control topic finds.
fn records(job: &Job) -> usize {
    let mut count = 0;
    job.read(&control_topic(&job.name), &mut |_| count += 1);
    count
}

/// Epochs are committed until the topic has fewer records than it had: only compaction takes any away. The broker looks
/// for work every 15 s.
fn commit_until_compacted(job: &Job) {
    let mut before = 0;
    eventually("the control topic is compacted", || {
        produce(job, 20);
        let found = records(job);
        let is_less = found < before;
        before = found;
        is_less.then_some(()).ok_or_else(|| format!("{found} records"))
    });
}

#[test]
fn a_job_goes_on_from_a_compacted_control_topic_with_its_volume_and_without() {
    let mut job = Job::new("compaction", 1);
    job.more = IDLE;
    job.create_topic_with(&control_topic(&job.name), 1, &AT_ONCE);
    let mut processor = job.start("data");
    for round in 0..ROUNDS {
        job.produce_from(round_ms(round), 400);
        job.assert_exact();
        job.move_clock(HOUR_MS);
        job.assert_exactly(&job.expected(true));
    }
    let made = decisions(&job);
    assert_eq!(made.0, ROUNDS);
    commit_until_compacted(&job);
    assert_eq!(decisions(&job), made, "compaction leaves the last record of each key");
    job.assert_exact();
    processor.kill();
    let mut processor = job.start("data");
    produce(&job, 1_000);
    job.assert_exact();
    processor.kill();
    job.lose("data");
    let processor = job.start("data");
    produce(&job, 1_000);
    job.assert_exact();
    processor.assert_replayed_exactly();
}
