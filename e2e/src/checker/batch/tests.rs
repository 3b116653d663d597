//! The batch answer against the checker's own, which follows every record, and against results written by hand.

use streamagg_crds::manifest::parse_manifest;
use streamagg_crds::validate::resolve;

use super::*;
use crate::checker::{SourceRecord, expect};
use crate::traffic::{Shape, Traffic};

fn job(window: &str, aggregates: &str) -> Resolved {
    let text = format!(
        r#"
apiVersion: streamagg.io/v1alpha1
kind: StreamAggregation
metadata: {{name: batch}}
spec:
  source:
    kafka: {{bootstrapServers: ["127.0.0.1:9092"], topics: [in]}}
    partitioning: {{byKey: {{}}}}
  event:
    timestamp: {{field: /ts}}
    watermark: {{boundedOutOfOrderness: {{bound: 5s}}}}
  groupBy: [{{name: tenant, field: /tenant}}, {{name: model, field: /model}}]
  windows: [{{name: w, {window}}}]
  aggregates: {aggregates}
  sink: {{kafka: {{topic: out}}}}
"#
    );
    resolve(&parse_manifest(&text).unwrap().spec, "tests", "batch").unwrap()
}

const ALL: &str = "[{name: n, count: {}}, {name: s, sum: {field: /cost_usd}}, {name: a, average: {field: /latency_ms}}, \
    {name: l, min: {field: /latency_ms}}, {name: g, max: {field: /usage/prompt}}]";

fn event(time: &str, value: u64) -> String {
    format!(
        r#"{{"ts":"2026-01-01T00:00:{time}Z","tenant":"t","model":"m{}","v":{value}}}"#,
        value % 3
    )
}

fn result(start: i64, end: i64, values: &str) -> String {
    let day = 1_767_225_600_000;
    format!(
        r#"{{"op":"Upsert","window":"w","start":{},"end":{},"key":{{"tenant":"t"}},"pane":{{"index":0,"timing":"OnTime","final":true,"revision":0}},"values":{{{values}}}}}"#,
        start + day,
        end + day
    )
}

#[test]
fn what_follows_every_record_answers_the_same() {
    for window in [
        "tumbling: {size: 1s}",
        "sliding: {size: 4s, slide: 1s}",
        "session: {gap: 250ms}",
    ] {
        let job = job(window, ALL);
        let shape = Shape {
            partitions: 2,
            step_ms: 20,
            disorder_ms: 2_000,
            late_one_in: u64::MAX,
            late_by_ms: 1,
            bad_one_in: 50,
            tenants: 3,
            scattered: false,
        };
        let mut traffic = Traffic::new(5, shape, 1_767_225_600_000);
        let mut messages: Vec<_> = (0..3_000).map(|_| traffic.next_message()).collect();
        messages.extend(traffic.close(60_000));
        let mut batch = Batch::new(&job, |_| true);
        let mut source = Vec::new();
        for (offset, message) in (0..).zip(messages) {
            batch.take(message.partition, &message.value).unwrap();
            source.push(SourceRecord {
                partition: message.partition,
                offset,
                value: message.value,
            });
        }
        let expected = expect(&job, &source);
        assert_eq!(batch.dead as usize, expected.dead.len());
        assert!(batch.late == 0 && expected.late.is_empty());
        let rows = batch.rows().unwrap();
        let text: HashMap<_, _> = rows.keys.iter().map(|(name, key)| (*key, name.clone())).collect();
        let mut answered = 0;
        for ((start, end, key), values) in &rows.rows {
            // The closing events' own windows stay open, and nobody expects them.
            if let Some(panes) = expected.panes.get(&("w".to_owned(), *start, *end, text[key].clone())) {
                let names = ["n", "s", "a", "l", "g"].iter().zip(&panes[0].values);
                let members: Vec<String> = names.map(|(name, value)| format!("\"{name}\":{value}")).collect();
                assert_eq!(*values, members.join(","));
                answered += 1;
            }
        }
        assert_eq!(answered, expected.panes.len(), "{window}");
        assert!(answered > 100, "{window}");
    }
}

