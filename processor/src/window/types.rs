//! A window of the pipeline and one instance of it. Times are ms since the epoch, intervals `[start, end)`.

use super::assigner::Aligned;

/// A window of the spec, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowPlan {
    /// Name in the spec; unique.
    pub name: String,
    /// Where its instances lie.
    pub assigner: Aligned,
    /// How long after its end an instance still takes late events, in ms.
    pub allowed_lateness_ms: i64,
}

/// One instance of a window, ordered as instances fire: by end, start, then the rank of the window's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// First ms behind it.
    pub end_ms: i64,
    /// First ms in it.
    pub start_ms: i64,
    /// Rank of its name among the names of the spec, in byte order.
    pub rank: usize,
    /// Index of the window in the spec.
    pub index: usize,
}
