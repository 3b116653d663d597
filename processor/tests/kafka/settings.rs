//! Settings and partitions of a job's topics on a real broker: of those that the processor makes, and of a user's own, which
//! are refused where they would lose what the job needs. Must not test the source (`damage`).

use std::collections::BTreeMap;

use super::child::Processor;
use super::damage;
use super::rig::Job;
use super::stages;

fn topic(job: &Job, suffix: &str) -> String {
    format!("{}-{suffix}", job.name)
}

/// As docs/processor.md promises them, and nothing that is left to the broker's defaults.
#[test]
fn every_topic_that_a_processor_makes_has_the_settings_and_the_partitions_that_it_is_meant_to_have() {
    let job = stages::job("made").with_late_topic();
    let processor = job.start("data");
    processor.await_ready();
    let keeps_everything = [("retention.ms", "-1")];
    let control = [
        ("cleanup.policy", "compact"),
        ("delete.retention.ms", "86400000"),
        ("min.cleanable.dirty.ratio", "0.1"),
        ("segment.bytes", "16777216"),
        ("segment.ms", "600000"),
    ];
    let shuffle = [
        ("cleanup.policy", "delete"),
        ("max.message.bytes", "16777216"),
        ("retention.bytes", "-1"),
        ("retention.ms", "-1"),
    ];
    for (suffix, partitions, settings) in [
        ("control", 4, &control[..]),
        ("shuffle", 2, &shuffle),
        ("out", 2, &keeps_everything),
        ("late", 2, &keeps_everything),
        ("dead", 2, &keeps_everything),
    ] {
        let topic = topic(&job, suffix);
        let wanted = settings
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()));
        assert_eq!(job.settings_of(&topic), wanted.collect::<BTreeMap<_, _>>(), "{topic}");
        assert_eq!(job.partitions_of(&topic), partitions, "{topic}");
    }
}

/// The processor waits and has begun nothing, for a reason that has all these words.
fn assert_refused(job: &Job, processor: &Processor, reason: &str, words: &[&str]) {
    let message = processor.await_problem(reason);
    for words in words {
        assert!(message.contains(words), "{words}: {message}");
    }
    assert_eq!(processor.ask("GET", "/readyz", "").expect("answers").0, 503);
    assert!(!job.has_topic(&topic(job, "out")), "nothing has begun: {message}");
}

type Settings<'a> = &'a [(&'a str, &'a str)];

#[test]
fn a_users_own_topic_that_would_lose_records_is_refused_and_names_the_setting_until_that_is_right() {
    let (one, two) = (|| Job::new("own", 2), || stages::job("own"));
    let control = "set its cleanup.policy to compact";
    let compacted: Settings<'_> = &[("cleanup.policy", "compact")];
    let all_kept = [("retention.ms", "-1"), ("retention.bytes", "-1")];
    let small = [all_kept[0], all_kept[1], ("max.message.bytes", "524287")];
    // How a topic of so many partitions is made, what is said of it, and how it is made right.
    let cases: [(Job, &str, u32, Settings<'_>, &str, Settings<'_>); 5] = [
        (one(), "control", 2, &[("retention.ms", "3600000")], control, compacted),
        (
            one(),
            "control",
            2,
            &[("cleanup.policy", "compact,delete"), ("retention.bytes", "1000000")],
            control,
            compacted,
        ),
        (
            two(),
            "shuffle",
            2,
            compacted,
            "it is compacted: set its cleanup.policy to delete",
            &all_kept,
        ),
        (
            two(),
            "shuffle",
            2,
            &[("retention.ms", "-1"), ("retention.bytes", "1000000000")],
            "it has a retention.bytes: set it to -1",
            &all_kept,
        ),
        (
            two(),
            "shuffle",
            2,
            &small,
            "its max.message.bytes is below 524288: raise it",
            &all_kept,
        ),
    ];
    let cases = cases.map(|(job, suffix, partitions, wrong, words, right)| {
        job.create_topic_with(&topic(&job, suffix), partitions, wrong);
        job.produce(600);
        let processor = job.start("data");
        (job, processor, suffix, words, right)
    });
    for (job, processor, suffix, words, right) in &cases {
        let topic = topic(job, suffix);
        assert_refused(job, processor, "TopicUnsuitable", &[&topic, words]);
        job.set_topic(&topic, right);
    }
    for (job, ..) in &cases {
        job.assert_exact();
    }
}

#[test]
fn a_users_own_topic_with_another_number_of_partitions_is_refused_with_both_numbers() {
    let (one, two) = (|| Job::new("owncount", 2), || stages::job("owncount"));
    let kept = [("retention.ms", "-1"), ("retention.bytes", "-1")];
    let compacted = [("cleanup.policy", "compact")];
    // Of a control topic that nothing was written to, nobody says that keys have moved.
    let control = |found, needs, what_to_do| (compacted.as_slice(), "TopicUnsuitable", [found, needs, what_to_do]);
    let shuffle = ["shufflePartitions is 2", "has 1 partitions", "another jobId"];
    let cases = [
        (
            one(),
            "control",
            1,
            control("has 1 partitions", "needs 2", "add partitions to it, or delete it"),
        ),
        (
            one(),
            "control",
            3,
            control("has 3 partitions", "needs 2", "written to it: delete it"),
        ),
        (
            two(),
            "control",
            5,
            control("has 5 partitions", "needs 4", "written to it: delete it"),
        ),
        (two(), "shuffle", 1, (&kept, "PartitionsChanged", shuffle)),
    ];
    let cases = cases.map(|(job, suffix, partitions, (settings, reason, words))| {
        job.create_topic_with(&topic(&job, suffix), partitions, settings);
        let processor = job.start("data");
        (job, processor, suffix, reason, words)
    });
    for (job, processor, suffix, reason, [own, other, what_to_do]) in &cases {
        let topic = topic(job, suffix);
        assert_refused(job, processor, reason, &[&topic, own, other, what_to_do]);
    }
    let (job, ..) = &cases[0];
    job.set_partitions(&topic(job, "control"), 2);
    job.produce(600);
    job.assert_exact();
}

#[test]
fn a_control_topic_that_was_written_to_and_has_another_number_of_partitions_is_of_another_source() {
    let one = ["has 3 partitions", "has 2: keys moved", "another jobId"];
    let two = [
        "has 5 partitions and 2 tasks of the second stage",
        "has only 2",
        "another jobId",
    ];
    for (job, partitions, words) in [(Job::new("used", 2), 3, one), (stages::job("used"), 5, two)] {
        let control = topic(&job, "control");
        job.create_topic_with(&control, partitions, &[("cleanup.policy", "compact")]);
        damage::commit(&job, 0, &serde_json::Value::Null);
        let processor = job.start("data");
        assert_refused(
            &job,
            &processor,
            "PartitionsChanged",
            &[&[control.as_str()], &words[..]].concat(),
        );
    }
}

/// Where keys may be in any partition the source may grow, and the control topic grows with it.
#[test]
fn a_users_own_control_topic_with_too_few_partitions_gets_those_that_two_stages_need() {
    let job = stages::job("owngrown");
    let control = topic(&job, "control");
    job.create_topic_with(&control, 1, &[("cleanup.policy", "compact")]);
    job.produce(600);
    let _processor = job.start("data");
    job.assert_exact();
    assert_eq!(job.partitions_of(&control), 4);
}
