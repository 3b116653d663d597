//! The protocol as pure decisions: what a task's committed position says, how a task starts, who may commit.
//!
//! Facts in, decision out; the executor gathers the facts and carries the decision out. The rules are numbered in
//! ARCHITECTURE.md and were checked by an explicit-state model: take none away without a model run that still holds.
//! Must not hold: sockets, files, clocks or randomness.

pub mod at_least_once;
pub mod input;
pub mod ownership;
pub mod position;
pub mod problem;
pub mod rewind;
pub mod startup;

pub use ownership::{AfterFence, AfterUnknown};
pub use position::{Ancestor, Birth, LastInput, Owner, Place, Position};
pub use problem::{Reason, Stop};
pub use rewind::Order;
pub use startup::{Base, CheckpointFact, Facts, How, InputLog, LastInputCheck, Local, Refusal, Resume, Startup};
