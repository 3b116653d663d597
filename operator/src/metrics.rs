//! The operator's own Prometheus metrics. Must not hold: figures of the pipelines (the pods export those).

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};
use streamagg_crds::v1alpha1::StreamAggregationStatus;

use crate::error::Error;

/// Conditions exported as 0 while absent: these are present only while True, or always.
const CONDITIONS: [&str; 7] = [
    "Ready",
    "Reconciling",
    "Stalled",
    "Available",
    "Degraded",
    "SpecValid",
    "ReconciliationPaused",
];
/// Conditions that some aggregations never have: absent means no series.
const OPTIONAL_CONDITIONS: [&str; 3] = ["Checkpointed", "StorageReady", "RolloutSucceeded"];
const CONDITION_COUNT: usize = CONDITIONS.len() + OPTIONAL_CONDITIONS.len();
/// From a look that asks nobody to one at a slow API server.
const RECONCILE_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// Everything `/metrics` shows.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Reconciles, by outcome (`ok` or the error's kind).
    pub reconciles: IntCounterVec,
    /// Reconciles that failed, by what the API server said (`Forbidden`, `TooManyRequests`, `unreachable` …).
    pub errors: IntCounterVec,
    /// Seconds a reconcile took.
    pub reconcile_seconds: HistogramVec,
    /// Reconciles under way.
    pub reconciling: IntGauge,
    /// Looks at an aggregation, by where they looked: `cache` or `server`.
    pub looks: IntCounterVec,
    /// Aggregations whose change waits for a reconcile.
    pub queue: Queue,
    /// Watches that were interrupted, by resource.
    pub watch_errors: IntCounterVec,
    /// API effects carried out, by action.
    pub actions: IntCounterVec,
    /// Rollouts that ended, by kind and outcome.
    pub rollouts: IntCounterVec,
    /// StreamCheckpoints that ended, by outcome.
    pub checkpoints: IntCounterVec,
    /// 1 while this replica reconciles, 0 while it waits for the lease.
    pub leader: IntGauge,
    conditions: Conditions,
}

/// Whether each of `CONDITIONS` and then `OPTIONAL_CONDITIONS` is True; `None` is no series.
type Held = [Option<bool>; CONDITION_COUNT];

/// The conditions of every aggregation. A series of the library's takes near a kilobyte, and there are eight an
/// aggregation; so these are kept as what they are and written out when somebody asks.
#[derive(Clone, Debug, Default)]
struct Conditions {
    /// By namespace and name.
    held: Arc<Mutex<BTreeMap<(String, String), Held>>>,
}

impl Conditions {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, String), Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn types() -> impl Iterator<Item = &'static str> {
        CONDITIONS.into_iter().chain(OPTIONAL_CONDITIONS)
    }

    fn show(&self, namespace: &str, name: &str, status: &StreamAggregationStatus) {
        let mut held = [None; CONDITION_COUNT];
        for (index, (type_, held)) in Self::types().zip(&mut held).enumerate() {
            let mut all = status.conditions.iter();
            let found = all.find(|condition| condition.type_ == type_);
            let found = found.map(|condition| condition.status == "True");
            *held = found.or((index < CONDITIONS.len()).then_some(false));
        }
        self.lock().insert((namespace.to_owned(), name.to_owned()), held);
    }

    fn forget(&self, namespace: &str, name: &str) {
        self.lock().remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// The text exposition format. Names of objects have nothing in them that would have to be escaped.
    fn render(&self, text: &mut String) {
        let rows = self.lock();
        if rows.is_empty() {
            return;
        }
        text.push_str("# HELP streamagg_operator_condition 1 while the condition is True\n");
        text.push_str("# TYPE streamagg_operator_condition gauge\n");
        for ((namespace, name), held) in rows.iter() {
            for (type_, held) in Self::types().zip(held) {
                let Some(held) = held else { continue };
                let labels = format!("name=\"{name}\",namespace=\"{namespace}\",type=\"{type_}\"");
                // Writing to a string cannot fail.
                let _ = writeln!(text, "streamagg_operator_condition{{{labels}}} {}", u8::from(*held));
            }
        }
    }
}

/// Aggregations that wait; one that waits already is not counted twice.
#[derive(Clone, Debug)]
pub struct Queue {
    waiting: Arc<Mutex<HashSet<(String, String)>>>,
    depth: IntGauge,
}

impl Queue {
    /// A change of `namespace/name` was seen.
    pub fn enter(&self, namespace: &str, name: &str) {
        self.change(|waiting| waiting.insert((namespace.to_owned(), name.to_owned())));
    }

    /// `namespace/name` is looked at, or gone.
    pub fn leave(&self, namespace: &str, name: &str) {
        self.change(|waiting| waiting.remove(&(namespace.to_owned(), name.to_owned())));
    }

    fn change(&self, change: impl FnOnce(&mut HashSet<(String, String)>) -> bool) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if change(&mut waiting) {
            self.depth.set(i64::try_from(waiting.len()).unwrap_or(i64::MAX));
        }
    }
}

