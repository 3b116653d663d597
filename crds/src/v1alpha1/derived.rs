//! Values derived from an event, and events made of one. Must not hold what uses them.

#[cfg(feature = "k8s")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(feature = "k8s")]
use super::schema;
use crate::value::JsonPointer;

/// Makes one event of each element of an array.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ExplodeSpec {
    /// The array. In each event its elements stand in its place: `/choices/tokens` is a member of one. A record without
    /// it, or with an empty one, is no event; one with anything else there, or with more than 10,000 elements, is a dead
    /// letter.
    pub field: JsonPointer,
}

/// A value derived from each event, by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct LetSpec {
    /// Its name: in expressions behind it, in `groupBy` and in aggregates.
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::identifier"))]
    pub name: String,
    /// A CEL expression over `event` and the names before it. An error makes the event a dead letter.
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::expression"))]
    pub value: String,
}
