//! The batch oracle: what a log must give, computed from scratch in plain code.
//! Must not import engine code, and must not be clever: every firing aggregates all its events again.

mod aggregates;
mod around;
mod run;
mod shedding;
mod sources;
mod values;
mod windows;

use std::collections::BTreeMap;

use serde::de::IgnoredAny;

pub use self::aggregates::Function;
use self::aggregates::{Row, cells, compute};
pub use self::around::{Around, PLACE, around};
pub use self::run::{outputs, outputs_across};
use self::shedding::Shedding;
pub use self::shedding::is_kept;
pub use self::sources::{answer_of_sources, refused};
pub use self::values::{decimal, scaled};
use self::values::{exploded, field, is_number, time};
pub use self::windows::{Panes, Repeat, Shape, Trigger, Window, starts};

/// Watermark of a log without events.
pub const NO_WATERMARK: i64 = i64::MIN;

/// What to do with a missing or null key field.
#[derive(Clone, Debug)]
pub enum Missing {
    /// The event is a dead letter.
    Reject,
    /// The member is null.
    Null,
    /// The member is this canonical JSON.
    Default(String),
}

/// The parameters of a job, in milliseconds; fields are lists of member names.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Field of the event time; empty: the record's own timestamp.
    pub timestamp: Vec<String>,
    /// How that field is written.
    pub unit: Unit,
    /// Bound of out-of-orderness.
    pub bound_ms: i64,
    /// How the watermark follows events.
    pub watermark: Watermark,
    /// How far ahead of the clock a time may be.
    pub skew_ms: Option<i64>,
    /// Whether results say which share of the records was kept.
    pub sheds: bool,
    /// The array whose elements are events.
    pub explode: Option<Vec<String>>,
    /// Name, field and rule of each part of the key; the field `@Topic`, `@Partition`, `@Key` or `@Timestamp` is a property
    /// of the record, `@` and another name a header.
    pub group_by: Vec<(String, Vec<String>, Missing)>,
    /// The windows.
    pub windows: Vec<Window>,
    /// Name, function and field of each aggregate; a count has no field. `a.b` is the member b of a composite a.
    pub aggregates: Vec<(String, Function, Vec<String>)>,
}

/// How the watermark follows events; `bound_ms` holds for the first and the last.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Watermark {
    Bounded,
    Monotonic,
    Punctuated { field: Vec<String> },
    Periodic { step_ms: i64 },
}

/// How an event time is written.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Unit {
    Rfc3339,
    Seconds,
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

/// One entry of the log.
#[derive(Clone, Debug)]
pub enum Entry {
    /// The value bytes of a record.
    Record(Vec<u8>),
    /// A record with a timestamp of its own, or without the one it should have.
    Stamped(Option<i64>, Vec<u8>),
    /// A record that the share in force does not keep.
    Shed(Box<Entry>),
    /// A decision: from here on the share of records kept is halved so often.
    Share(u8),
    /// The clock from here on.
    Clock(i64),
    /// A decision: the watermark advances to this time.
    IdleAdvance(i64),
    /// A decision: processing time has come here.
    Tick(i64),
    /// The watermark advances to the end of time.
    EndOfInput,
}

impl Entry {
    /// Value and timestamp, when it is a record.
    pub fn record(&self) -> Option<(&[u8], Option<i64>)> {
        match self {
            Self::Record(value) => Some((value, None)),
            Self::Stamped(timestamp_ms, value) => Some((value, *timestamp_ms)),
            Self::Shed(record) => record.record(),
            Self::Clock(_) | Self::IdleAdvance(_) | Self::Tick(_) | Self::Share(_) | Self::EndOfInput => None,
        }
    }
}

/// One output; `entry` is the index of the log entry that caused it.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Expected {
    Result {
        entry: usize,
        key: String,
        value: String,
    },
    Late {
        entry: usize,
        windows: String,
        watermark_ms: i64,
        lateness_ms: i64,
    },
    Dead {
        entry: usize,
        reason: &'static str,
        watermark_ms: i64,
    },
}

type Reason = &'static str;

/// The batch answer: the last value of each window and key that was not taken back, `(result key, values)`.
pub fn batch_answer(outputs: &[Expected]) -> BTreeMap<String, String> {
    let mut answer = BTreeMap::new();
    for output in outputs {
        let Expected::Result { key, value, .. } = output else {
            continue;
        };
        match value.rsplit_once("\"values\":") {
            Some((head, values)) if !head.starts_with(r#"{"op":"Retract""#) => {
                answer.insert(key.clone(), values.to_owned());
            }
            _ => {
                answer.remove(key);
            }
        }
    }
    answer
}

