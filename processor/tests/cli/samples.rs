//! The samples of `config/`, run here: each gives results, and the three environments give the same.

use std::fs;
use std::path::{Path, PathBuf};

use super::process::{run, run_in};
use super::scene::{Scene, exact};

const TRAFFIC: &str = "generate:events=20000,rate=100,disorder=2000,late=0.001,bad=0.001";
const TRACE: &str = "trace:../config/data/azure-llm-inference-2023/conv.csv";
const ENVIRONMENTS: [&str; 3] = ["development", "test", "production"];

fn samples() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/samples");
    let mut found: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.sort();
    found
}

fn sample(name: &str) -> String {
    let named = samples()
        .into_iter()
        .find(|path| path.file_stem().is_some_and(|stem| stem == name));
    named.unwrap().display().to_string()
}

#[test]
fn every_sample_is_run_and_gives_results() {
    for path in samples() {
        let file = path.display().to_string();
        // The trace has fields of its own.
        let input = if file.contains("azure") { TRACE } else { TRAFFIC };
        let ended = run(&["run", "-f", &file, "--quiet", "--input", input]);
        let results = exact(&ended, 0);
        assert!(results.lines().count() > 10, "{file}: {results}");
        let valid = run(&["validate", "-f", &file]);
        assert_eq!(exact(&valid, 0), format!("{file}: valid\n"), "valid in a cluster too");
    }
}

#[test]
fn three_environments_have_one_pipeline_and_one_result() {
    let results = ENVIRONMENTS.map(|name| {
        let ended = run(&["run", "-f", &sample(name), "--quiet", "--input", TRAFFIC]);
        exact(&ended, 0).to_owned()
    });
    assert!(results[0].contains(r#""window":"hour""#) && results[0].contains(r#""timing":"Late""#));
    assert!(
        results.iter().all(|other| *other == results[0]),
        "the environments' results differ"
    );
    let pipelines = ENVIRONMENTS.map(|name| {
        let text = fs::read_to_string(sample(name)).unwrap();
        let (start, end) = (text.find("\n  event:").unwrap(), text.find("\n  sink:").unwrap());
        text[start..end].to_owned()
    });
    assert!(
        pipelines.iter().all(|other| *other == pipelines[0]),
        "the environments' pipelines differ"
    );
}

#[test]
fn an_environment_overrides_a_sample_and_explain_says_so() {
    let production = sample("production");
    let environment = [
        ("STREAMAGG_SPEC__STATE__BACKEND", "Memory"),
        ("STREAMAGG_SPEC__STATE__MEMORY_BUDGET", "64Mi"),
        ("STREAMAGG_SPEC__WINDOWS__0__TUMBLING__SIZE", "30s"),
        ("STREAMAGG_SPEC__SOURCE__KAFKA__BOOTSTRAP_SERVERS__0", "127.0.0.1:9092"),
    ];
    let ended = run_in(
        &environment,
        &["explain", "-f", &production, "--set", "windows[0].tumbling.size=10s"],
    );
    let text = exact(&ended, 0);
    for line in [
        "spec.state.backend = \"Memory\" (STREAMAGG_SPEC__STATE__BACKEND)",
        "spec.state.memoryBudget = \"64Mi\" (STREAMAGG_SPEC__STATE__MEMORY_BUDGET)",
        "spec.windows[0].tumbling.size = \"10s\" (--set)",
        "spec.source.kafka.bootstrapServers[0] = \"127.0.0.1:9092\" (STREAMAGG_SPEC__SOURCE__KAFKA__BOOTSTRAP_SERVERS__0)",
        "spec.replicas = 3 (manifest)",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let scene = Scene::new();
    let output = scene.text("results.jsonl");
    let arguments = [
        "run",
        "-f",
        &production,
        "--quiet",
        "--input",
        TRAFFIC,
        "--output",
        &output,
    ];
    exact(&run_in(&environment, &arguments), 0);
    assert!(
        fs::read_to_string(output)
            .unwrap()
            .contains(r#""start":1767225630000,"end":1767225660000"#)
    );
}
