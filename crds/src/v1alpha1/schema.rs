//! Pieces of the JSON schema that derives cannot say: patterns, bounds and placeholders for fields that do not work yet.
//! Must not hold rules across fields (`crate::rules`).

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::KeyDefault;
use crate::value::{Duration, Instant, JsonPointer, Quantity};

/// Kafka's own rule, and no name of dots alone.
const TOPIC_PATTERN: &str = "^[.]{0,2}[a-zA-Z0-9_-][a-zA-Z0-9._-]*$";

/// Bounds without which the API server refuses the cost of CEL rules.
const SERVERS_MAX: u32 = 32;
const TOPICS_MAX: u32 = 64;
const PROPERTIES_MAX: u32 = 32;

/// A name of a header.
pub fn header(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 249})
}

/// An expression; whether it is one is checked outside the API server.
pub fn expression(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": crate::expression::LENGTH_MAX})
}

/// A placeholder that takes any object.
pub fn object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// Name of an aggregation that another object refers to, for good.
pub fn aggregation_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "minLength": 1, "maxLength": 52, "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        "x-kubernetes-validations": [{
            "rule": "self == oldSelf",
            "message": "cannot change: a checkpoint is taken once; create another StreamCheckpoint instead",
        }],
    })
}

/// Name of another object of ours.
pub fn object_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "minLength": 1, "maxLength": 253, "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
    })
}

/// Topic-safe, with room for the suffixes of internal topics.
pub fn job_id(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 200, "pattern": TOPIC_PATTERN})
}

/// Kafka's own rule for names of topics.
pub fn topic(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 249, "pattern": TOPIC_PATTERN})
}

/// A set of topics.
pub fn topics(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "minItems": 1, "maxItems": TOPICS_MAX, "x-kubernetes-list-type": "set",
        "items": topic(generator),
    })
}

/// `host:port`, several.
pub fn bootstrap_servers(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "minItems": 1, "maxItems": SERVERS_MAX, "x-kubernetes-list-type": "set",
        "items": {"type": "string", "maxLength": 260, "pattern": "^([a-zA-Z0-9._-]+|\\[[0-9a-fA-F:]+\\]):[0-9]{1,5}$"},
    })
}

/// Names and texts; which names are allowed is a rule.
pub fn properties(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "maxProperties": PROPERTIES_MAX,
        "additionalProperties": {"type": "string", "maxLength": 256},
    })
}

/// A name that can stand in an expression.
pub fn identifier(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[a-zA-Z][a-zA-Z0-9_]*$"})
}

/// A name of a window.
pub fn window_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[a-zA-Z][a-zA-Z0-9_-]*$"})
}

/// Shares between 0 and 1.
pub fn quantiles(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "minItems": 1, "maxItems": 16, "x-kubernetes-list-type": "set",
        "items": {"type": "number", "minimum": 0.0, "maximum": 1.0},
    })
}

/// Limits of ranges of numbers.
pub fn bounds(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "minItems": 1, "maxItems": 64, "x-kubernetes-list-type": "set",
        "items": {"type": "number", "minimum": -1e18, "maximum": 1e18},
    })
}

/// The members of a composite. A schema that holds itself has no end: the definition puts the element in.
pub fn members(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "minItems": 1, "maxItems": 16,
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
    })
}

/// A number of events, at least one.
pub fn events(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int64", "minimum": 1, "maximum": 1_000_000_000})
}

/// Events of a count window: each is kept.
pub fn window_events(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int64", "minimum": 1, "maximum": 10_000})
}

/// A name in the IANA time zone database; whether it is there is a rule.
pub fn time_zone(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[A-Za-z][A-Za-z0-9_+/-]*$"})
}

/// A name of a Secret: a DNS subdomain, so that it is one directory and nothing else.
pub fn secret_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "minLength": 1, "maxLength": 253, "pattern": "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
    })
}

/// A key of a Secret: the API server's own rule, so that it is one file and nothing else.
pub fn secret_key(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "minLength": 1, "maxLength": 253, "pattern": "^[.]?[a-zA-Z0-9_-][a-zA-Z0-9._-]*$",
    })
}

/// An address of a service.
pub fn endpoint(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": 512, "pattern": "^https?://[^ ]+$"})
}

/// Inlines a scalar: a structural schema has no references.
macro_rules! scalar {
    ($type:ty, $name:literal, $schema:expr) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

scalar!(
    Duration,
    "Duration",
    json_schema!({"type": "string", "minLength": 2, "maxLength": 11, "pattern": Duration::PATTERN})
);
scalar!(
    Instant,
    "Instant",
    json_schema!({"type": "string", "maxLength": 40, "pattern": Instant::PATTERN})
);
scalar!(
    JsonPointer,
    "JsonPointer",
    json_schema!({"type": "string", "maxLength": 512, "pattern": JsonPointer::PATTERN})
);
scalar!(
    Quantity,
    "Quantity",
    json_schema!({"x-kubernetes-int-or-string": true, "maxLength": 32, "pattern": Quantity::PATTERN})
);
scalar!(
    KeyDefault,
    "KeyDefault",
    json_schema!({"x-kubernetes-int-or-string": true, "maxLength": 256})
);
