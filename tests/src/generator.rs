//! Strategies for specs and logs: disorder, lateness, broken records, numbers and keys at the edges.
//! Must not know the engine; a spec is rendered as the manifest a user would write.

mod render;
mod window;

use std::fmt;

use proptest::prelude::*;
use proptest::sample::{Index, select};

pub use self::render::manifest;
use self::render::time;
use self::window::window;
use crate::oracle::{Entry, Function, Missing, Shape, Spec, Unit, Watermark, Window};

/// A spec and a log for it.
#[derive(Clone)]
pub struct Case {
    /// The parameters.
    pub spec: Spec,
    /// Offset of each entry's record, strictly ascending with gaps; for a decision the next input offset.
    pub offsets: Vec<i64>,
    /// The log.
    pub log: Vec<Entry>,
}

impl fmt::Debug for Case {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{:?}", self.spec)?;
        for (entry, (item, offset)) in self.log.iter().zip(&self.offsets).enumerate() {
            match item {
                Entry::Record(bytes) => writeln!(out, "  {entry} @{offset}: {:?}", String::from_utf8_lossy(bytes))?,
                Entry::Stamped(stamp, bytes) => writeln!(
                    out,
                    "  {entry} @{offset} at {stamp:?}: {:?}",
                    String::from_utf8_lossy(bytes)
                )?,
                Entry::Clock(now) => writeln!(out, "  {entry} @{offset}: the clock says {now}")?,
                Entry::IdleAdvance(to) => writeln!(out, "  {entry} @{offset}: idle advance to {to}")?,
                Entry::Tick(now) => writeln!(out, "  {entry} @{offset}: tick at {now}")?,
                Entry::EndOfInput => writeln!(out, "  {entry} @{offset}: end of input")?,
            }
        }
        Ok(())
    }
}

/// Key values by how they are written: some are equal in different spelling, the last ones are no keys.
const KEYS: [&str; 24] = [
    r#""a""#,
    r#""\u0061""#,
    r#""b""#,
    r#""1""#,
    "1",
    "1.0",
    "10e-1",
    "0.5",
    "5e-1",
    "-0",
    "0",
    "true",
    "false",
    r#""é""#,
    r#""\u00e9""#,
    r#""😀""#,
    r#""\ud83d\ude00""#,
    r#""line\nend""#,
    r#""q\"\\\/""#,
    r#""\u0001\u007f""#,
    r#""""#,
    r#""\ud800""#,
    "{}",
    "[1]",
];
/// Numbers at the edges of the decimal range and of rounding to 12 fractional digits.
const NUMBERS: [&str; 24] = [
    "0",
    "-0",
    "0.0",
    "1",
    "1.0",
    "1e0",
    "0.1",
    "0.2",
    "5e-13",
    "1.5e-12",
    "2.5e-12",
    "-2.5e-12",
    "1e-400",
    "1E+2",
    "9999999999999999999",
    "-9999999999999999999",
    "9999999999999999999.999999999999",
    "123456789012.345678901234567",
    "0.33333333333333333333333333",
    "9007199254740993",
    "1e18",
    "-0.000000000001",
    "12345678901234567890e-5",
    "4503599627370497.5",
];
/// What is no number, or beyond the range.
const BAD_NUMBERS: [&str; 8] = [
    r#""12""#,
    "true",
    "{}",
    "[1]",
    "1e19",
    "-1e400",
    "10000000000000000000",
    "1e999999999999",
];
const BAD_RECORDS: [&[u8]; 14] = [
    b"",
    b" ",
    b"{",
    b"nonsense",
    b"[1,2]",
    b"42",
    b"null",
    b"\"text\"",
    b"true",
    b"{\"ts\"",
    b"{\"ts\" 1}",
    b"{ts:1}",
    b"{\"ts\":}",
    b"\xff\xfe",
];
const BAD_TIMES: [&str; 8] = [
    "null",
    "true",
    "[]",
    "{}",
    r#""""#,
    r#""yesterday""#,
    r#""2023-02-30T00:00:00Z""#,
    r#""12""#,
];

