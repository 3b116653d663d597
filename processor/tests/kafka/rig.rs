//! What the tests stand on: a real broker, a processor as a child process, and an answer computed by plain code.
//! Shares nothing with the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;

use super::child::Processor;

/// Longest wait for anything; what was seen is printed when it passes.
pub const PATIENCE: Duration = Duration::from_secs(90);
pub const TOKEN: &str = "a-token";
const WATERMARK_BOUND_MS: i64 = 100;
const WINDOW_MS: i64 = 1_000;

/// The broker: `STREAMAGG_TEST_KAFKA`, or the project's own script starts one.
pub fn broker() -> &'static str {
    static BROKER: OnceLock<String> = OnceLock::new();
    BROKER.get_or_init(|| {
        if let Ok(servers) = std::env::var("STREAMAGG_TEST_KAFKA") {
            return servers;
        }
        start_broker(&["start", "test"])
            .remove("KAFKA_BOOTSTRAP")
            .expect("the script says where it listens")
    })
}

/// Runs the project's script; answers what it prints, by name.
pub fn start_broker(arguments: &[&str]) -> BTreeMap<String, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/broker/kafka.sh");
    let output = Command::new("bash")
        .arg(&script)
        .args(arguments)
        .output()
        .expect("kafka.sh runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// How a processor reaches the broker.
#[derive(Clone)]
pub struct Reach {
    /// Where tests reach it, with all rights.
    pub tests: String,
    /// Where the processor does.
    pub processor: String,
    /// Further members of the manifest's `spec.source.kafka`, each with a comma before it.
    pub security: String,
}

impl Reach {
    fn plain() -> Self {
        Self {
            tests: broker().to_owned(),
            processor: broker().to_owned(),
            security: String::new(),
        }
    }
}

fn client(servers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers);
    config
}

/// Waits until `look` answers; prints what it saw last when it never does.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if Instant::now() > deadline => panic!("{what}: not within {PATIENCE:?}; last seen: {seen}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Time, key, value.
type Event = (i64, u32, i64);

/// A job of its own: topics, directories, input log.
pub struct Job {
    pub name: String,
    pub partitions: u32,
    pub reach: Reach,
    pub directory: tempfile::TempDir,
    /// Partitions between two stages; absent: one stage.
    shuffle_partitions: Option<u32>,
    /// Of five events, four have the same key.
    hot: bool,
    /// What was produced, by partition.
    log: Mutex<BTreeMap<u32, Vec<Event>>>,
    producer: BaseProducer,
}

impl Job {
    pub fn new(test: &str, partitions: u32) -> Self {
        let job = Self::without_topic(test, partitions);
        job.create_topic(&job.name);
        job
    }

    pub fn without_topic(test: &str, partitions: u32) -> Self {
        Self::reached(test, partitions, Reach::plain())
    }

    /// A job on a broker that is reached otherwise; without its topic.
    pub fn reached(test: &str, partitions: u32, reach: Reach) -> Self {
        let name = format!("{test}-{}", &uuid::Uuid::new_v4().to_string()[..8]);
        let mut config = client(&reach.tests);
        config.set("linger.ms", "1");
        Self {
            name,
            partitions,
            reach,
            directory: tempfile::tempdir().expect("a directory"),
            shuffle_partitions: None,
            hot: false,
            log: Mutex::default(),
            producer: config.create().expect("a producer"),
        }
    }

    /// The same job with `partitioning: any`.
    pub fn in_two_stages(self, shuffle_partitions: u32) -> Self {
        Self {
            shuffle_partitions: Some(shuffle_partitions),
            ..self
        }
    }

    /// The same job with one key for most events.
    pub fn with_hot_key(self) -> Self {
        Self { hot: true, ..self }
    }

    pub fn client(&self) -> ClientConfig {
        client(&self.reach.tests)
    }

    /// Events produced so far.
    pub fn produced(&self) -> usize {
        self.log.lock().expect("not poisoned").values().map(Vec::len).sum()
    }

    /// Where the store keeps task 0.
    pub fn task_store(&self) -> PathBuf {
        self.directory("store").join(&self.name).join("tasks/0")
    }

    /// Appends records to partition 0 in a transaction that is aborted.
    pub fn produce_aborted(&self, count: u32) {
        let producer: BaseProducer = self
            .client()
            .set("transactional.id", format!("{}-upstream", self.name))
            .create()
            .expect("a producer");
        producer.init_transactions(PATIENCE).expect("initialises");
        producer.begin_transaction().expect("begins");
        for _ in 0..count {
            let record = BaseRecord::<str, str>::to(&self.name).partition(0).payload("{}");
            assert!(producer.send(record).is_ok());
        }
        producer.flush(PATIENCE).expect("the broker takes them");
        producer.abort_transaction(PATIENCE).expect("aborts");
    }

