//! A user's rewind of both stages of `partitioning: any` on a real broker. Must not repeat what one stage shows.

use std::collections::BTreeMap;

use super::at_least_once::at_least_once;
use super::child::Processor;
use super::rewind::{assert_newest, await_restored, ids, order};
use super::rig::{Job, eventually};
use super::stages::{self, ALL_WINDOWS_ON_1, assign, job, shuffle_ends, shuffle_topic};

/// A pod that is given an order.
fn pod(job: &Job, ordinal: u32, order: &str, failpoint: Option<&str>) -> Processor {
    let (assignment, number) = (job.directory("assignment.json"), ordinal.to_string());
    let path = assignment.to_str().expect("text");
    let flags = ["--assignment", path, "--ordinal", &number, "--restore", order];
    job.start_with(&format!("data-{ordinal}"), &flags, failpoint, "")
}

/// A checkpoint of the job: the window tasks first, then where the first stage stands.
fn checkpoint(job: &Job, processor: &Processor, name: &str) -> BTreeMap<String, String> {
    let mut found = ids(&processor.operate(&format!("/v1/checkpoint?id={name}-windows&tasks=0,1")));
    job.produce(300);
    found.extend(ids(
        &processor.operate(&format!("/v1/checkpoint?id={name}-first&tasks=2,3"))
    ));
    found
}

/// A job that has published more since its checkpoint, which is returned.
fn beyond_a_checkpoint(job: Job) -> (Job, Processor, BTreeMap<String, String>) {
    job.produce(2_000);
    let processor = job.start("data");
    job.assert_exact();
    let before = checkpoint(&job, &processor, "before");
    job.produce(1_000);
    job.assert_exact();
    (job, processor, before)
}

fn start(job: &Job, order: &str) -> Processor {
    job.start_with("data", &["--assign-all", "--restore", order], None, "")
}

/// Waits until this task, of all that may have one, tells a problem.
fn await_problem_of(processor: &Processor, task: usize, reason: &str) -> String {
    eventually(reason, || {
        let status = processor.status()?;
        let problem = &status["tasks"][task]["problem"];
        match problem["reason"] == reason {
            true => Ok(problem["message"].to_string()),
            false => Err(status.to_string()),
        }
    })
}

#[test]
fn both_stages_go_back_and_what_the_first_wrote_since_is_passed_over() {
    let job = job("stagerewind");
    job.produce(2_000);
    let mut processor = job.start("data");
    job.assert_exact();
    let older = checkpoint(&job, &processor, "older");
    job.produce(2_000);
    job.assert_exact();
    let newer = checkpoint(&job, &processor, "newer");
    job.produce(1_000);
    job.assert_exact();
    processor.kill();
    // Back, further back, and forward to a history that two rewinds have left.
    for (nonce, ids) in [(1, &newer), (2, &older), (3, &newer)] {
        let restore = order(&job, nonce, ids);
        processor = start(&job, &restore);
        await_restored(&processor, nonce);
        job.produce(500);
        assert_newest(&job);
        processor.kill();
        processor = start(&job, &restore);
        job.produce(500);
        let newest = assert_newest(&job);
        assert_eq!(newest.keys().next_back(), Some(&nonce), "{newest:?}");
        assert!(!processor.metrics().contains("streamagg_restores_total{"), "once");
        processor.kill();
    }
    // Every later start from the checkpoint obeys what was decided then, whatever the job file says.
    job.lose("data");
    let processor = job.start("data");
    job.produce(500);
    assert_newest(&job);
    let restored = processor.status().expect("answers")["tasks"][0]["restoredFrom"].clone();
    assert_eq!(restored, newer["0"].as_str());
    checkpoint(&job, &processor, "behind");
    job.produce(500);
    assert_newest(&job);
}

#[test]
fn a_crash_of_either_stage_on_either_side_of_its_commit_converges() {
    crash_of_either_stage_on_either_side_of_its_commit(job("stagerewindcrash"));
}

/// What the first stage wrote behind the checkpoint is in the log that a window task reads on from its own state.
#[test]
fn at_least_once_it_converges_too() {
    crash_of_either_stage_on_either_side_of_its_commit(at_least_once(job("stagerewindleast")));
}

fn crash_of_either_stage_on_either_side_of_its_commit(job: Job) {
    let (job, mut processor, ids) = beyond_a_checkpoint(job);
    processor.kill();
    let mut generation = 1;
    let mut nonce = 0;
    for crashing in [0, 1] {
        for failpoint in ["before-rewind", "after-rewind"] {
            (generation, nonce) = (generation + 1, nonce + 1);
            assign(&job, generation, ALL_WINDOWS_ON_1);
            let restore = order(&job, nonce, &ids);
            let steady = pod(&job, 1 - crashing, &restore, None);
            let mut crashes = pod(&job, crashing, &restore, Some(failpoint));
            crashes.wait_for_crash();
            if nonce % 2 == 0 && crashing == 1 {
                std::fs::remove_dir_all(job.directory("data-1")).expect("removes");
            }
            job.produce(300);
            let again = pod(&job, crashing, &restore, None);
            await_restored(&again, nonce);
            await_restored(&steady, nonce);
            job.produce(300);
            let newest = assert_newest(&job);
            assert_eq!(newest.keys().next_back(), Some(&nonce), "{newest:?}");
        }
    }
}

