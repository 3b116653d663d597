//! End to end on a real cluster: what a user does in the life of a job, in order, each step followed by the checker.
//!
//! Needs a cluster (`make cluster`, or `KUBECONFIG` and `E2E_KAFKA`), the image in it (`make image`), kubectl and helm.
#![expect(clippy::panic, reason = "helpers of tests fail the test that calls them")]

mod back;
mod kills;
mod run;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use streamagg_crds::manifest::read_yaml;
use streamagg_e2e::checker::Added;
use streamagg_e2e::pod_process::Ending;
use streamagg_e2e::traffic::{Shape, Traffic};
use streamagg_e2e::wait::{Seen, await_condition, pause};

use self::kills::{kill_operator, kill_processor};
use self::run::{JOB, PARTITIONS, READY_MAX, Run};

const SHAPE: Shape = Shape {
    partitions: PARTITIONS,
    step_ms: 200,
    disorder_ms: 5_500,
    late_one_in: 100,
    late_by_ms: 900_000,
    bad_one_in: 250,
    tenants: 10,
    scattered: false,
};
/// 2025-10-09T08:53:20Z.
const START_MS: i64 = 1_760_000_000_000;

fn installed(run: &mut Run) -> Result<(), String> {
    run.install()
}

fn sample_is_ready(run: &mut Run) -> Result<(), String> {
    let manifest = run.sample(include_str!("../../config/samples/llm-by-model.yaml"), JOB)?;
    run.apply_job(&manifest)?;
    run.cluster.await_ready(JOB, 1, READY_MAX)?;
    let table = run.cluster.kubectl(&["get", "sagg", JOB])?;
    println!("{}", table.trim_end());
    let columns: Vec<&str> = table.lines().next().unwrap_or_default().split_whitespace().collect();
    let row: Vec<&str> = table.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    for column in [
        "READY",
        "STATE",
        "REPLICAS",
        "WATERMARK-LAG",
        "LAG",
        "CHECKPOINT",
        "AGE",
    ] {
        if !columns.contains(&column) {
            return Err(format!("column {column} is not there: {table}"));
        }
    }
    match row.get(..2) {
        Some([name, ready]) if *name == JOB && *ready == "True" => {}
        _ => return Err(format!("the row does not say READY True: {table}")),
    }
    if row.contains(&"1/1") {
        Ok(())
    } else {
        Err(format!("the row does not say 1/1: {table}"))
    }
}

fn results_are_the_batch_answer(run: &mut Run) -> Result<(), String> {
    run.open_verifier(Traffic::new(run.seed, SHAPE, START_MS))?;
    run.produce(20_000)?;
    run.verify()
}

/// The real trace through the other sample: state in memory, another shape.
fn trace_is_the_batch_answer(run: &mut Run) -> Result<(), String> {
    let manifest = run.sample(include_str!("../../config/samples/azure-trace.yaml"), "azure-trace")?;
    let report = run.trace(&manifest)?;
    println!("  {report}");
    run.cluster
        .kubectl(&["delete", "sagg", "azure-trace", "--timeout=120s"])
        .map(drop)
}

fn bad_manifests_are_refused_by_name(run: &mut Run) -> Result<(), String> {
    let with = |pointer: &str, value: Value| {
        let mut manifest = run.manifest.clone();
        manifest["metadata"]["name"] = json!("refused");
        set(&mut manifest, pointer, value);
        manifest
    };
    let refused = [
        (
            "/spec/windows/0/sliding",
            json!({"size": "5m", "slide": "1m"}),
            "spec.windows",
        ),
        (
            "/spec/windows/0/tumbling/size",
            json!("sixty"),
            "spec.windows[0].tumbling.size",
        ),
        ("/spec/where", json!(7), "spec.where"),
        ("/spec/aggregates/1/sum", json!({}), "aggregates"),
        ("/spec/replicas", json!(0), "spec.replicas"),
        (
            "/spec/sink/kafka/topic",
            run.manifest["spec"]["source"]["kafka"]["topics"][0].clone(),
            "topic",
        ),
    ];
    for (pointer, value, name) in refused {
        match run.cluster.apply(&with(pointer, value)) {
            Err(message) if message.contains(name) => println!("  refused: {}", first_line(&message)),
            Err(message) => return Err(format!("{pointer}: the message does not name {name}: {message}")),
            Ok(_) => return Err(format!("{pointer}: was accepted")),
        }
    }
    // A rule that only Rust can check: the object is accepted, the operator refuses, the last good spec runs on.
    run.cluster.patch(
        JOB,
        &json!({"spec": {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}}}),
    )?;
    let status = run.cluster.await_status(JOB, "SpecValid=False", READY_MAX, |status| {
        status.is("SpecValid", "False")
    })?;
    let condition = status.condition("SpecValid").ok_or("no SpecValid")?;
    println!("  {}: {}", condition.reason, condition.message);
    if !condition.message.contains("resources") {
        return Err(format!("SpecValid does not name the field: {status}"));
    }
    run.produce(2_000)?;
    run.verify()?;
    let good = run.manifest["spec"]["resources"].clone();
    run.cluster.patch(JOB, &json!({"spec": {"resources": good}}))?;
    run.cluster.await_ready(JOB, 1, READY_MAX).map(drop)
}

