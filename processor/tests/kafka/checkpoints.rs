//! Checkpoints on a real broker: made, shared, refused, retired, restored. Must not test what start-up decides (tables do).

use std::time::{Duration, Instant};

use axum::http::Method;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::child::Processor;
use super::rig::{Job, eventually};

#[test]
fn a_store_that_refuses_is_told_on_the_running_task_until_it_takes_a_checkpoint() {
    let job = Job::new("refusing", 1);
    job.produce(2_000);
    let processor = job.start("data");
    job.assert_exact();
    processor.operate("/v1/checkpoint?id=one");
    job.produce(1_000);
    job.assert_exact();
    // A file where the store's directory was: nothing can be put.
    let tasks = job.directory("store").join(&job.name).join("tasks");
    let aside = job.directory("aside");
    std::fs::rename(&tasks, &aside).expect("moves");
    std::fs::write(&tasks, "").expect("writes");
    processor.ask("POST", "/v1/checkpoint?id=two", "").expect("answers");
    let message = processor.await_problem("CheckpointFailed");
    eventually("the task goes on", || {
        match processor.ask("POST", "/v1/checkpoint?id=two", "")? {
            (200, body) if body.contains("Failed") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let status = processor.status().expect("answers");
    assert_eq!(
        (&status["tasks"][0]["state"], &status["tasks"][0]["problem"]["reason"]),
        (&"Running".into(), &"CheckpointFailed".into()),
        "{message}"
    );
    std::fs::remove_file(&tasks).expect("removes");
    std::fs::rename(&aside, &tasks).expect("moves");
    processor.operate("/v1/checkpoint?id=three");
    assert!(processor.status().expect("answers")["tasks"][0]["problem"].is_null());
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
    job.lose("data");
    let processor = job.start("data");
    processor.await_ready();
    assert_eq!(
        processor.status().expect("answers")["tasks"][0]["restoredFrom"],
        id.as_str()
    );
    processor.assert_replayed_exactly();
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
    job.lose("data");
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
    job.lose("data");
    let mut processor = job.start("data");
    job.assert_exact();
    let id = processor.operate("/v1/checkpoint?id=two")["tasks"][0]["checkpoint"]["id"].clone();
    processor.kill();
    job.lose("data");
    let processor = job.start("data");
    processor.await_ready();
    assert_eq!(processor.status().expect("answers")["tasks"][0]["restoredFrom"], id);
    job.produce(1_000);
    job.assert_exact();
}

/// A restore that is held up in the middle says how much of it is done, also to whoever has no token.
fn await_half_restored(processor: &Processor) {
    eventually("some of the restore is done", || {
        let status = processor.status()?;
        let share = status["tasks"][0]["progress"].as_f64();
        let is_between = share.is_some_and(|share| share > 0.0 && share < 1.0);
        is_between.then_some(()).ok_or_else(|| status.to_string())
    });
    let (code, words) = processor.ask_as(None, ("GET", "/startupz", "")).expect("answers");
    let shows_it = words.contains("task 0: Restoring ") && words.contains(" %");
    assert!(code == 200 && shows_it, "{code} {words}");
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
    job.lose("data");
    // The newer manifest is not listed yet, and a file of the older one, not the first, can be fetched only when we say
    // so: a pipe.
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
        .rfind(|object| !newer_text.contains(&format!("\"{object}\"")))
        .expect("a file that only the older one has");
    let pipe = job.task_store().join(own);
    std::fs::remove_file(&pipe).expect("removes");
    let made = std::process::Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .expect("mkfifo runs");
    assert!(made.success());
    let processor = job.start("data");
    await_half_restored(&processor);
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

/// Asks about pins until every row is settled; the rows.
fn settled(processor: &Processor, method: &str, path: &str, body: &str) -> Vec<serde_json::Value> {
    eventually(path, || {
        let (code, body) = processor.ask(method, path, body)?;
        let status: serde_json::Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
        match code {
            200 => Ok(status["tasks"].as_array().cloned().unwrap_or_default()),
            _ => Err(format!("{code} {body}")),
        }
    })
}

#[test]
fn a_pinned_checkpoint_outlives_retention_until_it_is_released() {
    let job = Job::new("pinned", 1);
    let processor = job.start("data");
    let checkpoint = |id: &str| {
        job.produce(500);
        job.assert_exact();
        let done = processor.operate(&format!("/v1/checkpoint?id={id}"));
        done["tasks"][0]["checkpoint"]["id"].as_str().expect("an id").to_owned()
    };
    let kept = checkpoint("kept");
    let manifest = job.task_store().join("manifests").join(format!("{kept}.json"));
    let body = format!(r#"{{"checkpoints":{{"0":"{kept}"}}}}"#);
    for _ in 0..2 {
        let rows = settled(&processor, "POST", "/v1/pins?holder=holder-1", &body);
        assert_eq!(rows[0]["phase"], "Complete", "{rows:?}");
    }
    // More than any retention of the test's jobs.
    for round in 0..8 {
        checkpoint(&format!("round-{round}"));
    }
    assert!(manifest.exists(), "retention took a pinned checkpoint");
    for _ in 0..2 {
        let rows = settled(&processor, "DELETE", "/v1/pins?holder=holder-1&tasks=0", "");
        assert_eq!(rows[0]["phase"], "Complete", "{rows:?}");
    }
    checkpoint("last");
    eventually("retention takes what was released", || {
        if manifest.exists() {
            Err("it is still there".to_owned())
        } else {
            Ok(())
        }
    });
    let rows = settled(&processor, "POST", "/v1/pins?holder=holder-1", &body);
    assert_eq!(rows[0]["problem"]["reason"], "CheckpointMissing", "{rows:?}");
    assert!(
        !job.task_store().join("pins").join(&kept).join("holder-1").exists(),
        "a pin of nothing stays"
    );
    for (path, body) in [
        ("/v1/pins?holder=..", body.as_str()),
        ("/v1/pins?holder=a/b", body.as_str()),
        ("/v1/pins?holder=a", r#"{"checkpoints":{"0":"../../x"}}"#),
        ("/v1/pins?holder=a", "{}"),
    ] {
        assert_eq!(
            processor.ask("POST", path, body).expect("answers").0,
            400,
            "{path} {body}"
        );
    }
    assert_eq!(
        processor.ask("DELETE", "/v1/pins?holder=a", "").expect("answers").0,
        400
    );
}

/// A store that lists nothing and takes nothing: every upload hangs.
fn store_that_hangs(runtime: &Runtime) -> String {
    let answer = |method: Method| async move {
        if method == Method::GET {
            "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
        } else {
            std::future::pending().await
        }
    };
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = listener.local_addr().expect("an address");
    runtime.spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
    format!("http://{address}")
}

#[test]
fn a_processor_leaves_within_its_grace_whatever_becomes_of_its_last_checkpoint() {
    let runtime = Runtime::new().expect("threads");
    let mut job = Job::new("grace", 1);
    let endpoint = store_that_hangs(&runtime);
    job.store = Some(format!(r#"s3: {{bucket: b, endpoint: "{endpoint}"}}"#));
    job.produce(1_000);
    let environment = [
        "env",
        "AWS_ACCESS_KEY_ID=a",
        "AWS_SECRET_ACCESS_KEY=b",
        "STREAMAGG_GRACE_SECONDS=11",
    ];
    let processor = job.start_within("data", &environment);
    job.assert_exact();
    let log = processor.log.clone();
    let began = Instant::now();
    processor.terminate();
    assert!(began.elapsed() < Duration::from_secs(11), "{:?}", began.elapsed());
    let log = std::fs::read_to_string(log).expect("a log");
    assert!(log.contains("leaving before the last checkpoint is complete"), "{log}");
    job.produce(1_000);
    let _processor = job.start_within("data", &environment);
    job.assert_exact();
}
