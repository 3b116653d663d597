//! Compiles a valid job into the plan that tasks execute: field slots, key parts, windows on shared panes, row layout.
//! Must not hold: state. A plan is shared by all tasks of a process.

mod functions;
mod inputs;
mod windows;

use serde::{Deserialize, Serialize};
use streamagg_crds::resolved::{Resolved, Timestamp, Watermark};
use streamagg_crds::v1alpha1::TimeUnit;
use xxhash_rust::xxh3::xxh3_64;

pub(super) use self::inputs::AggregateInputs;
pub(super) use self::windows::{CompiledWindow, OwnWindows, PaneSetPlan, PaneWindow, Place};
use super::derive::Derivation;
use crate::aggregation::layout::{Accumulator, Layout};
use crate::core::json::FieldTree;
use crate::core::json::elements::Elements;
use crate::core::share::{Share, Shed};
use crate::core::timestamp::Unit;
use crate::expression::Program;
use crate::watermark::generator::Generator;

/// A compiled job.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) fields: FieldTree,
    /// The array whose elements become events.
    pub(super) explode: Option<Elements>,
    pub(super) timestamp: TimeSource,
    pub(super) watermark: Generator,
    /// Slot and unit of the marks of a punctuated watermark.
    pub(super) mark: Option<(usize, Unit)>,
    pub(super) max_future_skew_ms: Option<i64>,
    pub(super) derivation: Derivation,
    pub(super) condition: Option<Program>,
    pub(super) inputs: AggregateInputs,
    pub(super) layout: Layout,
    pub(super) windows: Vec<CompiledWindow>,
    pub(super) pane_sets: Vec<PaneSetPlan>,
    /// Windows that are not on shared panes.
    pub(super) own_windows: OwnWindows,
    pub(super) max_bad_ratio: f64,
    /// Results say which share of the records was kept.
    pub(super) says_share: bool,
    /// How far events may be out of order, ms, as far as the watermark knows.
    pub(super) disorder_ms: i64,
    pub(super) state_layout: StateLayout,
    window_names: Vec<String>,
}

/// Windows that share panes, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedPanes {
    /// Length of a pane, ms.
    pub width_ms: i64,
    /// Names of the windows.
    pub windows: Vec<String>,
}

/// Where an event's time comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum TimeSource {
    /// A field, and how it is written.
    Field { slot: usize, unit: Unit },
    /// The record itself.
    Record,
}

/// What the stored state looks like: written beside it, compared when it is read (format 1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct StateLayout {
    pub format: u32,
    pub group_by: Vec<String>,
    /// The array whose elements are events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explode: Option<String>,
    pub windows: Vec<StoredWindow>,
    pub pane_sets: Vec<StoredPaneSet>,
    pub accumulators: Vec<Accumulator>,
}

impl StateLayout {
    /// Equal for equal layouts; the bytes of the document are a stored format.
    pub fn fingerprint(&self) -> u64 {
        xxh3_64(&self.document())
    }

    /// The layout as it is stored.
    pub fn document(&self) -> Vec<u8> {
        // A plain document of numbers and strings always serialises.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// A window as the state knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct StoredWindow {
    pub name: String,
    pub size_ms: i64,
    pub slide_ms: i64,
    pub offset_ms: i64,
    /// What else determines its state, as text; empty for tumbling and sliding windows on shared panes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
}

/// A pane set as the state knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct StoredPaneSet {
    pub width_ms: i64,
    pub offset_ms: i64,
}

/// Format of the stored state that this engine writes.
pub(super) const STATE_FORMAT: u32 = 1;

