//! The smallest parts: exact decimals, JSON field extraction, event time, grouping keys, shares of
//! records. Pure and free of policy.

pub mod decimal;
pub mod json;
pub mod key;
pub mod share;
pub mod timestamp;
pub mod trace_context;
