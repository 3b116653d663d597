//! Metrics of the processor, in Prometheus' text form. Must not decide anything.

mod latency;
mod outcomes;
mod process;
mod weighted;

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    CounterVec, Encoder, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use self::latency::Latency;
pub use self::latency::{HeldBack, Stage, Stages};
use self::outcomes::Outcomes;
pub use self::outcomes::{ErrorClass, TransactionOutcome};
use self::process::Process;
pub use self::process::Usage;
use self::weighted::Weighted;
use crate::pipeline::arrivals::Arrivals;
use crate::pipeline::output::{Output, Outputs};
use crate::pipeline::position::{Decision, NO_WATERMARK};
use crate::state::checkpoint::Manifest;
use crate::state::recovery::Position;

/// Upper bounds of the histograms, seconds.
const SECONDS: [f64; 14] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
];

/// What a task's figures are taken from, once a second.
pub struct TaskFigures<'a> {
    /// Keys with state in memory.
    pub keys: usize,
    /// Rows of state.
    pub rows: usize,
    /// Rows of state that are not in memory.
    pub rows_on_volume: usize,
    /// Bytes of state in memory.
    pub state_bytes: usize,
    /// Window instances with state.
    pub open_windows: u64,
    /// K.
    pub committed: &'a Position,
}

/// The metrics of a process.
pub struct Metrics {
    registry: Registry,
    latency: Latency,
    process: Process,
    outcomes: Outcomes,
    rows_on_volume: IntGaugeVec,
    state_bytes: IntGaugeVec,
    lag_seconds: GaugeVec,
    watermark_lag: GaugeVec,
    checkpoint_age: GaugeVec,
    records: IntCounterVec,
    results: IntCounterVec,
    late: IntCounterVec,
    dead: IntCounterVec,
    purged_partials: IntCounterVec,
    too_large: IntCounterVec,
    commits: IntCounterVec,
    transaction_seconds: HistogramVec,
    snapshot_seconds: HistogramVec,
    checkpoint_seconds: HistogramVec,
    checkpoint_failures: IntCounterVec,
    checkpoint_timestamp: GaugeVec,
    checkpoint_bytes: IntGaugeVec,
    epoch: IntGaugeVec,
    input_offset: IntGaugeVec,
    watermark_ms: IntGaugeVec,
    lag: IntGaugeVec,
    keys: IntGaugeVec,
    rows: IntGaugeVec,
    open_windows: IntGaugeVec,
    replays: IntCounterVec,
    skipped: IntCounterVec,
    ready: Gauge,
}

struct Maker<'a> {
    registry: &'a Registry,
}

