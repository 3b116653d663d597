//! Aggregate functions. Must not hold windows or keys.

#[cfg(feature = "k8s")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NotYet;
#[cfg(feature = "k8s")]
use super::schema;
use crate::value::JsonPointer;

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
    /// Quantiles of the field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::object"))]
    pub percentile: Option<NotYet>,
    /// The value of the earliest event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::object"))]
    pub first: Option<NotYet>,
    /// The value of the latest event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::object"))]
    pub last: Option<NotYet>,
    /// A value of the event at which another is least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::object"))]
    pub arg_min: Option<NotYet>,
    /// A value of the event at which another is greatest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::object"))]
    pub arg_max: Option<NotYet>,
    /// Variance of the field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::object"))]
    pub variance: Option<NotYet>,
    /// Standard deviation of the field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::object"))]
    pub stddev: Option<NotYet>,
    /// Number of distinct values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::object"))]
    pub distinct: Option<NotYet>,
    /// The most frequent values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::object"))]
    pub top_k: Option<NotYet>,
    /// Counts by bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::object"))]
    pub histogram: Option<NotYet>,
    /// Events or amount a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::object"))]
    pub rate: Option<NotYet>,
    /// Quotient of two sums.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::object"))]
    pub ratio: Option<NotYet>,
    /// Average weighted by another field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::object"))]
    pub weighted_average: Option<NotYet>,
    /// A CEL condition: events that do not meet it are not looked at.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::text"))]
    pub where_: Option<NotYet>,
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
    /// A derived value by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::text"))]
    pub value: Option<NotYet>,
}
