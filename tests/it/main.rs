//! One binary of everything that proves the product without a broker or a cluster.

mod engine;
mod oracle_cases;
mod tidy;
