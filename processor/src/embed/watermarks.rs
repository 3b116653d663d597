//! How event time is known to have advanced, in the manifest's words. Must not compute watermarks.

use std::time::Duration;

use serde_json::{Value, json};

use super::declared::duration;

/// A watermark strategy.
#[derive(Clone, Debug)]
pub struct Watermark(pub(super) Value);

impl Watermark {
    /// The newest event time less a bound: how much later than the newest event an event may come.
    pub fn bounded_out_of_orderness(bound: Duration) -> Self {
        Self(json!({"boundedOutOfOrderness": {"bound": duration(bound)}}))
    }

    /// The newest event time: events come in order.
    pub fn monotonic() -> Self {
        Self(json!({"monotonic": {}}))
    }

    /// The newest mark: a field, by JSON pointer, that holds a time no later event is before.
    pub fn punctuated(field: &str) -> Self {
        Self(json!({"punctuated": {"field": field}}))
    }

    /// The newest event time less a bound, floored to a step: windows fire in groups.
    pub fn periodic(bound: Duration, step: Duration) -> Self {
        Self(json!({"periodic": {"bound": duration(bound), "step": duration(step)}}))
    }
}