#[test]
fn a_window_task_that_is_not_told_waits_and_one_that_cannot_follow_refuses() {
    let (job, mut processor, before) = beyond_a_checkpoint(job("stagerewindapart"));
    let behind = checkpoint(&job, &processor, "behind");
    processor.kill();
    // A window task that cannot follow is seen before the first stage commits: without the order all is as it was.
    let mut missing = before.clone();
    missing.insert("1".to_owned(), "000000000009-00000000".to_owned());
    let processor = start(&job, &order(&job, 1, &missing));
    for task in [2, 3] {
        let message = await_problem_of(&processor, task, "RestoreFailed");
        assert!(message.contains("000000000009-00000000 of task 1"), "{message}");
    }
    drop(processor);
    let mut processor = job.start("data");
    job.produce(500);
    job.assert_exact();
    processor.kill();
    // The wrong way round: window tasks of a later checkpoint than the first stage.
    let mut mixed = before.clone();
    for task in ["0", "1"] {
        mixed.insert(task.to_owned(), behind[task].clone());
    }
    let published = job.published().len();
    let mut processor = start(&job, &order(&job, 1, &mixed));
    let message = processor.await_problem("RestoreFailed");
    assert!(message.contains("has taken"), "{message}");
    // Nor without where the first stage stood.
    processor.kill();
    let mut windows_only = before.clone();
    windows_only.retain(|task, _| task == "0" || task == "1");
    let mut processor = start(&job, &order(&job, 2, &windows_only));
    let message = processor.await_problem("RestoreFailed");
    assert!(message.contains("nothing of task"), "{message}");
    assert_eq!(job.published().len(), published, "nothing is published");
    processor.kill();
    // All of them, by one checkpoint.
    let processor = start(&job, &order(&job, 3, &before));
    await_restored(&processor, 3);
    job.produce(500);
    assert_newest(&job);
}

#[test]
fn nothing_goes_back_where_the_log_of_one_task_does_not_reach() {
    let (job, processor, before) = beyond_a_checkpoint(job("stagerewindlog"));
    processor.terminate();
    let (_, end) = job.offsets(&job.name, 1);
    job.delete_records_before(1, end);
    let processor = start(&job, &order(&job, 1, &before));
    await_problem_of(&processor, 3, "InputTruncated");
    let message = await_problem_of(&processor, 2, "RestoreFailed");
    assert!(message.contains(&format!("task 3 starts at offset {end}")), "{message}");
    // Neither has gone back, so that without the order all is as it was.
    drop(processor);
    let _processor = job.start("data");
    job.produce(500);
    job.assert_exact();
}

#[test]
fn it_leads_out_of_an_emptied_control_topic_in_both_stages() {
    let (job, mut processor, ids) = beyond_a_checkpoint(job("stagerewindlost"));
    processor.kill();
    job.delete_topic(&format!("{}-control", job.name));
    let mut processor = job.start("data");
    processor.await_problem("CommittedPositionBehindState");
    processor.kill();
    let mut processor = start(&job, &order(&job, 1, &ids));
    await_restored(&processor, 1);
    job.produce(500);
    assert_newest(&job);
    processor.kill();
    job.lose("data");
    let mut processor = job.start("data");
    job.produce(500);
    assert_newest(&job);
    // Emptied again: the order was carried out, and the first stage does not go back by it once more.
    processor.operate("/v1/checkpoint?id=followed&tasks=0,1");
    processor.kill();
    job.delete_topic(&format!("{}-control", job.name));
    let mut processor = start(&job, &order(&job, 1, &ids));
    for task in [2, 3] {
        let message = await_problem_of(&processor, task, "CommittedPositionBehindState");
        assert!(message.contains("from behind restore 1"), "{message}");
    }
    processor.kill();
    let mut processor = start(&job, &order(&job, 2, &ids));
    await_restored(&processor, 2);
    job.produce(500);
    assert_newest(&job);
    processor.kill();
    // And before any window task has put a checkpoint behind it: the first stage cannot know, the second stands still.
    job.delete_topic(&format!("{}-control", job.name));
    let mut processor = start(&job, &order(&job, 2, &ids));
    for task in [0, 1] {
        await_problem_of(&processor, task, "CommittedPositionBehindState");
    }
    processor.kill();
    let processor = start(&job, &order(&job, 3, &ids));
    await_restored(&processor, 3);
    job.produce(500);
    assert_newest(&job);
    eventually("there are records between the stages", || {
        match job.offsets(&shuffle_topic(&job), 0) {
            (_, end) if end > 0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// It says that somebody restored the job, and then there are no births any more, only where none but an order writes one.
#[test]
fn at_least_once_a_position_that_a_window_task_put_back_lets_nobody_be_born_again() {
    let (job, mut processor, ids) = beyond_a_checkpoint(at_least_once(job("stageleastlost")));
    processor.kill();
    assign(&job, 2, ALL_WINDOWS_ON_1);
    let restore = order(&job, 1, &ids);
    for mut pod in [0, 1].map(|ordinal| pod(&job, ordinal, &restore, None)) {
        await_restored(&pod, 1);
        pod.kill();
    }
    job.delete_topic(&format!("{}-control", job.name));
    job.lose("store");
    // A higher generation is claimed: with the state that is the truth there is a position again.
    assign(&job, 3, ALL_WINDOWS_ON_1);
    let windows = stages::pod(&job, 1, None);
    windows.await_ready();
    let before = shuffle_ends(&job);
    let first = stages::pod(&job, 0, None);
    first.await_problem("CommittedPositionBehindState");
    assert_eq!(shuffle_ends(&job), before, "nothing goes between the stages again");
}
