//! Keyed state of a task: what is stored where, in which format, behind which backend.
//! Must not hold: window or aggregate semantics.

pub mod backend;
pub mod codec;
pub mod memory;
pub mod recovery;
