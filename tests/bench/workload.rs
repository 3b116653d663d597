//! What is measured: specs as the oracle knows them, traffic, aims. Must not run anything.

use std::sync::Arc;

use streamagg_crds::manifest::parse_manifest;
use streamagg_crds::validate::resolve;
use streamagg_processor::pipeline::builder::Plan;
use streamagg_tests::generator;
use streamagg_tests::oracle::{
    Function, Missing, NO_WATERMARK, Panes, Repeat, Shape, Spec, Trigger, Unit, Watermark, Window,
};

/// The workloads whose ratio is W5.
pub const ONE: &str = "tumble 10 s, 8 aggregates";
pub const THREE: &str = "three windows, 8 aggregates";

/// Events that a filter with this text lets pass.
pub const WHERE: &str = "event.status >= 500";

/// One workload.
pub struct Workload {
    pub name: &'static str,
    /// Events a second that were aimed at.
    pub aim: Option<u64>,
    pub spec: Spec,
    /// Whether [`WHERE`] filters, behind a derived value.
    pub is_filtered: bool,
    pub keys: u64,
    /// Events before those that are measured, so that windows fire as they do in the long run.
    pub warm_up: u64,
    pub events: u64,
    /// Windows that each event counts in.
    pub windows_per_event: u64,
}

impl Workload {
    /// Options of the generator.
    pub fn traffic(&self) -> String {
        let events = self.warm_up + self.events;
        format!(
            "events={events},rate=100000,seed=1,tenants=4000,keys={},disorder=2000",
            self.keys
        )
    }

    pub fn plan(&self) -> Result<Arc<Plan>, String> {
        let mut spec = generator::manifest(&self.spec);
        if self.is_filtered {
            spec["let"] =
                serde_json::json!([{"name": "tokens", "value": "event.usage.prompt + event.usage.completion"}]);
            spec["where"] = serde_json::json!(WHERE);
        }
        let document = serde_json::json!({
            "apiVersion": "streamagg.io/v1alpha1", "kind": "StreamAggregation", "metadata": {"name": "bench"}, "spec": spec,
        });
        let manifest = parse_manifest(&document.to_string()).map_err(|errors| format!("{errors:?}"))?;
        let job = resolve(&manifest.spec, "default", "bench").map_err(|errors| format!("{errors:?}"))?;
        Ok(Arc::new(Plan::compile(&job)))
    }
}

/// One over windows of 20,000 keys, measured over so many events.
fn workload(
    name: &'static str,
    aim: Option<u64>,
    events: u64,
    windows: Vec<Window>,
    aggregates: Vec<(String, Function, Vec<String>)>,
) -> Workload {
    Workload {
        name,
        aim,
        spec: spec(windows, aggregates),
        is_filtered: false,
        keys: 20_000,
        // So that windows of 10 s fire.
        warm_up: 1_000_000,
        events,
        windows_per_event: 1,
    }
}

/// All of them, each measured over so many events.
pub fn workloads(events: u64) -> Vec<Workload> {
    let mut all = tumbling_and_sliding(events);
    all.extend(sessions_and_several(events));
    all
}

fn tumbling_and_sliding(events: u64) -> Vec<Workload> {
    let ten_seconds = || vec![window("w", Shape::Sliding, 10_000, 10_000)];
    let workload = |name, aim, windows, aggregates| workload(name, aim, events, windows, aggregates);
    vec![
        Workload {
            is_filtered: true,
            ..workload("parse, derive, filter", Some(1_500_000), ten_seconds(), eight())
        },
        workload("tumble 10 s, count", None, ten_seconds(), vec![count()]),
        workload(ONE, Some(1_200_000), ten_seconds(), eight()),
        workload(
            "8 + p50/p95/p99 + distinct",
            Some(900_000),
            ten_seconds(),
            eight_and_sketches(),
        ),
        Workload {
            windows_per_event: 10,
            ..workload(
                "hop 10 s / 1 s, 8 aggregates",
                None,
                vec![window("w", Shape::Sliding, 10_000, 1_000)],
                eight(),
            )
        },
        Workload {
            warm_up: 6_500_000,
            windows_per_event: 60,
            ..workload(
                "hop 60 s / 1 s, 8 aggregates",
                Some(900_000),
                vec![window("w", Shape::Sliding, 60_000, 1_000)],
                eight(),
            )
        },
    ]
}

fn sessions_and_several(events: u64) -> Vec<Workload> {
    let workload = |name, aim, windows, aggregates| workload(name, aim, events, windows, aggregates);
    vec![
        workload(
            "session 30 s, 8 aggregates",
            Some(700_000),
            vec![window("w", Shape::Session, 0, 30_000)],
            eight(),
        ),
        Workload {
            keys: 200_000,
            ..workload(
                "session 3 s, 200 k keys",
                None,
                vec![window("w", Shape::Session, 0, 3_000)],
                eight(),
            )
        },
        Workload {
            windows_per_event: 4,
            ..workload(
                THREE,
                None,
                vec![
                    window("a", Shape::Sliding, 10_000, 10_000),
                    window("b", Shape::Sliding, 60_000, 60_000),
                    window("c", Shape::Sliding, 20_000, 10_000),
                ],
                eight(),
            )
        },
    ]
}

/// A window that fires on time.
pub fn window(name: &str, shape: Shape, size_ms: i64, slide_ms: i64) -> Window {
    Window {
        name: name.to_owned(),
        shape,
        size_ms,
        slide_ms,
        offset_ms: 0,
        lateness_ms: 0,
        closed_ms: NO_WATERMARK,
        trigger: Trigger {
            on_time: true,
            early: None,
            late: Repeat::Events(1),
            closing: false,
        },
        panes: Panes::Accumulating,
    }
}

/// By user, bound 5 s.
pub fn spec(windows: Vec<Window>, aggregates: Vec<(String, Function, Vec<String>)>) -> Spec {
    Spec {
        timestamp: field("/ts"),
        unit: Unit::Rfc3339,
        bound_ms: 5_000,
        watermark: Watermark::Bounded,
        skew_ms: None,
        sheds: false,
        explode: None,
        group_by: vec![("user".to_owned(), field("/user"), Missing::Reject)],
        windows,
        aggregates,
    }
}

fn field(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(str::to_owned).collect()
}

fn count() -> (String, Function, Vec<String>) {
    ("requests".to_owned(), Function::Count, Vec::new())
}

pub fn eight() -> Vec<(String, Function, Vec<String>)> {
    let aggregate = |name: &str, function, pointer: &str| (name.to_owned(), function, field(pointer));
    vec![
        count(),
        aggregate("prompt", Function::Sum, "/usage/prompt"),
        aggregate("completion", Function::Sum, "/usage/completion"),
        aggregate("cost", Function::Sum, "/cost_usd"),
        aggregate("latency", Function::Average, "/latency_ms"),
        aggregate("ttft", Function::Average, "/ttft_ms"),
        aggregate("fastest", Function::Min, "/latency_ms"),
        aggregate("slowest", Function::Max, "/latency_ms"),
    ]
}

/// With p50, p95, p99 and distinct models.
pub fn eight_and_sketches() -> Vec<(String, Function, Vec<String>)> {
    let mut aggregates = eight();
    aggregates.push((
        "quantiles".to_owned(),
        Function::Percentile(vec!["0.5", "0.95", "0.99"]),
        field("/latency_ms"),
    ));
    aggregates.push(("models".to_owned(), Function::Distinct, field("/model")));
    aggregates
}
