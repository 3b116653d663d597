//! Tests of `config`. Must not test other modules.

use super::*;
use streamagg_crds::resolved::{Resolved, Security, Sink, Source, Start, Timestamp, Watermark};
use streamagg_crds::v1alpha1::{Partitioner, TimeUnit};

fn job(properties: &[(&str, &str)]) -> Resolved {
    Resolved {
        job_id: "ns.job".into(),
        source: Source {
            bootstrap_servers: vec!["a:1".into(), "b:2".into()],
            topics: vec!["events".into()],
            shuffle_partitions: None,
            security: Security::default(),
            start: Start::Earliest,
            max_drift_ms: None,
            max_records_per_second: None,
            load_shedding: None,
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
        explode: None,
        lets: Vec::new(),
        condition: None,
        group_by: Vec::new(),
        windows: Vec::new(),
        aggregates: Vec::new(),
        sink: Sink {
            bootstrap_servers: vec!["c:3".into()],
            topic: "results".into(),
            security: Security::default(),
            compression: Compression::Zstd,
            partitioner: Partitioner::default(),
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
        &Settings::default(),
        1024,
    );
    assert_eq!(settings.get("fetch.max.bytes").unwrap(), "7");
    assert_eq!(settings.get("isolation.level").unwrap(), "read_committed");
    assert_eq!(settings.get("auto.offset.reset").unwrap(), "error");
    assert_eq!(settings.get("enable.auto.commit").unwrap(), "false");
    assert_eq!(settings.get("bootstrap.servers").unwrap(), "a:1,b:2");
}

#[test]
fn positions_and_results_share_the_sink_cluster() {
    let job = job(&[]);
    let plain = Settings::default();
    assert_eq!(control_consumer(&job, &plain).get("bootstrap.servers"), Some("c:3"));
    let producer = producer(&job, &plain, Role::of(4, None), 1 << 20);
    assert_eq!(producer.get("bootstrap.servers"), Some("c:3"));
    assert_eq!(producer.get("transactional.id"), Some("ns.job/task/events/4"));
    assert_eq!(control_topic("ns.job"), "ns.job-control");
}

#[test]
fn a_batch_is_no_larger_than_what_every_topic_takes() {
    let (job, plain) = (job(&[]), Settings::default());
    for (least, set) in [(0, "1"), (65_000, "65000"), (usize::MAX, "1000000")] {
        assert_eq!(plain_producer(&job, &plain, least).get("batch.size"), Some(set));
    }
}

/// What is sent again after a lost answer must not be there twice.
#[test]
fn whatever_the_spec_says_producers_number_their_batches_wait_for_all_replicas_and_compress_as_it_says() {
    for (compression, name) in [
        (Compression::None, "none"),
        (Compression::Gzip, "gzip"),
        (Compression::Snappy, "snappy"),
        (Compression::Lz4, "lz4"),
        (Compression::Zstd, "zstd"),
    ] {
        let mut job = job(&[
            ("enable.idempotence", "false"),
            ("acks", "0"),
            ("compression.type", "lz4"),
        ]);
        job.sink.compression = compression;
        let plain = Settings::default();
        let transactional = producer(&job, &plain, Role::of(0, None), 1 << 20);
        for settings in [transactional, plain_producer(&job, &plain, 1 << 20)] {
            assert_eq!(settings.get("enable.idempotence"), Some("true"));
            assert_eq!(settings.get("acks"), Some("all"));
            assert_eq!(settings.get("compression.type"), Some(name));
        }
    }
}

#[test]
fn each_stage_has_transactions_and_an_input_of_its_own() {
    let (job, plain) = (job(&[("fetch.max.bytes", "7")]), Settings::default());
    for (task, id) in [
        (1, "ns.job/window/ns.job-shuffle/1"),
        (2, "ns.job/combine/events/0"),
        (4, "ns.job/combine/events/2"),
    ] {
        let settings = producer(&job, &plain, Role::of(task, Some(2)), 1 << 20);
        assert_eq!(settings.get("transactional.id"), Some(id));
    }
    let settings = shuffle_consumer(&job, &plain, 64);
    assert_eq!(settings.get("bootstrap.servers"), Some("c:3"));
    assert_eq!(settings.get("isolation.level"), Some("read_committed"));
    assert_eq!(settings.get("fetch.max.bytes"), None, "properties are the source's");
}

#[test]
fn every_client_reaches_its_cluster_as_its_security_says_and_no_property_changes_that() {
    let mut connection = Settings::default();
    connection.set("security.protocol", "sasl_ssl");
    connection.set("sasl.password", "hidden");
    let job = job(&[("socket.timeout.ms", "1000")]);
    for settings in [
        source_consumer(&job, &connection, 64),
        control_consumer(&job, &connection),
        group_member(&job, &connection),
        admin(&job.sink.bootstrap_servers, &job.job_id, &connection),
        producer(&job, &connection, Role::of(0, None), 1 << 20),
    ] {
        assert_eq!(settings.get("security.protocol"), Some("sasl_ssl"));
        assert!(!format!("{settings:?}").contains("hidden"), "{settings:?}");
    }
}
