//! Error classes, and the reasons for which a record is rejected. One enum an operation lives beside the operation.

use serde::{Deserialize, Serialize};

/// What a caller does about an error; matched without a default branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Passing trouble: the same thing again, after a while.
    Retry,
    /// One record is bad: dead-letter it and go on.
    Skip,
    /// The task cannot go on: stop, say why, start up again or wait for a person.
    Fatal,
}

/// Why a record went to the dead letters. Names are stable API (header `streamagg-reason`, metrics label).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RejectReason {
    /// Not a JSON object.
    JsonInvalid,
    /// The timestamp field is missing or null.
    TimestampMissing,
    /// The timestamp has the wrong type or form.
    TimestampInvalid,
    /// The timestamp is outside the years 0–9999.
    TimestampOutOfRange,
    /// The time is further ahead of the clock than `maxFutureSkew`.
    TimestampInFuture,
    /// A grouping field is missing or null and its rule is `reject`.
    KeyMissing,
    /// A grouping field is an object or array, or text with a lone surrogate.
    KeyInvalid,
    /// A field of an aggregate has the wrong type.
    FieldTypeInvalid,
    /// A number is beyond ±10^19.
    NumberOutOfRange,
    /// An expression of `let`, `where` or an aggregate's `where` has no value for the event.
    ExpressionFailed,
    /// The gap of a session is missing, no number of ms above 0, or above `maxDuration`.
    SessionGapInvalid,
    /// An event has more elements to take apart than are taken.
    TooManyElements,
}

impl RejectReason {
    /// Number of reasons.
    pub const COUNT: usize = 12;
    /// Every reason, in order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::JsonInvalid,
        Self::TimestampMissing,
        Self::TimestampInvalid,
        Self::TimestampOutOfRange,
        Self::TimestampInFuture,
        Self::KeyMissing,
        Self::KeyInvalid,
        Self::FieldTypeInvalid,
        Self::NumberOutOfRange,
        Self::ExpressionFailed,
        Self::SessionGapInvalid,
        Self::TooManyElements,
    ];

    /// The name as published.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::JsonInvalid => "JsonInvalid",
            Self::TimestampMissing => "TimestampMissing",
            Self::TimestampInvalid => "TimestampInvalid",
            Self::TimestampOutOfRange => "TimestampOutOfRange",
            Self::TimestampInFuture => "TimestampInFuture",
            Self::KeyMissing => "KeyMissing",
            Self::KeyInvalid => "KeyInvalid",
            Self::FieldTypeInvalid => "FieldTypeInvalid",
            Self::NumberOutOfRange => "NumberOutOfRange",
            Self::ExpressionFailed => "ExpressionFailed",
            Self::SessionGapInvalid => "SessionGapInvalid",
            Self::TooManyElements => "TooManyElements",
        }
    }
}
