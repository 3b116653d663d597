//! Questions to a running task: the open windows of a key with their values as they stand, and how far a window is.
//! Must not change anything, nor word answers for people (`serve::answers`).

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use super::Task;
use super::merge::{Barred, barred_panes};
use crate::aggregation::rows::{RowRef, RowStore};
use crate::core::key;
use crate::core::share::Share;
use crate::pipeline::builder::Place;
use crate::pipeline::position::NO_WATERMARK;
use crate::window::types::{Assigner, Window};

/// Windows of a key that one answer shows.
pub const WINDOWS_MAX: usize = 1_000;

/// An open window of a key.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenWindow {
    /// Its name.
    pub window: String,
    /// First ms in it; absent for the window of all time.
    pub start: Option<i64>,
    /// First ms behind it.
    pub end: Option<i64>,
    /// Whether the watermark has passed its end: it takes late events only.
    pub ended: bool,
    /// With `loadShedding`: the least share of the records that was kept while its events came; a result says the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_share: Option<f64>,
    /// The aggregates as they would be written now; with panes `Discarding`, of the events since the last pane.
    pub values: Box<RawValue>,
}

/// How far a window is in one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// First ms behind the window.
    pub end_ms: i64,
    /// When it is forgotten: its end and the lateness it allows (and for sessions the gap).
    pub closes_ms: i64,
    /// Keys with events in it.
    pub keys: u64,
}

/// What may be asked of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// The open windows of the key with these canonical bytes.
    Windows {
        /// The bytes.
        key: Vec<u8>,
    },
    /// How far a window is.
    Standing {
        /// Its index in the spec.
        window: usize,
        /// Its first ms.
        start_ms: i64,
    },
}

/// What a task answers, as of the records it has consumed: up to an epoch more than is committed.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To [`Question::Windows`].
    Windows {
        /// The task's watermark.
        watermark_ms: Option<i64>,
        /// The windows, by end.
        windows: Vec<OpenWindow>,
        /// There are more than are shown.
        more: bool,
    },
    /// To [`Question::Standing`].
    Standing {
        /// The task's watermark.
        watermark_ms: Option<i64>,
        /// The instances.
        found: Found,
        /// For each instance, the time of the event that would let the watermark reach its end.
        reached_by_ms: Vec<Option<i64>>,
        /// With two stages, the source partition whose watermark is the smallest: the task waits for it.
        slowest: Option<u32>,
    },
}

/// What a question about a window finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Instances that begin there; several only for windows that share their start.
    Instances(Vec<Standing>),
    /// No instance of the window begins there; the one around that time does at this.
    NoSuchStart(Option<i64>),
}

impl Task {
    /// Watermark in ms, once there is one.
    pub fn watermark_ms(&self) -> Option<i64> {
        (self.position.watermark_ms != NO_WATERMARK).then_some(self.position.watermark_ms)
    }

    /// Answers a question.
    pub fn answer(&mut self, question: &Question) -> Answer {
        self.answer_with(question, &Barred::new())
    }

    /// The same with rows that some windows do not take.
    pub(super) fn answer_with(&mut self, question: &Question, barred: &Barred) -> Answer {
        match question {
            Question::Windows { key } => {
                let (windows, more) = self.windows_of(key, barred);
                Answer::Windows {
                    watermark_ms: self.watermark_ms(),
                    windows,
                    more,
                }
            }
            Question::Standing { window, start_ms } => {
                let found = self.standing(*window, *start_ms, barred);
                let reached_by_ms = match &found {
                    Found::Instances(list) => list
                        .iter()
                        .map(|standing| self.plan.watermark.reached_by(standing.end_ms))
                        .collect(),
                    Found::NoSuchStart(_) => Vec::new(),
                };
                Answer::Standing {
                    watermark_ms: self.watermark_ms(),
                    found,
                    reached_by_ms,
                    slowest: None,
                }
            }
        }
    }

