//! One generated event: its parts, drawn at random, and how they are written. Must not know a log.

use proptest::prelude::*;
use proptest::sample::select;

use super::render::time;
use crate::oracle::{Shape, Spec, Watermark};

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
/// Gaps of sessions in ms; a fraction is floored.
const GAPS: [&str; 8] = ["1", "3", "7.9", "12", "20", "2.5e1", "30.000000000001", "31"];
/// What is no gap, or longer than most sessions may be.
const BAD_GAPS: [&str; 8] = ["", "null", "0", "0.9", "-5", "\"12\"", "300", "1e30"];
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

/// Parts of one generated event; `None` leaves the member out.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// Event time less the running time of the log.
    pub shift_ms: i64,
    /// Running time less that of the record before.
    pub step_ms: i64,
    spelling: usize,
    pub bad_time: Option<&'static str>,
    /// A mark so far from the running time; absent mostly.
    pub mark_ms: Option<i64>,
    keys: [Option<String>; 2],
    numbers: [Option<String>; 3],
    /// Where the array is that is taken apart: what its elements have of their own.
    items: Items,
    /// Its own gap between sessions.
    gap: &'static str,
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

pub(super) fn draft() -> impl Strategy<Value = Draft> {
    let shift = prop_oneof![20 => -60..=0i64, 4 => -600..=0i64, 1 => 0..300i64];
    let bad_time = prop_oneof![60 => Just(None), 1 => select(&BAD_TIMES[..]).prop_map(Some), 1 => Just(Some(""))];
    let gap = prop_oneof![40 => select(&GAPS[..]), 1 => select(&BAD_GAPS[..])];
    let mark = prop_oneof![4 => Just(None), 1 => (-100..=20i64).prop_map(Some)];
    (
        shift,
        0..12i64,
        0..6usize,
        (bad_time, mark, gap, items()),
        [key(), key()],
        [number(), number(), number()],
        0..24usize,
    )
        .prop_map(
            |(shift_ms, step_ms, spelling, (bad_time, mark_ms, gap, items), keys, numbers, layout)| Draft {
                shift_ms,
                step_ms,
                spelling,
                bad_time,
                mark_ms,
                keys,
                numbers,
                items,
                gap,
                layout,
            },
        )
}

/// What stands where the array should be.
#[derive(Clone, Debug)]
enum Items {
    Elements(Vec<Item>),
    /// Something else, or nothing for an empty text.
    Other(&'static str),
}

/// One element.
#[derive(Clone, Debug)]
struct Item {
    /// Its time less that of the record.
    shift_ms: i64,
    model: Option<String>,
    number: Option<String>,
    /// No object at all.
    other: Option<&'static str>,
}

fn items() -> impl Strategy<Value = Items> {
    let shift = prop_oneof![4 => -40..=5i64, 1 => -600..=0i64];
    let other = prop_oneof![12 => Just(None), 1 => select(vec!["null", "3", "[7]", "\"a]\""]).prop_map(Some)];
    let item = (shift, key(), number(), other).prop_map(|(shift_ms, model, number, other)| Item {
        shift_ms,
        model,
        number,
        other,
    });
    prop_oneof![
        20 => prop::collection::vec(item, 0..4).prop_map(Items::Elements),
        1 => select(vec!["", "null", "{}", "7"]).prop_map(Items::Other),
    ]
}

/// The member that is taken apart.
fn exploded(spec: &Spec, draft: &Draft, time_ms: i64, mark_ms: Option<i64>, name: &str) -> String {
    let items = match &draft.items {
        Items::Other("") => return "\"other\":[]".to_owned(),
        Items::Other(text) => return format!("\"{name}\":{text}"),
        Items::Elements(items) => items,
    };
    let element = |item: &Item| {
        if let Some(other) = item.other {
            return other.to_owned();
        }
        let mut members = Vec::new();
        members.extend(item.model.iter().map(|model| format!("\"model\": {model}")));
        members.extend(item.number.iter().map(|number| format!("\"b\":{number}")));
        if spec.timestamp.len() > 1 {
            members.push(format!(
                "\"ts\":{}",
                time(spec.unit, time_ms + item.shift_ms, draft.spelling)
            ));
        }
        let mark = mark_ms.filter(|_| matches!(spec.watermark, Watermark::Punctuated { .. }));
        members.extend(mark.map(|mark_ms| format!("\"wm\":{}", time(spec.unit, mark_ms, draft.spelling))));
        let turn = draft.layout % members.len().max(1);
        members.rotate_left(turn);
        format!("{{{}}}", members.join(" , "))
    };
    let elements: Vec<String> = items.iter().map(element).collect();
    format!("\"{name}\":[{}]", elements.join(" ,"))
}

pub(super) fn render(spec: &Spec, draft: &Draft, time_ms: i64, mark_ms: Option<i64>) -> Vec<u8> {
    let mut members = Vec::new();
    match draft.bad_time {
        // A field that is not in use may be broken without anybody noticing, and some spellings of times are no JSON.
        _ if spec.timestamp.len() != 1 => {}
        None => members.push(format!("\"ts\":{}", time(spec.unit, time_ms, draft.spelling))),
        Some("") => {}
        // Text that is no time is right for one unit and wrong for the others: always wrong here.
        Some(bad) => members.push(format!("\"ts\":{bad}")),
    }
    if let Some(path) = &spec.explode {
        members.push(exploded(spec, draft, time_ms, mark_ms, &path[0]));
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
    if spec.explode.is_none() {
        members.push(format!("\"n\":{{{}}}", inner.join(" ,")));
    }
    members.extend(draft.keys[0].iter().map(|key| format!("\"tenant\":{key}")));
    members.extend(draft.numbers[0].iter().map(|number| format!("\"a\":{number}")));
    members.extend(
        draft.numbers[2]
            .iter()
            .map(|number| format!("\"list\":[ \"x\",{number} , null]")),
    );
    if spec.windows.iter().any(|window| window.shape == Shape::SessionByField) && !draft.gap.is_empty() {
        members.push(format!("\"gap\":{}", draft.gap));
    }
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
