//! The oracle's windows: every instance keeps all its events and a list of what was published, and everything is found
//! again by looking at all of it. Must not import engine code, and must not be clever.

use std::collections::BTreeMap;

use super::aggregates::Row;
use super::{Event, Spec};

/// A window. `slide_ms` of a tumbling one is its size, of a cumulative one its step, of a session its gap; `size_ms` and
/// `slide_ms` of a count window are numbers of events.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Window {
    pub name: String,
    pub shape: Shape,
    pub size_ms: i64,
    pub slide_ms: i64,
    pub offset_ms: i64,
    pub lateness_ms: i64,
    /// Instances that end here or before are closed, whatever lateness the spec allows now: none before the first event.
    pub closed_ms: i64,
    pub trigger: Trigger,
    pub panes: Panes,
}

/// What `size_ms`, `slide_ms` and `offset_ms` mean.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Shape {
    /// Starts every slide.
    #[default]
    Sliding,
    /// Starts every size, ends at every slide.
    Cumulative,
    /// `slide_ms` is the gap, `size_ms` the maximum duration, 0 for none.
    Session,
    /// The gap is each event's own, in the field `gap`; `size_ms` is the maximum duration.
    SessionByField,
    /// One day of a zone that is always so many ms (`offset_ms`) ahead of UTC.
    Day,
    /// All time.
    Global,
    /// The last `size_ms` events of a key, every `slide_ms` of them.
    Count,
}

/// When it fires.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Trigger {
    pub on_time: bool,
    pub early: Option<Repeat>,
    pub late: Repeat,
    pub closing: bool,
}

impl Default for Trigger {
    fn default() -> Self {
        let late = Repeat::Events(1);
        Self {
            on_time: true,
            early: None,
            late,
            closing: false,
        }
    }
}

/// After so many events, or ms of processing time.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Repeat {
    Events(usize),
    Time(i64),
}

/// How panes relate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Panes {
    #[default]
    Accumulating,
    Discarding,
    Retracting,
}

/// One result.
pub(super) struct Firing {
    pub op: &'static str,
    pub window: String,
    pub start: i64,
    pub end: i64,
    pub members: String,
    pub index: usize,
    pub timing: &'static str,
    pub last: bool,
    pub rows: Vec<Row>,
}

/// A window instance of a key, ordered as they fire: end, start, name, key members.
type Id = (i64, i64, String, String);

