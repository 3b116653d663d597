//! Aggregates of the batch oracle: every function by its definition, over all values of a window at once.
//! Must not import engine code, and must not merge anything.

use std::collections::{BTreeMap, BTreeSet};

use num_bigint::BigInt;

use super::values::{decimal, field, is_number, scaled};
use super::{Reason, quoted};

/// What is computed; a second field is a list of member names.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Function {
    Count,
    Sum,
    Average,
    Min,
    Max,
    First,
    Last,
    ArgMin(Vec<String>),
    ArgMax(Vec<String>),
    /// Of the population?
    Variance(bool),
    /// Of the population?
    Stddev(bool),
    /// Shares as they are written.
    Percentile(Vec<&'static str>),
    Distinct,
    TopK(usize),
    /// Upper limits as they are written, ascending.
    Histogram(Vec<&'static str>),
    /// Events for so many ms.
    EventRate(i64),
    /// Sum for so many ms.
    SumRate(i64),
    Ratio(Vec<String>),
    WeightedAverage(Vec<String>),
}

/// Longest text that an aggregate takes, with its quotes.
const TEXT_MAX: usize = 4098;

/// A value that an aggregate looks at.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// Scaled by 10^12.
    Number(i128),
    /// Canonical JSON.
    Scalar(String),
}

/// What one event brings to the aggregates, in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub time: i64,
    /// Its own gap, ms; 0 where no window looks at it.
    pub gap: i64,
    pub cells: Vec<[Option<Value>; 2]>,
}

/// The values that a function looks at in an event.
pub(super) fn cells(function: &Function, path: &[String], root: &str) -> Result<[Option<Value>; 2], Reason> {
    let (number, scalar) = (
        |path: &[String]| number(root, path),
        |path: &[String]| scalar(root, path),
    );
    Ok(match function {
        Function::Count | Function::EventRate(_) => [None, None],
        Function::First | Function::Last | Function::Distinct | Function::TopK(_) => [scalar(path)?, None],
        Function::ArgMin(by) | Function::ArgMax(by) => [scalar(path)?, number(by)?],
        Function::Ratio(other) | Function::WeightedAverage(other) => [number(path)?, number(other)?],
        _ => [number(path)?, None],
    })
}

fn number(root: &str, path: &[String]) -> Result<Option<Value>, Reason> {
    match field(root, path) {
        None => Ok(None),
        Some(raw) if is_number(&raw) => scaled(&raw, 12)
            .map(|value| Some(Value::Number(value)))
            .ok_or("NumberOutOfRange"),
        Some(_) => Err("FieldTypeInvalid"),
    }
}

fn scalar(root: &str, path: &[String]) -> Result<Option<Value>, Reason> {
    let Some(raw) = field(root, path) else {
        return Ok(None);
    };
    let text = match raw.as_bytes()[0] {
        b'{' | b'[' => return Err("FieldTypeInvalid"),
        b't' | b'f' => raw,
        b'"' => quoted(&serde_json::from_str::<String>(&raw).map_err(|_| "FieldTypeInvalid")?),
        _ => decimal(scaled(&raw, 12).ok_or("NumberOutOfRange")?),
    };
    if text.len() > TEXT_MAX {
        return Err("FieldTypeInvalid");
    }
    Ok(Some(Value::Scalar(text)))
}

/// The result of a function over the rows of a window, in the order of the log; `column` is its place in them.
pub(super) fn compute(function: &Function, rows: &[Row], column: usize, length_ms: i64) -> String {
    let one = BigInt::from(10u8).pow(12);
    let number = |row: &Row, index: usize| match &row.cells[column][index] {
        Some(Value::Number(value)) => Some(*value),
        _ => None,
    };
    let values: Vec<i128> = rows.iter().filter_map(|row| number(row, 0)).collect();
    let pairs: Vec<(i128, i128)> = rows
        .iter()
        .filter_map(|row| Some((number(row, 0)?, number(row, 1)?)))
        .collect();
    let sum = |values: &[i128]| values.iter().map(|value| BigInt::from(*value)).sum::<BigInt>();
    let count = BigInt::from(values.len());
    let null = || "null".to_owned();
    match function {
        Function::Count => rows.len().to_string(),
        Function::Percentile(shares) => percentile(shares, values),
        Function::Distinct => scalars(rows, column)
            .iter()
            .map(|(_, text)| text)
            .collect::<BTreeSet<_>>()
            .len()
            .to_string(),
        Function::First | Function::Last | Function::TopK(_) if scalars(rows, column).is_empty() => null(),
        Function::First => scalars(rows, column)[0].1.clone(),
        Function::Last => scalars(rows, column)[scalars(rows, column).len() - 1].1.clone(),
        Function::TopK(k) => top(*k, &scalars(rows, column)),
        Function::ArgMin(_) | Function::ArgMax(_) => extreme_event(function, rows, column),
        // All time has no length.
        Function::EventRate(_) | Function::SumRate(_) if length_ms == i64::MAX => null(),
        // A pane of the events since, and there are none.
        Function::EventRate(_) if rows.is_empty() => null(),
        Function::EventRate(per) => show(&round(&one * rows.len() * *per, length_ms.into())),
        Function::Ratio(_) => {
            let others: Vec<i128> = rows.iter().filter_map(|row| number(row, 1)).collect();
            match sum(&others) {
                divisor if !values.is_empty() && divisor != BigInt::ZERO => show(&round(sum(&values) * one, divisor)),
                _ => null(),
            }
        }
        Function::WeightedAverage(_) => {
            let weights = sum(&pairs.iter().map(|pair| pair.1).collect::<Vec<_>>());
            let products: BigInt = pairs.iter().map(|pair| BigInt::from(pair.0) * pair.1).sum();
            if weights == BigInt::ZERO {
                null()
            } else {
                show(&round(products, weights))
            }
        }
        _ if values.is_empty() => null(),
        Function::Sum => show(&sum(&values)),
        Function::Average => show(&round(sum(&values), count)),
        Function::SumRate(per) => show(&round(sum(&values) * *per, length_ms.into())),
        Function::Min => values.iter().min().map_or_else(null, |value| decimal(*value)),
        Function::Max => values.iter().max().map_or_else(null, |value| decimal(*value)),
        Function::Histogram(bounds) => histogram(bounds, &values),
        Function::Variance(_) | Function::Stddev(_) if values.len() < 2 => null(),
        Function::Variance(population) | Function::Stddev(population) => {
            // Σ (x − mean)² = Σ (n·x − Σ x)² / n².
            let total = sum(&values);
            let deviations = values
                .iter()
                .map(|value| (&count * *value - &total).pow(2))
                .sum::<BigInt>();
            let divisor = &count * &count * (values.len() - usize::from(!*population));
            if matches!(function, Function::Variance(_)) {
                show(&round(deviations, divisor * one))
            } else {
                show(&root(deviations, divisor))
            }
        }
    }
}