    pub fn directory(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Produces `count` events to each partition, 5 ms apart, out of order by less than the bound.
    pub fn produce(&self, count: u32) {
        self.produce_from(5_000_000, count);
    }

    /// Produces events whose time begins at `first_ms`.
    pub fn produce_from(&self, first_ms: i64, count: u32) {
        let mut log = self.log.lock().expect("not poisoned");
        for partition in 0..self.partitions {
            let events = log.entry(partition).or_default();
            for _ in 0..count {
                let index = i64::try_from(events.len()).expect("small");
                let disorder = (index * 7_919) % (WATERMARK_BOUND_MS - 1);
                let key = if self.hot && index % 5 > 0 { 0 } else { index % 37 };
                let event = (
                    first_ms + index * 5 - disorder,
                    u32::try_from(key).expect("small"),
                    index % 11,
                );
                let value = format!(r#"{{"ts":{},"k":"k{}","v":{}}}"#, event.0, event.1, event.2);
                let mut record = BaseRecord::<str, str>::to(&self.name)
                    .partition(i32::try_from(partition).expect("few"))
                    .payload(&value);
                while let Err((error, back)) = self.producer.send(record) {
                    assert!(matches!(error, KafkaError::MessageProduction(_)), "{error}");
                    self.producer.poll(Duration::from_millis(20));
                    record = back;
                }
                events.push(event);
            }
        }
        self.producer.flush(PATIENCE).expect("the broker takes the events");
    }

    /// Events that meet in windows, and how far event time has come for them: each partition by itself or, with two
    /// stages, all of them as far as the slowest.
    fn meeting(&self) -> Vec<(i64, Vec<Event>)> {
        let log = self.log.lock().expect("not poisoned");
        let newest = |events: &Vec<Event>| events.iter().map(|event| event.0).max();
        if self.shuffle_partitions.is_none() {
            return log
                .values()
                .filter_map(|events| Some((newest(events)?, events.clone())))
                .collect();
        }
        let slowest = log.values().map(newest).min().flatten();
        slowest
            .map(|slowest| (slowest, log.values().flatten().copied().collect()))
            .into_iter()
            .collect()
    }

    /// Result lines that must be there, once each: window sums from scratch.
    fn expected(&self) -> BTreeSet<String> {
        let mut expected = BTreeSet::new();
        for (newest, events) in self.meeting() {
            let mut windows: BTreeMap<(i64, u32), (i64, i64)> = BTreeMap::new();
            for (time, key, value) in &events {
                let window = windows
                    .entry((time.div_euclid(WINDOW_MS) * WINDOW_MS, *key))
                    .or_default();
                window.0 += 1;
                window.1 += value;
            }
            for ((start, key), (count, sum)) in windows {
                if start + WINDOW_MS <= newest - WATERMARK_BOUND_MS {
                    expected.insert(format!("{start} k{key} n={count} s={sum}"));
                }
            }
        }
        expected
    }

    /// Everything a read_committed reader sees, in the form of [`Self::expected`]; partitions share keys, so each line
    /// carries how often it may come.
    pub fn published(&self) -> Vec<String> {
        let topic = format!("{}-out", self.name);
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", "checker")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("enable.auto.commit", "false")
            .create()
            .expect("a consumer");
        let mut list = TopicPartitionList::new();
        for partition in 0..self.partitions {
            let partition = i32::try_from(partition).expect("few");
            list.add_partition_offset(&topic, partition, Offset::Beginning)
                .expect("an offset");
        }
        consumer.assign(&list).expect("assigns");
        let (mut lines, mut ended) = (Vec::new(), BTreeSet::new());
        let deadline = Instant::now() + PATIENCE;
        while ended.len() < self.partitions as usize {
            assert!(Instant::now() < deadline, "the output topic does not end");
            match consumer.poll(Duration::from_millis(200)) {
                Some(Ok(message)) => {
                    let value: Value = serde_json::from_slice(message.payload().expect("a value")).expect("JSON");
                    lines.push(format!(
                        "{} {} n={} s={}",
                        value["start"],
                        value["key"]["k"].as_str().expect("text"),
                        value["values"]["n"],
                        value["values"]["s"]
                    ));
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    ended.insert(partition);
                }
                Some(Err(error)) => panic!("reading results: {error}"),
                None => {}
            }
        }
        lines
    }

    /// Waits for every expected result, then demands that each is there exactly as often as there are partitions that
    /// produced it, and nothing else.
    pub fn assert_exact(&self) {
        let expected = self.expected();
        // Every partition holds the same events, so every line is expected once for each; they meet in two stages.
        let copies = if self.shuffle_partitions.is_some() {
            1
        } else {
            self.partitions as usize
        };
        let count = |lines: &[String]| {
            let mut counts: BTreeMap<String, usize> = BTreeMap::new();
            for line in lines {
                *counts.entry(line.clone()).or_default() += 1;
            }
            counts
        };
        let seen = eventually("all results", || {
            let lines = self.published();
            let wanted = expected.len() * copies;
            if lines.len() >= wanted {
                Ok(lines)
            } else {
                Err(format!("{} of {wanted} results", lines.len()))
            }
        });
        let counts = count(&seen);
        let lost: Vec<&String> = expected.iter().filter(|line| !counts.contains_key(*line)).collect();
        let wrong: Vec<&String> = counts.keys().filter(|line| !expected.contains(*line)).collect();
        let repeated: Vec<(&String, &usize)> = counts.iter().filter(|(_, times)| **times != copies).collect();
        assert!(
            lost.is_empty() && wrong.is_empty() && repeated.is_empty(),
            "lost {lost:?}, wrong {wrong:?}, not {copies} times {repeated:?}"
        );
        assert!(!expected.is_empty(), "a test without results shows nothing");
    }

    fn manifest(&self, extra: &str) -> String {
        let (name, servers, security) = (&self.name, &self.reach.processor, &self.reach.security);
        let store = self.directory("store");
        let partitioning = match self.shuffle_partitions {
            None => "byKey: {}".to_owned(),
            Some(count) => format!("any: {{shufflePartitions: {count}}}"),
        };
        format!(
            r#"
apiVersion: streamagg.io/v1alpha1
kind: StreamAggregation
metadata: {{name: job, namespace: test}}
spec:
  jobId: {name}
  source:
    kafka: {{bootstrapServers: ["{servers}"], topics: [{name}], startFrom: {{earliest: {{}}}}{security}}}
    format: {{json: {{strict: false}}}}
    partitioning: {{{partitioning}}}
  event:
    timestamp: {{field: /ts, unit: Milliseconds}}
    watermark: {{boundedOutOfOrderness: {{bound: {WATERMARK_BOUND_MS}ms}}}}
  groupBy: [{{name: k, field: /k}}]
  windows: [{{name: w, tumbling: {{size: {WINDOW_MS}ms}}}}]
  aggregates: [{{name: n, count: {{}}}}, {{name: s, sum: {{field: /v}}}}{extra}]
  sink: {{kafka: {{topic: {name}-out}}}}
  deadLetters: {{kafka: {{topic: {name}-dead}}}}
  state: {{backend: RocksDB, volume: {{size: 1Gi}}, checkpoints: {{interval: 1h, store: {{volume: {{path: "{}"}}}}}}}}
"#,
            store.display()
        )
    }

    /// Starts a processor on the data directory `data`.
    pub fn start(&self, data: &str) -> Processor {
        self.start_with(data, &["--assign-all"], None, "")
    }

    pub fn start_with(&self, data: &str, flags: &[&str], failpoint: Option<&str>, extra: &str) -> Processor {
        let (job, token) = (self.directory("job.yaml"), self.directory("token"));
        std::fs::write(&job, self.manifest(extra)).expect("writes");
        std::fs::write(&token, TOKEN).expect("writes");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|bound| bound.local_addr())
            .expect("a port")
            .port();
        let log = self.directory(&format!("log-{port}"));
        let file = std::fs::File::create(&log).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_streamagg-processor"));
        command
            .arg("serve")
            .arg("--job")
            .arg(&job)
            .arg("--token-file")
            .arg(&token);
        command
            .arg("--data-dir")
            .arg(self.directory(data))
            .arg("--listen")
            .arg(format!("127.0.0.1:{port}"));
        command
            .args(flags)
            .stdout(Stdio::null())
            .stderr(file)
            .env_remove("STREAMAGG_FAILPOINT");
        if let Some(failpoint) = failpoint {
            command.env("STREAMAGG_FAILPOINT", failpoint);
        }
        Processor {
            child: command.spawn().expect("the processor starts"),
            port,
            log,
        }
    }
}

/// Copies a directory tree.
pub fn copy_tree(from: &Path, to: &Path) {
    let status = Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()
        .expect("cp runs");
    assert!(status.success());
}
