//! A broker as the suites need it: topics, producing, reading a topic as committed. Must not judge what is read.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message as _};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::checker::{OutputRecord, SourceRecord};
use crate::traffic::Message;
use crate::wait::{Seen, await_condition, pause};

const TIMEOUT: Duration = Duration::from_secs(30);
/// A reader that hears nothing for so long connects anew.
const SILENT_MAX: Duration = Duration::from_secs(5);
/// Records in the producer's queue at most, before a send waits.
const QUEUE_MAX: &str = "50000";

/// A broker by its address.
#[derive(Clone, Debug)]
pub struct Broker {
    /// `host:port` on loopback.
    pub bootstrap: String,
}

impl Broker {
    /// Starts a broker of its own with the project's script.
    ///
    /// # Errors
    /// What the script said.
    pub fn start(name: &str) -> Result<Self, String> {
        Self::start_with(name, &[])
    }

    /// The same with options of the script.
    ///
    /// # Errors
    /// What the script said.
    pub fn start_with(name: &str, options: &[&str]) -> Result<Self, String> {
        let output = script(&[&["start", name], options].concat())?;
        let bootstrap = output.lines().find_map(|line| line.strip_prefix("KAFKA_BOOTSTRAP="));
        let bootstrap = bootstrap.ok_or_else(|| format!("kafka.sh did not say where it listens: {output}"))?;
        Ok(Self {
            bootstrap: bootstrap.to_owned(),
        })
    }

    /// Stops a broker started here and removes its data.
    ///
    /// # Errors
    /// What the script said.
    pub fn delete(name: &str) -> Result<(), String> {
        script(&["delete", name]).map(drop)
    }

    /// Ends a broker started here by SIGKILL; [`Self::start`] starts it again.
    ///
    /// # Errors
    /// What the script said.
    pub fn kill(name: &str) -> Result<(), String> {
        script(&["kill", name]).map(drop)
    }

    /// Stops the process of a broker started here where it is, by SIGSTOP.
    ///
    /// # Errors
    /// What the script said.
    pub fn pause(name: &str) -> Result<(), String> {
        script(&["pause", name]).map(drop)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// What the script said.
    pub fn resume(name: &str) -> Result<(), String> {
        script(&["continue", name]).map(drop)
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }

    /// Creates topics; those that are there are left.
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn create_topics(&self, topics: &[(&str, i32)]) -> Result<(), String> {
        let admin: AdminClient<DefaultClientContext> = self.config().create().map_err(|error| error.to_string())?;
        let topics: Vec<NewTopic<'_>> = topics
            .iter()
            .map(|(name, partitions)| NewTopic::new(name, *partitions, TopicReplication::Fixed(1)))
            .collect();
        let options = AdminOptions::new()
            .operation_timeout(Some(TIMEOUT))
            .request_timeout(Some(TIMEOUT));
        let created = block_on(admin.create_topics(&topics, &options)).map_err(|error| error.to_string())?;
        for result in created {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(format!("topic {topic}: {code}")),
            }
        }
        topics.iter().try_for_each(|topic| await_topic(&admin, topic.name))
    }

    /// A producer.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub fn loader(&self, topic: &str) -> Result<Loader, String> {
        Ok(Loader {
            producer: self.producer()?,
            broker: self.clone(),
            topic: topic.to_owned(),
            produced: 0,
        })
    }

    /// Not an idempotent one: librdkafka's turns without a pause while a partition has five records on their way and more
    /// to send (its issue 3692), and starves a broker that is slow. What comes twice, or late, is in the topic so.
    fn producer(&self) -> Result<LoadProducer, String> {
        self.config()
            .set("queue.buffering.max.messages", QUEUE_MAX)
            .set("linger.ms", "5")
            .create()
            .map_err(|error| error.to_string())
    }

    /// A reader of everything committed in a topic, as outputs.
    ///
    /// # Errors
    /// When the topic cannot be found.
    pub fn reader(&self, topic: &str) -> Result<Reader<OutputRecord>, String> {
        Reader::open(self, topic).map_err(|error| format!("topic {topic}: {error}"))
    }

    /// The same as a source.
    ///
    /// # Errors
    /// When the topic cannot be found.
    pub fn source_reader(&self, topic: &str) -> Result<Reader<SourceRecord>, String> {
        Reader::open(self, topic).map_err(|error| format!("topic {topic}: {error}"))
    }
}

