//! The batch oracle: what a log must give, computed from scratch in plain code.
//! Must not import engine code, and must not be clever: every firing aggregates all its events again.

mod aggregates;
mod values;

use std::collections::BTreeMap;

use serde::de::IgnoredAny;

pub use self::aggregates::Function;
use self::aggregates::{Row, cells, compute};
pub use self::values::{decimal, scaled};
use self::values::{field, time};

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
    /// Name, field and rule of each part of the key.
    pub group_by: Vec<(String, Vec<String>, Missing)>,
    /// The windows.
    pub windows: Vec<Window>,
    /// Name, function and field of each aggregate; a count has no field.
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

/// A sliding window; a tumbling one has `slide_ms` = `size_ms`.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Window {
    pub name: String,
    pub size_ms: i64,
    pub slide_ms: i64,
    pub offset_ms: i64,
    pub lateness_ms: i64,
}

/// One entry of the log.
#[derive(Clone, Debug)]
pub enum Entry {
    /// The value bytes of a record.
    Record(Vec<u8>),
    /// A record with a timestamp of its own, or without the one it should have.
    Stamped(Option<i64>, Vec<u8>),
    /// The clock from here on.
    Clock(i64),
    /// A decision: the watermark advances to this time.
    IdleAdvance(i64),
    /// The watermark advances to the end of time.
    EndOfInput,
}

