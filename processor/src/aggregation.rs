//! Aggregates: what is kept per key and pane, how it is merged, how it is printed.
//! Must not hold: windows, keys, I/O.

pub mod accumulator;
pub mod layout;