impl Plan {
    /// Compiles a job; a [`Resolved`] one is valid, so this cannot fail.
    pub fn compile(job: &Resolved) -> Plan {
        let mut fields = FieldTree::new(job.strict_json);
        let timestamp = match &job.timestamp {
            Timestamp::Field { field, unit: written } => TimeSource::Field {
                slot: fields.add(field.as_str()),
                unit: unit(*written),
            },
            Timestamp::Record => TimeSource::Record,
        };
        let mark = match &job.watermark {
            Watermark::Punctuated { field, unit: written } => Some((fields.add(field.as_str()), unit(*written))),
            Watermark::BoundedOutOfOrderness { .. } | Watermark::Monotonic | Watermark::Periodic { .. } => None,
        };
        let derivation = Derivation::compile(&job.lets, &job.group_by, &mut fields);
        let condition = job
            .condition
            .as_ref()
            .map(|condition| Program::compile(&condition.root, &mut fields));
        let (layout, inputs) = inputs::layout(job, &mut fields);
        let mut windows = windows::compile(&job.windows, &mut fields);
        let pane_sets = windows::pane_sets(&windows);
        let own_windows = windows::places(&mut windows, &pane_sets);
        let state_layout = state_layout(job, &windows, &pane_sets, &layout, &fields);
        let explode = job.explode.as_ref().map(|field| Elements::new(&fields, field.as_str()));
        Plan {
            fields,
            explode,
            timestamp,
            watermark: Generator::new(&job.watermark),
            mark,
            max_future_skew_ms: job.max_future_skew_ms,
            derivation,
            condition,
            inputs,
            layout,
            window_names: windows.iter().map(|window| window.plan.name.clone()).collect(),
            windows,
            pane_sets,
            own_windows,
            max_bad_ratio: job.max_bad_ratio,
            disorder_ms: job.watermark.bound_ms(),
            says_share: job.source.load_shedding.is_some(),
            state_layout,
        }
    }

    /// Bytes of the values of one row: a key in a pane.
    pub fn row_bytes(&self) -> usize {
        self.layout.words() * size_of::<u64>()
    }

    /// The panes that windows share.
    pub fn pane_sets(&self) -> Vec<SharedPanes> {
        let name = |window: &PaneWindow| self.window_names[window.index].clone();
        self.pane_sets
            .iter()
            .map(|set| SharedPanes {
                width_ms: set.width_ms,
                windows: set.windows.iter().map(name).collect(),
            })
            .collect()
    }

    /// What a result says of load shedding whose window begins there: the least share that was kept since; absent where
    /// results say nothing of it.
    pub(super) fn kept_since(&self, shed: &Shed, start_ms: i64) -> Option<Share> {
        self.says_share.then(|| shed.least_since(start_ms))
    }

    /// Whether records need what is around their values: [`super::output::Envelope`].
    pub fn needs_envelopes(&self) -> bool {
        self.derivation.needs_envelopes()
    }

    /// Index of a window by its name.
    pub fn window_index(&self, name: &str) -> Option<usize> {
        self.window_names.iter().position(|known| known == name)
    }

    /// Whether a window is over numbers of events, so that no watermark ends it.
    pub fn counts_events(&self, index: usize) -> bool {
        matches!(self.windows[index].place, Place::Counts(_))
    }

    /// The canonical bytes of a grouping key that is given as a JSON object.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn key_of(&self, text: &str) -> Result<Vec<u8>, String> {
        self.derivation.key_of(text)
    }

    /// Names of the windows, in the order of the spec.
    pub fn window_names(&self) -> &[String] {
        &self.window_names
    }
}

fn unit(unit: TimeUnit) -> Unit {
    match unit {
        TimeUnit::Rfc3339 => Unit::Rfc3339,
        TimeUnit::Seconds => Unit::Seconds,
        TimeUnit::Milliseconds => Unit::Milliseconds,
        TimeUnit::Microseconds => Unit::Microseconds,
        TimeUnit::Nanoseconds => Unit::Nanoseconds,
    }
}

fn state_layout(
    job: &Resolved,
    windows: &[CompiledWindow],
    pane_sets: &[PaneSetPlan],
    layout: &Layout,
    fields: &FieldTree,
) -> StateLayout {
    StateLayout {
        format: STATE_FORMAT,
        group_by: job
            .group_by
            .iter()
            .map(|part| format!("{}={}", part.name, job.key_identity(&part.source)))
            .collect(),
        explode: job.explode.as_ref().map(|field| field.as_str().to_owned()),
        windows: windows
            .iter()
            .map(|window| windows::stored_window(window, fields))
            .collect(),
        pane_sets: pane_sets
            .iter()
            .map(|set| StoredPaneSet {
                width_ms: set.width_ms,
                offset_ms: set.offset_ms,
            })
            .collect(),
        accumulators: layout.accumulators(),
    }
}
