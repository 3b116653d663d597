//! The job that crashes. Must not run it.

/// Tasks of the second stage, where keys are in any partition.
const SHUFFLE_PARTITIONS: u32 = 2;

/// Windows on shared panes, and aggregates whose state is a few numbers.
pub const OF_ONE_SIZE: &str = "
  windows:
    - {name: second, tumbling: {size: 1s}, allowedLateness: 500ms}
    - {name: five, sliding: {size: 5s, slide: 1s}}
  aggregates:
    - {name: requests, count: {}}
    - {name: tokens, sum: {field: /usage/prompt}}
    - {name: cost, sum: {field: /cost_usd}}
    - {name: latency, average: {field: /latency_ms}}
    - {name: fastest, min: {field: /latency_ms}}
    - {name: slowest, max: {field: /latency_ms}}";

/// Sessions, windows that grow, and aggregates that keep what they saw: few values, of which all results are exact.
pub const OF_ANY_SIZE: &str = "
  windows:
    - {name: visit, session: {gap: 3s}, allowedLateness: 1s}
    - {name: growing, cumulative: {step: 2s, size: 6s}, allowedLateness: 500ms}
  aggregates:
    - {name: requests, count: {}}
    - {name: cost, sum: {field: /cost_usd}}
    - {name: latency, percentile: {field: /latency_ms, quantiles: [0.5, 0.95, 0.99]}}
    - {name: lengths, distinct: {field: /usage/completion}}
    - {name: usual, topK: {field: /usage/completion, k: 3}}";

/// The job of a run; `scattered`: a key's events are in any partition; `computed`: its windows and aggregates.
pub fn manifest(bootstrap: &str, name: &str, delivery: &str, scattered: bool, computed: &str) -> String {
    let partitioning = match scattered {
        true => format!("any: {{shufflePartitions: {SHUFFLE_PARTITIONS}}}"),
        false => "byKey: {}".to_owned(),
    };
    format!(
        r#"
apiVersion: streamagg.io/v1alpha1
kind: StreamAggregation
metadata: {{name: {name}, namespace: e2e}}
spec:
  source:
    kafka: {{bootstrapServers: ["{bootstrap}"], topics: [{name}-in]}}
    partitioning: {{{partitioning}}}
  event:
    timestamp: {{field: /ts, unit: Rfc3339}}
    watermark: {{boundedOutOfOrderness: {{bound: 200ms}}}}
  groupBy:
    - {{name: tenant, field: /tenant}}
    - {{name: model, field: /model, whenMissing: {{default: unknown}}}}{computed}
  sink: {{kafka: {{topic: {name}-out}}}}
  lateEvents: {{kafka: {{topic: {name}-late}}}}
  deadLetters: {{kafka: {{topic: {name}-dead}}}}
  delivery: {delivery}
  state:
    backend: RocksDB
    volume: {{size: 1Gi}}
    # There is none for most rows.
    memoryBudget: 64Ki
    checkpoints: {{interval: 2s, retain: {{count: 3}}, store: {{volume: {{path: checkpoints}}}}}}
"#
    )
}