/// Events with their numbers; how many were published; timing, finality and number of events of each pane.
#[derive(Clone, Debug, Default)]
struct Instance {
    window: usize,
    rows: Vec<(usize, Row)>,
    published: usize,
    panes: Vec<(&'static str, bool)>,
}

/// All open instances, and when each window last fired by the clock: early, late.
#[derive(Default)]
pub(super) struct State {
    open: BTreeMap<Id, Instance>,
    /// Events so far: each has its number.
    events: usize,
    ticks: BTreeMap<(usize, bool), i64>,
    /// All events of a key in a count window, how many when it last fired, how often it did.
    counts: BTreeMap<(usize, String), (Vec<Row>, usize, usize)>,
}

/// Starts of the sliding windows that cover `time`.
pub fn starts(window: &Window, time: i64) -> Vec<i64> {
    let newest = (time - window.offset_ms).div_euclid(window.slide_ms) * window.slide_ms + window.offset_ms;
    (0..)
        .map(|n| newest - n * window.slide_ms)
        .take_while(|start| start + window.size_ms > time)
        .collect()
}

/// Start and end of every instance that covers `time`; of a session the event alone, with its `gap` in ms.
pub(super) fn spans(window: &Window, time: i64, gap: i64) -> Vec<(i64, i64)> {
    const DAY: i64 = 86_400_000;
    match window.shape {
        Shape::Sliding => starts(window, time)
            .into_iter()
            .map(|start| (start, start + window.size_ms))
            .collect(),
        Shape::Cumulative => {
            let start = (time - window.offset_ms).div_euclid(window.size_ms) * window.size_ms + window.offset_ms;
            let ends = (1..=window.size_ms / window.slide_ms).map(|n| start + n * window.slide_ms);
            ends.filter(|end| *end > time).map(|end| (start, end)).collect()
        }
        Shape::Session | Shape::SessionByField => {
            let end = time + own_gap(window, gap);
            let next = (time.div_euclid(window.size_ms.max(1)) + 1) * window.size_ms;
            vec![(time, if window.size_ms == 0 { end } else { end.min(next) })]
        }
        Shape::Day => {
            let start = (time + window.offset_ms).div_euclid(DAY) * DAY - window.offset_ms;
            vec![(start, start + DAY)]
        }
        Shape::Global => vec![(i64::MIN, i64::MAX)],
        Shape::Count => vec![(time, time + 1)],
    }
}

pub(super) fn is_session(window: &Window) -> bool {
    matches!(window.shape, Shape::Session | Shape::SessionByField)
}

fn own_gap(window: &Window, gap: i64) -> i64 {
    match window.shape {
        Shape::Session => window.slide_ms,
        _ => gap,
    }
}

/// The watermark at which an event is late for an instance: for a session its time, the gap and the lateness.
pub(super) fn late_from(window: &Window, time: i64, gap: i64, end: i64) -> i64 {
    match window.shape {
        Shape::Session | Shape::SessionByField => allowed_until(window, time + own_gap(window, gap)),
        Shape::Count => i64::MAX,
        _ => closes(window, end),
    }
}

/// The watermark at which nothing can reach an instance any more.
pub(super) fn closes(window: &Window, end: i64) -> i64 {
    // An event of the longest gap may still reach it.
    let gap = match window.shape {
        Shape::Session => window.slide_ms,
        Shape::SessionByField => window.size_ms,
        _ => 0,
    };
    allowed_until(window, end.saturating_add(gap))
}

/// The watermark up to which what ends there takes events: below all of them for what is closed.
fn allowed_until(window: &Window, end: i64) -> i64 {
    if end <= window.closed_ms {
        i64::MIN
    } else {
        end.saturating_add(window.lateness_ms)
    }
}

/// Start, end, events.
pub(super) type Session = (i64, i64, Vec<(usize, Row)>);

/// Sessions of these events of one key.
pub(super) fn sessions(window: &Window, mut rows: Vec<(usize, Row)>) -> Vec<Session> {
    rows.sort_by_key(|(_, row)| row.time);
    let mut found: Vec<Session> = Vec::new();
    for (number, row) in rows {
        let time = row.time;
        let (_, end) = spans(window, time, row.gap)[0];
        let stretch = |time: i64| {
            if window.size_ms == 0 {
                0
            } else {
                time.div_euclid(window.size_ms)
            }
        };
        match found.last_mut() {
            Some(last) if time <= last.1 && stretch(time) == stretch(last.0) => {
                last.1 = last.1.max(end);
                last.2.push((number, row));
            }
            _ => found.push((time, end, vec![(number, row)])),
        }
    }
    found
}

impl State {
    pub(super) fn add(&mut self, spec: &Spec, event: Event, watermark: i64, emit: &mut dyn FnMut(&Firing)) {
        self.events += 1;
        let mut changed: Vec<Id> = Vec::new();
        for (start, end, index) in &event.joined {
            let window = &spec.windows[*index];
            if window.shape == Shape::Count {
                let key = (*index, event.members.clone());
                self.counts.entry(key).or_default().0.push(event.row.clone());
                changed.push(self.count_id(spec, *index, &event.members));
                continue;
            }
            if is_session(window) {
                changed.push(self.add_to_session(window, *index, &event, emit));
                continue;
            }
            let id = (*end, *start, window.name.clone(), event.members.clone());
            let instance = self.open.entry(id.clone()).or_default();
            instance.window = *index;
            instance.rows.push((self.events, event.row.clone()));
            changed.push(id);
        }
        changed.sort();
        for id in changed {
            let ended = id.0 <= watermark;
            if let Some(index) = count_window(spec, &id) {
                let (rows, _, _) = &self.counts[&(index, id.3.clone())];
                if rows.len().is_multiple_of(spec.windows[index].slide_ms as usize) {
                    self.fire_count(spec, index, &id, emit);
                }
                continue;
            }
            let instance = &self.open[&id];
            let trigger = spec.windows[instance.window].trigger;
            let waiting = instance.rows.len() - instance.published;
            match if ended { Some(trigger.late) } else { trigger.early } {
                Some(Repeat::Events(events)) if waiting >= events => {
                    self.fire(spec, &id, if ended { "Late" } else { "Early" }, false, emit);
                }
                _ => {}
            }
        }
    }

