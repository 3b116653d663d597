//! What must stand in the output topics, worked out from the source topic in plain code, and what is lost, repeated
//! or wrong there. Shares no code with the engine; of the product it knows the manifest only.

pub mod batch;
mod cell;
mod compare;
mod number;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use streamagg_crds::resolved::{Gap, Input, KeySource, Missing, Resolved, Timestamp, Watermark, Window, WindowKind};
use streamagg_crds::v1alpha1::{KeyDefault, TimeUnit};
use streamagg_crds::value::{Instant, JsonPointer};

use self::cell::Cell;
pub use self::compare::{Added, Report, compare};

/// A record of the source topic.
#[derive(Clone, Debug)]
pub struct SourceRecord {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Value; empty when there is none.
    pub value: Vec<u8>,
}

/// A record of an output topic, as a read_committed reader sees it.
#[derive(Clone, Debug, Default)]
pub struct OutputRecord {
    /// Record key.
    pub key: String,
    /// Record value.
    pub value: String,
    /// Headers that are text.
    pub headers: BTreeMap<String, String>,
}

/// Window name, start and end in ms, key as a JSON object with sorted members.
pub type WindowKey = (String, i64, i64, String);

/// One firing of a window for a key.
#[derive(Clone, Debug, PartialEq)]
pub struct Pane {
    /// `OnTime` or `Late`.
    pub timing: &'static str,
    /// Whether no other can come.
    pub last: bool,
    /// Values in the order of the aggregates, as JSON text.
    pub values: Vec<String>,
}

/// Everything that must stand in the output topics.
#[derive(Clone, Debug, Default)]
pub struct Expectation {
    /// Panes by window and key, in order of their index.
    pub panes: BTreeMap<WindowKey, Vec<Pane>>,
    /// Windows of which the last pane is taken back: sessions that are part of others now.
    pub retracted: BTreeSet<WindowKey>,
    /// Late events by (partition, offset): windows missed, lateness in ms.
    pub late: BTreeMap<(i32, i64), (String, i64)>,
    /// Dead letters by (partition, offset): reason.
    pub dead: BTreeMap<(i32, i64), &'static str>,
    /// Windows that have events and have not fired.
    pub open: usize,
    /// Of each window and key there is one pane, what the last result must say: which others there are depends on how
    /// events of several partitions met.
    pub last_only: bool,
    /// Then, sessions with an end here or before are over, ms; one that is not may have come out, in whatever form.
    pub sessions_over_ms: i64,
    /// The job went back to a checkpoint: what is left of the panes of a window need not begin with the first.
    pub went_back: bool,
    totals: BTreeMap<WindowKey, Cell>,
}

/// What a window of a key has so far.
#[derive(Clone, Debug, Default)]
struct Sums {
    cell: Cell,
    panes: Vec<Pane>,
}

/// End, index of the window in the job, start, key: by end first, so that what is due is at the front.
type Instance = (i64, usize, i64, String);
type Open = BTreeMap<Instance, Sums>;

/// Works out what a job must have written after these records, which are in offset order within each partition.
pub fn expect(job: &Resolved, source: &[SourceRecord]) -> Expectation {
    let mut expectation = Expectation::default();
    let mut by_partition: BTreeMap<i32, Vec<&SourceRecord>> = BTreeMap::new();
    for record in source {
        by_partition.entry(record.partition).or_default().push(record);
    }
    let mut slowest = i64::MAX;
    for records in by_partition.values() {
        slowest = slowest.min(expect_partition(job, records, &mut expectation));
    }
    if job.source.shuffle_partitions.is_some() {
        expect_meeting(job, slowest, &mut expectation);
    }
    expectation
}

/// With two stages, watermarks of sessions go on at each full second, ms.
const SESSION_GRID_MS: i64 = 1000;

