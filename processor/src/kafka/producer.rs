//! The producer of one task. In transactions an epoch goes out whole or not at all; without, it is out when all of it is
//! acknowledged.
//! Must not hold: what an epoch is made of, or what follows a fence.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

use super::access::Right;
use super::brokers::Reminder;
use super::consumer::{client_config, stop_of};
use super::settings::Settings;
use super::trouble::Trouble;
use crate::pipeline::sink::Outgoing;
use crate::state::recovery::{Reason, Stop};

/// One call into librdkafka waits at most this long, so that the caller's heartbeat goes on.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a look at what was delivered is put off.
const LOOK_AGAIN: Duration = Duration::from_micros(500);
/// What takes longer is left to the library's own flush, which ends when the transaction has failed meanwhile: a right
/// on a topic that is missing fails it before anything is sent, and then no delivery is ever reported.
const FLUSH_MAX: Duration = Duration::from_secs(1);
/// After this long without an answer a commit's outcome is unknown.
const OUTCOME_TIMEOUT: Duration = Duration::from_secs(60);
/// An abort that takes longer is left to the next owner of the id, who settles it: this client may find no broker any more.
const ABORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the coordinator when a task starts.
const INIT_TIMEOUT: Duration = Duration::from_secs(60);

/// How a transaction failed; the classes of the protocol.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError {
    /// Nothing of it is visible and the producer is good: send the same epoch again.
    #[error("transaction aborted: {0}")]
    Aborted(String),
    /// A record is larger than its topic takes; nothing is visible.
    #[error("transaction aborted: a record is too large for topic {topic}")]
    TooLarge {
        /// The topic.
        topic: String,
    },
    /// Another owner initialised.
    #[error("fenced: {0}")]
    Fenced(String),
    /// It may or may not be visible.
    #[error("outcome of the commit is unknown: {0}")]
    Unknown(String),
    /// The task stops; nothing of it is visible.
    #[error(transparent)]
    Stop(#[from] Stop),
}

/// First delivery failure since the last look.
#[derive(Default)]
struct Deliveries {
    failed: Mutex<Option<(String, RDKafkaErrorCode)>>,
    trouble: Trouble,
}

impl Deliveries {
    fn note(&self, topic: &str, code: RDKafkaErrorCode) {
        self.failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_with(|| (topic.to_owned(), code));
    }
}

