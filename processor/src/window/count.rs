//! Count windows: which events of a key a result is over, by their numbers alone. Must not hold events or keys.

/// The rule of a count window: a result after every `slide` events of a key, over its last `size` events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountRule {
    /// At least 1.
    pub size: u64,
    /// At least 1.
    pub slide: u64,
}

impl CountRule {
    /// Where the next event goes among `size` places, when there were so many.
    pub fn place(&self, events: u64) -> usize {
        (events % self.size) as usize
    }

    /// Whether a result is due when there were so many events.
    pub fn is_due(&self, events: u64) -> bool {
        events.is_multiple_of(self.slide)
    }

    /// Places in use when there were so many events.
    pub fn places(&self, events: u64) -> usize {
        events.min(self.size) as usize
    }
}
