//! Aggregates: what is kept per key and pane, how it is merged, how it is printed.
//! Must not hold: windows, keys, I/O.

pub mod accumulator;
mod bytes;
pub mod distinct;
pub mod extra;
pub mod function;
pub mod inputs;
pub mod layout;
mod moments;
pub mod percentile;
pub mod rows;
pub mod top_k;
