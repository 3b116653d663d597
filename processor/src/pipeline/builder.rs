//! Compiles a valid job into the plan that tasks execute: field slots, key parts, windows on shared panes, row layout.
//! Must not hold: state. A plan is shared by all tasks of a process.

mod functions;
mod inputs;

use serde::{Deserialize, Serialize};
use streamagg_crds::resolved::{self, Resolved, Timestamp, Watermark, WindowKind};
use streamagg_crds::v1alpha1::TimeUnit;

pub(super) use self::inputs::AggregateInputs;
use super::derive::Derivation;
use crate::aggregation::layout::{Accumulator, Layout};
use crate::core::json::FieldTree;
use crate::core::timestamp::Unit;
use crate::expression::Program;
use crate::watermark::generator::Generator;
use crate::window::assigner::{Aligned, greatest_common_divisor};
use crate::window::types::WindowPlan;

/// A window joins a set of panes as long as no window of the set then consists of more panes than this, or than it
/// would alone: sharing saves an update per event, but a window cut finer keeps a row per key in every one of its panes.
const SHARED_PANES_MAX: i64 = 16;

/// A compiled job.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) fields: FieldTree,
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
    pub(super) max_bad_ratio: f64,
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

/// A window with what its results begin with.
#[derive(Clone, Debug)]
pub(super) struct CompiledWindow {
    pub plan: WindowPlan,
    /// Rank of the name in byte order.
    pub rank: usize,
    /// The name as JSON text, with quotes.
    pub name_json: Vec<u8>,
}

/// Where an event's time comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum TimeSource {
    /// A field, and how it is written.
    Field { slot: usize, unit: Unit },
    /// The record itself.
    Record,
}

/// Windows that share panes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PaneSetPlan {
    pub width_ms: i64,
    pub offset_ms: i64,
    pub windows: Vec<usize>,
}

/// What the stored state looks like: written beside it, compared when it is read (format 1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct StateLayout {
    pub format: u32,
    pub group_by: Vec<String>,
    pub windows: Vec<StoredWindow>,
    pub pane_sets: Vec<StoredPaneSet>,
    pub accumulators: Vec<Accumulator>,
}

/// A window as the state knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct StoredWindow {
    pub name: String,
    pub size_ms: i64,
    pub slide_ms: i64,
    pub offset_ms: i64,
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
        let windows = windows(&job.windows);
        let pane_sets = pane_sets(&windows);
        let state_layout = state_layout(job, &windows, &pane_sets, &layout);
        Plan {
            fields,
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
            max_bad_ratio: job.max_bad_ratio,
            state_layout,
        }
    }

    /// Bytes of the values of one row: a key in a pane.
    pub fn row_bytes(&self) -> usize {
        self.layout.words() * size_of::<u64>()
    }

    /// The panes that windows share.
    pub fn pane_sets(&self) -> Vec<SharedPanes> {
        let name = |index: &usize| self.window_names[*index].clone();
        self.pane_sets
            .iter()
            .map(|set| SharedPanes {
                width_ms: set.width_ms,
                windows: set.windows.iter().map(name).collect(),
            })
            .collect()
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

fn windows(specs: &[resolved::Window]) -> Vec<CompiledWindow> {
    let rank = |name: &str| {
        specs
            .iter()
            .filter(|other| other.name.as_bytes() < name.as_bytes())
            .count()
    };
    let compile = |spec: &resolved::Window| CompiledWindow {
        plan: WindowPlan {
            name: spec.name.clone(),
            assigner: match spec.kind {
                WindowKind::Tumbling { size_ms, offset_ms } => Aligned::tumbling(size_ms, offset_ms),
                WindowKind::Sliding {
                    size_ms,
                    slide_ms,
                    offset_ms,
                } => Aligned::sliding(size_ms, slide_ms, offset_ms),
            },
            allowed_lateness_ms: spec.allowed_lateness_ms,
        },
        rank: rank(&spec.name),
        name_json: serde_json::Value::from(spec.name.as_str()).to_string().into_bytes(),
    };
    specs.iter().map(compile).collect()
}

/// Puts windows on shared panes (width = greatest common divisor) where that keeps panes few.
fn pane_sets(windows: &[CompiledWindow]) -> Vec<PaneSetPlan> {
    let mut sets: Vec<PaneSetPlan> = Vec::new();
    for (index, window) in windows.iter().enumerate() {
        let (width, offset) = window.plan.assigner.pane_grid();
        let joined = sets.iter_mut().find_map(|set| {
            let shared = greatest_common_divisor(
                greatest_common_divisor(set.width_ms, width),
                (set.offset_ms - offset).abs(),
            );
            let few = set.windows.iter().chain([&index]).all(|member| {
                let assigner = &windows[*member].plan.assigner;
                let alone = assigner.size_ms() / assigner.pane_grid().0;
                assigner.size_ms() / shared <= alone.max(SHARED_PANES_MAX)
            });
            few.then_some((set, shared))
        });
        match joined {
            Some((set, shared)) => {
                set.width_ms = shared;
                set.offset_ms = set.offset_ms.rem_euclid(shared);
                set.windows.push(index);
            }
            None => sets.push(PaneSetPlan {
                width_ms: width,
                offset_ms: offset,
                windows: vec![index],
            }),
        }
    }
    sets
}

fn state_layout(job: &Resolved, windows: &[CompiledWindow], pane_sets: &[PaneSetPlan], layout: &Layout) -> StateLayout {
    let stored_window = |window: &resolved::Window| {
        let (size_ms, slide_ms, offset_ms) = match window.kind {
            WindowKind::Tumbling { size_ms, offset_ms } => (size_ms, size_ms, offset_ms),
            WindowKind::Sliding {
                size_ms,
                slide_ms,
                offset_ms,
            } => (size_ms, slide_ms, offset_ms),
        };
        StoredWindow {
            name: window.name.clone(),
            size_ms,
            slide_ms,
            offset_ms,
        }
    };
    debug_assert_eq!(windows.len(), job.windows.len());
    StateLayout {
        format: STATE_FORMAT,
        group_by: job
            .group_by
            .iter()
            .map(|part| format!("{}={}", part.name, job.identity(&part.input)))
            .collect(),
        windows: job.windows.iter().map(stored_window).collect(),
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
