//! Functions of texts and conversions. Must not walk programs.

use std::borrow::Cow;

use streamagg_crds::expression::Function;

use super::{Evaluated, Evaluation, EvaluationError, no_overload};
use crate::expression::number;
use crate::expression::value::Value;

impl<'a> Evaluation<'a, '_> {
    pub(super) fn call(&mut self, function: Function, first: Value<'a>, second: Option<Value<'a>>) -> Evaluated<'a> {
        if let Value::Text(text) = &first {
            self.spend_text(text.len())?;
        }
        match (function, first, second) {
            (Function::Size, Value::Text(text), None) => Ok(size(text.chars().count())),
            (Function::Size, Value::List(elements), None) => Ok(size(elements.len())),
            (Function::Size, Value::Map(entries), None) => Ok(size(entries.len())),
            (Function::StartsWith, Value::Text(text), Some(Value::Text(part))) => {
                Ok(Value::Bool(text.starts_with(part.as_ref())))
            }
            (Function::EndsWith, Value::Text(text), Some(Value::Text(part))) => {
                Ok(Value::Bool(text.ends_with(part.as_ref())))
            }
            (Function::Contains, Value::Text(text), Some(Value::Text(part))) => Ok(Value::Bool(
                memchr::memmem::find(text.as_bytes(), part.as_bytes()).is_some(),
            )),
            (Function::LowerAscii, Value::Text(text), None) => Ok(Value::text(text.to_ascii_lowercase())),
            (Function::UpperAscii, Value::Text(text), None) => Ok(Value::text(text.to_ascii_uppercase())),
            (Function::Int, value, None) => to_integer(value),
            (Function::Double, value, None) => to_double(value),
            (Function::Text, value, None) => to_text(value),
            (Function::Bool, value, None) => to_bool(value),
            (function, first, second) => Err(no_overload(function.name(), &first, second.as_ref())),
        }
    }
}

fn size<'a>(len: usize) -> Value<'a> {
    Value::Int(i64::try_from(len).unwrap_or(i64::MAX))
}

fn to_integer(value: Value<'_>) -> Evaluated<'_> {
    match value {
        Value::Int(value) => Ok(Value::Int(value)),
        Value::Double(value) => number::truncate(value).map(Value::Int).ok_or(EvaluationError::Overflow),
        Value::Text(text) => text
            .parse()
            .map(Value::Int)
            .map_err(|_| EvaluationError::NotConvertible("an integer")),
        other => Err(no_overload("int", &other, None)),
    }
}

fn to_double(value: Value<'_>) -> Evaluated<'_> {
    match value {
        Value::Int(value) => Ok(Value::Double(value as f64)),
        Value::Double(value) => Ok(Value::Double(value)),
        Value::Text(text) => text
            .parse()
            .map(Value::Double)
            .map_err(|_| EvaluationError::NotConvertible("a double")),
        other => Err(no_overload("double", &other, None)),
    }
}

fn to_text(value: Value<'_>) -> Evaluated<'_> {
    let text = match value {
        Value::Text(text) => text,
        Value::Int(value) => Cow::Owned(value.to_string()),
        Value::Double(value) => Cow::Owned(number::to_text(value)),
        Value::Bool(value) => Cow::Borrowed(if value { "true" } else { "false" }),
        other => return Err(no_overload("string", &other, None)),
    };
    Ok(Value::Text(text))
}

fn to_bool(value: Value<'_>) -> Evaluated<'_> {
    match value {
        Value::Bool(value) => Ok(Value::Bool(value)),
        Value::Text(text) => match text.as_ref() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            _ => Err(EvaluationError::NotConvertible("a boolean")),
        },
        other => Err(no_overload("bool", &other, None)),
    }
}
