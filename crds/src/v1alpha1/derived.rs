//! Values derived from an event. Must not hold what uses them.

#[cfg(feature = "k8s")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(feature = "k8s")]
use super::schema;

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
