//! A cluster of three brokers of which one dies, stands still or is away: leaders change and results stay exact. Must not
//! test what one broker shows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::child::Processor;
use super::rig::{Job, Reach, broker_script, eventually};

const BROKERS: usize = 3;
const PARTITIONS: u32 = 2;
/// Where the brokers keep transactions.
const TRANSACTIONS: &str = "__transaction_state";
/// Between two sends of the load.
const LOAD_INTERVAL: Duration = Duration::from_millis(20);

/// Brokers of a test's own, removed when dropped.
pub(super) struct OwnBrokers {
    name: String,
    bootstrap: String,
}

/// Three of them.
struct Cluster {
    brokers: OwnBrokers,
    /// One cluster at a time: three JVMs are enough for a machine.
    _alone: MutexGuard<'static, ()>,
}

/// How a broker goes away.
#[derive(Clone, Copy, Debug)]
enum Away {
    Killed,
    Paused,
}

impl OwnBrokers {
    /// Starts them with these options of the script.
    pub(super) fn start(name: &str, options: &[&str]) -> Self {
        // Before they start: those that are too slow for the script are removed, too.
        let mut own = Self {
            name: format!("{name}-{}", std::process::id()),
            bootstrap: String::new(),
        };
        let mut printed = broker_script(&[&["start", &own.name], options].concat());
        own.bootstrap = printed.remove("KAFKA_BOOTSTRAP").expect("the script prints it");
        own
    }

    /// A job with its topic on these brokers.
    pub(super) fn job(&self, test: &str, partitions: u32) -> Job {
        let reach = Reach {
            tests: self.bootstrap.clone(),
            processor: self.bootstrap.clone(),
            security: String::new(),
        };
        let job = Job::reached(test, partitions, reach);
        job.create_topic(&job.name);
        job
    }
}

impl Drop for OwnBrokers {
    fn drop(&mut self) {
        // Of a test that fails, too: no broker stays.
        let delete = || broker_script(&["delete", &self.name]);
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(delete)).is_err() {
            eprintln!("the brokers of {} are left over", self.name);
        }
    }
}

impl Cluster {
    fn start() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let count = BROKERS.to_string();
        let brokers = OwnBrokers::start("test-three", &["--brokers", &count, "--session-ms", "3000"]);
        assert_eq!(brokers.bootstrap.split(',').count(), BROKERS, "{}", brokers.bootstrap);
        Self { brokers, _alone: alone }
    }

    fn job(&self, test: &str) -> Job {
        self.brokers.job(test, PARTITIONS)
    }

    fn take_away(&self, node: i32, away: Away) {
        let verb = match away {
            Away::Killed => "kill",
            Away::Paused => "pause",
        };
        broker_script(&[verb, &self.brokers.name, &node.to_string()]);
    }

    fn give_back(&self, node: i32, away: Away) {
        match away {
            Away::Killed => broker_script(&["start", &self.brokers.name]),
            Away::Paused => broker_script(&["continue", &self.brokers.name, &node.to_string()]),
        };
    }

    /// The leader of a partition is away until another leads; then every replica is waited for, so that the next may go.
    fn change_leader(&self, job: &Job, (topic, partition): (&str, i32), away: Away) {
        let before = job.leader(topic, partition).expect("there is a leader");
        self.take_away(before, away);
        job.await_other_leader((topic, partition), before);
        // What was asked of a broker that stands still is answered when it goes on, or given up after a minute.
        if matches!(away, Away::Killed) {
            job.await_more_results();
        }
        self.give_back(before, away);
        for topic in [&job.name, &format!("{}-out", job.name), TRANSACTIONS] {
            job.await_all_in_sync(topic);
        }
        job.await_more_results();
    }
}

impl Job {
    /// Of each partition of a topic its number, leader, replicas and those in sync.
    fn layout(&self, topic: &str) -> Result<Vec<(i32, i32, usize, usize)>, String> {
        let admin = self.admin();
        let metadata = admin
            .inner()
            .fetch_metadata(Some(topic), Duration::from_secs(5))
            .map_err(|error| error.to_string())?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let partitions = found
            .map(rdkafka::metadata::MetadataTopic::partitions)
            .unwrap_or_default();
        let layout = partitions
            .iter()
            .map(|it| (it.id(), it.leader(), it.replicas().len(), it.isr().len()));
        Ok(layout.collect())
    }

    fn leader(&self, topic: &str, partition: i32) -> Result<i32, String> {
        let layout = self.layout(topic)?;
        let found = layout.iter().find(|(id, leader, ..)| *id == partition && *leader > 0);
        found
            .map(|(_, leader, ..)| *leader)
            .ok_or_else(|| format!("no leader of {topic}/{partition}: {layout:?}"))
    }

