//! The batch oracle, and generators of specs and logs. Must not be used by shipping code.

pub mod generator;
pub mod oracle;
