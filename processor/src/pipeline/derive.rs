//! What an event is seen as: the values of `let` and the grouping key.
//! Must not hold state, or what becomes of an event that has no key.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use smallvec::SmallVec;
use streamagg_crds::resolved::{self, Input, KeySource, Missing};
use streamagg_crds::v1alpha1::{KeyDefault, RecordProperty};

use crate::core::decimal;
use crate::core::json::{FieldTree, Kind};
use crate::core::key;
use crate::error::RejectReason;
use crate::expression::{Budget, EvaluationError, Event, Program, Value};
use crate::pipeline::output::Record;

/// Values of `let`, in order.
pub type Values<'a> = SmallVec<[Value<'a>; 8]>;

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A field, by its slot.
    Field(usize),
    /// A value of `let`, by its place.
    Let(usize),
}

impl Source {
    /// Compiles an input; a field gets a slot.
    pub fn compile(input: &Input, fields: &mut FieldTree) -> Self {
        match input {
            Input::Field(field) => Self::Field(fields.add(field.as_str())),
            Input::Let(index) => Self::Let(*index),
        }
    }
}

/// Computes the values of `let` and the grouping key of events.
#[derive(Clone, Debug, Default)]
pub struct Derivation {
    lets: Vec<(String, Program)>,
    parts: Vec<Part>,
}

/// What a part of the key is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartSource {
    /// A value of the event.
    Value(Source),
    /// A header of its record.
    Header(String),
    /// A property of its record.
    Property(RecordProperty),
}

impl PartSource {
    fn compile(source: &KeySource, fields: &mut FieldTree) -> Self {
        match source {
            KeySource::Input(input) => Self::Value(Source::compile(input, fields)),
            KeySource::Header(name) => Self::Header(name.clone()),
            KeySource::Property(property) => Self::Property(*property),
        }
    }

    /// Appends the canonical bytes of what is around a record; false when it is missing.
    fn write_around(&self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<bool, RejectReason> {
        let envelope = record.envelope;
        let text = match self {
            Self::Value(_) => None,
            Self::Header(name) => {
                let headers = envelope.map_or(&[][..], |envelope| &envelope.headers);
                let last = headers.iter().rev().find(|(known, _)| known == name);
                last.and_then(|(_, value)| *value)
            }
            Self::Property(RecordProperty::Topic) => envelope.and_then(|envelope| envelope.topic).map(str::as_bytes),
            Self::Property(RecordProperty::Key) => envelope.and_then(|envelope| envelope.key),
            Self::Property(RecordProperty::Partition) => {
                let partition = envelope.map(|envelope| i64::from(envelope.partition));
                return Ok(write_integer(partition, out));
            }
            Self::Property(RecordProperty::Timestamp) => return Ok(write_integer(record.timestamp_ms, out)),
        };
        let Some(text) = text else {
            return Ok(false);
        };
        let text = std::str::from_utf8(text).map_err(|_| RejectReason::KeyInvalid)?;
        Value::Text(text.into()).write_canonical(out)
    }
}

fn write_integer(number: Option<i64>, out: &mut Vec<u8>) -> bool {
    if let Some(number) = number {
        decimal::write_signed(number, out);
    }
    number.is_some()
}

#[derive(Clone, Debug)]
struct Part {
    name: String,
    /// `"name":`, with a comma before it from the second on.
    prefix: Vec<u8>,
    source: PartSource,
    /// Canonical text that stands for a missing part; without it the event is rejected.
    when_missing: Option<Vec<u8>>,
}

/// Appends the canonical form of one JSON value.
fn write_part(value: &str, out: &mut Vec<u8>) -> Result<(), RejectReason> {
    let text = value.as_bytes();
    let (kind, text) = match text {
        [b'"', inner @ .., b'"'] if inner.contains(&b'\\') => (Kind::EscapedString, inner),
        [b'"', inner @ .., b'"'] => (Kind::String, inner),
        b"true" => (Kind::True, text),
        b"false" => (Kind::False, text),
        [b'{' | b'[', ..] => (Kind::Container, text),
        _ => (Kind::Number, text),
    };
    key::write_canonical_text(kind, text, out)
}

/// An expression of `let` has no value for an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LetProblem {
    /// Its place in the list.
    pub index: usize,
    /// Why.
    pub error: EvaluationError,
}

/// An event has no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyProblem<'a> {
    /// What the part is made of.
    pub source: &'a PartSource,
    /// Why it cannot be.
    pub reason: RejectReason,
}