impl ClientContext for Deliveries {
    /// Which topic a transaction was refused for is said here and nowhere else: nothing was sent to it.
    fn log(&self, level: RDKafkaLogLevel, kind: &str, words: &str) {
        self.trouble.log(level, kind, words);
        if kind == "ADDPARTS"
            && words.contains("authorization failed")
            && let Some(topic) = words.split('"').nth(1)
        {
            self.note(topic, RDKafkaErrorCode::TopicAuthorizationFailed);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.trouble.hear(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        use rdkafka::message::Message as _;
        if let Err((error, message)) = result {
            // A purge by an abort follows from the failure that is already noted.
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
            if !matches!(code, RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight) {
                self.note(message.topic(), code);
            }
        }
    }
}

/// The producer. Dropping it leaves an open transaction to the next `init`.
pub struct TaskProducer {
    producer: BaseProducer<Deliveries>,
    settings: Settings,
    transactional: bool,
    /// For the answer that is waited for.
    reminder: Reminder,
}

impl TaskProducer {
    fn connect(settings: &Settings, transactional: bool) -> Result<Self, TransactionError> {
        let producer: BaseProducer<Deliveries> = client_config(settings)
            .create_with_context(Deliveries::default())
            .map_err(|error| settings.access().unusable(&error))?;
        Ok(Self {
            producer,
            settings: settings.clone(),
            transactional,
            reminder: Reminder::default(),
        })
    }

    /// A producer without transactions: it fences nobody.
    pub fn plain(settings: &Settings) -> Result<Self, TransactionError> {
        Self::connect(settings, false)
    }

    /// Connects and initialises: every earlier owner of the id is fenced, its open transaction settled.
    /// `alive` is called while waiting.
    pub fn init(settings: &Settings, alive: &dyn Fn()) -> Result<Self, TransactionError> {
        let this = Self::connect(settings, true)?;
        this.reminder.begin();
        let deadline = Instant::now() + INIT_TIMEOUT;
        loop {
            alive();
            let error = match this.producer.init_transactions(CALL_TIMEOUT) {
                Ok(()) => return Ok(this),
                Err(error) => error,
            };
            if let Some(stop) = this.refused(&error) {
                return Err(stop.into());
            }
            if is_fenced(&error) {
                return Err(TransactionError::Fenced(error.to_string()));
            }
            if !is_retriable(&error) || Instant::now() > deadline {
                return Err(Stop::new(
                    Reason::KafkaUnreachable,
                    format!("initialising the transactional producer: {error}; check the brokers of the sink"),
                )
                .into());
            }
            this.remind();
        }
    }

    /// The stop behind an error that no other attempt mends: a right that is missing, a connection that is refused.
    fn refused(&self, error: &KafkaError) -> Option<Stop> {
        let access = self.settings.access();
        match error.rdkafka_error_code() {
            Some(code @ RDKafkaErrorCode::TransactionalIdAuthorizationFailed) => {
                let id = self.settings.get("transactional.id").unwrap_or_default();
                Some(access.no_transactional_id(id, &code))
            }
            Some(code) => stop_of(code, Right::Write, "of the sink", access),
            None => None,
        }
        .or_else(|| {
            self.producer.poll(Duration::ZERO);
            self.producer.context().trouble.stop(&self.settings)
        })
    }

    /// Publishes `records` in one transaction. `before_commit` runs between the last send and the commit.
    pub fn publish<'a>(
        &self,
        records: impl Iterator<Item = Outgoing<'a>>,
        alive: &dyn Fn(),
        before_commit: &dyn Fn(),
    ) -> Result<(), TransactionError> {
        self.take_failure();
        self.reminder.begin();
        let began = Instant::now();
        self.producer
            .begin_transaction()
            .map_err(|error| self.outcome(&error, alive))?;
        for record in records {
            self.send(record, alive)?;
        }
        before_commit();
        let queued = began.elapsed();
        self.deliver(alive);
        let delivered = began.elapsed();
        self.commit(alive)?;
        tracing::debug!(?queued, ?delivered, committed = ?began.elapsed(), "transaction");
        Ok(())
    }

    /// Publishes `records` without a transaction and waits until each is acknowledged.
    pub fn publish_plain<'a>(
        &self,
        records: impl Iterator<Item = Outgoing<'a>>,
        alive: &dyn Fn(),
    ) -> Result<(), TransactionError> {
        self.take_failure();
        self.reminder.begin();
        for record in records {
            self.send(record, alive)?;
        }
        // Every record is acknowledged or given up by its own timeout before this.
        let deadline = Instant::now() + OUTCOME_TIMEOUT + CALL_TIMEOUT;
        while self.producer.in_flight_count() > 0 {
            if Instant::now() > deadline {
                return Err(TransactionError::Unknown("records are not acknowledged".to_owned()));
            }
            alive();
            self.look_later();
        }
        match self.take_failure() {
            None => Ok(()),
            Some((topic, code)) => Err(self.aborted(&KafkaError::MessageProduction(code), Some(&topic))),
        }
    }

