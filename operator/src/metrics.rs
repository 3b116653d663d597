//! The operator's own Prometheus metrics. Must not hold: figures of the pipelines (the pods export those).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
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
    conditions: IntGaugeVec,
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
        let conditions = Opts::new("streamagg_operator_condition", "1 while the condition is True");
        let conditions = IntGaugeVec::new(conditions, &["namespace", "name", "type"])?;
        registry.register(Box::new(conditions.clone()))?;
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
            conditions,
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
        let find = |type_: &str| status.conditions.iter().find(|condition| condition.type_ == type_);
        for type_ in CONDITIONS {
            let held = find(type_).is_some_and(|condition| condition.status == "True");
            let series = self.conditions.with_label_values(&[namespace, name, type_]);
            series.set(i64::from(held));
        }
        for type_ in OPTIONAL_CONDITIONS {
            let labels = [namespace, name, type_];
            match find(type_) {
                Some(condition) => {
                    let series = self.conditions.with_label_values(&labels);
                    series.set(i64::from(condition.status == "True"));
                }
                // One that never was is fine.
                None => drop(self.conditions.remove_label_values(&labels)),
            }
        }
    }

    /// Removes every series of an aggregation that is gone: it would alert for ever.
    pub fn forget(&self, namespace: &str, name: &str) {
        self.queue.leave(namespace, name);
        for type_ in CONDITIONS.into_iter().chain(OPTIONAL_CONDITIONS) {
            drop(self.conditions.remove_label_values(&[namespace, name, type_]));
        }
    }

    /// The text exposition format.
    ///
    /// # Errors
    /// When a metric family cannot be encoded.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
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
