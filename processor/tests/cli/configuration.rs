//! Where values come from, and what a manifest means. Must not test what a run does with them.

use std::fs;

use super::process::{run, run_in};
use super::scene::{Scene, exact};

#[test]
fn a_flag_wins_over_the_environment_over_the_manifest_over_the_default() {
    let scene = Scene::new();
    let size = "STREAMAGG_SPEC__WINDOWS__0__TUMBLING__SIZE";
    let environment = [(size, "20s"), ("STREAMAGG_SPEC__MAX_BAD_RATIO", "0.5")];
    let base = ["explain".to_owned(), "-f".to_owned(), scene.text("job.yaml")];
    let found = run_in(&environment, &base);
    let text = exact(&found, 0);
    for line in [
        &format!("  spec.windows[0].tumbling.size = \"20s\" ({size})"),
        "  spec.maxBadRatio = 0.5 (STREAMAGG_SPEC__MAX_BAD_RATIO)",
        "  spec.event.timestamp.field = \"/ts\" (manifest)",
        "  spec.event.timestamp.unit = \"Rfc3339\" (default)",
        "  ten-seconds: panes of 20s, ",
        "  results       results at 127.0.0.1:9092",
        "  positions     default.cli-test-control",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let mut with_flag = base.to_vec();
    with_flag.extend(["--set", "windows[0].tumbling.size=30s"].map(str::to_owned));
    let found = run_in(&environment, &with_flag);
    assert!(exact(&found, 0).contains("size = \"30s\" (--set)"), "{}", found.stdout);
    assert!(found.stdout.contains("panes of 30s"), "{}", found.stdout);
}

#[test]
fn what_is_laid_over_is_judged_like_the_manifest_and_shapes_the_run() {
    let scene = Scene::new();
    let input = ["--input", "generate:events=2000,rate=100", "--quiet"];
    let plain = run(&scene.arguments(&input));
    let mut more = input.to_vec();
    more.extend(["--set", "windows[0].tumbling.size=1h"]);
    let other = run(&scene.arguments(&more));
    assert_ne!(exact(&plain, 0), exact(&other, 0));
    for (set, part) in [
        ("windows[0].tumbling.size=soon", "spec.windows[0].tumbling.size: "),
        (
            "windows[0].tumbling.sice=1h",
            "spec.windows[0].tumbling has no field \"sice\"",
        ),
        ("nonsense", "expected PATH=VALUE"),
    ] {
        let refused = run(&scene.arguments(&["--set", set]));
        assert_eq!(refused.code, Some(2), "{set}: {}", refused.stderr);
        assert!(refused.stderr.contains(part), "{set}: {}", refused.stderr);
    }
}

#[test]
fn a_manifest_in_json_means_the_same() {
    let scene = Scene::new();
    let yaml: serde_json::Value = serde_yaml::from_str(super::scene::MANIFEST).unwrap();
    fs::write(scene.path("job.json"), yaml.to_string()).unwrap();
    let explained = |name: &str| run(&["explain", "-f", &scene.text(name)]);
    let (yaml, json) = (explained("job.yaml"), explained("job.json"));
    assert_eq!(exact(&yaml, 0), exact(&json, 0));
}

#[test]
fn the_schema_is_json_and_knows_the_fields() {
    let schema: serde_json::Value = serde_json::from_str(exact(&run(&["schema"]), 0)).unwrap();
    let replicas = schema.pointer("/properties/spec/properties/replicas/type");
    assert_eq!(replicas, Some(&serde_json::Value::from("integer")), "{schema:#}");
}

#[test]
fn a_valid_manifest_tells_what_a_cluster_would_refuse() {
    let scene = Scene::new();
    let manifest = super::scene::MANIFEST.replace("    watermark:", "    idle: {after: 1s}\n    watermark:");
    fs::write(scene.path("job.yaml"), manifest).unwrap();
    let ended = run(&["validate", "-f", &scene.text("job.yaml")]);
    let told = exact(&ended, 0);
    assert!(
        told.contains("job.yaml: valid\n  not in a cluster: spec.event.idle: "),
        "{told}"
    );
}
