//! API types of `StreamAggregation` and the contracts shared by operator and processor.
//! Must not hold a client, a clock, a socket or a file.

pub mod admin;
pub mod assignment;
#[cfg(feature = "k8s")]
pub mod crd;
pub mod expression;
pub mod job_file;
pub mod manifest;
pub mod overrides;
#[cfg(feature = "k8s")]
pub mod reference;
pub mod resolved;
pub mod rules;
pub mod structure;
pub mod v1alpha1;
pub mod validate;
pub mod value;

pub use manifest::parse_manifest;
