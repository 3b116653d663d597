//! What follows from a valid spec: unions as enums, durations in ms, defaults filled in. Consumers need no further checks.
//! Must not hold the manifest's own shape or the rules that make it valid.

mod aggregate;
mod security;
mod shedding;
mod store;
mod window;

use std::collections::{BTreeMap, BTreeSet};

pub use self::aggregate::{Aggregate, Function};
pub use self::security::{Certificate, Sasl, SecretKey, Security, Tls, Username};
pub use self::shedding::LoadShedding;
pub use self::store::{Store, store};
use crate::expression::{self, Expression, Name, Node};
use crate::v1alpha1::{
    Compression, EventSpec, IdleAdvance, IdleSpec, KeyDefault, Partitioner, RecordProperty, SideOutput, SinkSpec,
    StartFrom, StreamAggregationSpec, TimeUnit, TimestampSpec, WhenMissing,
};
use crate::value::JsonPointer;

pub use self::window::{Gap, Repeat, Trigger, Window, WindowKind};

/// A job, ready to run. Made by [`crate::validate::resolve`] only.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// Identity towards Kafka.
    pub job_id: String,
    /// What to read.
    pub source: Source,
    /// Whether a record broken outside the fields in use is a dead letter.
    pub strict_json: bool,
    /// Where an event's time comes from.
    pub timestamp: Timestamp,
    /// How event time is known to have advanced.
    pub watermark: Watermark,
    /// What happens to the watermark of a partition without records.
    pub idle: Option<Idle>,
    /// How far beyond the clock an event's time may be, ms; absent: any time is taken.
    pub max_future_skew_ms: Option<i64>,
    /// The array whose elements become events of their own.
    pub explode: Option<JsonPointer>,
    /// Values derived from each event, in order; each refers only to those before it.
    pub lets: Vec<Let>,
    /// What an event has to meet.
    pub condition: Option<Expression>,
    /// Parts of the group key, in order.
    pub group_by: Vec<KeyPart>,
    /// Windows, in order.
    pub windows: Vec<Window>,
    /// Aggregates, in order.
    pub aggregates: Vec<Aggregate>,
    /// Where results go.
    pub sink: Sink,
    /// Topic for late events; absent: dropped.
    pub late_topic: Option<String>,
    /// Topic for dead letters; absent: dropped.
    pub dead_letter_topic: Option<String>,
    /// Share of dead letters above which a task stops.
    pub max_bad_ratio: f64,
}

/// Kafka topics to read.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// `host:port` of brokers.
    pub bootstrap_servers: Vec<String>,
    /// The topics by name, so that their order in the manifest means nothing; several only with two stages.
    pub topics: Vec<String>,
    /// Partitions of the topic between two stages; absent: one stage, a key's events are in one partition.
    pub shuffle_partitions: Option<u32>,
    /// How its brokers are reached.
    pub security: Security,
    /// Where the first run begins.
    pub start: Start,
    /// How far a partition's watermark may be ahead of the slowest one's, ms; absent: no partition waits for another.
    pub max_drift_ms: Option<i64>,
    /// Records that a task reads in a second at most; absent: no limit.
    pub max_records_per_second: Option<u64>,
    /// When a task passes over records; absent: never.
    pub load_shedding: Option<LoadShedding>,
    /// Settings for librdkafka's consumer.
    pub properties: BTreeMap<String, String>,
}

/// Where the first run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record.
    Earliest,
    /// After the newest record.
    Latest,
    /// At the first record not before this time, ms since the Unix epoch.
    TimestampMs(i64),
}

/// Where an event's time comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Timestamp {
    /// A field of the event.
    Field {
        /// The field.
        field: JsonPointer,
        /// How it is written.
        unit: TimeUnit,
    },
    /// The record's own timestamp.
    Record,
}

/// How event time is known to have advanced. Bounds are 0 or more, steps positive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watermark {
    /// The newest event time less a bound.
    BoundedOutOfOrderness {
        /// The bound, ms.
        bound_ms: i64,
    },
    /// The newest event time.
    Monotonic,
    /// The newest mark.
    Punctuated {
        /// Field that holds a mark.
        field: JsonPointer,
        /// How it is written.
        unit: TimeUnit,
    },
    /// The newest event time less a bound, floored to a step.
    Periodic {
        /// The bound, ms.
        bound_ms: i64,
        /// The step, ms.
        step_ms: i64,
    },
}

impl Watermark {
    /// How far the watermark stays behind the newest event at least, ms.
    pub fn bound_ms(&self) -> i64 {
        match self {
            Self::BoundedOutOfOrderness { bound_ms } | Self::Periodic { bound_ms, .. } => *bound_ms,
            Self::Monotonic | Self::Punctuated { .. } => 0,
        }
    }
}

