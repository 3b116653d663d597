//! Bounded out-of-orderness: no event is expected that is more than `bound` older than the newest one.
//! Must not hold: a clock.

/// The watermark generator `boundedOutOfOrderness`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundedOutOfOrderness {
    bound_ms: i64,
}

impl BoundedOutOfOrderness {
    /// With a bound of 0 or more ms.
    pub fn new(bound_ms: i64) -> Self {
        debug_assert!(bound_ms >= 0, "the bound is validated");
        Self { bound_ms }
    }

    /// The watermark that an event at `event_time_ms` allows; the task keeps the maximum.
    pub fn candidate(&self, event_time_ms: i64) -> i64 {
        event_time_ms.saturating_sub(self.bound_ms)
    }

    /// The earliest event that lets the watermark be there.
    pub fn reached_by(&self, watermark_ms: i64) -> i64 {
        watermark_ms.saturating_add(self.bound_ms)
    }
}
