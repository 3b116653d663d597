//! Several topics with `partitioning: any` on a real broker: read as one source, and grown together.
//! Must not repeat what one topic shows.

use rdkafka::message::{Headers, Message};

use super::rig::{LOOKING_OFTEN, eventually};
use super::stages::job;

/// Behind all events before.
const LATER_MS: i64 = 100_000_000;

#[test]
fn events_of_a_key_in_several_topics_meet_in_one_result() {
    let job = job("topics").with_another_topic();
    job.produce(2_000);
    let processor = job.start("data");
    job.assert_exact();
    let status = processor.status().expect("answers");
    assert_eq!(
        status["taskCount"], 6,
        "two window tasks, and one for each of two partitions of two topics"
    );
    // Whoever reads side outputs finds the record again.
    job.produce_raw("no event");
    job.assert_exact();
    eventually("the dead letter", || {
        let mut from = Vec::new();
        job.read(&format!("{}-dead", job.name), &mut |message| {
            let mut headers = message.headers().into_iter().flat_map(|headers| headers.iter());
            let topic = headers.find(|header| header.key == "streamagg-topic");
            from.extend(topic.map(|header| String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned()));
        });
        if from == [job.name.clone()] {
            Ok(())
        } else {
            Err(format!("{from:?}"))
        }
    });
    processor.terminate();
    job.crash_while_producing("after-commit-before-state:2");
    let _processor = job.start("data");
    job.assert_exact();
}

/// Nobody restarts anything: the pod sees them, and windows wait for them from then on.
#[test]
fn partitions_that_are_added_are_read_while_the_job_runs() {
    let mut job = job("grows");
    job.produce(2_000);
    let processor = job.start_with("data", &LOOKING_OFTEN, None, "");
    job.assert_exact();
    let topic = job.name.clone();
    job.add_partition_to(&topic);
    eventually("a task for the new partition", || {
        let status = processor.status()?;
        let state = status["tasks"][4]["state"].as_str().map(str::to_owned);
        match (status["taskCount"].as_u64(), state.as_deref()) {
            (Some(5), Some("Running")) => Ok(()),
            _ => Err(status.to_string()),
        }
    });
    job.produce_from(LATER_MS, 2_000);
    job.assert_exact();
    processor.terminate();
    let _processor = job.start("data");
    job.produce_from(2 * LATER_MS, 2_000);
    job.assert_exact();
}

#[test]
fn several_topics_grow_together() {
    let mut job = job("topicsgrow").with_another_topic();
    job.produce(2_000);
    let processor = job.start("data");
    job.assert_exact();
    processor.terminate();
    let [first, second] = [0, 1].map(|index| job.topics[index].clone());
    job.add_partition_to(&first);
    let processor = job.start("data");
    let message = processor.await_problem("TopicUnsuitable");
    assert!(message.contains(&format!("{first} has 3, {second} has 2")), "{message}");
    job.add_partition_to(&second);
    // Behind what is purged: the windows of the new partitions' first events are gone.
    job.produce(2_000);
    eventually("the new tasks run, the others are those they were", || {
        let status = processor.status()?;
        let offsets: Vec<i64> = [2, 3, 4, 5, 6, 7]
            .map(|task| status["tasks"][task]["inputOffset"].as_i64().unwrap_or(-1))
            .to_vec();
        if offsets == [4_000, 4_000, 4_000, 4_000, 2_000, 2_000] {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
}