/// Partitions of which each has events of every key: a window is over when the slowest has passed its end, and late is
/// what was late in its own.
fn expect_meeting(job: &Resolved, slowest: i64, expectation: &mut Expectation) {
    let totals = joined(job, std::mem::take(&mut expectation.totals));
    expectation.last_only = true;
    expectation.sessions_over_ms = slowest.div_euclid(SESSION_GRID_MS).saturating_mul(SESSION_GRID_MS);
    let over_ms = |name: &str| match is_session(job, name) {
        true => expectation.sessions_over_ms,
        false => slowest,
    };
    let is_over = |(name, _, end, _): &WindowKey| *end <= over_ms(name);
    expectation.open = totals.keys().filter(|id| !is_over(id)).count();
    let over = totals.into_iter().filter(|(id, _)| is_over(id));
    expectation.panes = over
        .map(|(id, cell)| (id, vec![pane(job, "any", false, &cell)]))
        .collect();
}

/// Start, end and what it adds up to.
type Session = (i64, i64, Cell);

/// What partitions have of sessions by themselves, put together: those that touch are one.
fn joined(job: &Resolved, totals: BTreeMap<WindowKey, Cell>) -> BTreeMap<WindowKey, Cell> {
    let mut all = BTreeMap::new();
    let mut by_key: BTreeMap<(String, String), Vec<Session>> = BTreeMap::new();
    for ((name, start, end, key), cell) in totals {
        if is_session(job, &name) {
            by_key.entry((name, key)).or_default().push((start, end, cell));
        } else {
            all.insert((name, start, end, key), cell);
        }
    }
    for ((name, key), mut parts) in by_key {
        parts.sort_by_key(|(start, end, _)| (*start, *end));
        let mut sessions: Vec<Session> = Vec::new();
        for (start, end, cell) in parts {
            match sessions.last_mut().filter(|last| start <= last.1) {
                Some(last) => {
                    last.1 = last.1.max(end);
                    last.2.merge(&cell);
                }
                None => sessions.push((start, end, cell)),
            }
        }
        let named = |(start, end, cell)| ((name.clone(), start, end, key.clone()), cell);
        all.extend(sessions.into_iter().map(named));
    }
    all
}

fn is_session(job: &Resolved, name: &str) -> bool {
    let mut windows = job.windows.iter();
    windows.any(|window| window.name == name && gap_ms(&window.kind).is_some())
}

/// One partition by itself; answers how far event time has come in it.
fn expect_partition(job: &Resolved, records: &[&SourceRecord], expectation: &mut Expectation) -> i64 {
    let mut watermark = i64::MIN;
    let mut open = Open::new();
    for record in records {
        let place = (record.partition, record.offset);
        let event = match read(job, &record.value) {
            Ok(event) => event,
            Err(reason) => {
                expectation.dead.insert(place, reason);
                continue;
            }
        };
        let (targets, missed) = targets(job, &event, watermark);
        if targets.is_empty() && !missed.is_empty() {
            expectation
                .late
                .insert(place, (missed.join(","), watermark - event.time_ms));
            continue;
        }
        let cell = match Cell::of(job, &event.document) {
            Ok(cell) => cell,
            Err(reason) => {
                expectation.dead.insert(place, reason);
                continue;
            }
        };
        for target in targets {
            let target = match gap_ms(&job.windows[target.1].kind) {
                Some(_) => join(job, target, &mut open, expectation),
                None => target,
            };
            let end = target.0;
            let sums = open.entry(target).or_default();
            sums.cell.merge(&cell);
            if end <= watermark {
                sums.panes.push(pane(job, "Late", false, &sums.cell));
            }
        }
        watermark = watermark.max(candidate(job, &event));
        fire(job, watermark, &mut open, expectation);
    }
    expectation.open += open.values().filter(|sums| sums.panes.is_empty()).count();
    open.into_iter().for_each(|(id, sums)| keep(job, id, sums, expectation));
    watermark
}

/// The instances in which an event counts, of a session what it is by itself, and the windows that it misses.
fn targets<'a>(job: &'a Resolved, event: &Event, watermark: i64) -> (Vec<Instance>, Vec<&'a str>) {
    let (mut targets, mut missed) = (Vec::new(), Vec::new());
    for (index, window) in job.windows.iter().enumerate() {
        let instances = instances(&window.kind, event.time_ms);
        let is_open = |(_, end): &&(i64, i64)| end + window.allowed_lateness_ms > watermark;
        let open: Vec<&(i64, i64)> = instances.iter().filter(is_open).collect();
        if open.len() < instances.len() {
            missed.push(window.name.as_str());
        }
        targets.extend(open.iter().map(|(start, end)| (*end, index, *start, event.key.clone())));
    }
    (targets, missed)
}

