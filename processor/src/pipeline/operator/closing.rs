//! When windows close, and what stays closed. A purged window has lost its events, so one that took events again when
//! `allowedLateness` is raised would publish a part of them over the whole: what is closed once stays closed.
//! Must not know how windows are kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Task;
use crate::pipeline::builder::{CompiledWindow, Plan};
use crate::pipeline::position::NO_WATERMARK;

/// What is remembered of a window for the specs to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lateness {
    /// What the present spec allows.
    pub allowed_ms: i64,
    /// Instances with an end here or before were closed when an earlier spec, which allowed less, was replaced; absent:
    /// none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_ms: Option<i64>,
}

/// By name of the window.
pub type Latenesses = BTreeMap<String, Lateness>;

/// When the instances of a window close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closing {
    lateness_ms: i64,
    /// Ends up to here are closed whatever the lateness; never above the watermark.
    closed_ms: i64,
}

impl Closing {
    /// The watermark at which an instance takes no more events; its end for one that takes none already.
    pub fn at(self, end_ms: i64) -> i64 {
        if end_ms <= self.closed_ms {
            end_ms
        } else {
            self.by_lateness(end_ms)
        }
    }

    /// The same if the present spec had been the only one.
    pub fn by_lateness(self, end_ms: i64) -> i64 {
        end_ms.saturating_add(self.lateness_ms)
    }

    /// Whether an instance closes when it ends.
    pub fn is_immediate(self) -> bool {
        self.lateness_ms == 0
    }

    /// What was stored of the window under an earlier spec, or the same, at this watermark.
    fn goes_on_from(&mut self, stored: &Lateness, watermark_ms: i64) {
        let before_ms = if stored.allowed_ms < self.lateness_ms {
            watermark_ms.saturating_sub(stored.allowed_ms)
        } else {
            // What was closed then is closed by the present lateness.
            NO_WATERMARK
        };
        self.closed_ms = before_ms.max(stored.closed_ms.unwrap_or(NO_WATERMARK));
    }
}

/// Of a window of a spec that nothing was before.
pub(super) fn of_window(window: &CompiledWindow) -> Closing {
    Closing {
        lateness_ms: window.plan.allowed_lateness_ms,
        closed_ms: NO_WATERMARK,
    }
}

/// Of each window of such a spec.
pub(super) fn of(plan: &Plan) -> Vec<Closing> {
    plan.windows.iter().map(of_window).collect()
}

impl Task {
    /// Closes what was closed under earlier specs. A window of which nothing is known goes on under its present lateness.
    pub(super) fn close_again(&mut self, stored: &Latenesses) {
        let windows = self.plan.windows.iter().zip(&mut self.closing);
        for (window, closing) in windows {
            if let Some(stored) = stored.get(&window.plan.name) {
                closing.goes_on_from(stored, self.position.watermark_ms);
            }
        }
        for set in &mut self.instances {
            set.closing = self.closing[set.index()];
        }
        for set in &mut self.sessions {
            set.closing = self.closing[set.index()];
        }
        self.unsaved.latenesses = self.latenesses() != *stored;
    }

    /// What the next spec has to know.
    pub(super) fn latenesses(&self) -> Latenesses {
        let lateness = |closing: &Closing| Lateness {
            allowed_ms: closing.lateness_ms,
            closed_ms: (closing.closed_ms != NO_WATERMARK).then_some(closing.closed_ms),
        };
        let windows = self.plan.windows.iter().zip(&self.closing);
        windows
            .map(|(window, closing)| (window.plan.name.clone(), lateness(closing)))
            .collect()
    }
}
