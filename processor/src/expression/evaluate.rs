//! Evaluates a program over one event. Recursion is as deep as the expression, which is bounded; every step and every
//! piece of text costs of a budget that all expressions of an event share.
//! Must not decide what becomes of an event that fails.

mod functions;
mod operations;

use std::borrow::Cow;
use std::sync::Arc;

use streamagg_crds::expression::{Comparison, Kind, Macro};

use super::json;
use super::number;
use super::program::{Code, ComprehensionCode, Program};
use super::value::{Value, find};
use crate::core::decimal::NumberError;
use crate::core::json::{FieldTree, Kind as JsonKind, Slot};

/// Steps that the expressions of one event may take together.
const COST_MAX: u64 = 1_000_000;
/// Bytes of text that cost a step.
const BYTES_PER_STEP: u64 = 64;

/// Why an expression has no value for an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvaluationError {
    /// A field is missing.
    NoSuchField(usize),
    /// A text of this field is no Unicode, a number malformed, or a container broken or nested too deeply.
    Unreadable(usize),
    /// A number of this field is beyond a double.
    NumberOutOfRange(usize),
    /// A map has no such key.
    NoSuchKey,
    /// A list has no such place.
    NoSuchIndex,
    /// A map with one key twice.
    KeyTwice,
    /// An operation that does not exist for such values.
    NoOverload {
        /// The operation as written.
        operation: &'static str,
        /// Kind of its first value.
        first: Kind,
        /// Kind of its second, if it takes two.
        second: Option<Kind>,
    },
    /// An integer result beyond 64 bits.
    Overflow,
    /// Division of an integer by zero.
    DivisionByZero,
    /// A text that cannot be converted.
    NotConvertible(&'static str),
    /// Too many steps.
    TooCostly,
}

impl EvaluationError {
    /// For people, with the field's pointer.
    pub fn describe(&self, fields: &FieldTree) -> String {
        match self {
            Self::NoSuchField(slot) => {
                let pointer = fields.pointer(*slot);
                format!("{pointer} is missing; guard it with has()")
            }
            Self::Unreadable(slot) => format!("{} cannot be read", fields.pointer(*slot)),
            Self::NumberOutOfRange(slot) => format!("{} is beyond the range of a double", fields.pointer(*slot)),
            Self::NoSuchKey => "a map has no such key".to_owned(),
            Self::NoSuchIndex => "a list has no element at that index".to_owned(),
            Self::KeyTwice => "a map has a key twice".to_owned(),
            Self::NoOverload {
                operation,
                first,
                second: Some(second),
            } => format!("{operation} does not exist between {first} and {second}"),
            Self::NoOverload {
                operation,
                first,
                second: None,
            } => format!("{operation} does not exist for {first}"),
            Self::Overflow => "an integer is beyond 64 bits".to_owned(),
            Self::DivisionByZero => "division by zero".to_owned(),
            Self::NotConvertible(to) => format!("a value cannot be converted to {to}"),
            Self::TooCostly => format!("took more than {COST_MAX} steps"),
        }
    }
}

/// What is left of the steps that the expressions of one event may take.
#[derive(Clone, Copy, Debug)]
pub struct Budget(u64);

impl Default for Budget {
    fn default() -> Self {
        Self(COST_MAX)
    }
}

impl Budget {
    fn spend(&mut self, steps: u64) -> Result<(), EvaluationError> {
        self.0 = self.0.checked_sub(steps).ok_or(EvaluationError::TooCostly)?;
        Ok(())
    }
}

/// What expressions see of an event.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Its bytes.
    pub document: &'a [u8],
    /// Its fields.
    pub slots: &'a [Slot],
}

type Evaluated<'a> = Result<Value<'a>, EvaluationError>;

impl Program {
    /// Evaluates it; `lets` are the values it may refer to.
    ///
    /// # Errors
    /// Why there is no value.
    pub fn evaluate<'a>(&'a self, event: Event<'a>, lets: &[Value<'a>], budget: &mut Budget) -> Evaluated<'a> {
        let mut evaluation = Evaluation {
            event,
            lets,
            locals: Vec::new(),
            budget,
        };
        evaluation.value(&self.root)
    }

    /// Evaluates a condition.
    ///
    /// # Errors
    /// Why there is no verdict.
    pub fn holds<'a>(
        &'a self,
        event: Event<'a>,
        lets: &[Value<'a>],
        budget: &mut Budget,
    ) -> Result<bool, EvaluationError> {
        match self.evaluate(event, lets, budget)? {
            Value::Bool(verdict) => Ok(verdict),
            other => Err(no_overload("a condition", &other, None)),
        }
    }
}

fn no_overload(operation: &'static str, first: &Value<'_>, second: Option<&Value<'_>>) -> EvaluationError {
    EvaluationError::NoOverload {
        operation,
        first: first.kind(),
        second: second.map(Value::kind),
    }
}