    fn send(&self, outgoing: Outgoing<'_>, alive: &dyn Fn()) -> Result<(), TransactionError> {
        let mut headers = OwnedHeaders::new_with_capacity(outgoing.headers.len() + outgoing.trace.len());
        for (key, value) in outgoing.headers.iter().chain(outgoing.trace) {
            headers = headers.insert(Header {
                key,
                value: value.as_deref(),
            });
        }
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(outgoing.topic);
        record.partition = outgoing.partition;
        record.key = outgoing.key;
        record.payload = outgoing.value;
        record.timestamp = outgoing
            .timestamp_ms
            .map(|timestamp_ms| timestamp_ms.clamp(1, now_ms()));
        if !(outgoing.headers.is_empty() && outgoing.trace.is_empty()) {
            record.headers = Some(headers);
        }
        let deadline = Instant::now() + OUTCOME_TIMEOUT;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if Instant::now() < deadline =>
                {
                    alive();
                    self.look_later();
                    record = back;
                }
                Err((error, _)) => {
                    self.abort(alive)?;
                    return Err(self.aborted(&error, Some(outgoing.topic)));
                }
            }
        }
    }

    /// Awaits the records' acknowledgements. Not by the library's flush alone: it polls in slices of 100 ms whether or
    /// not anything is left.
    fn deliver(&self, alive: &dyn Fn()) {
        let deadline = Instant::now() + FLUSH_MAX;
        while self.producer.in_flight_count() > 0 && Instant::now() < deadline {
            alive();
            self.look_later();
        }
    }

    /// A moment later: what the client has to tell. By sleep, for its own wait takes whole milliseconds only and is a loop
    /// without a pause for what is left: all tasks of a pod wait at once, and the client and the broker need the cores.
    fn look_later(&self) {
        std::thread::sleep(LOOK_AGAIN);
        self.producer.poll(Duration::ZERO);
        self.remind();
    }

    /// No answer yet: the client may have forgotten its brokers.
    fn remind(&self) {
        self.reminder.still_waiting(self.producer.client(), &self.settings);
    }

    fn commit(&self, alive: &dyn Fn()) -> Result<(), TransactionError> {
        let deadline = Instant::now() + OUTCOME_TIMEOUT;
        loop {
            alive();
            match self.producer.commit_transaction(CALL_TIMEOUT) {
                Ok(()) => return Ok(()),
                Err(error) if is_retriable(&error) && Instant::now() < deadline => self.remind(),
                Err(error) => return Err(self.outcome(&error, alive)),
            }
        }
    }

    /// What an error that is not worth another try of the same call means.
    fn outcome(&self, error: &KafkaError, alive: &dyn Fn()) -> TransactionError {
        if is_fenced(error) {
            return TransactionError::Fenced(error.to_string());
        }
        let requires_abort = match error {
            KafkaError::Transaction(inner) => inner.txn_requires_abort(),
            // Flushing failed: the commit was not even asked for.
            KafkaError::Flush(_) => true,
            _ => false,
        };
        if !requires_abort {
            return TransactionError::Unknown(error.to_string());
        }
        let aborted = self.abort(alive);
        match (aborted, self.aborted(error, None)) {
            (Err(error @ TransactionError::Fenced(_)), _) => error,
            // Without a right the broker never began the transaction, and so refuses to abort it.
            (_, stop @ TransactionError::Stop(_)) | (Ok(()), stop) => stop,
            (Err(error), _) => error,
        }
    }

    /// The class of an aborted transaction by the failure behind it.
    fn aborted(&self, error: &KafkaError, topic: Option<&str>) -> TransactionError {
        let failure = self
            .take_failure()
            .or_else(|| Some((topic.unwrap_or("of the sink").to_owned(), error.rdkafka_error_code()?)));
        if let Some((topic, code)) = failure {
            if matches!(code, RDKafkaErrorCode::MessageSizeTooLarge) {
                return TransactionError::TooLarge { topic };
            }
            if matches!(code, RDKafkaErrorCode::InvalidTimestamp) {
                let message = format!(
                    "topic {topic} refuses the time of a record; raise its message.timestamp.before.max.ms, results \
                     carry the time of their window"
                );
                return TransactionError::Stop(Stop::new(Reason::SpecInvalid, message));
            }
            if let Some(stop) = stop_of(code, Right::Write, &topic, self.settings.access()) {
                return TransactionError::Stop(stop);
            }
        }
        if let Some(stop) = self.refused(error) {
            return TransactionError::Stop(stop);
        }
        TransactionError::Aborted(error.to_string())
    }

    fn abort(&self, alive: &dyn Fn()) -> Result<(), TransactionError> {
        if !self.transactional {
            return Ok(());
        }
        let deadline = Instant::now() + ABORT_TIMEOUT;
        loop {
            alive();
            self.producer.poll(Duration::ZERO);
            match self.producer.abort_transaction(CALL_TIMEOUT) {
                Ok(()) => return Ok(()),
                Err(error) if is_fenced(&error) => return Err(TransactionError::Fenced(error.to_string())),
                Err(error) if is_retriable(&error) && Instant::now() < deadline => self.remind(),
                Err(error) => return Err(TransactionError::Unknown(format!("abort failed: {error}"))),
            }
        }
    }

    fn take_failure(&self) -> Option<(String, RDKafkaErrorCode)> {
        self.producer
            .context()
            .failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// The latest timestamp a record is given. Brokers refuse records from the future (an hour, by default), and a task
/// whose results are refused would try them for ever; librdkafka takes 0 for "now" and brokers nothing below.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX).max(1)
}

fn is_retriable(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(inner) => inner.is_retriable(),
        // Still flushing: the records are on their way.
        KafkaError::Flush(code) => matches!(code, RDKafkaErrorCode::OperationTimedOut),
        _ => false,
    }
}

fn is_fenced(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::Fenced
                | RDKafkaErrorCode::ProducerFenced
                | RDKafkaErrorCode::InvalidProducerEpoch
                | RDKafkaErrorCode::FencedInstanceId
        )
    )
}
