//! The batch oracle: what a log must give, computed from scratch in plain code.
//! Must not import engine code, and must not be clever: every firing aggregates all its events again.

mod aggregates;
mod sources;
mod values;
mod windows;

use std::collections::BTreeMap;

use serde::de::IgnoredAny;

pub use self::aggregates::Function;
use self::aggregates::{Row, cells, compute};
pub use self::sources::{answer_of_sources, refused};
pub use self::values::{decimal, scaled};
use self::values::{field, time};
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
            Self::Clock(_) | Self::IdleAdvance(_) | Self::Tick(_) | Self::EndOfInput => None,
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
/// Everything a task must put out for this log, in order.
pub fn outputs(spec: &Spec, log: &[Entry]) -> Vec<Expected> {
    let (mut out, mut watermark, mut clock) = (Vec::new(), NO_WATERMARK, None);
    let mut state = windows::State::default();
    for (entry, item) in log.iter().enumerate() {
        let advance = match item {
            Entry::IdleAdvance(to) => *to,
            Entry::EndOfInput => i64::MAX,
            Entry::Clock(now) => {
                clock = Some(*now);
                continue;
            }
            Entry::Tick(now) => {
                let mut emit = |firing: &windows::Firing| out.push(result(spec, entry, firing));
                state.tick(spec, *now, watermark, &mut emit);
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
                    let allows = event.allows;
                    let mut emit = |firing: &windows::Firing| out.push(result(spec, entry, firing));
                    state.add(spec, event, watermark, &mut emit);
                    allows
                }
            },
        };
        let mut emit = |firing: &windows::Firing| out.push(result(spec, entry, firing));
        state.advance(spec, watermark, watermark.max(advance), &mut emit);
        watermark = watermark.max(advance);
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
        Entry::Clock(_) | Entry::IdleAdvance(_) | Entry::Tick(_) | Entry::EndOfInput => None,
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
    for (index, window) in spec.windows.iter().enumerate() {
        let instances = windows::spans(window, time);
        let before = joined.len();
        let open = instances
            .iter()
            .filter(|(_, end)| windows::late_from(window, time, *end) > watermark);
        joined.extend(open.map(|(start, end)| (*start, *end, index)));
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
        members: members.join(","),
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

fn result(spec: &Spec, entry: usize, firing: &windows::Firing) -> Expected {
    let length_ms = firing.end.saturating_sub(firing.start);
    let values = spec.aggregates.iter().enumerate().map(|(column, (name, function, _))| {
        format!(
            "{}:{}",
            quoted(name),
            compute(function, &firing.rows, column, length_ms)
        )
    });
    let values = values.collect::<Vec<_>>().join(",");
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
    let is_cumulative = spec
        .windows
        .iter()
        .any(|other| other.name == *window && other.shape == Shape::Cumulative);
    let key_end = if is_cumulative {
        format!(r#","end":{end}"#)
    } else {
        String::new()
    };
    let key = format!(r#"{{"window":"{window}","start":{start}{key_end},"key":{{{members}}}}}"#);
    let value = format!(
        r#"{{"op":"{op}","window":"{window}","start":{start},"end":{end},"key":{{{members}}},"pane":{{"index":{index},"timing":"{timing}","final":{last},"revision":0}},"values":{{{values}}}}}"#
    );
    Expected::Result { entry, key, value }
}