/// What the session of one event becomes with those that lie no further than the gap from it. If it is another one than
/// before, what they have published is taken back.
fn join(job: &Resolved, own: Instance, open: &mut Open, expectation: &mut Expectation) -> Instance {
    let (end, index, start, key) = own;
    let touched: Vec<Instance> = open
        .range((start, 0, i64::MIN, String::new())..)
        .map(|(id, _)| id)
        .filter(|id| id.1 == index && id.2 <= end && id.3 == key)
        .cloned()
        .collect();
    let joined = touched.iter().fold((end, index, start, key), |all, id| {
        (all.0.max(id.0), index, all.2.min(id.2), all.3)
    });
    if touched.first() == Some(&joined) {
        return joined;
    }
    let mut sums = Sums::default();
    for id in touched {
        let Some(part) = open.remove(&id) else { continue };
        sums.cell.merge(&part.cell);
        if !part.panes.is_empty() {
            let id = name(job, id);
            expectation.retracted.insert(id.clone());
            expectation.panes.insert(id, part.panes);
        }
    }
    open.insert(joined.clone(), sums);
    joined
}

/// The watermark that an event allows.
fn candidate(job: &Resolved, event: &Event) -> i64 {
    let behind = event.time_ms - job.watermark.bound_ms();
    match &job.watermark {
        Watermark::BoundedOutOfOrderness { .. } | Watermark::Monotonic => behind,
        Watermark::Periodic { step_ms, .. } => behind.div_euclid(*step_ms) * step_ms,
        Watermark::Punctuated { field, unit } => at(&event.document, field)
            .and_then(|mark| time(*unit, mark))
            .unwrap_or(i64::MIN),
    }
}

fn fire(job: &Resolved, watermark: i64, open: &mut Open, expectation: &mut Expectation) {
    let later = (watermark + 1, 0, i64::MIN, String::new());
    for ((_, index, _, _), sums) in open.range_mut(..later.clone()) {
        if sums.panes.is_empty() {
            let window = &job.windows[*index];
            let last = window.allowed_lateness_ms == 0 && gap_ms(&window.kind).is_none();
            sums.panes.push(pane(job, "OnTime", last, &sums.cell));
        }
    }
    let ended = open.range(..later).map(|(id, _)| id);
    let gone = ended.filter(|id| closes(&job.windows[id.1], id.0) <= watermark);
    for id in gone.cloned().collect::<Vec<_>>() {
        if let Some(sums) = open.remove(&id) {
            keep(job, id, sums, expectation);
        }
    }
}

/// The watermark at which nothing counts in an instance any more: a session may still be reached from a gap away.
fn closes(window: &Window, end: i64) -> i64 {
    end + gap_ms(&window.kind).unwrap_or(0) + window.allowed_lateness_ms
}

fn keep(job: &Resolved, id: Instance, sums: Sums, expectation: &mut Expectation) {
    let id = name(job, id);
    expectation.totals.entry(id.clone()).or_default().merge(&sums.cell);
    if !sums.panes.is_empty() {
        expectation.panes.entry(id).or_default().extend(sums.panes);
    }
}

fn name(job: &Resolved, (end, index, start, key): Instance) -> WindowKey {
    (job.windows[index].name.clone(), start, end, key)
}

fn pane(job: &Resolved, timing: &'static str, last: bool, cell: &Cell) -> Pane {
    // What cannot be told is no value that a result has.
    let values = cell.values(job).map(|value| value.unwrap_or_else(|problem| problem));
    Pane {
        timing,
        last,
        values: values.collect(),
    }
}

struct Event {
    time_ms: i64,
    key: String,
    document: Value,
}

fn at<'a>(document: &'a Value, pointer: &JsonPointer) -> Option<&'a Value> {
    document.pointer(pointer.as_str()).filter(|value| !value.is_null())
}