    /// The open windows of the key with these canonical bytes, by end, and whether there are more than are shown.
    pub(super) fn windows_of(&mut self, key_bytes: &[u8], barred: &Barred) -> (Vec<OpenWindow>, bool) {
        if self.rows_left_in_store() > 0 {
            let key = self.keys.intern(key_bytes);
            self.keys.retain(key);
            self.bring_all(key);
            self.keys.release(key);
        }
        let Some(known) = self.keys.find(key::hash(key_bytes), key_bytes) else {
            return (Vec::new(), false);
        };
        let key = known.id();
        let mut windows: Vec<(Window, OpenWindow)> = self.on_panes(key, barred);
        for set in &self.instances {
            let ids = set
                .instances
                .keys()
                .map(|(end_ms, start_ms)| set.window((*start_ms, *end_ms)));
            let found = ids.filter_map(|window| Some((window, set.find(&window, key)?)));
            windows.extend(found.map(|(window, slot)| (window, self.open(&window, set.cells.values(slot).0))));
        }
        for set in &self.sessions {
            let found = set.of_key(key);
            windows.extend(found.map(|(window, slot)| (window, self.open(&window, set.cells.values(slot).0))));
        }
        for set in &self.counts {
            if let Some(number) = set.find(key) {
                let (window, values) = (set.window_of(number), set.values(number, &self.plan.layout));
                windows.push((window, self.open(&window, values.get(0))));
            }
        }
        windows.sort_by_key(|(window, _)| *window);
        let more = windows.len() > WINDOWS_MAX;
        let shown = windows.into_iter().take(WINDOWS_MAX).map(|(_, open)| open);
        (shown.collect(), more)
    }

    /// Windows on shared panes in which a key has events.
    fn on_panes(&self, key: u32, barred: &Barred) -> Vec<(Window, OpenWindow)> {
        let mut found = BTreeSet::new();
        let for_some = barred.iter().map(|((_, barred_ms), set)| (*barred_ms, set));
        for (barred_ms, set) in self.sets.iter().map(|set| (NO_WATERMARK, set)).chain(for_some) {
            let holds: BTreeSet<i64> = set
                .panes()
                .iter()
                .filter(|pane| pane.find(key).is_some())
                .map(|pane| pane.start_ms)
                .collect();
            for (start_ms, window) in set.pane_windows().filter(|(start_ms, _)| holds.contains(start_ms)) {
                let ends = window.aligned.ends_of_pane(start_ms, set.width_ms());
                let closing = self.closing[window.index];
                let takes = |end_ms: &i64| {
                    closing.by_lateness(*end_ms) > barred_ms && closing.at(*end_ms) > self.position.watermark_ms
                };
                found.extend(ends.filter(takes).map(|end_ms| Window {
                    end_ms,
                    start_ms: window.aligned.start_of(end_ms),
                    rank: window.rank,
                    index: window.index,
                }));
            }
        }
        // One more than is shown, so that it is known whether there are more.
        let shown = found.into_iter().take(WINDOWS_MAX + 1);
        shown
            .map(|window| (window, self.merged(&window, key, barred)))
            .collect()
    }

    fn merged(&self, window: &Window, key: u32, barred: &Barred) -> OpenWindow {
        let mut rows = RowStore::new(&self.plan.layout, 0);
        let merged = rows.push();
        let panes = self.panes_of(window).iter();
        for pane in panes.chain(barred_panes(&self.plan, barred, window)) {
            if let Some(row) = pane.find(key) {
                self.plan.layout.merge(rows.get_mut(merged), pane.values(row));
            }
        }
        self.open(window, rows.get(merged))
    }

    fn open(&self, window: &Window, values: RowRef<'_>) -> OpenWindow {
        let mut text = vec![b'{'];
        self.plan.layout.write_values(values, window.length_ms(), &mut text);
        text.push(b'}');
        let text = String::from_utf8_lossy(&text).into_owned();
        let share = self.plan.kept_since(&self.position.shed, window.start_ms);
        OpenWindow {
            window: self.plan.windows[window.index].plan.name.clone(),
            start: (window.start_ms != Window::ALL_TIME.0).then_some(window.start_ms),
            end: (window.end_ms != Window::ALL_TIME.1).then_some(window.end_ms),
            ended: !self.plan.counts_events(window.index) && window.end_ms <= self.position.watermark_ms,
            kept_share: share.map(Share::as_f64),
            // What results are made of is JSON.
            values: RawValue::from_string(text).unwrap_or_default(),
        }
    }

