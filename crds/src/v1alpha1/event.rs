//! Event time and watermarks. Must not hold windows.

#[cfg(feature = "k8s")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NotYet;
#[cfg(feature = "k8s")]
use super::schema;
use crate::value::{Duration, JsonPointer};

/// Where an event's time comes from and how far out of order events arrive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct EventSpec {
    /// The event's time.
    pub timestamp: TimestampSpec,
    /// How event time is known to have advanced.
    pub watermark: WatermarkSpec,
    /// What happens to the watermark of a partition without records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::object"))]
    pub idle: Option<NotYet>,
    /// How far a partition's watermark may run ahead of the slowest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::text"))]
    pub max_drift: Option<NotYet>,
    /// How far beyond the clock an event's time may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::text"))]
    pub max_future_skew: Option<NotYet>,
}

/// Where an event's time comes from; `field` or `record`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TimestampSpec {
    /// Field of the event that holds its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<JsonPointer>,
    /// How the field is written. Numeric units take JSON numbers only.
    #[serde(default)]
    pub unit: TimeUnit,
    /// The record's own timestamp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::object"))]
    pub record: Option<NotYet>,
}

/// How a time is written in an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
pub enum TimeUnit {
    /// Text such as `2026-01-01T00:00:00.000Z`.
    #[default]
    Rfc3339,
    /// A number of seconds since the Unix epoch.
    Seconds,
    /// A number of milliseconds since the Unix epoch.
    Milliseconds,
    /// A number of microseconds since the Unix epoch.
    Microseconds,
    /// A number of nanoseconds since the Unix epoch.
    Nanoseconds,
}

/// How event time is known to have advanced; exactly one member.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct WatermarkSpec {
    /// The largest event time seen in the partition, less a bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounded_out_of_orderness: Option<BoundedOutOfOrderness>,
    /// Events of a partition come in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::object"))]
    pub monotonic: Option<NotYet>,
    /// Marker events carry the watermark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::object"))]
    pub punctuated: Option<NotYet>,
    /// The watermark moves in steps of event time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::object"))]
    pub periodic: Option<NotYet>,
}

/// The watermark is the largest event time seen in the partition, less `bound`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct BoundedOutOfOrderness {
    /// How much later than the newest event an event may come and still be in order.
    pub bound: Duration,
}
