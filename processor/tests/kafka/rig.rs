//! What the tests stand on: a real broker, a processor as a child process, and an answer computed by plain code.
//! Shares nothing with the engine.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::child::Processor;

/// Longest wait for anything; what was seen is printed when it passes.
pub(super) const PATIENCE: Duration = Duration::from_secs(90);
pub const TOKEN: &str = "a-token";
pub(super) const WATERMARK_BOUND_MS: i64 = 100;
pub(super) const WINDOW_MS: i64 = 1_000;

/// Runs every task, and looks at the source so often that a test does not wait for it.
pub const LOOKING_OFTEN: [&str; 3] = ["--assign-all", "--look-every-ms", "500"];

/// The broker: `STREAMAGG_TEST_KAFKA`, or the project's own script starts one.
pub fn broker() -> &'static str {
    static BROKER: OnceLock<String> = OnceLock::new();
    BROKER.get_or_init(|| {
        if let Ok(servers) = std::env::var("STREAMAGG_TEST_KAFKA") {
            return servers;
        }
        broker_script(&["start", "test"])
            .remove("KAFKA_BOOTSTRAP")
            .expect("the script says where it listens")
    })
}

/// Runs the project's script; answers what it prints, by name.
pub fn broker_script(arguments: &[&str]) -> BTreeMap<String, String> {
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
    /// Further members of the manifest's `spec.source.kafka` or `spec.sink.kafka`, each with a comma before it.
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

fn producer(reach: &Reach) -> BaseProducer {
    let mut config = client(&reach.tests);
    // Sent again when a broker is gone, a record must not be there twice: what is expected is what was sent.
    config.set("linger.ms", "1").set("enable.idempotence", "true");
    config.create().expect("a producer")
}

pub(super) fn client(servers: &str) -> ClientConfig {
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

/// Further members of the manifest.
#[derive(Clone, Copy, Default)]
pub struct More {
    pub source: &'static str,
    pub event: &'static str,
    pub window: &'static str,
    pub spec: &'static str,
    pub state: &'static str,
}

/// Time, key, value.
pub(super) type Event = (i64, u32, i64);

/// A job of its own: topics, directories, input log.
pub struct Job {
    pub name: String,
    /// Of all topics together.
    pub partitions: u32,
    /// Topics that it reads, by name.
    pub(super) topics: Vec<String>,
    pub reach: Reach,
    /// How the sink is reached, if not as the source: everything but the input is there.
    pub sink: Option<Reach>,
    pub directory: tempfile::TempDir,
    /// Further members of `source.kafka`, `event`, the window and `spec`, each with a comma (the last: a line) before it.
    pub more: More,
    /// The member of `startFrom`.
    pub start_from: &'static str,
    /// Partitions between two stages; absent: one stage.
    pub(super) shuffle_partitions: Option<u32>,
    /// Of five events, four have the same key.
    hot: bool,
    /// There is no topic of dead letters.
    pub drops_dead_letters: bool,
    /// Another checkpoint store than a directory of the job.
    pub store: Option<String>,
    /// What was produced, by partition.
    pub(super) log: Mutex<BTreeMap<u32, Vec<Event>>>,
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
        let producer = producer(&reach);
        Self {
            topics: vec![name.clone()],
            name,
            partitions,
            reach,
            sink: None,
            directory: tempfile::tempdir().expect("a directory"),
            more: More::default(),
            start_from: "earliest: {}",
            shuffle_partitions: None,
            hot: false,
            drops_dead_letters: false,
            store: None,
            log: Mutex::default(),
            producer,
        }
    }

    /// A producer that knows the partitions as they are now: one that is there learns of new ones within minutes only.
    pub(super) fn look_at_partitions_again(&mut self) {
        self.producer = producer(&self.reach);
    }

    /// The same job with `partitioning: any`.
    pub fn in_two_stages(self, shuffle_partitions: u32) -> Self {
        Self {
            shuffle_partitions: Some(shuffle_partitions),
            ..self
        }
    }

    /// The same job with another topic to read, with as many partitions.
    pub fn with_another_topic(mut self) -> Self {
        let topic = format!("{}-more", self.name);
        self.create_topic(&topic);
        self.topics.push(topic);
        self.partitions *= 2;
        self
    }

    /// Topic and partition behind the number of a source partition.
    fn place(&self, source: u32) -> (&str, i32) {
        let count = u32::try_from(self.topics.len()).expect("few");
        let partition = i32::try_from(source / count).expect("few");
        (&self.topics[(source % count) as usize], partition)
    }

    /// The same job with one key for most events.
    pub fn with_hot_key(self) -> Self {
        Self { hot: true, ..self }
    }

    /// Of the cluster that has everything but the input.
    pub(super) fn client(&self) -> ClientConfig {
        client(&self.sink.as_ref().unwrap_or(&self.reach).tests)
    }

    pub(super) fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().expect("an admin client")
    }

    /// Events produced so far.
    pub fn produced(&self) -> usize {
        self.log.lock().expect("not poisoned").values().map(Vec::len).sum()
    }

    /// Where the store keeps task 0.
    pub fn task_store(&self) -> PathBuf {
        self.directory("store").join(&self.name).join("tasks/0")
    }

    /// Appends one record to partition 0 that is no event of the log.
    pub fn produce_raw(&self, value: &str) {
        let record = BaseRecord::<str, str>::to(&self.name).partition(0).payload(value);
        assert!(self.producer.send(record).is_ok());
        self.producer.flush(PATIENCE).expect("the broker takes it");
    }

    /// The same, with a header.
    pub fn produce_with(&self, value: &str, header: (&str, &str)) {
        let (key, content) = header;
        let headers = OwnedHeaders::new().insert(Header {
            key,
            value: Some(content),
        });
        let record = BaseRecord::<str, str>::to(&self.name).partition(0).payload(value);
        assert!(self.producer.send(record.headers(headers)).is_ok());
        self.producer.flush(PATIENCE).expect("the broker takes it");
    }

    /// Nothing is expected of these records of partition 0 any more.
    pub fn forget(&self, records: std::ops::Range<usize>) {
        let mut log = self.log.lock().expect("not poisoned");
        log.get_mut(&0).expect("produced").drain(records);
    }

    /// Moves the clock of the job's processors ahead.
    pub fn move_clock(&self, ms: i64) {
        let file = self.directory("ahead");
        let now = std::fs::read_to_string(&file).map_or(0, |text| text.parse().expect("a number"));
        replace(&file, &(now + ms).to_string());
    }

    pub fn directory(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Removes a volume (`data`) or everything in the store (`store`).
    pub fn lose(&self, name: &str) {
        std::fs::remove_dir_all(self.directory(name)).expect("removes");
    }

    /// Produces `count` events to each partition, 5 ms apart, out of order by less than the bound.
    pub fn produce(&self, count: u32) {
        self.produce_from(5_000_000, count);
    }

    /// Produces events whose time begins at `first_ms`.
    pub fn produce_from(&self, first_ms: i64, count: u32) {
        self.produce_apart(first_ms, 5, 0..self.partitions, count);
    }

    /// Produces events to some partitions, so far apart.
    pub(super) fn produce_apart(&self, first_ms: i64, apart_ms: i64, partitions: std::ops::Range<u32>, count: u32) {
        let mut log = self.log.lock().expect("not poisoned");
        for partition in partitions {
            let events = log.entry(partition).or_default();
            for _ in 0..count {
                let index = i64::try_from(events.len()).expect("small");
                let disorder = (index * 7_919) % (WATERMARK_BOUND_MS - 1);
                let key = if self.hot && index % 5 > 0 { 0 } else { index % 37 };
                let event = (
                    first_ms + index * apart_ms - disorder,
                    u32::try_from(key).expect("small"),
                    index % 11,
                );
                let value = format!(r#"{{"ts":{},"k":"k{}","v":{}}}"#, event.0, event.1, event.2);
                let (topic, place) = self.place(partition);
                let mut record = BaseRecord::<str, str>::to(topic).partition(place).payload(&value);
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

    fn manifest(&self, extra: &str) -> String {
        let (name, security, start_from) = (&self.name, &self.reach.security, self.start_from);
        let servers = self.reach.processor.replace(',', r#"", ""#);
        let More {
            source,
            event,
            window,
            spec,
            state,
        } = self.more;
        let in_a_directory = || format!(r#"volume: {{path: "{}"}}"#, self.directory("store").display());
        let store = self.store.clone().unwrap_or_else(in_a_directory);
        let partitioning = match self.shuffle_partitions {
            None => "byKey: {}".to_owned(),
            Some(count) => format!("any: {{shufflePartitions: {count}}}"),
        };
        let elsewhere = self.sink.as_ref().map_or_else(String::new, |reach| {
            let servers = reach.processor.replace(',', r#"", ""#);
            format!(r#", bootstrapServers: ["{servers}"]{}"#, reach.security)
        });
        let dead = match self.drops_dead_letters {
            true => "drop: {}".to_owned(),
            false => format!("kafka: {{topic: {name}-dead}}"),
        };
        // Their order means nothing.
        let topics: Vec<&str> = self.topics.iter().rev().map(String::as_str).collect();
        let topics = topics.join(", ");
        format!(
            r#"
apiVersion: streamagg.io/v1alpha1
kind: StreamAggregation
metadata: {{name: job, namespace: test}}
spec:
  jobId: {name}
  source:
    kafka: {{bootstrapServers: ["{servers}"], topics: [{topics}], startFrom: {{{start_from}}}{security}{source}}}
    format: {{json: {{strict: false}}}}
    partitioning: {{{partitioning}}}
  event:
    timestamp: {{field: /ts, unit: Milliseconds}}
    watermark: {{boundedOutOfOrderness: {{bound: {WATERMARK_BOUND_MS}ms}}}}{event}
  groupBy: [{{name: k, field: /k}}]
  windows: [{{name: w, tumbling: {{size: {WINDOW_MS}ms}}{window}}}]
  aggregates: [{{name: n, count: {{}}}}, {{name: s, sum: {{field: /v}}}}{extra}]
  sink: {{kafka: {{topic: {name}-out{elsewhere}}}}}
  deadLetters: {{{dead}}}{spec}
  state: {{backend: RocksDB, volume: {{size: 1Gi}}{state}, checkpoints: {{interval: 1h, store: {{{store}}}}}}}
"#
        )
    }

    /// Starts a processor on the data directory `data`.
    pub fn start(&self, data: &str) -> Processor {
        self.start_with(data, &["--assign-all"], None, "")
    }

    /// Starts a processor that dies at `failpoint`, and produces until it has: later epochs follow only if there is more
    /// to read.
    pub fn crash_while_producing(&self, failpoint: &str) {
        let mut processor = self.start_with("data", &["--assign-all"], Some(failpoint), "");
        self.produce_until_crash(&mut processor);
    }

    pub fn produce_until_crash(&self, processor: &mut Processor) {
        while !processor.has_ended() {
            self.produce(400);
        }
        processor.wait_for_crash();
    }

    pub fn start_with(&self, data: &str, flags: &[&str], failpoint: Option<&str>, extra: &str) -> Processor {
        self.spawn(data, flags, failpoint, extra, &[])
    }

    /// Starts a processor by another program, which is given its command line.
    pub fn start_within(&self, data: &str, wrapper: &[&str]) -> Processor {
        self.spawn(data, &["--assign-all"], None, "", wrapper)
    }

    fn spawn(&self, data: &str, flags: &[&str], failpoint: Option<&str>, extra: &str, wrapper: &[&str]) -> Processor {
        let (job, token) = (self.directory("job.yaml"), self.directory("token"));
        replace(&job, &self.manifest(extra));
        replace(&token, TOKEN);
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|bound| bound.local_addr())
            .expect("a port")
            .port();
        let log = self.directory(&format!("log-{port}"));
        let file = std::fs::File::create(&log).expect("a log");
        let binary = env!("CARGO_BIN_EXE_streamagg-processor");
        let mut command = match wrapper {
            [] => Command::new(binary),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(binary);
                command
            }
        };
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
            .env("STREAMAGG_CLOCK_AHEAD", self.directory("ahead"))
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

/// Writes a file that a process may be reading just then: it sees the whole of the old one or of this.
pub fn replace(path: &Path, text: &str) {
    let staged = path.with_extension("next");
    std::fs::write(&staged, text).expect("writes");
    std::fs::rename(&staged, path).expect("renames");
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