impl Entry {
    /// Value and timestamp, when it is a record.
    pub fn record(&self) -> Option<(&[u8], Option<i64>)> {
        match self {
            Self::Record(value) => Some((value, None)),
            Self::Stamped(timestamp_ms, value) => Some((value, *timestamp_ms)),
            Self::Clock(_) | Self::IdleAdvance(_) | Self::EndOfInput => None,
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
/// A pane's place in the order of firing: end, start, window name, key members.
type PaneId = (i64, i64, String, String);

/// Everything a task must put out for this log, in order.
pub fn outputs(spec: &Spec, log: &[Entry]) -> Vec<Expected> {
    let (mut out, mut watermark, mut clock) = (Vec::new(), NO_WATERMARK, None);
    let mut panes: BTreeMap<PaneId, (Vec<Row>, usize)> = BTreeMap::new();
    let lateness: BTreeMap<&str, i64> = spec.windows.iter().map(|w| (w.name.as_str(), w.lateness_ms)).collect();
    for (entry, item) in log.iter().enumerate() {
        let advance = match item {
            Entry::IdleAdvance(to) => *to,
            Entry::EndOfInput => i64::MAX,
            Entry::Clock(now) => {
                clock = Some(*now);
                continue;
            }
            Entry::Record(_) | Entry::Stamped(..) => match accept(spec, item, watermark, clock) {
                Err(reason) => {
                    out.push(Expected::Dead {
                        entry,
                        reason,
                        watermark_ms: watermark,
                    });
                    continue;
                }
                Ok(Event {
                    time,
                    missed,
                    joined,
                    allows,
                    ..
                }) if joined.is_empty() && !missed.is_empty() => {
                    let (windows, lateness_ms) = (missed.join(","), watermark - time);
                    out.push(Expected::Late {
                        entry,
                        windows,
                        watermark_ms: watermark,
                        lateness_ms,
                    });
                    allows
                }
                Ok(event) => {
                    let mut joined = event.joined;
                    joined.sort();
                    for id in joined {
                        let pane = panes.entry(id.clone()).or_default();
                        pane.0.push(event.row.clone());
                        if id.0 <= watermark {
                            out.push(result(spec, entry, &id, pane, "Late", false));
                            pane.1 += 1;
                        }
                    }
                    event.allows
                }
            },
        };
        watermark = watermark.max(advance);
        for (id, pane) in panes
            .range_mut(..)
            .take_while(|(id, _)| id.0 <= watermark)
            .filter(|(_, pane)| pane.1 == 0)
        {
            let last = lateness[id.2.as_str()] == 0 || watermark == i64::MAX;
            out.push(result(spec, entry, id, pane, "OnTime", last));
            pane.1 += 1;
        }
        panes.retain(|id, _| id.0.saturating_add(lateness[id.2.as_str()]) > watermark);
    }
    out
}

/// The batch answer: the last value of each window and key, `(result key, values)`.
pub fn batch_answer(outputs: &[Expected]) -> BTreeMap<String, String> {
    let value_of = |text: &str| {
        text.rsplit_once("\"values\":")
            .map_or("", |(_, values)| values)
            .to_owned()
    };
    let results = outputs.iter().filter_map(|output| match output {
        Expected::Result { key, value, .. } => Some((key.clone(), value_of(value))),
        Expected::Late { .. } | Expected::Dead { .. } => None,
    });
    results.collect()
}

/// Newest time of a readable event, [`NO_WATERMARK`] when there is none.
pub fn newest_event_ms(spec: &Spec, log: &[Entry]) -> i64 {
    let times = log.iter().filter_map(|entry| match entry {
        Entry::Record(_) | Entry::Stamped(..) => accept(spec, entry, NO_WATERMARK, None).ok().map(|event| event.time),
        Entry::Clock(_) | Entry::IdleAdvance(_) | Entry::EndOfInput => None,
    });
    times.max().unwrap_or(NO_WATERMARK)
}

struct Event {
    time: i64,
    missed: Vec<String>,
    joined: Vec<PaneId>,
    row: Row,
    /// What it lets the watermark be.
    allows: i64,
}

/// Judges in the order of the specification: bytes, JSON, time, key, lateness, fields of aggregates.
fn accept(spec: &Spec, entry: &Entry, watermark: i64, clock: Option<i64>) -> Result<Event, Reason> {
    let (bytes, stamp) = entry.record().unwrap_or_default();
    let root = std::str::from_utf8(bytes).map_err(|_| "JsonInvalid")?.trim();
    if serde_json::from_str::<IgnoredAny>(root).is_err() || !root.starts_with('{') {
        return Err("JsonInvalid");
    }
    let time = match (spec.timestamp.is_empty(), stamp) {
        (false, _) => time(spec.unit, &field(root, &spec.timestamp).ok_or("TimestampMissing")?)?,
        (true, stamp) => time(Unit::Milliseconds, &stamp.ok_or("TimestampMissing")?.to_string())?,
    };
    let allows = allowed(spec, root, time)?;
    if let (Some(skew), Some(now)) = (spec.skew_ms, clock)
        && time > now + skew
    {
        return Err("TimestampInFuture");
    }
    let mut members = Vec::new();
    for (name, path, missing) in &spec.group_by {
        let value = match (field(root, path), missing) {
            (Some(raw), _) => key_value(&raw)?,
            (None, Missing::Reject) => return Err("KeyMissing"),
            (None, Missing::Null) => "null".to_owned(),
            (None, Missing::Default(json)) => json.clone(),
        };
        members.push(format!("{}:{value}", quoted(name)));
    }
    let (mut missed, mut joined) = (Vec::new(), Vec::new());
    for window in &spec.windows {
        let instances = starts(window, time);
        let open = instances
            .iter()
            .filter(|start| *start + window.size_ms + window.lateness_ms > watermark);
        let before = joined.len();
        joined.extend(open.map(|start| (start + window.size_ms, *start, window.name.clone(), members.join(","))));
        if joined.len() == before && !instances.is_empty() {
            missed.push(window.name.clone());
        }
    }
    let is_late = joined.is_empty() && !missed.is_empty();
    let row = if is_late {
        Row::default()
    } else {
        row(spec, root, time)?
    };
    Ok(Event {
        time,
        missed,
        joined,
        row,
        allows,
    })
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

/// Starts of the windows that cover `time`.
pub fn starts(window: &Window, time: i64) -> Vec<i64> {
    let newest = (time - window.offset_ms).div_euclid(window.slide_ms) * window.slide_ms + window.offset_ms;
    (0..)
        .map(|n| newest - n * window.slide_ms)
        .take_while(|start| start + window.size_ms > time)
        .collect()
}

fn row(spec: &Spec, root: &str, time: i64) -> Result<Row, Reason> {
    let cells = |(_, function, path): &(String, Function, Vec<String>)| cells(function, path, root);
    let cells = spec.aggregates.iter().map(cells).collect::<Result<_, _>>()?;
    Ok(Row { time, cells })
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

fn result(spec: &Spec, entry: usize, id: &PaneId, pane: &(Vec<Row>, usize), timing: &str, last: bool) -> Expected {
    let ((end, start, window, members), (rows, index)) = (id, pane);
    let values = spec.aggregates.iter().enumerate().map(|(column, (name, function, _))| {
        format!("{}:{}", quoted(name), compute(function, rows, column, end - start))
    });
    let values = values.collect::<Vec<_>>().join(",");
    let key = format!(r#"{{"window":"{window}","start":{start},"key":{{{members}}}}}"#);
    let value = format!(
        r#"{{"op":"Upsert","window":"{window}","start":{start},"end":{end},"key":{{{members}}},"pane":{{"index":{index},"timing":"{timing}","final":{last},"revision":0}},"values":{{{values}}}}}"#
    );
    Expected::Result { entry, key, value }
}
