//! `let`, `where` and filters of aggregates in a task.

use super::*;

/// A plan with lines of YAML added to the spec.
pub(super) fn plan_with(more: &str, group_by: &str, aggregates: &str) -> Arc<Plan> {
    timed_plan_with("/ts", more, group_by, aggregates)
}

/// The same with the time in this field.
pub(super) fn timed_plan_with(time: &str, more: &str, group_by: &str, aggregates: &str) -> Arc<Plan> {
    let manifest = format!(
        "apiVersion: streamagg.io/v1alpha1\nkind: StreamAggregation\nmetadata: {{name: t}}\nspec:\n  source: {{kafka: {{bootstrapServers: [b:9092], topics: [in]}}, partitioning: {{byKey: {{}}}}}}\n  event: {{timestamp: {{field: {time}, unit: Milliseconds}}, watermark: {{boundedOutOfOrderness: {{bound: 5ms}}}}}}\n  groupBy: {group_by}\n  windows: [{{name: w, tumbling: {{size: 10ms}}}}]\n  aggregates: {aggregates}\n  sink: {{kafka: {{topic: out}}}}\n  state: {{backend: Memory}}\n{more}"
    );
    let manifest = parse_manifest(&manifest).unwrap();
    Arc::new(Plan::compile(&resolve(&manifest.spec, "default", "t").unwrap()))
}

const DERIVED: &str = "  where: \"event.status < 500 && total >= 0\"\n  let:\n    - {name: total, value: \"event.a + event.b\"}\n    - {name: tier, value: \"total > 10 ? 'large' : 'small'\"}\n";

#[test]
fn derived_values_filters_and_conditions_are_judged_in_order() {
    let plan = plan_with(
        DERIVED,
        "[{name: k, value: tier}]",
        "[{name: n, count: {}}, {name: bad, count: {}, where: 'event.status >= 400'}, {name: t, sum: {value: total}}, {name: slow, max: {field: /v}, where: 'event.status >= 400'}]",
    );
    let mut run = Run::new(&plan);
    run.feed(&[
        r#"{"ts":1,"status":200,"a":1,"b":2,"v":"not looked at"}"#,
        r#"{"ts":2,"status":404,"a":0.1,"b":0.2,"v":7}"#,
        r#"{"ts":3,"status":200,"a":10,"b":1}"#,
        r#"{"ts":4,"status":500,"a":1,"b":1,"v":"x"}"#,
        r#"{"ts":4,"status":200,"a":1}"#,
        r#"{"ts":4,"a":1,"b":1}"#,
        r#"{"ts":4,"status":404,"a":1,"b":1,"v":"x"}"#,
        r#"{"ts":4,"status":"x","a":-1,"b":0}"#,
    ]);
    assert_eq!(run.task.stats().filtered, 2, "a status of 500, and a total below 0");
    assert_eq!(
        run.task.stats().rejected(crate::error::RejectReason::ExpressionFailed),
        2
    );
    assert_eq!(
        run.end(),
        [
            "dead ExpressionFailed let total: /b is missing; guard it with has()",
            "dead ExpressionFailed where: /status is missing; guard it with has()",
            "dead FieldTypeInvalid /v: found \"x\"",
            r#"w 0-10 "large" 0 OnTime! {"bad":0,"n":1,"slow":null,"t":11}"#,
            r#"w 0-10 "small" 0 OnTime! {"bad":1,"n":2,"slow":7,"t":3.3}"#,
        ]
    );
}

#[test]
fn what_where_leaves_out_moves_the_watermark_and_hides_a_missing_key() {
    let plan = plan_with("  where: event.ok\n", "[{name: k, field: /k}]", COUNT_SUM);
    let mut run = Run::new(&plan);
    run.feed(&[
        r#"{"ts":1,"k":1,"ok":true}"#,
        r#"{"ts":30,"ok":false}"#,
        r#"{"ts":40,"ok":1}"#,
        r#"{"ts":"x","ok":false}"#,
    ]);
    assert_eq!(
        std::mem::take(&mut run.lines),
        [
            r#"w 0-10 1 0 OnTime! {"n":1,"s":null}"#,
            "dead ExpressionFailed where: a condition does not exist for an integer",
            "dead TimestampInvalid /ts: found \"x\"",
        ]
    );
    assert_eq!(run.task.position().watermark_ms, 25);
}

#[test]
fn a_changed_expression_is_another_aggregate_and_another_key_cannot_be_followed() {
    let aggregates = |filter: &str| {
        format!(
            "[{{name: n, count: {{}}}}, {{name: bad, count: {{}}, where: '{filter}'}}, {{name: t, sum: {{value: total}}}}]"
        )
    };
    let lets = |total: &str| format!("  let: [{{name: base, value: event.a}}, {{name: total, value: '{total}'}}]\n");
    let key = "[{name: k, field: /k}]";
    let event = r#"{"ts":1,"k":1,"a":4,"status":404}"#;
    let mut backend = MemoryBackend::default();
    let mut run = Run::new(&plan_with(&lets("base + 1"), key, &aggregates("event.status >= 400")));
    run.feed(&[event]);
    save(&mut run.task, &mut backend);
    for (total, filter, expected) in [
        (
            "base+1",
            "(event.status)>=400",
            r#"w 0-10 1 0 OnTime! {"bad":2,"n":2,"t":10}"#,
        ),
        (
            "base + 2",
            "event.status >= 400",
            r#"w 0-10 1 0 OnTime! {"bad":2,"n":2,"t":6}"#,
        ),
        (
            "base + 1",
            "event.status > 400",
            r#"w 0-10 1 0 OnTime! {"bad":1,"n":2,"t":10}"#,
        ),
    ] {
        let plan = plan_with(&lets(total), key, &aggregates(filter));
        run.task = Task::restore(plan, &backend).unwrap().unwrap();
        run.feed(&[event]);
        assert_eq!(run.end(), [expected], "{total}, {filter}");
        run.offset = 1;
    }
    let other = plan_with(&lets("base + 1"), "[{name: k, value: total}]", &aggregates("true"));
    let error = Task::restore(other, &backend).unwrap_err();
    assert!(
        matches!(&error, Error::Incompatible { what } if what.contains("groupBy")),
        "{error}"
    );
}
