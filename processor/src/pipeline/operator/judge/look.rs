//! What is seen of an event: values of `let`, the verdict of `where`, the key, the inputs of aggregates.
//! Must not judge its time.

use super::ahead::Seen;
use super::{Rejection, rejection};
use crate::aggregation::function::InputType;
use crate::core::decimal::{self, NumberError};
use crate::core::json::{Kind, Slot};
use crate::core::key;
use crate::error::RejectReason;
use crate::expression::{Budget, EvaluationError, Event, Value};
use crate::pipeline::builder::Plan;
use crate::pipeline::derive::{KeyProblem, PartSource, Source, Values};
use crate::pipeline::output::Record;
use crate::window::session::GapSource;

/// Computes what expressions and aggregates see of the event: its key, its inputs. `None` when `where` does not hold.
/// What is wrong with the inputs comes as a value, because lateness is judged before it counts.
pub(super) fn look(
    plan: &Plan,
    slots: &[Slot],
    seen: &mut Seen,
    record: &Record<'_>,
) -> Result<Option<Result<(), Rejection>>, Rejection> {
    let value = record.value;
    let event = Event { document: value, slots };
    let mut budget = Budget::default();
    let failed = |what: String, error: EvaluationError| Rejection {
        reason: RejectReason::ExpressionFailed,
        detail: format!("{what}: {}", error.describe(&plan.fields)),
    };
    let mut values = Values::new();
    plan.derivation
        .fill_values(event, &mut budget, &mut values)
        .map_err(|problem| failed(format!("let {}", plan.derivation.name(problem.index)), problem.error))?;
    if let Some(condition) = &plan.condition {
        let verdict = condition.holds(event, &values, &mut budget);
        if !verdict.map_err(|error| failed("where".to_owned(), error))? {
            return Ok(None);
        }
    }
    seen.key.clear();
    plan.derivation
        .write_key(record, event, &values, &mut seen.key)
        .map_err(|problem| no_key(plan, event, &values, problem))?;
    for (gap_ms, (_, rule)) in seen.gaps_ms.iter_mut().zip(&plan.own_windows.sessions) {
        if let GapSource::Field { slot, most_ms } = rule.gap {
            *gap_ms =
                read_gap(slots[slot], value, most_ms).map_err(|reason| rejection(plan, slots, slot, value, reason))?;
        }
    }
    for (verdict, filter) in seen.filters.iter_mut().zip(&plan.inputs.filters) {
        match filter.program.holds(event, &values, &mut budget) {
            Ok(holds) => *verdict = holds,
            Err(error) => return Ok(Some(Err(failed(filter.path.clone(), error)))),
        }
    }
    let Seen {
        numbers,
        scalars,
        filters,
        ..
    } = seen;
    if plan.inputs.has_scalars {
        scalars.reset(plan.inputs.list.len());
    }
    for (index, input) in plan.inputs.list.iter().enumerate() {
        numbers[index] = None;
        if input.filter.is_some_and(|filter| !filters[filter]) {
            continue;
        }
        let read = match (input.source, input.input_type) {
            (Source::Field(slot), InputType::Number) => {
                read_number(slots[slot], value).map(|number| numbers[index] = number)
            }
            (Source::Let(place), InputType::Number) => values[place].to_number().map(|number| numbers[index] = number),
            (Source::Field(slot), InputType::Scalar) => match slots[slot].kind {
                Kind::Missing | Kind::Null => Ok(()),
                _ => scalars.set(index, |out| write_scalar(slots[slot], value, out)),
            },
            (Source::Let(place), InputType::Scalar) => match &values[place] {
                Value::Null => Ok(()),
                found => scalars.set(index, |out| write_value(found, out)),
            },
        };
        if let Err(reason) = read {
            return Ok(Some(Err(refused(plan, event, input.source, &values, reason))));
        }
    }
    Ok(Some(Ok(())))
}

