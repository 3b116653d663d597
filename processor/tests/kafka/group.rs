//! Processes without an operator share a job by a consumer group: joined, left, killed, stopped and let go on. Must not
//! repeat what ownership shows.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::child::Processor;
use super::rig::{Job, eventually};

fn member(job: &Job, data: &str) -> Processor {
    job.start_with(data, &["--assign-group"], None, "")
}

/// Tasks that run in a process.
fn running(processor: &Processor) -> Result<BTreeSet<u64>, String> {
    let status = processor.status()?;
    let rows = status["tasks"].as_array().cloned().unwrap_or_default();
    let running = rows.iter().filter(|row| row["state"] == "Running");
    Ok(running.filter_map(|row| row["task"].as_u64()).collect())
}

/// Waits until these run every task, each in one of them, and each of them has some. Answers what each has.
fn await_shared(job: &Job, processors: &[&Processor], tasks: u64) -> Vec<BTreeSet<u64>> {
    eventually("the tasks are shared out", || {
        let shares = processors.iter().map(|processor| running(processor));
        let shares = shares.collect::<Result<Vec<_>, _>>()?;
        let all: Vec<u64> = shares.iter().flatten().copied().collect();
        let is_whole = all.iter().copied().collect::<BTreeSet<_>>() == (0..tasks).collect();
        if is_whole && all.len() as u64 == tasks && shares.iter().all(|share| !share.is_empty()) {
            return Ok(shares);
        }
        let logs = processors.iter().map(|processor| processor.log_text());
        Err(format!("{}: {shares:?} {}", job.name, logs.collect::<String>()))
    })
}

#[test]
fn the_task_of_a_partition_that_is_added_is_shared_out_too() {
    let mut job = Job::new("groupgrows", 2).in_two_stages(2);
    job.produce(1_000);
    let flags = ["--assign-group", "--look-every-ms", "500"];
    let [first, second] = ["data-1", "data-2"].map(|data| job.start_with(data, &flags, None, ""));
    await_shared(&job, &[&first, &second], 4);
    job.assert_exact();
    job.add_partition();
    await_shared(&job, &[&first, &second], 5);
    // Behind what is purged: the windows of the new partition's first events are gone.
    job.produce_from(100_000_000, 1_000);
    job.assert_exact();
}

fn stays_exact(job: &Job) {
    job.produce(1_000);
    job.assert_exact();
}

#[test]
fn processes_share_the_tasks_and_take_over_from_each_other() {
    shared(&Job::new("group", 4), 4);
}

#[test]
fn they_share_the_tasks_of_both_stages() {
    shared(&Job::new("groupstages", 2).in_two_stages(2), 4);
}

fn shared(job: &Job, tasks: u64) {
    let first = member(job, "data-1");
    await_shared(job, &[&first], tasks);
    stays_exact(job);
    // One that comes is given some, from where the first has brought them.
    let mut second = member(job, "data-2");
    let shares = await_shared(job, &[&first, &second], tasks);
    assert_eq!(shares.iter().map(BTreeSet::len).max(), Some(2), "{shares:?}");
    stays_exact(job);
    // Killed, it keeps its tasks until the broker has missed it.
    job.produce(500);
    second.kill();
    await_shared(job, &[&first], tasks);
    stays_exact(job);
    let second = member(job, "data-2");
    await_shared(job, &[&first, &second], tasks);
    stays_exact(job);
    // A process that stands still loses its tasks, and when it goes on it does not have them.
    first.signal("-STOP");
    job.produce(500);
    await_shared(job, &[&second], tasks);
    stays_exact(job);
    first.signal("-CONT");
    let began = Instant::now();
    job.produce(500);
    await_shared(job, &[&first, &second], tasks);
    // What others have committed meanwhile is no reason for a task to stay where the group wants it to go: the group waits
    // for a minute.
    assert!(began.elapsed() < Duration::from_secs(55), "{}", first.log_text());
    stays_exact(job);
    // One that is told to end gives its tasks away at once.
    second.terminate();
    await_shared(job, &[&first], tasks);
    stays_exact(job);
}
