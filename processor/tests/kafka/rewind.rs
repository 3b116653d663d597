//! A user's rewind on a real broker: results again with a higher revision, of which the newest are what they should be;
//! through crashes, lost volumes, an emptied control topic and zombies. Must not test what start-up decides (tables do).

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};

use super::at_least_once::at_least_once;
use super::child::Processor;
use super::rig::{Job, More, PATIENCE, eventually};

/// Results by window and key, and by `pane.revision`.
type Revisions = BTreeMap<String, BTreeMap<u64, Vec<String>>>;

fn revisions(job: &Job) -> Revisions {
    let mut found = Revisions::new();
    job.read(&format!("{}-out", job.name), &mut |message| {
        let value: Value = serde_json::from_slice(message.payload().expect("a value")).expect("JSON");
        let (start, key) = (&value["start"], value["key"]["k"].as_str().expect("text"));
        let line = format!("{start} {key} n={} s={}", value["values"]["n"], value["values"]["s"]);
        let revision = value["pane"]["revision"].as_u64().expect("a number");
        let of_window = found.entry(format!("{start} {key}")).or_default();
        of_window.entry(revision).or_default().push(line);
    });
    found
}

/// Waits until the newest revision of every window is what is expected; each revision must be there once. Answers how many
/// windows have each revision for their newest.
pub(super) fn assert_newest(job: &Job) -> BTreeMap<u64, usize> {
    let expected = job.expected(false);
    assert!(!expected.is_empty(), "a test without results shows nothing");
    let found = eventually("the newest results are those expected", || {
        let found = revisions(job);
        let newest = found.values().filter_map(|revisions| revisions.values().next_back());
        let newest: BTreeSet<String> = newest.flatten().cloned().collect();
        let wrong: Vec<&String> = newest.difference(&expected).take(3).collect();
        let lost: Vec<&String> = expected.difference(&newest).take(3).collect();
        if wrong.is_empty() && lost.is_empty() {
            Ok(found)
        } else {
            Err(format!("wrong {wrong:?}, lost {lost:?}"))
        }
    });
    let mut newest = BTreeMap::new();
    for (window, revisions) in &found {
        let repeated = revisions.values().find(|lines| lines.len() != 1);
        assert_eq!(repeated, None, "{window} came twice in one revision");
        let revision = revisions.keys().next_back().expect("one at least");
        *newest.entry(*revision).or_default() += 1;
    }
    newest
}

/// Ids of the checkpoints that an operation made, by task.
pub(super) fn ids(operation: &Value) -> BTreeMap<String, String> {
    let rows = operation["tasks"].as_array().expect("rows");
    let id = |row: &Value| row["checkpoint"]["id"].as_str().expect("an id").to_owned();
    rows.iter().map(|row| (row["task"].to_string(), id(row))).collect()
}

/// A file with the order to go back.
pub(super) fn order(job: &Job, nonce: u64, ids: &BTreeMap<String, String>) -> String {
    let path = job.directory(&format!("restore-{nonce}.json"));
    let order = json!({"nonce": nonce, "checkpoint": "before", "tasks": ids});
    std::fs::write(&path, order.to_string()).expect("writes");
    path.to_str().expect("text").to_owned()
}

pub(super) fn start(job: &Job, data: &str, order: &str) -> Processor {
    job.start_with(data, &["--assign-all", "--restore", order], None, "")
}

/// Waits until every task runs and has carried out the order.
pub(super) fn await_restored(processor: &Processor, nonce: u64) {
    eventually("restored", || {
        let status = processor.status()?;
        let tasks = status["tasks"].as_array().cloned().unwrap_or_default();
        let done = |task: &Value| task["restoreNonce"] == nonce && task["state"] == "Running";
        if !tasks.is_empty() && tasks.iter().all(done) {
            Ok(())
        } else {
            Err(format!("{status} {}", processor.log_text()))
        }
    });
}