/// The checker knows fields only; jobs of the suite derive nothing.
fn input<'a>(document: &'a Value, input: &Input) -> Option<&'a Value> {
    match input {
        Input::Field(field) => at(document, field),
        Input::Let(_) => None,
    }
}

fn time(unit: TimeUnit, value: &Value) -> Option<i64> {
    match unit {
        TimeUnit::Rfc3339 => value
            .as_str()
            .and_then(|text| text.parse::<Instant>().ok())
            .map(|instant| instant.ms()),
        TimeUnit::Milliseconds => value.as_i64(),
        TimeUnit::Seconds => value.as_i64().map(|seconds| seconds * 1000),
        TimeUnit::Microseconds => value.as_i64().map(|micros| micros.div_euclid(1000)),
        TimeUnit::Nanoseconds => value.as_i64().map(|nanos| nanos.div_euclid(1_000_000)),
    }
}

fn read(job: &Resolved, bytes: &[u8]) -> Result<Event, &'static str> {
    let document: Value = serde_json::from_slice(bytes).map_err(|_| "JsonInvalid")?;
    if !document.is_object() {
        return Err("JsonInvalid");
    }
    let Timestamp::Field { field, unit } = &job.timestamp else {
        return Err("the checker knows times in fields only");
    };
    let time_ms = time(*unit, at(&document, field).ok_or("TimestampMissing")?).ok_or("TimestampInvalid")?;
    let mut key = serde_json::Map::new();
    for part in &job.group_by {
        let KeySource::Input(source) = &part.source else {
            return Err("the checker knows keys in fields only");
        };
        let value = match (input(&document, source), &part.when_missing) {
            (Some(Value::Object(_) | Value::Array(_)), _) => return Err("KeyInvalid"),
            (Some(value), _) => value.clone(),
            (None, Missing::Reject) => return Err("KeyMissing"),
            (None, Missing::Null) => Value::Null,
            (None, Missing::Default(KeyDefault::Integer(number))) => Value::from(*number),
            (None, Missing::Default(KeyDefault::Text(text))) => Value::from(text.as_str()),
        };
        key.insert(part.name.clone(), value);
    }
    Ok(Event {
        time_ms,
        key: Value::Object(key).to_string(),
        document,
    })
}

/// The gap of a session window, if it is of a kind that the checker knows.
fn gap_ms(kind: &WindowKind) -> Option<i64> {
    match kind {
        WindowKind::Session {
            gap: Gap::Fixed(gap_ms),
            max_duration_ms: None,
        } => Some(*gap_ms),
        _ => None,
    }
}

/// `(start, end)` of the windows that cover a time; of sessions the one that an event of this time is by itself.
fn instances(kind: &WindowKind, time_ms: i64) -> Vec<(i64, i64)> {
    // Starts every slide, of the ends behind it every step up to the size.
    let (size, slide, step, offset) = match kind {
        WindowKind::Tumbling { size_ms, offset_ms } => (*size_ms, *size_ms, *size_ms, *offset_ms),
        WindowKind::Sliding {
            size_ms,
            slide_ms,
            offset_ms,
        } => (*size_ms, *slide_ms, *size_ms, *offset_ms),
        WindowKind::Cumulative {
            size_ms,
            step_ms,
            offset_ms,
        } => (*size_ms, *size_ms, *step_ms, *offset_ms),
        WindowKind::Session { .. } => {
            let own = gap_ms(kind).map(|gap_ms| (time_ms, time_ms + gap_ms));
            return own.into_iter().collect();
        }
        // The jobs of the crash harness have none of these; a result of one would be reported as one too many.
        WindowKind::Count { .. } | WindowKind::Calendar { .. } | WindowKind::Global => return Vec::new(),
    };
    let mut start = time_ms - (time_ms - offset).rem_euclid(slide);
    let mut list = Vec::new();
    while start + size > time_ms {
        let ends = (1..=size / step).map(|steps| start + steps * step);
        list.extend(ends.filter(|end| *end > time_ms).map(|end| (start, end)));
        start -= slide;
    }
    list
}

#[cfg(test)]
mod tests;