/// What happens to the watermark of a partition without records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// How long it must have had none, ms.
    pub after_ms: i64,
    /// How the watermark then moves.
    pub advance: IdleAdvance,
}

/// A value derived from each event.
#[derive(Clone, Debug, PartialEq)]
pub struct Let {
    /// Its name.
    pub name: String,
    /// What it is.
    pub expression: Expression,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A field of the event.
    Field(JsonPointer),
    /// A value of [`Resolved::lets`], by its place.
    Let(usize),
}

/// Where a part of the group key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The event.
    Input(Input),
    /// A header of its record.
    Header(String),
    /// A property of its record.
    Property(RecordProperty),
}

/// A part of the group key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPart {
    /// Name in the result.
    pub name: String,
    /// What it is.
    pub source: KeySource,
    /// What happens when it is missing or null.
    pub when_missing: Missing,
}

/// What happens when a part of the key is missing or null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Dead letter.
    Reject,
    /// The part is null.
    Null,
    /// The part is this value.
    Default(KeyDefault),
}

/// Where results go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sink {
    /// `host:port` of brokers (the source's, when the manifest names none).
    pub bootstrap_servers: Vec<String>,
    /// How they are reached.
    pub security: Security,
    /// Topic of results.
    pub topic: String,
    /// Compression of what is written.
    pub compression: Compression,
    /// Which partition a result goes to.
    pub partitioner: Partitioner,
}

impl Resolved {
    /// `None` when a union has no member that works: then validation has found it, so this is never seen by users.
    pub(crate) fn from_valid(spec: &StreamAggregationSpec, job_id: String) -> Option<Self> {
        let source = source(spec)?;
        let lets = lets(spec)?;
        Some(Self {
            job_id,
            strict_json: spec.source.format.json?.strict,
            timestamp: timestamp(&spec.event.timestamp)?,
            watermark: watermark(&spec.event)?,
            idle: spec.event.idle.as_ref().and_then(idle),
            max_future_skew_ms: spec.event.max_future_skew.and_then(ms),
            explode: spec.explode.as_ref().map(|explode| explode.field.clone()),
            condition: expression(spec.where_.as_deref(), &lets)?,
            group_by: spec
                .group_by
                .iter()
                .map(|key| key_part(key, &lets))
                .collect::<Option<_>>()?,
            windows: spec.windows.iter().map(window::window).collect::<Option<_>>()?,
            aggregates: aggregate::aggregates(&spec.aggregates, &lets)?,
            lets,
            sink: sink(&spec.sink, &source)?,
            late_topic: side_topic(&spec.late_events),
            dead_letter_topic: side_topic(&spec.dead_letters),
            max_bad_ratio: spec.max_bad_ratio,
            source,
        })
    }

    /// What an input is, in a text that is equal for equal values: part of the identity of stored state.
    pub fn identity(&self, input: &Input) -> String {
        match input {
            Input::Field(field) => field.as_str().to_owned(),
            Input::Let(index) => self.lets.get(*index).map_or_else(String::new, |value| {
                format!("= {}", self.identity_of(&value.expression))
            }),
        }
    }

    /// As [`Self::identity`], of a part of the key.
    pub fn key_identity(&self, source: &KeySource) -> String {
        match source {
            KeySource::Input(input) => self.identity(input),
            KeySource::Header(name) => format!("header {name}"),
            KeySource::Property(property) => format!("record {property:?}"),
        }
    }

    /// The canonical text of an expression with the values of `let` that it needs, directly or not.
    pub fn identity_of(&self, expression: &Expression) -> String {
        let mut needed = vec![false; self.lets.len()];
        let mark = |root: &Node, needed: &mut Vec<bool>| {
            root.walk(&mut |node| {
                if let Node::Let(index, _) = node
                    && let Some(flag) = needed.get_mut(*index)
                {
                    *flag = true;
                }
            });
        };
        mark(&expression.root, &mut needed);
        // Each refers only to those before it, so one pass from the last on finds them all.
        for index in (0..self.lets.len()).rev() {
            if needed[index] {
                mark(&self.lets[index].expression.root, &mut needed);
            }
        }
        let mut text = expression.root.to_string();
        for (value, _) in self.lets.iter().zip(&needed).filter(|(_, needed)| **needed) {
            text.push_str(&format!("; {} = {}", value.name, value.expression.root));
        }
        text
    }
}

fn names(lets: &[Let]) -> Vec<Name> {
    let name = |value: &Let| Name {
        name: value.name.clone(),
        kind: value.expression.kind,
    };
    lets.iter().map(name).collect()
}

fn lets(spec: &StreamAggregationSpec) -> Option<Vec<Let>> {
    let mut lets = Vec::new();
    for value in &spec.let_ {
        let expression = expression::compile(&value.value, &names(&lets)).ok()?;
        lets.push(Let {
            name: value.name.clone(),
            expression,
        });
    }
    Some(lets)
}