    fn await_other_leader(&self, (topic, partition): (&str, i32), before: i32) {
        eventually("another leader", || match self.leader(topic, partition)? {
            after if after == before => Err(format!("{before} leads {topic}/{partition}")),
            _ => Ok(()),
        });
    }

    fn await_all_in_sync(&self, topic: &str) {
        eventually("all replicas in sync", || {
            let layout = self.layout(topic)?;
            let whole = |(_, leader, replicas, in_sync): &(i32, i32, usize, usize)| {
                *leader > 0 && *replicas == BROKERS && *in_sync == BROKERS
            };
            match !layout.is_empty() && layout.iter().all(whole) {
                true => Ok(()),
                false => Err(format!("{topic}: {layout:?}")),
            }
        });
    }

    fn await_more_results(&self) {
        let before = self.published().len();
        eventually("more results", || match self.published().len() {
            now if now > before => Ok(()),
            now => Err(format!("{now} as before")),
        });
    }

    /// The partition of the transactions of a task: Java's hash of the transactional id.
    fn transactions_of(&self, partition: u32) -> i32 {
        let id = format!("{0}/task/{0}/{partition}", self.name);
        let hash = id
            .bytes()
            .fold(0_i32, |hash, byte| hash.wrapping_mul(31).wrapping_add(i32::from(byte)));
        let count = self.layout(TRANSACTIONS).expect("the brokers answer").len();
        hash.wrapping_abs() % i32::try_from(count).expect("few")
    }
}

/// Runs `faults` while events come, and stops the load however it ends.
fn under_load(job: &Job, faults: impl FnOnce()) {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                job.produce(20);
                std::thread::sleep(LOAD_INTERVAL);
            }
        });
        let _stop = Stop(&over);
        faults();
    });
}

/// It is the process that was started, every task runs, and no trouble is left or was taken for another one.
fn assert_well(processor: &mut Processor) {
    assert!(!processor.has_ended(), "{}", processor.log_text());
    eventually("every task runs without a problem", || {
        let status = processor.status()?;
        let tasks = status["tasks"].as_array().map_or(&[][..], Vec::as_slice);
        let runs = |task: &Value| task["state"] == "Running" && task["problem"].is_null();
        if tasks.len() == PARTITIONS as usize && tasks.iter().all(runs) && status["problem"].is_null() {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    let metrics = processor.metrics();
    let errors: Vec<&str> = metrics
        .lines()
        .filter(|line| line.starts_with("streamagg_errors_total{"))
        .collect();
    println!("{errors:#?}");
    let mistaken = |line: &&&str| line.contains(r#"class="fatal""#) || line.contains("Unauthorized");
    assert_eq!(errors.iter().find(mistaken), None, "{}", processor.log_text());
}

#[test]
fn results_are_exact_when_leaders_die_and_stand_still_under_load() {
    let cluster = Cluster::start();
    let job = cluster.job("leaders");
    job.produce(600);
    let mut processor = job.start("data");
    job.assert_exact();
    for topic in ["", "-out", "-dead", "-control"] {
        job.await_all_in_sync(&format!("{}{topic}", job.name));
    }
    under_load(&job, || {
        let (source, out) = (job.name.as_str(), format!("{}-out", job.name));
        cluster.change_leader(&job, (source, 0), Away::Killed);
        cluster.change_leader(&job, (TRANSACTIONS, job.transactions_of(0)), Away::Killed);
        cluster.change_leader(&job, (source, 1), Away::Paused);
        cluster.change_leader(&job, (&out, 0), Away::Paused);
        cluster.change_leader(&job, (TRANSACTIONS, job.transactions_of(1)), Away::Paused);
    });
    job.assert_exact();
    assert_well(&mut processor);
    processor.terminate();
}

#[test]
fn a_processor_starts_and_makes_its_topics_while_a_broker_is_away() {
    let cluster = Cluster::start();
    let job = cluster.job("away");
    job.await_all_in_sync(&job.name);
    // The first of the addresses that the processor is given.
    cluster.take_away(1, Away::Killed);
    job.produce(600);
    let mut processor = job.start("data");
    job.assert_exact();
    cluster.give_back(1, Away::Killed);
    for topic in ["", "-out", "-dead", "-control"] {
        job.await_all_in_sync(&format!("{}{topic}", job.name));
    }
    job.produce(600);
    job.assert_exact();
    assert_well(&mut processor);
    processor.terminate();
}