fn field(path: &str) -> Vec<String> {
    path.split('/').skip(1).map(str::to_owned).collect()
}

fn missing() -> impl Strategy<Value = Missing> {
    prop_oneof![
        Just(Missing::Reject),
        Just(Missing::Null),
        Just(Missing::Default(r#""unknown""#.to_owned())),
        Just(Missing::Default("7".to_owned())),
    ]
}

fn watermark() -> impl Strategy<Value = Watermark> {
    prop_oneof![
        3 => Just(Watermark::Bounded),
        1 => Just(Watermark::Monotonic),
        1 => Just(Watermark::Punctuated { field: field("/n/wm") }),
        1 => (1..200i64).prop_map(|step_ms| Watermark::Periodic { step_ms }),
    ]
}

/// Strategy of the watermark, whether times are the records' own, how far ahead a time may be.
fn time_rules() -> impl Strategy<Value = (Watermark, bool, Option<i64>)> {
    let skew = prop_oneof![2 => Just(None), 1 => (0..100i64).prop_map(Some)];
    (watermark(), prop::bool::weighted(0.2), skew)
}

/// Any function, and the field it looks at.
fn aggregate() -> impl Strategy<Value = (Function, Vec<String>)> {
    let numeric = || select(vec!["/a", "/n/b", "/list/1"]).prop_map(field);
    let anything = || select(vec!["/a", "/n/b", "/tenant", "/n/model"]).prop_map(field);
    let of_numbers = select(vec![
        Function::Count,
        Function::Sum,
        Function::Average,
        Function::Min,
        Function::Max,
        Function::Variance(false),
        Function::Variance(true),
        Function::Stddev(false),
        Function::Stddev(true),
        Function::Percentile(vec!["0.5", "0.999", "0", "1"]),
        Function::Percentile(vec!["0.1", "0.333333333333"]),
        Function::Histogram(vec!["-1.5", "0", "0.1", "1000000"]),
        Function::EventRate(1000),
        Function::SumRate(60_000),
    ]);
    let of_anything = select(vec![
        Function::First,
        Function::Last,
        Function::Distinct,
        Function::TopK(1),
        Function::TopK(10),
    ]);
    let extreme = (numeric(), any::<bool>()).prop_map(|(by, least)| match least {
        true => Function::ArgMin(by),
        false => Function::ArgMax(by),
    });
    let pair = (numeric(), any::<bool>()).prop_map(|(other, weighted)| match weighted {
        true => Function::WeightedAverage(other),
        false => Function::Ratio(other),
    });
    prop_oneof![
        4 => (of_numbers, numeric()),
        2 => (of_anything, anything()),
        1 => (extreme, anything()),
        1 => (pair, numeric()),
    ]
}

/// Any spec of this version's windows and aggregates.
pub fn spec() -> impl Strategy<Value = Spec> {
    let unit = select(vec![
        Unit::Rfc3339,
        Unit::Seconds,
        Unit::Milliseconds,
        Unit::Microseconds,
        Unit::Nanoseconds,
    ]);
    let aggregates = prop::collection::vec(aggregate(), 1..8);
    let group_by = prop::collection::vec(missing(), 0..=2);
    (
        unit,
        (0..120i64, time_rules()),
        group_by,
        prop::collection::vec(window(), 1..=3),
        aggregates,
    )
        .prop_map(
            |(unit, (bound_ms, (watermark, stamped, skew_ms)), group_by, windows, aggregates)| Spec {
                timestamp: if stamped { Vec::new() } else { field("/ts") },
                unit,
                bound_ms,
                watermark,
                skew_ms,
                group_by: (group_by.into_iter().zip([("tenant", "/tenant"), ("model", "/n/model")]))
                    .map(|(missing, (name, path))| (name.to_owned(), field(path), missing))
                    .collect(),
                // Names descend so that order by name and order in the spec differ.
                windows: (windows.into_iter().zip(["w-c", "w-b", "w-a"]))
                    .map(|(window, name)| Window {
                        name: name.to_owned(),
                        ..window
                    })
                    .collect(),
                aggregates: (aggregates.into_iter().enumerate())
                    .map(|(n, (function, path))| (format!("x{n}"), function, path))
                    .collect(),
            },
        )
}

/// Parts of one generated event; `None` leaves the member out.
#[derive(Clone, Debug)]
struct Draft {
    /// Event time less the running time of the log.
    shift_ms: i64,
    /// Running time less that of the record before.
    step_ms: i64,
    spelling: usize,
    bad_time: Option<&'static str>,
    /// A mark so far from the running time; absent mostly.
    mark_ms: Option<i64>,
    keys: [Option<String>; 2],
    numbers: [Option<String>; 3],
    layout: usize,
}

fn key() -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        30 => (0..4usize).prop_map(|n| Some(format!("\"k{n}\""))),
        20 => (0..KEYS.len() - 3).prop_map(|n| Some(KEYS[n].to_owned())),
        1 => select(&KEYS[KEYS.len() - 3..]).prop_map(|key| Some(key.to_owned())),
        1 => Just(Some("null".to_owned())),
        1 => Just(None),
    ]
}