/// Newest time of a readable event, [`NO_WATERMARK`] when there is none.
pub fn newest_event_ms(spec: &Spec, log: &[Entry]) -> i64 {
    let times = log.iter().enumerate().filter_map(|(entry, item)| match item {
        Entry::Record(_) | Entry::Stamped(..) => {
            let events = accept(spec, (entry, item), NO_WATERMARK, None).ok()?;
            events.iter().map(|event| event.time).max()
        }
        _ => None,
    });
    times.max().unwrap_or(NO_WATERMARK)
}

struct Event {
    time: i64,
    members: String,
    /// Windows missed, by name.
    missed: Vec<String>,
    /// Start, end and index in the spec of the windows it counts in; of a session those of the event alone.
    joined: Vec<(i64, i64, usize)>,
    row: Row,
    /// What it lets the watermark be.
    allows: i64,
}

impl Event {
    fn is_late(&self) -> bool {
        self.joined.is_empty() && !self.missed.is_empty()
    }
}

/// Of the late events of a record: the windows they missed, in the order of the spec, and the earliest time.
fn late(spec: &Spec, events: &[Event]) -> Option<(String, i64)> {
    let late = events.iter().filter(|event| event.is_late());
    let time = late.clone().map(|event| event.time).min()?;
    let missed = |window: &&Window| late.clone().any(|event| event.missed.contains(&window.name));
    let names: Vec<&str> = spec
        .windows
        .iter()
        .filter(missed)
        .map(|window| window.name.as_str())
        .collect();
    Some((names.join(","), time))
}

/// The events of a record, judged in the order of the specification: bytes, JSON, time, future skew, then each in turn
/// key, lateness, fields of aggregates. One that fails makes the record a dead letter.
fn accept(
    spec: &Spec,
    (entry, item): (usize, &Entry),
    watermark: i64,
    clock: Option<i64>,
) -> Result<Vec<Event>, Reason> {
    let (bytes, stamp) = item.record().unwrap_or_default();
    let root = std::str::from_utf8(bytes).map_err(|_| "JsonInvalid")?.trim();
    if serde_json::from_str::<IgnoredAny>(root).is_err() || !root.starts_with('{') {
        return Err("JsonInvalid");
    }
    let events = match &spec.explode {
        Some(path) => exploded(root, path)?,
        None => vec![root.to_owned()],
    };
    let mut timed = Vec::new();
    for root in events {
        let time = match (spec.timestamp.is_empty(), stamp) {
            (false, _) => time(spec.unit, &field(&root, &spec.timestamp).ok_or("TimestampMissing")?)?,
            (true, stamp) => time(Unit::Milliseconds, &stamp.ok_or("TimestampMissing")?.to_string())?,
        };
        let allows = allowed(spec, &root, time)?;
        timed.push((root, time, allows));
    }
    if let (Some(skew), Some(now)) = (spec.skew_ms, clock)
        && timed.iter().any(|(_, time, _)| *time > now + skew)
    {
        return Err("TimestampInFuture");
    }
    let mut events = Vec::new();
    for (root, time, allows) in &timed {
        let members = members(spec, root, entry, stamp)?;
        events.push(event(spec, root, (*time, *allows), members, watermark)?);
    }
    Ok(events)
}

/// The members of the key, as they stand in a result.
fn members(spec: &Spec, root: &str, entry: usize, stamp: Option<i64>) -> Result<String, Reason> {
    let mut members = Vec::new();
    for (name, path, missing) in &spec.group_by {
        let found = match path.first().filter(|name| name.starts_with('@')) {
            Some(name) => around::part(name, entry, stamp)?,
            None => field(root, path).map(|raw| key_value(&raw)).transpose()?,
        };
        let value = match (found, missing) {
            (Some(value), _) => value,
            (None, Missing::Reject) => return Err("KeyMissing"),
            (None, Missing::Null) => "null".to_owned(),
            (None, Missing::Default(json)) => json.clone(),
        };
        members.push(format!("{}:{value}", quoted(name)));
    }
    Ok(members.join(","))
}

fn event(
    spec: &Spec,
    root: &str,
    (time, allows): (i64, i64),
    members: String,
    watermark: i64,
) -> Result<Event, Reason> {
    let gap = gap(spec, root)?;
    let (mut missed, mut joined) = (Vec::new(), Vec::new());
    for (index, window) in spec.windows.iter().enumerate() {
        let instances = windows::spans(window, time, gap);
        let before = joined.len();
        let open = instances
            .iter()
            .filter(|(_, end)| windows::late_from(window, time, gap, *end) > watermark);
        joined.extend(open.map(|(start, end)| (*start, *end, index)));
        if joined.len() == before && !instances.is_empty() {
            missed.push(window.name.clone());
        }
    }
    let mut event = Event {
        time,
        members,
        missed,
        joined,
        row: Row::default(),
        allows,
    };
    if !event.is_late() {
        event.row = row(spec, root, time, gap)?;
    }
    Ok(event)
}