impl Maker<'_> {
    fn options(name: &str, help: &str) -> Opts {
        Opts::new(format!("streamagg_{name}"), help)
    }

    fn register<C: Collector + Clone + 'static>(&self, made: C) -> prometheus::Result<C> {
        self.registry.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.register(IntCounterVec::new(Self::options(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(Self::options(name, help), &["task"])?)
    }

    /// A gauge of seconds or of a share.
    fn real(&self, name: &str, help: &str) -> prometheus::Result<GaugeVec> {
        self.register(GaugeVec::new(Self::options(name, help), &["task"])?)
    }

    fn seconds_total(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<CounterVec> {
        self.register(CounterVec::new(Self::options(name, help), labels)?)
    }

    fn single(&self, name: &str, help: &str) -> prometheus::Result<Gauge> {
        self.register(Gauge::with_opts(Self::options(name, help))?)
    }

    fn weighted(&self, name: &str, help: &str, bounds: &'static [f64]) -> prometheus::Result<Weighted> {
        self.register(Weighted::new(&format!("streamagg_{name}"), help, bounds)?)
    }

    fn histogram(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<HistogramVec> {
        let options = HistogramOpts::from(Self::options(name, help)).buckets(SECONDS.to_vec());
        self.register(HistogramVec::new(options, labels)?)
    }
}

impl Metrics {
    /// Registers all metrics.
    ///
    /// # Errors
    /// Never with the names below; the library wants to be asked.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let make = Maker { registry: &registry };
        let task = &["task"][..];
        Ok(Self {
            latency: Latency::new(&make)?,
            process: Process::new(&make)?,
            outcomes: Outcomes::new(&make)?,
            rows_on_volume: make.gauge("state_rows_on_volume", "Rows of state that are on the volume only.")?,
            state_bytes: make.gauge("state_bytes", "Bytes of memory that the state takes.")?,
            lag_seconds: make.real(
                "lag_seconds",
                "Age of the last committed record while others wait behind it; 0 when none does.",
            )?,
            watermark_lag: make.real("watermark_lag_seconds", "Clock less committed watermark.")?,
            checkpoint_age: make.real("checkpoint_age_seconds", "Age of the newest checkpoint.")?,
            checkpoint_timestamp: make.real(
                "checkpoint_timestamp_seconds",
                "When the newest checkpoint was completed, Unix time.",
            )?,
            ready: make.single("ready", "1 while every assigned task runs.")?,
            records: make.counter("records_total", "Records consumed.", task)?,
            results: make.counter("results_total", "Results put out.", task)?,
            late: make.counter("late_total", "Events that missed every window.", task)?,
            dead: make.counter(
                "dead_letters_total",
                "Records rejected, by reason.",
                &["task", "reason"],
            )?,
            purged_partials: make.counter(
                "purged_partials_total",
                "Pre-aggregated rows that came when all their windows were gone.",
                task,
            )?,
            too_large: make.counter("records_too_large_total", "Outputs too large for their topic.", task)?,
            commits: make.counter("commits_total", "Epochs committed.", task)?,
            transaction_seconds: make.histogram("transaction_seconds", "Time of an epoch's transaction.", task)?,
            snapshot_seconds: make.histogram(
                "checkpoint_snapshot_seconds",
                "Pause of the task for a snapshot.",
                task,
            )?,
            checkpoint_seconds: make.histogram("checkpoint_seconds", "Time of a checkpoint, upload included.", task)?,
            checkpoint_failures: make.counter("checkpoint_failures_total", "Checkpoints that failed.", task)?,
            checkpoint_bytes: make.gauge("checkpoint_bytes", "Bytes of the newest checkpoint.")?,
            epoch: make.gauge("epoch", "Epoch last committed.")?,
            input_offset: make.gauge("input_offset", "Next input offset after the committed epoch.")?,
            watermark_ms: make.gauge("watermark_milliseconds", "Committed watermark, Unix time in ms.")?,
            lag: make.gauge(
                "lag_records",
                "Records between the committed offset and the end of the partition.",
            )?,
            keys: make.gauge("state_keys", "Keys with state in memory.")?,
            rows: make.gauge("state_rows", "Rows of state: pane and key.")?,
            open_windows: make.gauge("open_windows", "Window instances with state.")?,
            replays: make.counter(
                "replays_total",
                "Replays, by kind: exact, across_revisions.",
                &["task", "kind"],
            )?,
            skipped: make.counter("skipped_offsets_total", "Offsets of deleted input passed over.", task)?,
            registry,
        })
    }

    /// Records consumed since the last call.
    pub fn records(&self, task: u32, count: u64) {
        self.records.with_label_values(&[&task.to_string()]).inc_by(count);
    }

    /// What a step put out.
    pub fn outputs(&self, task: u32, outputs: &Outputs) {
        if outputs.list.is_empty() {
            return;
        }
        let (mut results, mut late) = (0, 0);
        let mut dead_by_reason: BTreeMap<&str, u64> = BTreeMap::new();
        for output in &outputs.list {
            match output {
                Output::Result(_) => results += 1,
                Output::Late(_) => late += 1,
                Output::Dead(dead) => *dead_by_reason.entry(dead.reason.as_str()).or_insert(0) += 1,
            }
        }
        for (reason, count) in dead_by_reason {
            self.outcomes.error(task, ErrorClass::Skip, reason, count);
            self.dead
                .with_label_values(&[task.to_string().as_str(), reason])
                .inc_by(count);
        }
        let task = task.to_string();
        self.results.with_label_values(&[&task]).inc_by(results);
        self.late.with_label_values(&[&task]).inc_by(late);
        self.outcomes.skewed(&task, outputs.decisions.len() as u64);
    }

    /// The stages of a task, to be kept by its loop.
    pub fn stages(&self, task: u32) -> Stages {
        self.latency.stages(task)
    }

    /// Something held a task back for so long.
    pub fn held_back(&self, task: u32, by: HeldBack, pause: Duration) {
        self.latency.held_back(task, by, pause);
    }

    /// Records were shed since the last call, and this share of them is kept from here on.
    pub fn shed(&self, task: u32, records: u64, share: f64) {
        self.outcomes.shed(task, records, share);
    }

    /// Spans were sent to the collector, or lost.
    pub fn spans(&self, sent: bool, count: u64) {
        self.outcomes.spans(sent, count);
    }

    /// A transaction ended.
    pub fn transaction(&self, task: u32, outcome: TransactionOutcome) {
        self.outcomes.transaction(task, outcome);
    }

    /// Something went wrong, so many times.
    pub fn error(&self, task: u32, class: ErrorClass, kind: &str, count: u64) {
        self.outcomes.error(task, class, kind, count);
    }

    /// An assignment brought tasks here, and took some away.
    pub fn assigned(&self, taken: u64, released: u64) {
        self.outcomes.assigned(taken, released);
    }

    /// What was read in a committed epoch waited so long, at `now_ms`.
    pub fn latencies(&self, task: u32, now_ms: i64, arrivals: &Arrivals) {
        self.latency.committed(task, now_ms, arrivals);
    }

    /// What the process takes of the machine.
    pub fn usage(&self, usage: &Usage) {
        self.process.show(usage);
    }

    /// What grows old by itself, in ms: the watermark and the newest checkpoint.
    pub fn ages(&self, task: u32, watermark_lag_ms: Option<i64>, checkpoint_age_ms: Option<i64>) {
        let task = task.to_string();
        for (gauge, age_ms) in [
            (&self.watermark_lag, watermark_lag_ms),
            (&self.checkpoint_age, checkpoint_age_ms),
        ] {
            if let Some(age_ms) = age_ms {
                gauge.with_label_values(&[&task]).set(seconds(age_ms));
            }
        }
    }

    /// Partials that missed every window.
    pub fn purged_partials(&self, task: u32, count: usize) {
        if count > 0 {
            self.purged_partials
                .with_label_values(&[&task.to_string()])
                .inc_by(count as u64);
        }
    }

    /// An epoch was committed.
    pub fn committed(&self, task: u32, took: Duration, too_large: u64) {
        self.error(task, ErrorClass::Skip, "RecordTooLarge", too_large);
        let task = task.to_string();
        self.commits.with_label_values(&[&task]).inc();
        self.too_large.with_label_values(&[&task]).inc_by(too_large);
        self.transaction_seconds
            .with_label_values(&[&task])
            .observe(took.as_secs_f64());
    }

    /// A snapshot was made.
    pub fn snapshot(&self, task: u32, took: Duration) {
        self.snapshot_seconds
            .with_label_values(&[&task.to_string()])
            .observe(took.as_secs_f64());
    }

    /// A checkpoint was completed, or failed (`None`).
    pub fn checkpoint(&self, task: u32, took: Duration, manifest: Option<&Manifest>) {
        let task = task.to_string();
        let Some(manifest) = manifest else {
            self.checkpoint_failures.with_label_values(&[&task]).inc();
            return;
        };
        let info = manifest.info();
        self.checkpoint_seconds
            .with_label_values(&[&task])
            .observe(took.as_secs_f64());
        self.checkpoint_bytes
            .with_label_values(&[&task])
            .set(i64::try_from(info.bytes).unwrap_or(i64::MAX));
        self.checkpoint_timestamp
            .with_label_values(&[&task])
            .set(seconds(info.completed_at_ms));
    }

    /// A replay began.
    pub fn replays(&self, task: u32, kind: &str) {
        self.replays.with_label_values(&[task.to_string().as_str(), kind]).inc();
    }

    /// Input from `from` to `to` was deleted unread and is passed over.
    pub fn skipped(&self, task: u32, from: i64, to: i64) {
        let offsets = u64::try_from(to.saturating_sub(from)).unwrap_or(0);
        self.skipped.with_label_values(&[&task.to_string()]).inc_by(offsets);
    }

    /// A decision record was made.
    pub fn decided(&self, task: u32, decision: &Decision) {
        self.outcomes.decided(&task.to_string(), decision);
    }

    /// A user's rewind was carried out.
    pub fn restored(&self, task: u32) {
        self.outcomes.restored(task);
    }

    /// Size of the state and the committed position.
    pub fn state(&self, task: u32, figures: &TaskFigures<'_>) {
        let task = task.to_string();
        let set = |gauge: &IntGaugeVec, value: i64| gauge.with_label_values(&[&task]).set(value);
        let whole = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let committed = figures.committed;
        set(&self.keys, whole(figures.keys as u64));
        set(&self.rows, whole(figures.rows as u64));
        set(&self.rows_on_volume, whole(figures.rows_on_volume as u64));
        set(&self.state_bytes, whole(figures.state_bytes as u64));
        set(&self.open_windows, whole(figures.open_windows));
        set(&self.epoch, whole(committed.epoch));
        set(&self.input_offset, committed.engine_position.input_offset);
        if committed.engine_position.watermark_ms != NO_WATERMARK {
            set(&self.watermark_ms, committed.engine_position.watermark_ms);
        }
    }

    /// Records not yet consumed, and the age of the last that was, in ms, once known.
    pub fn lag(&self, task: u32, lag: i64, age_ms: Option<i64>) {
        let task = task.to_string();
        self.lag.with_label_values(&[&task]).set(lag);
        let waiting_ms = if lag == 0 { Some(0) } else { age_ms };
        if let Some(waiting_ms) = waiting_ms {
            self.lag_seconds
                .with_label_values(&[&task])
                .set(seconds(waiting_ms.max(0)));
        }
    }

    /// Forgets the figures of a task that left: what another pod shows now must not be shown twice.
    pub fn forget(&self, task: u32) {
        let task = task.to_string();
        let gauges = [
            &self.checkpoint_bytes,
            &self.epoch,
            &self.input_offset,
            &self.watermark_ms,
            &self.lag,
            &self.keys,
            &self.rows,
            &self.rows_on_volume,
            &self.state_bytes,
            &self.open_windows,
        ];
        // Absent when the task never got there.
        for gauge in gauges {
            gauge.remove_label_values(&[&task]).ok();
        }
        for gauge in [
            &self.lag_seconds,
            &self.outcomes.kept_share,
            &self.watermark_lag,
            &self.checkpoint_age,
            &self.checkpoint_timestamp,
        ] {
            gauge.remove_label_values(&[&task]).ok();
        }
    }

    /// Whether the pod is ready.
    pub fn ready(&self, ready: bool) {
        self.ready.set(if ready { 1.0 } else { 0.0 });
    }

    /// The text that Prometheus reads.
    pub fn text(&self) -> String {
        let mut bytes = Vec::new();
        // Encoding into memory fails only on an empty family, which the registry leaves out.
        TextEncoder::new().encode(&self.registry.gather(), &mut bytes).ok();
        String::from_utf8(bytes).unwrap_or_default()
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus' numbers are doubles")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}
