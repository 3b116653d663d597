//! Scalar types of the manifest: durations, quantities, JSON pointers, instants. Each is checked when it is read.
//! Must not hold: fields of the manifest or rules across fields.

mod duration;
mod instant;
mod pointer;
mod quantity;
mod zone;

pub use duration::Duration;
pub use instant::Instant;
pub use pointer::JsonPointer;
pub use quantity::Quantity;
pub use zone::time_zone;

/// A scalar that could not be read: what was found and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not {expected}")]
pub struct ValueError {
    /// The text as given.
    pub found: String,
    /// What it should have been, with an example.
    pub expected: &'static str,
}
