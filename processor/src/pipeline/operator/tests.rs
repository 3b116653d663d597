//! The task against answers computed by hand; the batch oracle in `tests/` covers the breadth.

mod derived;
mod more;
mod query;

use std::sync::Arc;

use streamagg_crds::manifest::parse_manifest;
use streamagg_crds::validate::resolve;

use super::*;
use crate::state::backend::{Backend, Changes, Error};
use crate::state::memory::MemoryBackend;

fn plan(windows: &str, aggregates: &str) -> Arc<Plan> {
    let manifest = format!(
        "apiVersion: streamagg.io/v1alpha1\nkind: StreamAggregation\nmetadata: {{name: t}}\nspec:\n  source: {{kafka: {{bootstrapServers: [b:9092], topics: [in], startFrom: {{earliest: {{}}}}}}, format: {{json: {{}}}}, partitioning: {{byKey: {{}}}}}}\n  event: {{timestamp: {{field: /ts, unit: Milliseconds}}, watermark: {{boundedOutOfOrderness: {{bound: 5ms}}}}}}\n  groupBy: [{{name: k, field: /k}}]\n  windows: {windows}\n  aggregates: {aggregates}\n  sink: {{kafka: {{topic: out}}}}\n  state: {{backend: Memory}}\n"
    );
    let manifest = parse_manifest(&manifest).unwrap();
    Arc::new(Plan::compile(&resolve(&manifest.spec, "default", "t").unwrap()))
}

const COUNT_SUM: &str = "[{name: n, count: {}}, {name: s, sum: {field: /v}}]";

struct Run {
    task: Task,
    offset: i64,
    lines: Vec<String>,
}

impl Run {
    fn new(plan: &Arc<Plan>) -> Self {
        Self {
            task: Task::new(Arc::clone(plan), 0),
            offset: 0,
            lines: Vec::new(),
        }
    }

    fn feed(&mut self, events: &[&str]) -> &mut Self {
        let records: Vec<Record<'_>> = events
            .iter()
            .enumerate()
            .map(|(index, event)| Record::new(self.offset + index as i64, event.as_bytes()))
            .collect();
        self.offset += events.len() as i64;
        let mut outputs = Outputs::default();
        assert_eq!(self.task.step(&records, &mut outputs), StepStatus::Continue);
        self.take(&outputs);
        self
    }

    fn end(&mut self) -> Vec<String> {
        let mut outputs = Outputs::default();
        self.task.end_of_input(&mut outputs);
        self.take(&outputs);
        std::mem::take(&mut self.lines)
    }

    fn take(&mut self, outputs: &Outputs) {
        for output in &outputs.list {
            self.lines.push(match output {
                Output::Result(result) => short(outputs.slice(&result.value)),
                Output::Late(late) => format!("late {} W={} by {}", late.windows, late.watermark_ms, late.lateness_ms),
                Output::Dead(dead) => format!("dead {} {}", dead.reason.as_str(), dead.detail),
            });
        }
    }
}

/// `window start-end key index timing[!] {values}`, with `!` for a final pane.
fn short(value: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(value).unwrap();
    let pane = &value["pane"];
    format!(
        "{} {}-{} {} {} {}{} {}",
        value["window"].as_str().unwrap(),
        value["start"],
        value["end"],
        value["key"]["k"],
        pane["index"],
        pane["timing"].as_str().unwrap(),
        if pane["final"] == true { "!" } else { "" },
        value["values"],
    )
}