fn expression(text: Option<&str>, lets: &[Let]) -> Option<Option<Expression>> {
    text.map(|text| expression::compile(text, &names(lets)).ok())
        .map_or(Some(None), |found| found.map(Some))
}

fn input(field: Option<&JsonPointer>, value: Option<&str>, lets: &[Let]) -> Option<Input> {
    match (field, value) {
        (Some(field), _) => Some(Input::Field(field.clone())),
        (None, Some(name)) => lets.iter().position(|known| known.name == name).map(Input::Let),
        (None, None) => None,
    }
}

fn ms(duration: crate::value::Duration) -> Option<i64> {
    i64::try_from(duration.ms()).ok()
}

fn source(spec: &StreamAggregationSpec) -> Option<Source> {
    let kafka = spec.source.kafka.as_ref()?;
    Some(Source {
        bootstrap_servers: kafka.bootstrap_servers.clone(),
        topics: kafka
            .topics
            .iter()
            .cloned()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
        shuffle_partitions: spec.source.partitioning.any.map(|any| any.shuffle_partitions),
        security: security::of_source(kafka),
        start: start(&kafka.start_from)?,
        max_drift_ms: spec.event.max_drift.and_then(ms),
        max_records_per_second: kafka.max_records_per_second.and_then(|most| u64::try_from(most).ok()),
        load_shedding: kafka.load_shedding.as_ref().and_then(shedding::load_shedding),
        properties: kafka.properties.clone(),
    })
}

fn start(from: &StartFrom) -> Option<Start> {
    match (&from.earliest, &from.latest, &from.timestamp) {
        (Some(_), _, _) => Some(Start::Earliest),
        (None, Some(_), _) => Some(Start::Latest),
        (None, None, Some(instant)) => Some(Start::TimestampMs(instant.ms())),
        (None, None, None) => None,
    }
}

fn timestamp(spec: &TimestampSpec) -> Option<Timestamp> {
    match (&spec.field, &spec.record) {
        (Some(field), _) => Some(Timestamp::Field {
            field: field.clone(),
            unit: spec.unit,
        }),
        (None, Some(_)) => Some(Timestamp::Record),
        (None, None) => None,
    }
}

fn watermark(event: &EventSpec) -> Option<Watermark> {
    let spec = &event.watermark;
    if let Some(bounded) = &spec.bounded_out_of_orderness {
        let bound_ms = ms(bounded.bound)?;
        Some(Watermark::BoundedOutOfOrderness { bound_ms })
    } else if spec.monotonic.is_some() {
        Some(Watermark::Monotonic)
    } else if let Some(punctuated) = &spec.punctuated {
        Some(Watermark::Punctuated {
            field: punctuated.field.clone(),
            unit: event.timestamp.unit,
        })
    } else {
        let periodic = spec.periodic.as_ref()?;
        Some(Watermark::Periodic {
            bound_ms: ms(periodic.bound)?,
            step_ms: ms(periodic.step)?,
        })
    }
}

fn idle(spec: &IdleSpec) -> Option<Idle> {
    Some(Idle {
        after_ms: ms(spec.after)?,
        advance: spec.advance,
    })
}

fn key_part(key: &crate::v1alpha1::GroupKey, lets: &[Let]) -> Option<KeyPart> {
    let source = match (&key.header, key.metadata) {
        (Some(name), _) => KeySource::Header(name.clone()),
        (None, Some(property)) => KeySource::Property(property),
        (None, None) => KeySource::Input(input(key.field.as_ref(), key.value.as_deref(), lets)?),
    };
    Some(KeyPart {
        name: key.name.clone(),
        source,
        when_missing: missing(&key.when_missing)?,
    })
}

fn missing(rule: &WhenMissing) -> Option<Missing> {
    match (&rule.reject, &rule.null, &rule.default) {
        (Some(_), _, _) => Some(Missing::Reject),
        (None, Some(_), _) => Some(Missing::Null),
        (None, None, Some(value)) => Some(Missing::Default(value.clone())),
        (None, None, None) => None,
    }
}

fn sink(sink: &SinkSpec, source: &Source) -> Option<Sink> {
    let kafka = sink.kafka.as_ref()?;
    Some(Sink {
        bootstrap_servers: kafka
            .bootstrap_servers
            .clone()
            .unwrap_or_else(|| source.bootstrap_servers.clone()),
        security: security::of_sink(kafka, &source.security),
        topic: kafka.topic.clone(),
        compression: kafka.compression,
        partitioner: kafka.partitioner,
    })
}

fn side_topic(output: &SideOutput) -> Option<String> {
    output.kafka.as_ref().map(|kafka| kafka.topic.clone())
}
