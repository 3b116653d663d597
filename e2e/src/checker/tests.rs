//! The checker against results written by hand, right and spoilt.

use std::collections::BTreeMap;

use streamagg_crds::manifest::parse_manifest;
use streamagg_crds::resolved::Resolved;
use streamagg_crds::validate::resolve;

use super::*;

fn job() -> Resolved {
    let manifest = parse_manifest(
        r#"
apiVersion: streamagg.io/v1alpha1
kind: StreamAggregation
metadata: {name: check}
spec:
  source:
    kafka: {bootstrapServers: ["127.0.0.1:9092"], topics: [in]}
    partitioning: {byKey: {}}
  event:
    timestamp: {field: /ts, unit: Milliseconds}
    watermark: {boundedOutOfOrderness: {bound: 0s}}
  groupBy: [{name: k, field: /k}]
  windows: [{name: w, tumbling: {size: 10ms}, allowedLateness: 5ms}]
  aggregates: [{name: n, count: {}}, {name: s, sum: {field: /v}}, {name: a, average: {field: /v}}]
  sink: {kafka: {topic: out}}
"#,
    );
    let manifest = manifest.unwrap();
    resolve(&manifest.spec, "tests", "check").unwrap()
}

fn source() -> Vec<SourceRecord> {
    let values = [
        r#"{"ts":1,"k":"a","v":0.1}"#,
        r#"{"ts":2,"k":"a","v":0.2}"#,
        r#"{"ts":10,"k":"a","v":1}"#,
        r#"{"ts":9,"k":"a"}"#,
        r#"{"ts":15,"k":"a"}"#,
        r#"{"ts":9,"k":"a"}"#,
        r#"{"k":"a"}"#,
    ];
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
    let value = format!(
        r#"{{"op":"Upsert","window":"w","start":0,"end":10,"key":{{"k":"a"}},"pane":{{"index":{index},"timing":"{timing}","final":false,"revision":0}},"values":{{{values}}}}}"#
    );
    OutputRecord {
        key: r#"{"window":"w","start":0,"key":{"k":"a"}}"#.to_owned(),
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
