//! Windows of a valid spec: kinds, sizes in ms, triggers. Must not hold the rules that make them valid.

use super::ms;
use crate::v1alpha1::{self, CalendarUnit, Panes, RepeatSpec, WindowSpec};
use crate::value::JsonPointer;

/// A window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Name in the result.
    pub name: String,
    /// Its kind and sizes.
    pub kind: WindowKind,
    /// How long after its end it takes events, ms; 0 for global and count windows.
    pub allowed_lateness_ms: i64,
    /// When results are written.
    pub trigger: Trigger,
    /// How a later result relates to the earlier ones.
    pub panes: Panes,
}

/// Kinds of windows. Sizes, slides, steps and gaps are positive; `0 ≤ offset_ms <` size (tumbling, cumulative) or
/// slide (sliding).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WindowKind {
    /// One size, side by side.
    Tumbling {
        /// Length, ms.
        size_ms: i64,
        /// Shift from the epoch, ms.
        offset_ms: i64,
    },
    /// One size, starting every slide.
    Sliding {
        /// Length, ms.
        size_ms: i64,
        /// Distance of starts, ms.
        slide_ms: i64,
        /// Shift from the epoch, ms.
        offset_ms: i64,
    },
    /// Growing by steps up to a size, a multiple of the step.
    Cumulative {
        /// Length of the longest, ms.
        size_ms: i64,
        /// Distance of ends, ms.
        step_ms: i64,
        /// Shift of the starts from the epoch, ms.
        offset_ms: i64,
    },
    /// Ended by a gap without events.
    Session {
        /// How far apart events of one session are at most.
        gap: Gap,
        /// Nothing joins across a multiple of this, ms; not below the gap, and given where the gap is a field.
        max_duration_ms: Option<i64>,
    },
    /// So many events of a key, in the order of the log; both 1 or more.
    Count {
        /// Events of a window at most.
        size: u64,
        /// Events from one result to the next.
        slide: u64,
    },
    /// Units of the calendar.
    Calendar {
        /// Which.
        unit: CalendarUnit,
        /// Name in the IANA database; it exists.
        time_zone: String,
    },
    /// All time.
    Global,
}

/// How far apart events of one session are at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gap {
    /// So far, ms.
    Fixed(i64),
    /// As each event says in this field.
    Field(JsonPointer),
}

/// When results of a window are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// When the watermark passes the end.
    pub on_time: bool,
    /// Before the end.
    pub early: Option<Repeat>,
    /// After the end.
    pub late: Repeat,
    /// A `Final` pane when the window closes.
    pub closing: bool,
}

impl Default for Trigger {
    fn default() -> Self {
        Self {
            on_time: true,
            early: None,
            late: Repeat::Events(1),
            closing: false,
        }
    }
}

/// When a window that has changed is written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// After so many events since the last result; 1 or more.
    Events(u64),
    /// At a tick so long after the last one that counted, ms of processing time; above 0.
    TimeMs(i64),
}

pub(super) fn window(window: &WindowSpec) -> Option<Window> {
    Some(Window {
        name: window.name.clone(),
        kind: window_kind(window)?,
        allowed_lateness_ms: ms(window.allowed_lateness)?,
        trigger: Trigger {
            on_time: window.trigger.on_time,
            early: match &window.trigger.early {
                Some(early) => Some(repeat(early)?),
                None => None,
            },
            late: repeat(&window.trigger.late)?,
            closing: window.trigger.final_,
        },
        panes: window.panes,
    })
}

fn window_kind(window: &WindowSpec) -> Option<WindowKind> {
    let kind = if let Some(tumbling) = &window.tumbling {
        WindowKind::Tumbling {
            size_ms: ms(tumbling.size)?,
            offset_ms: ms(tumbling.offset)?,
        }
    } else if let Some(sliding) = &window.sliding {
        WindowKind::Sliding {
            size_ms: ms(sliding.size)?,
            slide_ms: ms(sliding.slide)?,
            offset_ms: ms(sliding.offset)?,
        }
    } else if let Some(cumulative) = &window.cumulative {
        WindowKind::Cumulative {
            size_ms: ms(cumulative.size)?,
            step_ms: ms(cumulative.step)?,
            offset_ms: ms(cumulative.offset)?,
        }
    } else if let Some(session) = &window.session {
        session_kind(session)?
    } else if let Some(count) = &window.count {
        let size = u64::try_from(count.size).ok()?;
        let slide = count.slide.map_or(Ok(size), u64::try_from).ok()?;
        WindowKind::Count { size, slide }
    } else if let Some(calendar) = &window.calendar {
        WindowKind::Calendar {
            unit: calendar.unit,
            time_zone: calendar.time_zone.clone(),
        }
    } else {
        window.global.as_ref()?;
        WindowKind::Global
    };
    Some(kind)
}

fn session_kind(session: &v1alpha1::Session) -> Option<WindowKind> {
    let gap = match (session.gap, &session.gap_field) {
        (Some(gap), _) => Gap::Fixed(ms(gap)?),
        (None, Some(field)) => Gap::Field(field.clone()),
        (None, None) => return None,
    };
    let max_duration_ms = match session.max_duration {
        Some(duration) => Some(ms(duration)?),
        None => None,
    };
    Some(WindowKind::Session { gap, max_duration_ms })
}

fn repeat(spec: &RepeatSpec) -> Option<Repeat> {
    match (spec.every_events, spec.every) {
        (Some(events), _) => Some(Repeat::Events(u64::try_from(events).ok()?)),
        (None, Some(every)) => Some(Repeat::TimeMs(ms(every)?)),
        (None, None) => None,
    }
}
