//! Compiles the windows of a job: where their instances lie, which share panes, where the state of each is.
//! Must not hold: fields, keys or aggregates.

use streamagg_crds::resolved::{self, Gap, Trigger, WindowKind};
use streamagg_crds::v1alpha1::Panes;
use streamagg_crds::value::time_zone;

use super::{StateLayout, StoredPaneSet, StoredWindow};
use crate::core::json::FieldTree;
use crate::window::assigner::{Aligned, greatest_common_divisor};
use crate::window::calendar::Calendar;
use crate::window::count::CountRule;
use crate::window::session::{GapSource, SessionRule};
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
    /// In the last events of keys.
    Counts(usize),
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

/// Windows of the spec, their state not yet placed; the fields they use get slots of `fields`.
pub(super) fn compile(specs: &[resolved::Window], fields: &mut FieldTree) -> Vec<CompiledWindow> {
    let rank = |name: &str| {
        specs
            .iter()
            .filter(|other| other.name.as_bytes() < name.as_bytes())
            .count()
    };
    let compile = |spec: &resolved::Window| CompiledWindow {
        plan: WindowPlan {
            name: spec.name.clone(),
            assigner: assigner(&spec.kind, fields),
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

fn assigner(kind: &WindowKind, fields: &mut FieldTree) -> Assigner {
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
        WindowKind::Session { gap, max_duration_ms } => Assigner::Session(SessionRule {
            gap: match gap {
                Gap::Fixed(gap_ms) => GapSource::Fixed(*gap_ms),
                Gap::Field(field) => GapSource::Field {
                    slot: fields.add(field.as_str()),
                    // Validation sees to it that there is a maximum.
                    most_ms: max_duration_ms.unwrap_or(0),
                },
            },
            max_duration_ms: *max_duration_ms,
        }),
        // Validation has found the zone.
        WindowKind::Calendar { unit, time_zone: name } => {
            Assigner::Calendar(Calendar::new(*unit, time_zone(name).unwrap_or(jiff::tz::TimeZone::UTC)))
        }
        WindowKind::Global => Assigner::Global,
        WindowKind::Count { size, slide } => Assigner::Count(CountRule {
            size: *size,
            slide: *slide,
        }),
    }
}

/// The grid of a window that shared panes can serve: it fires on time and for every late event, and nothing else is
/// to be remembered of its results.
fn shares_panes(window: &WindowPlan) -> Option<&Aligned> {
    match &window.assigner {
        Assigner::Aligned(aligned) if window.trigger == Trigger::default() && window.panes == Panes::Accumulating => {
            Some(aligned)
        }
        Assigner::Aligned(_) | Assigner::Calendar(_) | Assigner::Global | Assigner::Session(_) | Assigner::Count(_) => {
            None
        }
    }
}

/// Windows that are not on shared panes, by their index in the spec.
#[derive(Clone, Debug, Default)]
pub(in crate::pipeline) struct OwnWindows {
    /// Those whose instances keep values of their own.
    pub instances: Vec<usize>,
    pub sessions: Vec<(usize, SessionRule)>,
    pub counts: Vec<(usize, CountRule)>,
}

/// Says of every window where its state is.
pub(super) fn places(windows: &mut [CompiledWindow], pane_sets: &[PaneSetPlan]) -> OwnWindows {
    let mut own = OwnWindows::default();
    for (index, window) in windows.iter_mut().enumerate() {
        let shared = pane_sets
            .iter()
            .position(|set| set.windows.iter().any(|member| member.index == index));
        window.place = match (shared, &window.plan.assigner) {
            (Some(set), _) => Place::Panes(set),
            (None, Assigner::Session(rule)) => {
                own.sessions.push((index, *rule));
                Place::Sessions(own.sessions.len() - 1)
            }
            (None, Assigner::Count(rule)) => {
                own.counts.push((index, *rule));
                Place::Counts(own.counts.len() - 1)
            }
            (None, Assigner::Aligned(_) | Assigner::Calendar(_) | Assigner::Global) => {
                own.instances.push(index);
                Place::Instances(own.instances.len() - 1)
            }
        };
    }
    own
}

/// Windows whose panes are the same.
struct Shared {
    width_ms: i64,
    offset_ms: i64,
    /// By number, with their grids.
    windows: Vec<(usize, Aligned)>,
}

/// Puts windows on shared panes (width = greatest common divisor) where that keeps panes few. Their order matters: each
/// joins the first that it can.
fn share(windows: impl Iterator<Item = (usize, Aligned)>) -> Vec<Shared> {
    let mut sets: Vec<Shared> = Vec::new();
    for member in windows {
        let (width, offset) = member.1.pane_grid();
        let joined = sets.iter_mut().find_map(|set| {
            let shared = greatest_common_divisor(
                greatest_common_divisor(set.width_ms, width),
                (set.offset_ms - offset).abs(),
            );
            let few = set.windows.iter().chain([&member]).all(|(_, aligned)| {
                let alone = aligned.size_ms() / aligned.pane_grid().0;
                aligned.size_ms() / shared <= alone.max(SHARED_PANES_MAX)
            });
            few.then_some((set, shared))
        });
        match joined {
            Some((set, shared)) => {
                set.width_ms = shared;
                set.offset_ms = set.offset_ms.rem_euclid(shared);
                set.windows.push(member);
            }
            None => sets.push(Shared {
                width_ms: width,
                offset_ms: offset,
                windows: vec![member],
            }),
        }
    }
    sets
}

/// The pane sets of a spec.
pub(super) fn pane_sets(windows: &[CompiledWindow]) -> Vec<PaneSetPlan> {
    let aligned = |(index, window): (usize, &CompiledWindow)| Some((index, *shares_panes(&window.plan)?));
    let shared = share(windows.iter().enumerate().filter_map(aligned));
    let member = |(index, aligned): (usize, Aligned)| PaneWindow {
        index,
        rank: windows[index].rank,
        aligned,
        allowed_lateness_ms: windows[index].plan.allowed_lateness_ms,
    };
    let set = |shared: Shared| PaneSetPlan {
        width_ms: shared.width_ms,
        offset_ms: shared.offset_ms,
        windows: shared.windows.into_iter().map(member).collect(),
    };
    shared.into_iter().map(set).collect()
}

impl StateLayout {
    /// Number of the pane set of each window, where it has one. `None`: these windows do not make these sets.
    pub fn sets_of_windows(&self) -> Option<Vec<Option<usize>>> {
        let shared = share(self.windows.iter().enumerate().filter_map(stored_grid));
        let grid = |set: &Shared| StoredPaneSet {
            width_ms: set.width_ms,
            offset_ms: set.offset_ms,
        };
        if !shared.iter().map(grid).eq(self.pane_sets.iter().cloned()) {
            return None;
        }
        let mut sets = vec![None; self.windows.len()];
        for (number, set) in shared.iter().enumerate() {
            for (window, _) in &set.windows {
                sets[*window] = Some(number);
            }
        }
        Some(sets)
    }
}

/// The grid of a stored window, if it is on shared panes.
fn stored_grid((index, window): (usize, &StoredWindow)) -> Option<(usize, Aligned)> {
    let (size_ms, slide_ms, offset_ms) = (window.size_ms, window.slide_ms, window.offset_ms);
    let is_whole = size_ms > 0 && slide_ms > 0;
    let aligned = match window.kind.as_str() {
        "" if is_whole => Aligned::sliding(size_ms, slide_ms, offset_ms),
        CUMULATIVE if is_whole && size_ms % slide_ms == 0 => Aligned::cumulative(size_ms, slide_ms, offset_ms),
        _ => return None,
    };
    Some((index, aligned))
}

/// How the layout document calls a cumulative window.
const CUMULATIVE: &str = "cumulative";

/// What of a window the layout document of the state says.
pub(super) fn stored_window(window: &CompiledWindow, fields: &FieldTree) -> StoredWindow {
    let plan = &window.plan;
    let shape = match &plan.assigner {
        Assigner::Aligned(aligned) if aligned.is_cumulative() => CUMULATIVE.to_owned(),
        Assigner::Aligned(_) => String::new(),
        Assigner::Calendar(calendar) => format!("calendar {}", calendar.description()),
        Assigner::Global => "global".to_owned(),
        Assigner::Session(rule) => {
            let gap = match rule.gap {
                GapSource::Fixed(gap_ms) => gap_ms.to_string(),
                GapSource::Field { slot, .. } => fields.pointer(slot).to_owned(),
            };
            format!("session {gap} {}", rule.max_duration_ms.unwrap_or(0))
        }
        Assigner::Count(rule) => format!("count {} {}", rule.size, rule.slide),
    };
    let (size_ms, slide_ms, offset_ms) = match &plan.assigner {
        Assigner::Aligned(aligned) => (aligned.size_ms(), aligned.slide_ms(), aligned.offset_ms()),
        Assigner::Calendar(_) | Assigner::Global | Assigner::Session(_) | Assigner::Count(_) => (0, 0, 0),
    };
    let kind = match window.place {
        Place::Panes(_) => shape,
        Place::Instances(_) | Place::Sessions(_) | Place::Counts(_) => format!("{shape}, {:?}", plan.panes),
    };
    StoredWindow {
        name: plan.name.clone(),
        size_ms,
        slide_ms,
        offset_ms,
        kind,
    }
}