fn number() -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        20 => (-1_000_000i64..1_000_000, -9..4i32).prop_map(|(digits, exponent)| Some(format!("{digits}e{exponent}"))),
        20 => (any::<i32>(), any::<u32>()).prop_map(|(whole, fraction)| Some(format!("{whole}.{fraction:010}"))),
        10 => any::<i64>().prop_map(|number| Some(number.to_string())),
        10 => select(&NUMBERS[..]).prop_map(|number| Some(number.to_owned())),
        1 => select(&BAD_NUMBERS[..]).prop_map(|number| Some(number.to_owned())),
        3 => Just(Some("null".to_owned())),
        3 => Just(None),
    ]
}

fn draft() -> impl Strategy<Value = Draft> {
    let shift = prop_oneof![20 => -60..=0i64, 4 => -600..=0i64, 1 => 0..300i64];
    let bad_time = prop_oneof![60 => Just(None), 1 => select(&BAD_TIMES[..]).prop_map(Some), 1 => Just(Some(""))];
    let mark = prop_oneof![4 => Just(None), 1 => (-100..=20i64).prop_map(Some)];
    (
        shift,
        0..12i64,
        0..6usize,
        (bad_time, mark),
        [key(), key()],
        [number(), number(), number()],
        0..24usize,
    )
        .prop_map(
            |(shift_ms, step_ms, spelling, (bad_time, mark_ms), keys, numbers, layout)| Draft {
                shift_ms,
                step_ms,
                spelling,
                bad_time,
                mark_ms,
                keys,
                numbers,
                layout,
            },
        )
}

