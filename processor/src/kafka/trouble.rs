//! Hears what a client says about its connections: the calls that fail only say that no broker answered.
//! Must not hold: what follows from it (`access`).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer, ProducerContext};

use super::access::Failure;
use super::consumer::client_config;
use super::settings::Settings;
use crate::state::recovery::Stop;

/// Longest wait for a broker's word about a connection that does not come about.
const LISTEN_MAX: Duration = Duration::from_secs(5);

/// The last failure of a connection that says why.
#[derive(Default)]
pub struct Trouble {
    last: Mutex<Option<(Failure, String)>>,
}

impl Trouble {
    /// Takes the failure heard since the last look.
    pub fn take(&self) -> Option<(Failure, String)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The stop that the failure heard since the last look means, if it means one.
    pub fn stop(&self, settings: &Settings) -> Option<Stop> {
        let (failure, words) = self.take()?;
        let servers = settings.servers();
        settings.access().refused(failure, servers, &words)
    }

    /// Notes what the client says.
    pub fn hear(&self, error: &KafkaError, words: &str) {
        tracing::debug!(%error, words, "Kafka client");
        let failure = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
                Failure::Authentication
            }
            Some(RDKafkaErrorCode::SSL) => Failure::Tls,
            // Follows from what was heard before it.
            Some(RDKafkaErrorCode::AllBrokersDown) => return,
            Some(_) | None => Failure::of_words(words),
        };
        self.note(failure, words);
    }

    fn note(&self, failure: Failure, words: &str) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // What says why is not forgotten for what does not.
        if failure != Failure::Other || last.is_none() {
            *last = Some((failure, words.to_owned()));
        }
    }
}

impl ClientContext for Trouble {
    fn error(&self, error: KafkaError, reason: &str) {
        self.hear(&error, reason);
    }

    /// A broker that only closes the connection, as one with TLS does with a client without, makes no error but a line.
    fn log(&self, level: RDKafkaLogLevel, kind: &str, words: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::error!(target: "librdkafka", kind, words)
            }
            RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::debug!(target: "librdkafka", kind, words)
            }
        }
        if kind == "FAIL" {
            self.note(Failure::of_words(words), words);
        }
    }
}

impl ConsumerContext for Trouble {}

impl ProducerContext for Trouble {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// Connects once more and listens for why that fails: an admin client tells nobody. `None`: it does not fail, or nothing
/// was said.
pub fn listen(settings: &Settings) -> Result<Option<(Failure, String)>, Stop> {
    let producer: BaseProducer<Trouble> = client_config(settings)
        // A broker that refuses a client may do no more than close the connection.
        .set("log.connection.close", "true")
        .set_log_level(RDKafkaLogLevel::Info)
        .create_with_context(Trouble::default())
        .map_err(|error| settings.access().unusable(&error))?;
    let deadline = Instant::now() + LISTEN_MAX;
    while Instant::now() < deadline {
        let answered = producer.client().fetch_metadata(None, Duration::from_millis(500));
        producer.poll(Duration::from_millis(50));
        let heard = producer.context().take();
        if answered.is_ok() || heard.is_some() {
            return Ok(heard);
        }
    }
    Ok(None)
}
