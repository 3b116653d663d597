//! Expressions at work: a checked tree becomes a program over the slots of an event, evaluated without a clock, without
//! a panic and within a bounded cost; scalars cost no allocation.
//! Must not hold: the language itself (`streamagg_crds::expression`), or what becomes of an event that fails.

mod evaluate;
mod json;
mod number;
mod program;
mod value;

pub use evaluate::{Budget, EvaluationError, Event};
pub use program::Program;
pub use value::Value;

#[cfg(test)]
mod tests;
