//! Fields that the API names but this version does not carry out. Must not give them any effect.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Whatever was given for a field that does not work yet. It is kept, so that validation can refuse it by name
/// instead of losing it silently; [`crate::validate`] never lets one through.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NotYet(pub Value);
