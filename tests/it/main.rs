//! One binary of everything that proves the product without a broker or a cluster.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail the test that calls them"
)]

mod around;
mod docs;
mod embedded;
mod engine;
mod formats;
mod lateness;
mod migration;
mod never_panics;
mod oracle_cases;
mod paging;
mod simulator;
mod tidy;
mod two_stages;
