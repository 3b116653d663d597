//! Transactions of whoever produces the input: what is open is waited for, what is given up never was. Must not test
//! what the log has lost (`input`) or what the clock makes of a silence (`clock`).

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::child::Processor;
use super::clock::{HOUR_MS, IDLE};
use super::rig::{Event, Job, PATIENCE, client, eventually};

impl Job {
    /// Appends records that are no events to partition 0, in a transaction that stays open.
    pub fn produce_open(&self, count: usize) -> BaseProducer {
        self.open_transaction(&vec!["{}"; count])
    }

    /// Appends these records to partition 0, in a transaction that stays open.
    pub(super) fn open_transaction<V: AsRef<str>>(&self, values: &[V]) -> BaseProducer {
        let producer: BaseProducer = client(&self.reach.tests)
            .set("transactional.id", format!("{}-upstream", self.name))
            // As long as brokers let one be open, by default.
            .set("transaction.timeout.ms", "900000")
            .create()
            .expect("a producer");
        producer.init_transactions(PATIENCE).expect("initialises");
        producer.begin_transaction().expect("begins");
        for value in values {
            let record = BaseRecord::<str, str>::to(&self.name)
                .partition(0)
                .payload(value.as_ref());
            assert!(producer.send(record).is_ok());
        }
        producer.flush(PATIENCE).expect("the broker takes them");
        producer
    }
}

/// Events that are not late behind 1,000 others, and leave none late that come behind them.
const HELD_BACK: [Event; 3] = [(5_004_990, 0, 1_000), (5_005_010, 0, 1_000), (5_005_090, 0, 1_000)];

/// Nothing came within an hour of its clock, although the processor has looked at the end of the log.
fn await_looked(job: &Job, processor: &Processor) {
    processor.await_ready();
    job.move_clock(2 * HOUR_MS);
    eventually("the processor has looked at the end", || {
        let text = processor.log_text();
        text.contains("silent, but not idle").then_some(()).ok_or(text)
    });
}

/// A job whose input goes on behind a transaction that is open: the events behind it wait, whoever starts meanwhile.
/// Answers what is needed to end it.
fn waiting(test: &str) -> (Job, Processor, BaseProducer) {
    let mut job = Job::new(test, 1);
    job.more = IDLE;
    job.produce(1_000);
    let processor = job.start("data");
    job.assert_exact();
    let before = job.expected(false);
    let held_back = HELD_BACK.map(|(ts, key, v)| format!(r#"{{"ts":{ts},"k":"k{key}","v":{v}}}"#));
    let open = job.open_transaction(&held_back);
    job.produce(1_000);
    await_looked(&job, &processor);
    job.assert_exactly(&before);
    drop(processor);
    let processor = job.start("data");
    await_looked(&job, &processor);
    job.assert_exactly(&before);
    (job, processor, open)
}

#[test]
fn events_behind_an_open_transaction_wait_and_count_once_with_its_own_when_it_is_committed_late() {
    let (job, processor, open) = waiting("commitslate");
    open.commit_transaction(PATIENCE).expect("commits");
    job.expect(&HELD_BACK);
    job.assert_exact();
    drop(processor);
    assert_replays(&job);
}

#[test]
fn events_behind_an_open_transaction_count_without_its_own_when_it_is_given_up_late() {
    let (job, processor, open) = waiting("abortslate");
    open.abort_transaction(PATIENCE).expect("aborts");
    job.assert_exact();
    drop(processor);
    assert_replays(&job);
}

/// A replay from birth reads the transaction as one that ended in time.
fn assert_replays(job: &Job) {
    job.lose("data");
    let processor = job.start("data");
    job.produce(1_000);
    job.assert_exact();
    processor.assert_replayed_exactly();
}
