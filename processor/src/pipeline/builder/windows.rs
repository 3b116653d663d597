//! Compiles the windows of a job: where their instances lie, which share panes, where the state of each is.
//! Must not hold: fields, keys or aggregates.

use streamagg_crds::resolved::{self, Trigger, WindowKind};
use streamagg_crds::v1alpha1::Panes;
use streamagg_crds::value::time_zone;

use super::StoredWindow;
use crate::window::assigner::{Aligned, greatest_common_divisor};
use crate::window::calendar::Calendar;
use crate::window::session::SessionRule;
use crate::window::types::{Assigner, WindowPlan};

/// A window joins a set of panes as long as no window of the set then consists of more panes than this, or than it
/// would alone: sharing saves an update per event, but a window cut finer keeps a row per key in every one of its panes.
const SHARED_PANES_MAX: i64 = 16;

/// A window with what its results begin with.
#[derive(Clone, Debug)]
pub(in crate::pipeline) struct CompiledWindow {
    pub plan: WindowPlan,
    /// Rank of the name in byte order.
    pub rank: usize,
    /// The name as JSON text, with quotes.
    pub name_json: Vec<u8>,
    /// Where its state is.
    pub place: Place,
}

/// Where the state of a window is; indices into the lists of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pipeline) enum Place {
    /// In shared panes.
    Panes(usize),
    /// In instances that keep values of their own.
    Instances(usize),
    /// In sessions.
    Sessions(usize),
}

/// Windows that share panes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::pipeline) struct PaneSetPlan {
    pub width_ms: i64,
    pub offset_ms: i64,
    pub windows: Vec<PaneWindow>,
}

/// A window on shared panes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::pipeline) struct PaneWindow {
    /// Index in the spec.
    pub index: usize,
    /// Rank of the name.
    pub rank: usize,
    pub aligned: Aligned,
    pub allowed_lateness_ms: i64,
}

/// Windows of the spec, their state not yet placed.
pub(super) fn compile(specs: &[resolved::Window]) -> Vec<CompiledWindow> {
    let rank = |name: &str| {
        specs
            .iter()
            .filter(|other| other.name.as_bytes() < name.as_bytes())
            .count()
    };
    let compile = |spec: &resolved::Window| CompiledWindow {
        plan: WindowPlan {
            name: spec.name.clone(),
            assigner: assigner(&spec.kind),
            allowed_lateness_ms: spec.allowed_lateness_ms,
            trigger: spec.trigger,
            panes: spec.panes,
        },
        place: Place::Panes(0),
        rank: rank(&spec.name),
        name_json: serde_json::Value::from(spec.name.as_str()).to_string().into_bytes(),
    };
    specs.iter().map(compile).collect()
}

fn assigner(kind: &WindowKind) -> Assigner {
    match kind {
        WindowKind::Tumbling { size_ms, offset_ms } => Assigner::Aligned(Aligned::tumbling(*size_ms, *offset_ms)),
        WindowKind::Sliding {
            size_ms,
            slide_ms,
            offset_ms,
        } => Assigner::Aligned(Aligned::sliding(*size_ms, *slide_ms, *offset_ms)),
        WindowKind::Cumulative {
            size_ms,
            step_ms,
            offset_ms,
        } => Assigner::Aligned(Aligned::cumulative(*size_ms, *step_ms, *offset_ms)),
        WindowKind::Session {
            gap_ms,
            max_duration_ms,
        } => Assigner::Session(SessionRule {
            gap_ms: *gap_ms,
            max_duration_ms: *max_duration_ms,
        }),
        // Validation has found the zone.
        WindowKind::Calendar { unit, time_zone: name } => {
            Assigner::Calendar(Calendar::new(*unit, time_zone(name).unwrap_or(jiff::tz::TimeZone::UTC)))
        }
        WindowKind::Global => Assigner::Global,
    }
}

