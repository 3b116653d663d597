//! A task whose memory does not hold its state. Must not test which rows leave it.

use serde_json::Value;

use super::child::Processor;
use super::rig::{Job, More, eventually};

/// A job whose windows stay open, with memory that does not hold their rows: half of this is theirs.
fn job(name: &str, partitions: u32) -> Job {
    with_window(name, partitions, ", allowedLateness: 1h")
}

fn with_window(name: &str, partitions: u32, window: &'static str) -> Job {
    let mut job = Job::new(name, partitions);
    job.more = More {
        window,
        state: ", memoryBudget: 256Ki",
        ..More::default()
    };
    job
}

/// Waits until more rows than these are on the volume only, of all tasks together.
pub(super) fn await_rows_on_volume(processor: &Processor, more_than: u64) {
    eventually("rows on the volume", || are_on_volume(processor, more_than));
}

fn are_on_volume(processor: &Processor, more_than: u64) -> Result<(), String> {
    let metrics = processor.metrics();
    let lines = metrics.lines();
    let tasks = lines.filter(|line| line.starts_with("streamagg_state_rows_on_volume{"));
    let rows = tasks.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    let is_more = rows.sum::<u64>() > more_than;
    is_more.then_some(()).ok_or(metrics)
}

#[test]
fn a_task_beyond_its_memory_reads_rows_back_across_crashes_and_loses_nothing() {
    goes_on_across_crashes(&job("memory", 1));
}

#[test]
fn so_does_a_window_task_behind_a_first_stage() {
    goes_on_across_crashes(&job("memory-stages", 2).in_two_stages(2));
}

/// The trigger never fires early here, but with it the window keeps rows of its own.
#[test]
fn so_does_a_task_of_windows_with_values_of_their_own() {
    const WINDOW: &str = ", allowedLateness: 1h, trigger: {early: {everyEvents: 1000000}}";
    goes_on_across_crashes(&with_window("memory-own", 1, WINDOW));
    goes_on_across_crashes(&with_window("memory-own-stages", 2, WINDOW).in_two_stages(2));
}

fn goes_on_across_crashes(job: &Job) {
    for round in 0..3 {
        let mut processor = job.start("data");
        job.produce(20_000);
        job.assert_exact();
        // A task looks at its memory every so many records, and those before it had come to may not have been enough.
        eventually("rows on the volume", || {
            job.produce(100);
            are_on_volume(&processor, 1_000 * (round + 1))
        });
        processor.kill();
    }
}

#[test]
fn rows_on_the_volume_follow_a_changed_spec_and_are_there_for_questions() {
    let job = job("memory-spec", 1);
    let processor = job.start("data");
    job.produce(20_000);
    job.assert_exact();
    await_rows_on_volume(&processor, 1_000);
    processor.terminate();
    // All rows are read, to be written with one value more; then most leave memory again.
    let extra = ", {name: m, max: {field: /v}}";
    let processor = job.start_with("data", &["--assign-all"], None, extra);
    job.produce(2_000);
    job.assert_exact();
    await_rows_on_volume(&processor, 1_000);
    let (code, body) = processor
        .ask("GET", "/v1/windows?key=%7B%22k%22%3A%22k0%22%7D", "")
        .expect("answers");
    let found: Value = serde_json::from_str(&body).expect("JSON");
    let windows = found["tasks"][0]["windows"].as_array().expect("a list");
    // Of 22,000 events, 5 ms apart, the first second may have begun before the others.
    assert!(code == 200 && windows.len() >= 110, "{body}");
    let old = windows.iter().find(|window| window["start"] == 5_001_000);
    let values = &old.expect("it takes late events")["values"];
    let (count, sum) = job.open_window(5_001_000, 0);
    assert_eq!((&values["n"], &values["s"]), (&count.into(), &sum.into()), "{body}");
    let (_, body) = processor
        .ask("GET", "/v1/why?window=w&start=5001000", "")
        .expect("answers");
    let why: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(why["tasks"][0]["keys"], 37, "{body}");
}
