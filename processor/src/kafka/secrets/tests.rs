//! Tests of `secrets`. Must not need a broker.

use streamagg_crds::resolved::Certificate;

use super::*;

const CA: &str = "-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN EC PRIVATE KEY-----\nYQ==\n-----END EC PRIVATE KEY-----\n";

fn key(field: &str, key: &str) -> SecretKey {
    SecretKey {
        field: format!("spec.sink.kafka.{field}"),
        secret: "user".into(),
        key: key.into(),
    }
}

fn security() -> Security {
    Security {
        tls: Some(Tls {
            field: "spec.sink.kafka.tls".into(),
            authorities: Some(key("tls.caSecretRef", "ca.crt")),
            certificate: Some(Certificate {
                chain: key("tls.certSecretRef", "tls.crt"),
                private_key: key("tls.certSecretRef", "tls.key"),
            }),
        }),
        sasl: Some(Sasl {
            field: "spec.sink.kafka.sasl".into(),
            mechanism: SaslMechanism::ScramSha256,
            username: Username::Secret(key("sasl.secretRef", "username")),
            password: key("sasl.secretRef", "password"),
        }),
    }
}

fn laid_out() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("user")).unwrap();
    let files = [
        ("ca.crt", CA),
        ("tls.crt", CA),
        ("tls.key", KEY),
        ("username", "alice\n"),
        ("password", "pass word\r\n"),
    ];
    for (name, text) in files {
        std::fs::write(root.path().join("user").join(name), text).unwrap();
    }
    root
}

#[test]
fn every_kind_of_secret_becomes_a_setting() {
    let root = laid_out();
    let secrets = Secrets::new(Some(root.path().into()));
    let settings = secrets.connection(&security()).unwrap();
    let path = |name: &str| root.path().join("user").join(name).display().to_string();
    for (name, value) in [
        ("security.protocol", "sasl_ssl"),
        ("ssl.ca.location", path("ca.crt").as_str()),
        ("ssl.certificate.location", &path("tls.crt")),
        ("ssl.key.location", &path("tls.key")),
        ("sasl.mechanism", "SCRAM-SHA-256"),
        ("sasl.username", "alice"),
        ("sasl.password", "pass word"),
    ] {
        assert_eq!(settings.get(name), Some(value), "{name}");
    }
    let protocol = |security: &Security| {
        let settings = secrets.connection(security).unwrap();
        settings.get("security.protocol").map(str::to_owned)
    };
    let (tls, sasl) = (security().tls, security().sasl);
    assert_eq!(protocol(&Security { tls, sasl: None }).as_deref(), Some("ssl"));
    assert_eq!(
        protocol(&Security { tls: None, sasl }).as_deref(),
        Some("sasl_plaintext")
    );
    assert_eq!(protocol(&Security::default()), None);
}

#[test]
fn settings_never_show_what_is_secret() {
    let root = laid_out();
    let settings = Secrets::new(Some(root.path().into())).connection(&security()).unwrap();
    let shown = format!("{settings:?}");
    for secret in ["pass word", "alice"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(shown.contains("SCRAM-SHA-256"), "{shown}");
}

#[test]
fn what_is_missing_or_of_no_use_is_named_with_its_field_and_key() {
    for (name, text, part) in [
        (
            "ca.crt",
            None,
            "Secret user key ca.crt (spec.sink.kafka.tls.caSecretRef) is missing",
        ),
        (
            "tls.crt",
            Some("abc"),
            "key tls.crt (spec.sink.kafka.tls.certSecretRef) is no PEM document",
        ),
        (
            "tls.key",
            Some(CA),
            "key tls.key (spec.sink.kafka.tls.certSecretRef) is no PEM document",
        ),
        (
            "tls.key",
            Some("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"),
            "a private key with a password",
        ),
        (
            "username",
            Some("\n"),
            "key username (spec.sink.kafka.sasl.secretRef) is empty",
        ),
        (
            "password",
            None,
            "key password (spec.sink.kafka.sasl.secretRef) is missing",
        ),
        ("password", Some("a\nb\n"), "holds a line end"),
    ] {
        let root = laid_out();
        let path = root.path().join("user").join(name);
        match text {
            Some(text) => std::fs::write(path, text).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
        let stop = Secrets::new(Some(root.path().into()))
            .connection(&security())
            .unwrap_err();
        assert_eq!(stop.reason, Reason::KafkaUnauthorized);
        assert!(stop.message.contains(part), "{}", stop.message);
    }
    let stop = Secrets::default().connection(&security()).unwrap_err();
    assert!(
        stop.reason == Reason::SpecInvalid && stop.message.contains("--secrets-dir"),
        "{stop}"
    );
}
