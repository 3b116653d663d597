//! What is around a value and what is within it: keys from headers, record keys and partitions, elements as events, the
//! last events of a key; through a lost volume and a restart. Must not test windows of time.

use super::rig::{Job, More, eventually};

/// Window, pane, key and values of everything published, in the order of the log.
fn results(job: &Job) -> Vec<String> {
    let mut lines = Vec::new();
    job.read(&format!("{}-out", job.name), &mut |message| {
        let payload = rdkafka::Message::payload(message).expect("a value");
        let value: serde_json::Value = serde_json::from_slice(payload).expect("JSON");
        lines.push(format!(
            "{} {} {} n={} e={}",
            value["window"].as_str().expect("text"),
            value["pane"]["index"],
            value["key"],
            value["values"]["n"],
            value["values"]["e"]
        ));
    });
    lines
}

fn assert_results(job: &Job, expected: &[String]) {
    let found = eventually("all results", || {
        let found = results(job);
        let enough = found.len() >= expected.len();
        if enough { Ok(found) } else { Err(format!("{found:#?}")) }
    });
    assert_eq!(found, expected);
}

#[test]
fn headers_elements_and_last_events_come_through_a_replay_and_a_restart() {
    let mut job = Job::new("around", 1);
    job.more = More {
        key: r#", {name: r, header: region, whenMissing: {default: none}}, {name: p, metadata: Partition}, {name: id, metadata: Key, whenMissing: {"null": {}}}"#,
        window: "}, {name: c, count: {size: 2}",
        spec: "\n  explode: {field: /list}",
        ..More::default()
    };
    let sum = ", {name: e, sum: {field: /list/v}}";
    let start = || job.start_with("data", &["--assign-all"], None, sum);
    let produce = |ts: i64, around: Option<(&str, &str)>, list: &str| {
        job.produce_around(&format!(r#"{{"ts":{ts},"k":"x","list":[{list}]}}"#), around);
    };
    let line = |window: &str, index: u32, (region, id): (&str, &str), values: &str| {
        format!(r#"{window} {index} {{"id":{id},"k":"x","p":0,"r":"{region}"}} {values}"#)
    };
    let (eu, us, none) = (("eu", r#""a""#), ("us", r#""b""#), ("none", "null"));
    produce(1_000, Some(("eu", "a")), r#"{"v":1},{"v":2},{"v":3}"#);
    produce(1_100, None, r#"{"v":4}"#);
    produce(1_200, Some(("eu", "a")), r#"{"v":5}"#);
    produce(3_000, Some(("us", "b")), r#"{"v":9}"#);
    let mut expected = vec![
        line("c", 0, eu, "n=2 e=3"),
        line("c", 1, eu, "n=2 e=8"),
        line("w", 0, eu, "n=4 e=11"),
        line("w", 0, none, "n=1 e=4"),
    ];
    let mut processor = start();
    assert_results(&job, &expected);
    processor.kill();
    std::fs::remove_dir_all(job.directory("data")).expect("removes");
    let mut processor = start();
    produce(3_100, Some(("us", "b")), r#"{"v":1}"#);
    produce(5_000, Some(("us", "b")), r#"{"v":7}"#);
    expected.push(line("c", 0, us, "n=2 e=10"));
    expected.push(line("w", 0, us, "n=2 e=10"));
    assert_results(&job, &expected);
    let metrics = processor.metrics();
    assert!(
        metrics.contains(r#"replays_total{kind="exact",task="0"} 1"#),
        "{metrics}"
    );
    processor.kill();
    let processor = start();
    produce(5_100, Some(("us", "b")), r#"{"v":1}"#);
    expected.push(line("c", 1, us, "n=2 e=8"));
    assert_results(&job, &expected);
    assert!(
        !processor.metrics().contains("streamagg_replays_total{"),
        "local state was enough"
    );
}
