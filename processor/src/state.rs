//! Keyed state of a task: what is stored where, in which format, behind which backend.
//! Must not hold: window or aggregate semantics.

pub mod backend;
pub mod budget;
pub mod checkpoint;
pub mod codec;
pub mod memory;
pub mod recovery;
pub mod room;

#[cfg(feature = "runtime")]
pub mod local;
#[cfg(feature = "runtime")]
pub mod rocksdb;
#[cfg(feature = "runtime")]
pub mod store;
