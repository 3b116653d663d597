//! Named cases of the two stages: what is refused, what comes too late, what is damaged. Must not repeat the properties.

use std::sync::Arc;

use proptest::prelude::*;
use streamagg_crds::manifest::parse_manifest;
use streamagg_crds::validate::resolve;
use streamagg_processor::pipeline::builder::Plan;
use streamagg_processor::pipeline::operator::combine::{Combine, CombineState, Source};
use streamagg_processor::pipeline::operator::merge::{PurgedPartial, ShuffleError, Unreadable, WindowTask};
use streamagg_processor::pipeline::operator::query::{Answer, Found, Question, Standing};
use streamagg_processor::pipeline::output::{Outputs, Record};
use streamagg_processor::pipeline::shuffle::Shuffle;
use streamagg_processor::state::backend::{Backend, Changes};
use streamagg_processor::state::memory::MemoryBackend;

use super::judged::results;
use crate::engine::{cases, expected_form};
use crate::paging::Store;

pub(super) fn plan_of(windows: serde_json::Value) -> Arc<Plan> {
    plan_of_both(
        windows,
        serde_json::json!([{"name": "n", "count": {}}, {"name": "first", "first": {"field": "/v"}}]),
    )
}

fn plan_of_both(windows: serde_json::Value, aggregates: serde_json::Value) -> Arc<Plan> {
    let document = serde_json::json!({
        "apiVersion": "streamagg.io/v1alpha1",
        "kind": "StreamAggregation",
        "metadata": {"name": "two"},
        "spec": {
            "source": {"kafka": {"bootstrapServers": ["kafka:9092"], "topics": ["in"]}, "partitioning": {"any": {}}},
            "event": {
                "timestamp": {"field": "/ts", "unit": "Milliseconds"},
                "watermark": {"boundedOutOfOrderness": {"bound": "0s"}},
            },
            "groupBy": [{"name": "k", "field": "/k"}],
            "windows": windows,
            "aggregates": aggregates,
            "sink": {"kafka": {"topic": "out"}},
        },
    });
    let manifest = parse_manifest(&document.to_string()).expect("a manifest");
    Arc::new(Plan::compile(
        &resolve(&manifest.spec, "tests", "two").expect("a valid spec"),
    ))
}

pub(super) fn minutes(lateness: &str) -> Arc<Plan> {
    plan_of(serde_json::json!([{"name": "m", "tumbling": {"size": "60s"}, "allowedLateness": lateness}]))
}

pub(super) fn source(index: u32, count: u32) -> Source {
    Source {
        index,
        count,
        lineage: "line".to_owned(),
        shuffle_partitions: 1,
    }
}

