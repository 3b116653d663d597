//! Helpers of the suites on real parts: traffic, a checker of results that shares no code with the engine, waiting.
//! Must not be used by shipping code, and must not depend on the processor or the operator.

#[cfg(feature = "broker")]
pub mod broker;
pub mod checker;
#[cfg(feature = "cluster")]
pub mod cluster;
#[cfg(feature = "broker")]
pub mod load;
#[cfg(feature = "cluster")]
pub mod pod_process;
#[cfg(feature = "broker")]
pub mod process;
pub mod random;
pub mod trace;
pub mod traffic;
#[cfg(feature = "broker")]
pub mod verify;
pub mod wait;
