//! What is damaged, or is not what it was, when a processor starts: the volume, the source, the committed position.
//! Must not test damaged checkpoints (`checkpoints`).

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

use super::child::Processor;
use super::rig::{Job, LOOKING_OFTEN, PATIENCE, eventually};

/// Key of the committed position of a task.
fn position_of(task: u32) -> String {
    format!(r#"{{"position":{{"task":{task}}}}}"#)
}

fn control(job: &Job) -> String {
    format!("{}-control", job.name)
}

/// Files of a database with such names; there is one at least.
fn files(database: &Path, is_one: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let all = fs::read_dir(database).expect("a database");
    let paths = all.map(|file| file.expect("a file").path());
    let named = |path: &PathBuf| path.file_name().and_then(OsStr::to_str).is_some_and(&is_one);
    let found: Vec<PathBuf> = paths.filter(named).collect();
    assert!(!found.is_empty(), "no such file in {}", database.display());
    found
}

/// A job with a checkpoint, and more behind it, meets this damage: it must go on as if nothing had been, and its volume
/// be whole again. Answers the checkpoint and what the task was restored from.
fn goes_on_after(test: &str, damage: impl FnOnce(&Path)) -> (Value, Value) {
    let job = Job::new(test, 1);
    job.produce(1_000);
    let mut processor = job.start("data");
    job.assert_exact();
    // It writes out what was in the log: there is a table now, and what follows is in another log.
    let checkpoint = processor.operate("/v1/checkpoint?id=one")["tasks"][0]["checkpoint"]["id"].clone();
    job.produce(1_000);
    job.assert_exact();
    processor.kill();
    damage(&job.directory("data").join("tasks/0/db"));
    let processor = job.start("data");
    processor.await_ready();
    job.produce(1_000);
    job.assert_exact();
    processor.assert_replayed_exactly();
    let restored = processor.status().expect("answers")["tasks"][0]["restoredFrom"].clone();
    processor.terminate();
    let processor = job.start("data");
    job.produce(1_000);
    job.assert_exact();
    let metrics = processor.metrics();
    assert!(!metrics.contains("streamagg_replays_total{"), "{metrics}");
    (checkpoint, restored)
}

#[test]
fn a_table_cut_in_half_gives_way_to_the_checkpoint() {
    let (checkpoint, restored) = goes_on_after("halftable", |database| {
        for table in files(database, |name| name.ends_with(".sst")) {
            let size = fs::metadata(&table).expect("a size").len();
            let file = fs::File::options().write(true).open(&table).expect("opens");
            file.set_len(size / 2).expect("cuts");
        }
    });
    assert_eq!(restored, checkpoint);
}

#[test]
fn a_database_without_its_manifest_gives_way_to_the_checkpoint() {
    let (checkpoint, restored) = goes_on_after("nomanifest", |database| {
        for manifest in files(database, |name| name.starts_with("MANIFEST-")) {
            fs::remove_file(manifest).expect("removes");
        }
    });
    assert_eq!(restored, checkpoint);
}

/// RocksDB begins a new database then, among the files of the old one.
#[test]
fn a_database_that_does_not_say_which_manifest_holds_gives_way_to_the_checkpoint() {
    let (checkpoint, restored) = goes_on_after("nocurrent", |database| {
        fs::remove_file(database.join("CURRENT")).expect("removes");
    });
    assert_eq!(restored, checkpoint);
}

/// RocksDB forgets what was in it and says nothing. What is left is as old as the checkpoint: either will do.
#[test]
fn a_log_of_garbage_costs_a_replay_and_nothing_else() {
    goes_on_after("garbagelog", |database| {
        let mut bytes = 0;
        for log in files(database, |name| name.ends_with(".log")) {
            let size = usize::try_from(fs::metadata(&log).expect("a size").len()).expect("small");
            fs::write(&log, vec![0xa5_u8; size]).expect("writes");
            bytes += size;
        }
        assert!(bytes > 0, "there was nothing to damage");
    });
}

#[test]
fn a_compacted_source_is_refused_until_it_keeps_its_records() {
    let job = Job::without_topic("compacted", 1);
    job.create_topic_with(&job.name, 1, &[("cleanup.policy", "compact")]);
    let mut processor = job.start_with("data", &LOOKING_OFTEN, None, "");
    let message = processor.await_problem("TopicCompacted");
    for part in [
        job.name.as_str(),
        "spec.source.kafka.topics",
        "set its cleanup.policy to delete",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert!(!job.has_topic(&control(&job)), "nothing has begun");
    job.set_topic(&job.name, &[("cleanup.policy", "delete")]);
    processor.await_ready();
    job.produce(1_000);
    job.assert_exact();
    // Under a task that runs it stops, for what it needs may be gone.
    job.set_topic(&job.name, &[("cleanup.policy", "compact")]);
    processor.await_problem("TopicCompacted");
    processor.kill();
    job.set_topic(&job.name, &[("cleanup.policy", "delete")]);
    let _processor = job.start("data");
    job.produce(1_000);
    job.assert_exact();
}

#[test]
fn a_partition_added_to_a_source_whose_keys_stay_in_theirs_stops_the_job() {
    let mut job = Job::new("grown", 1);
    job.produce(1_000);
    let mut processor = job.start_with("data", &LOOKING_OFTEN, None, "");
    job.assert_exact();
    job.add_partition();
    let is_told = |processor: &Processor| {
        let message = processor.await_problem("PartitionsChanged");
        assert!(
            message.contains("has 2") && message.contains("another jobId"),
            "{message}"
        );
    };
    // Under the task that runs, and at every start.
    is_told(&processor);
    processor.kill();
    let results = format!("{}-out", job.name);
    let before = job.offsets(&results, 0);
    job.produce(1_000);
    is_told(&job.start("data"));
    assert_eq!(job.offsets(&results, 0), before, "nothing is published");
}

#[test]
fn a_second_process_on_a_volume_waits_for_the_first_and_leaves_it_alone() {
    let job = Job::new("samevolume", 1);
    job.produce(1_000);
    let first = job.start("data");
    job.assert_exact();
    let second = job.start("data");
    let message = second.await_problem("VolumeInUse");
    assert!(message.contains("data/tasks/0"), "{message}");
    job.produce(1_000);
    job.assert_exact();
    let metrics = first.metrics();
    assert!(!metrics.contains(r#"kind="Fenced""#), "{metrics}");
    first.terminate();
    second.await_ready();
    job.produce(1_000);
    job.assert_exact();
    let metrics = second.metrics();
    assert!(!metrics.contains("streamagg_replays_total{"), "{metrics}");
}

/// The committed position of a task.
pub(super) fn committed(job: &Job, task: u32) -> Value {
    let (key, mut last) = (position_of(task), None);
    job.read(&control(job), &mut |message| {
        if message.key() == Some(key.as_bytes()) {
            last = message.payload().map(<[u8]>::to_vec);
        }
    });
    serde_json::from_slice(&last.expect("one was committed")).expect("JSON")
}

/// Makes this the committed position of a task, as nobody but its owner may.
pub(super) fn commit(job: &Job, task: u32, position: &Value) {
    let producer: BaseProducer = job.client().create().expect("a producer");
    let (topic, key, text) = (control(job), position_of(task), position.to_string());
    let record = BaseRecord::<str, str>::to(&topic).key(&key).payload(&text);
    let partition = i32::try_from(task).expect("a partition");
    assert!(producer.send(record.partition(partition)).is_ok());
    producer.flush(PATIENCE).expect("the broker takes it");
}

#[test]
fn a_committed_position_that_nothing_leads_to_stops_the_task_and_nothing_is_published() {
    let job = Job::new("diverged", 1);
    job.produce(1_000);
    let mut processor = job.start("data");
    job.assert_exact();
    processor.operate("/v1/checkpoint?id=one");
    processor.kill();
    // Local state is an epoch behind, as is the checkpoint; and there is the birth.
    job.crash_while_producing("after-commit-before-state:2");
    let (position, before) = (committed(&job, 0), job.published().len());
    for hash in ["outputHash", "inputHash"] {
        let mut changed = position.clone();
        let value = &mut changed["enginePosition"][hash];
        *value = (value.as_u64().expect("a number") ^ 1).into();
        commit(&job, 0, &changed);
        let mut processor = job.start("data");
        let message = processor.await_problem("ReplayDiverged");
        assert!(message.contains("from every base"), "{message}");
        assert_eq!(job.published().len(), before, "nothing is published");
        processor.kill();
    }
    // Nothing was lost meanwhile, either.
    commit(&job, 0, &position);
    let processor = job.start("data");
    // Its results are there already.
    processor.await_ready();
    job.assert_exact();
    processor.assert_replayed_exactly();
}

/// Brokers that lose a commit which they had acknowledged leave a task of the first stage, which has no volume, nothing to
/// notice it by but what its process knows.
#[test]
fn a_commit_that_brokers_acknowledged_and_lost_stops_a_task_without_state() {
    let job = Job::new("losescommit", 2).in_two_stages(1);
    let combine = 1;
    // Behind the last record of its partition nothing else is committed.
    let committed_at_end = |records: u64| {
        eventually("everything committed", || {
            let position = committed(&job, combine);
            let is_whole = position["enginePosition"]["inputCount"] == records;
            is_whole.then(|| position.clone()).ok_or_else(|| position.to_string())
        })
    };
    job.produce(1_000);
    let processor = job.start("data");
    job.assert_exact();
    let older = committed_at_end(1_000);
    job.produce(1_000);
    job.assert_exact();
    let newest = committed_at_end(2_000);
    commit(&job, combine, &older);
    // Its next transaction is refused, and it starts up again.
    let mut settings = job.client();
    settings.set("transactional.id", format!("{0}/combine/{0}/0", job.name));
    let twin: BaseProducer = settings.create().expect("a producer");
    twin.init_transactions(PATIENCE).expect("initialises");
    let before = job.published().len();
    job.produce(1_000);
    let message = processor.await_problem("CommittedPositionBehindState");
    assert!(message.contains("state of this pod"), "{message}");
    assert_eq!(job.published().len(), before, "nothing is published");
    processor.terminate();
    commit(&job, combine, &newest);
    let _processor = job.start("data");
    job.assert_exact();
}
