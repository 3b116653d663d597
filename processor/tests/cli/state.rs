//! `--state DIR`: real kills in the middle, and what cannot be resumed. Must not reach into the engine.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;

use super::process::{Running, run, run_with_input, wait_until};
use super::scene::{MANIFEST, Scene, event, exact};

/// Kills in one run; each loses what was not committed.
const KILLS: usize = 6;

fn files(scene: &Scene, run: &str) -> [String; 3] {
    ["results", "late", "dead"].map(|name| scene.text(&format!("{run}-{name}.jsonl")))
}

fn arguments(scene: &Scene, files: &[String; 3], more: &[&str]) -> Vec<String> {
    let [results, late, dead] = files;
    let mut list = scene.arguments(&["--output", results, "--late", late, "--dead", dead]);
    list.extend(more.iter().map(ToString::to_string));
    list
}

/// Length of the state file, as a sign of commits.
fn committed(state: &Path) -> u64 {
    fs::metadata(state.join("state")).map_or(0, |found| found.len())
}

/// Runs with kills as soon as something was committed in each life, then to the end.
fn run_with_kills(arguments: &[String], state: &Path) {
    let mut killed = 0;
    for life in 0..KILLS {
        let before = committed(state);
        let mut child = Running::start(arguments, Stdio::null());
        let seen = wait_until("a commit in this life", || {
            child.0.try_wait().unwrap().is_some() || committed(state) > before
        });
        assert!(seen, "life {life} committed nothing");
        child.0.kill().unwrap();
        let status = child.0.wait().unwrap();
        killed += usize::from(status.signal() == Some(9));
    }
    assert!(killed >= 2, "only {killed} of {KILLS} lives were killed in the middle");
    let ended = run(arguments);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

fn kills_change_no_byte(input: impl Fn(&Scene) -> String, partitions: &str) {
    let scene = Scene::new();
    let input = input(&scene);
    let (straight, killed) = (files(&scene, "straight"), files(&scene, "killed"));
    let plain = ["--input", &input, "--partitions", partitions, "--quiet"];
    assert_eq!(run(&arguments(&scene, &straight, &plain)).code, Some(0));
    let state = scene.path("state");
    let mut with_state = plain.to_vec();
    let directory = scene.text("state");
    with_state.extend(["--state", &directory]);
    let with_state = arguments(&scene, &killed, &with_state);
    run_with_kills(&with_state, &state);
    for (straight, killed) in straight.iter().zip(&killed) {
        let (expected, found) = (fs::read(straight).unwrap(), fs::read(killed).unwrap());
        assert!(!expected.is_empty(), "{straight} is empty");
        assert!(
            expected == found,
            "{killed}: {} bytes, expected {}",
            found.len(),
            expected.len()
        );
    }
    // At its end a run has nothing more to do, and says so.
    let again = run(&with_state);
    assert_eq!((again.code, again.stdout.as_str()), (Some(0), ""), "{}", again.stderr);
    assert_eq!(fs::read(&straight[0]).unwrap(), fs::read(&killed[0]).unwrap());
}

/// Enough events for several commits, which are 200 ms apart, in a build of either profile.
const EVENTS: u32 = if cfg!(debug_assertions) { 120_000 } else { 800_000 };

fn traffic() -> String {
    format!("events={EVENTS},rate=2000,disorder=2000,late=0.01,bad=0.01,seed=7")
}

#[test]
fn a_generated_run_killed_in_the_middle_goes_on_and_no_byte_differs() {
    kills_change_no_byte(|_| format!("generate:{}", traffic()), "1");
}

#[test]
fn a_run_over_a_file_in_three_partitions_killed_in_the_middle_goes_on_as_well() {
    let from_file = |scene: &Scene| {
        let path = scene.text("events.jsonl");
        assert_eq!(run(&["generate", &traffic(), "--output", &path]).code, Some(0));
        path
    };
    kills_change_no_byte(from_file, "3");
}

#[test]
fn what_cannot_be_resumed_is_refused_and_named() {
    let scene = Scene::new();
    let (state, results) = (scene.text("state"), scene.text("results.jsonl"));
    for (more, expected) in [
        (vec!["--output", results.as_str()], "give --input a file or generate"),
        (vec!["--input", "generate:events=10"], "give --output a file"),
        (
            vec!["--input", "generate:events=10,live=true", "--output", results.as_str()],
            "live=true needs start",
        ),
    ] {
        let mut arguments = scene.arguments(&["--state", &state]);
        arguments.extend(more.iter().map(ToString::to_string));
        let ended = run(&arguments);
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    }
}

#[test]
fn a_directory_of_another_run_or_another_file_is_refused() {
    let scene = Scene::new();
    let (state, input, results) = (scene.text("state"), scene.text("in.jsonl"), scene.text("out.jsonl"));
    fs::write(&input, event(1, "a", "1") + &event(2, "a", "{broken")).unwrap();
    let base = ["--state", &state, "--input", &input, "--output", &results];
    let first = run_with_input(&scene.arguments(&base), b"");
    exact(&first, 0);
    let mut other = base.to_vec();
    other.extend(["--partitions", "2"]);
    let refused = run(&scene.arguments(&other));
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("it holds the state of job default.cli-test"),
        "{}",
        refused.stderr
    );
    fs::write(scene.path("state/state"), "something else").unwrap();
    let refused = run(&scene.arguments(&base));
    assert!(refused.stderr.contains("is not a state file"), "{}", refused.stderr);
}

