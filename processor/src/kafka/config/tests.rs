//! Tests of `config`. Must not test other modules.

use super::*;
use streamagg_crds::resolved::{Resolved, Sink, Source, Start, Timestamp, Watermark};
use streamagg_crds::v1alpha1::TimeUnit;

fn job(properties: &[(&str, &str)]) -> Resolved {
    Resolved {
        job_id: "ns.job".into(),
        source: Source {
            bootstrap_servers: vec!["a:1".into(), "b:2".into()],
            topic: "events".into(),
            start: Start::Earliest,
            properties: properties
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
        },
        strict_json: false,
        timestamp: Timestamp::Field {
            field: "/ts".parse().expect("a pointer"),
            unit: TimeUnit::Milliseconds,
        },
        watermark: Watermark::Monotonic,
        idle: None,
        max_future_skew_ms: None,
        lets: Vec::new(),
        condition: None,
        group_by: Vec::new(),
        windows: Vec::new(),
        aggregates: Vec::new(),
        sink: Sink {
            bootstrap_servers: vec!["c:3".into()],
            topic: "results".into(),
            compression: Compression::Zstd,
        },
        late_topic: None,
        dead_letter_topic: None,
        max_bad_ratio: 1.0,
    }
}

#[test]
fn a_property_of_the_manifest_tunes_but_never_weakens_exactly_once() {
    let settings = source_consumer(
        &job(&[
            ("fetch.max.bytes", "7"),
            ("isolation.level", "read_uncommitted"),
            ("auto.offset.reset", "latest"),
        ]),
        1024,
    );
    assert_eq!(settings["fetch.max.bytes"], "7");
    assert_eq!(settings["isolation.level"], "read_committed");
    assert_eq!(settings["auto.offset.reset"], "error");
    assert_eq!(settings["enable.auto.commit"], "false");
    assert_eq!(settings["bootstrap.servers"], "a:1,b:2");
}

#[test]
fn positions_and_results_share_the_sink_cluster() {
    let job = job(&[]);
    assert_eq!(control_consumer(&job)["bootstrap.servers"], "c:3");
    assert_eq!(producer(&job, 4)["bootstrap.servers"], "c:3");
    assert_eq!(producer(&job, 4)["transactional.id"], "ns.job/task/events/4");
    assert_eq!(control_topic("ns.job"), "ns.job-control");
}
