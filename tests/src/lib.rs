//! The batch oracle, generators of specs and logs, entry points for fuzzers. Must not be used by shipping code.

pub mod fuzz;
pub mod generator;
pub mod oracle;
