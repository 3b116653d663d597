//! Count windows, gaps of events, elements of lists, and what is around records. Must not test what the others do.

use super::derived::{plan_with, timed_plan_with};
use super::*;
use crate::error::RejectReason;
use crate::pipeline::output::Envelope;

#[test]
fn count_windows_take_the_last_events_in_the_order_of_the_log() {
    let windows =
        "[{name: c, count: {size: 3, slide: 2}}, {name: d, count: {size: 2}}, {name: e, count: {size: 1, slide: 4}}]";
    let mut run = Run::new(&plan(windows, COUNT_SUM));
    run.feed(&[
        r#"{"ts":50,"k":1,"v":1}"#,
        r#"{"ts":10,"k":1,"v":2}"#,
        r#"{"ts":90,"k":2,"v":100}"#,
        r#"{"ts":70,"k":1,"v":4}"#,
        r#"{"ts":20,"k":1,"v":8}"#,
        r#"{"ts":60,"k":1,"v":16}"#,
    ]);
    assert_eq!(run.task.stats().late, 0, "no event is late for a count window");
    assert_eq!((run.task.keys(), run.task.open_windows()), (2, 6));
    assert_eq!(
        run.end(),
        [
            r#"c 10-51 1 0 OnTime! {"n":2,"s":3}"#,
            r#"d 10-51 1 0 OnTime! {"n":2,"s":3}"#,
            r#"e 20-21 1 0 OnTime! {"n":1,"s":8}"#,
            r#"c 10-71 1 1 OnTime! {"n":3,"s":14}"#,
            r#"d 20-71 1 1 OnTime! {"n":2,"s":12}"#,
            // The end of the input: what came since, over as many events as ever.
            r#"d 20-61 1 2 OnTime! {"n":2,"s":24}"#,
            r#"e 60-61 1 1 OnTime! {"n":1,"s":16}"#,
            r#"c 20-71 1 2 OnTime! {"n":3,"s":28}"#,
            r#"c 90-91 2 0 OnTime! {"n":1,"s":100}"#,
            r#"d 90-91 2 0 OnTime! {"n":1,"s":100}"#,
            r#"e 90-91 2 0 OnTime! {"n":1,"s":100}"#,
        ]
    );
    assert_eq!((run.task.keys(), run.task.rows()), (0, 0));
}

#[test]
fn sessions_reach_as_far_as_the_gaps_of_their_events() {
    let windows = "[{name: s, session: {gapField: /g, maxDuration: 100ms}}]";
    let mut run = Run::new(&plan(windows, COUNT_SUM));
    run.feed(&[
        r#"{"ts":0,"k":1,"g":30,"v":1}"#,
        r#"{"ts":20,"k":1,"g":1,"v":2}"#,
        r#"{"ts":31,"k":1,"g":5.9,"v":4}"#,
        // Reaches from the first session to the second.
        r#"{"ts":28,"k":1,"g":3,"v":8}"#,
        r#"{"ts":95,"k":1,"g":100,"v":16}"#,
        r#"{"ts":96,"k":1,"g":101}"#,
        r#"{"ts":96,"k":1,"g":0.9}"#,
        r#"{"ts":96,"k":1,"g":"5"}"#,
        r#"{"ts":96,"k":1}"#,
        // The watermark is 90: late by its own gap.
        r#"{"ts":60,"k":1,"g":30}"#,
        r#"{"ts":60,"k":1,"g":31,"v":32}"#,
    ]);
    assert_eq!(run.task.stats().rejected(RejectReason::SessionGapInvalid), 4);
    assert_eq!(
        run.end(),
        [
            r#"s 0-36 1 0 OnTime {"n":4,"s":15}"#,
            "dead SessionGapInvalid /g: found 101",
            "dead SessionGapInvalid /g: found 0.9",
            "dead SessionGapInvalid /g: found \"5\"",
            "dead SessionGapInvalid /g: found nothing",
            "late s W=90 by 30",
            r#"s 60-91 1 0 OnTime! {"n":1,"s":32}"#,
            r#"s 95-100 1 0 OnTime! {"n":1,"s":16}"#,
        ]
    );
}

const EXPLODE: &str = "  explode: {field: /list}\n  where: \"event.list.v >= 0\"\n";

