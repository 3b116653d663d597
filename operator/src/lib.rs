//! The operator: turns a `StreamAggregation` into processor pods and looks after them.
//! Must not hold: window, aggregation or Kafka logic; the pods do that.

pub mod admin_client;
pub mod checkpoint;
pub mod controller;
pub mod error;
pub mod http;
pub mod labels;
pub mod lease;
pub mod metrics;
pub mod names;
pub mod preflight;
pub mod resolver;
pub mod telemetry;
