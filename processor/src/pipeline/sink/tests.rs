//! Tests of `sink`. Must not test other modules.

use streamagg_crds::v1alpha1::Partitioner;

use super::*;
use crate::error::RejectReason;
use crate::pipeline::output::{Cause, DeadRecord, LateRecord, ResultRecord};
use crate::pipeline::shuffle::Destination;
use crate::pipeline::worker::Between;

fn topic(name: &str, record_bytes_max: usize) -> OutputTopic {
    OutputTopic {
        name: name.into(),
        partitions: 4,
        record_bytes_max,
    }
}

fn plan() -> SinkPlan {
    let windows = ["minute".to_owned()];
    let side = (Some(topic("late", 10_000)), Some(topic("dead", 10_000)));
    SinkPlan::new("ns.job", &windows, ("events", 6), topic("results", 10_000), side)
}

fn source(value: &[u8]) -> SourceRecord {
    SourceRecord {
        offset: 41,
        timestamp_ms: Some(7),
        key: Some(b"k".to_vec()),
        value: Some(value.to_vec()),
        headers: vec![("trace".into(), Some(b"t".to_vec()))],
    }
}

fn result(bytes: &mut Vec<u8>, value: &[u8]) -> Output {
    let start = bytes.len();
    bytes.extend_from_slice(b"key");
    bytes.extend_from_slice(value);
    Output::Result(ResultRecord {
        key: start..start + 3,
        value: start + 3..bytes.len(),
        window: 0,
        end_ms: 60_000,
        partition_hash: 0x8000_0005,
    })
}

fn names_and_values(headers: &[(String, Option<Vec<u8>>)]) -> Vec<String> {
    headers
        .iter()
        .map(|(name, value)| {
            format!(
                "{name}={}",
                String::from_utf8_lossy(value.as_deref().unwrap_or_default())
            )
        })
        .collect()
}

#[test]
fn results_are_spread_by_key_or_by_task() {
    let mut buffer = EpochBuffer::default();
    let mut outputs = Outputs::default();
    let entry = result(&mut outputs.bytes, b"v");
    outputs.list.push(entry);
    buffer.take(&mut outputs, &plan(), &|_| source(b"v"), &|_| Headers::new());
    for (partitioner, partition) in [(Partitioner::Key, 5 % 4), (Partitioner::Task, 6 % 4)] {
        let plan = plan().partitioned_by(partitioner);
        let partitions: Vec<_> = buffer.records(&plan).map(|outgoing| outgoing.partition).collect();
        assert_eq!(partitions, [Some(partition)], "{partitioner:?}");
    }
}

/// What one record fires carries its trace, beside results of records without one and of none.
#[test]
fn a_result_belongs_to_the_trace_of_the_record_that_fired_it() {
    let (plan, mut buffer) = (plan(), EpochBuffer::default());
    let mut outputs = Outputs::default();
    for value in [&b"by none"[..], b"by 3", b"by 3", b"by 4", b"by 9"] {
        let entry = result(&mut outputs.bytes, value);
        outputs.list.push(entry);
    }
    for (record, from, until) in [(3, 1, 3), (4, 3, 4), (9, 4, 5)] {
        outputs.causes.push(Cause { record, from, until });
    }
    let asked = std::cell::RefCell::new(Vec::new());
    buffer.take(&mut outputs, &plan, &|_| source(b"v"), &|record| {
        asked.borrow_mut().push(record);
        if record == 4 {
            Headers::new()
        } else {
            vec![header("traceparent", record)]
        }
    });
    assert_eq!(*asked.borrow(), [3, 4, 9], "once for each record");
    let traces: Vec<Vec<String>> = buffer
        .records(&plan)
        .map(|outgoing| names_and_values(outgoing.trace))
        .collect();
    let of = |trace: &str| vec![trace.to_owned()];
    let wanted = [
        vec![],
        of("traceparent=3"),
        of("traceparent=3"),
        vec![],
        of("traceparent=9"),
    ];
    assert_eq!(traces, wanted);
}

/// Whoever reads it fires by it.
#[test]
fn a_watermark_between_the_stages_belongs_to_the_trace_of_the_record_it_comes_from() {
    let between_stages = OutputTopic {
        partitions: 2,
        ..topic("shuffle", 10_000)
    };
    let plan = plan().shuffling_to(Some(between_stages));
    let (mut buffer, mut between) = (EpochBuffer::default(), Between::default());
    for (destination, cause) in [
        (Destination::One(1), None),
        (Destination::Every, Some(3)),
        (Destination::Every, Some(4)),
    ] {
        between.shuffle.push(destination, |bytes| bytes.push(b'v'));
        between.shuffle.list.last_mut().unwrap().cause = cause;
    }
    buffer.take_between(&mut between, &plan, &|record| match record {
        3 => vec![header("traceparent", record)],
        _ => Headers::new(),
    });
    let traces: Vec<(Option<i32>, Vec<String>)> = buffer
        .records(&plan)
        .map(|outgoing| (outgoing.partition, names_and_values(outgoing.trace)))
        .collect();
    let of = |trace: &str| vec![trace.to_owned()];
    let wanted = [
        (Some(1), vec![]),
        (Some(0), of("traceparent=3")),
        (Some(1), of("traceparent=3")),
        (Some(0), vec![]),
        (Some(1), vec![]),
    ];
    assert_eq!(traces, wanted);
}