#[derive(Clone, Debug)]
enum DraftEntry {
    Event(Draft),
    Bad(&'static [u8]),
    Idle(i64),
    Clock(i64),
    Tick(i64),
}

fn draft_entry() -> impl Strategy<Value = DraftEntry> {
    prop_oneof![
        60 => draft().prop_map(DraftEntry::Event),
        2 => select(&BAD_RECORDS[..]).prop_map(DraftEntry::Bad),
        1 => (-100..300i64).prop_map(DraftEntry::Idle),
        2 => (-100..100i64).prop_map(DraftEntry::Clock),
        3 => (0..500i64).prop_map(DraftEntry::Tick),
    ]
}

/// Any spec with a log of up to `records_max` records for it, ended or not.
pub fn case(records_max: usize) -> impl Strategy<Value = Case> {
    let base = select(vec![
        0i64,
        -3_000,
        -86_400_000 * 365,
        951_782_399_000,
        1_700_000_000_000,
        253_402_300_000_000,
    ]);
    let entries = prop::collection::vec((draft_entry(), 1..4i64), 0..=records_max);
    (spec(), base, entries, any::<bool>()).prop_map(|(spec, base, entries, ended)| {
        let has_days = spec.windows.iter().any(|window| window.shape == Shape::Day); // None behind the year 9999.
        let base = if has_days { base.min(1_700_000_000_000) } else { base };
        let (mut now, mut next, mut clock) = (base, 0, 0);
        let (mut log, mut offsets) = (Vec::new(), Vec::new());
        for (entry, gap) in entries {
            match entry {
                DraftEntry::Event(draft) => {
                    now += draft.step_ms;
                    let time_ms = now + draft.shift_ms;
                    let value = render(&spec, &draft, time_ms, draft.mark_ms.map(|mark_ms| now + mark_ms));
                    log.push(match (spec.timestamp.is_empty(), draft.bad_time) {
                        (false, _) => Entry::Record(value),
                        (true, None) => Entry::Stamped(Some(time_ms), value),
                        (true, Some("")) => Entry::Stamped(Some(i64::MAX), value),
                        (true, Some(_)) => Entry::Stamped(None, value),
                    });
                }
                DraftEntry::Bad(bytes) => log.push(Entry::Record(bytes.to_vec())),
                DraftEntry::Tick(step_ms) => {
                    clock += step_ms;
                    log.push(Entry::Tick(clock));
                    offsets.push(next);
                    continue;
                }
                DraftEntry::Idle(ahead_ms) => {
                    log.push(Entry::IdleAdvance(now + ahead_ms));
                    offsets.push(next);
                    continue;
                }
                DraftEntry::Clock(ahead_ms) => {
                    log.push(Entry::Clock(now + ahead_ms));
                    offsets.push(next);
                    continue;
                }
            }
            offsets.push(next + gap - 1);
            next += gap;
        }
        if ended {
            log.push(Entry::EndOfInput);
            offsets.push(next);
        }
        Case { spec, offsets, log }
    })
}

/// Cuts of a log of any length into batches, used round and round.
pub fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        Just(vec![1]),
        Just(vec![1_000_000]),
        prop::collection::vec(1..40usize, 1..8)
    ]
}

/// Places in a list of any length.
pub fn places() -> impl Strategy<Value = Vec<Index>> {
    prop::collection::vec(any::<Index>(), 0..5)
}

fn render(spec: &Spec, draft: &Draft, time_ms: i64, mark_ms: Option<i64>) -> Vec<u8> {
    let mut members = Vec::new();
    match draft.bad_time {
        // A field that is not in use may be broken without anybody noticing, and some spellings of times are no JSON.
        _ if spec.timestamp.is_empty() => {}
        None => members.push(format!("\"ts\":{}", time(spec.unit, time_ms, draft.spelling))),
        Some("") => {}
        // Text that is no time is right for one unit and wrong for the others: always wrong here.
        Some(bad) => members.push(format!("\"ts\":{bad}")),
    }
    let marked = matches!(spec.watermark, Watermark::Punctuated { .. });
    let mark = mark_ms.filter(|_| marked).map(|mark_ms| match draft.layout {
        0 => "\"soon\"".to_owned(),
        _ => time(spec.unit, mark_ms, draft.spelling),
    });
    let inner = [("model", &draft.keys[1]), ("b", &draft.numbers[1]), ("wm", &mark)];
    let inner: Vec<String> = inner
        .iter()
        .filter_map(|(name, v)| Some(format!("\"{name}\" : {}", (*v).as_ref()?)))
        .collect();
    members.push(format!("\"n\":{{{}}}", inner.join(" ,")));
    members.extend(draft.keys[0].iter().map(|key| format!("\"tenant\":{key}")));
    members.extend(draft.numbers[0].iter().map(|number| format!("\"a\":{number}")));
    members.extend(
        draft.numbers[2]
            .iter()
            .map(|number| format!("\"list\":[ \"x\",{number} , null]")),
    );
    members.push(r#""unused":{"ts":[1e999,{"a":"}\"{"}],"tenant":"\ud800"}"#.to_owned());
    let turn = draft.layout % members.len();
    members.rotate_left(turn);
    if draft.layout >= 12 {
        members.reverse();
    }
    let (open, comma, close) = if draft.layout.is_multiple_of(3) {
        (" {\t", "\r\n ,", "\n}\n")
    } else {
        ("{", ",", "}")
    };
    format!("{open}{}{close}", members.join(comma)).into_bytes()
}
