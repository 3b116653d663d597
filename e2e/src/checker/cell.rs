//! What events come to: whatever an aggregate may ask for, kept whole. Must not know windows.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde_json::Value;
use streamagg_crds::resolved::{Function, Resolved};

use super::input;
use super::number::{average, decimal, parse};

/// Percentiles are exact up to so many values of a window.
const EXACT_VALUES_MAX: usize = 256;

/// Some events of a key.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    /// How many.
    pub events: u64,
    /// By aggregate.
    fields: Vec<Field>,
}

/// What an aggregate looks at; numbers are scaled by 10^12.
#[derive(Clone, Debug, Default)]
struct Field {
    seen: u64,
    sum: i128,
    least: i128,
    greatest: i128,
    /// For percentiles.
    values: Vec<i128>,
    /// For distinct and the most frequent: how often each was seen, by its JSON text.
    texts: BTreeMap<String, u64>,
}

impl Cell {
    /// What one event gives.
    ///
    /// # Errors
    /// Why it is a dead letter.
    pub fn of(job: &Resolved, document: &Value) -> Result<Self, &'static str> {
        let fields = job
            .aggregates
            .iter()
            .map(|aggregate| Field::of(&aggregate.function, document));
        Ok(Self {
            events: 1,
            fields: fields.collect::<Result<_, _>>()?,
        })
    }

    /// Takes the events of another one, too.
    pub fn merge(&mut self, from: &Self) {
        self.events += from.events;
        self.fields.resize(from.fields.len(), Field::default());
        for (into, from) in self.fields.iter_mut().zip(&from.fields) {
            into.merge(from);
        }
    }

    /// The values of the aggregates as JSON text; where one cannot be told exactly, why.
    pub fn values(&self, job: &Resolved) -> impl Iterator<Item = Result<String, String>> {
        let aggregates = job.aggregates.iter().zip(&self.fields);
        aggregates.map(move |(aggregate, field)| self.value(&aggregate.function, field))
    }

    fn value(&self, function: &Function, field: &Field) -> Result<String, String> {
        Ok(match function {
            Function::Count => self.events.to_string(),
            Function::Distinct { .. } => field.texts.len().to_string(),
            Function::TopK { k, .. } => top(*k, &field.texts),
            Function::Percentile { quantiles, .. } => percentile(quantiles, &field.values)?,
            Function::Sum(_) | Function::Average(_) | Function::Min(_) | Function::Max(_) if field.seen == 0 => {
                "null".to_owned()
            }
            Function::Sum(_) => decimal(field.sum),
            Function::Average(_) => decimal(average(field.sum, i128::from(field.seen))),
            Function::Min(_) => decimal(field.least),
            Function::Max(_) => decimal(field.greatest),
            other => return Err(format!("the checker does not know {other:?}")),
        })
    }
}

impl Field {
    fn of(function: &Function, document: &Value) -> Result<Self, &'static str> {
        let mut field = Self::default();
        let source = function.inputs().first().copied();
        let Some(value) = source.and_then(|source| input(document, source)) else {
            return Ok(field);
        };
        if matches!(function, Function::Distinct { .. } | Function::TopK { .. }) {
            field.texts.insert(text(value)?, 1);
            return Ok(field);
        }
        let number = match value {
            Value::Number(number) => parse(&number.to_string()).ok_or("NumberOutOfRange")?,
            _ => return Err("FieldTypeInvalid"),
        };
        (field.seen, field.sum, field.least, field.greatest) = (1, number, number, number);
        if matches!(function, Function::Percentile { .. }) {
            field.values.push(number);
        }
        Ok(field)
    }

    fn merge(&mut self, from: &Self) {
        if from.seen > 0 {
            let first = self.seen == 0;
            self.least = if first { from.least } else { self.least.min(from.least) };
            self.greatest = if first {
                from.greatest
            } else {
                self.greatest.max(from.greatest)
            };
            self.seen += from.seen;
            self.sum += from.sum;
        }
        self.values.extend_from_slice(&from.values);
        for (text, count) in &from.texts {
            *self.texts.entry(text.clone()).or_default() += count;
        }
    }
}

/// A text, boolean or number as results show it: equal numbers are one value, however they are written.
fn text(value: &Value) -> Result<String, &'static str> {
    match value {
        Value::Number(number) => parse(&number.to_string()).map(decimal).ok_or("NumberOutOfRange"),
        Value::Object(_) | Value::Array(_) => Err("FieldTypeInvalid"),
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(value.to_string()),
    }
}

/// The most frequent first; of equally frequent ones by their texts.
fn top(k: u32, texts: &BTreeMap<String, u64>) -> String {
    if texts.is_empty() {
        return "null".to_owned();
    }
    let mut texts: Vec<(&String, &u64)> = texts.iter().collect();
    // It is stable, and texts are in order.
    texts.sort_by_key(|(_, count)| Reverse(**count));
    let member = |(text, count): &(&String, &u64)| format!(r#"{{"value":{text},"count":{count}}}"#);
    let members: Vec<String> = texts.iter().take(k as usize).map(member).collect();
    format!(r#"{{"values":[{}],"exact":true}}"#, members.join(","))
}

/// By nearest rank.
fn percentile(quantiles: &[f64], values: &[i128]) -> Result<String, String> {
    const MILLION: u64 = 1_000_000;
    if values.len() > EXACT_VALUES_MAX {
        return Err(format!(
            "{} values of one window: percentiles are not exact",
            values.len()
        ));
    }
    let mut values = values.to_vec();
    values.sort_unstable();
    let member = |quantile: &f64| {
        let millionths = (quantile * MILLION as f64).round() as u64;
        let rank = (millionths * values.len() as u64).div_ceil(MILLION).max(1);
        let value = values
            .get(rank as usize - 1)
            .map_or("null".to_owned(), |value| decimal(*value));
        format!("\"p{}\":{value}", decimal(i128::from(millionths) * 100_000_000))
    };
    Ok(format!(
        "{{{}}}",
        quantiles.iter().map(member).collect::<Vec<_>>().join(",")
    ))
}
