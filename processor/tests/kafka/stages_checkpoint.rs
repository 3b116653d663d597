//! A checkpoint of both stages of `partitioning: any` on a real broker: what makes it one of the job. Must not repeat what
//! checkpoints of a single stage show.

use std::collections::BTreeMap;

use rdkafka::message::Message;
use serde_json::{Value, json};
use streamagg_processor::pipeline::shuffle;

use super::rig::{Job, More, eventually};
use super::stages::{ALL_WINDOWS_ON_1, assign, job, pod, shuffle_topic};

/// Greatest sequence of each source partition between the stages below these offsets, by partition.
fn sequences_below(job: &Job, offsets: [i64; 2]) -> BTreeMap<u32, u64> {
    let mut greatest = BTreeMap::new();
    job.read(&shuffle_topic(job), &mut |message| {
        let (header, _) = shuffle::read(message.payload().expect("a value")).expect("a record of a combine task");
        if message.offset() < offsets[usize::try_from(message.partition()).expect("small")] {
            let sequence: &mut u64 = greatest.entry(header.source).or_default();
            *sequence = header.sequence.max(*sequence);
        }
    });
    greatest
}

/// Checkpoints that an operation made, of both tasks of a stage.
fn rows(operation: &Value) -> [Value; 2] {
    [0, 1].map(|row: usize| operation["tasks"][row]["checkpoint"].clone())
}

/// Whether the first stage has told everything in its checkpoints that the window tasks have merged in theirs. Answers what
/// those have, by source partition.
fn assert_one_of_the_job(job: &Job, windows: &[Value; 2], combines: &[Value; 2]) -> BTreeMap<u32, u64> {
    let offsets = windows
        .each_ref()
        .map(|row| row["inputOffset"].as_i64().expect("a number"));
    let merged = sequences_below(job, offsets);
    for (source, row) in (0..).zip(combines) {
        let manifest = format!(
            "{}/tasks/{}/manifests/{}.json",
            job.name,
            2 + source,
            row["id"].as_str().expect("text")
        );
        let text = std::fs::read_to_string(job.directory("store").join(manifest)).expect("it is in the store");
        let manifest: Value = serde_json::from_str(&text).expect("JSON");
        let position = &manifest["position"]["enginePosition"];
        assert_eq!(position["inputOffset"], row["inputOffset"]);
        let told = position["outputSeq"].as_u64().expect("a number");
        assert!(
            merged.get(&source).is_none_or(|merged| *merged <= told),
            "{merged:?} of {manifest}"
        );
    }
    merged
}

#[test]
fn a_checkpoint_of_window_tasks_and_then_of_the_first_stage_is_one_of_the_job() {
    let job = job("stagecut");
    assign(&job, 1, ALL_WINDOWS_ON_1);
    let (first, second) = (pod(&job, 0, None), pod(&job, 1, None));
    first.await_ready();
    second.await_ready();
    for round in 0..3 {
        job.produce(2_000);
        let id = format!("cut-{round}");
        let windows = rows(&second.operate(&format!("/v1/checkpoint?id={id}&tasks=0,1")));
        job.produce(500);
        let combines = rows(&first.operate(&format!("/v1/checkpoint?id={id}&tasks=2,3")));
        let merged = assert_one_of_the_job(&job, &windows, &combines);
        assert!(
            round == 0 || merged.len() == 2,
            "both source partitions were heard: {merged:?}"
        );
        // Any pod keeps them for whoever holds the object.
        let pins = json!({"checkpoints": {"0": windows[0]["id"], "3": combines[1]["id"]}}).to_string();
        eventually("it is kept", || {
            match second.ask("POST", &format!("/v1/pins?holder={id}"), &pins) {
                Ok((200, body)) if body.contains("Complete") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
    job.assert_exact();
    // A start takes no notice of what the first stage has in the store.
    drop((first, second));
    let (_first, _second) = (pod(&job, 0, None), pod(&job, 1, None));
    job.produce(1_000);
    job.assert_exact();
}

#[test]
fn it_is_one_of_the_job_also_where_only_the_clock_has_moved_the_first_stage() {
    let mut job = job("stagecutidle");
    job.more = More {
        event: "\n    idle: {after: 1h}",
        ..More::default()
    };
    let processor = job.start("data");
    job.produce(2_000);
    job.assert_exact();
    let cut = |id: &str| {
        let [windows, combines] = ["0,1", "2,3"].map(|tasks| {
            let stage = tasks.replace(',', "-");
            rows(&processor.operate(&format!("/v1/checkpoint?id={id}-{stage}&tasks={tasks}")))
        });
        assert_one_of_the_job(&job, &windows, &combines)
    };
    let before = cut("quiet");
    // Without a record the last windows come out.
    job.move_clock(90 * 24 * 3_600_000);
    job.assert_exactly(&job.expected(true));
    let after = cut("later");
    assert!(after.values().gt(before.values()), "{before:?} {after:?}");
}
