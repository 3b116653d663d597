//! Cases worked out by hand against the batch oracle, so that the oracle is not only compared with the engine.

use streamagg_tests::oracle::{self, Entry, Expected, Function, Missing, Spec, Unit, Watermark, Window};

fn window(name: &str, size_ms: i64, slide_ms: i64, offset_ms: i64, lateness_ms: i64) -> Window {
    Window {
        name: name.to_owned(),
        size_ms,
        slide_ms,
        offset_ms,
        lateness_ms,
        closed_ms: oracle::NO_WATERMARK,
        shape: oracle::Shape::default(),
        trigger: oracle::Trigger::default(),
        panes: oracle::Panes::default(),
    }
}

pub(super) fn spec(bound_ms: i64, windows: Vec<Window>) -> Spec {
    let field = |name: &str| vec![name.to_owned()];
    Spec {
        timestamp: field("ts"),
        unit: Unit::Milliseconds,
        bound_ms,
        watermark: Watermark::Bounded,
        skew_ms: None,
        sheds: false,
        explode: None,
        group_by: vec![("k".to_owned(), field("k"), Missing::Reject)],
        windows,
        aggregates: vec![
            ("n".to_owned(), Function::Count, Vec::new()),
            ("sum".to_owned(), Function::Sum, field("v")),
            ("avg".to_owned(), Function::Average, field("v")),
            ("min".to_owned(), Function::Min, field("v")),
            ("max".to_owned(), Function::Max, field("v")),
        ],
    }
}

fn record(text: &str) -> Entry {
    Entry::Record(text.as_bytes().to_vec())
}

/// Results as `window start index timing final values`, the rest as it is.
fn lines(spec: &Spec, log: &[Entry]) -> Vec<String> {
    let outputs = oracle::outputs(spec, log);
    outputs
        .iter()
        .map(|output| match output {
            Expected::Result { value, .. } => value.clone(),
            Expected::Late {
                entry,
                windows,
                watermark_ms,
                lateness_ms,
            } => {
                format!("late {entry} {windows} {watermark_ms} {lateness_ms}")
            }
            Expected::Dead { entry, reason, .. } => format!("dead {entry} {reason}"),
        })
        .collect()
}

