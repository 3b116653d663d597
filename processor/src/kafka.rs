//! The Kafka shell: settings, readers, the transactional producer, the control topic.
//! Must not hold: what is decided from what is read (`state::recovery`) or when an epoch closes (`pipeline::epoch`).

pub mod access;
pub mod config;
pub mod secrets;
pub mod settings;

#[cfg(feature = "runtime")]
pub mod brokers;
#[cfg(feature = "runtime")]
pub mod closing;
#[cfg(feature = "runtime")]
pub mod consumer;
#[cfg(feature = "runtime")]
pub mod control;
#[cfg(feature = "runtime")]
pub mod producer;
#[cfg(feature = "runtime")]
pub mod topics;
#[cfg(feature = "runtime")]
pub mod trouble;
