//! Counters of a task, for metrics and summaries. Not state: they begin at zero with every task object.

use crate::error::RejectReason;

/// What a task has done since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records consumed.
    pub records: u64,
    /// Of these, passed over to shed load.
    pub shed: u64,
    /// Results put out.
    pub results: u64,
    /// Events for which every window was purged.
    pub late: u64,
    /// Window instances missed by events, by window of the spec.
    pub losses: Vec<u64>,
    /// Events for which `where` does not hold.
    pub filtered: u64,
    /// Events between windows (a slide above the size).
    pub outside: u64,
    /// Records taken apart that had no element: no event.
    pub empty: u64,
    /// Dead records by reason; use [`Stats::rejected`].
    pub(super) rejected: [u64; RejectReason::COUNT],
}

impl Stats {
    pub(super) fn new(windows: usize) -> Self {
        Self {
            losses: vec![0; windows],
            ..Self::default()
        }
    }

    /// Dead records for a reason.
    pub fn rejected(&self, reason: RejectReason) -> u64 {
        self.rejected[reason as usize]
    }

    /// Dead records.
    pub fn dead(&self) -> u64 {
        self.rejected.iter().sum()
    }
}
