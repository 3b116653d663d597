//! Rules about one node: unions, fields and values that do not work yet, reserved names, positive durations.
//! Must not hold rules that compare fields.

use serde_json::{Value, json};

use super::{COMPOSITE_MEMBERS, Check, Place, Rule};

/// Fields refused where there are pods.
const NOT_YET_IN_A_CLUSTER: &[&str] = &["spec.autoscaling"];

pub(super) fn not_yet() -> impl Iterator<Item = (&'static str, Place)> {
    NOT_YET_IN_A_CLUSTER.iter().map(|path| (*path, Place::Cluster))
}

/// Unions: path, members that work, members that do not work yet (these have a rule of their own).
const UNIONS: [(&str, &[&str], &str); 36] = [
    ("spec.source", &["kafka"], "kafka"),
    (
        "spec.source.kafka.startFrom",
        &["earliest", "latest", "timestamp"],
        "earliest, latest, timestamp",
    ),
    ("spec.source.format", &["json"], "json"),
    ("spec.source.partitioning", &["byKey", "any"], "byKey, any"),
    ("spec.event.timestamp", &["field", "record"], "field, record"),
    (
        "spec.event.watermark",
        &["boundedOutOfOrderness", "monotonic", "punctuated", "periodic"],
        "boundedOutOfOrderness, monotonic, punctuated, periodic",
    ),
    (
        "spec.groupBy[]",
        &["field", "value", "header", "metadata"],
        "field, value, header, metadata",
    ),
    (
        "spec.groupBy[].whenMissing",
        &["reject", "null", "default"],
        "reject, null, default",
    ),
    (
        "spec.windows[]",
        &[
            "tumbling",
            "sliding",
            "session",
            "cumulative",
            "count",
            "calendar",
            "global",
        ],
        "tumbling, sliding, session, cumulative, count, calendar, global",
    ),
    ("spec.windows[].session", &["gap", "gapField"], "gap, gapField"),
    (
        "spec.windows[].trigger.early",
        &["everyEvents", "every"],
        "everyEvents, every",
    ),
    (
        "spec.windows[].trigger.late",
        &["everyEvents", "every"],
        "everyEvents, every",
    ),
    (
        "spec.aggregates[]",
        &AGGREGATES,
        "count, sum, average, min, max, percentile, first, last, argMin, argMax, variance, stddev, distinct, topK, \
         histogram, rate, ratio, weightedAverage, composite",
    ),
    ("spec.aggregates[].sum", &["field", "value"], "field, value"),
    ("spec.aggregates[].average", &["field", "value"], "field, value"),
    ("spec.aggregates[].min", &["field", "value"], "field, value"),
    ("spec.aggregates[].max", &["field", "value"], "field, value"),
    ("spec.aggregates[].percentile", &["field", "value"], "field, value"),
    ("spec.aggregates[].first", &["field", "value"], "field, value"),
    ("spec.aggregates[].last", &["field", "value"], "field, value"),
    ("spec.aggregates[].argMin", &["field", "value"], "field, value"),
    ("spec.aggregates[].argMax", &["field", "value"], "field, value"),
    ("spec.aggregates[].variance", &["field", "value"], "field, value"),
    ("spec.aggregates[].stddev", &["field", "value"], "field, value"),
    ("spec.aggregates[].distinct", &["field", "value"], "field, value"),
    ("spec.aggregates[].topK", &["field", "value"], "field, value"),
    ("spec.aggregates[].histogram", &["field", "value"], "field, value"),
    ("spec.aggregates[].weightedAverage", &["field", "value"], "field, value"),
    ("spec.aggregates[].argMin.by", &["field", "value"], "field, value"),
    ("spec.aggregates[].argMax.by", &["field", "value"], "field, value"),
    ("spec.aggregates[].ratio.numerator", &["field", "value"], "field, value"),
    (
        "spec.aggregates[].ratio.denominator",
        &["field", "value"],
        "field, value",
    ),
    (
        "spec.aggregates[].weightedAverage.weight",
        &["field", "value"],
        "field, value",
    ),
    ("spec.sink", &["kafka"], "kafka"),
    ("spec.lateEvents", &["kafka", "drop"], "kafka, drop"),
    ("spec.deadLetters", &["kafka", "drop"], "kafka, drop"),
];
const STORES: (&str, &[&str], &str) = (
    "spec.state.checkpoints.store",
    &["s3", "volume", "gcs", "azure"],
    "s3, volume, gcs, azure",
);
/// Path of aggregates.
const AGGREGATE: &str = "spec.aggregates[]";
/// Functions; the last one consists of others.
const AGGREGATES: [&str; 19] = [
    "count",
    "sum",
    "average",
    "min",
    "max",
    "percentile",
    "first",
    "last",
    "argMin",
    "argMax",
    "variance",
    "stddev",
    "distinct",
    "topK",
    "histogram",
    "rate",
    "ratio",
    "weightedAverage",
    "composite",
];

/// Durations that must be longer than nothing.
const POSITIVE: [&str; 16] = [
    "spec.source.kafka.loadShedding.whenBehind",
    "spec.event.watermark.periodic.step",
    "spec.event.idle.after",
    "spec.event.maxDrift",
    "spec.aggregates[].rate.per",
    "spec.windows[].tumbling.size",
    "spec.windows[].sliding.size",
    "spec.windows[].sliding.slide",
    "spec.windows[].cumulative.size",
    "spec.windows[].cumulative.step",
    "spec.windows[].session.gap",
    "spec.windows[].session.maxDuration",
    "spec.windows[].trigger.early.every",
    "spec.windows[].trigger.late.every",
    "spec.state.checkpoints.interval",
    "spec.state.checkpoints.retain.age",
];