/// The grid of a window that shared panes can serve: it fires on time and for every late event, and nothing else is
/// to be remembered of its results.
fn shares_panes(window: &WindowPlan) -> Option<&Aligned> {
    match &window.assigner {
        Assigner::Aligned(aligned) if window.trigger == Trigger::default() && window.panes == Panes::Accumulating => {
            Some(aligned)
        }
        Assigner::Aligned(_) | Assigner::Calendar(_) | Assigner::Global | Assigner::Session(_) => None,
    }
}

/// Says of every window where its state is; answers those with instances of their own and the sessions.
pub(super) fn places(
    windows: &mut [CompiledWindow],
    pane_sets: &[PaneSetPlan],
) -> (Vec<usize>, Vec<(usize, SessionRule)>) {
    let (mut instances, mut sessions) = (Vec::new(), Vec::new());
    for (index, window) in windows.iter_mut().enumerate() {
        let shared = pane_sets
            .iter()
            .position(|set| set.windows.iter().any(|member| member.index == index));
        window.place = match (shared, &window.plan.assigner) {
            (Some(set), _) => Place::Panes(set),
            (None, Assigner::Session(rule)) => {
                sessions.push((index, *rule));
                Place::Sessions(sessions.len() - 1)
            }
            (None, Assigner::Aligned(_) | Assigner::Calendar(_) | Assigner::Global) => {
                instances.push(index);
                Place::Instances(instances.len() - 1)
            }
        };
    }
    (instances, sessions)
}

/// Puts windows on shared panes (width = greatest common divisor) where that keeps panes few.
pub(super) fn pane_sets(windows: &[CompiledWindow]) -> Vec<PaneSetPlan> {
    let mut sets: Vec<PaneSetPlan> = Vec::new();
    for (index, window) in windows.iter().enumerate() {
        let Some(aligned) = shares_panes(&window.plan) else {
            continue;
        };
        let member = PaneWindow {
            index,
            rank: window.rank,
            aligned: *aligned,
            allowed_lateness_ms: window.plan.allowed_lateness_ms,
        };
        let (width, offset) = aligned.pane_grid();
        let joined = sets.iter_mut().find_map(|set| {
            let shared = greatest_common_divisor(
                greatest_common_divisor(set.width_ms, width),
                (set.offset_ms - offset).abs(),
            );
            let few = set.windows.iter().chain([&member]).all(|member| {
                let alone = member.aligned.size_ms() / member.aligned.pane_grid().0;
                member.aligned.size_ms() / shared <= alone.max(SHARED_PANES_MAX)
            });
            few.then_some((set, shared))
        });
        match joined {
            Some((set, shared)) => {
                set.width_ms = shared;
                set.offset_ms = set.offset_ms.rem_euclid(shared);
                set.windows.push(member);
            }
            None => sets.push(PaneSetPlan {
                width_ms: width,
                offset_ms: offset,
                windows: vec![member],
            }),
        }
    }
    sets
}

/// What of a window the layout document of the state says.
pub(super) fn stored_window(window: &CompiledWindow) -> StoredWindow {
    let plan = &window.plan;
    let shape = match &plan.assigner {
        Assigner::Aligned(aligned) if aligned.is_cumulative() => "cumulative".to_owned(),
        Assigner::Aligned(_) => String::new(),
        Assigner::Calendar(calendar) => format!("calendar {}", calendar.description()),
        Assigner::Global => "global".to_owned(),
        Assigner::Session(rule) => format!("session {} {}", rule.gap_ms, rule.max_duration_ms.unwrap_or(0)),
    };
    let (size_ms, slide_ms, offset_ms) = match &plan.assigner {
        Assigner::Aligned(aligned) => (aligned.size_ms(), aligned.slide_ms(), aligned.offset_ms()),
        Assigner::Calendar(_) | Assigner::Global | Assigner::Session(_) => (0, 0, 0),
    };
    let kind = match window.place {
        Place::Panes(_) => shape,
        Place::Instances(_) | Place::Sessions(_) => format!("{shape}, {:?}", plan.panes),
    };
    StoredWindow {
        name: plan.name.clone(),
        size_ms,
        slide_ms,
        offset_ms,
        kind,
    }
}