    /// How far the window `index` that begins at `start_ms` is. Sessions and the window of all time are found by what
    /// is open of them.
    pub(super) fn standing(&mut self, index: usize, start_ms: i64, barred: &Barred) -> Found {
        let plan = Arc::clone(&self.plan);
        let window = &plan.windows[index];
        let ends: Vec<i64> = match &window.plan.assigner {
            Assigner::Aligned(aligned) => {
                // Sliding windows overlap: the one that begins there is looked for, not only the first around it.
                let ends = || aligned.ends_of_pane(start_ms, 1);
                let begins: Vec<i64> = ends().filter(|end_ms| aligned.start_of(*end_ms) == start_ms).collect();
                if begins.is_empty() {
                    return Found::NoSuchStart(ends().map(|end_ms| aligned.start_of(end_ms)).max());
                }
                begins
            }
            Assigner::Calendar(calendar) => match calendar.span_of(start_ms) {
                (begins_ms, end_ms) if begins_ms == start_ms => vec![end_ms],
                (begins_ms, _) => return Found::NoSuchStart(Some(begins_ms)),
            },
            Assigner::Global => vec![Window::ALL_TIME.1],
            Assigner::Session(_) => return self.sessions_from(index, start_ms),
            // It ends with an event of its key, whatever the time.
            Assigner::Count(_) => return Found::NoSuchStart(None),
        };
        let standing = |end_ms: i64| Standing {
            end_ms,
            closes_ms: self.closing[index].at(end_ms),
            keys: self.keys_in(index, end_ms, barred),
        };
        Found::Instances(ends.into_iter().map(standing).collect())
    }

    fn sessions_from(&mut self, index: usize, start_ms: i64) -> Found {
        let Place::Sessions(number) = self.plan.windows[index].place else {
            return Found::NoSuchStart(None);
        };
        let watermark_ms = self.position.watermark_ms;
        let (sets, mut maker) = self.makers();
        let set = &mut sets.sessions[number];
        set.bring_start(start_ms, watermark_ms, &mut maker);
        let mut found: Vec<Standing> = Vec::new();
        for window in set.windows_from(start_ms) {
            match found.iter_mut().find(|standing| standing.end_ms == window.end_ms) {
                Some(standing) => standing.keys += 1,
                None => found.push(Standing {
                    end_ms: window.end_ms,
                    closes_ms: set.closes_at(window.end_ms),
                    keys: 1,
                }),
            }
        }
        found.sort_by_key(|standing| standing.end_ms);
        found.truncate(WINDOWS_MAX);
        if found.is_empty() {
            Found::NoSuchStart(None)
        } else {
            Found::Instances(found)
        }
    }

    /// Keys with events in the instance of a window that ends there.
    fn keys_in(&mut self, index: usize, end_ms: i64, barred: &Barred) -> u64 {
        match self.plan.windows[index].place {
            Place::Panes(_) => {
                let Assigner::Aligned(aligned) = &self.plan.windows[index].plan.assigner else {
                    return 0;
                };
                let window = Window {
                    end_ms,
                    start_ms: aligned.start_of(end_ms),
                    rank: 0,
                    index,
                };
                if self.rows_left_in_store() > 0 {
                    let mut merged = self.merged_rows(&window);
                    for pane in barred_panes(&self.plan, barred, &window) {
                        merged.add(pane, &self.plan.layout);
                    }
                    return merged.len() as u64;
                }
                let keys: BTreeSet<u32> = self
                    .panes_of(&window)
                    .iter()
                    .chain(barred_panes(&self.plan, barred, &window))
                    .flat_map(|pane| pane.keys.iter().copied())
                    .collect();
                keys.len() as u64
            }
            Place::Instances(number) => {
                let of = |((end, _), instance): (&(i64, i64), &super::instance::Instance)| {
                    (*end == end_ms).then(|| instance.len() as u64)
                };
                self.instances[number].instances.iter().filter_map(of).sum()
            }
            Place::Sessions(_) | Place::Counts(_) => 0,
        }
    }
}