/// The controller has made a topic; who asks a broker for it is told a moment later.
fn await_topic(admin: &AdminClient<DefaultClientContext>, name: &str) -> Result<(), String> {
    await_condition(name, TIMEOUT, || {
        let metadata = match admin.inner().fetch_metadata(Some(name), TIMEOUT) {
            Ok(metadata) => metadata,
            Err(error) => return Seen::NotYet(error.to_string()),
        };
        let known = |found: &MetadataTopic| {
            let led = found.partitions().iter().all(|partition| partition.leader() >= 0);
            found.name() == name && found.error().is_none() && !found.partitions().is_empty() && led
        };
        if metadata.topics().iter().any(known) {
            Seen::Done(())
        } else {
            Seen::NotYet("not known, or without a leader".to_owned())
        }
    })
}

fn script(arguments: &[&str]) -> Result<String, String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/broker/kafka.sh");
    let output = Command::new(path)
        .args(arguments)
        .output()
        .map_err(|error| format!("{path}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!(
            "{path} {arguments:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        ))
    }
}

/// Drives one future of librdkafka's admin client: its own thread completes it, so all there is to do is to look again.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => pause(Duration::from_millis(20)),
        }
    }
}

type LoadProducer = ThreadedProducer<rdkafka::producer::DefaultProducerContext>;

/// Produces to a topic. A client may never find a broker again when the only one was away: then another takes its place,
/// and what it had not sent is not sent. What must have come out is worked out from what is in the topic.
pub struct Loader {
    producer: LoadProducer,
    broker: Broker,
    topic: String,
    /// Records accepted so far.
    pub produced: u64,
}

impl Loader {
    /// Queues a record.
    ///
    /// # Errors
    /// When the client refuses for another reason than a full queue.
    pub fn send(&mut self, message: &Message) -> Result<(), String> {
        let began = std::time::Instant::now();
        loop {
            let record = BaseRecord::to(&self.topic)
                .partition(message.partition)
                .key(message.key.as_bytes())
                .payload(&message.value[..]);
            match self.producer.send(record) {
                Ok(()) => {
                    self.produced += 1;
                    return Ok(());
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) if began.elapsed() < TIMEOUT => {
                    pause(Duration::from_millis(10));
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    self.producer = self.broker.producer()?;
                }
                Err((error, _)) => return Err(error.to_string()),
            }
        }
    }

    /// Waits until everything is in the topic.
    ///
    /// # Errors
    /// When it is not within the timeout; another client then produces what comes next.
    pub fn flush(&mut self) -> Result<(), String> {
        let Err(error) = self.producer.flush(TIMEOUT) else {
            return Ok(());
        };
        self.producer = self.broker.producer()?;
        Err(error.to_string())
    }
}

/// What a reader keeps of a record: a long run has millions of them.
pub trait Kept {
    /// That of this record.
    fn of(message: &BorrowedMessage<'_>) -> Self;
}

/// Everything committed in a topic; reads on from call to call.
pub struct Reader<R> {
    consumer: BaseConsumer,
    broker: Broker,
    topic: String,
    /// Next offset to read, by partition.
    next: BTreeMap<i32, i64>,
    /// Records read so far, those of a partition in its order.
    pub records: Vec<R>,
}

impl<R: Kept> Reader<R> {
    fn connect(broker: &Broker) -> Result<BaseConsumer, KafkaError> {
        broker
            .config()
            .set("group.id", "streamagg-e2e")
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .create()
    }

