//! Values of expressions: equality, order and what a key or a number is made of. Must not know events.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use streamagg_crds::expression::Kind;

use super::number;
use crate::core::decimal::{self, NumberError};
use crate::core::json::Kind as JsonKind;
use crate::core::key;
use crate::error::RejectReason;

/// A value. Texts are borrowed from the event or the expression where they can be.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A binary double.
    Double(f64),
    /// A text.
    Text(Cow<'a, str>),
    /// A list.
    List(Arc<[Value<'a>]>),
    /// A map, in the order of the event or of the expression; keys are texts, integers or booleans.
    Map(Arc<[(Value<'a>, Value<'a>)]>),
}

impl<'a> Value<'a> {
    /// A text.
    pub fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Text(text.into())
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Null => Kind::Null,
            Self::Bool(_) => Kind::Bool,
            Self::Int(_) => Kind::Int,
            Self::Double(_) => Kind::Double,
            Self::Text(_) => Kind::Text,
            Self::List(_) => Kind::List,
            Self::Map(_) => Kind::Map,
        }
    }

    /// The same value without a copy of its text.
    pub(super) fn borrowed(&self) -> Value<'_> {
        match self {
            Self::Text(text) => Value::Text(Cow::Borrowed(text)),
            other => other.clone(),
        }
    }

    /// Equality of CEL: numbers by what they are worth, values of different kinds are different.
    pub(super) fn equals(&self, other: &Value<'_>) -> bool {
        match (self, other) {
            (Self::Null, Value::Null) => true,
            (Self::Bool(left), Value::Bool(right)) => left == right,
            (Self::Text(left), Value::Text(right)) => left == right,
            (Self::Int(_) | Self::Double(_), Value::Int(_) | Value::Double(_)) => {
                self.compare(other) == Some(Ordering::Equal)
            }
            (Self::List(left), Value::List(right)) => {
                left.len() == right.len() && left.iter().zip(right.iter()).all(|(left, right)| left.equals(right))
            }
            (Self::Map(left), Value::Map(right)) => {
                left.len() == right.len()
                    && left
                        .iter()
                        .all(|(key, value)| find(right, key).is_some_and(|other| value.equals(other)))
            }
            (
                Self::Null
                | Self::Bool(_)
                | Self::Int(_)
                | Self::Double(_)
                | Self::Text(_)
                | Self::List(_)
                | Self::Map(_),
                _,
            ) => false,
        }
    }

    /// Order of two numbers, texts or booleans; none for others and for what is no number.
    pub(super) fn compare(&self, other: &Value<'_>) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(left), Value::Int(right)) => Some(left.cmp(right)),
            (Self::Double(left), Value::Double(right)) => left.partial_cmp(right),
            (Self::Int(left), Value::Double(right)) => number::compare(*left, *right),
            (Self::Double(left), Value::Int(right)) => number::compare(*right, *left).map(Ordering::reverse),
            (Self::Text(left), Value::Text(right)) => Some(left.cmp(right)),
            (Self::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
            (
                Self::Null
                | Self::Bool(_)
                | Self::Int(_)
                | Self::Double(_)
                | Self::Text(_)
                | Self::List(_)
                | Self::Map(_),
                _,
            ) => None,
        }
    }

    /// The value as an exact number in units of 10^-12: a double by its shortest decimal form. `None` for null.
    ///
    /// # Errors
    /// `FieldTypeInvalid` for what is no number, `NumberOutOfRange` from ±10^19 on and for infinities.
    pub fn to_number(&self) -> Result<Option<i128>, RejectReason> {
        match self {
            Self::Null => Ok(None),
            Self::Int(value) => Ok(Some(decimal::from_integer(*value))),
            Self::Double(value) if value.is_finite() => {
                match decimal::parse(number::shortest(*value, &mut number::Buffer::default())) {
                    Ok(number) => Ok(Some(number)),
                    Err(NumberError::OutOfRange | NumberError::Malformed) => Err(RejectReason::NumberOutOfRange),
                }
            }
            Self::Double(_) => Err(RejectReason::NumberOutOfRange),
            Self::Bool(_) | Self::Text(_) | Self::List(_) | Self::Map(_) => Err(RejectReason::FieldTypeInvalid),
        }
    }

    /// Appends its canonical JSON text: the same as a field of this value has in a key. `false` and nothing for null.
    ///
    /// # Errors
    /// `KeyInvalid` for lists and maps, `NumberOutOfRange` for numbers longer than 64 digits and for infinities.
    pub fn write_canonical(&self, out: &mut Vec<u8>) -> Result<bool, RejectReason> {
        match self {
            Self::Null => return Ok(false),
            Self::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            Self::Int(value) => decimal::write_signed(*value, out),
            Self::Double(value) if value.is_finite() => {
                let mut buffer = number::Buffer::default();
                key::write_canonical_text(JsonKind::Number, number::shortest(*value, &mut buffer), out)?;
            }
            Self::Double(_) => return Err(RejectReason::NumberOutOfRange),
            Self::Text(text) => serde_json::to_writer(out, text.as_ref()).map_err(|_| RejectReason::KeyInvalid)?,
            Self::List(_) | Self::Map(_) => return Err(RejectReason::KeyInvalid),
        }
        Ok(true)
    }

    /// What it is, for people: at most so many characters of a text.
    pub fn describe(&self) -> String {
        const EXCERPT_MAX: usize = 64;
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Double(value) => format!("{value:?}"),
            Self::Text(text) => format!("\"{}\"", text.chars().take(EXCERPT_MAX).collect::<String>()),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a map".to_owned(),
        }
    }
}

/// The value of a key in a map's entries.
pub(super) fn find<'m, 'a>(entries: &'m [(Value<'a>, Value<'a>)], key: &Value<'_>) -> Option<&'m Value<'a>> {
    entries
        .iter()
        .find(|(other, _)| other.equals(key))
        .map(|(_, value)| value)
}
