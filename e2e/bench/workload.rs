//! The workloads that drain a topic: what is in it, the job that reads it, and the same in Flink's SQL.
//! Must not run anything.

use jiff::Timestamp;
use serde_json::Value;

use super::job::EIGHT;

/// Event time of the first event, ms: the generator's own default.
const START_MS: u64 = 1_767_225_600_000;
/// Event time that goes on behind the events, with few of them, so that windows close one after the other.
const TAIL_SECONDS: u64 = 70;
/// Events a second of it, and keys.
const TAIL_RATE: u64 = 64;

/// The contents of a topic.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Input {
    /// Its name.
    pub topic: &'static str,
    /// Events a second of event time.
    pub rate: u64,
    /// Further options of the generator.
    pub options: &'static str,
}

impl Input {
    /// Options of the generator: the events, then the tail.
    pub fn answered(&self, events: u64) -> [String; 2] {
        let Self { rate, options, .. } = self;
        let start_ms = START_MS + events * 1_000 / rate;
        let start = Timestamp::from_millisecond(start_ms as i64).unwrap_or(Timestamp::UNIX_EPOCH);
        let tail = TAIL_SECONDS * TAIL_RATE;
        [
            format!("events={events},rate={rate},seed=1,disorder=2000,{options}"),
            format!("events={tail},rate={TAIL_RATE},seed=2,keys={TAIL_RATE},start={start:.3}"),
        ]
    }

    /// One event and more on every partition, far ahead: every window before them closes; their own stay open.
    pub const CLOSING: &'static str = "events=64,rate=100,seed=2,keys=64,start=2026-06-01T00:00:00Z";
    /// The day that windows of those events are in.
    pub const CLOSING_DAY: &'static str = "2026-06-01";
}

const UNIFORM: Input = Input {
    topic: "uniform",
    rate: 100_000,
    options: "keys=20000",
};
const SESSIONS: Input = Input {
    topic: "sessions",
    rate: 5_000,
    options: "keys=200000,late=0.02",
};
const HOT: Input = Input {
    topic: "hot",
    rate: 100_000,
    options: "keys=20000,hot=0.8",
};
const MANY: Input = Input {
    topic: "many",
    rate: 100_000,
    options: "keys=100000",
};

/// One workload.
pub struct Workload {
    /// Its number in the design.
    pub id: &'static str,
    /// What it is, for people.
    pub title: &'static str,
    /// What it reads.
    pub input: Input,
    /// Members of the window.
    pub window: &'static str,
    /// The aggregates.
    pub aggregates: String,
    /// Further members of the spec.
    pub more: &'static str,
    /// The condition in `more`.
    pub passes: fn(&Value) -> bool,
    /// The same for Flink: the table-valued window, further columns, the condition. Absent: not beside Flink.
    pub flink: Option<Query>,
}

/// What Flink's query has.
pub struct Query {
    /// The window.
    pub window: &'static str,
    /// Columns of the result beside window, key and the eight.
    pub columns: &'static [(&'static str, &'static str, &'static str)],
    /// The condition.
    pub condition: &'static str,
}

const TUMBLE: &str = "TUMBLE(TABLE events, DESCRIPTOR(ts), INTERVAL '10' SECOND)";
/// Percentiles of at most 256 values of a window are exact here, and Flink's always are.
const SKETCHES: &str = "
    - {name: quantiles, percentile: {field: /latency_ms, quantiles: [0.5, 0.95, 0.99]}}
    - {name: models, distinct: {field: /model}}";
/// Room for every open window in memory.
const AMPLE_BUDGET: &str = "  state: {backend: RocksDB, volume: {size: 10Gi}, memoryBudget: 512Mi}\n";
const STATE: &str = "  state: {backend: RocksDB, volume: {size: 10Gi}}\n";
const MEMORY: &str = "  state: {backend: Memory}\n";
/// Four tasks share 8 MiB of it for their state: about half of what W2 holds.
const TIGHT_BUDGET: &str = "  state: {backend: RocksDB, volume: {size: 10Gi}, memoryBudget: 16Mi}\n";