    fn open(broker: &Broker, topic: &str) -> Result<Self, KafkaError> {
        let consumer = Self::connect(broker)?;
        let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
        let found = metadata
            .topics()
            .iter()
            .find(|found| found.name() == topic && found.error().is_none());
        let partitions = found.map_or(0, |found| i32::try_from(found.partitions().len()).unwrap_or_default());
        if partitions == 0 {
            return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition));
        }
        let next = (0..partitions).map(|partition| (partition, 0)).collect();
        let reader = Self {
            consumer,
            broker: broker.clone(),
            topic: topic.to_owned(),
            next,
            records: Vec::new(),
        };
        reader.assign()?;
        Ok(reader)
    }

    /// Assigns every partition anew: the end of each is then told again, even of one where nothing has changed.
    fn assign(&self) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in &self.next {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(*offset))?;
        }
        self.consumer.assign(&list)
    }

    /// Reads to the present end of every partition, as a read_committed reader sees it; answers how many were new.
    ///
    /// # Errors
    /// When the broker does, or when an end was not reached in time: half a topic must not pass for the whole.
    pub fn read_on(&mut self) -> Result<usize, String> {
        let before = self.records.len();
        let mut records = std::mem::take(&mut self.records);
        let read = self.visit(&mut |message| {
            records.push(R::of(message));
            Ok(())
        });
        self.records = records;
        read.map(|()| self.records.len() - before)
    }

    /// The same, handing each new record on without keeping it.
    ///
    /// # Errors
    /// When the broker does, when an end was not reached in time, or `visit`'s own.
    pub fn visit(&mut self, visit: &mut dyn FnMut(&BorrowedMessage<'_>) -> Result<(), String>) -> Result<(), String> {
        let mut at_end = std::collections::BTreeSet::new();
        self.assign().map_err(|error| error.to_string())?;
        let mut heard = std::time::Instant::now();
        let mut silent_since = heard;
        while at_end.len() < self.next.len() {
            match self.consumer.poll(Duration::from_millis(300)) {
                Some(Ok(message)) => {
                    self.next.insert(message.partition(), message.offset() + 1);
                    visit(&message)?;
                    heard = std::time::Instant::now();
                    silent_since = heard;
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    at_end.insert(partition);
                }
                Some(Err(error)) if !passes(&error) => return Err(error.to_string()),
                Some(Err(_)) | None if silent_since.elapsed() < SILENT_MAX => {}
                Some(Err(_)) | None if heard.elapsed() < TIMEOUT => {
                    // A client may never find a broker again when the only one was away.
                    let again = Self::connect(&self.broker).and_then(|consumer| {
                        self.consumer = consumer;
                        self.assign()
                    });
                    again.map_err(|error| error.to_string())?;
                    at_end.clear();
                    silent_since = std::time::Instant::now();
                }
                Some(Err(_)) | None => {
                    return Err(format!(
                        "topic {}: ends of {at_end:?} only after {TIMEOUT:?}",
                        self.topic
                    ));
                }
            }
        }
        Ok(())
    }

    /// The next record as soon as it can be read, or nothing after `wait`. It is not kept in `records`.
    ///
    /// # Errors
    /// When the broker does.
    pub fn next(&mut self, wait: Duration) -> Result<Option<R>, String> {
        match self.consumer.poll(wait) {
            None | Some(Err(KafkaError::PartitionEOF(_))) => Ok(None),
            Some(Ok(message)) => Ok(Some(R::of(&message))),
            Some(Err(error)) => Err(error.to_string()),
        }
    }
}

/// The broker is gone or does not answer: the client goes on by itself.
fn passes(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut};
    matches!(
        error,
        KafkaError::MessageConsumption(AllBrokersDown | BrokerTransportFailure | OperationTimedOut)
    )
}

impl Kept for SourceRecord {
    fn of(message: &BorrowedMessage<'_>) -> Self {
        Self {
            partition: message.partition(),
            offset: message.offset(),
            value: message.payload().unwrap_or_default().to_vec(),
        }
    }
}

impl Kept for OutputRecord {
    fn of(message: &BorrowedMessage<'_>) -> Self {
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        Self {
            key: text(message.key()),
            value: text(message.payload()),
            headers: headers
                .map(|header| (header.key.to_owned(), text(header.value)))
                .collect(),
        }
    }
}
