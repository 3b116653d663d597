//! The processor on a real broker: start-up, crashes, checkpoints and ownership, judged by a read_committed reader and
//! sums from plain code. Needs `--release` (RocksDB).

#![expect(clippy::panic, reason = "a test that cannot go on says so")]

#[path = "kafka/at_least_once.rs"]
mod at_least_once;
#[path = "kafka/behind.rs"]
mod behind;
#[path = "kafka/brokers.rs"]
mod brokers;
#[path = "kafka/checkpoints.rs"]
mod checkpoints;
#[path = "kafka/child.rs"]
mod child;
#[path = "kafka/clock.rs"]
mod clock;
#[path = "kafka/codecs.rs"]
mod codecs;
#[path = "kafka/compaction.rs"]
mod compaction;
#[path = "kafka/damage.rs"]
mod damage;
#[path = "kafka/drift.rs"]
mod drift;
#[path = "kafka/forgotten.rs"]
mod forgotten;
#[path = "kafka/group.rs"]
mod group;
#[path = "kafka/input.rs"]
mod input;
#[path = "kafka/live.rs"]
mod live;
#[path = "kafka/mark.rs"]
mod mark;
#[path = "kafka/memory.rs"]
mod memory;
#[path = "kafka/observe.rs"]
mod observe;
#[path = "kafka/reading.rs"]
mod reading;
#[path = "kafka/rewind.rs"]
mod rewind;
#[path = "kafka/rig.rs"]
mod rig;
#[path = "kafka/rights.rs"]
mod rights;
#[path = "kafka/security.rs"]
mod security;
#[path = "kafka/settings.rs"]
mod settings;
#[path = "kafka/shedding.rs"]
mod shedding;
#[path = "kafka/sinks.rs"]
mod sinks;
#[path = "kafka/spans.rs"]
mod spans;
#[path = "kafka/stages.rs"]
mod stages;
#[path = "kafka/stages_change.rs"]
mod stages_change;
#[path = "kafka/stages_checkpoint.rs"]
mod stages_checkpoint;
#[path = "kafka/stages_late.rs"]
mod stages_late;
#[path = "kafka/stages_rewind.rs"]
mod stages_rewind;
#[path = "kafka/stages_topics.rs"]
mod stages_topics;
#[path = "kafka/start_from.rs"]
mod start_from;
#[path = "kafka/topics.rs"]
mod topics;
#[path = "kafka/upstream.rs"]
mod upstream;
#[path = "kafka/volume.rs"]
mod volume;

use std::time::Duration;

use rig::{Job, TOKEN, copy_tree, eventually};

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
        let (code, words) = processor.ask_as(None, ("GET", path, "")).expect("answers");
        assert_eq!(code, 200, "{path}: {words}");
    }
    processor.assert_refuses(None);
    let nearly = [format!("Bearer {TOKEN}s"), format!("Bearer {}", &TOKEN[1..])];
    for authorization in nearly.iter().map(String::as_str).chain(["Bearer", TOKEN]) {
        processor.assert_refuses(Some(authorization));
    }
    let status = processor.status().expect("answers");
    let stands = (&status["generation"], &status["tasks"][0]["state"]);
    assert_eq!(stands, (&1.into(), &"Running".into()), "nothing of it was done");
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
fn a_log_of_json_has_an_object_on_every_line() {
    let job = Job::new("json", 1);
    job.produce(1_000);
    let processor = job.start_with("data", &["--assign-all", "--log-format", "json"], None, "");
    processor.await_ready();
    let text = std::fs::read_to_string(&processor.log).expect("a log");
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert!(
        lines
            .iter()
            .all(|line| line["timestamp"].is_string() && line["level"].is_string())
    );
    assert!(
        lines
            .iter()
            .any(|line| line["message"] == "start-up" && line["task"] == 0),
        "{text}"
    );
}

#[test]
fn without_a_checkpoint_a_lost_volume_is_replayed_from_birth() {
    let job = Job::new("rebirth", 1);
    job.produce(3_000);
    let mut processor = job.start("data");
    job.assert_exact();
    processor.kill();
    job.lose("data");
    let processor = job.start("data");
    job.produce(2_000);
    job.assert_exact();
    processor.assert_replayed_exactly();
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
    processor.assert_replayed_exactly();
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
fn twins_fence_each_other_and_nothing_is_published_twice() {
    let job = Job::new("twins", 1);
    job.produce(3_000);
    let mut first = job.start("first");
    first.await_ready();
    let second = job.start("second");
    second.await_ready();
    job.produce(3_000);
    job.assert_exact();
    let fenced = r#"streamagg_errors_total{class="retry",kind="Fenced",task="0"}"#;
    eventually("each has fenced the other", || {
        // A twin finds out when it commits.
        job.produce(100);
        let times = [&first, &second].map(|twin| twin.counted(fenced));
        (!times.contains(&0)).then_some(()).ok_or_else(|| format!("{times:?}"))
    });
    first.kill();
    job.produce(3_000);
    job.assert_exact();
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
        job.crash_while_producing(failpoint);
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
    job.lose("data");
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
fn a_commit_whose_outcome_nobody_knows_is_looked_up() {
    let unknown = r#"streamagg_transactions_total{outcome="unknown",task="0"}"#;
    for name in ["request-lost", "answer-lost"] {
        let job = Job::new(name, 1);
        let mut processor = job.start_with("data", &["--assign-all"], Some(&format!("{name}:2")), "");
        for _ in 0..3 {
            job.produce(1_000);
            job.assert_exact();
        }
        assert_eq!(processor.counted(unknown), 1, "{name}: {}", processor.metrics());
        processor.kill();
        job.produce(1_000);
        let _processor = job.start("data");
        job.assert_exact();
    }
}

#[test]
fn a_crash_in_the_middle_of_a_replay_goes_on_from_there() {
    let job = Job::new("midreplay", 1);
    job.produce(300_000);
    let mut processor = job.start("data");
    job.assert_exact();
    processor.kill();
    job.lose("data");
    // A slow machine makes a checkpoint before its time, and then the replay is too short.
    if job.directory("store").exists() {
        job.lose("store");
    }
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
            job.lose("data");
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
    job.lose("store");
    job.delete_records_before(0, 2_000);
    let mut processor = job.start_with("old", &["--assign-all"], Some("after-fork"), "");
    processor.wait_for_crash();
    let processor = job.start("old");
    processor.await_ready();
    job.produce(2_000);
    job.assert_exact();
    processor.assert_replayed_exactly();
}