#[test]
fn times_of_records_have_no_meaning_for_lines() {
    let scene = Scene::new();
    fs::write(scene.path("job.yaml"), MANIFEST.replace("{field: /ts}", "{record: {}}")).unwrap();
    let refused = run(&scene.arguments(&[]));
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("a line has no record timestamp"),
        "{}",
        refused.stderr
    );
}

#[test]
fn an_event_from_the_future_is_a_dead_letter_that_moves_nothing() {
    let scene = Scene::new();
    let manifest = MANIFEST.replace("    watermark:", "    maxFutureSkew: 1h\n    watermark:");
    fs::write(scene.path("job.yaml"), manifest).unwrap();
    let dead = scene.text("dead.jsonl");
    let far = r#"{"ts":"9999-01-01T00:00:00Z","tenant":"a","cost_usd":1}"#;
    let input = format!("{}{far}\n{}", event(1, "a", "1"), event(2, "a", "1"));
    let ended = run_with_input(&scene.arguments(&["--dead", &dead]), input.as_bytes());
    assert!(
        exact(&ended, 0).contains(r#""values":{"requests":2,"cost":2}"#),
        "{}",
        ended.stdout
    );
    let dead = fs::read_to_string(dead).unwrap();
    assert!(
        dead.contains(r#"{"reason":"TimestampInFuture""#) && dead.contains("maxFutureSkew is 3600000 ms"),
        "{dead}"
    );
}

#[test]
fn the_windows_of_an_idle_input_fire_without_another_event() {
    let scene = Scene::new();
    let manifest = MANIFEST.replace("    watermark:", "    idle: {after: 50ms}\n    watermark:");
    fs::write(
        scene.path("job.yaml"),
        manifest
            .replace("{size: 10s}", "{size: 100ms}")
            .replace("bound: 1s", "bound: 0s"),
    )
    .unwrap();
    let mut child = Running::start(&scene.arguments(&[]), Stdio::piped());
    let mut stdin = child.0.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, event(1, "a", "1").as_bytes()).unwrap();
    let mut line = String::new();
    // The input stays open: only the idle rule can close the window.
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.0.stdout.take().unwrap()), &mut line).unwrap();
    assert!(line.contains(r#""timing":"OnTime""#), "{line}");
}