impl Derivation {
    /// Compiles a job's values and key parts; the fields they use get slots of `fields`.
    pub fn compile(lets: &[resolved::Let], group_by: &[resolved::KeyPart], fields: &mut FieldTree) -> Self {
        let lets = lets
            .iter()
            .map(|value| (value.name.clone(), Program::compile(&value.expression.root, fields)))
            .collect();
        let mut parts = Vec::with_capacity(group_by.len());
        for part in group_by {
            let comma = if parts.is_empty() { "" } else { "," };
            parts.push(Part {
                name: part.name.clone(),
                prefix: format!("{comma}{}:", serde_json::Value::from(part.name.as_str())).into_bytes(),
                source: PartSource::compile(&part.source, fields),
                when_missing: match &part.when_missing {
                    Missing::Reject => None,
                    Missing::Null => Some(b"null".to_vec()),
                    Missing::Default(KeyDefault::Integer(number)) => Some(number.to_string().into_bytes()),
                    Missing::Default(KeyDefault::Text(text)) => {
                        Some(serde_json::Value::from(text.as_str()).to_string().into_bytes())
                    }
                },
            });
        }
        Self { lets, parts }
    }

    /// Whether a part of the key is not in the values of records.
    pub fn needs_envelopes(&self) -> bool {
        let around = |part: &Part| match part.source {
            PartSource::Value(_) | PartSource::Property(RecordProperty::Timestamp) => false,
            PartSource::Header(_) | PartSource::Property(_) => true,
        };
        self.parts.iter().any(around)
    }

    /// Name of a value of `let`.
    pub fn name(&self, index: usize) -> &str {
        self.lets.get(index).map_or("", |(name, _)| name)
    }

    /// Appends the values of `let` for an event to an empty list. (A list returned would be copied, all its room with
    /// it, for every event.)
    ///
    /// # Errors
    /// The first that has none.
    pub fn fill_values<'a>(
        &'a self,
        event: Event<'a>,
        budget: &mut Budget,
        values: &mut Values<'a>,
    ) -> Result<(), LetProblem> {
        for (index, (_, program)) in self.lets.iter().enumerate() {
            let value = program.evaluate(event, values, budget);
            values.push(value.map_err(|error| LetProblem { index, error })?);
        }
        Ok(())
    }

    /// The canonical bytes of a key that is given as a JSON object with a member for each part, in any order.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn key_of(&self, text: &str) -> Result<Vec<u8>, String> {
        let mut members: BTreeMap<String, &RawValue> =
            serde_json::from_str(text).map_err(|error| format!("no JSON object: {error}"))?;
        let mut out = Vec::new();
        for part in &self.parts {
            out.extend_from_slice(&part.prefix);
            let given = members.remove(&part.name).map(RawValue::get);
            match (given, &part.when_missing) {
                (None | Some("null"), Some(text)) => out.extend_from_slice(text),
                (None | Some("null"), None) => return Err(format!("{:?} is missing, a part of the key", part.name)),
                (Some(value), _) => {
                    write_part(value, &mut out).map_err(|reason| format!("{:?}: {}", part.name, reason.as_str()))?;
                }
            }
        }
        match members.keys().next() {
            None => Ok(out),
            Some(name) => Err(format!("{name:?} is no part of the key")),
        }
    }

    /// Appends the canonical bytes of the key of an event of `record`.
    ///
    /// # Errors
    /// The first part that cannot be made.
    pub fn write_key(
        &self,
        record: &Record<'_>,
        event: Event<'_>,
        values: &[Value<'_>],
        out: &mut Vec<u8>,
    ) -> Result<(), KeyProblem<'_>> {
        for part in &self.parts {
            out.extend_from_slice(&part.prefix);
            let source = &part.source;
            let refused = |reason| KeyProblem { source, reason };
            let is_there = match source {
                PartSource::Value(Source::Field(slot)) => {
                    let slot = event.slots[*slot];
                    let is_there = !matches!(slot.kind, Kind::Missing | Kind::Null);
                    if is_there {
                        key::write_canonical(slot, event.document, out).map_err(refused)?;
                    }
                    is_there
                }
                PartSource::Value(Source::Let(index)) => values[*index].write_canonical(out).map_err(refused)?,
                PartSource::Header(_) | PartSource::Property(_) => source.write_around(record, out).map_err(refused)?,
            };
            if !is_there {
                let text = part.when_missing.as_ref();
                out.extend_from_slice(text.ok_or(refused(RejectReason::KeyMissing))?);
            }
        }
        Ok(())
    }
}
