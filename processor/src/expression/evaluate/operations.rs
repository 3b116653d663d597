//! Arithmetic, comparison and indices of values. Must not walk programs.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use streamagg_crds::expression::{Comparison, Operator};

use super::{BYTES_PER_STEP, Budget, Evaluated, Evaluation, EvaluationError, no_overload};
use crate::expression::number;
use crate::expression::value::{Value, find};

impl<'a> Evaluation<'a, '_> {
    /// Integers stay integers; with a double on either side both are doubles; `+` also joins texts and lists.
    pub(super) fn operation(&mut self, operator: Operator, left: Value<'a>, right: Value<'a>) -> Evaluated<'a> {
        match (left, right) {
            (Value::Int(left), Value::Int(right)) => integers(operator, left, right).map(Value::Int),
            (Value::Double(left), Value::Double(right)) => doubles(operator, left, right),
            (Value::Int(left), Value::Double(right)) => doubles(operator, left as f64, right),
            (Value::Double(left), Value::Int(right)) => doubles(operator, left, right as f64),
            (Value::Text(left), Value::Text(right)) if operator == Operator::Add => {
                self.spend_text(left.len() + right.len())?;
                Ok(Value::Text(Cow::Owned([left.as_ref(), right.as_ref()].concat())))
            }
            (Value::List(left), Value::List(right)) if operator == Operator::Add => {
                self.budget.spend((left.len() + right.len()) as u64)?;
                Ok(Value::List(
                    left.iter().chain(right.iter()).cloned().collect::<Arc<[_]>>(),
                ))
            }
            (left, right) => Err(no_overload(operator.symbol(), &left, Some(&right))),
        }
    }

    pub(super) fn index(&mut self, container: &Value<'a>, index: &Value<'a>) -> Evaluated<'a> {
        match (container, index) {
            (Value::List(elements), Value::Int(index)) => usize::try_from(*index)
                .ok()
                .and_then(|index| elements.get(index))
                .cloned()
                .ok_or(EvaluationError::NoSuchIndex),
            (Value::List(elements), Value::Double(index)) => number::truncate(*index)
                .filter(|whole| number::compare(*whole, *index) == Some(Ordering::Equal))
                .and_then(|whole| usize::try_from(whole).ok())
                .and_then(|index| elements.get(index))
                .cloned()
                .ok_or(EvaluationError::NoSuchIndex),
            (Value::Map(entries), key) => {
                self.budget.spend(entries.len() as u64)?;
                find(entries, key).cloned().ok_or(EvaluationError::NoSuchKey)
            }
            (other, _) => Err(no_overload("[]", other, Some(index))),
        }
    }
}

fn integers(operator: Operator, left: i64, right: i64) -> Result<i64, EvaluationError> {
    let result = match operator {
        Operator::Add => left.checked_add(right),
        Operator::Subtract => left.checked_sub(right),
        Operator::Multiply => left.checked_mul(right),
        Operator::Divide | Operator::Modulo if right == 0 => return Err(EvaluationError::DivisionByZero),
        Operator::Divide => left.checked_div(right),
        Operator::Modulo => left.checked_rem(right),
    };
    result.ok_or(EvaluationError::Overflow)
}

fn doubles<'a>(operator: Operator, left: f64, right: f64) -> Evaluated<'a> {
    Ok(Value::Double(match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide => left / right,
        Operator::Modulo => {
            let (left, right) = (Value::Double(left), Value::Double(right));
            return Err(no_overload(operator.symbol(), &left, Some(&right)));
        }
    }))
}

/// Steps that looking at a value takes.
fn weight(value: &Value<'_>) -> u64 {
    match value {
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Double(_) => 0,
        Value::Text(text) => text.len() as u64 / BYTES_PER_STEP,
        Value::List(elements) => elements.iter().map(weight).sum::<u64>() + elements.len() as u64,
        // Members are looked up one in the other.
        Value::Map(entries) => {
            let len = entries.len() as u64;
            entries.iter().map(|(_, value)| weight(value)).sum::<u64>() + len.saturating_mul(len)
        }
    }
}

pub(super) fn compare(
    comparison: Comparison,
    left: &Value<'_>,
    right: &Value<'_>,
    budget: &mut Budget,
) -> Result<bool, EvaluationError> {
    budget.spend(weight(left).saturating_add(weight(right)))?;
    let ordered = |verdict: fn(Ordering) -> bool| match (left, right) {
        (Value::Int(_) | Value::Double(_), Value::Int(_) | Value::Double(_))
        | (Value::Text(_), Value::Text(_))
        | (Value::Bool(_), Value::Bool(_)) => Ok(left.compare(right).is_some_and(verdict)),
        (_, _) => Err(no_overload(comparison.symbol(), left, Some(right))),
    };
    match comparison {
        Comparison::Equal => Ok(left.equals(right)),
        Comparison::NotEqual => Ok(!left.equals(right)),
        Comparison::Less => ordered(Ordering::is_lt),
        Comparison::LessEqual => ordered(Ordering::is_le),
        Comparison::Greater => ordered(Ordering::is_gt),
        Comparison::GreaterEqual => ordered(Ordering::is_ge),
        Comparison::In => match right {
            Value::List(elements) => Ok(elements.iter().any(|element| element.equals(left))),
            Value::Map(entries) => Ok(find(entries, left).is_some()),
            other => Err(no_overload("in", left, Some(other))),
        },
    }
}
