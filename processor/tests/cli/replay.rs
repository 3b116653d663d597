//! `replay`: what was published is found equal, what was changed is found and shown. Must not compare by itself.

use std::fs;

use super::process::{Ended, run, run_with_input};
use super::scene::{Scene, exact};

const EVENTS: &str = "events=3000,rate=20,disorder=2000,late=0.01,bad=0.01,seed=3";
const WINDOWS: [(&str, &str); 3] = [
    ("tumbling", "{name: w, tumbling: {size: 10s}, allowedLateness: 5s}"),
    (
        "sliding",
        "{name: w, sliding: {size: 20s, slide: 5s}, panes: Retracting}",
    ),
    ("session", "{name: w, session: {gap: 3s}}"),
];

/// A scene with events, and what a run made of them as `published.jsonl`.
fn published(window: &str) -> Scene {
    published_of(EVENTS, window)
}

fn published_of(events: &str, window: &str) -> Scene {
    let scene = Scene::new();
    let manifest = fs::read_to_string(scene.path("job.yaml")).unwrap();
    let manifest = manifest.replace(
        "    - name: ten-seconds\n      tumbling: {size: 10s}\n",
        &format!("    - {window}\n"),
    );
    assert!(manifest.contains(window));
    fs::write(scene.path("job.yaml"), manifest).unwrap();
    exact(&run(&["generate", events, "--output", &scene.text("events.jsonl")]), 0);
    let (input, output) = (scene.text("events.jsonl"), scene.text("published.jsonl"));
    exact(
        &run(&scene.arguments(&["--quiet", "--input", &input, "--output", &output])),
        0,
    );
    scene
}

fn arguments(scene: &Scene, more: &[&str]) -> Vec<String> {
    let mut arguments: Vec<String> = ["replay", "-f"].map(ToOwned::to_owned).into();
    arguments.push(scene.text("job.yaml"));
    for (flag, file) in [("--input", "events.jsonl"), ("--published", "published.jsonl")] {
        if !more.contains(&flag) {
            arguments.extend([flag.to_owned(), scene.text(file)]);
        }
    }
    arguments.extend(more.iter().map(ToString::to_string));
    arguments
}

fn replay(scene: &Scene, more: &[&str]) -> Ended {
    run(&arguments(scene, more))
}

#[test]
fn what_a_run_published_is_found_equal_and_a_changed_value_is_shown() {
    for (kind, window) in WINDOWS {
        let scene = published(window);
        let equal = replay(&scene, &[]);
        let summary = exact(&equal, 0).trim_end();
        assert!(
            summary.ends_with(" equal, 0 different") && !summary.starts_with("0 "),
            "{kind}: {summary}"
        );
        let text = fs::read_to_string(scene.path("published.jsonl")).unwrap();
        let at = text.rfind("\"requests\":").unwrap() + "\"requests\":".len();
        fs::write(scene.path("changed.jsonl"), format!("{}9{}", &text[..at], &text[at..])).unwrap();
        let differs = replay(&scene, &["--published", &scene.text("changed.jsonl")]);
        let report = exact(&differs, 1);
        assert!(
            report.contains("published   {\"requests\":9") && report.contains("re-derived  {\"requests\":"),
            "{report}"
        );
        assert!(differs.stderr.starts_with("1 of "), "{}", differs.stderr);
    }
}

#[test]
fn a_range_of_lines_gives_the_windows_that_lie_in_it() {
    let scene = published(WINDOWS[0].1);
    // 20 events a second: lines 601 to 1800 are of seconds 30 to 90, give or take the disorder.
    let lines = ["--lines", "500-2000"];
    let inside = ["--from", "2026-01-01T00:00:30Z", "--to", "2026-01-01T00:01:30Z"];
    let equal = replay(&scene, &[&lines[..], &inside[..]].concat());
    assert!(exact(&equal, 0).contains(" equal, 0 different"), "{}", equal.stdout);
    let across = replay(&scene, &lines);
    assert!(exact(&across, 1).contains("re-derived  nothing"), "{}", across.stdout);
    let nothing = replay(&scene, &["--from", "2030-01-01T00:00:00Z"]);
    exact(&nothing, 1);
    assert!(nothing.stderr.contains("nothing was compared"), "{}", nothing.stderr);
}

#[test]
fn one_partition_is_compared_with_what_all_of_them_published() {
    let scene = published_of("events=1000,rate=20,seed=3", WINDOWS[0].1);
    let events = fs::read_to_string(scene.path("events.jsonl")).unwrap();
    let tenant = events
        .split(',')
        .find(|member| member.starts_with("\"tenant\":"))
        .unwrap();
    let of_tenant = events.lines().filter(|line| line.contains(tenant));
    let part: String = of_tenant.map(|line| format!("{line}\n")).collect();
    let whole = run_with_input(&arguments(&scene, &["--input", "-"]), part.as_bytes());
    assert!(exact(&whole, 1).contains("re-derived  nothing"), "{}", whole.stdout);
    let partial = run_with_input(&arguments(&scene, &["--input", "-", "--partial"]), part.as_bytes());
    let summary = exact(&partial, 0);
    assert!(summary.contains(" equal, 0 different, "), "{summary}");
    assert!(
        summary.contains("published and not of this part of the input"),
        "{summary}"
    );
}

#[test]
fn what_cannot_be_compared_is_said() {
    let scene = published(WINDOWS[0].1);
    fs::write(scene.path("broken.jsonl"), "\n{\"op\":\"Upsert\"}\n").unwrap();
    let broken = scene.text("broken.jsonl");
    let absent = scene.text("absent.jsonl");
    for (more, code, message) in [
        (
            &["--published", &broken][..],
            1,
            "broken.jsonl: line 2: is no value of a result: missing field",
        ),
        (&["--published", &absent], 1, "--published "),
        (&["--input", &absent], 1, "--input "),
        (&["--input", "-", "--published", "-"], 2, "both read standard input"),
        (&["--window", "v"], 2, "--window v: no such window; the manifest has w"),
        (&["--lines", "5-4"], 2, "counted from 1, such as 1000-2000"),
        (&["--from", "yesterday"], 2, "--from"),
    ] {
        let ended = replay(&scene, more);
        exact(&ended, code);
        assert!(ended.stderr.contains(message), "{more:?}: {}", ended.stderr);
    }
}
