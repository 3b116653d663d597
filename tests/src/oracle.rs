//! The batch oracle: what a log must give, computed from scratch in plain code.
//! Must not import engine code, and must not be clever: every firing aggregates all its events again.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;

/// Watermark of a log without events.
pub const NO_WATERMARK: i64 = i64::MIN;
const YEARS_0_TO_9999_MS: std::ops::RangeInclusive<i128> = -62_167_219_200_000..=253_402_300_799_999;

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
    /// Field of the event time.
    pub timestamp: Vec<String>,
    /// How that field is written.
    pub unit: Unit,
    /// Bound of out-of-orderness.
    pub bound_ms: i64,
    /// Name, field and rule of each part of the key.
    pub group_by: Vec<(String, Vec<String>, Missing)>,
    /// The windows.
    pub windows: Vec<Window>,
    /// Name, function and field of each aggregate; a count has no field.
    pub aggregates: Vec<(String, Function, Vec<String>)>,
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

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Function {
    Count,
    Sum,
    Average,
    Min,
    Max,
}

/// One entry of the log.
#[derive(Clone, Debug)]
pub enum Entry {
    /// The value bytes of a record.
    Record(Vec<u8>),
    /// A decision: the watermark advances to this time.
    IdleAdvance(i64),
    /// The watermark advances to the end of time.
    EndOfInput,
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
/// Values of one event, one an aggregate, scaled by 10^12.
type Row = Vec<Option<i128>>;
/// A pane's place in the order of firing: end, start, window name, key members.
type PaneId = (i64, i64, String, String);

/// Everything a task must put out for this log, in order.
pub fn outputs(spec: &Spec, log: &[Entry]) -> Vec<Expected> {
    let (mut out, mut watermark) = (Vec::new(), NO_WATERMARK);
    let mut panes: BTreeMap<PaneId, (Vec<Row>, usize)> = BTreeMap::new();
    let lateness: BTreeMap<&str, i64> = spec.windows.iter().map(|w| (w.name.as_str(), w.lateness_ms)).collect();
    for (entry, item) in log.iter().enumerate() {
        let advance = match item {
            Entry::IdleAdvance(to) => *to,
            Entry::EndOfInput => i64::MAX,
            Entry::Record(bytes) => match accept(spec, bytes, watermark) {
                Err(reason) => {
                    out.push(Expected::Dead {
                        entry,
                        reason,
                        watermark_ms: watermark,
                    });
                    continue;
                }
                Ok(Event {
                    time, missed, joined, ..
                }) if joined.is_empty() && !missed.is_empty() => {
                    let (windows, lateness_ms) = (missed.join(","), watermark - time);
                    out.push(Expected::Late {
                        entry,
                        windows,
                        watermark_ms: watermark,
                        lateness_ms,
                    });
                    continue;
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
                    event.time - spec.bound_ms
                }
            },
        };
        watermark = watermark.max(advance);
        for (id, pane) in panes
            .range_mut(..)
            .take_while(|(id, _)| id.0 <= watermark)
            .filter(|(_, pane)| pane.1 == 0)
        {
            let last = id.0.saturating_add(lateness[id.2.as_str()]) <= watermark;
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

struct Event {
    time: i64,
    missed: Vec<String>,
    joined: Vec<PaneId>,
    row: Row,
}

/// Judges in the order of the specification: bytes, JSON, time, key, lateness, fields of aggregates.
fn accept(spec: &Spec, bytes: &[u8], watermark: i64) -> Result<Event, Reason> {
    let root = std::str::from_utf8(bytes).map_err(|_| "JsonInvalid")?.trim();
    if serde_json::from_str::<IgnoredAny>(root).is_err() || !root.starts_with('{') {
        return Err("JsonInvalid");
    }
    let time = time(spec.unit, &field(root, &spec.timestamp).ok_or("TimestampMissing")?)?;
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
    let row = if joined.is_empty() {
        Vec::new()
    } else {
        row(spec, root)?
    };
    Ok(Event {
        time,
        missed,
        joined,
        row,
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

fn row(spec: &Spec, root: &str) -> Result<Row, Reason> {
    let value = |(_, function, path): &(String, Function, Vec<String>)| match field(root, path) {
        _ if *function == Function::Count => Ok(None),
        None => Ok(None),
        Some(raw) if is_number(&raw) => scaled(&raw, 12).map(Some).ok_or("NumberOutOfRange"),
        Some(_) => Err("FieldTypeInvalid"),
    };
    spec.aggregates.iter().map(value).collect()
}

/// The raw text of a field; `None` when it is missing or null.
fn field(root: &str, path: &[String]) -> Option<String> {
    let mut raw = root;
    for part in path {
        let parts = elements(raw);
        raw = if raw.starts_with('[') {
            parts.get(part.parse::<usize>().ok()?).copied()?
        } else {
            let mut members = parts
                .iter()
                .filter_map(|member| member.split_at_checked(elements_end(member, b':')));
            let name = |text: &str| serde_json::from_str::<String>(text).ok();
            members.find(|(text, _)| name(text).as_ref() == Some(part))?.1[1..].trim()
        };
    }
    (raw != "null").then(|| raw.to_owned())
}

/// The elements of an array or the members of an object, in a valid text; nothing for anything else.
fn elements(raw: &str) -> Vec<&str> {
    let Some(mut rest) = raw.strip_prefix(['{', '[']).map(|rest| &rest[..rest.len() - 1]) else {
        return Vec::new();
    };
    let mut list = Vec::new();
    while !rest.trim().is_empty() {
        let end = elements_end(rest, b',');
        list.push(rest[..end].trim());
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    list
}

/// Index of the first `stop` outside strings, arrays and objects, or the length.
fn elements_end(text: &str, stop: u8) -> usize {
    let (mut depth, mut in_string, mut escaped) = (0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ if byte == stop && depth == 0 => return at,
            _ => {}
        }
    }
    text.len()
}

fn is_number(raw: &str) -> bool {
    raw.starts_with(|first: char| first == '-' || first.is_ascii_digit())
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

/// Milliseconds since the epoch, floored.
fn time(unit: Unit, raw: &str) -> Result<i64, Reason> {
    let in_range = |ms: i128| {
        if YEARS_0_TO_9999_MS.contains(&ms) {
            Ok(ms as i64)
        } else {
            Err("TimestampOutOfRange")
        }
    };
    let ms_digits = match unit {
        Unit::Rfc3339 => return in_range(rfc3339(raw).ok_or("TimestampInvalid")?),
        Unit::Seconds => 3,
        Unit::Milliseconds => 0,
        Unit::Microseconds => -3,
        Unit::Nanoseconds => -6,
    };
    if !is_number(raw) {
        return Err("TimestampInvalid");
    }
    let (negative, digits, exponent) = parts(raw);
    let (head, tail) = cut(&digits, exponent + ms_digits).ok_or("TimestampOutOfRange")?;
    let floor = if negative {
        -head - i128::from(tail.bytes().any(|digit| digit != b'0'))
    } else {
        head
    };
    in_range(floor)
}

/// `"2023-11-16T18:15:46.6805900Z"` or with an offset, quotes included.
fn rfc3339(raw: &str) -> Option<i128> {
    let text: String = serde_json::from_str(raw).ok()?;
    let number = |range| {
        text.get(range)
            .filter(|t: &&str| t.bytes().all(|b| b.is_ascii_digit()))?
            .parse::<i128>()
            .ok()
    };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let fits = text.is_ascii() && &text[4..5] == "-" && &text[7..8] == "-" && &text[10..11] == "T";
    let rest = text.get(19..)?;
    let zone_at = rest.find(['Z', '+', '-'])?;
    let (fraction, zone) = rest.split_at(zone_at);
    let offset = match (zone, zone.len()) {
        ("Z", _) => 0,
        (_, 6) => (zone[1..3].parse::<i128>().ok()? * 60 + zone[4..6].parse::<i128>().ok()?) * 60_000,
        _ => return None,
    };
    let digits = fraction.strip_prefix('.').unwrap_or("0");
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, 28 + i128::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let days_in_month = *lengths.get(usize::try_from(month - 1).ok()?)?;
    if !fits || !(1..=days_in_month).contains(&day) || hour > 23 || minute > 59 || second > 59 || digits.is_empty() {
        return None;
    }
    let before = year - 1; // days since 0001-01-01, proleptic Gregorian
    let days = before * 365 + before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400) - 719_162
        + lengths[..(month - 1) as usize].iter().sum::<i128>()
        + day
        - 1;
    let ms: i128 = format!("{digits:0<3}")[..3].parse().ok()?;
    let local = ((days * 24 + hour) * 60 + minute) * 60_000 + second * 1000 + ms;
    Some(if zone.starts_with('-') {
        local + offset
    } else {
        local - offset
    })
}

/// Sign, significant digits without leading zeros, and the power of ten of the last digit.
fn parts(raw: &str) -> (bool, String, i64) {
    let (mantissa, exponent) = raw.split_once(['e', 'E']).unwrap_or((raw, "0"));
    let limit = if exponent.starts_with('-') {
        -1_000_000_000
    } else {
        1_000_000_000
    };
    let exponent = exponent
        .parse::<i64>()
        .unwrap_or(limit)
        .clamp(-1_000_000_000, 1_000_000_000);
    let unsigned = mantissa.trim_start_matches('-');
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = format!("{whole}{fraction}").trim_start_matches('0').to_owned();
    (mantissa.starts_with('-'), digits, exponent - fraction.len() as i64)
}

/// `digits · 10^shift` as whole part (below 10^37) and the digits cut off behind it.
fn cut(digits: &str, shift: i64) -> Option<(i128, String)> {
    let whole = digits.len() as i64 + shift;
    match (digits.is_empty(), shift >= 0) {
        (true, _) => Some((0, String::new())),
        _ if whole > 37 => None,
        (_, true) => Some((
            format!("{digits}{}", "0".repeat(shift as usize)).parse().ok()?,
            String::new(),
        )),
        (_, false) if whole <= 0 => Some((0, format!("{}{digits}", "0".repeat(whole.abs().min(99) as usize)))),
        (_, false) => Some((
            digits[..whole as usize].parse().ok()?,
            digits[whole as usize..].to_owned(),
        )),
    }
}

/// The number times 10^`places`, half-even; `None` when it is beyond ±10^19.
pub fn scaled(raw: &str, places: i64) -> Option<i128> {
    let (negative, digits, exponent) = parts(raw);
    let (head, tail) = cut(&digits, exponent + places)?;
    let up = match tail.split_at_checked(1) {
        Some((first, rest)) if first == "5" => rest.bytes().any(|digit| digit != b'0') || head % 2 == 1,
        Some((first, _)) => first > "5",
        None => false,
    };
    let rounded = head + i128::from(up);
    (rounded < 10i128.pow(31)).then_some(if negative { -rounded } else { rounded })
}

/// A number scaled by 10^12 as JSON: no trailing zeros, no exponent.
pub fn decimal(scaled: i128) -> String {
    let (whole, fraction) = (
        scaled.unsigned_abs() / 10u128.pow(12),
        scaled.unsigned_abs() % 10u128.pow(12),
    );
    let text = format!("{}{whole}.{fraction:012}", if scaled < 0 { "-" } else { "" });
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn aggregate(function: Function, rows: usize, values: &[i128]) -> String {
    let sum: i128 = values.iter().sum();
    let result = match function {
        Function::Count => return rows.to_string(),
        _ if values.is_empty() => return "null".to_owned(),
        Function::Sum => sum,
        Function::Average => {
            let count = values.len() as i128;
            let (floor, rest) = (sum.div_euclid(count), sum.rem_euclid(count));
            floor + i128::from(2 * rest > count || (2 * rest == count && floor % 2 != 0))
        }
        Function::Min => values.iter().copied().fold(i128::MAX, i128::min),
        Function::Max => values.iter().copied().fold(i128::MIN, i128::max),
    };
    decimal(result)
}

fn result(spec: &Spec, entry: usize, id: &PaneId, pane: &(Vec<Row>, usize), timing: &str, last: bool) -> Expected {
    let ((end, start, window, members), (rows, index)) = (id, pane);
    let values = spec.aggregates.iter().enumerate().map(|(column, (name, function, _))| {
        let values: Vec<i128> = rows.iter().filter_map(|row| row[column]).collect();
        format!("{}:{}", quoted(name), aggregate(*function, rows.len(), &values))
    });
    let values = values.collect::<Vec<_>>().join(",");
    let key = format!(r#"{{"window":"{window}","start":{start},"key":{{{members}}}}}"#);
    let value = format!(
        r#"{{"op":"Upsert","window":"{window}","start":{start},"end":{end},"key":{{{members}}},"pane":{{"index":{index},"timing":"{timing}","final":{last},"revision":0}},"values":{{{values}}}}}"#
    );
    Expected::Result { entry, key, value }
}
