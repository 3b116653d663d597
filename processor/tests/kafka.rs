//! The processor on a real broker: start-up, crashes, checkpoints and ownership, judged by a read_committed reader and
//! sums from plain code. Needs `--release` (RocksDB).

#![expect(clippy::panic, reason = "a test that cannot go on says so")]

#[path = "kafka/child.rs"]
mod child;
#[path = "kafka/rig.rs"]
mod rig;

use std::time::Duration;

use rig::{Job, copy_tree, eventually};

#[test]
fn a_birth_publishes_and_a_restart_goes_on() {
    let job = Job::new("birth", 2);
    job.produce(2_000);
    let processor = job.start("data");
    job.assert_exact();
    let status = processor.status().expect("answers");
    assert_eq!((&status["taskCount"], &status["generation"]), (&2.into(), &1.into()));
    assert_eq!(status["tasks"][0]["state"], "Running");
    processor.terminate();
    job.produce(3_000);
    let processor = job.start("data");
    job.assert_exact();
    assert!(
        !processor.metrics().contains("streamagg_replays_total{"),
        "local state was enough"
    );
}

#[test]
fn the_admin_api_wants_the_token_and_probes_do_not() {
    let job = Job::new("admin", 1);
    let processor = job.start("data");
    processor.await_ready();
    for path in ["/livez", "/readyz", "/startupz", "/metrics"] {
        assert_eq!(processor.ask("GET", path, "").expect("answers").0, 200, "{path}");
    }
    assert_eq!(processor.ask("POST", "/v1/drain?id=", "").expect("answers").0, 400);
    assert_eq!(processor.ask("POST", "/v1/assignment", "{}").expect("answers").0, 400);
    let (code, body) = processor
        .ask("POST", "/v1/assignment", r#"{"version":1,"generation":1,"tasks":{}}"#)
        .expect("answers");
    assert!(
        code == 200 && body.contains(r#""0":0"#),
        "an equal generation changes nothing: {body}"
    );
}

#[test]
fn a_lost_volume_is_restored_from_the_store_and_replayed() {
    let job = Job::new("restore", 2);
    job.produce(2_000);
    let mut processor = job.start("data");
    job.assert_exact();
    let done = processor.operate("/v1/checkpoint?id=one");
    let id = done["tasks"][0]["checkpoint"]["id"].as_str().expect("an id").to_owned();
    assert_eq!(
        processor.operate("/v1/checkpoint?id=one"),
        done,
        "asking again is polling"
    );
    job.produce(3_000);
    job.assert_exact();
    processor.kill();
    std::fs::remove_dir_all(job.directory("data")).expect("removes");
    let processor = job.start("data");
    processor.await_ready();
    assert_eq!(
        processor.status().expect("answers")["tasks"][0]["restoredFrom"],
        id.as_str()
    );
    assert!(
        processor
            .metrics()
            .contains(r#"streamagg_replays_total{kind="exact",task="0"} 1"#)
    );
    job.produce(2_000);
    job.assert_exact();
}

#[test]
fn a_damaged_checkpoint_is_refused_and_the_next_older_one_taken() {
    let job = Job::new("damaged", 1);
    job.produce(2_000);
    let mut processor = job.start("data");
    job.assert_exact();
    let older = processor.operate("/v1/checkpoint?id=older")["tasks"][0]["checkpoint"]["id"].clone();
    job.produce(2_000);
    job.assert_exact();
    let newer = processor.operate("/v1/checkpoint?id=newer")["tasks"][0]["checkpoint"]["id"].clone();
    processor.kill();
    let files = job
        .directory("store")
        .join(&job.name)
        .join("tasks/0/files")
        .join(newer.as_str().expect("an id"));
    for file in std::fs::read_dir(files).expect("files") {
        std::fs::write(file.expect("a file").path(), "damage").expect("writes");
    }
    std::fs::remove_dir_all(job.directory("data")).expect("removes");
    let processor = job.start("data");
    processor.await_ready();
    assert_eq!(processor.status().expect("answers")["tasks"][0]["restoredFrom"], older);
    job.produce(2_000);
    job.assert_exact();
}

#[test]
fn the_next_checkpoint_shares_no_file_with_one_that_was_refused() {
    let job = Job::new("mended", 1);
    job.produce(2_000);
    let mut processor = job.start("data");
    job.assert_exact();
    let id = processor.operate("/v1/checkpoint?id=one")["tasks"][0]["checkpoint"]["id"].clone();
    processor.kill();
    // Damage that keeps every size: only a restore notices it.
    let files = job.task_store().join("files").join(id.as_str().expect("an id"));
    for file in std::fs::read_dir(files).expect("files") {
        let path = file.expect("a file").path();
        let size = std::fs::metadata(&path).expect("a size").len();
        std::fs::write(path, vec![0; usize::try_from(size).expect("small")]).expect("writes");
    }
    std::fs::remove_dir_all(job.directory("data")).expect("removes");
    let mut processor = job.start("data");
    job.assert_exact();
    let id = processor.operate("/v1/checkpoint?id=two")["tasks"][0]["checkpoint"]["id"].clone();
    processor.kill();
    std::fs::remove_dir_all(job.directory("data")).expect("removes");
    let processor = job.start("data");
    processor.await_ready();
    assert_eq!(processor.status().expect("answers")["tasks"][0]["restoredFrom"], id);
    job.produce(1_000);
    job.assert_exact();
}

#[test]
fn a_checkpoint_that_retention_takes_away_during_the_fetch_gives_way_to_the_newer_one() {
    let job = Job::new("retired", 1);
    let mut processor = job.start("data");
    let mut ids = Vec::new();
    for round in ["older", "newer"] {
        job.produce(2_000);
        job.assert_exact();
        let done = processor.operate(&format!("/v1/checkpoint?id={round}"));
        ids.push(done["tasks"][0]["checkpoint"]["id"].as_str().expect("an id").to_owned());
    }
    processor.kill();
    std::fs::remove_dir_all(job.directory("data")).expect("removes");
    // The newer manifest is not listed yet, and a file of the older one can be fetched only when we say so: a pipe.
    let manifests = job.task_store().join("manifests");
    let (older, newer) = (
        manifests.join(format!("{}.json", ids[0])),
        manifests.join(format!("{}.json", ids[1])),
    );
    let aside = job.directory("aside.json");
    std::fs::rename(&newer, &aside).expect("moves");
    let document: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&older).expect("a manifest")).expect("JSON");
    let newer_text = std::fs::read_to_string(&aside).expect("a manifest");
    let own = document["files"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|file| file["object"].as_str())
        .find(|object| !newer_text.contains(&format!("\"{object}\"")))
        .expect("a file that only the older one has");
    let pipe = job.task_store().join(own);
    std::fs::remove_file(&pipe).expect("removes");
    let made = std::process::Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .expect("mkfifo runs");
    assert!(made.success());
    let processor = job.start("data");
    // Opens once the fetch has opened it to read.
    let fetched = std::fs::File::options()
        .write(true)
        .open(&pipe)
        .expect("the fetch has begun");
    std::fs::rename(&aside, &newer).expect("moves");
    std::fs::remove_file(&older).expect("removes");
    drop(fetched);
    processor.await_ready();
    assert_eq!(
        processor.status().expect("answers")["tasks"][0]["restoredFrom"],
        ids[1].as_str(),
        "{}",
        processor.log_text()
    );
    job.produce(1_000);
    job.assert_exact();
}

#[test]
fn without_a_checkpoint_a_lost_volume_is_replayed_from_birth() {
    let job = Job::new("rebirth", 1);
    job.produce(3_000);
    let mut processor = job.start("data");
    job.assert_exact();
    processor.kill();
    std::fs::remove_dir_all(job.directory("data")).expect("removes");
    let processor = job.start("data");
    job.produce(2_000);
    job.assert_exact();
    assert!(
        processor
            .metrics()
            .contains(r#"streamagg_replays_total{kind="exact",task="0"} 1"#)
    );
}

#[test]
fn a_stale_volume_is_replayed_to_the_committed_position() {
    let job = Job::new("stale", 1);
    job.produce(2_000);
    job.start("data").await_ready();
    let mut processor = job.start("data");
    job.assert_exact();
    processor.kill();
    copy_tree(&job.directory("data"), &job.directory("old"));
    job.produce(3_000);
    let mut processor = job.start("data");
    job.assert_exact();
    processor.kill();
    let processor = job.start("old");
    job.produce(2_000);
    job.assert_exact();
    assert!(
        processor
            .metrics()
            .contains(r#"streamagg_replays_total{kind="exact",task="0"} 1"#)
    );
}

#[test]
fn a_volume_of_another_job_is_discarded() {
    let (first, second) = (Job::new("first", 1), Job::new("second", 1));
    first.produce(2_000);
    first.start("data").await_ready();
    let mut processor = first.start("data");
    first.assert_exact();
    processor.kill();
    copy_tree(&first.directory("data"), &second.directory("data"));
    second.produce(3_000);
    let processor = second.start("data");
    second.assert_exact();
    assert!(processor.log_text().contains("local state discarded"));
}

#[test]
fn a_control_topic_that_was_emptied_stops_the_task() {
    let job = Job::new("behind", 1);
    job.produce(2_000);
    let mut processor = job.start("data");
    job.assert_exact();
    let before = job.published().len();
    processor.kill();
    job.delete_topic(&format!("{}-control", job.name));
    let processor = job.start("data");
    processor.await_problem("CommittedPositionBehindState");
    job.produce(1_000);
    assert_eq!(job.published().len(), before, "nothing is published again");
}

#[test]
fn another_uid_finds_the_identity_in_use() {
    let job = Job::new("identity", 1);
    job.produce(2_000);
    let processor = job.start("data");
    job.assert_exact();
    processor.terminate();
    let processor = job.start_with("other", &["--assign-all", "--uid", "another"], None, "");
    let message = processor.await_problem("IdentityInUse");
    assert!(message.contains("local") && message.contains("another"), "{message}");
}

#[test]
fn unread_input_that_was_deleted_stops_the_task() {
    let job = Job::new("truncated", 1);
    job.produce(2_000);
    let processor = job.start("data");
    job.assert_exact();
    processor.terminate();
    job.produce(2_000);
    job.delete_records_before(0, 3_000);
    let processor = job.start("data");
    let message = processor.await_problem("InputTruncated");
    assert!(message.contains("3000"), "{message}");
}

#[test]
fn deleted_markers_behind_the_last_record_are_not_taken_for_lost_input() {
    let job = Job::new("quiet", 1);
    job.produce(2_000);
    let mut processor = job.start("data");
    job.assert_exact();
    let epoch = |processor: &child::Processor| processor.status().ok()?["tasks"][0]["epoch"].as_u64();
    let before = epoch(&processor).expect("an epoch");
    // A transaction upstream that is given up: records nobody may read, and a marker.
    job.produce_aborted(10);
    eventually("the position knows that it passed them", || match epoch(&processor) {
        Some(now) if now > before => Ok(()),
        other => Err(format!("epoch {other:?}, was {before}")),
    });
    processor.kill();
    // Retention takes everything: 2,000 records, 10 aborted ones and the marker.
    job.delete_records_before(0, 2_011);
    let processor = job.start("data");
    processor.await_ready();
    job.produce(2_000);
    job.assert_exact();
}

#[test]
fn a_source_topic_created_anew_is_noticed() {
    let job = Job::new("recreated", 1);
    job.produce(2_000);
    let processor = job.start("data");
    job.assert_exact();
    processor.terminate();
    job.delete_topic(&job.name);
    job.create_topic(&job.name);
    let processor = job.start("data");
    processor.await_problem("InputRecreated");
}

#[test]
fn a_missing_source_topic_is_named_and_awaited() {
    let job = Job::without_topic("missing", 1);
    let processor = job.start("data");
    let message = processor.await_problem("TopicMissing");
    assert!(
        message.contains(&job.name) && message.contains("spec.source.kafka.topics"),
        "{message}"
    );
    job.create_topic(&job.name);
    job.produce(2_000);
    job.assert_exact();
}

#[test]
fn twins_fence_each_other_and_nothing_is_published_twice() {
    let job = Job::new("twins", 1);
    job.produce(3_000);
    let mut first = job.start("first");
    first.await_ready();
    let second = job.start("second");
    second.await_ready();
    job.produce(3_000);
    job.assert_exact();
    first.kill();
    job.produce(3_000);
    job.assert_exact();
    assert!(second.log_text().contains("start-up"));
}

#[test]
fn tasks_move_by_drain_and_a_higher_generation() {
    let job = Job::new("moves", 2);
    job.produce(2_000);
    let assignment = job.directory("assignment.json");
    let path = assignment.to_str().expect("text");
    let first = job.start_with("first", &["--assignment", path, "--ordinal", "0"], None, "");
    let second = job.start_with("second", &["--assignment", path, "--ordinal", "1"], None, "");
    eventually("task count", || match first.status()?["taskCount"].as_u64() {
        Some(2) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(
        first.ask("GET", "/readyz", "").expect("answers").0,
        503,
        "nothing is assigned yet"
    );
    let push = |generation: u32, tasks: &str| {
        let body = format!(r#"{{"version":1,"generation":{generation},"tasks":{tasks}}}"#);
        for pod in [&first, &second] {
            assert_eq!(pod.ask("POST", "/v1/assignment", &body).expect("answers").0, 200);
        }
    };
    push(1, r#"{"0":0,"1":0}"#);
    job.assert_exact();
    let drained = first.operate("/v1/drain?id=move&tasks=1");
    assert!(drained["tasks"][0]["checkpoint"]["id"].is_string(), "{drained}");
    job.produce(3_000);
    push(2, r#"{"0":0,"1":1}"#);
    job.assert_exact();
    let status = second.status().expect("answers");
    assert_eq!(
        status["tasks"][0]["restoredFrom"],
        drained["tasks"][0]["checkpoint"]["id"]
    );
    assert!(
        !second.metrics().contains("streamagg_replays_total{"),
        "drained to K: nothing to replay"
    );
    // Without a drain: the next owner claims and replays.
    push(3, r#"{"0":1,"1":0}"#);
    job.produce(3_000);
    job.assert_exact();
    assert_eq!(second.status().expect("answers")["generationSeen"], 3);
}

#[test]
fn results_of_windows_in_the_future_are_published() {
    /// The year 2100. Brokers refuse records with a timestamp more than an hour ahead.
    const FAR_MS: i64 = 4_102_444_800_000;
    let job = Job::new("future", 1);
    job.produce_from(FAR_MS, 2_000);
    let _processor = job.start("data");
    job.assert_exact();
}

#[test]
fn a_crash_at_every_failpoint_loses_and_repeats_nothing() {
    let job = Job::new("failpoints", 1);
    for failpoint in ["before-commit:3", "after-commit-before-state:3"] {
        let mut processor = job.start_with("data", &["--assign-all"], Some(failpoint), "");
        // Later epochs follow only if there is more to read.
        while !processor.has_ended() {
            job.produce(400);
        }
        processor.wait_for_crash();
        let mut processor = job.start("data");
        job.assert_exact();
        processor.kill();
    }
    for failpoint in ["mid-checkpoint-upload", "after-manifest"] {
        let mut processor = job.start_with("data", &["--assign-all"], Some(failpoint), "");
        processor.await_ready();
        job.produce(1_000);
        job.assert_exact();
        processor.ask("POST", "/v1/checkpoint?id=crash", "").expect("answers");
        processor.wait_for_crash();
    }
    std::fs::remove_dir_all(job.directory("data")).expect("removes");
    job.produce(1_000);
    let processor = job.start("data");
    job.assert_exact();
    assert!(processor.status().expect("answers")["tasks"][0]["restoredFrom"].is_string());
    drop(processor);
    let assignment = job.directory("assignment.json");
    std::fs::write(&assignment, r#"{"version":1,"generation":5,"tasks":{"0":0}}"#).expect("writes");
    let flags = ["--assignment", assignment.to_str().expect("text")];
    let mut processor = job.start_with("data", &flags, Some("after-claim"), "");
    processor.wait_for_crash();
    let _processor = job.start_with("data", &flags, None, "");
    job.produce(1_000);
    job.assert_exact();
}

#[test]
fn a_crash_in_the_middle_of_a_replay_goes_on_from_there() {
    let job = Job::new("midreplay", 1);
    job.produce(300_000);
    let mut processor = job.start("data");
    job.assert_exact();
    processor.kill();
    std::fs::remove_dir_all(job.directory("data")).expect("removes");
    let mut processor = job.start_with("data", &["--assign-all"], Some("mid-replay"), "");
    processor.wait_for_crash();
    let processor = job.start("data");
    job.produce(2_000);
    job.assert_exact();
    assert!(processor.log_text().contains("base: Local"), "{}", processor.log_text());
}

#[test]
fn sigkill_at_random_times_under_load_loses_and_repeats_nothing() {
    let job = Job::new("sigkill", 2);
    let mut kills = 0;
    let mut seed = 12_345_u64;
    for round in 0..8 {
        let mut processor = job.start("data");
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let lives = Duration::from_millis(300 + (seed >> 33) % 2_500);
        let end = std::time::Instant::now() + lives;
        while std::time::Instant::now() < end {
            job.produce(400);
        }
        processor.kill();
        kills += 1;
        if round % 3 == 2 {
            std::fs::remove_dir_all(job.directory("data")).expect("removes");
        }
    }
    assert_eq!(kills, 8);
    let _processor = job.start("data");
    job.assert_exact();
}

#[test]
fn a_changed_spec_goes_on_from_drained_state_and_rebuilds_from_older() {
    let job = Job::new("revision", 1);
    job.produce(2_000);
    let processor = job.start("data");
    job.assert_exact();
    processor.terminate();
    copy_tree(&job.directory("data"), &job.directory("old"));
    // Another revision: the values that are looked at stay, one is added.
    let extra = ", {name: m, max: {field: /v}}";
    let mut processor = job.start_with("data", &["--assign-all"], None, extra);
    job.produce(3_000);
    job.assert_exact();
    assert!(!processor.metrics().contains("streamagg_replays_total{"));
    processor.kill();
    // The first revision again, with a volume from before: K was written by another revision.
    let mut processor = job.start("old");
    job.produce(2_000);
    job.assert_exact();
    assert!(
        processor.metrics().contains(r#"kind="across_revisions",task="0"} 1"#),
        "{}",
        processor.metrics()
    );
    processor.kill();
    // The fork is a lineage like any other: local state written after it goes on.
    let processor = job.start("old");
    job.produce(1_000);
    job.assert_exact();
    assert!(!processor.metrics().contains("streamagg_replays_total{"));
}

#[test]
fn a_crash_between_the_commit_of_a_new_lineage_and_the_local_write_goes_on_from_local_state() {
    let job = Job::new("forked", 1);
    job.produce(2_000);
    let processor = job.start("data");
    job.assert_exact();
    processor.terminate();
    copy_tree(&job.directory("data"), &job.directory("old"));
    let extra = ", {name: m, max: {field: /v}}";
    let mut processor = job.start_with("data", &["--assign-all"], None, extra);
    job.produce(2_000);
    job.assert_exact();
    processor.kill();
    // Neither a checkpoint nor the log's beginning: the old volume is all there is.
    std::fs::remove_dir_all(job.directory("store")).expect("removes");
    job.delete_records_before(0, 2_000);
    let mut processor = job.start_with("old", &["--assign-all"], Some("after-fork"), "");
    processor.wait_for_crash();
    let processor = job.start("old");
    processor.await_ready();
    job.produce(2_000);
    job.assert_exact();
    assert!(
        processor.metrics().contains(r#"kind="exact",task="0"} 1"#),
        "{}",
        processor.metrics()
    );
}