struct Evaluation<'a, 'l> {
    event: Event<'a>,
    lets: &'l [Value<'a>],
    locals: Vec<Value<'a>>,
    budget: &'l mut Budget,
}

impl<'a> Evaluation<'a, '_> {
    fn spend_text(&mut self, len: usize) -> Result<(), EvaluationError> {
        self.budget.spend(len as u64 / BYTES_PER_STEP)
    }

    fn value(&mut self, code: &'a Code) -> Evaluated<'a> {
        self.budget.spend(1)?;
        match code {
            Code::Constant(value) => Ok(value.borrowed()),
            Code::Field(slot) => self.field(*slot),
            Code::HasField(slot, parent) => self.has_field(*slot, *parent),
            Code::Let(index) => self.lets.get(*index).cloned().ok_or(EvaluationError::NoSuchKey),
            Code::Local(index) => self.locals.get(*index).cloned().ok_or(EvaluationError::NoSuchKey),
            Code::Not(inner) => match self.value(inner)? {
                Value::Bool(value) => Ok(Value::Bool(!value)),
                other => Err(no_overload("!", &other, None)),
            },
            Code::Negate(inner) => match self.value(inner)? {
                Value::Int(value) => value.checked_neg().map(Value::Int).ok_or(EvaluationError::Overflow),
                Value::Double(value) => Ok(Value::Double(-value)),
                other => Err(no_overload("-", &other, None)),
            },
            Code::And(parts) => self.junction(parts, false),
            Code::Or(parts) => self.junction(parts, true),
            Code::Conditional(parts) => match self.value(&parts[0])? {
                Value::Bool(verdict) => self.value(&parts[if verdict { 1 } else { 2 }]),
                other => Err(no_overload("?", &other, None)),
            },
            Code::Operation(operator, sides) => {
                let (left, right) = (self.value(&sides[0])?, self.value(&sides[1])?);
                self.operation(*operator, left, right)
            }
            Code::Compare(comparison, sides) => {
                let (left, right) = (self.value(&sides[0])?, self.value(&sides[1])?);
                self.compare(*comparison, &left, &right).map(Value::Bool)
            }
            Code::Index(sides) => {
                let (container, index) = (self.value(&sides[0])?, self.value(&sides[1])?);
                self.index(&container, &index)
            }
            Code::HasMember(sides) => {
                let (container, name) = (self.value(&sides[0])?, self.value(&sides[1])?);
                match &container {
                    Value::Map(entries) => Ok(Value::Bool(find(entries, &name).is_some())),
                    other => Err(no_overload("has", other, None)),
                }
            }
            Code::Call(function, arguments) => {
                let first = self.value(&arguments[0])?;
                let second = arguments.get(1).map(|argument| self.value(argument)).transpose()?;
                self.call(*function, first, second)
            }
            Code::Matches(inner, pattern) => match self.value(inner)? {
                Value::Text(text) => {
                    self.spend_text(text.len())?;
                    Ok(Value::Bool(pattern.is_match(&text)))
                }
                other => Err(no_overload("matches", &other, None)),
            },
            Code::List(parts) => {
                let elements = parts
                    .iter()
                    .map(|part| self.value(part))
                    .collect::<Result<Vec<_>, _>>()?;
                Ok(Value::List(Arc::from(elements)))
            }
            Code::Map(parts) => self.map(parts),
            Code::Comprehension(parts) => self.comprehension(parts),
        }
    }

    fn field(&mut self, index: usize) -> Evaluated<'a> {
        let slot = self.event.slots[index];
        let text = slot.text(self.event.document);
        match slot.kind {
            JsonKind::Missing => Err(EvaluationError::NoSuchField(index)),
            JsonKind::Null => Ok(Value::Null),
            JsonKind::True => Ok(Value::Bool(true)),
            JsonKind::False => Ok(Value::Bool(false)),
            JsonKind::Number => number::read(text).map_err(|error| match error {
                NumberError::Malformed => EvaluationError::Unreadable(index),
                NumberError::OutOfRange => EvaluationError::NumberOutOfRange(index),
            }),
            JsonKind::String => {
                let text = std::str::from_utf8(text).map_err(|_| EvaluationError::Unreadable(index))?;
                Ok(Value::Text(Cow::Borrowed(text)))
            }
            JsonKind::EscapedString => {
                self.spend_text(text.len())?;
                let quoted = [b"\"", text, b"\""].concat();
                let decoded: String =
                    serde_json::from_slice(&quoted).map_err(|_| EvaluationError::Unreadable(index))?;
                Ok(Value::Text(Cow::Owned(decoded)))
            }
            JsonKind::Container => {
                self.spend_text(text.len())?;
                json::read(text).ok_or(EvaluationError::Unreadable(index))
            }
        }
    }

    /// As CEL has it: what holds the field must be there, and be an object (an array holds its elements).
    fn has_field(&self, slot: usize, parent: Option<usize>) -> Evaluated<'a> {
        if let Some(parent) = parent {
            match self.event.slots[parent].kind {
                JsonKind::Container => {}
                JsonKind::Missing => return Err(EvaluationError::NoSuchField(parent)),
                JsonKind::Null
                | JsonKind::True
                | JsonKind::False
                | JsonKind::Number
                | JsonKind::String
                | JsonKind::EscapedString => return Err(EvaluationError::NoSuchKey),
            }
        }
        Ok(Value::Bool(self.event.slots[slot].kind != JsonKind::Missing))
    }

    /// `||` (decided by the first true) or `&&` (by the first false): an error counts only where nothing decides.
    fn junction(&mut self, parts: &'a [Code], decisive: bool) -> Evaluated<'a> {
        let mut failed = None;
        for part in parts {
            match self.value(part) {
                Ok(Value::Bool(verdict)) if verdict == decisive => return Ok(Value::Bool(decisive)),
                Ok(Value::Bool(_)) => {}
                Ok(other) => failed = failed.or(Some(no_overload(if decisive { "||" } else { "&&" }, &other, None))),
                Err(EvaluationError::TooCostly) => return Err(EvaluationError::TooCostly),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    fn map(&mut self, parts: &'a [(Code, Code)]) -> Evaluated<'a> {
        let mut entries: Vec<(Value<'a>, Value<'a>)> = Vec::with_capacity(parts.len());
        for (key, value) in parts {
            let (key, value) = (self.value(key)?, self.value(value)?);
            if !matches!(key, Value::Text(_) | Value::Int(_) | Value::Bool(_)) {
                return Err(no_overload("a key of a map", &key, None));
            }
            self.budget.spend(entries.len() as u64)?;
            if find(&entries, &key).is_some() {
                return Err(EvaluationError::KeyTwice);
            }
            entries.push((key, value));
        }
        Ok(Value::Map(Arc::from(entries)))
    }

    fn comprehension(&mut self, parts: &'a ComprehensionCode) -> Evaluated<'a> {
        let range: Vec<Value<'a>> = match self.value(&parts.range)? {
            Value::List(elements) => elements.to_vec(),
            Value::Map(entries) => entries.iter().map(|(key, _)| key.clone()).collect(),
            other => return Err(no_overload(parts.kind.name(), &other, None)),
        };
        self.budget.spend(range.len() as u64)?;
        match parts.kind {
            Macro::All => self.quantify(parts, range, false),
            Macro::Exists => self.quantify(parts, range, true),
            Macro::ExistsOne => {
                let mut met = 0usize;
                for element in range {
                    met += usize::from(self.condition(parts.kind, &parts.body, element)?);
                }
                Ok(Value::Bool(met == 1))
            }
            Macro::Filter => {
                let mut kept = Vec::new();
                for element in range {
                    if self.condition(parts.kind, &parts.body, element.clone())? {
                        kept.push(element);
                    }
                }
                Ok(Value::List(Arc::from(kept)))
            }
            Macro::Map => {
                let mut made = Vec::new();
                for element in range {
                    let kept = match &parts.condition {
                        Some(condition) => self.condition(parts.kind, condition, element.clone())?,
                        None => true,
                    };
                    if kept {
                        made.push(self.with(element, &parts.body)?);
                    }
                }
                Ok(Value::List(Arc::from(made)))
            }
        }
    }

    /// `exists` (decided by the first true) or `all` (by the first false), with errors as in [`Self::junction`].
    fn quantify(&mut self, parts: &'a ComprehensionCode, range: Vec<Value<'a>>, decisive: bool) -> Evaluated<'a> {
        let mut failed = None;
        for element in range {
            match self.condition(parts.kind, &parts.body, element) {
                Ok(verdict) if verdict == decisive => return Ok(Value::Bool(decisive)),
                Ok(_) => {}
                Err(EvaluationError::TooCostly) => return Err(EvaluationError::TooCostly),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    fn condition(&mut self, kind: Macro, body: &'a Code, element: Value<'a>) -> Result<bool, EvaluationError> {
        match self.with(element, body)? {
            Value::Bool(verdict) => Ok(verdict),
            other => Err(no_overload(kind.name(), &other, None)),
        }
    }

    fn with(&mut self, element: Value<'a>, body: &'a Code) -> Evaluated<'a> {
        self.locals.push(element);
        let result = self.value(body);
        self.locals.pop();
        result
    }

    fn compare(
        &mut self,
        comparison: Comparison,
        left: &Value<'a>,
        right: &Value<'a>,
    ) -> Result<bool, EvaluationError> {
        operations::compare(comparison, left, right, self.budget)
    }
}