/// Partials and watermarks that a source partition with these events sends in one epoch.
pub(super) fn shuffled(task: &mut Combine, events: &[(&str, i64)]) -> Vec<Vec<u8>> {
    let mut shuffle = Shuffle::default();
    for (key, time_ms) in events {
        let value = format!(r#"{{"ts":{time_ms},"k":"{key}","v":"{key}{time_ms}"}}"#);
        let offset = task.position().input_offset;
        task.step(
            &[Record::new(offset, value.as_bytes())],
            &mut Outputs::default(),
            &mut shuffle,
        );
    }
    task.close_epoch(&mut shuffle);
    shuffle.of_partition(0).map(<[u8]>::to_vec).collect()
}

/// Values of the results, and the partials that came too late.
pub(super) fn merged(
    task: &mut WindowTask,
    records: &[Vec<u8>],
) -> Result<(Vec<String>, Vec<PurgedPartial>), ShuffleError> {
    let (mut outputs, mut purged) = (Outputs::default(), Vec::new());
    for record in records {
        let offset = task.position().input_offset;
        task.step(&[Record::new(offset, record)], &mut outputs, &mut purged)?;
    }
    let values = results(&expected_form(&outputs, &[], 0))
        .into_iter()
        .map(|(_, value)| value);
    Ok((values.collect(), purged))
}

/// A window waits for the slowest partition, and late events of one partition may be in time for another.
#[test]
fn a_window_fires_when_the_slowest_source_partition_has_passed_its_end() {
    let plan = minutes("0s");
    let mut fast = Combine::new(Arc::clone(&plan), source(0, 2), 0);
    let mut slow = Combine::new(Arc::clone(&plan), source(1, 2), 0);
    let mut windows = WindowTask::new(plan, 0);
    let ahead = shuffled(&mut fast, &[("a", 10_000), ("a", 200_000), ("a", 20_000)]);
    assert_eq!(merged(&mut windows, &ahead).unwrap().0, Vec::<String>::new());
    let behind = shuffled(&mut slow, &[("a", 5_000), ("a", 30_000), ("a", 60_000)]);
    let (results, purged) = merged(&mut windows, &behind).unwrap();
    // The event at 20 s was late in its own partition, though this window was still open.
    let expected = r#"{"op":"Upsert","window":"m","start":0,"end":60000,"key":{"k":"a"},"pane":{"index":0,"timing":"OnTime","final":true,"revision":0},"values":{"n":3,"first":"a5000"}}"#;
    assert_eq!((results, purged), (vec![expected.to_owned()], Vec::new()));
    assert_eq!(fast.stats().late, 1);
}

/// Late events of one epoch are one partial, so their window fires once more, not once for each.
#[test]
fn late_partials_fire_a_window_once_for_each_record() {
    let plan = minutes("60s");
    let mut combine = Combine::new(Arc::clone(&plan), source(0, 1), 0);
    let mut windows = WindowTask::new(plan, 0);
    let first = shuffled(&mut combine, &[("a", 1_000), ("a", 70_000)]);
    assert_eq!(merged(&mut windows, &first).unwrap().0.len(), 1);
    let late = shuffled(&mut combine, &[("b", 2_000), ("a", 3_000), ("a", 4_000), ("b", 5_000)]);
    let (results, _) = merged(&mut windows, &late).unwrap();
    let panes: Vec<&str> = results.iter().map(|value| &value[56..]).collect();
    assert_eq!(
        panes,
        [
            r#"{"k":"a"},"pane":{"index":1,"timing":"Late","final":false,"revision":0},"values":{"n":3,"first":"a1000"}}"#,
            r#"{"k":"b"},"pane":{"index":0,"timing":"Late","final":false,"revision":0},"values":{"n":2,"first":"b2000"}}"#,
        ]
    );
}

/// A partition that is added when windows are purged already: its partials are not lost in silence.
#[test]
fn partials_of_a_partition_that_joined_late_go_to_the_late_output() {
    let plan = minutes("0s");
    let mut old = Combine::new(Arc::clone(&plan), source(0, 1), 0);
    let mut windows = WindowTask::new(Arc::clone(&plan), 0);
    merged(&mut windows, &shuffled(&mut old, &[("a", 1_000), ("a", 130_000)])).unwrap();
    let mut new = Combine::new(plan, source(1, 2), 0);
    let joined = shuffled(&mut new, &[("b", 2_000), ("b", 3_000), ("b", 125_000)]);
    let (results, purged) = merged(&mut windows, &joined).unwrap();
    assert_eq!(results, Vec::<String>::new());
    // The first event goes alone, before the first watermark of its partition.
    let lost = |count: u64, first: &str| {
        PurgedPartial {
        windows: "m".to_owned(),
        watermark_ms: 130_000,
        value: format!(
            r#"{{"reason":"AfterPurge","start":0,"end":60000,"key":{{"k":"b"}},"values":{{"n":{count},"first":"{first}"}}}}"#
        )
        .into_bytes(),
    }
    };
    assert_eq!(purged, [lost(1, "b2000"), lost(1, "b3000")]);
    assert_eq!(
        (windows.purged_partials(), windows.stats().losses.as_slice()),
        (2, &[2][..])
    );
    // The watermark waits for the new partition and does not fall: 125 s is behind the 130 s it had.
    assert_eq!(windows.position().watermark_ms, 130_000);
    merged(&mut windows, &shuffled(&mut old, &[("a", 300_000)])).unwrap();
    let (results, _) = merged(&mut windows, &shuffled(&mut new, &[("b", 200_000)])).unwrap();
    assert_eq!(results.len(), 2, "the window of both keys ends at 180 s: {results:?}");
    assert_eq!(windows.position().watermark_ms, 200_000);
}

fn plan_with(aggregates: serde_json::Value) -> Arc<Plan> {
    plan_of_both(
        serde_json::json!([{"name": "m", "tumbling": {"size": "60s"}, "allowedLateness": "60s"}]),
        aggregates,
    )
}

pub(super) fn restored(plan: &Arc<Plan>, task: &mut WindowTask, backend: &mut MemoryBackend) -> WindowTask {
    let mut changes = Changes::default();
    task.take_changes(&mut changes);
    backend.apply(&changes).unwrap();
    WindowTask::restore(Arc::clone(plan), backend).unwrap().unwrap()
}

/// A changed spec: what the first stage wrote under the old one is still on the way when the window task has the new one.
#[test]
fn partials_of_an_earlier_spec_are_read_into_the_present_one() {
    let count = serde_json::json!({"name": "n", "count": {}});
    let (first, last) = (
        serde_json::json!({"name": "first", "first": {"field": "/v"}}),
        serde_json::json!({"name": "last", "last": {"field": "/v"}}),
    );
    let old = plan_with(serde_json::json!([count, first]));
    let new = plan_with(serde_json::json!([last, count, first]));
    let mut combine = Combine::new(Arc::clone(&old), source(0, 1), 0);
    let (mut windows, mut backend) = (WindowTask::new(Arc::clone(&old), 0), MemoryBackend::default());
    merged(&mut windows, &shuffled(&mut combine, &[("a", 1_000)])).unwrap();
    let mut windows = restored(&new, &mut windows, &mut backend);
    let on_the_way = shuffled(&mut combine, &[("a", 2_000)]);
    merged(&mut windows, &on_the_way).unwrap();
    // Restored once more under the new spec, it still knows the old one.
    let mut windows = restored(&new, &mut windows, &mut backend);
    let state = combine.close_epoch(&mut Shuffle::default());
    merged(&mut windows, &shuffled(&mut combine, &[("b", 3_000)])).unwrap();
    let state = CombineState {
        position: combine.position(),
        ..state
    };
    let mut combine = Combine::restore(Arc::clone(&new), source(0, 1), &state);
    let (results, _) = merged(&mut windows, &shuffled(&mut combine, &[("a", 4_000), ("a", 70_000)])).unwrap();
    let values: Vec<&str> = results
        .iter()
        .filter_map(|value| value.split_once("\"values\":"))
        .map(|(_, values)| values)
        .collect();
    assert_eq!(
        values,
        [
            r#"{"last":"a4000","n":3,"first":"a1000"}}"#,
            r#"{"last":null,"n":1,"first":"b3000"}}"#,
        ]
    );
    // One that never had the old spec, and was not told of it, does not guess.
    let refused = merged(&mut WindowTask::new(new, 0), &on_the_way);
    let untold = ShuffleError::Layout {
        offset: 0,
        why: Unreadable::Untold,
    };
    assert_eq!(refused, Err(untold));
}

/// Pods are not replaced in one moment: what a newer spec has more would be lost in a task of the old one.
#[test]
fn a_window_task_does_not_run_ahead_of_its_spec() {
    let count = serde_json::json!({"name": "n", "count": {}});
    let old = plan_with(serde_json::json!([count]));
    let new = plan_with(serde_json::json!([count, {"name": "last", "last": {"field": "/v"}}]));
    let mut combine = Combine::new(Arc::clone(&old), source(0, 1), 0);
    let first = shuffled(&mut combine, &[("a", 1_000)]);
    let state = combine.close_epoch(&mut Shuffle::default());
    let mut combine = Combine::restore(Arc::clone(&new), source(0, 1), &state);
    let second = shuffled(&mut combine, &[("a", 2_000), ("a", 190_000)]);
    let mut windows = WindowTask::new(Arc::clone(&old), 0);
    let mut backend = MemoryBackend::default();
    merged(&mut windows, &first).unwrap();
    let committed = restored(&old, &mut windows, &mut backend).position();
    let newer = ShuffleError::Layout {
        offset: 3,
        why: Unreadable::Newer { source_partition: 0 },
    };
    let mut ahead = WindowTask::restore(old, &backend).unwrap().unwrap();
    assert_eq!(merged(&mut ahead, &second), Err(newer));
    // With the newer spec it goes on from there.
    let mut windows = WindowTask::restore(new, &backend).unwrap().unwrap();
    assert_eq!(windows.position(), committed);
    let (results, _) = merged(&mut windows, &second).unwrap();
    assert!(
        results[0].ends_with(r#""values":{"n":2,"last":"a2000"}}"#),
        "{results:?}"
    );
}

#[test]
fn records_that_are_not_this_jobs_are_refused_and_say_why() {
    let plan = minutes("0s");
    let mut combine = Combine::new(Arc::clone(&plan), source(0, 1), 0);
    let records = shuffled(&mut combine, &[("a", 1_000), ("a", 130_000)]);
    let refused = |plan: &Arc<Plan>, records: &[Vec<u8>]| {
        let mut windows = WindowTask::new(Arc::clone(plan), 0);
        merged(&mut windows, records)
            .map(|_| ())
            .expect_err("it is refused")
            .to_string()
    };
    let mut newer = records[0].clone();
    newer[0] = 9;
    assert_eq!(
        refused(&plan, &[newer]),
        "shuffle record at offset 0: its format is 9, this engine reads 1; run the engine that wrote it"
    );
    let text = refused(&plan, &[b"".to_vec()]);
    assert!(text.contains("the record is damaged"), "{text}");
    let other = plan_of(serde_json::json!([{"name": "m", "tumbling": {"size": "30s"}}]));
    let text = refused(&other, &records);
    assert!(text.contains("other windows, keys or aggregates"), "{text}");
    let text = refused(&plan, &[records.clone(), records[..1].to_vec()].concat());
    assert!(text.contains("repeats sequence 1"), "{text}");
    let cut = records[1][..records[1].len() - 1].to_vec();
    let text = refused(&plan, &[cut]);
    assert!(text.contains("a partial is damaged"), "{text}");
    let cut = records[0][..records[0].len() - 1].to_vec();
    let text = refused(&other, &[cut]);
    assert!(text.contains("a layout is damaged"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(300), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_records_never_make_a_window_task_panic(
        at in any::<prop::sample::Index>(), bit in 0..8u32, record in any::<prop::sample::Index>(),
    ) {
        let plan = plan_of(serde_json::json!([
            {"name": "s", "sliding": {"size": "60s", "slide": "10s"}, "allowedLateness": "5s"},
            {"name": "c", "cumulative": {"size": "60s", "step": "10s"}},
            {"name": "v", "session": {"gap": "20s"}},
            {"name": "d", "calendar": {"unit": "Day", "timeZone": "Europe/Berlin"}},
            {"name": "n", "count": {"size": 2}},
        ]));
        let mut combine = Combine::new(Arc::clone(&plan), source(0, 1), 0);
        let mut records = shuffled(&mut combine, &[("a", 1_000), ("b", 30_000), ("a", 130_000), ("b", 128_000), ("a", 300_000)]);
        let damaged = record.index(records.len());
        let at = at.index(records[damaged].len());
        records[damaged][at] ^= 1 << bit;
        let mut windows = WindowTask::new(plan, 0);
        // Refused or, where numbers or names changed, taken.
        let _outcome = merged(&mut windows, &records);
    }
}

/// What a window task answers about open windows is what it fires a moment later: also rows that some windows do not take.
#[test]
fn a_window_task_answers_with_what_it_fires_and_names_the_source_partition_that_it_waits_for() {
    let plan = plan_of(serde_json::json!([
        {"name": "m", "tumbling": {"size": "60s"}},
        {"name": "s", "sliding": {"size": "120s", "slide": "60s"}},
    ]));
    let key = plan.key_of(r#"{"k":"a"}"#).unwrap();
    let mut fast = Combine::new(Arc::clone(&plan), source(0, 2), 0);
    let mut slow = Combine::new(Arc::clone(&plan), source(1, 2), 0);
    let mut windows = WindowTask::new(Arc::clone(&plan), 0);
    // The last two are late for what ends at 60 s, where they came in; no window has ended yet where they meet.
    let ahead = shuffled(&mut fast, &[("a", 10_000), ("a", 61_000), ("a", 20_000), ("z", 21_000)]);
    assert!(merged(&mut windows, &ahead).unwrap().0.is_empty());
    let Answer::Windows {
        windows: open, more, ..
    } = windows.answer(&Question::Windows { key })
    else {
        panic!("another answer");
    };
    let shown: Vec<(String, i64, String)> = open
        .iter()
        .map(|open| (open.window.clone(), open.end.unwrap(), open.values.get().to_owned()))
        .collect();
    let row = |window: &str, end, values: &str| (window.to_owned(), end, values.to_owned());
    assert!(!more);
    assert_eq!(
        shown,
        [
            row("s", 60_000, r#"{"n":1,"first":"a10000"}"#),
            row("m", 60_000, r#"{"n":1,"first":"a10000"}"#),
            row("s", 120_000, r#"{"n":3,"first":"a10000"}"#),
            row("m", 120_000, r#"{"n":1,"first":"a61000"}"#),
            row("s", 180_000, r#"{"n":1,"first":"a61000"}"#),
        ]
    );
    let question = Question::Standing { window: 1, start_ms: 0 };
    let Answer::Standing { found, slowest, .. } = windows.answer(&question) else {
        panic!("another answer");
    };
    let standing = Standing {
        end_ms: 120_000,
        closes_ms: 120_000,
        keys: 2,
    };
    assert_eq!((&found, slowest), (&Found::Instances(vec![standing]), Some(1)));
    // Wherever the rows are: those that some windows do not take stay in memory.
    let (mut store, mut changes) = (Store::default(), Changes::default());
    windows.take_changes(&mut changes);
    store.apply(&changes).unwrap();
    windows.page(store.reader());
    windows.evict_to(0);
    assert!(windows.rows_left_in_store() > 0);
    assert!(matches!(windows.answer(&question), Answer::Standing { found: again, .. } if again == found));
    let behind = shuffled(&mut slow, &[("b", 300_000)]);
    let on = shuffled(&mut fast, &[("b", 300_000)]);
    let mut fired = merged(&mut windows, &behind).unwrap().0;
    fired.extend(merged(&mut windows, &on).unwrap().0);
    for (window, end, values) in shown {
        let inside = |result: &&String| {
            result.contains(&format!(r#""window":"{window}""#)) && result.contains(&format!(r#""end":{end}"#))
        };
        let result = fired
            .iter()
            .find(inside)
            .unwrap_or_else(|| panic!("{window} {end} in {fired:?}"));
        let values = values.trim_matches(['{', '}']);
        assert!(result.contains(values), "{values} in {result}");
    }
}