impl Metrics {
    /// Registers all metrics in a registry of their own.
    ///
    /// # Errors
    /// When two metrics share a name; a programming error.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |options: Opts, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let counter = IntCounterVec::new(options, labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |options: Opts| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::with_opts(options)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let reconciles = Opts::new("streamagg_operator_reconciles_total", "Reconciles by outcome");
        let errors = Opts::new("streamagg_operator_errors_total", "Failed reconciles by reason");
        let looks = Opts::new("streamagg_operator_looks_total", "Looks by source: cache or server");
        let watch_errors = Opts::new(
            "streamagg_operator_watch_errors_total",
            "Interrupted watches by resource",
        );
        let actions = Opts::new("streamagg_operator_actions_total", "API effects by kind");
        let rollouts = Opts::new(
            "streamagg_operator_rollouts_total",
            "Ended rollouts by kind and outcome",
        );
        let checkpoints = Opts::new(
            "streamagg_operator_checkpoints_total",
            "StreamCheckpoints that ended, by outcome",
        );
        let reconciling = Opts::new("streamagg_operator_reconciling", "Reconciles under way");
        let depth = Opts::new("streamagg_operator_queue_depth", "Aggregations whose change waits");
        let leader = Opts::new("streamagg_operator_leader", "1 while this replica reconciles");
        let seconds = HistogramOpts::new("streamagg_operator_reconcile_seconds", "Duration of a reconcile");
        let seconds = HistogramVec::new(seconds.buckets(RECONCILE_BUCKETS.to_vec()), &["outcome"])?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self {
            reconciles: counter(reconciles, &["outcome"])?,
            errors: counter(errors, &["reason"])?,
            reconcile_seconds: seconds,
            reconciling: gauge(reconciling)?,
            looks: counter(looks, &["source"])?,
            queue: Queue {
                waiting: Arc::default(),
                depth: gauge(depth)?,
            },
            watch_errors: counter(watch_errors, &["resource"])?,
            actions: counter(actions, &["action"])?,
            rollouts: counter(rollouts, &["kind", "outcome"])?,
            checkpoints: counter(checkpoints, &["outcome"])?,
            leader: gauge(leader)?,
            conditions: Conditions::default(),
            registry,
        })
    }

    /// A reconcile ended.
    pub fn reconciled(&self, error: Option<&Error>, took: Duration) {
        let label = error.map_or("ok", Error::kind);
        self.reconciles.with_label_values(&[label]).inc();
        self.reconcile_seconds
            .with_label_values(&[label])
            .observe(took.as_secs_f64());
        if let Some(error) = error {
            self.errors.with_label_values(&[&error.reason()]).inc();
        }
    }

    /// Shows the conditions of an aggregation.
    pub fn show(&self, namespace: &str, name: &str, status: &StreamAggregationStatus) {
        self.conditions.show(namespace, name, status);
    }

    /// Removes every series of an aggregation that is gone: it would alert for ever.
    pub fn forget(&self, namespace: &str, name: &str) {
        self.queue.leave(namespace, name);
        self.conditions.forget(namespace, name);
    }

    /// The text exposition format.
    ///
    /// # Errors
    /// When a metric family cannot be encoded.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = TextEncoder::new().encode_to_string(&self.registry.gather())?;
        self.conditions.render(&mut text);
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(conditions: &[(&str, &str)]) -> StreamAggregationStatus {
        let conditions = conditions.iter().map(|(type_, status)| {
            json!({"type": type_, "status": status, "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"})
        });
        serde_json::from_value(json!({"conditions": conditions.collect::<Vec<_>>()})).unwrap()
    }

    #[test]
    fn a_deleted_aggregation_leaves_no_series_behind() {
        let metrics = Metrics::new().unwrap();
        metrics.queue.enter("n", "gone");
        metrics.show("n", "gone", &status(&[("Ready", "False"), ("Checkpointed", "True")]));
        metrics.show("n", "stays", &status(&[("Ready", "True"), ("Degraded", "True")]));
        let text = metrics.render().unwrap();
        assert!(
            text.contains(r#"{name="gone",namespace="n",type="Checkpointed"} 1"#),
            "{text}"
        );
        assert!(text.contains("streamagg_operator_queue_depth 1"), "{text}");
        metrics.forget("n", "gone");
        let text = metrics.render().unwrap();
        assert!(!text.contains("gone"), "{text}");
        assert!(
            text.contains(r#"{name="stays",namespace="n",type="Degraded"} 1"#),
            "{text}"
        );
        assert!(text.contains("streamagg_operator_queue_depth 0"), "{text}");
    }

    #[test]
    fn a_condition_that_an_aggregation_never_has_is_no_series() {
        let metrics = Metrics::new().unwrap();
        metrics.show("n", "a", &status(&[("Ready", "True")]));
        let text = metrics.render().unwrap();
        assert!(
            !text.contains("Checkpointed") && text.contains(r#"type="Stalled"} 0"#),
            "{text}"
        );
    }
}
