//! Brokers forget the transactional id of a task that commits nothing for long (`transactional.id.expiration.ms`, a
//! week by default). Must not test what several brokers show (`brokers`).

use rdkafka::message::Message;

use super::brokers::OwnBrokers;
use super::rig::{Job, eventually};

/// What was not used for so long is forgotten at once, and all ids are in one partition.
const SOON: [&str; 6] = [
    "--set",
    "transactional.id.expiration.ms=1500",
    "--set",
    "transaction.remove.expired.transaction.cleanup.interval.ms=200",
    "--set",
    "transaction.state.log.num.partitions=1",
];

/// Times that it is forgotten while the task runs.
const ROUNDS: u64 = 2;

/// Waits until the broker has taken out the id of task 0, with which it had committed.
fn await_forgotten(job: &Job) {
    let id = format!("{0}/task/{0}/0", job.name);
    eventually("the broker forgets the id", || {
        let mut last = None;
        job.read("__transaction_state", &mut |message| {
            let key = message.key().unwrap_or_default();
            if key.ends_with(id.as_bytes()) {
                last = Some(message.payload().is_some());
            }
        });
        (last == Some(false)).then_some(()).ok_or_else(|| format!("{last:?}"))
    });
}

#[test]
fn a_task_that_was_quiet_until_its_transactional_id_was_forgotten_goes_on() {
    let brokers = OwnBrokers::start("test-forgets", &SOON);
    let job = brokers.job("forgotten", 1);
    job.produce(1_000);
    let mut processor = job.start("data");
    job.assert_exact();
    for _ in 0..ROUNDS {
        await_forgotten(&job);
        job.produce(1_000);
        job.assert_exact();
    }
    let status = processor.status().expect("answers");
    let task = &status["tasks"][0];
    assert!(task["state"] == "Running" && task["problem"].is_null(), "{status}");
    // Each time an epoch was sent again by the same client, for which the broker has another number then; more often
    // where the machine is slow.
    let counted = |outcome: &str| {
        let series = format!(r#"streamagg_transactions_total{{outcome="{outcome}",task="0"}}"#);
        processor.counted(&series)
    };
    assert!(counted("aborted") >= ROUNDS, "{}", processor.metrics());
    assert_eq!(counted("fenced"), 0, "{}", processor.log_text());
    // Whoever comes next finds nobody to fence.
    await_forgotten(&job);
    processor.kill();
    let _processor = job.start("data");
    job.produce(1_000);
    job.assert_exact();
}
