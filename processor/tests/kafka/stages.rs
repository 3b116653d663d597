//! `partitioning: any` on a real broker: events of a key in every partition meet in one result, through crashes of either
//! stage, lost volumes and moves. Must not repeat what one stage shows.

use std::path::PathBuf;

use serde_json::Value;

use super::child::Processor;
use super::rig::{Job, More, copy_tree, eventually, replace};

const SHUFFLE_PARTITIONS: u32 = 2;
/// Window tasks come first.
pub(super) const ALL_WINDOWS_ON_1: &str = r#"{"0":1,"1":1,"2":0,"3":0}"#;

pub(super) fn job(test: &str) -> Job {
    Job::new(test, 2).in_two_stages(SHUFFLE_PARTITIONS)
}

/// An assignment of both pods, by file.
pub(super) fn assign(job: &Job, generation: u64, tasks: &str) -> PathBuf {
    let path = job.directory("assignment.json");
    let text = format!(r#"{{"version":1,"generation":{generation},"tasks":{tasks}}}"#);
    replace(&path, &text);
    path
}

/// The pod of an ordinal, with a volume of its own.
pub(super) fn pod(job: &Job, ordinal: u32, failpoint: Option<&str>) -> Processor {
    changed(job, ordinal, failpoint, "")
}

/// The same under a spec with more aggregates.
pub(super) fn changed(job: &Job, ordinal: u32, failpoint: Option<&str>, extra: &str) -> Processor {
    let assignment = job.directory("assignment.json");
    let ordinal = ordinal.to_string();
    let flags = [
        "--assignment",
        assignment.to_str().expect("text"),
        "--ordinal",
        &ordinal,
    ];
    job.start_with(&format!("data-{ordinal}"), &flags, failpoint, extra)
}

pub(super) fn shuffle_topic(job: &Job) -> String {
    format!("{}-shuffle", job.name)
}

/// Where the partitions between the stages end.
pub(super) fn shuffle_ends(job: &Job) -> [i64; 2] {
    [0, 1].map(|partition| job.offsets(&shuffle_topic(job), partition).1)
}

/// Waits until the first stage has written something that nobody merges.
pub(super) fn await_more_partials(job: &Job, write: impl FnOnce()) {
    let before = shuffle_ends(job);
    write();
    eventually("partials on their way", || {
        let now = shuffle_ends(job);
        let more = now.iter().zip(&before).all(|(now, before)| now > before);
        if more {
            Ok(())
        } else {
            Err(format!("{before:?}, {now:?}"))
        }
    });
}

#[test]
fn events_of_a_key_in_every_partition_meet_in_one_result() {
    let job = job("meet");
    job.produce(2_000);
    let processor = job.start("data");
    job.assert_exact();
    let status = processor.status().expect("answers");
    assert_eq!(status["taskCount"], 4);
    let (_, why) = processor
        .ask("GET", "/v1/why?window=w&start=5009000", "")
        .expect("answers");
    let why: Value = serde_json::from_str(&why).expect("JSON");
    let rows = why["tasks"].as_array().expect("rows");
    // Tasks of the first stage have no windows.
    assert_eq!(rows.len(), 2, "{why}");
    let because = rows[0]["because"].as_str().expect("text");
    assert!(because.contains("the slowest of all"), "{because}");
    processor.terminate();
    job.produce(3_000);
    let processor = job.start("data");
    job.assert_exact();
    assert!(
        !processor.metrics().contains("streamagg_replays_total{"),
        "local state was enough, and the first stage has none"
    );
}

#[test]
fn a_crash_at_a_failpoint_of_either_stage_loses_and_repeats_nothing() {
    let job = job("stagefail");
    job.produce(400);
    let mut generation = 1;
    assign(&job, generation, ALL_WINDOWS_ON_1);
    for crashing in [0, 1] {
        for failpoint in ["before-commit:3", "after-commit-before-state:3", "after-claim"] {
            if failpoint == "after-claim" {
                generation += 1;
                assign(&job, generation, ALL_WINDOWS_ON_1);
            }
            let _steady = pod(&job, 1 - crashing, None);
            let mut crashes = pod(&job, crashing, Some(failpoint));
            job.produce_until_crash(&mut crashes);
            let _again = pod(&job, crashing, None);
            job.produce(400);
            job.assert_exact();
        }
    }
    for failpoint in ["mid-checkpoint-upload", "after-manifest"] {
        let _steady = pod(&job, 0, None);
        let mut crashes = pod(&job, 1, Some(failpoint));
        crashes.await_ready();
        job.produce(400);
        job.assert_exact();
        crashes.ask("POST", "/v1/checkpoint?id=crash", "").expect("answers");
        crashes.wait_for_crash();
    }
    let (_first, _second) = (pod(&job, 0, None), pod(&job, 1, None));
    job.produce(400);
    job.assert_exact();
}

#[test]
fn sigkill_of_either_stage_under_load_loses_and_repeats_nothing() {
    let job = job("stagekill");
    assign(&job, 1, ALL_WINDOWS_ON_1);
    let mut pods = [pod(&job, 0, None), pod(&job, 1, None)];
    for kill in 0..8_usize {
        for _ in 0..1 + kill % 3 {
            job.produce(400);
        }
        let ordinal = kill % 2;
        pods[ordinal].kill();
        if kill == 5 {
            std::fs::remove_dir_all(job.directory("data-1")).expect("removes");
        }
        job.produce(400);
        pods[ordinal] = pod(&job, u32::try_from(ordinal).expect("small"), None);
    }
    job.assert_exact();
}

#[test]
fn a_hot_key_costs_a_fraction_of_its_events_between_the_stages() {
    let job = job("hot").with_hot_key();
    job.produce(20_000);
    let _processor = job.start("data");
    job.assert_exact();
    let topic = shuffle_topic(&job);
    let records: i64 = (0..SHUFFLE_PARTITIONS)
        .map(|partition| job.offsets(&topic, partition).1)
        .sum();
    let events = i64::try_from(job.produced()).expect("few");
    assert!(
        records > 0 && records * 10 < events,
        "{records} records for {events} events"
    );
}

#[test]
fn a_lost_volume_of_the_second_stage_comes_back_from_its_checkpoint() {
    let job = job("stagelost");
    job.produce(3_000);
    let mut processor = job.start("data");
    job.assert_exact();
    let saved = processor.operate("/v1/checkpoint?id=one");
    let has_one = |task: usize| saved["tasks"][task]["checkpoint"]["id"].is_string();
    assert_eq!(
        [has_one(0), has_one(1), has_one(2), has_one(3)],
        [true; 4],
        "where the first stage stands is kept for who asks: {saved}"
    );
    job.produce(1_000);
    job.assert_exact();
    processor.kill();
    std::fs::remove_dir_all(job.directory("data")).expect("removes");
    job.produce(1_000);
    let mut processor = job.start("data");
    job.assert_exact();
    let status = processor.status().expect("answers");
    assert_eq!(
        status["tasks"][0]["restoredFrom"],
        saved["tasks"][0]["checkpoint"]["id"]
    );
    processor.kill();
    // What the checkpoints held was deleted between the stages: without them nothing can be made good, and it says so.
    for lost in ["data", "store"] {
        std::fs::remove_dir_all(job.directory(lost)).expect("removes");
    }
    let before = job.published().len();
    let processor = job.start("data");
    processor.await_problem("StateLost");
    assert_eq!(job.published().len(), before, "nothing is published again");
}

#[test]
fn what_no_checkpoint_needs_is_deleted_between_the_stages_and_without_any_all_is_kept() {
    let job = job("stagetrim");
    job.produce(2_000);
    let mut processor = job.start("data");
    job.assert_exact();
    let starts = || [0, 1].map(|partition| job.offsets(&shuffle_topic(&job), partition).0);
    processor.kill();
    // Nothing was saved yet: everything is read again.
    std::fs::remove_dir_all(job.directory("data")).expect("removes");
    job.produce(1_000);
    let mut processor = job.start("data");
    job.assert_exact();
    assert_eq!(starts(), [0, 0]);
    let saved = processor.operate("/v1/checkpoint?id=one");
    let offsets = [0, 1].map(|task: usize| saved["tasks"][task]["checkpoint"]["inputOffset"].as_i64());
    eventually("the topic is trimmed", || {
        let starts = starts();
        if starts.map(Some) == offsets {
            Ok(())
        } else {
            Err(format!("begins at {starts:?}, saved at {offsets:?}"))
        }
    });
    job.produce(1_000);
    job.assert_exact();
    // A later checkpoint does not take from the one before what that needs.
    processor.operate("/v1/checkpoint?id=two");
    job.produce(1_000);
    job.assert_exact();
    assert_eq!(starts().map(Some), offsets);
    processor.kill();
    std::fs::remove_dir_all(job.directory("data")).expect("removes");
    job.produce(1_000);
    let _processor = job.start("data");
    job.assert_exact();
}

#[test]
fn partials_deleted_before_they_were_merged_stop_the_second_stage_whatever_the_job_says_of_events() {
    let mut job = job("stagegone");
    job.more.source = ", onTruncated: Skip";
    job.produce(1_000);
    assign(&job, 1, ALL_WINDOWS_ON_1);
    let (_first, second) = (pod(&job, 0, None), pod(&job, 1, None));
    job.assert_exact();
    second.terminate();
    await_more_partials(&job, || job.produce(1_000));
    let before = job.published().len();
    let end = job.offsets(&shuffle_topic(&job), 0).1;
    job.delete_records_of(&shuffle_topic(&job), 0, end);
    let second = pod(&job, 1, None);
    let message = second.await_problem("InputTruncated");
    assert!(message.contains("between the stages"), "{message}");
    // The other shuffle partition goes on; this one's keys are missing, and nothing is wrong.
    job.produce(1_000);
    eventually("results of the other partition", || match job.published() {
        now if now.len() > before => Ok(()),
        now => Err(format!("{} as before", now.len())),
    });
    let (published, expected) = (job.published(), job.expected(false));
    let wrong: Vec<&String> = published.iter().filter(|line| !expected.contains(*line)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(published.len() < expected.len(), "what was deleted cannot be there");
}

#[test]
fn a_source_partition_without_any_event_holds_the_windows_until_it_is_idle() {
    let mut job = Job::new("stageidle", 1).in_two_stages(SHUFFLE_PARTITIONS);
    job.more = More {
        event: "\n    idle: {after: 1h}",
        ..More::default()
    };
    job.produce(2_000);
    job.add_partition();
    let mut processor = job.start_with("data", &["--assign-all"], Some("before-commit"), "");
    processor.wait_for_crash();
    let mut processor = job.start("data");
    await_consumed(&job, &processor, 2, 2_000);
    assert!(
        job.published().is_empty(),
        "nobody knows how far time has come in partition 1"
    );
    processor.kill();
    let mut processor = job.start_with("data", &["--assign-all"], Some("before-commit:2"), "");
    processor.await_ready();
    job.move_clock(2 * 3_600_000);
    processor.wait_for_crash();
    let processor = job.start("data");
    processor.await_ready();
    // A decision that was not committed never was: the clock decides anew.
    job.move_clock(2 * 3_600_000);
    job.assert_exactly(&job.expected(true));
    // What comes behind it counts, in both partitions.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now_ms = i64::try_from(now.expect("after 1970").as_millis()).expect("a time");
    job.produce_from(now_ms + 24 * 3_600_000, 2_000);
    job.assert_exact();
}

/// Waits until a task has consumed its input up to an offset and committed it.
fn await_consumed(job: &Job, processor: &Processor, task: usize, offset: i64) {
    eventually("the events are consumed", || {
        let status = processor.status()?;
        if status["tasks"][task]["inputOffset"] == offset {
            Ok(())
        } else {
            Err(format!("{}: {status}", job.name))
        }
    });
}

#[test]
fn a_window_task_moves_by_drain_and_replays_nothing() {
    let job = job("stagemove");
    job.produce(2_000);
    assign(&job, 1, ALL_WINDOWS_ON_1);
    let (first, second) = (pod(&job, 0, None), pod(&job, 1, None));
    job.assert_exact();
    let drained = second.operate("/v1/drain?id=move&tasks=1");
    let combined = first.operate("/v1/drain?id=move&tasks=3");
    assert_eq!(combined["tasks"][0]["phase"], "Complete", "{combined}");
    job.produce(2_000);
    assign(&job, 2, r#"{"0":1,"1":0,"2":0,"3":1}"#);
    job.assert_exact();
    let status = first.status().expect("answers");
    let moved = status["tasks"]
        .as_array()
        .expect("rows")
        .iter()
        .find(|row| row["task"] == 1)
        .expect("it is here");
    assert_eq!(moved["restoredFrom"], drained["tasks"][0]["checkpoint"]["id"]);
    assert!(!first.metrics().contains("streamagg_replays_total{"), "drained to K");
}

#[test]
fn an_emptied_control_topic_stops_both_stages() {
    let job = job("stagebehind");
    job.produce(2_000);
    let mut processor = job.start("data");
    job.assert_exact();
    let before = job.published().len();
    processor.kill();
    job.delete_topic(&format!("{}-control", job.name));
    // Not even local state is left to tell.
    copy_tree(&job.directory("data"), &job.directory("old"));
    for lost in ["data", "store"] {
        std::fs::remove_dir_all(job.directory(lost)).expect("removes");
    }
    let between = shuffle_ends(&job);
    let processor = job.start("data");
    job.produce(1_000);
    eventually("every task stops", || {
        let status = processor.status()?;
        let tasks = status["tasks"].as_array().cloned().unwrap_or_default();
        let stopped = |task: &Value| task["problem"]["reason"] == "CommittedPositionBehindState";
        match tasks.len() == 4 && tasks.iter().all(stopped) {
            true => Ok(()),
            false => Err(status.to_string()),
        }
    });
    assert_eq!(shuffle_ends(&job), between, "nothing goes between the stages again");
    assert_eq!(job.published().len(), before, "nothing is published again");
}

#[test]
fn a_topic_between_the_stages_that_loses_records_or_has_another_size_is_refused() {
    let short = job("stageretention");
    let topic = shuffle_topic(&short);
    short.create_topic_with(&topic, SHUFFLE_PARTITIONS, &[("retention.ms", "3600000")]);
    let processor = short.start("data");
    let message = processor.await_problem("TopicUnsuitable");
    assert!(message.contains("retention.ms: set it to -1"), "{message}");
    let other = job("stagesize");
    let topic = shuffle_topic(&other);
    other.create_topic_with(&topic, 5, &[("retention.ms", "-1"), ("retention.bytes", "-1")]);
    let processor = other.start("data");
    let message = processor.await_problem("PartitionsChanged");
    assert!(
        message.contains("shufflePartitions is 2") && message.contains("5 partitions"),
        "{message}"
    );
}

#[test]
fn a_partition_added_to_the_source_is_read_from_its_beginning() {
    let mut job = job("stagegrow");
    job.produce(2_000);
    let processor = job.start("data");
    job.assert_exact();
    processor.terminate();
    job.add_partition();
    // Behind what is purged: the windows of the new partition's first events are gone.
    job.produce(2_000);
    let processor = job.start("data");
    eventually("the new task runs", || {
        let status = processor.status()?;
        let row = status["tasks"][4].clone();
        if status["taskCount"] == 5 && row["inputOffset"] == 2_000 {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    // From its first event on: windows that are over for the others missed them.
    eventually("partials that no window takes", || match processor.metrics() {
        metrics if metrics.contains("streamagg_purged_partials_total{") => Ok(()),
        metrics => Err(metrics),
    });
}

/// What was there before the job is none of its business; what a partition had before it was seen is.
#[test]
fn a_job_that_starts_at_the_end_reads_an_added_partition_from_its_beginning() {
    let mut job = Job::new("stagelatest", 1).in_two_stages(SHUFFLE_PARTITIONS);
    job.start_from = "latest: {}";
    job.produce(500);
    job.forget(0..500);
    let processor = job.start("data");
    processor.await_ready();
    job.produce(2_000);
    job.assert_exact();
    processor.terminate();
    job.add_partition();
    // Later than anything, so that no window of these is over.
    job.produce_apart(5_100_000, 5, 0..2, 1_000);
    let _processor = job.start("data");
    job.assert_exact();
}
