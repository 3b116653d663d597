//! The streaming aggregation engine and the shell that runs it on Kafka.
//!
//! People who embed the engine begin at [`embed`]: a fluent builder, and a run fed with records.
//!
//! Everything here is pure (no clock, thread, socket or file; time and bytes come in as arguments, effects go out as
//! values) except the modules behind the feature `runtime`, which is the shell. ARCHITECTURE.md has the map.

pub mod aggregation;
pub mod core;
pub mod embed;
pub mod error;
pub mod expression;
pub mod generator;
pub mod kafka;
pub mod pipeline;
pub mod state;
pub mod watermark;
pub mod window;

#[cfg(feature = "runtime")]
pub mod admin;
#[cfg(feature = "runtime")]
pub mod metrics;
#[cfg(feature = "runtime")]
pub mod serve;
#[cfg(feature = "runtime")]
pub mod spans;
