//! Aggregates, in the manifest's words. Must not compute them.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::declared::{duration, operand};

/// What is computed for each window and group. An input is a field by JSON pointer (`/latency_ms`), or a value by the
/// name it was derived under.
#[derive(Clone, Debug)]
pub struct Aggregate {
    function: &'static str,
    pub(super) body: Value,
}

impl Aggregate {
    fn new(function: &'static str, parameters: Map<String, Value>) -> Self {
        Self {
            function,
            body: json!({function: parameters}),
        }
    }

    fn with(mut self, parameter: &str, value: Value) -> Self {
        match &mut self.body[self.function] {
            Value::Object(parameters) => drop(parameters.insert(parameter.to_owned(), value)),
            // A composite has no parameters: its rules say so.
            _ => self.body[parameter] = value,
        }
        self
    }

    /// Several aggregates, each with its name, as one object of the result. A [filter](Self::filter) is for all of them.
    pub fn composite<'a>(members: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        let named = |(name, member): (&str, Self)| {
            let mut body = member.body;
            body["name"] = json!(name);
            body
        };
        let members: Vec<Value> = members.into_iter().map(named).collect();
        Self {
            function: "composite",
            body: json!({"composite": members}),
        }
    }

    /// Number of events.
    pub fn count() -> Self {
        Self::new("count", Map::new())
    }

    /// Exact decimal sum.
    pub fn sum(input: &str) -> Self {
        Self::new("sum", operand(input))
    }

    /// Exact decimal average, rounded once.
    pub fn average(input: &str) -> Self {
        Self::new("average", operand(input))
    }

    /// Least value.
    pub fn min(input: &str) -> Self {
        Self::new("min", operand(input))
    }

    /// Greatest value.
    pub fn max(input: &str) -> Self {
        Self::new("max", operand(input))
    }

    /// Value of the earliest event that has one.
    pub fn first(input: &str) -> Self {
        Self::new("first", operand(input))
    }

    /// Value of the latest event that has one.
    pub fn last(input: &str) -> Self {
        Self::new("last", operand(input))
    }

    /// Value of the event where `by` is least.
    pub fn arg_min(input: &str, by: &str) -> Self {
        Self::new("argMin", operand(input)).with("by", operand(by).into())
    }

    /// Value of the event where `by` is greatest.
    pub fn arg_max(input: &str, by: &str) -> Self {
        Self::new("argMax", operand(input)).with("by", operand(by).into())
    }

    /// Variance of a sample (divided by n − 1).
    pub fn variance(input: &str) -> Self {
        Self::new("variance", operand(input))
    }

    /// Standard deviation of a sample.
    pub fn stddev(input: &str) -> Self {
        Self::new("stddev", operand(input))
    }

    /// Quantiles, each between 0 and 1.
    pub fn percentile(input: &str, quantiles: &[f64]) -> Self {
        Self::new("percentile", operand(input)).with("quantiles", json!(quantiles))
    }

    /// Number of distinct values.
    pub fn distinct(input: &str) -> Self {
        Self::new("distinct", operand(input))
    }

    /// The `k` most frequent values.
    pub fn top_k(input: &str, k: u32) -> Self {
        Self::new("topK", operand(input)).with("k", json!(k))
    }

    /// Number of values by range; `bounds` are the upper limits.
    pub fn histogram(input: &str, bounds: &[f64]) -> Self {
        Self::new("histogram", operand(input)).with("bounds", json!(bounds))
    }

    /// Events by time: their number times `per`, divided by the length of the window.
    pub fn rate(per: Duration) -> Self {
        Self::new("rate", Map::new()).with("per", duration(per))
    }

    /// As [`Self::rate`], of the sum of an input.
    pub fn sum_rate(input: &str, per: Duration) -> Self {
        Self::new("rate", operand(input)).with("per", duration(per))
    }

    /// Sum of one input divided by the sum of another.
    pub fn ratio(numerator: &str, denominator: &str) -> Self {
        Self::new("ratio", Map::new())
            .with("numerator", operand(numerator).into())
            .with("denominator", operand(denominator).into())
    }

    /// Average of an input weighted by another.
    pub fn weighted_average(input: &str, weight: &str) -> Self {
        Self::new("weightedAverage", operand(input)).with("weight", operand(weight).into())
    }

    /// Variance and standard deviation of all there is (divided by n).
    pub fn population(self) -> Self {
        self.with("population", json!(true))
    }

    /// How far percentiles and distinct counts may be from the exact answer once there are too many values to keep.
    pub fn relative_error(self, share: f64) -> Self {
        self.with("relativeError", json!(share))
    }

    /// Looks only at events that meet a CEL condition.
    pub fn filter(mut self, condition: &str) -> Self {
        self.body["where"] = json!(condition);
        self
    }
}
