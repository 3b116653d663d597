//! The smallest parts: exact decimals, JSON field extraction, event time, grouping keys, shares of
//! records and the numbers behind them. Pure and free of policy.

pub mod decimal;
pub mod json;
pub mod key;
pub mod share;
pub mod split_mix;
pub mod timestamp;
pub mod trace_context;