#[test]
fn a_tumbling_window_fires_on_time_then_late_and_then_takes_no_more() {
    let spec = spec(0, vec![window("m", 10, 10, 0, 5)]);
    let log = [
        record(r#"{"ts":1,"k":"a","v":0.1}"#),
        record(r#"{"ts":10,"k":"a","v":0.2}"#), // W = 10: fires [0,10)
        record(r#"{"ts":9,"k":"a","v":0.2}"#),  // late but allowed: fires again
        record(r#"{"ts":15,"k":"a"}"#),         // W = 15: [0,10) is purged
        record(r#"{"ts":9,"k":"a","v":1}"#),
        Entry::EndOfInput,
    ];
    let head = |start: i64, end: i64, index: i64, timing: &str, last: bool| {
        format!(
            r#"{{"op":"Upsert","window":"m","start":{start},"end":{end},"key":{{"k":"a"}},"pane":{{"index":{index},"timing":"{timing}","final":{last},"revision":0}},"values":"#
        )
    };
    let expected = [
        head(0, 10, 0, "OnTime", false) + r#"{"n":1,"sum":0.1,"avg":0.1,"min":0.1,"max":0.1}}"#,
        head(0, 10, 1, "Late", false) + r#"{"n":2,"sum":0.3,"avg":0.15,"min":0.1,"max":0.2}}"#,
        "late 4 m 15 6".to_owned(),
        head(10, 20, 0, "OnTime", true) + r#"{"n":2,"sum":0.2,"avg":0.2,"min":0.2,"max":0.2}}"#,
    ];
    assert_eq!(lines(&spec, &log), expected);
}

#[test]
fn a_record_is_judged_json_then_time_then_key_then_lateness_then_fields() {
    let spec = spec(0, vec![window("m", 10, 10, 0, 0)]);
    let log = [
        record("[]"),
        record(r#"{"ts":"1","k":{},"v":"x"}"#),
        record(r#"{"k":{},"v":"x"}"#),
        record(r#"{"ts":1,"v":"x"}"#),
        record(r#"{"ts":1,"k":{},"v":"x"}"#),
        record(r#"{"ts":1,"k":1,"v":"x"}"#),
        record(r#"{"ts":1,"k":1,"v":1e19}"#),
        record(r#"{"ts":1e30,"k":1}"#),
        record(r#"{"ts":20,"k":1}"#),
        record(r#"{"ts":1,"k":1,"v":"x"}"#),
    ];
    let expected = [
        "dead 0 JsonInvalid",
        "dead 1 TimestampInvalid",
        "dead 2 TimestampMissing",
        "dead 3 KeyMissing",
        "dead 4 KeyInvalid",
        "dead 5 FieldTypeInvalid",
        "dead 6 NumberOutOfRange",
        "dead 7 TimestampOutOfRange",
        "late 9 m 20 19",
    ];
    assert_eq!(lines(&spec, &log), expected);
}

#[test]
fn sliding_windows_overlap_and_leave_gaps() {
    let overlapping = window("s", 10, 4, 1, 0);
    assert_eq!(oracle::starts(&overlapping, 9), [9, 5, 1]);
    assert_eq!(oracle::starts(&overlapping, -1), [-3, -7]);
    let gaps = window("g", 2, 10, 3, 0);
    assert_eq!(oracle::starts(&gaps, 4), [3]);
    assert!(oracle::starts(&gaps, 5).is_empty());
    assert_eq!(oracle::starts(&gaps, -7), [-7]);
}

#[test]
fn firings_of_one_moment_go_by_end_start_name_and_key() {
    let spec = spec(
        0,
        vec![
            window("z", 10, 10, 0, 0),
            window("a", 10, 10, 0, 0),
            window("b", 5, 5, 0, 0),
        ],
    );
    let log = [
        record(r#"{"ts":1,"k":"x"}"#),
        record(r#"{"ts":7,"k":"y"}"#),
        record(r#"{"ts":7,"k":"x"}"#),
        record(r#"{"ts":10,"k":"x"}"#),
    ];
    let order: Vec<String> = (oracle::outputs(&spec, &log).into_iter())
        .map(|output| match output {
            Expected::Result { key, .. } => key,
            other => panic!("{other:?}"),
        })
        .collect();
    let key = |window: &str, start: i64, key: &str| {
        format!(r#"{{"window":"{window}","start":{start},"key":{{"k":"{key}"}}}}"#)
    };
    let expected = [
        key("b", 0, "x"),
        key("a", 0, "x"),
        key("a", 0, "y"),
        key("z", 0, "x"),
        key("z", 0, "y"),
        key("b", 5, "x"),
        key("b", 5, "y"),
    ];
    // [0,10) starts before [5,10) and ends with it.
    assert_eq!(order, expected);
}

#[test]
fn decimals_round_half_even_at_the_twelfth_digit() {
    let text = |raw: &str| oracle::scaled(raw, 12).map(oracle::decimal);
    for (raw, expected) in [
        ("5e-13", "0"),
        ("1.5e-12", "0.000000000002"),
        ("2.5e-12", "0.000000000002"),
        ("2.5000000000000000001e-12", "0.000000000003"),
        ("-1.5e-12", "-0.000000000002"),
        ("-5e-13", "0"),
        ("1E+2", "100"),
        ("-0.0", "0"),
        ("12345678901234567890e-5", "123456789012345.6789"),
        ("9999999999999999999.999999999999", "9999999999999999999.999999999999"),
        ("1e-999999999999", "0"),
        ("0e999999999999", "0"),
    ] {
        assert_eq!(text(raw).as_deref(), Some(expected), "{raw}");
    }
    assert_eq!(text("1e19"), None);
    assert_eq!(text("-1e999999999999"), None);
}

#[test]
fn averages_are_exact_and_round_once() {
    let spec = spec(0, vec![window("m", 10, 10, 0, 0)]);
    let average = |values: &[&str]| {
        let mut log: Vec<Entry> = values
            .iter()
            .map(|v| record(&format!(r#"{{"ts":1,"k":1,"v":{v}}}"#)))
            .collect();
        log.push(Entry::EndOfInput);
        let all = lines(&spec, &log);
        all[0]
            .split("\"avg\":")
            .nth(1)
            .unwrap()
            .split(',')
            .next()
            .unwrap()
            .to_owned()
    };
    assert_eq!(average(&["1", "0", "0"]), "0.333333333333");
    assert_eq!(average(&["2", "0", "0"]), "0.666666666667");
    assert_eq!(average(&["1e-12", "0"]), "0");
    assert_eq!(average(&["3e-12", "0"]), "0.000000000002");
    assert_eq!(average(&["-3e-12", "0"]), "-0.000000000002");
    assert_eq!(average(&["-1", "0", "0"]), "-0.333333333333");
    assert_eq!(
        average(&["9999999999999999999", "9999999999999999999"]),
        "9999999999999999999"
    );
}

#[test]
fn times_are_floored_to_milliseconds_in_every_unit() {
    for (unit, raw, expected) in [
        (Unit::Seconds, "-0.0001", -1),
        (Unit::Seconds, "1.9999", 1_999),
        (Unit::Milliseconds, "-4.3", -5),
        (Unit::Milliseconds, "15e-1", 1),
        (Unit::Microseconds, "1999", 1),
        (Unit::Microseconds, "-1", -1),
        (Unit::Nanoseconds, "1700000000000999999", 1_700_000_000_000i64),
        (Unit::Rfc3339, r#""1969-12-31T23:59:59.9999Z""#, -1),
        (Unit::Rfc3339, r#""2000-02-29T01:30:00.0019+01:30""#, 951_782_400_001),
        (Unit::Rfc3339, r#""0000-01-01T00:00:00Z""#, -62_167_219_200_000),
        (Unit::Rfc3339, r#""9999-12-31T23:59:59.999Z""#, 253_402_300_799_999),
    ] {
        let spec = Spec {
            unit,
            ..spec(0, vec![window("m", 1, 1, 0, 0)])
        };
        let log = [record(&format!(r#"{{"ts":{raw},"k":1}}"#)), Entry::EndOfInput];
        let Expected::Result { key, .. } = &oracle::outputs(&spec, &log)[0] else {
            panic!("{raw} is no time")
        };
        assert_eq!(
            *key,
            format!(r#"{{"window":"m","start":{expected},"key":{{"k":1}}}}"#),
            "{raw}"
        );
    }
}

#[test]
fn the_batch_answer_is_the_last_pane_of_each_window_and_key() {
    let spec = spec(0, vec![window("m", 10, 10, 0, 5)]);
    let log = [
        record(r#"{"ts":1,"k":1,"v":1}"#),
        record(r#"{"ts":10,"k":1.0,"v":2}"#),
        record(r#"{"ts":9,"k":10e-1,"v":4}"#),
    ];
    let answer = oracle::batch_answer(&oracle::outputs(&spec, &log));
    let expected = (
        r#"{"window":"m","start":0,"key":{"k":1}}"#,
        r#"{"n":2,"sum":5,"avg":2.5,"min":1,"max":4}}"#,
    );
    assert_eq!(
        answer.into_iter().collect::<Vec<_>>(),
        [(expected.0.to_owned(), expected.1.to_owned())]
    );
}

/// Start, end, index, timing and sum of each result; late and dead records as in [`lines`].
fn short(spec: &Spec, log: &[Entry]) -> Vec<String> {
    let short = |line: String| match serde_json::from_str::<serde_json::Value>(&line) {
        Ok(value) => {
            let pane = &value["pane"];
            let timing = pane["timing"].as_str().unwrap();
            let last = if pane["final"] == true { "!" } else { "" };
            let (start, end, index) = (&value["start"], &value["end"], &pane["index"]);
            format!("{start}-{end} {index} {timing}{last} {}", value["values"]["sum"])
        }
        Err(_) => line,
    };
    lines(spec, log).into_iter().map(short).collect()
}

#[test]
fn a_count_window_has_the_last_events_of_its_key_whatever_their_times() {
    let mut window = window("c", 3, 2, 0, 0);
    window.shape = oracle::Shape::Count;
    let spec = spec(0, vec![window]);
    let log = [
        record(r#"{"ts":50,"k":1,"v":1}"#),
        record(r#"{"ts":10,"k":1,"v":2}"#),
        record(r#"{"ts":70,"k":1,"v":4}"#),
        record(r#"{"ts":90,"k":2,"v":100}"#),
        record(r#"{"ts":20,"k":1,"v":8}"#),
        record(r#"{"ts":60,"k":1,"v":16}"#),
        Entry::EndOfInput,
    ];
    let expected = [
        "10-51 0 OnTime! 3",
        "10-71 1 OnTime! 14",
        "20-71 2 OnTime! 28",
        "90-91 0 OnTime! 100",
    ];
    assert_eq!(short(&spec, &log), expected);
    let Expected::Result { key, .. } = &oracle::outputs(&spec, &log)[1] else {
        panic!("it is a result")
    };
    assert_eq!(key, r#"{"window":"c","start":10,"index":1,"key":{"k":1}}"#);
}

#[test]
fn a_session_reaches_as_far_as_the_gaps_of_its_events() {
    let mut window = window("s", 100, 0, 0, 0);
    window.shape = oracle::Shape::SessionByField;
    let spec = spec(5, vec![window]);
    let log = [
        record(r#"{"ts":0,"k":1,"gap":30,"v":1}"#),
        record(r#"{"ts":20,"k":1,"gap":1,"v":2}"#),
        record(r#"{"ts":31,"k":1,"gap":5.9,"v":4}"#),
        record(r#"{"ts":95,"k":1,"gap":100,"v":16}"#),
        record(r#"{"ts":96,"k":1,"gap":101,"v":1}"#),
        record(r#"{"ts":60,"k":1,"gap":30,"v":1}"#),
        record(r#"{"ts":60,"k":1,"gap":31,"v":32}"#),
        Entry::EndOfInput,
    ];
    let expected = [
        "0-30 0 OnTime 3",
        "31-36 0 OnTime 4",
        "dead 4 SessionGapInvalid",
        "late 5 s 90 30",
        "60-91 0 OnTime! 32",
        "95-100 0 OnTime! 16",
    ];
    assert_eq!(short(&spec, &log), expected);
}

#[test]
fn elements_are_events_of_their_own_and_all_good_or_none() {
    let field = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
    let mut spec = spec(5, vec![window("m", 10, 10, 0, 0)]);
    spec.explode = Some(field("list"));
    spec.timestamp = field("list/ts");
    spec.aggregates[1].2 = field("list/v");
    let log = [
        record(r#"{"k":1,"list":[{"ts":29,"v":1},{"ts":3,"v":2}]}"#),
        record(r#"{"k":1,"list":[{"ts":28,"v":4},{"ts":27,"v":"x"}]}"#),
        record(r#"{"k":1,"list":[{"ts":4,"v":"x"},{"ts":28,"v":8},{"ts":15,"v":16}]}"#),
        record(r#"{"k":1,"list":[]}"#),
        record(r#"{"k":1,"list":7}"#),
        Entry::EndOfInput,
    ];
    let expected = [
        "0-10 0 OnTime! 2",
        "dead 1 FieldTypeInvalid",
        "late 2 m 24 20",
        "dead 4 FieldTypeInvalid",
        "20-30 0 OnTime! 9",
    ];
    assert_eq!(short(&spec, &log), expected);
}
