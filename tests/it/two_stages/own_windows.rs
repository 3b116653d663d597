//! Windows that keep values of their own in two stages: sessions, calendar, global and count windows, triggers and panes.
//! Must not repeat the properties.

use std::sync::Arc;

use streamagg_processor::pipeline::operator::combine::Combine;
use streamagg_processor::pipeline::operator::merge::WindowTask;
use streamagg_processor::pipeline::output::Outputs;
use streamagg_processor::pipeline::position::{Decision, DecisionKind};
use streamagg_processor::state::memory::MemoryBackend;

use super::cases::{merged, plan_of, restored, shuffled, source};
use super::judged::results;
use crate::engine::expected_form;

/// Operation, start, end, timing and n of each result.
fn told(results: &[String]) -> Vec<String> {
    let tell = |text: &String| {
        let value: serde_json::Value = serde_json::from_str(text).expect("JSON");
        let pane = &value["pane"];
        let (op, start, end) = (value["op"].as_str().unwrap(), &value["start"], &value["end"]);
        let (index, timing, n) = (&pane["index"], pane["timing"].as_str().unwrap(), &value["values"]["n"]);
        let last = if pane["final"] == true { " final" } else { "" };
        format!("{op} {start}..{end} {index} {timing}{last} {n}")
    };
    results.iter().map(tell).collect()
}

/// A session of events of two partitions is written when the slower one passes the first full second behind its end; an
/// event that was not late where it came in joins it afterwards, and what was written is taken back.
#[test]
fn sessions_of_several_partitions_are_one_and_what_an_event_joins_is_taken_back() {
    let plan = plan_of(serde_json::json!([{"name": "v", "session": {"gap": "10s"}, "allowedLateness": "5s"}]));
    let mut one = Combine::new(Arc::clone(&plan), source(0, 2), 0);
    let mut other = Combine::new(Arc::clone(&plan), source(1, 2), 0);
    let mut windows = WindowTask::new(Arc::clone(&plan), 0);
    let mut run = |records: Vec<Vec<u8>>| told(&merged(&mut windows, &records).unwrap().0);
    assert!(run(shuffled(&mut one, &[("a", 1_000), ("z", 40_000)])).is_empty());
    assert!(run(shuffled(&mut other, &[("a", 9_000), ("b", 18_900)])).is_empty());
    // 9 s and 19.5 s are more than a gap apart; the watermark goes on, for it passes a full second.
    assert_eq!(
        run(shuffled(&mut other, &[("a", 19_500)])),
        ["Upsert 1000..19000 0 OnTime 2"]
    );
    // Behind the watermark of its own partition by 4.9 s, and both sessions are within its reach.
    assert_eq!(
        run(shuffled(&mut other, &[("a", 14_600)])),
        ["Retract 1000..19000 0 OnTime 2"]
    );
    let end = run(shuffled(&mut other, &[("z", 70_000)]));
    assert_eq!(end, ["Upsert 18900..28900 0 OnTime 1", "Upsert 1000..29500 0 OnTime 4"]);
    assert_eq!((one.stats().late, other.stats().late), (0, 0));
    // At 50 s it is late in the partition that is at 70 s, whatever the window task has heard of.
    shuffled(&mut other, &[("a", 50_000)]);
    assert_eq!(other.stats().late, 1);
}

/// What a partition that was added late has for instances that are purged goes to the late output.
#[test]
fn what_comes_behind_the_purge_of_a_session_or_a_day_goes_to_the_late_output() {
    let day = serde_json::json!({"name": "d", "calendar": {"unit": "Day", "timeZone": "UTC"}});
    for (window, end_ms) in [
        (serde_json::json!({"name": "v", "session": {"gap": "10s"}}), 11_000),
        (day, 86_400_000),
    ] {
        let plan = plan_of(serde_json::json!([window]));
        let mut old = Combine::new(Arc::clone(&plan), source(0, 1), 0);
        let mut windows = WindowTask::new(Arc::clone(&plan), 0);
        merged(&mut windows, &shuffled(&mut old, &[("a", 1_000), ("a", 90_000_000)])).unwrap();
        let mut new = Combine::new(plan, source(1, 2), 0);
        let (results, purged) = merged(&mut windows, &shuffled(&mut new, &[("b", 1_000)])).unwrap();
        let start_ms = if end_ms == 86_400_000 { 0 } else { 1_000 };
        let value = format!(
            r#"{{"reason":"AfterPurge","start":{start_ms},"end":{end_ms},"key":{{"k":"b"}},"values":{{"n":1,"first":"b1000"}}}}"#
        );
        assert_eq!((results, purged.len()), (Vec::new(), 1));
        assert_eq!(String::from_utf8_lossy(&purged[0].value), value);
        assert_eq!(
            (windows.purged_partials(), windows.stats().losses.as_slice()),
            (1, &[1][..])
        );
    }
}

