//! Rules that compare fields of one manifest. Must not hold rules about a change.

use serde_json::Value;

use super::{Check, Place, Rule};
use crate::structure;
use crate::value::{Instant, Quantity};

/// Longest name of an object: pods and their labels add to it and end at 63.
const NAME_LENGTH_MAX: usize = 50;

pub(super) fn rules() -> Vec<Rule> {
    let mut rules = vec![name(), one_topic(), drift_in_two_stages()];
    rules.extend(topics());
    rules.extend(state());
    rules.extend(rust_only());
    rules
}

pub(super) fn rule(
    path: &'static str,
    field: &'static str,
    message: &str,
    cel: &str,
    check: fn(&Value) -> bool,
) -> Rule {
    let cel = (!cel.is_empty()).then(|| cel.to_owned());
    Rule {
        path: path.into(),
        field,
        message: message.to_owned(),
        cel,
        check: Check::Node(check),
        from: Place::Laptop,
    }
}

pub(super) fn text<'a>(node: &'a Value, pointer: &str) -> Option<&'a str> {
    node.pointer(pointer)?.as_str()
}

fn texts<'a>(node: &'a Value, pointer: &str) -> Vec<&'a str> {
    node.pointer(pointer)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn name() -> Rule {
    rule(
        "",
        "metadata.name",
        "metadata.name must be 1 to 50 of a-z, 0-9 and '-', begin with a letter and not end with '-': it names pods and a service",
        "self.metadata.name.size() <= 50 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        |root| {
            text(root, "/metadata/name").is_none_or(|name| {
                name.len() <= NAME_LENGTH_MAX
                    && name.starts_with(|first: char| first.is_ascii_lowercase())
                    && !name.ends_with('-')
                    && name
                        .bytes()
                        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            })
        },
    )
}

fn one_topic() -> Rule {
    rule(
        "spec.source",
        ".kafka.topics",
        "give exactly one topic with partitioning byKey",
        "!has(self.kafka) || !has(self.partitioning.byKey) || self.kafka.topics.size() == 1",
        |source| source.pointer("/partitioning/byKey").is_none() || texts(source, "/kafka/topics").len() <= 1,
    )
}

/// Partitions that share no window have nothing to wait for.
fn drift_in_two_stages() -> Rule {
    Rule {
        from: Place::Kafka,
        ..rule(
            "spec",
            ".event.maxDrift",
            "is for partitioning any, where windows wait for the slowest partition: with byKey each partition has windows of \
             its own; remove it",
            "!has(self.event.maxDrift) || has(self.source.partitioning.any)",
            |spec| spec.pointer("/event/maxDrift").is_none() || spec.pointer("/source/partitioning/any").is_some(),
        )
    }
}

/// Whether the sink is on the source's cluster, as far as the manifest tells.
fn same_cluster(spec: &Value) -> bool {
    let sink = texts(spec, "/sink/kafka/bootstrapServers");
    let source = texts(spec, "/source/kafka/bootstrapServers");
    sink.is_empty() || sink.iter().any(|server| source.contains(server))
}

fn reads(spec: &Value, topic: Option<&str>) -> bool {
    topic.is_some_and(|topic| texts(spec, "/source/kafka/topics").contains(&topic)) && same_cluster(spec)
}

const CEL_SINK_ELSEWHERE: &str = "(has(self.sink.kafka.bootstrapServers) && \
     !self.sink.kafka.bootstrapServers.exists(s, s in self.source.kafka.bootstrapServers))";

