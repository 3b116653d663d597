//! How the brokers of a valid manifest are reached, with the place of every secret and the field that names it.
//! Must not read a secret.

use crate::v1alpha1::{KafkaSasl, KafkaSink, KafkaSource, KafkaTls, SaslMechanism, SinkSecurity};

/// How the brokers of a cluster are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// TLS; absent: none.
    pub tls: Option<Tls>,
    /// SASL; absent: none.
    pub sasl: Option<Sasl>,
}

/// A key of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretKey {
    /// Path of the field that names it, such as `spec.source.kafka.tls.caSecretRef`.
    pub field: String,
    /// Name of the Secret.
    pub secret: String,
    /// Its key.
    pub key: String,
}

/// TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Path of the field, such as `spec.source.kafka.tls`.
    pub field: String,
    /// Authorities that are trusted; absent: those of the image.
    pub authorities: Option<SecretKey>,
    /// What is presented; absent: nothing.
    pub certificate: Option<Certificate>,
}

/// A client's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate, with those between it and the authority.
    pub chain: SecretKey,
    /// Its private key.
    pub private_key: SecretKey,
}

/// SASL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sasl {
    /// Path of the field, such as `spec.source.kafka.sasl`.
    pub field: String,
    /// How the user proves who it is.
    pub mechanism: SaslMechanism,
    /// The user's name.
    pub username: Username,
    /// The password.
    pub password: SecretKey,
}

/// A user's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Username {
    /// As the manifest has it.
    Text(String),
    /// In a Secret.
    Secret(SecretKey),
}

impl Security {
    /// Every key of a Secret that is needed, in a fixed order; one that serves twice comes twice.
    pub fn secret_keys(&self) -> Vec<&SecretKey> {
        let tls = self.tls.iter().flat_map(|tls| {
            let certificate = tls.certificate.iter();
            let pair = certificate.flat_map(|certificate| [&certificate.chain, &certificate.private_key]);
            tls.authorities.iter().chain(pair)
        });
        let sasl = self.sasl.iter().flat_map(|sasl| {
            let username = match &sasl.username {
                Username::Text(_) => None,
                Username::Secret(key) => Some(key),
            };
            username.into_iter().chain([&sasl.password])
        });
        tls.chain(sasl).collect()
    }
}

pub(super) fn of_source(kafka: &KafkaSource) -> Security {
    security("spec.source.kafka", kafka.tls.as_ref(), kafka.sasl.as_ref())
}

pub(super) fn of_sink(kafka: &KafkaSink, source: &Security) -> Security {
    let own = security("spec.sink.kafka", kafka.tls.as_ref(), kafka.sasl.as_ref());
    match kafka.security {
        SinkSecurity::Own => own,
        SinkSecurity::FromSource => Security {
            tls: own.tls.or_else(|| source.tls.clone()),
            sasl: own.sasl.or_else(|| source.sasl.clone()),
        },
    }
}

fn security(parent: &str, tls: Option<&KafkaTls>, sasl: Option<&KafkaSasl>) -> Security {
    Security {
        tls: tls.map(|spec| resolved_tls(format!("{parent}.tls"), spec)),
        sasl: sasl.map(|spec| resolved_sasl(format!("{parent}.sasl"), spec)),
    }
}

fn resolved_tls(field: String, spec: &KafkaTls) -> Tls {
    let certificate = spec.cert_secret_ref.as_ref().map(|reference| {
        let key = |key: &String| SecretKey {
            field: format!("{field}.certSecretRef"),
            secret: reference.name.clone(),
            key: key.clone(),
        };
        Certificate {
            chain: key(&reference.certificate_key),
            private_key: key(&reference.private_key_key),
        }
    });
    let authorities = spec.ca_secret_ref.as_ref().map(|reference| SecretKey {
        field: format!("{field}.caSecretRef"),
        secret: reference.name.clone(),
        key: reference.key.clone(),
    });
    Tls {
        field,
        authorities,
        certificate,
    }
}

fn resolved_sasl(field: String, spec: &KafkaSasl) -> Sasl {
    let key = |key: &str| SecretKey {
        field: format!("{field}.secretRef"),
        secret: spec.secret_ref.name.clone(),
        key: key.to_owned(),
    };
    let username = match &spec.username {
        Some(name) => Username::Text(name.clone()),
        None => Username::Secret(key(spec.secret_ref.username_key.as_deref().unwrap_or("username"))),
    };
    let password = key(&spec.secret_ref.password_key);
    Sasl {
        field,
        mechanism: spec.mechanism,
        username,
        password,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kafka(security: serde_json::Value) -> KafkaSource {
        let mut source = json!({"bootstrapServers": ["kafka:9093"], "topics": ["events"]});
        source
            .as_object_mut()
            .unwrap()
            .extend(security.as_object().unwrap().clone());
        serde_json::from_value(source).unwrap()
    }

    fn keys(security: &Security) -> Vec<String> {
        let text = |key: &&SecretKey| format!("{} {}/{}", key.field, key.secret, key.key);
        security.secret_keys().iter().map(text).collect()
    }

    #[test]
    fn every_secret_key_in_use_is_told_with_its_field() {
        let source = of_source(&kafka(json!({
            "tls": {"caSecretRef": {"name": "ca"}, "certSecretRef": {"name": "me", "certificateKey": "user.crt"}},
            "sasl": {"mechanism": "Plain", "secretRef": {"name": "user"}},
        })));
        let wanted = [
            "spec.source.kafka.tls.caSecretRef ca/ca.crt",
            "spec.source.kafka.tls.certSecretRef me/user.crt",
            "spec.source.kafka.tls.certSecretRef me/tls.key",
            "spec.source.kafka.sasl.secretRef user/username",
            "spec.source.kafka.sasl.secretRef user/password",
        ];
        assert_eq!(keys(&source), wanted);
        let named = of_source(&kafka(json!({
            "sasl": {"mechanism": "ScramSha512", "username": "me", "secretRef": {"name": "user"}},
        })));
        assert_eq!(keys(&named), ["spec.source.kafka.sasl.secretRef user/password"]);
        assert_eq!(named.sasl.unwrap().username, Username::Text("me".into()));
    }

    #[test]
    fn a_sink_takes_what_it_does_not_name_from_the_source_unless_it_stands_alone() {
        let source = of_source(&kafka(json!({
            "tls": {"caSecretRef": {"name": "ca"}}, "sasl": {"mechanism": "Plain", "secretRef": {"name": "user"}},
        })));
        let sink = |text: serde_json::Value| of_sink(&serde_json::from_value(text).unwrap(), &source);
        assert_eq!(sink(json!({"topic": "t"})), source);
        let other_user = sink(json!({"topic": "t", "sasl": {"mechanism": "Plain", "secretRef": {"name": "other"}}}));
        assert_eq!(other_user.tls, source.tls);
        assert_eq!(
            other_user.sasl.unwrap().password.field,
            "spec.sink.kafka.sasl.secretRef"
        );
        assert_eq!(sink(json!({"topic": "t", "security": "Own"})), Security::default());
        let own = sink(json!({"topic": "t", "security": "Own", "tls": {}}));
        assert_eq!(
            (own.tls.unwrap().field.as_str(), own.sasl),
            ("spec.sink.kafka.tls", None)
        );
    }
}
