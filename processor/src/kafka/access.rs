//! Who a client is towards the brokers, for messages: which field and which Secret to look at when they refuse. Pure.
//! Must not hold: a secret, or a client.

use streamagg_crds::resolved::{Sasl, SecretKey, Security, Tls, Username};

use crate::state::recovery::{Reason, Stop};

/// Who a client is, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    sasl: Option<String>,
    authorities: Option<String>,
    certificate: Option<String>,
    tls: bool,
}

/// A right on a topic, by Kafka's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// To know that it is there.
    Describe,
    /// To read records.
    Read,
    /// To write records.
    Write,
    /// To create it.
    Create,
    /// To delete records of it.
    Delete,
}

impl Right {
    /// Its name as access control lists have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Describe => "Describe",
            Self::Read => "Read",
            Self::Write => "Write",
            Self::Create => "Create",
            Self::Delete => "Delete",
        }
    }

    /// What it allows.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Describe => "describe",
            Self::Read => "read",
            Self::Write => "write",
            Self::Create => "create",
            Self::Delete => "delete records of",
        }
    }
}

/// How a connection to a broker failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The broker does not believe who the client says it is.
    Authentication,
    /// The two do not agree on TLS, or one refuses the other's certificate.
    Tls,
    /// The broker closed a connection that had only begun: without a user that is what one does that wants one.
    Closed,
    /// Neither: nothing listens, the connection broke, …
    Other,
}

impl Failure {
    /// The class of what librdkafka says about a connection, beside its code: a broker that refuses a client's
    /// certificate only closes the connection, which has no code of its own.
    pub fn of_words(words: &str) -> Self {
        let has = |part: &str| words.contains(part);
        let closed = has("/bootstrap") && has("closed by peer");
        let before_the_first_answer = closed && has("APIVERSION_QUERY");
        if has("SASL") && ["failed", "error", "mechanism", "require"].into_iter().any(has) {
            Self::Authentication
        } else if has("SSL") || has("ssl") || has("security.protocol") || before_the_first_answer {
            Self::Tls
        } else if closed {
            Self::Closed
        } else {
            Self::Other
        }
    }
}

impl Access {
    /// The words for a cluster reached so.
    pub fn new(security: &Security) -> Self {
        let tls = security.tls.as_ref();
        Self {
            sasl: security.sasl.as_ref().map(user),
            authorities: tls.map(authorities),
            certificate: tls
                .and_then(|tls| tls.certificate.as_ref())
                .map(|certificate| place(&certificate.chain)),
            tls: tls.is_some(),
        }
    }

    /// Whom to grant a right to.
    pub fn who(&self) -> String {
        match (&self.sasl, &self.certificate) {
            (Some(user), _) => format!("the user of {user}"),
            (None, Some(certificate)) => format!("the user of the certificate in {certificate}"),
            (None, None) => "clients without a user (no sasl and no certificate is declared)".to_owned(),
        }
    }

    /// The stop when a right on a topic is missing.
    pub fn no_right(&self, right: Right, topic: &str, answer: &dyn std::fmt::Display) -> Stop {
        Stop::new(
            Reason::KafkaUnauthorized,
            format!(
                "no right to {} topic {topic}: the broker answered {answer}; grant {} on topic {topic} to {}",
                right.verb(),
                right.as_str(),
                self.who()
            ),
        )
    }

    /// The stop when a transactional id may not be used.
    pub fn no_transactional_id(&self, id: &str, answer: &dyn std::fmt::Display) -> Stop {
        let prefix = id.split('/').next().unwrap_or(id);
        Stop::new(
            Reason::KafkaUnauthorized,
            format!(
                "no right to use transactional id {id}: the broker answered {answer}; grant Write and Describe on \
                 transactional ids with the prefix {prefix}/ to {}",
                self.who()
            ),
        )
    }

    /// The stop when a consumer group may not be joined.
    pub fn no_group(&self, group: &str, answer: &dyn std::fmt::Display) -> Stop {
        Stop::new(
            Reason::KafkaUnauthorized,
            format!(
                "no right to join group {group}: the broker answered {answer}; grant Read on group {group} to {}",
                self.who()
            ),
        )
    }

    /// The stop when a connection failed so, if a person has to look at what the manifest says of it.
    pub fn refused(&self, failure: Failure, servers: &str, words: &str) -> Option<Stop> {
        let look_at = match failure {
            Failure::Authentication => self.look_at_user(),
            Failure::Closed if self.sasl.is_none() => self.look_at_user(),
            Failure::Tls => self.look_at_tls(),
            Failure::Closed | Failure::Other => return None,
        };
        Some(Stop::new(
            Reason::KafkaUnauthorized,
            format!("the brokers at {servers} refuse the connection: {words}; {look_at}"),
        ))
    }

    /// The stop when librdkafka takes no client with these settings.
    pub fn unusable(&self, error: &dyn std::fmt::Display) -> Stop {
        let words = error.to_string();
        // Files of a Secret may be changing right now: that passes.
        let (reason, look_at) = if self.tls && words.contains("ssl") {
            (Reason::KafkaUnauthorized, format!("; {}", self.look_at_tls()))
        } else {
            (Reason::SpecInvalid, String::new())
        };
        Stop::new(
            reason,
            format!("spec.source.kafka, spec.sink.kafka: the Kafka client refuses its settings: {words}{look_at}"),
        )
    }