/// (time, text) of the values seen, by time; of one time in the order of the log.
fn scalars(rows: &[Row], column: usize) -> Vec<(i64, String)> {
    let seen = rows.iter().filter_map(|row| match &row.cells[column][0] {
        Some(Value::Scalar(text)) => Some((row.time, text.clone())),
        _ => None,
    });
    let mut seen: Vec<(i64, String)> = seen.collect();
    seen.sort_by_key(|(time, _)| *time);
    seen
}

fn extreme_event(function: &Function, rows: &[Row], column: usize) -> String {
    let mut seen: Vec<(i128, i64, &String)> = Vec::new();
    for row in rows {
        if let [Some(Value::Scalar(text)), Some(Value::Number(by))] = &row.cells[column] {
            let by = if matches!(function, Function::ArgMax(_)) {
                -by
            } else {
                *by
            };
            seen.push((by, row.time, text));
        }
    }
    seen.sort_by_key(|(by, time, _)| (*by, *time));
    seen.first().map_or("null".to_owned(), |(_, _, text)| (*text).clone())
}

fn top(k: usize, seen: &[(i64, String)]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, text) in seen {
        *counts.entry(text).or_default() += 1;
    }
    let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(text, count)| (usize::MAX - count, *text));
    let shown = counts.iter().take(k);
    let shown: Vec<String> = shown
        .map(|(text, count)| format!(r#"{{"value":{text},"count":{count}}}"#))
        .collect();
    format!(r#"{{"values":[{}],"exact":true}}"#, shown.join(","))
}

fn percentile(shares: &[&str], mut values: Vec<i128>) -> String {
    values.sort_unstable();
    let member = |share: &&str| {
        let share = scaled(share, 12).unwrap_or_default();
        // The smallest value that at least this share of the values does not exceed.
        let enough = |value: &&i128| {
            let below = values.iter().filter(|other| other <= value).count() as i128;
            below * 10i128.pow(12) >= share * values.len() as i128
        };
        let found = values
            .iter()
            .find(enough)
            .map_or("null".to_owned(), |value| decimal(*value));
        format!("\"p{}\":{found}", decimal(share * 100))
    };
    format!("{{{}}}", shares.iter().map(member).collect::<Vec<_>>().join(","))
}

fn histogram(bounds: &[&str], values: &[i128]) -> String {
    let limits: Vec<i128> = bounds.iter().filter_map(|bound| scaled(bound, 12)).collect();
    let mut members = Vec::new();
    for (index, limit) in limits.iter().enumerate() {
        let above = |value: &&i128| index == 0 || **value > limits[index - 1];
        let count = values.iter().filter(above).filter(|value| *value <= limit).count();
        members.push(format!("\"{}\":{count}", decimal(*limit)));
    }
    let beyond = values.iter().filter(|value| limits.iter().all(|limit| *value > limit));
    members.push(format!("\"+Inf\":{}", beyond.count()));
    format!("{{{}}}", members.join(","))
}

/// `numerator / denominator`, half-even.
fn round(numerator: BigInt, denominator: BigInt) -> BigInt {
    let (numerator, denominator) = if denominator < BigInt::ZERO {
        (-numerator, -denominator)
    } else {
        (numerator, denominator)
    };
    let mut floor = &numerator / &denominator;
    if &floor * &denominator > numerator {
        floor -= 1;
    }
    let twice = (numerator - &floor * &denominator) * 2;
    let odd = &floor % 2 != BigInt::ZERO;
    if twice > denominator || (twice == denominator && odd) {
        floor += 1;
    }
    floor
}

/// The root of `numerator / denominator`, half-even: counted in halves first.
fn root(numerator: BigInt, denominator: BigInt) -> BigInt {
    let quadruple: BigInt = numerator * 4;
    let quotient: BigInt = &quadruple / &denominator;
    let halves = quotient.sqrt();
    let floor: BigInt = &halves / 2;
    let is_tie = &halves * &halves * denominator == quadruple;
    let upper_half = &halves % 2 != BigInt::ZERO;
    let up = upper_half && (!is_tie || &floor % 2 != BigInt::ZERO);
    floor + i32::from(up)
}

/// A number scaled by 10^12 as JSON.
fn show(scaled: &BigInt) -> String {
    let digits = format!("{:0>13}", scaled.magnitude().to_string());
    let (whole, fraction) = digits.split_at(digits.len() - 12);
    let sign = if *scaled < BigInt::ZERO { "-" } else { "" };
    let text = format!("{sign}{whole}.{fraction}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