fn killed_processor_comes_back(run: &mut Run) -> Result<(), String> {
    run.start_load(500)?;
    for _ in 0..3 {
        run.await_progress()?;
        kill_processor(run, 0)?;
    }
    run.await_progress()?;
    run.verify()
}

fn killed_operator_comes_back(run: &mut Run) -> Result<(), String> {
    run.start_load(500)?;
    kill_operator(run)?;
    run.await_progress()?;
    // It looks at a new generation again.
    run.cluster
        .patch(JOB, &json!({"spec": {"state": {"checkpoints": {"interval": "4s"}}}}))?;
    run.cluster.await_ready(JOB, 1, READY_MAX)?;
    run.verify()
}

fn both_killed_in_a_loop(run: &mut Run) -> Result<(), String> {
    run.start_load(500)?;
    for _ in 0..4 {
        kill_processor(run, 0)?;
        kill_operator(run)?;
        pause(Duration::from_millis(500 + run.random.below(4_000)));
    }
    run.await_progress()?;
    run.verify()?;
    run.cluster.await_ready(JOB, 1, READY_MAX).map(drop)
}

fn lost_volume_is_restored_from_the_store(run: &mut Run) -> Result<(), String> {
    run.start_load(300)?;
    run.await_checkpoint()?;
    let (pod, claim) = (format!("{JOB}-0"), format!("data-{JOB}-0"));
    let before = uid(&run.cluster.get("pvc", &claim)?);
    run.cluster.kubectl(&["delete", "pvc", &claim, "--wait=false"])?;
    run.cluster
        .kubectl(&["delete", "pod", &pod, "--grace-period=0", "--force"])?;
    await_condition("a new volume", READY_MAX, || match run.cluster.get("pvc", &claim) {
        Ok(object) if uid(&object) != before && object["status"]["phase"] == "Bound" => Seen::Done(()),
        Ok(object) => Seen::NotYet(format!("uid {}, {}", uid(&object), object["status"])),
        // The set makes the claim with the pod; where the old one is still being removed the pod waits for it.
        Err(error) => Seen::NotYet(error),
    })?;
    run.await_progress()?;
    let log = run.cluster.kubectl(&["logs", &pod])?;
    // The start-up decision is logged; the base must be a checkpoint, and the volume had nothing. One that was made
    // while the volume was deleted may be refused for the one before.
    let lines = log.lines().filter(|line| line.contains("base: Checkpoint("));
    let restored: BTreeSet<&str> = lines
        .filter_map(|line| line.split("\"task\":").nth(1)?.split(',').next())
        .collect();
    let restored = restored.len();
    println!("  {restored} tasks restored from a checkpoint");
    if restored != PARTITIONS.unsigned_abs() as usize {
        return Err(format!(
            "{restored} of {PARTITIONS} tasks say that they restored from a checkpoint"
        ));
    }
    run.verify()?;
    run.cluster.await_ready(JOB, 1, READY_MAX).map(drop)
}

fn rescaled_under_load(run: &mut Run) -> Result<(), String> {
    rescale(run, &[3, 2], false)
}

fn rescaled_with_kills(run: &mut Run) -> Result<(), String> {
    rescale(run, &[1, 3, 2], true)
}