/// A gap between sessions: a number of ms, a fraction floored, above 0 and at most `most_ms`.
fn read_gap(slot: Slot, document: &[u8], most_ms: i64) -> Result<i64, RejectReason> {
    let number = match slot.kind {
        Kind::Number => decimal::parse(slot.text(document)),
        _ => return Err(RejectReason::SessionGapInvalid),
    };
    let ms = match number {
        Ok(number) => number.div_euclid(decimal::ONE),
        Err(NumberError::Malformed) => return Err(RejectReason::JsonInvalid),
        Err(NumberError::OutOfRange) => return Err(RejectReason::SessionGapInvalid),
    };
    match i64::try_from(ms) {
        Ok(ms) if 0 < ms && ms <= most_ms => Ok(ms),
        Ok(_) | Err(_) => Err(RejectReason::SessionGapInvalid),
    }
}

/// Longest text that an aggregate keeps, in bytes of its canonical form.
const TEXT_BYTES_MAX: usize = 4096 + 2;

/// Appends a text, boolean or number as canonical JSON. Numbers are decimals as everywhere in results.
fn write_scalar(slot: Slot, document: &[u8], out: &mut Vec<u8>) -> Result<(), RejectReason> {
    if slot.kind == Kind::Number {
        return write_number(read_number(slot, document)?, out);
    }
    let start = out.len();
    let written = key::write_canonical(slot, document, out);
    bounded(written.is_ok(), start, out)
}

/// As [`write_scalar`], of a value that is not null.
fn write_value(value: &Value<'_>, out: &mut Vec<u8>) -> Result<(), RejectReason> {
    if matches!(value, Value::Int(_) | Value::Double(_)) {
        return write_number(value.to_number()?, out);
    }
    let start = out.len();
    let written = value.write_canonical(out);
    bounded(written.is_ok(), start, out)
}

fn write_number(number: Option<i128>, out: &mut Vec<u8>) -> Result<(), RejectReason> {
    decimal::write(number.ok_or(RejectReason::FieldTypeInvalid)?, out);
    Ok(())
}

fn bounded(written: bool, start: usize, out: &[u8]) -> Result<(), RejectReason> {
    if written && out.len() - start <= TEXT_BYTES_MAX {
        Ok(())
    } else {
        Err(RejectReason::FieldTypeInvalid)
    }
}

fn read_number(slot: Slot, document: &[u8]) -> Result<Option<i128>, RejectReason> {
    match slot.kind {
        Kind::Missing | Kind::Null => Ok(None),
        Kind::Number => match decimal::parse(slot.text(document)) {
            Ok(number) => Ok(Some(number)),
            Err(NumberError::Malformed) => Err(RejectReason::JsonInvalid),
            Err(NumberError::OutOfRange) => Err(RejectReason::NumberOutOfRange),
        },
        Kind::True | Kind::False | Kind::String | Kind::EscapedString | Kind::Container => {
            Err(RejectReason::FieldTypeInvalid)
        }
    }
}

/// Names the part of the key, and what was found there.
fn no_key(plan: &Plan, event: Event<'_>, values: &[Value<'_>], problem: KeyProblem<'_>) -> Rejection {
    let reason = problem.reason;
    let found = match reason {
        RejectReason::KeyMissing => "nothing",
        _ => "no UTF-8 text",
    };
    match problem.source {
        PartSource::Value(source) => refused(plan, event, *source, values, reason),
        PartSource::Header(name) => Rejection {
            reason,
            detail: format!("header {name}: found {found}"),
        },
        PartSource::Property(property) => Rejection {
            reason,
            detail: format!("record {property:?}: found {found}"),
        },
    }
}

/// Names the field or the value of `let`, and what was found there.
fn refused(plan: &Plan, event: Event<'_>, source: Source, values: &[Value<'_>], reason: RejectReason) -> Rejection {
    match source {
        Source::Field(slot) => rejection(plan, event.slots, slot, event.document, reason),
        Source::Let(index) => Rejection {
            reason,
            detail: format!(
                "let {}: found {}",
                plan.derivation.name(index),
                values[index].describe()
            ),
        },
    }
}
