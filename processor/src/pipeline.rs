//! From a manifest to a running pipeline: the compiled plan, the task that steps over records, what it puts out.

pub mod alignment;
pub mod arrivals;
pub mod builder;
pub mod by_clock;
pub mod derive;
pub mod epoch;
pub mod operator;
pub mod output;
pub mod position;
pub mod rate;
pub mod shedding;
pub mod shuffle;
pub mod sink;
pub mod stage;
pub mod worker;

#[cfg(feature = "runtime")]
pub mod executor;
