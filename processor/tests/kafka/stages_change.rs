//! Changes of the spec of `partitioning: any` on a real broker, with partials of the old one between the stages. Must not
//! repeat what changes no spec (`stages`).

use super::child::Processor;
use super::rig::Job;
use super::stages::{ALL_WINDOWS_ON_1, assign, await_more_partials, changed, job, pod};

/// What a changed spec has more, and another.
const MAXIMUM: &str = ", {name: m, max: {field: /v}}";
const MINIMUM: &str = ", {name: l, min: {field: /v}}";

/// A job whose pods have read and published so many events of each partition: first stage, second stage.
fn running(test: &str, events: u32) -> (Job, Processor, Processor) {
    let job = job(test);
    job.produce(events);
    assign(&job, 1, ALL_WINDOWS_ON_1);
    let (first, second) = (pod(&job, 0, None), pod(&job, 1, None));
    job.assert_exact();
    (job, first, second)
}

/// Both pods go on under a changed spec.
fn assert_goes_on_changed(job: &Job) {
    assign(job, 2, ALL_WINDOWS_ON_1);
    let _pods = [0, 1].map(|ordinal| changed(job, ordinal, None, MAXIMUM));
    job.produce(1_000);
    job.assert_exact();
}

#[test]
fn a_changed_spec_reads_what_the_first_stage_wrote_under_the_old_one() {
    let (job, first, second) = running("stagespec", 2_000);
    second.terminate();
    // Nobody merges this under the old spec.
    await_more_partials(&job, || job.produce(1_000));
    first.terminate();
    assert_goes_on_changed(&job);
}

#[test]
fn a_window_task_born_after_changes_of_the_spec_reads_what_was_written_before_them() {
    let job = job("stageborn");
    assign(&job, 1, ALL_WINDOWS_ON_1);
    // The pod of the window tasks was never started: nobody has had these specs but the first stage.
    for extra in ["", MAXIMUM] {
        let first = changed(&job, 0, None, extra);
        first.await_ready();
        await_more_partials(&job, || job.produce(2_000));
        first.terminate();
    }
    let _first = changed(&job, 0, None, MINIMUM);
    let mut second = changed(&job, 1, Some("after-commit-before-state"), MINIMUM);
    job.produce(1_000);
    second.wait_for_crash();
    let _second = changed(&job, 1, None, MINIMUM);
    job.produce(1_000);
    job.assert_exact();
}

#[test]
fn a_window_task_that_lost_everything_is_rebuilt_under_another_spec() {
    let (job, first, mut second) = running("stageanew", 2_000);
    second.kill();
    job.lose("data-1");
    first.terminate();
    assert_goes_on_changed(&job);
}

#[test]
fn a_window_task_waits_for_the_newer_spec_that_the_first_stage_has() {
    let (job, first, mut second) = running("stageahead", 2_000);
    first.terminate();
    let _first = changed(&job, 0, None, MAXIMUM);
    job.produce(1_000);
    let message = second.await_problem("IncompatibleState");
    assert!(message.contains("restart this pod with the newer spec"), "{message}");
    second.kill();
    let _second = changed(&job, 1, None, MAXIMUM);
    job.produce(1_000);
    job.assert_exact();
}

#[test]
fn a_window_task_that_is_rebuilt_under_another_spec_forks_and_publishes_nothing_again() {
    let (job, first, second) = running("stagefork", 1_000);
    second.terminate();
    // A volume that is an epoch behind what was committed.
    let mut second = pod(&job, 1, Some("after-commit-before-state:3"));
    job.produce_until_crash(&mut second);
    first.terminate();
    assign(&job, 2, ALL_WINDOWS_ON_1);
    let _first = changed(&job, 0, None, MAXIMUM);
    let mut second = changed(&job, 1, Some("after-fork"), MAXIMUM);
    second.wait_for_crash();
    let second = changed(&job, 1, None, MAXIMUM);
    job.produce(1_000);
    job.assert_exact();
    drop(second);
    // What the fork saved is a base like any other.
    let _second = changed(&job, 1, None, MAXIMUM);
    job.produce(1_000);
    job.assert_exact();
}