    fn look_at_user(&self) -> String {
        match &self.sasl {
            Some(user) => format!("check name and password in {user}, and the mechanism"),
            None => "they want a user: declare spec.source.kafka.sasl or spec.sink.kafka.sasl".to_owned(),
        }
    }

    fn look_at_tls(&self) -> String {
        let Some(authorities) = &self.authorities else {
            return "they want TLS: declare spec.source.kafka.tls or spec.sink.kafka.tls".to_owned();
        };
        let certificate = match &self.certificate {
            Some(certificate) => format!("and that they trust the certificate in {certificate}"),
            None => "and whether they want a client's certificate (certSecretRef; none is declared)".to_owned(),
        };
        format!("check that their certificate is signed by {authorities} and names the host asked for, {certificate}")
    }
}

/// `Secret NAME key KEY (field)`.
pub fn place(key: &SecretKey) -> String {
    format!("Secret {} key {} ({})", key.secret, key.key, key.field)
}

fn user(sasl: &Sasl) -> String {
    match &sasl.username {
        Username::Text(_) => format!("{}.username and {}", sasl.field, place(&sasl.password)),
        Username::Secret(name) => format!(
            "Secret {} keys {} and {} ({})",
            name.secret, name.key, sasl.password.key, sasl.password.field
        ),
    }
}

fn authorities(tls: &Tls) -> String {
    match &tls.authorities {
        Some(key) => place(key),
        None => format!("an authority of the image ({}.caSecretRef is not given)", tls.field),
    }
}

#[cfg(test)]
mod tests {
    use streamagg_crds::v1alpha1::SaslMechanism;

    use super::*;

    fn key(field: &str, key: &str) -> SecretKey {
        SecretKey {
            field: format!("spec.source.kafka.{field}"),
            secret: "s".into(),
            key: key.into(),
        }
    }

    fn secured() -> Access {
        Access::new(&Security {
            tls: Some(Tls {
                field: "spec.source.kafka.tls".into(),
                authorities: Some(key("tls.caSecretRef", "ca.crt")),
                certificate: None,
            }),
            sasl: Some(Sasl {
                field: "spec.source.kafka.sasl".into(),
                mechanism: SaslMechanism::Plain,
                username: Username::Secret(key("sasl.secretRef", "username")),
                password: key("sasl.secretRef", "password"),
            }),
        })
    }

    #[test]
    fn words_of_librdkafka_have_a_class() {
        for (words, class) in [
            (
                "sasl_ssl://h:1/bootstrap: SASL authentication error: Authentication failed: Invalid username or password",
                Failure::Authentication,
            ),
            (
                "SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL mechanism",
                Failure::Authentication,
            ),
            (
                "ssl://h:1/bootstrap: SSL handshake failed: certificate verify failed",
                Failure::Tls,
            ),
            (
                "Disconnected: might be caused by incorrect security.protocol configuration",
                Failure::Tls,
            ),
            (
                "h:1/bootstrap: Disconnected: connection closed by peer: receive 0 after POLLIN (after 0ms in state \
                 APIVERSION_QUERY)",
                Failure::Tls,
            ),
            (
                "h:1/bootstrap: Disconnected: connection closed by peer: receive 0 after POLLIN (after 0ms in state UP)",
                Failure::Closed,
            ),
            (
                "h:1/1: Disconnected: verify that security.protocol is correctly configured, broker might require SASL \
                 authentication (after 1ms in state UP)",
                Failure::Authentication,
            ),
            (
                "h:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused",
                Failure::Other,
            ),
        ] {
            assert_eq!(Failure::of_words(words), class, "{words}");
        }
    }

    #[test]
    fn a_refusal_names_the_field_and_the_key_to_look_at() {
        let stop = |access: &Access, failure| access.refused(failure, "h:1", "no").unwrap().message;
        let (some, none) = (secured(), Access::default());
        for (message, part) in [
            (
                stop(&some, Failure::Authentication),
                "Secret s keys username and password (spec.source.kafka.sasl.secretRef)",
            ),
            (
                stop(&some, Failure::Tls),
                "Secret s key ca.crt (spec.source.kafka.tls.caSecretRef)",
            ),
            (stop(&none, Failure::Authentication), "declare spec.source.kafka.sasl"),
            (stop(&none, Failure::Tls), "declare spec.source.kafka.tls"),
            (
                some.no_right(Right::Read, "events", &"no").message,
                "grant Read on topic events to the user of Secret s",
            ),
            (
                some.no_transactional_id("job/task/events/0", &"no").message,
                "with the prefix job/ to the user",
            ),
            (
                some.no_group("job-tasks", &"no").message,
                "grant Read on group job-tasks to the user of Secret s",
            ),
        ] {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(some.refused(Failure::Other, "h:1", "no"), None);
        assert_eq!(some.refused(Failure::Closed, "h:1", "no"), None);
        assert!(stop(&none, Failure::Closed).contains("declare spec.source.kafka.sasl"));
    }
}