/// As much for each session as `TIGHT_BUDGET` is for W2's rows.
const SESSIONS_BUDGET: &str = "  state: {backend: RocksDB, volume: {size: 10Gi}, memoryBudget: 64Mi}\n";

fn everything(_: &Value) -> bool {
    true
}

fn failed(document: &Value) -> bool {
    document["status"].as_i64().is_some_and(|status| status >= 400)
}

fn plain(id: &'static str, title: &'static str, window: &'static str) -> Workload {
    Workload {
        id,
        title,
        input: UNIFORM,
        window,
        aggregates: EIGHT.to_owned(),
        more: STATE,
        passes: everything,
        flink: None,
    }
}

fn query(window: &'static str) -> Query {
    Query {
        window,
        columns: &[],
        condition: "TRUE",
    }
}

/// All of them.
pub fn workloads() -> Vec<Workload> {
    [tumbling(), others()].into_iter().flatten().collect()
}

/// Ten seconds, 20,000 keys.
fn tumbling() -> Vec<Workload> {
    vec![
        Workload {
            more: concat!(
                "  let: [{name: tokens, value: event.usage.prompt + event.usage.completion}]\n",
                "  where: event.status >= 400\n",
                "  state: {backend: RocksDB, volume: {size: 10Gi}}\n"
            ),
            passes: failed,
            flink: Some(Query {
                condition: "`status` >= 400",
                ..query(TUMBLE)
            }),
            ..plain("W1", "parse, derive, filter 2 %, tumble 10 s", "tumbling: {size: 10s}")
        },
        Workload {
            flink: Some(query(TUMBLE)),
            ..plain("W2", "tumble 10 s, 20 k keys, 8 aggregates", "tumbling: {size: 10s}")
        },
        Workload {
            more: MEMORY,
            ..plain("W2M", "W2, state in memory only", "tumbling: {size: 10s}")
        },
        Workload {
            more: TIGHT_BUDGET,
            ..plain("W2E", "W2, memory for half of the state", "tumbling: {size: 10s}")
        },
        Workload {
            aggregates: format!("{EIGHT}{SKETCHES}"),
            flink: Some(Query {
                columns: &[
                    (
                        "quantiles",
                        "ARRAY<DOUBLE>",
                        "PERCENTILE(latency_ms, ARRAY[0.5, 0.95, 0.99])",
                    ),
                    ("models", "BIGINT", "COUNT(DISTINCT model)"),
                ],
                ..query(TUMBLE)
            }),
            ..plain("W3", "W2 + p50/p95/p99 + distinct", "tumbling: {size: 10s}")
        },
    ]
}

/// Other windows, other keys.
fn others() -> Vec<Workload> {
    vec![
        Workload {
            flink: Some(query(
                "HOP(TABLE events, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '60' SECOND)",
            )),
            ..plain(
                "W4",
                "hop 60 s / 1 s, 20 k keys, 8 aggregates",
                "sliding: {size: 60s, slide: 1s}",
            )
        },
        Workload {
            input: SESSIONS,
            flink: Some(query(
                "SESSION(TABLE events PARTITION BY `user`, DESCRIPTOR(ts), INTERVAL '30' SECOND)",
            )),
            ..plain("W6", "session 30 s, 200 k keys, 2 % late", "session: {gap: 30s}")
        },
        Workload {
            input: SESSIONS,
            more: SESSIONS_BUDGET,
            ..plain("W6E", "W6, memory for half of the state", "session: {gap: 30s}")
        },
        Workload {
            input: HOT,
            flink: Some(query(TUMBLE)),
            ..plain("W12", "W2, one key is 80 % of the events", "tumbling: {size: 10s}")
        },
        Workload {
            input: MANY,
            aggregates: format!("{EIGHT}\n    - {{name: p99, percentile: {{field: /latency_ms, quantiles: [0.99]}}}}"),
            more: AMPLE_BUDGET,
            flink: Some(Query {
                columns: &[("p99", "DOUBLE", "PERCENTILE(latency_ms, 0.99)")],
                ..query("TUMBLE(TABLE events, DESCRIPTOR(ts), INTERVAL '1' HOUR)")
            }),
            ..plain("W13", "100 k windows, 8 aggregates + p99", "tumbling: {size: 1h}")
        },
    ]
}
