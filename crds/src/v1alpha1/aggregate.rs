//! Aggregate functions. Must not hold windows or keys.

#[cfg(feature = "k8s")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(feature = "k8s")]
use super::schema;
use crate::value::{Duration, JsonPointer};

/// One value of a result: a name and exactly one function.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AggregateSpec {
    /// Its name in the result's `values`.
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::identifier"))]
    pub name: String,
    /// Number of events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<Count>,
    /// Exact decimal sum of a field. Null when no event had a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sum: Option<FieldOf>,
    /// Exact decimal average of a field, rounded once. Null when no event had a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average: Option<FieldOf>,
    /// Least value of a field. Null when no event had a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<FieldOf>,
    /// Greatest value of a field. Null when no event had a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<FieldOf>,
    /// Quantiles of a field, by name (`p50`, `p99.9`): values of the input while a window has at most 256 of them for a
    /// group, then within `relativeError`. An object of nulls when no event had a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percentile: Option<Percentile>,
    /// The value of a field in the earliest event that has one (ties: the lowest offset). Null when no event had a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<ScalarOf>,
    /// The value of a field in the latest event that has one (ties: the highest offset). Null when no event had a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<ScalarOf>,
    /// The value of a field in the event where another field is least (ties: the earliest event).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arg_min: Option<ArgOf>,
    /// The value of a field in the event where another field is greatest (ties: the earliest event).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arg_max: Option<ArgOf>,
    /// Variance of a field, exact in decimal and rounded once. Null below two values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variance: Option<Spread>,
    /// Standard deviation of a field, rounded once. Null below two values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stddev: Option<Spread>,
    /// Number of distinct values of a field: exact while there are few, then within `relativeError`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distinct: Option<Distinct>,
    /// The most frequent values of a field with their counts; says itself whether they are exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<TopK>,
    /// Number of values by range. Null when no event had a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub histogram: Option<Histogram>,
    /// Events, or the sum of a field, by length of the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Sum of one field divided by the sum of another, exact in decimal. Null when a sum is missing or the divisor is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<Ratio>,
    /// Average of a field weighted by another, exact in decimal. Null when no event had both or the weights add up to 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weighted_average: Option<WeightedAverage>,
    /// Aggregates that stand together in the result, as an object under this name: each with a name and one function of
    /// `spec.aggregates[]`, and if need be with a condition of its own beside the one that all of them have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::members"))]
    pub composite: Option<Vec<AggregateSpec>>,
    /// A CEL condition over `event` and the names of `let`: of an event that does not meet it this aggregate looks at
    /// nothing. An error makes the event a dead letter.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::expression"))]
    pub where_: Option<String>,
}

/// Counts events; takes no field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
pub struct Count {}

/// What a function of one number looks at: `field` or `value`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct FieldOf {
    /// Field of the event: a number. Missing or null is skipped; another type makes the event a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<JsonPointer>,
    /// A value of `let`, by name: a number. Null is skipped; another type makes the event a dead letter. A double
    /// counts by its shortest decimal form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::identifier"))]
    pub value: Option<String>,
}

/// What a function of any value looks at: `field` or `value`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ScalarOf {
    /// Field of the event: a text, a number or a boolean. Missing or null is skipped; an object or array, or a text of
    /// more than 4096 bytes, makes the event a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<JsonPointer>,
    /// A value of `let`, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::identifier"))]
    pub value: Option<String>,
}

/// A value, and the number that decides which event it is taken from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ArgOf {
    /// Field of the event: a text, a number or a boolean. Missing or null is skipped; an object or array, or a text of
    /// more than 4096 bytes, makes the event a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<JsonPointer>,
    /// A value of `let`, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::identifier"))]
    pub value: Option<String>,
    /// The number that is least or greatest there. An event without it is skipped.
    pub by: FieldOf,
}

/// Numbers whose spread is measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Spread {
    /// Field of the event: a number. Missing or null is skipped; another type makes the event a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<JsonPointer>,
    /// A value of `let`, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::identifier"))]
    pub value: Option<String>,
    /// Whether the values are all there are (divide by n) rather than a sample (divide by n − 1).
    #[serde(default)]
    pub population: bool,
}

/// Numbers and the quantiles wanted of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Percentile {
    /// Field of the event: a number. Missing or null is skipped; another type makes the event a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<JsonPointer>,
    /// A value of `let`, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::identifier"))]
    pub value: Option<String>,
    /// Shares of the values, each between 0 and 1: the answer is the smallest value that at least this share of the
    /// values does not exceed.
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::quantiles"))]
    pub quantiles: Vec<f64>,
    /// How far an answer may be from the exact one, relative to it, once there are too many values to keep. Half
    /// the error takes twice the memory.
    #[serde(default = "one_percent")]
    #[cfg_attr(feature = "k8s", schemars(range(min = 0.001, max = 0.1)))]
    pub relative_error: f64,
}

/// Values that are counted once each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Distinct {
    /// Field of the event: a text, a number or a boolean. Missing or null is skipped; an object or array, or a text of
    /// more than 4096 bytes, makes the event a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<JsonPointer>,
    /// A value of `let`, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::identifier"))]
    pub value: Option<String>,
    /// Standard error of the count once there are too many distinct values to keep. Half the error takes four times
    /// the memory.
    #[serde(default = "one_percent")]
    #[cfg_attr(feature = "k8s", schemars(range(min = 0.005, max = 0.1)))]
    pub relative_error: f64,
}

/// Values of which the most frequent are wanted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TopK {
    /// Field of the event: a text, a number or a boolean. Missing or null is skipped; an object or array, or a text of
    /// more than 4096 bytes, makes the event a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<JsonPointer>,
    /// A value of `let`, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::identifier"))]
    pub value: Option<String>,
    /// How many.
    #[serde(default = "ten")]
    #[cfg_attr(feature = "k8s", schemars(range(min = 1, max = 100)))]
    pub k: u32,
}

/// Numbers and the limits of the ranges in which they are counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Histogram {
    /// Field of the event: a number. Missing or null is skipped; another type makes the event a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<JsonPointer>,
    /// A value of `let`, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::identifier"))]
    pub value: Option<String>,
    /// Upper limits, each belonging to its range; one more range is above the greatest. The order does not matter.
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::bounds"))]
    pub bounds: Vec<f64>,
}

/// What is added up, and for which span of time. Without `field` and `value` events are counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Rate {
    /// Field of the event: a number. Missing or null is skipped; another type makes the event a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<JsonPointer>,
    /// A value of `let`, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::identifier"))]
    pub value: Option<String>,
    /// The span: the rate is the number or sum times `per`, divided by the length of the window.
    #[serde(default = "one_second")]
    pub per: Duration,
}

/// Two numbers whose sums are divided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Ratio {
    /// What is divided.
    pub numerator: FieldOf,
    /// What it is divided by.
    pub denominator: FieldOf,
}

/// Numbers and their weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct WeightedAverage {
    /// Field of the event: a number. Missing or null is skipped; another type makes the event a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<JsonPointer>,
    /// A value of `let`, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::identifier"))]
    pub value: Option<String>,
    /// How much a number counts. An event without it is skipped.
    pub weight: FieldOf,
}

fn one_percent() -> f64 {
    0.01
}

fn ten() -> u32 {
    10
}

fn one_second() -> Duration {
    Duration::from_ms(1000)
}
