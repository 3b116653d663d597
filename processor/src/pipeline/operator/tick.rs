//! Triggers by processing time. The clock is the shell's: what counts is the `now` of tick decisions, which replay
//! obeys. Must not read a clock.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use streamagg_crds::resolved::{Repeat, Trigger};

use super::Task;
use super::fire::Due;
use crate::pipeline::builder::{CompiledWindow, Place, Plan};
use crate::pipeline::output::Outputs;

/// When a window last fired by the clock, ms: before its end, behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LastTicks {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    early_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    late_ms: Option<i64>,
}

/// The ticks that have counted, by window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ticks {
    last: Vec<LastTicks>,
    changed: bool,
}

impl Ticks {
    pub fn new(plan: &Plan) -> Self {
        Self {
            last: vec![LastTicks::default(); plan.windows.len()],
            changed: false,
        }
    }

    /// What is to be stored, by name of the window, when it has changed.
    pub fn take_changed(&mut self, plan: &Plan) -> Option<Vec<u8>> {
        let names = plan.windows.iter().map(|window| window.plan.name.as_str());
        let document: BTreeMap<&str, LastTicks> = names.zip(self.last.iter().copied()).collect();
        std::mem::take(&mut self.changed).then(|| serde_json::to_vec(&document).unwrap_or_default())
    }

    /// Reads what was stored; ticks of windows that are no more are forgotten.
    pub fn load(&mut self, plan: &Plan, bytes: &[u8]) -> Result<(), serde_json::Error> {
        let document: BTreeMap<String, LastTicks> = serde_json::from_slice(bytes)?;
        for (window, last) in plan.windows.iter().zip(&mut self.last) {
            *last = document.get(&window.plan.name).copied().unwrap_or_default();
        }
        Ok(())
    }

    /// Writes it with the next epoch.
    pub fn mark_changed(&mut self) {
        self.changed = self.last.iter().any(|last| *last != LastTicks::default());
    }
}

/// Whether a trigger counts the tick at `now`: it is the first, or the last one that counted is long enough ago.
fn counts(repeat: Option<Repeat>, last_ms: &mut Option<i64>, now_ms: i64) -> bool {
    let Some(Repeat::TimeMs(every_ms)) = repeat else {
        return false;
    };
    if last_ms.is_some_and(|last_ms| now_ms.saturating_sub(last_ms) < every_ms) {
        return false;
    }
    *last_ms = Some(now_ms);
    true
}

impl LastTicks {
    /// Which of a window's triggers, before its end and behind it, count the tick at `now`.
    fn count(&mut self, trigger: &Trigger, now_ms: i64) -> (bool, bool) {
        let early = counts(trigger.early, &mut self.early_ms, now_ms);
        (early, counts(Some(trigger.late), &mut self.late_ms, now_ms))
    }
}

impl Task {
    /// Whether a tick at `now` fires anything: one that does not is not worth a decision record.
    pub fn tick_fires(&self, now_ms: i64) -> bool {
        let mut due = Vec::new();
        let mut windows = self.plan.windows.iter().zip(self.ticks.last.iter().copied());
        windows.any(|(window, mut last)| {
            self.find_ticked(window, last.count(&window.plan.trigger, now_ms), &mut due);
            !due.is_empty()
        })
    }

    /// What a tick fires of a window whose triggers (before its end, behind it) count it.
    fn find_ticked(&self, window: &CompiledWindow, (early, late): (bool, bool), due: &mut Vec<Due>) {
        let watermark_ms = self.position.watermark_ms;
        match window.place {
            _ if !early && !late => {}
            Place::Instances(number) => self.instances[number].ticked(early, late, watermark_ms, due),
            Place::Sessions(number) => self.sessions[number].ticked(early, late, watermark_ms, due),
            // A window with such a trigger is not on shared panes.
            Place::Panes(_) | Place::Counts(_) => {}
        }
    }

    /// Fires what has changed since its last pane, in windows whose trigger by processing time counts this tick.
    /// A `now` below an earlier one counts for nothing.
    pub(super) fn tick(&mut self, now_ms: i64, outputs: &mut Outputs) {
        let mut due: Vec<Due> = Vec::new();
        for (index, window) in self.plan.windows.iter().enumerate() {
            let counted = self.ticks.last[index].count(&window.plan.trigger, now_ms);
            self.ticks.changed |= counted.0 || counted.1;
            self.find_ticked(window, counted, &mut due);
        }
        self.sort(&mut due);
        for (window, slot) in due {
            match (self.plan.windows[window.index].place, slot) {
                (Place::Instances(number), Some(slot)) => {
                    let (sets, mut emitter) = self.own_sets(outputs);
                    sets.instances[number].fire_key(window, slot, &mut emitter);
                }
                (Place::Sessions(number), Some(slot)) => {
                    let (sets, mut emitter) = self.own_sets(outputs);
                    sets.sessions[number].fire_key(window, slot, &mut emitter);
                }
                (Place::Panes(_) | Place::Instances(_) | Place::Sessions(_) | Place::Counts(_), _) => {}
            }
        }
    }
}
