//! API types of `StreamAggregation` and the contracts shared by operator and processor.