#[test]
fn elements_are_events_and_a_bad_one_spoils_its_record() {
    let aggregates = "[{name: n, count: {}}, {name: f, first: {field: /list/v}}, {name: l, last: {field: /list/v}}]";
    let plan = plan_with(EXPLODE, "[{name: k, field: /list/k}]", aggregates);
    let mut run = Run::new(&plan);
    run.feed(&[
        r#"{"ts":1,"list":[{"k":1,"v":5},{"k":2,"v":1},{"k":1,"v":-7},{"k":1,"v":6}]}"#,
        r#"{"ts":1,"list":[{"k":1,"v":4}]}"#,
        r#"{"ts":900,"list":[]}"#,
        r#"{"ts":900}"#,
        r#"{"ts":900,"list":{"k":1}}"#,
        r#"{"ts":900,"list":[{"k":1,"v":1},{"v":1}]}"#,
        r#"{"list":[{"k":1,"v":1}]}"#,
        r#"{"ts":900,"list":[{"k":1,"v":1},3]}"#,
    ]);
    let stats = run.task.stats();
    assert_eq!((stats.records, stats.filtered, stats.empty, stats.dead()), (8, 1, 2, 4));
    assert_eq!(
        run.end(),
        [
            "dead FieldTypeInvalid /list: expected an array",
            "dead KeyMissing element 1: /list/k: found nothing",
            "dead TimestampMissing element 0: /ts: found nothing",
            "dead ExpressionFailed element 1: where: /list/v is missing; guard it with has()",
            r#"w 0-10 1 0 OnTime! {"f":5,"l":4,"n":3}"#,
            r#"w 0-10 2 0 OnTime! {"f":1,"l":1,"n":1}"#,
        ]
    );
}

#[test]
fn the_elements_of_a_record_are_judged_by_the_watermark_before_it() {
    let more = "  explode: {field: /list}\n";
    let plan = timed_plan_with("/list/ts", more, "[{name: k, field: /k}]", COUNT_SUM);
    let mut run = Run::new(&plan);
    run.feed(&[
        // The first moves the watermark, and not before the second is counted.
        r#"{"k":1,"list":[{"ts":29},{"ts":3}]}"#,
        r#"{"k":1,"list":[{"ts":4},{"ts":30},{"ts":15}]}"#,
    ]);
    assert_eq!((run.task.stats().late, run.task.stats().losses[0]), (2, 2));
    assert_eq!(
        run.end(),
        [
            r#"w 0-10 1 0 OnTime! {"n":1,"s":null}"#,
            "late w W=24 by 20",
            r#"w 20-30 1 0 OnTime! {"n":1,"s":null}"#,
            r#"w 30-40 1 0 OnTime! {"n":1,"s":null}"#,
        ]
    );
}

#[test]
fn parts_of_the_key_come_from_around_the_record() {
    let keys = "[{name: k, header: h, whenMissing: {default: none}}, {name: t, metadata: Topic}, {name: p, metadata: Partition}, {name: r, metadata: Key, whenMissing: {'null': {}}}, {name: at, metadata: Timestamp}]";
    let plan = plan_with("", keys, "[{name: n, count: {}}]");
    assert!(plan.needs_envelopes());
    let envelope = Envelope {
        topic: Some("in"),
        partition: 7,
        key: None,
        headers: vec![
            ("h", Some(&b"old"[..])),
            ("h", Some(&b"a\"b"[..])),
            ("g", Some(&b"\xff"[..])),
        ],
    };
    let broken = Envelope {
        headers: vec![("h", Some(&b"\xff"[..]))],
        ..envelope.clone()
    };
    let record = |offset, envelope, timestamp_ms| Record {
        envelope,
        timestamp_ms,
        ..Record::new(offset, br#"{"ts":1}"#)
    };
    let mut task = Task::new(plan, 0);
    let mut outputs = Outputs::default();
    let records = [
        record(0, Some(&envelope), Some(42)),
        record(1, Some(&broken), Some(42)),
        record(2, Some(&envelope), None),
        record(3, None, Some(42)),
    ];
    assert_eq!(task.step(&records, &mut outputs), StepStatus::Continue);
    task.end_of_input(&mut outputs);
    let mut dead = Vec::new();
    for output in &outputs.list {
        match output {
            Output::Dead(record) => dead.push(record.detail.clone()),
            Output::Result(result) => {
                let value = String::from_utf8_lossy(outputs.slice(&result.value));
                assert!(
                    value.contains(r#""key":{"k":"a\"b","t":"in","p":7,"r":null,"at":42}"#),
                    "{value}"
                );
            }
            Output::Late(_) => panic!("nothing is late"),
        }
    }
    let expected = [
        "header h: found no UTF-8 text",
        "record Timestamp: found nothing",
        "record Topic: found nothing",
    ];
    assert_eq!(dead, expected);
}
