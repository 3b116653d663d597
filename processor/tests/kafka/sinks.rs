//! Where results go: to another cluster than the source's, and to topics that do not take all of them. Must not test
//! connections that are refused or rights that are missing.

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Headers, Message};
use serde_json::Value;

use super::at_least_once::{assert_nothing_lost, at_least_once};
use super::child::Processor;
use super::rig::{Job, PATIENCE, Reach, client, eventually};
use super::security::{CA, broker, give_secrets, sasl};

/// A job that reads from the plain broker and has everything else on the secured one, with a security of its own.
fn apart(test: &str, partitions: u32, listener: &str, security: &str) -> Job {
    let mut job = Job::new(test, partitions);
    job.sink = Some(Reach {
        tests: broker("KAFKA_BOOTSTRAP").to_owned(),
        processor: broker(listener).to_owned(),
        security: format!(", security: Own{security}"),
    });
    give_secrets(&job, "admin");
    job
}

fn start(job: &Job) -> Processor {
    let secrets = job.directory("secrets");
    let flags = ["--assign-all", "--secrets-dir", secrets.to_str().expect("text")];
    job.start_with("data", &flags, None, "")
}

/// What the job's topics on these brokers are called behind its name.
fn topics_on(servers: &str, job: &Job) -> BTreeSet<String> {
    let admin: AdminClient<DefaultClientContext> = client(servers).create().expect("an admin client");
    let metadata = admin
        .inner()
        .fetch_metadata(None, PATIENCE)
        .expect("the broker answers");
    let names = metadata.topics().iter().map(|topic| topic.name());
    let of_job = names.filter_map(|name| name.strip_prefix(job.name.as_str()));
    of_job.map(str::to_owned).collect()
}

/// Results are exact through a kill under load and the loss of the volume. The sink's cluster has these topics, and
/// the source's none but the input.
fn assert_lives_apart(job: &Job, topics: &[&str]) {
    job.produce(2_000);
    let mut processor = start(job);
    job.assert_exact();
    job.produce(2_000);
    processor.kill();
    job.lose("data");
    job.produce(1_000);
    let processor = start(job);
    job.assert_exact();
    processor.assert_replayed_exactly();
    let sink = job.sink.as_ref().expect("another cluster");
    let wanted: BTreeSet<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
    assert_eq!(topics_on(&sink.tests, job), wanted);
    assert_eq!(topics_on(&job.reach.tests, job), BTreeSet::from([String::new()]));
}

#[test]
fn a_sink_on_another_cluster_gets_every_result_once_and_the_source_nothing_of_the_job() {
    let job = apart("apart", 1, "KAFKA_SASL_BOOTSTRAP", &sasl("ScramSha512"));
    assert_lives_apart(&job, &["-control", "-dead", "-out"]);
}

#[test]
fn two_stages_meet_on_the_cluster_of_the_sink() {
    let security = format!("{CA}{}", sasl("Plain"));
    let job = apart("apartstages", 2, "KAFKA_SASL_TLS_BOOTSTRAP", &security).in_two_stages(2);
    assert_lives_apart(&job, &["-control", "-dead", "-out", "-shuffle"]);
}

/// Takes every result of the usual keys.
const BOUND: usize = 700;
/// Bytes of a key whose results do not fit into that.
const LONG: usize = 2_048;

fn out(job: &Job) -> String {
    format!("{}-out", job.name)
}

/// A job whose topic of results takes no more than [`BOUND`].
fn bounded(test: &str) -> Job {
    let job = Job::new(test, 1);
    let bound = BOUND.to_string();
    job.create_topic_with(&out(&job), 1, &[("max.message.bytes", bound.as_str())]);
    job
}