#[test]
fn results_late_and_dead_records_go_out_in_order_with_their_headers() {
    let (plan, mut buffer, mut outputs) = (plan(), EpochBuffer::default(), Outputs::default());
    for value in [&b"one"[..], b"two"] {
        let entry = result(&mut outputs.bytes, value);
        outputs.list.push(entry);
        buffer.take(&mut outputs, &plan, &|_| source(b"v"), &|_| Headers::new());
        assert!(outputs.list.is_empty() && outputs.bytes.is_empty());
    }
    outputs.list.push(Output::Late(LateRecord {
        elements: Vec::new(),
        record: 0,
        windows: "minute".into(),
        watermark_ms: 9,
        lateness_ms: 4,
    }));
    let detail = "/ts: nothing".to_owned();
    let reason = RejectReason::TimestampMissing;
    outputs.list.push(Output::Dead(DeadRecord {
        record: 0,
        reason,
        detail,
        watermark_ms: NO_WATERMARK,
    }));
    buffer.take(&mut outputs, &plan, &|_| source(b"v"), &|_| Headers::new());

    let records: Vec<Outgoing<'_>> = buffer.records(&plan).collect();
    let topics: Vec<&str> = records.iter().map(|record| record.topic).collect();
    assert_eq!(topics, ["results", "results", "late", "dead"]);
    assert_eq!(
        (records[0].key, records[1].value),
        (Some(&b"key"[..]), Some(&b"two"[..]))
    );
    assert_eq!((records[0].partition, records[0].timestamp_ms), (Some(1), Some(59_999)));
    assert_eq!(
        names_and_values(records[0].headers),
        ["streamagg-job=ns.job", "streamagg-window=minute"]
    );
    assert_eq!(
        (records[2].value, records[2].timestamp_ms, records[2].partition),
        (Some(&b"v"[..]), Some(7), Some(2))
    );
    let late = "trace=t streamagg-reason=Late streamagg-window=minute streamagg-watermark=9 streamagg-lateness-ms=4 \
                streamagg-topic=events streamagg-partition=6 streamagg-offset=41";
    assert_eq!(names_and_values(records[2].headers).join(" "), late);
    let dead = "trace=t streamagg-reason=TimestampMissing streamagg-detail=/ts: nothing streamagg-topic=events \
                streamagg-partition=6 streamagg-offset=41";
    assert_eq!(names_and_values(records[3].headers).join(" "), dead);
}

#[test]
fn late_and_dead_records_without_a_topic_are_dropped() {
    let (mut plan, mut buffer, mut outputs) = (plan(), EpochBuffer::default(), Outputs::default());
    (plan.late, plan.dead) = (None, None);
    outputs.list.push(Output::Late(LateRecord {
        elements: Vec::new(),
        record: 0,
        windows: "m".into(),
        watermark_ms: 9,
        lateness_ms: 4,
    }));
    buffer.take(&mut outputs, &plan, &|_| source(b"v"), &|_| Headers::new());
    assert!(buffer.is_empty());
}

#[test]
fn a_record_that_is_too_large_becomes_one_that_says_so() {
    let (plan, mut buffer, mut outputs) = (plan(), EpochBuffer::default(), Outputs::default());
    let entry = result(&mut outputs.bytes, &[b'x'; 20_000]);
    outputs.list.push(entry);
    outputs.list.push(Output::Late(LateRecord {
        elements: Vec::new(),
        record: 0,
        windows: "m".into(),
        watermark_ms: 9,
        lateness_ms: 4,
    }));
    buffer.take(&mut outputs, &plan, &|_| source(&[b'y'; 20_000]), &|_| Headers::new());
    buffer.refuse_too_large(&plan);
    assert_eq!((buffer.len(), buffer.refused()), (2, 2));
    let records: Vec<Outgoing<'_>> = buffer.records(&plan).collect();
    assert_eq!((records[0].topic, records[1].topic), ("dead", "late"));
    for record in &records {
        assert!(record.size() < 1_000 && record.value.is_none());
        assert!(names_and_values(record.headers).contains(&"streamagg-reason=RecordTooLarge".to_owned()));
    }
    assert!(names_and_values(records[1].headers).contains(&"streamagg-offset=41".to_owned()));
}

#[test]
fn no_record_is_larger_than_what_the_client_takes() {
    let mut plan = plan();
    plan.results.record_bytes_max = 100 << 20;
    assert_eq!(plan.bound_of("results"), QUEUE_BYTES);
}

#[test]
fn a_bound_is_lowered_only_so_far() {
    let mut plan = plan();
    assert!(plan.lower_bound("results"));
    assert_eq!(plan.results.record_bytes_max, 5_000);
    assert!(plan.lower_bound("results"));
    assert!(!plan.lower_bound("results"), "a refusal of 4 KiB is not about size");
    assert!(!plan.lower_bound("elsewhere"));
}