    /// Forms all sessions of the key anew and takes back what was published of those that are no more.
    fn add_to_session(&mut self, window: &Window, index: usize, event: &Event, emit: &mut dyn FnMut(&Firing)) -> Id {
        let ours = |id: &Id| id.2 == window.name && id.3 == event.members;
        let mut before: BTreeMap<Id, Instance> = BTreeMap::new();
        for id in self.open.keys().filter(|id| ours(id)).cloned().collect::<Vec<_>>() {
            before.insert(id.clone(), self.open.remove(&id).unwrap_or_default());
        }
        let mut rows: Vec<(usize, Row)> = before.values().flat_map(|instance| instance.rows.clone()).collect();
        rows.push((self.events, event.row.clone()));
        let mut target = None;
        for (start, end, rows) in sessions(window, rows) {
            let id = (end, start, window.name.clone(), event.members.clone());
            if start <= event.time && event.time < end {
                target = Some(id.clone());
            }
            let mut instance = before.remove(&id).unwrap_or(Instance {
                window: index,
                ..Instance::default()
            });
            if instance.rows.len() < rows.len() {
                // What was published stays in front: panes that discard show what came since.
                let known = instance.rows.clone();
                let mut rest = rows;
                for row in &known {
                    let at = rest.iter().position(|other| other.0 == row.0);
                    at.map(|at| rest.remove(at));
                }
                instance.rows.extend(rest);
            }
            self.open.insert(id, instance);
        }
        for (id, instance) in &before {
            if let Some((timing, last)) = instance.panes.last() {
                let rows = instance.rows[..instance.published].to_vec();
                emit(&firing("Retract", id, (instance.panes.len() - 1, timing, *last), rows));
            }
        }
        target.unwrap_or_default()
    }

    /// The watermark goes from `from` to `to`.
    pub(super) fn advance(&mut self, spec: &Spec, from: i64, to: i64, emit: &mut dyn FnMut(&Firing)) {
        let mut ids: Vec<Id> = self.open.keys().cloned().collect();
        if to == i64::MAX {
            let counts = self
                .counts
                .keys()
                .map(|(index, members)| self.count_id(spec, *index, members));
            ids.extend(counts.collect::<Vec<_>>());
            ids.sort();
        }
        for id in ids {
            if let Some(index) = count_window(spec, &id) {
                let (rows, fired_at, _) = &self.counts[&(index, id.3.clone())];
                if rows.len() > *fired_at {
                    self.fire_count(spec, index, &id, emit);
                }
                self.counts.remove(&(index, id.3.clone()));
                continue;
            }
            let window = &spec.windows[self.open[&id].window];
            if window.trigger.on_time && from < id.0 && id.0 <= to {
                let stays = window.lateness_ms == 0 && !is_session(window);
                self.fire(spec, &id, "OnTime", stays || to == i64::MAX, emit);
            }
            if closes(window, id.0) > to {
                continue;
            }
            let instance = &self.open[&id];
            let done = instance.panes.last().is_some_and(|(_, last)| *last);
            let waiting = instance.rows.len() > instance.published;
            if !done && window.trigger.closing {
                self.fire(spec, &id, "Final", true, emit);
            } else if !done && waiting {
                self.fire(spec, &id, "Late", true, emit);
            }
            self.open.remove(&id);
        }
    }

