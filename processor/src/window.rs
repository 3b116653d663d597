//! Windows: which ones an event belongs to, in which order they fire.
//! Must not hold: state, keys or aggregates.

pub mod assigner;
pub mod calendar;
pub mod count;
pub mod session;
pub mod types;
