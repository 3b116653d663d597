//! What a running processor says of itself: figures, live questions, room on the volume. Must not judge results, except
//! that none is lost.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::child::Processor;
use super::clock::IDLE;
use super::rig::{Job, More, eventually, replace};
use super::spans::traces;

/// Value of one series of the metrics, by its name with labels.
fn figure(metrics: &str, series: &str) -> Option<f64> {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

#[track_caller]
fn wanted(metrics: &str, series: &str) -> f64 {
    figure(metrics, series).unwrap_or_else(|| panic!("{series} is not in\n{metrics}"))
}

/// What docs/monitoring.md promises of a job that has come so far, by name without `streamagg_`.
const PROMISED: [&str; 38] = [
    // Throughput.
    "records_total",
    "results_total",
    "late_total",
    "dead_letters_total",
    "records_too_large_total",
    // Latency, end to end and by stage.
    "end_to_end_seconds",
    "record_commit_seconds",
    "window_result_seconds",
    "stage_seconds",
    // Lag, event time.
    "lag_records",
    "lag_seconds",
    "watermark_milliseconds",
    "watermark_lag_seconds",
    // State.
    "state_bytes",
    "state_keys",
    "state_rows",
    "open_windows",
    // Epochs, commits.
    "epoch",
    "input_offset",
    "commits_total",
    "transactions_total",
    "transaction_seconds",
    // Checkpoints.
    "checkpoint_age_seconds",
    "checkpoint_timestamp_seconds",
    "checkpoint_bytes",
    "checkpoint_seconds",
    "checkpoint_snapshot_seconds",
    // Errors, rebalances.
    "errors_total",
    "assignments_total",
    // The process.
    "memory_resident_bytes",
    "memory_resident_peak_bytes",
    "memory_limit_bytes",
    "memory_budget_bytes",
    "volume_free_bytes",
    "volume_size_bytes",
    "threads",
    "ready",
    "decisions_total",
];

#[test]
fn the_figures_of_a_running_job_are_there_and_make_sense() {
    let job = Job::new("figures", 2);
    job.produce(3_000);
    let processor = job.start("data");
    job.assert_exact();
    processor.operate("/v1/checkpoint?id=one");
    let metrics = eventually("lag 0 of both tasks", || {
        let metrics = processor.metrics();
        let is_zero = |task: u32| figure(&metrics, &format!(r#"streamagg_lag_records{{task="{task}"}}"#)) == Some(0.0);
        if is_zero(0) && is_zero(1) {
            Ok(metrics)
        } else {
            Err(metrics)
        }
    });
    let of = |series: &str| wanted(&metrics, series);
    // Every record was committed, every one that ended a window was measured; all of it just now.
    assert_eq!(of(r#"streamagg_record_commit_seconds_count{task="0"}"#), 3_000.0);
    assert!(of(r#"streamagg_end_to_end_seconds_count{task="0"}"#) >= 10.0);
    assert!(of(r#"streamagg_end_to_end_seconds_bucket{task="0",le="60"}"#) >= 10.0);
    assert!(of(r#"streamagg_window_result_seconds_count{task="0"}"#) >= 100.0);
    for stage in ["poll", "step", "produce", "commit", "save"] {
        let count = of(&format!(r#"streamagg_stage_seconds_count{{stage="{stage}",task="1"}}"#));
        assert!(count >= 1.0, "{stage}");
    }
    assert_eq!(of(r#"streamagg_lag_seconds{task="0"}"#), 0.0);
    assert!(
        of(r#"streamagg_watermark_lag_seconds{task="0"}"#) > 1e9,
        "events of 1970"
    );
    assert!(of(r#"streamagg_checkpoint_age_seconds{task="0"}"#) < 90.0);
    assert!(of(r#"streamagg_state_bytes{task="0"}"#) > 0.0);
    assert!(of(r#"streamagg_transactions_total{outcome="committed",task="0"}"#) >= 2.0);
    assert_eq!(of(r#"streamagg_assignments_total{change="taken"}"#), 2.0);
    assert!(of("streamagg_memory_resident_bytes") > 1e6);
    assert!(of("streamagg_memory_budget_bytes") >= 1e6);
    assert!(of("streamagg_volume_size_bytes") >= of("streamagg_volume_free_bytes"));
    assert_eq!(of("streamagg_ready"), 1.0);
    assert!(!metrics.contains(r#"class="fatal""#), "{metrics}");
    job.produce_raw("no event");
    let metrics = eventually("a dead letter", || {
        let metrics = processor.metrics();
        if metrics.contains("streamagg_dead_letters_total") {
            Ok(metrics)
        } else {
            Err(metrics)
        }
    });
    for name in PROMISED {
        let family = format!("# TYPE streamagg_{name} ");
        assert!(metrics.contains(&family), "streamagg_{name} is not in\n{metrics}");
    }
}

/// What `explain` counts for three brokers is what a process has with one, less the threads of the other two.
#[test]
fn threads_are_as_many_as_explain_says() {
    let job = Job::new("threads", 3);
    job.produce(500);
    let processor = job.start("data");
    job.assert_exact();
    processor.operate("/v1/checkpoint?id=one");
    let explained = Command::new(env!("CARGO_BIN_EXE_streamagg-processor"))
        .args(["explain", "-f"])
        .arg(job.directory("job.yaml"))
        .output()
        .expect("explain runs");
    let text = String::from_utf8_lossy(&explained.stdout).into_owned();
    let clients = text.split_once("clients of a pod").map_or("", |(_, rest)| rest);
    let number_in = |row: &str| -> f64 {
        let rest = clients
            .split_once(row)
            .unwrap_or_else(|| panic!("{row} is not in {text}"))
            .1;
        let word = rest.split_whitespace().next();
        word.and_then(|word| word.parse().ok()).expect("a number")
    };
    let explained = number_in("the pod") + 3.0 * number_in("a task");
    // Two brokers less than explained for each of seven clients.
    let expected = explained - 14.0;
    // Threads that only carry out one request on files are gone after ten seconds.
    eventually("as many threads", || {
        let threads = wanted(&processor.metrics(), "streamagg_threads");
        if (threads - expected).abs() <= 4.0 {
            Ok(())
        } else {
            Err(format!("{threads} threads, {expected} expected\n{text}"))
        }
    });
}

#[test]
fn open_windows_of_a_key_and_what_holds_a_window_are_told() {
    let job = Job::new("questions", 1);
    job.produce(1_000);
    let processor = job.start("data");
    job.assert_exact();
    let ask = |path: &str| -> (u16, Value) {
        let (code, body) = processor.ask("GET", path, "").expect("answers");
        (code, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    };
    // Results are there before the last events are read, and the lag is looked at every two seconds only.
    eventually("everything is read", || {
        let (_, why) = ask("/v1/why?window=w&start=5004000");
        if why["tasks"][0]["lag"] == 0 {
            Ok(())
        } else {
            Err(why.to_string())
        }
    });
    // The last events are of 5,000,000 + 999 × 5 ms: the window from 5,004,000 is open, that before it is over.
    let (code, found) = ask("/v1/windows?key=%7B%22k%22%3A%22k0%22%7D");
    assert_eq!(code, 200, "{found}");
    let row = &found["tasks"][0];
    let starts: Vec<i64> = row["windows"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|window| window["start"].as_i64())
        .collect();
    assert_eq!((&found["key"]["k"], starts), (&"k0".into(), vec![5_004_000]), "{found}");
    let (count, sum) = job.open_window(5_004_000, 0);
    let values = &row["windows"][0]["values"];
    assert_eq!((&values["n"], &values["s"]), (&count.into(), &sum.into()), "{found}");
    let (_, nobody) = ask("/v1/windows?key=%7B%22k%22%3A%22nobody%22%7D");
    assert_eq!(nobody["tasks"][0]["windows"], serde_json::json!([]));

    let (code, why) = ask("/v1/why?window=w&start=5004000");
    let row = &why["tasks"][0];
    assert_eq!(
        (code, &row["verdict"], &row["end"]),
        (200, &"AwaitsEvents".into(), &5_005_000.into()),
        "{why}"
    );
    let because = row["because"].as_str().expect("text");
    assert!(because.contains("of time 5005100 or later"), "{because}");
    let (_, why) = ask("/v1/why?window=w&start=1970-01-01T01:23:23Z");
    assert_eq!(why["tasks"][0]["verdict"], "Closed", "{why}");

    for (path, part) in [
        ("/v1/windows?key=k0", "no JSON object"),
        ("/v1/windows?key=%7B%7D", "\"k\" is missing"),
        ("/v1/why?window=nobody&start=0", "there are w"),
        ("/v1/why?window=w&start=soon", "neither milliseconds"),
    ] {
        let (code, words) = ask(path);
        assert!(
            code == 400 && words.to_string().contains(&part.replace('"', "\\\"")),
            "{path}: {code} {words}"
        );
    }
    processor.operate("/v1/drain?id=over");
    let (_, drained) = ask("/v1/windows?key=%7B%22k%22%3A%22k0%22%7D");
    assert_eq!(drained["tasks"][0]["problem"]["reason"], "TaskNotRunning", "{drained}");
}

#[test]
fn a_sink_that_takes_nothing_is_told_and_forgotten_when_it_does_again() {
    let job = Job::new("sink", 1);
    job.produce(1_000);
    let processor = job.start("data");
    job.assert_exact();
    // A compacted topic refuses records without a key, as this dead letter is.
    job.set_dead_letter_topic("cleanup.policy", "compact");
    job.produce_raw("no event");
    job.produce(1_000);
    let message = processor.await_problem("SinkFailing");
    assert!(message.contains("goes on trying"), "{message}");
    job.set_dead_letter_topic("cleanup.policy", "delete");
    job.assert_exact();
    eventually("the problem is forgotten", || {
        let status = processor.status()?;
        if status["tasks"][0]["problem"].is_null() {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
}

#[test]
fn a_topic_that_takes_small_batches_only_gets_every_result() {
    let job = Job::new("smallbatches", 1);
    // A broker holds this against a batch, not a record.
    job.create_topic_with(&format!("{}-out", job.name), 1, &[("max.message.bytes", "8192")]);
    job.produce(20_000);
    let _processor = job.start("data");
    job.assert_exact();
    assert_eq!(
        job.offsets(&format!("{}-dead", job.name), 0),
        (0, 0),
        "no result is too large"
    );
}

#[test]
fn a_task_reads_no_more_a_second_than_it_may() {
    let mut job = Job::new("rate", 1);
    job.more = More {
        source: ", maxRecordsPerSecond: 500",
        ..More::default()
    };
    job.produce(2_000);
    let began = Instant::now();
    let processor = job.start("data");
    job.assert_exact();
    // It saves nothing up before it runs, and a tenth of a second at most later.
    assert!(began.elapsed() >= Duration::from_millis(3_800), "{:?}", began.elapsed());
    let held_back = wanted(
        &processor.metrics(),
        r#"streamagg_held_back_seconds_total{by="rate",task="0"}"#,
    );
    assert!(held_back > 0.0);
}

/// The results that a record fires belong to its trace, those of records without one to none.
#[test]
fn a_trace_goes_on_in_the_results_that_a_record_fires() {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let job = Job::new("traces", 1);
    job.produce(1_000);
    let _processor = job.start("data");
    job.assert_exact();
    // Ends the window from 5,004,000, which was open.
    job.produce_with(r#"{"ts":5005500,"k":"k0","v":1}"#, ("traceparent", TRACE));
    job.produce_with(r#"{"ts":5006500,"k":"k0","v":1}"#, ("traceparent", "00-no-trace"));
    let traces = eventually("both windows", || {
        let traces = traces(&job);
        if traces.contains_key(&5_005_000) {
            Ok(traces)
        } else {
            Err(format!("{traces:?}"))
        }
    });
    for (start, found) in traces {
        let wanted = (start == 5_004_000).then(|| TRACE.to_owned());
        assert_eq!(found, BTreeSet::from([wanted]), "window from {start}");
    }
}

/// A volume of its own: a tmpfs in a mount namespace of the processor, reached through its `/proc`.
fn on_a_small_volume(job: &Job, mebibytes: u32) -> (Processor, PathBuf) {
    let data = job.directory("small");
    fs::create_dir_all(&data).expect("a directory");
    let mount = format!(
        r#"mount -t tmpfs -o size={mebibytes}m tmpfs '{}' && exec "$@""#,
        data.display()
    );
    let wrapper = ["unshare", "--map-root-user", "--mount", "sh", "-c", &mount, "sh"];
    let processor = job.start_within("small", &wrapper);
    let inside = format!("/proc/{}/root{}", processor.id(), data.display());
    (processor, inside.into())
}

#[test]
fn a_task_stops_before_its_volume_is_full_and_goes_on_when_there_is_room() {
    let job = Job::new("small", 1);
    job.produce(2_000);
    let (processor, volume) = on_a_small_volume(&job, 300);
    job.assert_exact();
    // A tenth is kept free: 30 MiB of 300.
    let ballast = volume.join("ballast");
    fs::write(&ballast, vec![1_u8; 272 << 20]).expect("writes");
    let message = processor.await_problem("DiskFull");
    for part in ["small/tasks/0", "spec.state.volume.size", "MiB are needed"] {
        assert!(message.contains(part), "{message}");
    }
    job.produce(2_000);
    let (code, _) = processor.ask("GET", "/readyz", "").expect("answers");
    assert_eq!(code, 503);
    assert!(
        wanted(
            &processor.metrics(),
            r#"streamagg_errors_total{class="retry",kind="DiskFull",task="0"}"#
        ) >= 1.0
    );
    // Room, but less than half as much again: it would not last.
    // Closed at once: what is open is not gone when it is removed.
    let file = fs::OpenOptions::new().write(true).open(&ballast).expect("opens");
    file.set_len(262 << 20).expect("cuts");
    drop(file);
    eventually("it looks again and stays", || {
        let count = figure(
            &processor.metrics(),
            r#"streamagg_errors_total{class="retry",kind="DiskFull",task="0"}"#,
        );
        let problem = processor.status()?["tasks"][0]["problem"]["message"].to_string();
        if count > Some(2.0) && problem.contains("45 MiB are needed") {
            Ok(())
        } else {
            Err(format!("{count:?} {problem}"))
        }
    });
    fs::remove_file(&ballast).expect("removes");
    job.assert_exact();
    processor.await_ready();
}

/// How long a loop may stand still in a test.
const STUCK_AFTER_MS: &str = "3000";

/// The file of the clock becomes one that is read by whoever waits until it is written: as any file of a volume that hangs.
/// Answers another name of it, for the file of the clock may be another one again.
fn hang_clock(job: &Job) -> PathBuf {
    let (hangs, staged) = (job.directory("hangs"), job.directory("ahead.next"));
    let made = Command::new("mkfifo").arg(&hangs).status().expect("mkfifo runs");
    assert!(made.success());
    fs::hard_link(&hangs, &staged).expect("links");
    fs::rename(&staged, job.directory("ahead")).expect("renames");
    hangs
}

#[test]
fn a_loop_that_stands_still_fails_the_liveness_probe_alone_until_it_turns_again() {
    let mut job = Job::new("stuck", 1);
    // The clock is looked at in every turn.
    job.more = IDLE;
    job.produce(1_000);
    let flags = ["--assign-all", "--stuck-after-ms", STUCK_AFTER_MS];
    let processor = job.start_with("data", &flags, None, "");
    job.assert_exact();
    let probe = |path: &str| processor.ask("GET", path, "").expect("answers");
    assert_eq!(probe("/livez"), (200, "live\n".to_owned()));
    let hangs = hang_clock(&job);
    job.produce(1_000);
    let words = eventually("the loop stands still", || match probe("/livez") {
        (500, words) => Ok(words),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(words, "the loops of tasks [0] do not turn\n");
    // A restart is what helps, which the other probes do not ask for: the task has neither stopped nor left.
    assert_eq!(probe("/readyz"), (200, "ready\n".to_owned()));
    assert_eq!(probe("/startupz"), (200, "started\ntask 0: Running\n".to_owned()));
    replace(&job.directory("ahead"), "0");
    fs::write(hangs, "0").expect("somebody reads it");
    eventually("the loop turns", || match probe("/livez") {
        (200, _) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    job.assert_exact();
}