fn rescale(run: &mut Run, steps: &[i64], with_kills: bool) -> Result<(), String> {
    run.start_load(500)?;
    for replicas in steps.iter().copied() {
        run.cluster
            .kubectl(&["scale", "sagg", JOB, &format!("--replicas={replicas}")])?;
        if with_kills {
            // In the middle of the rollout: the operator, then a pod that has tasks to move.
            pause(Duration::from_millis(run.random.below(2_500)));
            kill_operator(run)?;
            kill_processor(run, 0)?;
        }
        let status = run.cluster.await_ready(JOB, replicas, READY_MAX)?;
        println!("  {status}");
        run.await_progress()?;
        let pods = run.cluster.kubectl(&[
            "get",
            "pods",
            "-l",
            &format!("app.kubernetes.io/instance={JOB}"),
            "-o",
            "name",
        ])?;
        if i64::try_from(pods.lines().count()) != Ok(replicas) {
            return Err(format!("{replicas} replicas, but pods are {pods}"));
        }
    }
    run.verify()
}

fn resources_changed_under_load(run: &mut Run) -> Result<(), String> {
    run.start_load(500)?;
    run.cluster
        .patch(JOB, &json!({"spec": {"resources": {"limits": {"memory": "640Mi"}}}}))?;
    run.cluster.await_ready(JOB, 2, READY_MAX)?;
    let pod = run.cluster.get("pod", &format!("{JOB}-0"))?;
    let limit = &pod["spec"]["containers"][0]["resources"]["limits"]["memory"];
    if limit != "640Mi" {
        return Err(format!("the pod's memory limit is {limit}"));
    }
    run.await_progress()?;
    run.verify()
}

fn aggregate_added_under_load(run: &mut Run) -> Result<(), String> {
    run.start_load(500)?;
    let mut aggregates = run.manifest["spec"]["aggregates"].clone();
    let list = aggregates.as_array_mut().ok_or("aggregates are no list")?;
    list.push(json!({"name": "latency_min", "min": {"field": "/latency_ms"}}));
    run.manifest["spec"]["aggregates"] = aggregates.clone();
    run.cluster.patch(JOB, &json!({"spec": {"aggregates": aggregates}}))?;
    pause(Duration::from_millis(run.random.below(3_000)));
    kill_operator(run)?;
    run.cluster.await_ready(JOB, 2, READY_MAX)?;
    run.await_progress()?;
    // Events behind this time were all read by the new revision: windows that start later have every event of theirs.
    let from_ms = run.clock_ms() + i64::try_from(SHAPE.disorder_ms + SHAPE.step_ms).unwrap_or_default();
    run.job_changed(vec![Added {
        aggregate: "latency_min".to_owned(),
        from_ms,
    }])?;
    run.verify()?;
    run.produce(20_000)?;
    run.verify()
}

fn suspended_and_resumed(run: &mut Run) -> Result<(), String> {
    run.start_load(200)?;
    run.cluster.patch(JOB, &json!({"spec": {"suspend": true}}))?;
    let status = run.cluster.await_status(JOB, "suspension", READY_MAX, |status| {
        status
            .condition("Ready")
            .is_some_and(|ready| ready.reason == "Suspended" && ready.status == "True")
            && status.is("Available", "False")
    })?;
    println!("  {status}");
    let selector = format!("app.kubernetes.io/instance={JOB}");
    await_condition("no pods", READY_MAX, || {
        match run.cluster.kubectl(&["get", "pods", "-l", &selector, "-o", "name"]) {
            Ok(pods) if pods.trim().is_empty() => Seen::Done(()),
            Ok(pods) => Seen::NotYet(pods),
            Err(error) => Seen::NotYet(error),
        }
    })?;
    let before = run.results()?;
    pause(Duration::from_secs(2));
    if run.results()? != before {
        return Err("results came from a suspended job".to_owned());
    }
    run.cluster.patch(JOB, &json!({"spec": {"suspend": false}}))?;
    run.cluster.await_ready(JOB, 2, READY_MAX)?;
    run.verify()
}

fn failed_revision_stops_with_a_condition(run: &mut Run) -> Result<(), String> {
    let image = "localhost/streamagg:there-is-none";
    run.cluster.patch(JOB, &json!({"spec": {"image": image}}))?;
    let status = run
        .cluster
        .await_status(JOB, "Stalled", READY_MAX, |status| status.is("Stalled", "True"))?;
    let stalled = status.condition("Stalled").ok_or("no Stalled")?;
    println!("  Stalled={}: {}", stalled.reason, stalled.message);
    if stalled.reason != "ImagePull" || !stalled.message.contains(image) {
        return Err(format!("Stalled does not say which image cannot be had: {status}"));
    }
    if !status.is("Ready", "False") || status.condition("Reconciling").is_some() {
        return Err(format!("a stalled job is neither Ready nor Reconciling: {status}"));
    }
    run.cluster.patch(JOB, &json!({"spec": {"image": null}}))?;
    run.cluster.await_ready(JOB, 2, READY_MAX)?;
    run.produce(5_000)?;
    run.verify()
}

