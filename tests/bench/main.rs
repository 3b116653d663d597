//! Benchmarks of the engine: one core, input in memory, the figures of a person's table and a JSON file.
//! Must not assert anything about time; the numbers are for people (`make bench`).

use std::sync::Arc;
use std::time::Instant;

use streamagg_crds::manifest::parse_manifest;
use streamagg_crds::validate::resolve;
use streamagg_processor::generator::{Generator, Options};
use streamagg_processor::pipeline::builder::Plan;
use streamagg_processor::pipeline::operator::Task;
use streamagg_processor::pipeline::output::{Outputs, Record};

/// Records handed to one step.
const BATCH: usize = 4096;

struct Workload {
    name: &'static str,
    windows: &'static str,
    aggregates: &'static str,
}

const EIGHT: &str = "[{name: requests, count: {}}, {name: prompt, sum: {field: /usage/prompt}}, {name: completion, sum: {field: /usage/completion}}, \
    {name: cost, sum: {field: /cost_usd}}, {name: latency, average: {field: /latency_ms}}, {name: ttft, average: {field: /ttft_ms}}, \
    {name: fastest, min: {field: /latency_ms}}, {name: slowest, max: {field: /latency_ms}}]";

/// The same with quantiles and distinct models.
const SKETCHES: &str = "[{name: requests, count: {}}, {name: prompt, sum: {field: /usage/prompt}}, {name: completion, sum: {field: /usage/completion}}, \
    {name: cost, sum: {field: /cost_usd}}, {name: latency, average: {field: /latency_ms}}, {name: ttft, average: {field: /ttft_ms}}, \
    {name: fastest, min: {field: /latency_ms}}, {name: slowest, max: {field: /latency_ms}}, \
    {name: quantiles, percentile: {field: /latency_ms, quantiles: [0.5, 0.95, 0.99]}}, {name: models, distinct: {field: /model}}]";

const WORKLOADS: [Workload; 6] = [
    Workload {
        name: "tumble 10 s, count",
        windows: "[{name: w, tumbling: {size: 10s}}]",
        aggregates: "[{name: requests, count: {}}]",
    },
    Workload {
        name: "tumble 10 s, 8 aggregates",
        windows: "[{name: w, tumbling: {size: 10s}}]",
        aggregates: EIGHT,
    },
    Workload {
        name: "8 + percentiles + distinct",
        windows: "[{name: w, tumbling: {size: 10s}}]",
        aggregates: SKETCHES,
    },
    Workload {
        name: "hop 10 s / 1 s, 8 aggregates",
        windows: "[{name: w, sliding: {size: 10s, slide: 1s}}]",
        aggregates: EIGHT,
    },
    Workload {
        name: "session 30 s, 8 aggregates",
        windows: "[{name: w, session: {gap: 30s}}]",
        aggregates: EIGHT,
    },
    Workload {
        name: "three windows, 8 aggregates",
        windows: "[{name: a, tumbling: {size: 10s}}, {name: b, tumbling: {size: 1m}}, {name: c, sliding: {size: 20s, slide: 10s}}]",
        aggregates: EIGHT,
    },
];

fn plan(workload: &Workload) -> Arc<Plan> {
    let text = format!(
        "apiVersion: streamagg.io/v1alpha1\nkind: StreamAggregation\nmetadata: {{name: bench}}\nspec:\n  source: {{kafka: {{bootstrapServers: [b:9092], topics: [in], startFrom: {{earliest: {{}}}}}}, format: {{json: {{}}}}, partitioning: {{byKey: {{}}}}}}\n  event: {{timestamp: {{field: /ts}}, watermark: {{boundedOutOfOrderness: {{bound: 5s}}}}}}\n  groupBy: [{{name: user, field: /user}}]\n  windows: {}\n  aggregates: {}\n  sink: {{kafka: {{topic: out}}}}\n  state: {{backend: Memory}}\n",
        workload.windows, workload.aggregates
    );
    let manifest = parse_manifest(&text).unwrap_or_else(|errors| exit(&format!("{errors:?}")));
    let job = resolve(&manifest.spec, "default", "bench").unwrap_or_else(|errors| exit(&format!("{errors:?}")));
    Arc::new(Plan::compile(&job))
}

fn exit(message: &str) -> ! {
    eprintln!("bench: {message}");
    std::process::exit(1)
}

/// CPU seconds of this process so far (user + system), from the kernel's scheduler statistics.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let nanoseconds: f64 = text
        .split(' ')
        .next()
        .and_then(|first| first.parse().ok())
        .unwrap_or(f64::NAN);
    nanoseconds / 1e9
}

fn main() {
    let events: u64 = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_000_000);
    let options = format!("events={events},rate=100000,seed=1,keys=20000,disorder=2000");
    let options = options
        .parse::<Options>()
        .unwrap_or_else(|error| exit(&format!("{error}")));
    let mut generator = Generator::new(options);
    let mut input = Vec::new();
    let mut ends = Vec::new();
    while generator.next_into(&mut input) {
        ends.push(input.len());
    }
    println!(
        "{} events, {:.0} bytes each, 20,000 keys, event time 100,000/s, disorder 2 s, bound 5 s",
        ends.len(),
        input.len() as f64 / ends.len() as f64
    );
    println!(
        "{:32} {:>12} {:>14} {:>10} {:>10}",
        "workload", "events/s", "CPU s/M events", "results", "rows"
    );
    for workload in &WORKLOADS {
        run(workload, &input, &ends);
    }
}

fn run(workload: &Workload, input: &[u8], ends: &[usize]) {
    let mut task = Task::new(plan(workload), 0);
    let mut outputs = Outputs::default();
    let (mut start, mut offset, mut rows) = (0, 0, 0);
    let (cpu, clock) = (cpu_seconds(), Instant::now());
    for batch in ends.chunks(BATCH) {
        let records: Vec<Record<'_>> = batch
            .iter()
            .map(|end| {
                let record = Record::new(offset, &input[start..end - 1]);
                (start, offset) = (*end, offset + 1);
                record
            })
            .collect();
        task.step(&records, &mut outputs);
        outputs.clear();
        rows = rows.max(task.rows());
    }
    let (cpu, seconds) = (cpu_seconds() - cpu, clock.elapsed().as_secs_f64());
    let millions = ends.len() as f64 / 1e6;
    println!(
        "{:32} {:>12.0} {:>14.3} {:>10} {:>10}",
        workload.name,
        ends.len() as f64 / seconds,
        cpu / millions,
        task.stats().results,
        rows
    );
    assert_eq!(task.stats().records, ends.len() as u64, "every event was consumed");
    assert_eq!(task.stats().dead(), 0, "no event was rejected");
}
