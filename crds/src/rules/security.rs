//! Rules about TLS and SASL towards brokers. Must not hold what a schema can say.

use super::across::rule;
use super::{Place, Rule};

pub(super) fn rules() -> Vec<Rule> {
    ["spec.source.kafka.sasl", "spec.sink.kafka.sasl"]
        .into_iter()
        .flat_map(|path| [mechanism(path), one_username(path)])
        .collect()
}

fn mechanism(path: &'static str) -> Rule {
    let works = rule(
        path,
        ".mechanism",
        "OAuthBearer is not supported yet by this version; give Plain, ScramSha256 or ScramSha512",
        "self.mechanism != 'OAuthBearer'",
        |sasl| sasl.get("mechanism").is_none_or(|mechanism| mechanism != "OAuthBearer"),
    );
    Rule {
        from: Place::Kafka,
        ..works
    }
}

fn one_username(path: &'static str) -> Rule {
    rule(
        path,
        ".username",
        "give username or secretRef.usernameKey, not both",
        "!has(self.username) || !has(self.secretRef.usernameKey)",
        |sasl| sasl.get("username").is_none() || sasl.pointer("/secretRef/usernameKey").is_none(),
    )
}