    /// The last events of a key in a count window: from the smallest to behind the largest of their times.
    fn count_id(&self, spec: &Spec, index: usize, members: &str) -> Id {
        let window = &spec.windows[index];
        let rows = last(&self.counts[&(index, members.to_owned())].0, window.size_ms);
        let times = rows.iter().map(|row| row.time);
        let (start, end) = (times.clone().min(), times.max());
        let (start, end) = (start.unwrap_or_default(), end.unwrap_or_default() + 1);
        (end, start, window.name.clone(), members.to_owned())
    }

    fn fire_count(&mut self, spec: &Spec, index: usize, id: &Id, emit: &mut dyn FnMut(&Firing)) {
        let Some((rows, fired_at, fired)) = self.counts.get_mut(&(index, id.3.clone())) else {
            return;
        };
        let numbered = last(rows, spec.windows[index].size_ms).iter().cloned().enumerate();
        emit(&firing("Upsert", id, (*fired, "OnTime", true), numbered.collect()));
        (*fired_at, *fired) = (rows.len(), *fired + 1);
    }

    pub(super) fn tick(&mut self, spec: &Spec, now: i64, watermark: i64, emit: &mut dyn FnMut(&Firing)) {
        let mut counts = |index: usize, ended: bool, repeat: Option<Repeat>| match repeat {
            Some(Repeat::Time(every)) if self.ticks.get(&(index, ended)).is_none_or(|last| now - last >= every) => {
                self.ticks.insert((index, ended), now);
                true
            }
            _ => false,
        };
        let mut due = BTreeMap::new();
        for (index, window) in spec.windows.iter().enumerate() {
            due.insert((index, false), counts(index, false, window.trigger.early));
            due.insert((index, true), counts(index, true, Some(window.trigger.late)));
        }
        for id in self.open.keys().cloned().collect::<Vec<_>>() {
            let (ended, instance) = (id.0 <= watermark, &self.open[&id]);
            if due[&(instance.window, ended)] && instance.rows.len() > instance.published {
                self.fire(spec, &id, if ended { "Late" } else { "Early" }, false, emit);
            }
        }
    }

    fn fire(&mut self, spec: &Spec, id: &Id, timing: &'static str, last: bool, emit: &mut dyn FnMut(&Firing)) {
        let Some(instance) = self.open.get_mut(id) else { return };
        let all = |rows: &[(usize, Row)]| rows.to_vec();
        let panes = spec.windows[instance.window].panes;
        if let (Panes::Retracting, Some((timing, last))) = (panes, instance.panes.last()) {
            let rows = all(&instance.rows[..instance.published]);
            emit(&firing("Retract", id, (instance.panes.len() - 1, timing, *last), rows));
        }
        let since = if panes == Panes::Discarding {
            instance.published
        } else {
            0
        };
        let rows = all(&instance.rows[since..]);
        emit(&firing("Upsert", id, (instance.panes.len(), timing, last), rows));
        instance.published = instance.rows.len();
        instance.panes.push((timing, last));
    }
}

/// The count window that has this name, if it is one.
fn count_window(spec: &Spec, id: &Id) -> Option<usize> {
    let is = |window: &Window| window.name == id.2 && window.shape == Shape::Count;
    spec.windows.iter().position(is)
}

/// The last so many.
fn last(rows: &[Row], most: i64) -> &[Row] {
    &rows[rows.len().saturating_sub(most as usize)..]
}

fn firing(op: &'static str, id: &Id, pane: (usize, &'static str, bool), rows: Vec<(usize, Row)>) -> Firing {
    let (end, start, window, members) = id.clone();
    let (index, timing, last) = pane;
    let rows = rows.into_iter().map(|(_, row)| row).collect();
    Firing {
        op,
        window,
        start,
        end,
        members,
        index,
        timing,
        last,
        rows,
    }
}