fn topics() -> Vec<Rule> {
    let sink = rule(
        "spec",
        ".sink.kafka.topic",
        "is a topic that the job reads: it would read its own results; choose another topic",
        &format!(
            "!has(self.sink.kafka) || !has(self.source.kafka) || !(self.sink.kafka.topic in self.source.kafka.topics) || {CEL_SINK_ELSEWHERE}"
        ),
        |spec| !reads(spec, text(spec, "/sink/kafka/topic")),
    );
    let side = |field, name, check| {
        rule(
            "spec",
            field,
            "is the topic of the source or of results; choose another topic",
            &format!(
                "!has(self.{name}.kafka) || !has(self.sink.kafka) || !has(self.source.kafka) || \
                 (self.{name}.kafka.topic != self.sink.kafka.topic && \
                 (!(self.{name}.kafka.topic in self.source.kafka.topics) || {CEL_SINK_ELSEWHERE}))"
            ),
            check,
        )
    };
    fn apart(spec: &Value, topic: Option<&str>) -> bool {
        topic.is_none() || (topic != text(spec, "/sink/kafka/topic") && !reads(spec, topic))
    }
    vec![
        sink,
        side(".lateEvents.kafka.topic", "lateEvents", |spec| {
            apart(spec, text(spec, "/lateEvents/kafka/topic"))
        }),
        side(".deadLetters.kafka.topic", "deadLetters", |spec| {
            apart(spec, text(spec, "/deadLetters/kafka/topic"))
        }),
    ]
}

fn state() -> Vec<Rule> {
    let volume = rule(
        "spec.state",
        ".volume",
        "backend RocksDB needs a volume; give volume: {size: 10Gi}",
        "self.backend != 'RocksDB' || has(self.volume)",
        |state| text(state, "/backend") != Some("RocksDB") || state.get("volume").is_some(),
    );
    let claim = rule(
        "spec.state.checkpoints.store.volume",
        ".claimName",
        "give the claim of a volume that all pods can write to",
        "has(self.claimName)",
        |store| store.get("claimName").is_some(),
    );
    let inside = rule(
        "spec.state.checkpoints.store.volume.path",
        "",
        "must not contain '..'",
        "!self.contains('..')",
        |path| path.as_str().is_none_or(|path| !path.contains("..")),
    );
    vec![
        Rule {
            from: Place::Cluster,
            ..volume
        },
        Rule {
            from: Place::Cluster,
            ..claim
        },
        inside,
    ]
}

/// What CEL cannot say. An object that breaks one of these is accepted by the API server and gets `SpecValid=False`.
fn rust_only() -> Vec<Rule> {
    vec![
        rule(
            "spec.source.kafka.startFrom.timestamp",
            "",
            "is no day or time that exists",
            "",
            exists,
        ),
        rule(
            "spec.resources",
            ".requests",
            "a request is above its limit; lower it or raise the limit",
            "",
            |node| {
                let limits = node.get("limits").and_then(Value::as_object);
                let requests = node.get("requests").and_then(Value::as_object);
                requests.into_iter().flatten().all(|(name, request)| {
                    let limit = limits.and_then(|limits| limits.get(name));
                    match (quantity(Some(request)), quantity(limit)) {
                        (Some(request), Some(limit)) => request.thousandths() <= limit.thousandths(),
                        (_, _) => true,
                    }
                })
            },
        ),
        rule(
            "",
            "spec.jobId",
            "jobId with '-control' or '-shuffle' is the job's own topic; the manifest names it as a topic of events or \
             results",
            "",
            |root| {
                own_topics(root).iter().all(|own| {
                    let written = [
                        "/spec/sink/kafka/topic",
                        "/spec/lateEvents/kafka/topic",
                        "/spec/deadLetters/kafka/topic",
                    ];
                    !texts(root, "/spec/source/kafka/topics").contains(&own.as_str())
                        && written.iter().all(|pointer| text(root, pointer) != Some(own.as_str()))
                })
            },
        ),
    ]
}

/// Topics that belong to the job; none where the manifest does not tell its name.
fn own_topics(root: &Value) -> Vec<String> {
    let namespace = text(root, "/metadata/namespace").unwrap_or("default");
    let named = || Some(format!("{namespace}.{}", text(root, "/metadata/name")?));
    let job_id = text(root, "/spec/jobId").map(str::to_owned).or_else(named);
    let of = |job_id: String| ["control", "shuffle"].map(|topic| format!("{job_id}-{topic}"));
    job_id.into_iter().flat_map(of).collect()
}

fn quantity(node: Option<&Value>) -> Option<Quantity> {
    serde_json::from_value(node?.clone()).ok()
}

fn exists(instant: &Value) -> bool {
    // What has not even the form of a time is the schema's to refuse.
    instant
        .as_str()
        .is_none_or(|text| text.parse::<Instant>().is_ok() || !structure::matches(Instant::PATTERN, text))
}