fn deleted(run: &mut Run) -> Result<(), String> {
    run.cluster.kubectl(&["delete", "sagg", JOB, "--timeout=120s"])?;
    let selector = format!("app.kubernetes.io/instance={JOB}");
    let kinds = "statefulsets,pods,services,configmaps,secrets,poddisruptionbudgets,serviceaccounts";
    await_condition("nothing left of the job", READY_MAX, || {
        match run.cluster.kubectl(&["get", kinds, "-l", &selector, "-o", "name"]) {
            Ok(left) if left.trim().is_empty() => Seen::Done(()),
            Ok(left) => Seen::NotYet(left),
            Err(error) => Seen::NotYet(error),
        }
    })?;
    // State is retained by default.
    let claims = run.cluster.kubectl(&["get", "pvc", "-o", "name"])?;
    if claims.contains(&format!("data-{JOB}-0")) {
        return run.verify();
    }
    Err(format!("the volumes went with the job: {claims:?}"))
}

fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Sets a member by JSON pointer; its parent is there.
fn set(document: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer has a parent");
    document
        .pointer_mut(parent)
        .unwrap_or_else(|| panic!("{parent} is not there"))[name] = value;
}

type Step = fn(&mut Run) -> Result<(), String>;

const STEPS: [(&str, Step); 16] = [
    ("install the chart", installed),
    ("apply the sample: Ready, columns", sample_is_ready),
    ("results equal the batch answer", results_are_the_batch_answer),
    ("the real trace equals the batch answer", trace_is_the_batch_answer),
    ("bad manifests are refused by name", bad_manifests_are_refused_by_name),
    ("SIGKILL of a processor under load", killed_processor_comes_back),
    ("SIGKILL of the operator under load", killed_operator_comes_back),
    ("SIGKILL of both in a loop under load", both_killed_in_a_loop),
    (
        "volume deleted, restored from the store",
        lost_volume_is_restored_from_the_store,
    ),
    ("scale 1 → 3 → 2 under load", rescaled_under_load),
    (
        "scale 2 → 1 → 3 → 2, operator and a pod killed in between",
        rescaled_with_kills,
    ),
    ("resources changed under load", resources_changed_under_load),
    ("an aggregate added under load", aggregate_added_under_load),
    ("back to a checkpoint under load", back::to_a_checkpoint_under_load),
    ("suspend and resume", suspended_and_resumed),
    (
        "a failed revision stops with a clear condition",
        failed_revision_stops_with_a_condition,
    ),
];

#[test]
fn the_life_of_a_job() {
    let mut run = Run::new().expect("the run is set up");
    let mut steps: Vec<(&str, Step)> = STEPS.into();
    steps.push(("delete", deleted));
    let known: BTreeSet<&str> = steps.iter().map(|(name, _)| *name).collect();
    assert_eq!(known.len(), steps.len(), "each step has a name of its own");
    for (name, step) in steps {
        run.begin(name);
        if let Err(problem) = step(&mut run) {
            let kept = run.keep_diagnostics();
            panic!(
                "step {name:?}: {problem}\nobjects and logs are kept in {}",
                kept.display()
            );
        }
        run.done();
    }
    let kills = run
        .endings
        .iter()
        .filter(|(_, ending)| *ending == Ending::Sigkill)
        .count();
    println!(
        "{} processes ended, {kills} of them by SIGKILL: {:?}",
        run.endings.len(),
        run.endings
    );
    assert_eq!(run.endings.len(), 19, "the kills did not happen");
    run.clean_up().expect("the run is cleaned up");
}

/// Samples are read as YAML; a spelling mistake here would be seen late otherwise.
#[test]
fn samples_are_readable() {
    for text in [
        include_str!("../../config/samples/llm-by-model.yaml"),
        include_str!("../../config/samples/azure-trace.yaml"),
    ] {
        read_yaml(text).expect("the sample is YAML");
    }
}
