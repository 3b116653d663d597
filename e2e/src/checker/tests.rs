//! The checker against results written by hand, right and spoilt.

use std::collections::BTreeMap;

use streamagg_crds::manifest::parse_manifest;
use streamagg_crds::resolved::Resolved;
use streamagg_crds::validate::resolve;

use super::number::{average, decimal, parse};
use super::*;

fn job() -> Resolved {
    job_of(
        "tumbling: {size: 10ms}, allowedLateness: 5ms",
        "[{name: n, count: {}}, {name: s, sum: {field: /v}}, {name: a, average: {field: /v}}]",
    )
}

fn job_of(window: &str, aggregates: &str) -> Resolved {
    job_by("byKey: {}", window, aggregates)
}

fn job_by(partitioning: &str, window: &str, aggregates: &str) -> Resolved {
    let manifest = parse_manifest(&format!(
        r#"
apiVersion: streamagg.io/v1alpha1
kind: StreamAggregation
metadata: {{name: check}}
spec:
  source:
    kafka: {{bootstrapServers: ["127.0.0.1:9092"], topics: [in]}}
    partitioning: {{{partitioning}}}
  event:
    timestamp: {{field: /ts, unit: Milliseconds}}
    watermark: {{boundedOutOfOrderness: {{bound: 0s}}}}
  groupBy: [{{name: k, field: /k}}]
  windows: [{{name: w, {window}}}]
  aggregates: {aggregates}
  sink: {{kafka: {{topic: out}}}}
"#
    ));
    let manifest = manifest.unwrap();
    resolve(&manifest.spec, "tests", "check").unwrap()
}

fn source() -> Vec<SourceRecord> {
    source_of(&[
        r#"{"ts":1,"k":"a","v":0.1}"#,
        r#"{"ts":2,"k":"a","v":0.2}"#,
        r#"{"ts":10,"k":"a","v":1}"#,
        r#"{"ts":9,"k":"a"}"#,
        r#"{"ts":15,"k":"a"}"#,
        r#"{"ts":9,"k":"a"}"#,
        r#"{"k":"a"}"#,
    ])
}

fn source_of(values: &[&str]) -> Vec<SourceRecord> {
    (0..)
        .zip(values)
        .map(|(offset, value)| SourceRecord {
            partition: 3,
            offset,
            value: value.as_bytes().to_vec(),
        })
        .collect()
}

fn result(index: u64, timing: &str, values: &str) -> OutputRecord {
    record(("Upsert", 0, 10, "a"), (index, timing, false), values)
}

