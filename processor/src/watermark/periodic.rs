//! Periodic: the watermark moves in steps of event time, so that windows fire in groups. Never by the clock.
//! Must not hold: a clock.

/// The watermark generator `periodic`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Periodic {
    bound_ms: i64,
    step_ms: i64,
}

impl Periodic {
    /// With a bound of 0 or more ms and a positive step, counted from the epoch.
    pub fn new(bound_ms: i64, step_ms: i64) -> Self {
        debug_assert!(bound_ms >= 0 && step_ms > 0, "bound and step are validated");
        Self { bound_ms, step_ms }
    }

    /// The largest step that an event at `event_time_ms` allows.
    pub fn candidate(&self, event_time_ms: i64) -> i64 {
        let behind = event_time_ms.saturating_sub(self.bound_ms);
        behind.saturating_sub(behind.rem_euclid(self.step_ms))
    }

    /// The earliest event that lets the watermark be there or beyond.
    pub fn reached_by(&self, watermark_ms: i64) -> i64 {
        let short = (-watermark_ms.rem_euclid(self.step_ms)).rem_euclid(self.step_ms);
        watermark_ms.saturating_add(short).saturating_add(self.bound_ms)
    }
}
