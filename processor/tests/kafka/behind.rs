//! The committed position is behind what a task has on its volume or in the store, or is not there at all: nothing is
//! published until a person has decided. Must not test what start-up decides of every other combination (tables do).

use std::collections::BTreeMap;

use serde_json::Value;

use super::damage::{commit, committed};
use super::rewind::{assert_newest, await_restored, ids, order, start};
use super::rig::{Job, eventually};

/// A job of 2,000 records that is not running, with its volume and a checkpoint.
struct Stopped {
    job: Job,
    /// The committed position when the results of the first 1,000 were there.
    older: Value,
    /// What it was at the end.
    newest: Value,
    checkpoint: BTreeMap<String, String>,
}

/// The checkpoint is made with the results of so many records.
fn stopped(test: &str, checkpoint_behind: usize) -> Stopped {
    let job = Job::new(test, 1);
    let mut processor = job.start("data");
    let mut checkpoint = BTreeMap::new();
    let mut committed_with_results = || {
        job.produce(1_000);
        job.assert_exact();
        if job.produced() == checkpoint_behind {
            checkpoint = ids(&processor.operate("/v1/checkpoint?id=before"));
        }
        committed(&job, 0)
    };
    let [older, newest] = [committed_with_results(), committed_with_results()];
    // Results are there before local state is.
    let offset = |position: &Value| position["enginePosition"]["inputOffset"].as_u64();
    eventually("local state is ahead of the older position", || {
        let status = processor.status()?;
        let is_ahead = status["tasks"][0]["inputOffset"].as_u64() > offset(&older);
        is_ahead.then_some(()).ok_or_else(|| status.to_string())
    });
    processor.kill();
    Stopped {
        job,
        older,
        newest,
        checkpoint,
    }
}

/// It stops however often it is started, and says what it found to be ahead, while there is more to read.
fn assert_stops(job: &Job, found: &str) {
    let before = job.published().len();
    job.produce(1_000);
    for _ in 0..2 {
        let processor = job.start("data");
        let message = processor.await_problem("CommittedPositionBehindState");
        assert!(message.contains(found), "{message}");
        processor.terminate();
    }
    assert_eq!(job.published().len(), before, "nothing is published");
}

/// It goes back to the checkpoint by the user's order, and goes on from there with its volume and without.
fn assert_goes_on_by_order(job: &Job, checkpoint: &BTreeMap<String, String>) {
    let mut processor = start(job, "data", &order(job, 1, checkpoint));
    await_restored(&processor, 1);
    job.produce(1_000);
    let newest = assert_newest(job);
    assert_eq!(newest.keys().copied().collect::<Vec<_>>(), [0, 1]);
    processor.kill();
    job.lose("data");
    let processor = job.start("data");
    job.produce(1_000);
    let newest = assert_newest(job);
    assert_eq!(newest.keys().copied().collect::<Vec<_>>(), [0, 1]);
    processor.assert_replayed_exactly();
}

#[test]
fn a_control_topic_that_was_emptied_stops_the_task() {
    let job = Job::new("behind", 1);
    job.produce(2_000);
    let mut processor = job.start("data");
    job.assert_exact();
    let before = job.published().len();
    processor.kill();
    job.delete_topic(&format!("{}-control", job.name));
    let processor = job.start("data");
    processor.await_problem("CommittedPositionBehindState");
    job.produce(1_000);
    assert_eq!(job.published().len(), before, "nothing is published again");
}

#[test]
fn a_volume_ahead_of_the_committed_position_stops_the_task_until_it_is_told_to_go_back() {
    let Stopped {
        job, older, checkpoint, ..
    } = stopped("volumeahead", 1_000);
    commit(&job, 0, &older);
    assert_stops(&job, "the state of this pod, at offset");
    assert_goes_on_by_order(&job, &checkpoint);
}

#[test]
fn a_checkpoint_ahead_of_the_committed_position_stops_a_task_that_has_no_volume() {
    let Stopped {
        job,
        older,
        newest,
        checkpoint,
    } = stopped("storeahead", 2_000);
    job.lose("data");
    commit(&job, 0, &older);
    assert_stops(&job, &format!("checkpoint {} at offset", checkpoint["0"]));
    // The other way out: what was lost comes back, and nothing is to be published again.
    commit(&job, 0, &newest);
    let processor = job.start("data");
    job.produce(1_000);
    job.assert_exact();
    let status = processor.status().expect("answers");
    assert_eq!(status["tasks"][0]["restoredFrom"], checkpoint["0"].as_str());
}

#[test]
fn without_position_and_volume_a_checkpoint_alone_keeps_a_task_from_being_born_again() {
    let Stopped { job, checkpoint, .. } = stopped("storealone", 1_000);
    job.lose("data");
    job.delete_topic(&format!("{}-control", job.name));
    assert_stops(&job, &format!("checkpoint {} of this job exists", checkpoint["0"]));
    assert_goes_on_by_order(&job, &checkpoint);
}