fn restores(processor: &Processor) -> bool {
    processor.metrics().contains(r#"streamagg_restores_total{task="0"} 1"#)
}

/// A job with results before and behind a checkpoint; its ids.
fn beyond_a_checkpoint(job: &Job) -> BTreeMap<String, String> {
    job.produce(2_000);
    let mut processor = job.start("data");
    job.assert_exact();
    let ids = ids(&processor.operate("/v1/checkpoint?id=before"));
    job.produce(2_000);
    job.assert_exact();
    processor.kill();
    ids
}

#[test]
fn going_back_publishes_again_what_came_behind_the_checkpoint_and_only_once() {
    let job = Job::new("rewind", 1);
    let ids = beyond_a_checkpoint(&job);
    let restore = order(&job, 1, &ids);
    let mut processor = start(&job, "data", &restore);
    await_restored(&processor, 1);
    let newest = assert_newest(&job);
    assert!(newest[&0] > 0 && newest[&1] > 0 && newest.len() == 2, "{newest:?}");
    assert!(restores(&processor), "{}", processor.metrics());
    let status = processor.status().expect("answers");
    assert_eq!(status["tasks"][0]["restoredFrom"], ids["0"].as_str());
    let pin = job.task_store().join("pins").join(&ids["0"]).join("task-restore-1");
    assert!(pin.exists(), "nothing may take away what was gone back to");
    // The volume lost right behind it, and the same order again: it was carried out.
    processor.kill();
    job.lose("data");
    let mut processor = start(&job, "data", &restore);
    job.produce(1_000);
    assert_newest(&job);
    assert!(!restores(&processor), "once");
    processor.assert_replayed_exactly();
    processor.operate("/v1/checkpoint?id=behind");
    assert!(!pin.exists(), "it may go now that there is one behind it");
    processor.kill();
    let mut processor = job.start("data");
    job.produce(1_000);
    let newest = assert_newest(&job);
    assert_eq!(newest.keys().copied().collect::<Vec<_>>(), [0, 1]);
    assert_eq!(processor.status().expect("answers")["tasks"][0]["restoreNonce"], 1);
    processor.kill();
}

#[test]
fn back_further_and_forward_again() {
    let job = Job::new("forward", 1);
    job.produce(1_000);
    let mut processor = job.start("data");
    let mut checkpoints = Vec::new();
    for round in 0..3 {
        job.produce(1_000);
        job.assert_exact();
        checkpoints.push(ids(&processor.operate(&format!("/v1/checkpoint?id=round-{round}"))));
    }
    job.produce(1_000);
    job.assert_exact();
    processor.terminate();
    // To the middle one, to the oldest, to the newest: of a history that two rewinds have left.
    for (nonce, round) in [(3, 1), (4, 0), (10, 2)] {
        processor = start(&job, "data", &order(&job, nonce, &checkpoints[round]));
        await_restored(&processor, nonce);
        job.produce(500);
        assert_newest(&job);
        processor.kill();
    }
    let newest = assert_newest(&job);
    assert_eq!(newest.keys().next_back(), Some(&3), "{newest:?}");
    job.lose("data");
    let processor = job.start("data");
    job.produce(500);
    assert_newest(&job);
    assert_eq!(
        processor.status().expect("answers")["tasks"][0]["restoredFrom"],
        checkpoints[2]["0"].as_str()
    );
}

#[test]
fn a_wrong_spec_is_taken_back_with_all_that_it_published() {
    let mut job = Job::new("wrongspec", 1);
    job.produce(2_000);
    let processor = job.start("data");
    job.assert_exact();
    let ids = ids(&processor.operate("/v1/checkpoint?id=before"));
    processor.terminate();
    job.more = More {
        spec: "\n  where: \"event.v < 5\"",
        ..More::default()
    };
    let mut processor = job.start("data");
    job.produce(2_000);
    let wanted = job.expected(false).len();
    eventually("results of fewer events", || match job.published().len() {
        found if found > wanted / 2 => Ok(()),
        found => Err(format!("{found} of {wanted}")),
    });
    processor.kill();
    job.more = More::default();
    let mut processor = start(&job, "data", &order(&job, 1, &ids));
    assert_newest(&job);
    processor.kill();
    job.lose("data");
    let _processor = job.start("data");
    job.produce(1_000);
    assert_newest(&job);
}

#[test]
fn a_crash_on_either_side_of_the_commit_converges() {
    let job = Job::new("rewindcrash", 1);
    let ids = beyond_a_checkpoint(&job);
    for (nonce, failpoint, loses) in [
        (1, "before-rewind", false),
        (2, "after-rewind", false),
        (3, "before-rewind", true),
        (4, "after-rewind", true),
    ] {
        let restore = order(&job, nonce, &ids);
        let flags = ["--assign-all", "--restore", &restore];
        let mut processor = job.start_with("data", &flags, Some(failpoint), "");
        processor.wait_for_crash();
        if loses {
            job.lose("data");
        }
        let mut processor = start(&job, "data", &restore);
        await_restored(&processor, nonce);
        job.produce(400);
        assert_newest(&job);
        assert_eq!(restores(&processor), failpoint == "before-rewind", "{failpoint}");
        processor.kill();
    }
    assert_eq!(assert_newest(&job).keys().next_back(), Some(&4));
}

#[test]
fn an_order_that_is_taken_back_before_its_commit_leaves_everything_as_it_was() {
    let job = Job::new("rewindnot", 1);
    let ids = beyond_a_checkpoint(&job);
    let restore = order(&job, 1, &ids);
    let flags = ["--assign-all", "--restore", &restore];
    let mut processor = job.start_with("data", &flags, Some("before-rewind"), "");
    processor.wait_for_crash();
    let processor = job.start("data");
    job.produce(1_000);
    job.assert_exact();
    assert!(!processor.metrics().contains("streamagg_replays_total{"));
}

#[test]
fn what_cannot_be_gone_back_to_says_so_and_changes_nothing() {
    let job = Job::new("rewindfails", 1);
    let found = beyond_a_checkpoint(&job);
    let before = job.published().len();
    let unknown = BTreeMap::from([("0".to_owned(), "000000000009-00000000".to_owned())]);
    let mut processor = start(&job, "data", &order(&job, 1, &unknown));
    let message = processor.await_problem("RestoreFailed");
    assert!(
        message.contains("000000000009-00000000") && message.contains("before"),
        "{message}"
    );
    processor.kill();
    let mut processor = start(&job, "data", &order(&job, 2, &BTreeMap::new()));
    let message = processor.await_problem("RestoreFailed");
    assert!(message.contains("nothing of task 0"), "{message}");
    processor.kill();
    // Damage that keeps every size.
    let files = job.task_store().join("files").join(&found["0"]);
    let aside = job.directory("aside");
    super::rig::copy_tree(&files, &aside);
    for file in std::fs::read_dir(&files).expect("files") {
        let path = file.expect("a file").path();
        let size = std::fs::metadata(&path).expect("a size").len();
        std::fs::write(path, vec![0; usize::try_from(size).expect("small")]).expect("writes");
    }
    let mut processor = start(&job, "data", &order(&job, 3, &found));
    let message = processor.await_problem("RestoreFailed");
    assert!(message.contains("damaged"), "{message}");
    processor.kill();
    std::fs::remove_dir_all(&files).expect("removes");
    std::fs::rename(&aside, &files).expect("moves");
    job.delete_records_before(0, 3_000);
    let mut processor = start(&job, "data", &order(&job, 4, &found));
    let message = processor.await_problem("InputTruncated");
    assert!(message.contains("3000"), "{message}");
    assert_eq!(job.published().len(), before, "nothing is published");
    processor.kill();
    let _processor = job.start("data");
    job.produce(1_000);
    job.assert_exact();
}

#[test]
fn it_leads_out_of_a_control_topic_that_was_emptied_or_damaged() {
    let job = Job::new("rewindlost", 1);
    let ids = beyond_a_checkpoint(&job);
    let control = format!("{}-control", job.name);
    job.delete_topic(&control);
    let mut processor = job.start("data");
    processor.await_problem("CommittedPositionBehindState");
    processor.kill();
    let mut processor = start(&job, "data", &order(&job, 1, &ids));
    await_restored(&processor, 1);
    job.produce(1_000);
    assert_eq!(assert_newest(&job).keys().next_back(), Some(&1));
    processor.kill();
    let producer: BaseProducer = job.client().create().expect("a producer");
    let garbage = BaseRecord::to(&control).key(r#"{"position":{"task":0}}"#).payload("{");
    assert!(producer.send(garbage.partition(0)).is_ok());
    producer.flush(PATIENCE).expect("the broker takes it");
    let mut processor = job.start("data");
    processor.await_problem("CommittedPositionBehindState");
    processor.kill();
    // The first order again is none: local state says that it was carried out.
    let mut processor = start(&job, "data", &order(&job, 1, &ids));
    processor.await_problem("CommittedPositionBehindState");
    processor.kill();
    let _processor = start(&job, "data", &order(&job, 2, &ids));
    job.produce(1_000);
    assert_eq!(assert_newest(&job).keys().next_back(), Some(&2));
}

#[test]
fn a_zombie_from_before_publishes_nothing_of_the_history_that_was_left() {
    let job = Job::new("rewindzombie", 1);
    job.produce(2_000);
    let mut zombie = job.start("data");
    job.assert_exact();
    let ids = ids(&zombie.operate("/v1/checkpoint?id=before"));
    job.produce(2_000);
    job.assert_exact();
    zombie.signal("-STOP");
    let processor = start(&job, "other", &order(&job, 1, &ids));
    await_restored(&processor, 1);
    assert_newest(&job);
    job.produce(1_000);
    zombie.signal("-CONT");
    assert_newest(&job);
    // It comes back as a twin, in the history that holds.
    eventually("the zombie finds itself fenced", || {
        if zombie.log_text().contains("Fenced") {
            Ok(())
        } else {
            Err(zombie.log_text())
        }
    });
    job.produce(1_000);
    assert_eq!(assert_newest(&job).keys().copied().collect::<Vec<_>>(), [0, 1]);
    zombie.kill();
}

#[test]
fn at_least_once_the_state_that_is_the_truth_is_taken_back() {
    let job = at_least_once(Job::new("rewindleast", 1));
    let ids = beyond_a_checkpoint(&job);
    let restore = order(&job, 1, &ids);
    let mut processor = job.start_with(
        "data",
        &["--assign-all", "--restore", &restore],
        Some("after-rewind"),
        "",
    );
    processor.wait_for_crash();
    let mut processor = start(&job, "data", &restore);
    await_restored(&processor, 1);
    assert_eq!(assert_newest(&job).keys().next_back(), Some(&1));
    processor.kill();
    let processor = start(&job, "data", &restore);
    job.produce(1_000);
    eventually("new results", || {
        let newest: BTreeSet<String> = job.published().into_iter().collect();
        if newest == job.expected(false) {
            Ok(())
        } else {
            Err(format!("{} results", newest.len()))
        }
    });
    assert!(!restores(&processor), "once");
}

#[test]
fn an_order_that_is_none_is_refused_before_anything_starts() {
    let job = Job::without_topic("rewindbad", 1);
    for (text, part) in [
        ("{", "--restore"),
        (
            r#"{"nonce": 0, "checkpoint": "a", "tasks": {}}"#,
            "nonce: it must be at least 1",
        ),
        (r#"{"nonce": 1, "checkpoint": "a", "tasks": {"0": "../x"}}"#, "tasks.0"),
    ] {
        let path = job.directory("bad.json");
        std::fs::write(&path, text).expect("writes");
        let mut processor = start(&job, "data", path.to_str().expect("text"));
        let status = eventually("it ends", || {
            let ended = processor.child.try_wait().expect("a child");
            ended.ok_or_else(|| processor.log_text())
        });
        assert_eq!(status.code(), Some(2), "{}", processor.log_text());
        assert!(processor.log_text().contains(part), "{}", processor.log_text());
    }
}

#[test]
fn another_object_goes_on_with_the_history_of_a_former_one() {
    let job = Job::new("adopted", 1);
    let ids = beyond_a_checkpoint(&job);
    let as_another = |data: &str, order: &[&str]| {
        let flags = [&["--assign-all", "--uid", "another"][..], order].concat();
        job.start_with(data, &flags, None, "")
    };
    let mut processor = as_another("data", &[]);
    processor.await_problem("IdentityInUse");
    processor.kill();
    let restore = order(&job, 1, &ids);
    let mut processor = as_another("data", &["--restore", &restore]);
    await_restored(&processor, 1);
    job.produce(1_000);
    assert_eq!(assert_newest(&job).keys().next_back(), Some(&1));
    processor.kill();
    job.lose("data");
    let mut processor = as_another("data", &[]);
    job.produce(1_000);
    assert_newest(&job);
    processor.assert_replayed_exactly();
    processor.operate("/v1/checkpoint?id=own");
    processor.kill();
    let former = job.start("other");
    former.await_problem("IdentityInUse");
}