#[test]
fn sessions_join_what_lies_within_the_gap() {
    let mut job = job(
        "session: {gap: 3s}",
        "[{name: n, count: {}}, {name: d, distinct: {field: /model}}]",
    );
    job.group_by.truncate(1);
    let mut batch = Batch::new(&job, |_| true);
    for (time, value) in [
        ("01.000", 0),
        ("06.000", 1),
        ("03.500", 2),
        ("20.000", 3),
        ("02.000", 4),
    ] {
        batch.take(0, event(time, value).as_bytes()).unwrap();
    }
    assert_eq!((batch.counted, batch.late), (4, 1), "the last one missed its session");
    let mut rows = batch.rows().unwrap();
    rows.take(&result(1_000, 9_000, r#""n":3,"d":3"#)).unwrap();
    rows.take(&result(20_000, 23_000, r#""n":1,"d":1"#)).unwrap();
    assert_eq!(rows.missing(), 0);
}

#[test]
fn a_result_is_right_once_and_by_every_byte() {
    let mut job = job(
        "tumbling: {size: 10s}",
        "[{name: p, percentile: {field: /v, quantiles: [0.5, 0.95]}}, {name: n, count: {}}, \
         {name: q, percentile: {field: /v, quantiles: [0.999]}}]",
    );
    job.group_by.truncate(1);
    let mut batch = Batch::new(&job, |document| document["v"] != 9);
    for value in [4, 1, 3, 2, 9] {
        batch.take(0, event("01.000", value).as_bytes()).unwrap();
    }
    let right = result(0, 10_000, r#""p":{"p50":2,"p95":4},"n":4,"q":{"p99.9":4}"#);
    let mut rows = batch.rows().unwrap();
    assert_eq!((rows.expected, rows.summed), (1, 4));
    assert!(
        rows.take(&result(0, 20_000, r#""n":4"#))
            .unwrap_err()
            .starts_with("again, or")
    );
    assert!(
        rows.take(&right.replace("OnTime", "Late"))
            .unwrap_err()
            .starts_with("not a first")
    );
    rows.take(&right).unwrap();
    assert!(rows.take(&right).unwrap_err().starts_with("again, or"));
    assert_eq!(rows.missing(), 0);
}

#[test]
fn wrong_values_are_told() {
    let mut job = job("tumbling: {size: 10s}", "[{name: n, count: {}}]");
    job.group_by.truncate(1);
    let mut batch = Batch::new(&job, |_| true);
    batch.take(0, event("01.000", 1).as_bytes()).unwrap();
    let mut rows = batch.rows().unwrap();
    assert!(
        rows.take(&result(0, 10_000, r#""n":2"#))
            .unwrap_err()
            .starts_with("should have")
    );
}

#[test]
fn what_it_cannot_answer_it_refuses() {
    let mut job = job("sliding: {size: 10s, slide: 1s}", "[{name: n, count: {}}]");
    job.group_by.truncate(1);
    let mut batch = Batch::new(&job, |_| true);
    batch.take(0, event("20.000", 1).as_bytes()).unwrap();
    let behind = batch.take(0, event("12.000", 1).as_bytes()).unwrap_err();
    assert_eq!(behind, "an event 3000 ms behind its watermark");
    batch.take(0, event("01.000", 1).as_bytes()).unwrap();
    assert_eq!(batch.late, 1);
}

#[test]
fn an_event_whose_number_is_none_is_dead() {
    let job = job("tumbling: {size: 1s}", "[{name: s, sum: {field: /v}}]");
    let mut batch = Batch::new(&job, |_| true);
    let wrong = event("02", 2).replace("\"v\":2", "\"v\":\"slow\"");
    for event in [event("01", 1), wrong] {
        batch.take(0, event.as_bytes()).unwrap();
    }
    assert_eq!((batch.counted, batch.dead), (1, 1));
}
