//! What people see and do with kubectl: columns, selection by fields, describe, wait, scale, explain.
//! `--nocapture` prints it. Must not test what the operator then does.

use std::time::{Duration, Instant};

use serde_json::json;

use super::world::{DEADLINE, World, variable};

/// Runs kubectl in the world's namespace and answers what it printed.
async fn kubectl(world: &World, arguments: &str) -> String {
    let out = tokio::process::Command::new(variable("KUBECTL"))
        .args([
            "--kubeconfig",
            &variable("KUBECONFIG_API"),
            "--namespace",
            &world.namespace,
        ])
        .args(arguments.split(' '))
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let problem = String::from_utf8_lossy(&out.stderr);
    println!("$ kubectl {arguments}\n{text}{problem}");
    assert!(out.status.success(), "kubectl {arguments}: {problem}");
    text
}

/// Asks again until all `words` are there: events come a moment after the status they are about.
async fn until(world: &World, arguments: &str, words: &[&str]) {
    let started = Instant::now();
    loop {
        let text = kubectl(world, arguments).await;
        let Some(missing) = words.iter().find(|words| !text.contains(**words)) else {
            return;
        };
        assert!(started.elapsed() < DEADLINE, "{missing} is not in: {text}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The words of the first line, and of the one that begins with `name`.
fn table(text: &str, name: &str) -> (Vec<String>, Vec<String>) {
    let words = |line: &str| line.split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>();
    let rows: Vec<_> = text.lines().map(words).collect();
    let row = rows.iter().find(|row| row[0] == name);
    (rows[0].clone(), row.cloned().unwrap_or_default())
}

#[tokio::test]
async fn an_aggregation_is_listed_waited_for_scaled_and_described() {
    let world = World::new("kubectl").await;
    world.node.processors.show_figures();
    let _operator = world.operator();
    world.create(&json!({})).await;
    let met = kubectl(&world, "wait sagg/sample --for=condition=Ready --timeout=180s").await;
    assert!(met.contains("condition met"), "{met}");

    let columns = [
        "NAME",
        "READY",
        "STATE",
        "REPLICAS",
        "WATERMARK-LAG",
        "LAG",
        "CHECKPOINT",
        "AGE",
    ];
    let (head, row) = table(&kubectl(&world, "get sagg").await, "sample");
    assert_eq!(head, columns);
    assert_eq!(row[..4], ["sample", "True", "Running", "2/2"], "{row:?}");
    assert_eq!(row[5], "4816", "{row:?}");
    let (head, row) = table(&kubectl(&world, "get sagg sample -o wide").await, "sample");
    assert_eq!(head[8..], ["REVISION", "EPOCH", "MESSAGE"]);
    assert_eq!(row[8..10], ["pipeline", "7"], "{row:?}");
    kubectl(&world, "get streaming").await;
    let chosen = kubectl(&world, "get sagg --field-selector spec.suspend=false -o name").await;
    assert_eq!(chosen.trim(), "streamaggregation.streamagg.io/sample");
    let none = kubectl(&world, "get sagg --field-selector spec.suspend=true -o name").await;
    assert_eq!(none, "");

    kubectl(&world, "scale sagg/sample --replicas=3").await;
    // A condition of an older generation is none.
    kubectl(&world, "wait sagg/sample --for=condition=Ready --timeout=180s").await;
    let replicas = kubectl(&world, "get sagg sample -o jsonpath={.status.replicas}").await;
    assert_eq!(replicas, "3");

    let described = [
        "Observed Generation",
        "MinimumAvailable",
        "RolloutCompleted",
        "4 tasks run on 3 pods",
    ];
    until(&world, "describe sagg sample", &described).await;
    // The definition's schema is published a moment after the kind is served.
    let explained = ["allowedLateness", "tumbling", "DESCRIPTION"];
    until(&world, "explain streamaggregation.spec.windows", &explained).await;
}

#[tokio::test]
async fn a_checkpoint_is_listed_waited_for_and_selected() {
    let world = World::new("kubectl-scp").await;
    let _operator = world.operator();
    world.create(&json!({})).await;
    world.checkpoint("before-change", "sample").await;
    kubectl(&world, "wait scp/before-change --for=condition=Ready --timeout=180s").await;
    let (head, row) = table(&kubectl(&world, "get scp").await, "before-change");
    assert_eq!(
        head,
        [
            "NAME",
            "READY",
            "AGGREGATION",
            "PHASE",
            "TASKS",
            "SIZE",
            "COMPLETED",
            "AGE"
        ]
    );
    assert_eq!(
        row[..6],
        ["before-change", "True", "sample", "Complete", "4", "4Mi"],
        "{row:?}"
    );
    kubectl(&world, "get scp -o wide").await;
    let chosen = kubectl(
        &world,
        "get scp --field-selector spec.aggregation=sample,status.phase=Complete -o name",
    )
    .await;
    assert_eq!(chosen.trim(), "streamcheckpoint.streamagg.io/before-change");
    until(&world, "describe scp before-change", &["CheckpointComplete"]).await;
    kubectl(&world, "delete scp before-change --timeout=180s").await;
}