/// What an event lets the watermark be, by the strategy's definition.
fn allowed(spec: &Spec, root: &str, event_time: i64) -> Result<i64, Reason> {
    Ok(match &spec.watermark {
        Watermark::Bounded => event_time - spec.bound_ms,
        Watermark::Monotonic => event_time,
        Watermark::Punctuated { field: path } => match field(root, path) {
            Some(mark) => time(spec.unit, &mark)?,
            None => NO_WATERMARK,
        },
        Watermark::Periodic { step_ms } => (event_time - spec.bound_ms).div_euclid(*step_ms) * step_ms,
    })
}

/// The event's own gap where a window looks at it: whole ms, above 0 and not above the maximum of any of them.
fn gap(spec: &Spec, root: &str) -> Result<i64, Reason> {
    let by_field = |window: &&Window| window.shape == Shape::SessionByField;
    let Some(most) = spec.windows.iter().filter(by_field).map(|window| window.size_ms).min() else {
        return Ok(0);
    };
    let raw = field(root, &["gap".to_owned()]).filter(|raw| is_number(raw));
    let ms = raw
        .and_then(|raw| scaled(&raw, 12))
        .map(|scaled| scaled.div_euclid(10i128.pow(12)));
    match ms {
        Some(ms) if 0 < ms && ms <= i128::from(most) => Ok(ms as i64),
        _ => Err("SessionGapInvalid"),
    }
}

fn row(spec: &Spec, root: &str, time: i64, gap: i64) -> Result<Row, Reason> {
    let cells = |(_, function, path): &(String, Function, Vec<String>)| cells(function, path, root);
    let cells = spec.aggregates.iter().map(cells).collect::<Result<_, _>>()?;
    Ok(Row { time, gap, cells })
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn key_value(raw: &str) -> Result<String, Reason> {
    match raw.as_bytes()[0] {
        b'{' | b'[' => Err("KeyInvalid"),
        b'"' => serde_json::from_str::<String>(raw)
            .map(|text| quoted(&text))
            .map_err(|_| "KeyInvalid"),
        b't' | b'f' => Ok(raw.to_owned()),
        _ => scaled(raw, 12).map(decimal).ok_or("NumberOutOfRange"),
    }
}

fn result(spec: &Spec, entry: usize, firing: &windows::Firing, shedding: &Shedding) -> Expected {
    let length_ms = firing.end.saturating_sub(firing.start);
    let values = spec.aggregates.iter().enumerate().map(|(column, (name, function, _))| {
        let (composite, name) = name
            .split_once('.')
            .map_or((None, name.as_str()), |(c, n)| (Some(c), n));
        let text = compute(function, &firing.rows, column, length_ms);
        (composite, format!("{}:{text}", quoted(name)))
    });
    let values: Vec<(Option<&str>, String)> = values.collect();
    let members = |group: &[(Option<&str>, String)]| {
        let members: Vec<&str> = group.iter().map(|(_, member)| member.as_str()).collect();
        match group[0].0 {
            Some(composite) => format!("{}:{{{}}}", quoted(composite), members.join(",")),
            None => members.join(","),
        }
    };
    let values: Vec<String> = values.chunk_by(|a, b| a.0 == b.0).map(members).collect();
    let values = values.join(",");
    let time = |ms: i64| match ms {
        i64::MIN | i64::MAX => "null".to_owned(),
        _ => ms.to_string(),
    };
    let windows::Firing {
        op,
        window,
        members,
        index,
        timing,
        last,
        ..
    } = firing;
    let (start, end) = (time(firing.start), time(firing.end));
    let kept = if spec.sheds {
        shedding.kept_since(firing.start)
    } else {
        String::new()
    };
    let shape = spec.windows.iter().find(|other| other.name == *window);
    let key_end = match shape.map(|window| window.shape) {
        Some(Shape::Cumulative) => format!(r#","end":{end}"#),
        Some(Shape::Count) => format!(r#","index":{index}"#),
        _ => String::new(),
    };
    let key = format!(r#"{{"window":"{window}","start":{start}{key_end},"key":{{{members}}}}}"#);
    let value = format!(
        r#"{{"op":"{op}","window":"{window}","start":{start},"end":{end},"key":{{{members}}},"pane":{{"index":{index},"timing":"{timing}","final":{last},"revision":0}}{kept},"values":{{{values}}}}}"#
    );
    Expected::Result { entry, key, value }
}
