//! The streaming aggregation engine.