/// A result by operation, start, end and key, then index, timing and finality of its pane.
fn record(window: (&str, i64, i64, &str), pane: (u64, &str, bool), values: &str) -> OutputRecord {
    let ((op, start, end, key), (index, timing, last)) = (window, pane);
    let value = format!(
        r#"{{"op":"{op}","window":"w","start":{start},"end":{end},"key":{{"k":"{key}"}},"pane":{{"index":{index},"timing":"{timing}","final":{last},"revision":0}},"values":{{{values}}}}}"#
    );
    OutputRecord {
        key: format!(r#"{{"window":"w","start":{start},"key":{{"k":"{key}"}}}}"#),
        value,
        headers: BTreeMap::new(),
    }
}

fn side(offset: i64, headers: &[(&str, &str)]) -> OutputRecord {
    let mut all: BTreeMap<String, String> = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    all.insert("streamagg-partition".to_owned(), "3".to_owned());
    all.insert("streamagg-offset".to_owned(), offset.to_string());
    OutputRecord {
        headers: all,
        ..OutputRecord::default()
    }
}

type Outputs = [Vec<OutputRecord>; 3];

fn right() -> Outputs {
    [
        vec![
            result(0, "OnTime", r#""n":2,"s":0.3,"a":0.15"#),
            result(1, "Late", r#""n":3,"s":0.3,"a":0.15"#),
        ],
        vec![side(5, &[("streamagg-window", "w"), ("streamagg-lateness-ms", "6")])],
        vec![side(6, &[("streamagg-reason", "TimestampMissing")])],
    ]
}

fn report(outputs: &Outputs) -> Report {
    let job = job();
    compare(
        &job,
        &expect(&job, &source()),
        &outputs[0],
        &outputs[1],
        &outputs[2],
        &[],
    )
}

#[test]
fn right_outputs_are_clean() {
    let report = report(&right());
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.right, [2, 1, 1]);
}

#[test]
fn each_kind_of_damage_is_found() {
    for list in 0..3 {
        let mut lost = right();
        lost[list].remove(0);
        let found = report(&lost);
        assert_eq!((found.lost.len(), found.is_broken()), (1, false), "{found}");

        let mut repeated = right();
        let copy = repeated[list][0].clone();
        repeated[list].push(copy);
        let found = report(&repeated);
        assert_eq!(
            (found.lost.len(), found.repeated.len(), found.wrong.len()),
            (0, 1, 0),
            "{found}"
        );
    }
    let spoil: [(usize, OutputRecord); 5] = [
        (0, result(0, "OnTime", r#""n":2,"s":0.30000000000000004,"a":0.15"#)),
        (0, result(0, "Late", r#""n":2,"s":0.3,"a":0.15"#)),
        (0, result(0, "OnTime", r#""n":2,"s":0.3"#)),
        (1, side(5, &[("streamagg-window", "w"), ("streamagg-lateness-ms", "7")])),
        (2, side(6, &[("streamagg-reason", "KeyMissing")])),
    ];
    for (list, wrong) in spoil {
        let mut outputs = right();
        outputs[list][0] = wrong;
        let found = report(&outputs);
        assert_eq!(
            (found.lost.len(), found.repeated.len(), found.wrong.len()),
            (0, 0, 1),
            "{found}"
        );
    }
    let mut extra = right();
    extra[0].push(result(2, "Late", r#""n":4,"s":0.3,"a":0.15"#));
    assert_eq!(report(&extra).wrong.len(), 1);
}

#[test]
fn an_added_aggregate_is_compared_from_its_first_whole_window_on() {
    let job = job();
    let mut outputs = right();
    outputs[0][0] = result(0, "OnTime", r#""n":2,"s":0.3"#);
    outputs[0][1] = result(1, "Late", r#""n":3,"s":0.3,"a":0.2"#);
    let rule = |from_ms| {
        [Added {
            aggregate: "a".to_owned(),
            from_ms,
        }]
    };
    let check = |from_ms| {
        compare(
            &job,
            &expect(&job, &source()),
            &outputs[0],
            &outputs[1],
            &outputs[2],
            &rule(from_ms),
        )
    };
    assert!(check(1).is_clean(), "{}", check(1));
    assert_eq!(check(0).wrong.len(), 2);
}

/// Sessions of a: two events too late for what was published but not for their session, one within it, one too late.
/// Nothing of b is late.
const SESSIONS: [&str; 7] = [
    r#"{"ts":0,"k":"a","v":1}"#,
    r#"{"ts":24,"k":"b"}"#,
    r#"{"ts":10,"k":"a","v":2}"#,
    r#"{"ts":5,"k":"a","v":9}"#,
    r#"{"ts":12,"k":"a","v":3}"#,
    r#"{"ts":10,"k":"a","v":3.0}"#,
    r#"{"ts":60,"k":"c"}"#,
];

/// What must come of them, and the comparison.
fn sessions() -> (Vec<OutputRecord>, impl Fn(&[OutputRecord]) -> Report) {
    let values = |events: u64, median: &str, distinct: u64, most: &str| {
        format!(r#""n":{events},"p":{{"p50":{median}}},"d":{distinct},"t":{most}"#)
    };
    let most = |value: u64, count: u64| format!(r#"{{"values":[{{"value":{value},"count":{count}}}],"exact":true}}"#);
    let (first, second) = (values(1, "1", 1, &most(1, 1)), values(2, "1", 2, &most(1, 1)));
    let results = vec![
        record(("Upsert", 0, 10, "a"), (0, "OnTime", false), &first),
        record(("Retract", 0, 10, "a"), (0, "OnTime", false), &first),
        record(("Upsert", 0, 20, "a"), (0, "Late", false), &second),
        record(("Retract", 0, 20, "a"), (0, "Late", false), &second),
        record(
            ("Upsert", 0, 22, "a"),
            (0, "Late", false),
            &values(3, "2", 3, &most(1, 1)),
        ),
        record(
            ("Upsert", 0, 22, "a"),
            (1, "Late", false),
            &values(4, "2", 3, &most(3, 2)),
        ),
        record(
            ("Upsert", 24, 34, "b"),
            (0, "OnTime", false),
            &values(1, "null", 0, "null"),
        ),
    ];
    let job = job_of(
        "session: {gap: 10ms}, allowedLateness: 5ms",
        "[{name: n, count: {}}, {name: p, percentile: {field: /v, quantiles: [0.5]}}, \
         {name: d, distinct: {field: /v}}, {name: t, topK: {field: /v, k: 1}}]",
    );
    let late = [side(3, &[("streamagg-window", "w"), ("streamagg-lateness-ms", "19")])];
    let expected = expect(&job, &source_of(&SESSIONS));
    let report = move |results: &[OutputRecord]| compare(&job, &expected, results, &late, &[], &[]);
    (results, report)
}

#[test]
fn sessions_that_join_take_back_what_they_published() {
    let (right, report) = sessions();
    let found = report(&right);
    assert!(found.is_clean(), "{found}");
    assert_eq!(found.right, [7, 1, 0]);
}

#[test]
fn each_kind_of_damage_to_sessions_is_found() {
    let (right, report) = sessions();
    let assert_found = |results: &[OutputRecord], counts: (usize, usize, usize)| {
        let found = report(results);
        assert_eq!(
            (found.lost.len(), found.repeated.len(), found.wrong.len()),
            counts,
            "{found}"
        );
    };
    for (place, record) in right.iter().enumerate() {
        let with = |record: OutputRecord| {
            let mut results = right.clone();
            results[place] = record;
            results
        };
        let changed = |from: &str, to: &str| OutputRecord {
            value: record.value.replace(from, to),
            ..record.clone()
        };
        assert_found(&[&right[..place], &right[place + 1..]].concat(), (1, 0, 0));
        assert_found(&[&right[..], &right[place..=place]].concat(), (0, 1, 0));
        assert_found(&with(changed(r#""n":"#, r#""n":1"#)), (0, 0, 1));
        assert_found(&with(changed(r#""d":"#, r#""d":1"#)), (0, 0, 1));
        assert_found(&with(changed(r#""final":false"#, r#""final":true"#)), (0, 0, 1));
        // Another session is there, and this one is not.
        assert_found(&with(changed(r#","key""#, r#"0,"key""#)), (1, 0, 1));
    }
    let mut more = right.clone();
    more.push(OutputRecord {
        value: right[6].value.replace("Upsert", "Retract"),
        ..right[6].clone()
    });
    assert_found(&more, (0, 0, 1));
    let taken = right.iter().position(|record| record.value.contains("Retract"));
    let mut early = right.clone();
    let retraction = early.remove(taken.expect("one is taken back"));
    early.insert(0, retraction);
    assert_found(&early, (0, 0, 1));
}

/// Sessions of two partitions: those of a meet, one of b is not over at the last full second.
#[test]
fn sessions_of_several_partitions_are_one_and_each_kind_of_damage_to_them_is_found() {
    let job = job_by("any: {}", "session: {gap: 10ms}", "[{name: n, count: {}}]");
    let of = |partition: i32, lines: &[&str]| {
        let records = source_of(lines).into_iter();
        records.map(move |record| SourceRecord { partition, ..record })
    };
    let mut source: Vec<SourceRecord> = of(
        0,
        &[r#"{"ts":0,"k":"a"}"#, r#"{"ts":30,"k":"a"}"#, r#"{"ts":2500,"k":"z"}"#],
    )
    .collect();
    source.extend(of(
        1,
        &[
            r#"{"ts":10,"k":"a"}"#,
            r#"{"ts":2100,"k":"b"}"#,
            r#"{"ts":2500,"k":"z"}"#,
        ],
    ));
    let expected = expect(&job, &source);
    assert_eq!(expected.panes.len(), 2);
    let right = [
        record(("Upsert", 0, 10, "a"), (0, "OnTime", false), r#""n":1"#),
        record(("Retract", 0, 10, "a"), (0, "OnTime", false), r#""n":1"#),
        record(("Upsert", 0, 20, "a"), (0, "Late", false), r#""n":2"#),
        record(("Upsert", 30, 40, "a"), (0, "OnTime", false), r#""n":1"#),
        // It may have come out, or not.
        record(("Upsert", 2100, 2110, "b"), (0, "OnTime", false), r#""n":1"#),
    ];
    let counts = |results: &[OutputRecord]| {
        let found = compare(&job, &expected, results, &[], &[], &[]);
        (found.lost.len(), found.repeated.len(), found.wrong.len())
    };
    let without = |place: usize| [&right[..place], &right[place + 1..]].concat();
    assert_eq!(counts(&right), (0, 0, 0));
    // The session is there that was to be taken back; what is taken back is not there; two are lost; one is not over.
    let missing = [(0, 0, 1), (1, 0, 0), (1, 0, 0), (1, 0, 0), (0, 0, 0)];
    assert_eq!([0, 1, 2, 3, 4].map(|place| counts(&without(place))), missing);
    let again = [(0, 0, 1), (0, 0, 1), (0, 1, 0), (0, 1, 0), (0, 1, 0)];
    let twice = |place: usize| [&right[..], &right[place..=place]].concat();
    assert_eq!([0, 1, 2, 3, 4].map(|place| counts(&twice(place))), again);
    let changed = |place: usize| {
        let mut results = right.to_vec();
        results[place].value = results[place].value.replace(r#""n":"#, r#""n":1"#);
        counts(&results)
    };
    let of_values = [(0, 0, 1), (0, 0, 1), (1, 0, 0), (1, 0, 0), (0, 0, 0)];
    assert_eq!([0, 1, 2, 3, 4].map(changed), of_values);
}

#[test]
fn windows_that_grow_are_told_apart_by_their_end() {
    let job = job_of("cumulative: {step: 10ms, size: 20ms}", "[{name: n, count: {}}]");
    let expected = expect(&job, &source_of(&[r#"{"ts":1,"k":"a"}"#, r#"{"ts":25,"k":"b"}"#]));
    let mut results = [10, 20].map(|end| record(("Upsert", 0, end, "a"), (0, "OnTime", true), r#""n":1"#));
    let wrong = |results: &[OutputRecord]| compare(&job, &expected, results, &[], &[], &[]).wrong.len();
    assert_eq!(wrong(&results), 2, "record keys without the end");
    for result in &mut results {
        let end = if result.value.contains(r#""end":10"#) { 10 } else { 20 };
        result.key = format!(r#"{{"window":"w","start":0,"end":{end},"key":{{"k":"a"}}}}"#);
    }
    let report = compare(&job, &expected, &results, &[], &[], &[]);
    assert!(report.is_clean() && report.right == [2, 0, 0], "{report}");
}

#[test]
fn decimals_are_exact() {
    for (text, expected) in [
        ("0.001234", "0.001234"),
        ("1e-7", "0.0000001"),
        ("12.50", "12.5"),
        ("-0.0", "0"),
        ("1e3", "1000"),
    ] {
        assert_eq!(parse(text).map(decimal).as_deref(), Some(expected), "{text}");
    }
    assert_eq!(decimal(average(parse("1").unwrap(), 3)), "0.333333333333");
    assert_eq!(decimal(average(parse("-2").unwrap(), 3)), "-0.666666666667");
    assert_eq!(parse("1e19"), None);
}