#[test]
fn a_tumbling_window_fires_when_the_watermark_reaches_its_end() {
    let plan = plan("[{name: w, tumbling: {size: 10ms}}]", COUNT_SUM);
    let mut run = Run::new(&plan);
    run.feed(&[
        r#"{"ts":1,"k":"b","v":1.5}"#,
        r#"{"ts":14,"k":"a","v":1}"#,
        r#"{"ts":9,"k":"a","v":0.25}"#,
        r#"{"ts":9,"k":"b","v":null}"#,
    ]);
    assert!(run.lines.is_empty(), "watermark 9 is below 10: {:?}", run.lines);
    run.feed(&[r#"{"ts":15,"k":"a"}"#, r#"{"ts":3,"k":"a","v":7}"#]);
    assert_eq!(
        std::mem::take(&mut run.lines),
        [
            r#"w 0-10 "a" 0 OnTime! {"n":1,"s":0.25}"#,
            r#"w 0-10 "b" 0 OnTime! {"n":2,"s":1.5}"#,
            "late w W=10 by 7"
        ]
    );
    assert_eq!(run.end(), [r#"w 10-20 "a" 0 OnTime! {"n":2,"s":1}"#]);
    assert_eq!(
        (run.task.keys(), run.task.rows()),
        (0, 0),
        "nothing is kept behind the end"
    );
}

#[test]
fn late_events_fire_again_while_lateness_lasts() {
    let plan = plan("[{name: w, tumbling: {size: 10ms}, allowedLateness: 5ms}]", COUNT_SUM);
    let mut run = Run::new(&plan);
    run.feed(&[
        r#"{"ts":1,"k":1,"v":1}"#,
        r#"{"ts":15,"k":1,"v":1}"#,
        r#"{"ts":2,"k":1.0,"v":1}"#,
        r#"{"ts":3,"k":2,"v":1}"#,
        r#"{"ts":4,"k":2,"v":1}"#,
        r#"{"ts":20,"k":1}"#,
        r#"{"ts":5,"k":1,"v":1}"#,
    ]);
    assert_eq!(
        run.end(),
        [
            "w 0-10 1 0 OnTime {\"n\":1,\"s\":1}",
            "w 0-10 1 1 Late {\"n\":2,\"s\":2}",
            "w 0-10 2 0 Late {\"n\":1,\"s\":1}",
            "w 0-10 2 1 Late {\"n\":2,\"s\":2}",
            "late w W=15 by 10",
            "w 10-20 1 0 OnTime! {\"n\":1,\"s\":1}",
            "w 20-30 1 0 OnTime! {\"n\":1,\"s\":null}",
        ]
    );
}

#[test]
fn sliding_windows_share_panes_and_gaps_count_as_outside() {
    let plan = plan(
        "[{name: hop, sliding: {size: 20ms, slide: 10ms}}, {name: gap, sliding: {size: 5ms, slide: 100ms}}]",
        COUNT_SUM,
    );
    let mut run = Run::new(&plan);
    run.feed(&[
        r#"{"ts":-1,"k":1,"v":1}"#,
        r#"{"ts":2,"k":1,"v":2}"#,
        r#"{"ts":12,"k":1,"v":4}"#,
    ]);
    assert_eq!(
        run.end(),
        [
            "hop -20-0 1 0 OnTime! {\"n\":1,\"s\":1}",
            "gap 0-5 1 0 OnTime! {\"n\":1,\"s\":2}",
            "hop -10-10 1 0 OnTime! {\"n\":2,\"s\":3}",
            "hop 0-20 1 0 OnTime! {\"n\":2,\"s\":6}",
            "hop 10-30 1 0 OnTime! {\"n\":1,\"s\":4}",
        ]
    );
    let plan = self::plan("[{name: gap, sliding: {size: 5ms, slide: 100ms}}]", COUNT_SUM);
    let mut run = Run::new(&plan);
    run.feed(&[
        r#"{"ts":50,"k":1,"v":1}"#,
        r#"{"ts":7,"k":1,"v":1}"#,
        r#"{"ts":102,"k":1,"v":1}"#,
    ]);
    assert_eq!((run.task.stats().outside, run.task.stats().late), (2, 0));
    assert_eq!(run.end(), ["gap 100-105 1 0 OnTime! {\"n\":1,\"s\":1}"]);
}

#[test]
fn a_rejected_event_touches_nothing_and_names_the_field() {
    let plan = plan("[{name: w, tumbling: {size: 10ms}}]", COUNT_SUM);
    let mut run = Run::new(&plan);
    run.feed(&[
        "{",
        r#"{"k":1}"#,
        r#"{"ts":"1","k":1}"#,
        r#"{"ts":1}"#,
        r#"{"ts":1,"k":[1]}"#,
        r#"{"ts":99,"k":1,"v":"12"}"#,
        r#"{"ts":1,"k":1,"v":1e19}"#,
        r#"{"ts":1e30,"k":1}"#,
        "",
    ]);
    assert_eq!(
        std::mem::take(&mut run.lines),
        [
            "dead JsonInvalid not a JSON object: byte 1: a member name",
            "dead TimestampMissing /ts: found nothing",
            "dead TimestampInvalid /ts: found \"1\"",
            "dead KeyMissing /k: found nothing",
            "dead KeyInvalid /k: found an object or array",
            "dead FieldTypeInvalid /v: found \"12\"",
            "dead NumberOutOfRange /v: found 1e19",
            "dead TimestampOutOfRange /ts: found 1e30",
            "dead JsonInvalid not a JSON object: byte 0: an object",
        ]
    );
    assert_eq!(run.task.position().watermark_ms, super::super::position::NO_WATERMARK);
    assert_eq!(run.task.stats().dead(), 9);
}

fn save(task: &mut Task, backend: &mut MemoryBackend) {
    let mut changes = Changes::default();
    task.take_changes(&mut changes);
    backend.apply(&changes).unwrap();
}

#[test]
fn a_restored_task_goes_on_as_if_nothing_had_happened() {
    let plan = plan(
        "[{name: w, tumbling: {size: 10ms}, allowedLateness: 20ms}, {name: h, sliding: {size: 20ms, slide: 5ms}}]",
        COUNT_SUM,
    );
    let events: Vec<String> = (0..60)
        .map(|n| format!(r#"{{"ts":{},"k":{},"v":0.1}}"#, n * 2 - (n % 7) * 4, n % 3))
        .collect();
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    let mut straight = Run::new(&plan);
    straight.feed(&events);
    let expected = (straight.task.position(), straight.end());
    let mut run = Run::new(&plan);
    let mut backend = MemoryBackend::default();
    for batch in events.chunks(7) {
        run.feed(batch);
        save(&mut run.task, &mut backend);
        run.task = Task::restore(Arc::clone(&plan), &backend).unwrap().unwrap();
    }
    assert_eq!((run.task.position(), run.end()), expected);
    save(&mut run.task, &mut backend);
    let mut left = Vec::new();
    backend
        .scan(&[], &mut |key, _| {
            left.push(key.to_vec());
            Ok(())
        })
        .unwrap();
    assert_eq!(
        left,
        [b"\x01C".to_vec(), b"\x01L".to_vec(), b"\x01P".to_vec()],
        "state is empty behind the end of the input"
    );
}

#[test]
fn an_added_aggregate_begins_with_the_change_and_others_go_on() {
    let windows = "[{name: w, tumbling: {size: 10ms}}]";
    let mut run = Run::new(&plan(windows, COUNT_SUM));
    run.feed(&[r#"{"ts":1,"k":1,"v":4}"#]);
    let mut backend = MemoryBackend::default();
    save(&mut run.task, &mut backend);
    let changed = plan(
        windows,
        "[{name: top, max: {field: /v}}, {name: s, sum: {field: /v}}, {name: avg, average: {field: /v}}]",
    );
    run.task = Task::restore(Arc::clone(&changed), &backend).unwrap().unwrap();
    save(&mut run.task, &mut backend);
    run.task = Task::restore(changed, &backend).unwrap().unwrap();
    run.feed(&[r#"{"ts":2,"k":1,"v":2}"#]);
    assert_eq!(run.end(), [r#"w 0-10 1 0 OnTime! {"avg":3,"s":6,"top":2}"#]);
    let other = plan("[{name: w, tumbling: {size: 20ms}}]", COUNT_SUM);
    let error = Task::restore(other, &backend).unwrap_err();
    assert!(
        matches!(&error, Error::Incompatible { what } if what.contains("\"w\"")),
        "{error}"
    );
}

#[test]
fn decisions_move_the_watermark() {
    let plan = plan("[{name: w, tumbling: {size: 10ms}}]", COUNT_SUM);
    let mut run = Run::new(&plan);
    run.feed(&[r#"{"ts":1,"k":1,"v":4}"#]);
    let mut outputs = Outputs::default();
    run.task.decide(
        &Decision {
            input_offset: 1,
            kind: DecisionKind::IdleAdvance { watermark_ms: 10 },
        },
        &mut outputs,
    );
    run.take(&outputs);
    assert_eq!(run.lines, [r#"w 0-10 1 0 OnTime! {"n":1,"s":4}"#]);
}
