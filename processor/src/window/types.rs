//! A window of the pipeline and one instance of it. Times are ms since the epoch, intervals `[start, end)`.

use streamagg_crds::resolved::Trigger;
use streamagg_crds::v1alpha1::Panes;

use super::assigner::Aligned;
use super::calendar::Calendar;
use super::count::CountRule;
use super::session::SessionRule;

/// A window of the spec, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowPlan {
    /// Name in the spec; unique.
    pub name: String,
    /// Where its instances lie.
    pub assigner: Assigner,
    /// How long after its end an instance still takes late events, in ms.
    pub allowed_lateness_ms: i64,
    /// When it fires.
    pub trigger: Trigger,
    /// How a later pane relates to the earlier ones.
    pub panes: Panes,
}

/// Where the instances of a window lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assigner {
    /// On an endless grid.
    Aligned(Aligned),
    /// As the calendar has it.
    Calendar(Calendar),
    /// Everywhere: the one instance is [`Window::ALL_TIME`].
    Global,
    /// Where events are.
    Session(SessionRule),
    /// Over numbers of events, whatever their times.
    Count(CountRule),
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

impl Window {
    /// Start and end of the instance of a global window; results show them as null.
    pub const ALL_TIME: (i64, i64) = (i64::MIN, i64::MAX);

    /// From start to end; that of all time is 0, for it has none.
    pub fn length_ms(&self) -> i64 {
        match (self.start_ms, self.end_ms) {
            Self::ALL_TIME => 0,
            (start_ms, end_ms) => end_ms.saturating_sub(start_ms),
        }
    }
}