/// Names that expressions need for themselves.
const RESERVED: [&str; 22] = [
    "event",
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Settings of librdkafka's consumer that a manifest may set. What is left out would change what is read, or is
/// decided by the engine.
const PROPERTIES: [&str; 19] = [
    "broker.address.family",
    "broker.address.ttl",
    "client.rack",
    "connections.max.idle.ms",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "max.partition.fetch.bytes",
    "metadata.max.age.ms",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.timeout.ms",
];

/// Names that the API server writes differently in CEL.
const CEL_RESERVED: [&str; 1] = ["null"];

pub(super) fn rules() -> Vec<Rule> {
    let mut rules: Vec<Rule> = not_yet().map(|(path, from)| absent(path, from)).collect();
    rules.extend(only());
    rules.extend(
        UNIONS
            .into_iter()
            .chain([STORES])
            .map(|(path, members, works)| union(path, members, works)),
    );
    rules.extend(POSITIVE.into_iter().map(positive));
    rules.extend(["spec.let[].name", "spec.groupBy[].name", "spec.aggregates[].name"].map(not_reserved));
    let members: Vec<Rule> = rules.iter().filter_map(of_members).collect();
    rules.extend(members);
    rules.push(allowed_properties());
    rules.push(kept_share());
    rules
}

/// A rule about aggregates as one about the members of a composite, which is the one function that they have not.
fn of_members(rule: &Rule) -> Option<Rule> {
    let (path, (_, functions)) = (rule.path.strip_prefix(AGGREGATE)?, AGGREGATES.split_last()?);
    Some(Rule {
        path: format!("{COMPOSITE_MEMBERS}{path}").into(),
        ..match rule.check {
            Check::OneOf(_) if path.is_empty() => union(COMPOSITE_MEMBERS, functions, &functions.join(", ")),
            _ => rule.clone(),
        }
    })
}

fn node(path: &'static str, message: impl Into<String>, cel: impl Into<String>, check: Check) -> Rule {
    Rule {
        path: path.into(),
        field: "",
        message: message.into(),
        cel: Some(cel.into()),
        check,
        from: Place::Laptop,
    }
}

fn absent(path: &'static str, from: Place) -> Rule {
    let message = format!("{path} is not supported yet by this version; remove it");
    Rule {
        from,
        ..node(path, message, "false", Check::Absent)
    }
}

fn only() -> Vec<Rule> {
    [
        ("spec.upgrade.rollback", json!(false), Place::Cluster),
        ("spec.upgrade.canary", json!(false), Place::Cluster),
    ]
    .into_iter()
    .map(|(path, value, from)| {
        let message = format!("{path} other than {value} is not supported yet by this version; remove it");
        let cel = format!("self == {value}");
        Rule {
            from,
            ..node(path, message, cel, Check::Only(value))
        }
    })
    .collect()
}

fn union(path: &'static str, members: &'static [&'static str], works: &str) -> Rule {
    let has = members
        .iter()
        .map(|name| {
            if CEL_RESERVED.contains(name) {
                format!("has(self.__{name}__)")
            } else {
                format!("has(self.{name})")
            }
        })
        .collect::<Vec<_>>()
        .join(", ");
    let message = if works.contains(',') {
        format!("give exactly one of {works}")
    } else {
        format!("give {works}")
    };
    node(
        path,
        message,
        format!("[{has}].filter(x, x).size() == 1"),
        Check::OneOf(members),
    )
}

fn positive(path: &'static str) -> Rule {
    // What has not the form of a duration is the schema's to refuse.
    let check = |node: &Value| {
        node.as_str().is_none_or(|text| {
            let unit = text.trim_start_matches('0');
            unit == text || unit.is_empty() || !unit.bytes().all(|byte| byte.is_ascii_lowercase())
        })
    };
    node(
        path,
        "must be longer than 0",
        "!self.matches('^0+[a-z]+$')",
        Check::Node(check),
    )
}

/// No bounds of the schema: the API server compares a whole number with the whole part of a bound.
fn kept_share() -> Rule {
    node(
        "spec.source.kafka.loadShedding.keepAtLeast",
        "must be from 0.001 to 0.5: the share that is kept is halved",
        "self >= 0.001 && self <= 0.5",
        Check::Node(|node| node.as_f64().is_none_or(|share| (0.001..=0.5).contains(&share))),
    )
}

fn not_reserved(path: &'static str) -> Rule {
    let check = |node: &Value| node.as_str().is_none_or(|name| !RESERVED.contains(&name));
    node(
        path,
        "is a word that expressions reserve; choose another name",
        format!("!(self in [{}])", quoted(&RESERVED)),
        Check::Node(check),
    )
}

fn allowed_properties() -> Rule {
    let check = |node: &Value| {
        node.as_object()
            .is_none_or(|object| object.keys().all(|name| PROPERTIES.contains(&name.as_str())))
    };
    let message = format!(
        "a setting is not among those a manifest may set: {}",
        PROPERTIES.join(", ")
    );
    let cel = format!("self.all(name, name in [{}])", quoted(&PROPERTIES));
    node("spec.source.kafka.properties", message, cel, Check::Node(check))
}

fn quoted(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| format!("'{name}'"))
        .collect::<Vec<_>>()
        .join(", ")
}