/// Discarding panes add up to what there is, each event in one of them.
#[test]
fn discarding_panes_have_each_event_once() {
    let plan = plan_of(serde_json::json!([{
        "name": "m", "tumbling": {"size": "60s"}, "allowedLateness": "60s", "panes": "Discarding",
        "trigger": {"early": {"everyEvents": 3}},
    }]));
    let mut combine = Combine::new(Arc::clone(&plan), source(0, 1), 0);
    let mut windows = WindowTask::new(Arc::clone(&plan), 0);
    let (mut panes, mut backend) = (Vec::new(), MemoryBackend::default());
    for events in [
        &[("a", 0), ("a", 1_000)][..],
        // Four waited by then: a trigger by number fires at three or more.
        &[("a", 2_000), ("a", 3_000)],
        &[("a", 4_000), ("a", 61_000)],
        &[("a", 5_000), ("a", 6_000)],
        &[("z", 200_000)],
    ] {
        panes.extend(told(&merged(&mut windows, &shuffled(&mut combine, events)).unwrap().0));
        windows = restored(&plan, &mut windows, &mut backend);
    }
    let of_the_minute: Vec<&String> = panes.iter().filter(|pane| pane.contains(" 0..60000 ")).collect();
    assert_eq!(
        of_the_minute,
        [
            "Upsert 0..60000 0 Early 4",
            "Upsert 0..60000 1 OnTime 1",
            "Upsert 0..60000 2 Late 2"
        ]
    );
}

/// A window task ticks by itself, and what it ticked is state.
#[test]
fn a_trigger_by_processing_time_ticks_in_the_window_task() {
    let plan = plan_of(serde_json::json!([{"name": "all", "global": {}, "trigger": {"early": {"every": "10s"}}}]));
    let mut combine = Combine::new(Arc::clone(&plan), source(0, 1), 0);
    let mut windows = WindowTask::new(Arc::clone(&plan), 0);
    merged(&mut windows, &shuffled(&mut combine, &[("a", 1_000), ("a", 2_000)])).unwrap();
    let tick = |windows: &mut WindowTask, now_ms: i64| {
        let (input_offset, mut outputs) = (windows.position().input_offset, Outputs::default());
        let fires = windows.tick_fires(now_ms);
        let kind = DecisionKind::Tick { now_ms };
        windows.decide(&Decision { input_offset, kind }, &mut outputs);
        let values: Vec<String> = results(&expected_form(&outputs, &[], 0))
            .into_iter()
            .map(|(_, value)| value)
            .collect();
        assert_eq!(fires, !values.is_empty());
        told(&values)
    };
    assert_eq!(tick(&mut windows, 100_000), ["Upsert null..null 0 Early 2"]);
    let mut windows = restored(&plan, &mut windows, &mut MemoryBackend::default());
    merged(&mut windows, &shuffled(&mut combine, &[("a", 3_000)])).unwrap();
    assert!(tick(&mut windows, 109_999).is_empty());
    assert_eq!(tick(&mut windows, 110_000), ["Upsert null..null 1 Early 3"]);
}

/// Count windows take the events of a key one by one, in the order in which they came.
#[test]
fn a_count_window_fires_over_the_last_events_of_a_key_whichever_partition_they_are_of() {
    let plan = plan_of(serde_json::json!([{"name": "three", "count": {"size": 3, "slide": 2}}]));
    let mut one = Combine::new(Arc::clone(&plan), source(0, 2), 0);
    let mut other = Combine::new(Arc::clone(&plan), source(1, 2), 0);
    let mut windows = WindowTask::new(Arc::clone(&plan), 0);
    let mut run = |records: Vec<Vec<u8>>| told(&merged(&mut windows, &records).unwrap().0);
    assert_eq!(
        run(shuffled(&mut one, &[("a", 5_000), ("b", 1), ("a", 1_000)])),
        ["Upsert 1000..5001 0 OnTime final 2"]
    );
    // The third to fifth event of a: over the last three at the fourth.
    assert_eq!(
        run(shuffled(&mut other, &[("a", 2_000), ("a", 9_000), ("a", 3_000)])),
        ["Upsert 1000..9001 1 OnTime final 3"]
    );
}
