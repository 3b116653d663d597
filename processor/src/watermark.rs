//! Watermarks: how far event time has come in one partition. Monotone, and moved by events and decisions only.

pub mod bounded;
pub mod generator;
pub mod idle;
pub mod periodic;
