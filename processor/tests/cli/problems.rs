//! What goes wrong: named, with the right exit code, and nothing that was due lost. Must not test what goes well.

use std::fs;

use super::process::run;
use super::scene::{MANIFEST, Scene, event, exact};

#[test]
fn a_full_disk_is_named_and_ends_with_1() {
    let scene = Scene::new();
    for flag in ["--output", "--late", "--dead"] {
        let arguments = scene.arguments(&[
            "--input",
            "generate:events=100000,late=0.1,bad=0.1,rate=1000",
            flag,
            "/dev/full",
        ]);
        let ended = run(&arguments);
        assert_eq!(ended.code, Some(1), "{flag}: {}", ended.stderr);
        assert!(
            ended.stderr.contains(&format!("{flag} /dev/full: No space left")),
            "{flag}: {}",
            ended.stderr
        );
    }
    let generate = run(&["generate", "events=1000", "--output", "/dev/full"]);
    assert_eq!(generate.code, Some(1), "{}", generate.stderr);
}

#[test]
fn files_that_cannot_be_read_or_written_are_named() {
    let scene = Scene::new();
    let nowhere = scene.text("nowhere/file");
    for (more, code, expected) in [
        (
            vec!["--input", nowhere.as_str()],
            1,
            format!("--input {nowhere}: No such file"),
        ),
        (
            vec!["--input", "/"],
            1,
            "--input /: cannot be read: Is a directory".to_owned(),
        ),
        (
            vec!["--input", "trace:/"],
            1,
            "--input /: cannot be read: Is a directory".to_owned(),
        ),
        (
            vec!["--output", nowhere.as_str()],
            1,
            format!("--output {nowhere}: No such file"),
        ),
        (
            vec!["--late", nowhere.as_str()],
            1,
            format!("--late {nowhere}: No such file"),
        ),
    ] {
        let ended = run(&scene.arguments(&more));
        assert_eq!(ended.code, Some(code), "{more:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(&expected), "{more:?}: {}", ended.stderr);
    }
    let ended = run(&["run", "-f", &nowhere]);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(
        ended.stderr.contains(&format!("{nowhere}: cannot be read")),
        "{}",
        ended.stderr
    );
}

#[test]
fn flags_that_cannot_work_end_with_2_and_are_named() {
    let scene = Scene::new();
    let out = scene.text("out.jsonl");
    for (more, expected) in [
        (
            vec!["--input", "generate:speed=9"],
            "generator option `speed` does not exist",
        ),
        (vec!["--partitions", "0"], "--partitions"),
        (
            vec!["--partitions", "2", "--set", "explode={field: /choices}"],
            "--partitions spreads records by their key",
        ),
        (vec!["--state", "/tmp/x"], "--state"),
        (vec!["--from", "kafka"], "--from"),
        (vec!["--table", "--output", "-"], "--table and --output -"),
        (
            vec!["--output", &out, "--late", &out],
            "--output and --late name the same file",
        ),
    ] {
        let ended = run(&scene.arguments(&more));
        assert_eq!(ended.code, Some(2), "{more:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{more:?}: {}", ended.stderr);
    }
    assert_eq!(run(&["run"]).code, Some(2));
    assert_eq!(run(&["explain"]).code, Some(2));
    assert_eq!(run(&["--help"]).code, Some(0));
}

#[test]
fn an_input_is_never_overwritten() {
    let scene = Scene::new();
    fs::write(scene.path("events.jsonl"), event(1, "a", "1")).unwrap();
    let events = scene.text("events.jsonl");
    let ended = run(&scene.arguments(&["--input", &events, "--output", &events]));
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert_eq!(fs::read_to_string(events).unwrap(), event(1, "a", "1"));
}

#[test]
fn every_problem_of_every_manifest_is_listed_with_its_path() {
    let scene = Scene::new();
    let broken = MANIFEST
        .replace("size: 10s", "size: ten")
        .replace("field: /tenant", "field: tenant");
    fs::write(scene.path("broken.yaml"), broken).unwrap();
    fs::write(
        scene.path("where.yaml"),
        format!("{MANIFEST}  where: \"event.status <\"\n"),
    )
    .unwrap();
    let (good, broken, unfinished) = (
        scene.text("job.yaml"),
        scene.text("broken.yaml"),
        scene.text("where.yaml"),
    );
    let ended = run(&["validate", "-f", &broken, &good, "--config", &unfinished]);
    assert_eq!(exact(&ended, 2), format!("{good}: valid\n"));
    for path in ["spec.windows[0].tumbling.size", "spec.groupBy[0].field"] {
        assert!(
            ended.stderr.contains(&format!("{broken}: {path}")),
            "{path} in:\n{}",
            ended.stderr
        );
    }
    assert!(
        ended.stderr.contains(&format!("{unfinished}: spec.where")),
        "{}",
        ended.stderr
    );
    assert_eq!(run(&["validate", "-f", &good]).code, Some(0));
    let refused = run(&["run", "-f", &broken, "--input", "generate:events=1"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""));
    let none = run(&["validate", "-f", &scene.text("none.yaml")]);
    assert_eq!(none.code, Some(2), "{}", none.stderr);
}

#[test]
fn too_many_bad_records_end_with_3_after_writing_what_was_due() {
    let scene = Scene::new();
    fs::write(scene.path("job.yaml"), format!("{MANIFEST}  maxBadRatio: 0.05\n")).unwrap();
    let dead = scene.text("dead.jsonl");
    let ended = run(&scene.arguments(&["--input", "generate:events=20000,rate=50,bad=0.5", "--dead", &dead]));
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("of the last 1000 records are dead letters"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("spec.maxBadRatio 0.05"), "{}", ended.stderr);
    assert!(!ended.stdout.is_empty(), "windows that were complete have fired");
    assert!(fs::read_to_string(dead).unwrap().lines().count() > 400);
}