/// Two seconds of events, and one of a key of so many bytes, of which no result is expected. Answers the end of its
/// window, which is open.
fn produce_with_long_key(job: &Job, key_bytes: usize) -> i64 {
    job.produce(400);
    let end_ms = 5_000_000 + 5 * i64::try_from(job.produced()).expect("few");
    // Not behind the watermark, and not so far ahead that it ends a window.
    let (time, key) = (end_ms - 50, "x".repeat(key_bytes));
    job.produce_raw(&format!(r#"{{"ts":{time},"k":"{key}","v":1}}"#));
    end_ms
}

/// Headers of the dead letters, which have neither key nor value.
fn dead_letters(job: &Job) -> Vec<BTreeMap<String, String>> {
    let mut letters = Vec::new();
    job.read(&format!("{}-dead", job.name), &mut |message| {
        assert_eq!((message.key(), message.payload()), (None, None));
        let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
        let headers = message.headers().expect("headers").iter();
        letters.push(
            headers
                .map(|header| (header.key.to_owned(), text(header.value)))
                .collect(),
        );
    });
    letters
}

/// The results of the long key in these windows are dead letters that say what they were, once each, and there are no
/// others.
fn assert_refused(job: &Job, bound: usize, ends_ms: &[i64]) {
    let mut letters = eventually("a dead letter for each", || {
        let letters = dead_letters(job);
        if letters.len() >= ends_ms.len() {
            Ok(letters)
        } else {
            Err(format!("{letters:?}"))
        }
    });
    for letter in &mut letters {
        let bytes: Option<usize> = letter.remove("streamagg-bytes").and_then(|bytes| bytes.parse().ok());
        assert!(bytes > Some(bound), "{bytes:?}: {letter:?}");
    }
    let (out, name) = (out(job), job.name.as_str());
    let wanted = ends_ms.iter().map(|end_ms| {
        let end_ms = end_ms.to_string();
        let says = [
            ("reason", "RecordTooLarge"),
            ("too-large-for", out.as_str()),
            ("job", name),
            ("window", "w"),
            ("window-end", end_ms.as_str()),
            ("topic", name),
            ("partition", "0"),
        ];
        BTreeMap::from(says.map(|(header, value)| (format!("streamagg-{header}"), value.to_owned())))
    });
    assert_eq!(letters, wanted.collect::<Vec<_>>());
}

/// Waits until so many records are counted that were too large for their topic.
fn await_counted(processor: &Processor, count: u64) {
    const SERIES: &str = r#"streamagg_records_too_large_total{task="0"}"#;
    eventually("they are counted", || match processor.counted(SERIES) {
        counted if counted == count => Ok(()),
        _ => Err(processor.metrics()),
    });
}

/// How many transactions were given up, as the metrics have it: nothing, if none was.
fn given_up(processor: &Processor) -> Option<String> {
    let metrics = processor.metrics();
    let series = r#"streamagg_transactions_total{outcome="aborted",task="0"}"#;
    let line = metrics.lines().find(|line| line.starts_with(series));
    line.map(str::to_owned)
}

#[test]
fn a_result_too_large_for_its_topic_is_a_dead_letter_and_all_others_are_there() {
    let job = bounded("toolarge");
    let processor = job.start("data");
    let ends_ms = [(); 2].map(|()| produce_with_long_key(&job, LONG));
    // Behind it the task goes on, and none comes again.
    for _ in 0..2 {
        job.produce(400);
        job.assert_exact();
        assert_refused(&job, BOUND, &ends_ms);
    }
    await_counted(&processor, 2);
    assert_eq!(given_up(&processor), None, "no broker was asked");
}

#[test]
fn without_a_topic_of_dead_letters_it_is_counted_and_dropped() {
    let mut job = bounded("dropped");
    job.drops_dead_letters = true;
    let processor = job.start("data");
    produce_with_long_key(&job, LONG);
    for _ in 0..2 {
        job.produce(400);
        job.assert_exact();
        await_counted(&processor, 1);
    }
    assert_eq!(given_up(&processor), None, "no broker was asked");
    assert!(!job.has_topic(&format!("{}-dead", job.name)));
}

/// Lowers the bound of the topic of results, and waits until the broker says so.
fn lower_bound(job: &Job, bound: usize) {
    let (topic, bound) = (out(job), bound.to_string());
    job.set_topic(&topic, &[("retention.ms", "-1"), ("max.message.bytes", &bound)]);
    eventually("the bound is lowered", || {
        let found = job.settings_of(&topic);
        if found.get("max.message.bytes") == Some(&bound) {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
}

/// A topic is given a lower bound under a running task: only the broker can tell it, and has to do so once.
fn assert_lives_through_a_lower_bound(test: &str, bound: usize, key_bytes: usize) {
    let mut job = Job::new(test, 1);
    // A broker looks at what it gets: compressed, a long key is short.
    job.sink = Some(Reach {
        security: ", compression: None".to_owned(),
        ..job.reach.clone()
    });
    let processor = job.start("data");
    job.produce(400);
    job.assert_exact();
    lower_bound(&job, bound);
    let (mut ends_ms, mut refusals) = (Vec::new(), BTreeSet::new());
    for count in [1, 2] {
        ends_ms.push(produce_with_long_key(&job, key_bytes));
        job.produce(400);
        job.assert_exact();
        await_counted(&processor, count);
        refusals.extend(given_up(&processor));
        assert_eq!(refusals.len(), 1, "by the broker, and only at first: {refusals:?}");
    }
    assert_refused(&job, bound, &ends_ms);
}

/// Every batch of usual results fits: the long one alone is too large.
#[test]
fn a_bound_that_is_lowered_below_a_record_is_learned_from_the_broker() {
    assert_lives_through_a_lower_bound("lowered", 65_536, 40_000);
}

/// A broker holds its bound against batches, and those of the running client were made for the bound from before.
#[test]
fn a_bound_that_is_lowered_below_a_batch_is_learned_from_the_broker() {
    assert_lives_through_a_lower_bound("loweredbatch", 4_096, LONG);
}

/// Sends of an epoch, before a task closes and begins anew.
const SENDS: usize = 30;
/// A loop that stood still for so long would fail the liveness probe; a sink that takes nothing is no reason to.
const STUCK_AFTER_MS: &str = "20000";

/// A job that has published when its sink begins to refuse: a compacted topic takes no record without a key, as this dead
/// letter is.
fn refused(job: Job) -> (Job, Processor) {
    job.produce(1_000);
    let flags = ["--log-format", "json", "--stuck-after-ms", STUCK_AFTER_MS];
    let processor = job.start_with("data", &[&["--assign-all"], &flags[..]].concat(), None, "");
    assert_nothing_lost(&job);
    job.set_dead_letter_topic("cleanup.policy", "compact");
    job.produce_raw("no event");
    job.produce(1_000);
    (job, processor)
}

fn assert_alive(processor: &Processor) {
    let (code, words) = processor.ask("GET", "/livez", "").expect("answers");
    assert_eq!(code, 200, "{words}");
}

/// Lines of the log that say this.
fn lines(processor: &Processor, message: &str) -> Vec<Value> {
    let log = std::fs::read_to_string(&processor.log).expect("a log");
    let lines = log.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    lines.filter(|line: &Value| line["message"] == message).collect()
}

/// The first sends were made one behind the other, with a wait between two that doubles from 10 ms to 2 s.
fn assert_ever_more_seldom(processor: &Processor) {
    let failed = lines(processor, "transaction aborted, sending the epoch again");
    let times = failed.iter().take(SENDS).enumerate().map(|(number, line)| {
        assert_eq!(line["attempt"], number);
        let time = line["timestamp"]
            .as_str()
            .and_then(|text| text.parse::<jiff::Timestamp>().ok());
        time.expect("a time").as_millisecond()
    });
    let times: Vec<i64> = times.collect();
    assert_eq!(times.len(), SENDS);
    for (number, pair) in times.windows(2).enumerate() {
        let least = (10 << number.min(8)).min(2_000);
        assert!(pair[1] - pair[0] >= least, "behind send {number}: {times:?}");
    }
}

/// The whole course with transactions and without, side by side: most of it is waiting.
#[test]
fn a_sink_that_keeps_refusing_is_asked_ever_more_seldom_then_anew_and_when_it_takes_records_nothing_is_lost() {
    const GIVEN_UP: &str = r#"streamagg_errors_total{class="retry",kind="SinkFailing",task="0"}"#;
    const ABORTED: &str = r#"streamagg_transactions_total{outcome="aborted",task="0"}"#;
    let jobs = [Job::new("refuses", 1), at_least_once(Job::new("leastrefuses", 1))].map(refused);
    for (_, processor) in &jobs {
        let message = processor.await_problem("SinkFailing");
        assert!(message.contains("goes on trying"), "{message}");
        let status = processor.status().expect("answers");
        assert_eq!(status["tasks"][0]["state"], "Running", "{status}");
    }
    for (_, processor) in &jobs {
        eventually("it begins anew", || {
            assert_alive(processor);
            match (processor.counted(GIVEN_UP), processor.counted(ABORTED)) {
                (1, aborted) if aborted > SENDS as u64 => Ok(()),
                counted => Err(format!("{counted:?}")),
            }
        });
        assert_ever_more_seldom(processor);
        assert_eq!(lines(processor, "start-up").len(), 2);
    }
    for (job, processor) in &jobs {
        let ended = lines(processor, "life of the task ended");
        let words = ended[0]["end"].as_str().expect("text");
        assert!(words.contains("no transaction of an epoch succeeded for "), "{words}");
        job.set_dead_letter_topic("cleanup.policy", "delete");
    }
    let [(exactly, first), (least, second)] = &jobs;
    exactly.assert_exact();
    let mut letters = 0;
    exactly.read(&format!("{}-dead", exactly.name), &mut |_| letters += 1);
    assert_eq!(letters, 1, "once");
    assert_nothing_lost(least);
    for processor in [first, second] {
        processor.await_ready();
        assert_eq!(processor.counted(GIVEN_UP), 1);
        let status = processor.status().expect("answers");
        assert!(status["tasks"][0]["problem"].is_null(), "{status}");
    }
}
