//! Where values come from, and what a manifest means. Must not test what a run does with them.

use std::fs;

use super::process::{run, run_in, run_with_input};
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
fn explain_says_what_a_pod_takes() {
    let scene = Scene::new();
    let explained = |set: &[&str]| {
        let mut arguments = vec!["explain", "-f"];
        let path = scene.text("job.yaml");
        arguments.push(&path);
        arguments.extend(set);
        exact(&run(&arguments), 0).to_owned()
    };
    const ON_A_VOLUME: &str = "state={backend: RocksDB, volume: {size: 1Gi}, memoryBudget: 64Mi}";
    const FREE: &str = "state={backend: RocksDB, volume: {size: 1Gi}}";
    let cases: [(&[&str], &str); 8] = [
        (
            &[],
            "  budget        256 MiB: where the pod has no memory limit, else three quarters of that",
        ),
        (
            &["--set", "resources.limits.memory=1Gi"],
            "  budget        768 MiB: three quarters of the memory limit of 1024 MiB",
        ),
        (
            &[
                "--set",
                "resources.limits.memory=1Gi",
                "--set",
                "state.memoryBudget=64Mi",
            ],
            "  budget        64 MiB: spec.state.memoryBudget",
        ),
        (
            &["--set", "state.memoryBudget=64Mi"],
            "  open windows  32 MiB; state beyond that stays in memory, too: state.backend is Memory",
        ),
        (
            &["--set", ON_A_VOLUME],
            "  open windows  32 MiB; what is beyond that is on the volume only\n",
        ),
        (
            &["--set", FREE],
            "stays in memory, too: neither state.memoryBudget nor a memory limit is given",
        ),
        (
            &["--set", "state.memoryBudget=64Mi"],
            "  RocksDB       8 MiB of cache, 8 MiB of write buffers",
        ),
        (
            &[],
            "  a task        15 threads: its own, 7 of a consumer, 7 of a producer",
        ),
    ];
    for (set, line) in cases {
        let text = explained(set);
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn explain_names_the_topic_between_two_stages() {
    let scene = Scene::new();
    let manifest = super::scene::MANIFEST.replace("byKey: {}", "any: {shufflePartitions: 3}");
    fs::write(scene.path("job.yaml"), manifest).unwrap();
    let found = run(&["explain", "-f", &scene.text("job.yaml")]);
    let text = exact(&found, 0);
    for part in [
        " and 3 that read default.cli-test-shuffle",
        " 14 of them of a consumer for each topic read (2) ",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
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
    let manifest = super::scene::MANIFEST.replace("    watermark:", "    maxDrift: 10m\n    watermark:");
    fs::write(scene.path("job.yaml"), manifest).unwrap();
    let ended = run(&["validate", "-f", &scene.text("job.yaml")]);
    let told = exact(&ended, 0);
    assert!(
        told.contains("job.yaml: valid\n  not in a cluster: spec.event.maxDrift: "),
        "{told}"
    );
}

#[test]
fn explain_says_in_words_what_becomes_of_an_event() {
    let scene = Scene::new();
    let manifest = super::scene::MANIFEST
        .replace("  groupBy:", "  let: [{name: dear, value: \"event.cost_usd > 1.0\"}]\n  where: has(event.tenant)\n  groupBy:")
        .replace("      tumbling: {size: 10s}\n", "      tumbling: {size: 10s}\n      allowedLateness: 5s\n      trigger: {early: {everyEvents: 7}, final: true}\n")
        .replace("    - {name: cost,", "    - {name: users, distinct: {field: /user}}\n    - {name: cost,")
        .replace("topics: [events]}", "topics: [events], properties: {fetch.max.bytes: \"1000000\"}}");
    fs::write(scene.path("job.yaml"), manifest).unwrap();
    let ended = run(&["explain", "-f", &scene.text("job.yaml")]);
    let text = exact(&ended, 0);
    for line in [
        "  time          /ts, Rfc3339\n",
        "  watermark     boundedOutOfOrderness bound 1s\n",
        "  let           dear = event.cost_usd > 1.0\n",
        "  where         has(event.tenant)\n",
        "  key           tenant = /tenant (missing: dead letter)\n",
        "  ten-seconds: tumbling size 10s; late events for 5s after its end; fires early after every 7 events, on time, late after \
         every event, finally; accumulating panes\n",
        "by the values seen: users (distinct)",
        "  spec.source.kafka.properties.fetch.max.bytes = \"1000000\" (manifest)\n",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn explain_says_when_a_task_passes_over_records_and_a_run_keeps_all() {
    let scene = Scene::new();
    let shedding = "source.kafka.loadShedding={whenBehind: 5m}";
    let ended = run(&["explain", "-f", &scene.text("job.yaml"), "--set", shedding]);
    let text = exact(&ended, 0);
    let told = "a task that is more than 300000 ms behind passes over records: it keeps 1/8 of them at least";
    assert!(text.contains(told), "{text}");
    let event = br#"{"ts":"2026-01-01T00:00:01Z","tenant":"a"}"#;
    let arguments = scene.arguments(&["--input", "-", "--set", shedding]);
    let ended = run_with_input(&arguments, event);
    assert!(
        exact(&ended, 0).contains(r#""revision":0},"keptShare":1,"values":{"requests":1,"#),
        "{}",
        ended.stdout
    );
}

#[test]
fn explain_says_what_elements_headers_and_last_events_mean() {
    let scene = Scene::new();
    let key =
        "groupBy=[{name: region, header: x-region, whenMissing: {default: none}}, {name: p, metadata: Partition}]";
    let windows = "windows=[{name: last, count: {size: 100, slide: 10}}, {name: visit, session: {gapField: /gap, maxDuration: 1h}}]";
    let set = ["--set", "explode={field: /choices}", "--set", key, "--set", windows];
    let mut arguments = vec!["explain".to_owned(), "-f".to_owned(), scene.text("job.yaml")];
    arguments.extend(set.iter().map(ToString::to_string));
    let ended = run(&arguments);
    let text = exact(&ended, 0);
    for line in [
        "  explode       /choices: one event for each of its elements\n",
        "  key           region = header x-region (missing: \"none\"), p = the record's Partition (missing: dead letter)\n",
        "  last: the last 100 events of a key, after every 10 of them\n",
        "  visit: session gapField /gap, maxDuration 1h; no late events; fires on time, late after every event;",
        "  last: 101 rows of ",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_manifest_may_come_from_a_pipe() {
    let manifest = super::scene::MANIFEST;
    let valid = run_with_input(&["validate", "-f", "-"], manifest.as_bytes());
    assert_eq!(exact(&valid, 0), "-: valid\n");
    let several = run_with_input(
        &["validate", "-f", "-"],
        format!("{manifest}\n---\n{manifest}").as_bytes(),
    );
    assert_eq!(several.code, Some(2));
    assert_eq!(
        several.stderr,
        "standard input: holds several documents; give each manifest a file of its own\n"
    );
    let near = manifest.replace("groupBy", "groupby");
    let near = run_with_input(&["validate", "-f", "-"], near.as_bytes());
    assert_eq!(
        near.stderr,
        "standard input: spec.groupby: unknown field; did you mean groupBy?\n"
    );
    let twice = run_with_input(&["run", "-f", "-"], b"");
    assert!(
        twice.code == Some(2) && twice.stderr.contains("both read standard input"),
        "{}",
        twice.stderr
    );
    let generate = run(&["generate", "foo=1"]);
    assert!(
        generate.stderr.starts_with("generate: generator option `foo`"),
        "{}",
        generate.stderr
    );
}
