//! Event time and watermarks. Must not hold windows.

#[cfg(feature = "k8s")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Empty;
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
    /// What happens to the watermark of a partition without records. Absent: it stays, and so do its open windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<IdleSpec>,
    /// How far a partition's watermark may run ahead of the slowest that has records to read; one that is further waits.
    /// With `partitioning: any`. Default: no partition waits for another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_drift: Option<Duration>,
    /// How far beyond the clock an event's time may be; what is further is a dead letter and does not move the
    /// watermark. Absent: any time is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_future_skew: Option<Duration>,
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
    /// The timestamp of the Kafka record: the producer's or the broker's clock, as the topic says. Lines on a laptop
    /// have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Empty>,
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
    /// The largest event time seen in the partition: its events come in order, and one that does not is at the
    /// windows' `allowedLateness`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monotonic: Option<Empty>,
    /// Marks within events; an event without one does not move the watermark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub punctuated: Option<Punctuated>,
    /// The largest event time seen in the partition, less a bound, in steps: windows fire in groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub periodic: Option<Periodic>,
}

/// The watermark is the largest event time seen in the partition, less `bound`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct BoundedOutOfOrderness {
    /// How much later than the newest event an event may come and still be in order.
    pub bound: Duration,
}

/// The watermark is the largest mark seen in the partition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Punctuated {
    /// Field that holds a mark, written as `timestamp.unit` says: no event older than it follows. Missing or null: no
    /// mark; anything else that is no time makes the event a dead letter.
    pub field: JsonPointer,
}

/// The watermark is the largest multiple of `step` that is not above the largest event time less `bound`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Periodic {
    /// How much later than the newest event an event may come and still be in order.
    pub bound: Duration,
    /// Step of event time, counted from the epoch; never of the clock.
    pub step: Duration,
}

/// What happens to the watermark of a partition without records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct IdleSpec {
    /// How long a partition must have had no record at its end.
    pub after: Duration,
    /// How its watermark then moves.
    #[serde(default)]
    pub advance: IdleAdvance,
}

/// How the watermark of an idle partition moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
pub enum IdleAdvance {
    /// With the clock, from where it stood when the last record came; never beyond the clock less the bound.
    #[default]
    WallClock,
    /// Not at all.
    None,
}
