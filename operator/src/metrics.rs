//! The operator's own Prometheus metrics. Must not hold: figures of the pipelines (the pods export those).

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

/// Everything `/metrics` shows.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Reconciles, by outcome (`ok` or the error's kind).
    pub reconciles: IntCounterVec,
    /// Seconds a reconcile took.
    pub reconcile_seconds: HistogramVec,
    /// API effects carried out, by action.
    pub actions: IntCounterVec,
    /// 1 while the condition is True, by namespace, name and condition type.
    pub conditions: IntGaugeVec,
}

impl Metrics {
    /// Registers all metrics in a registry of their own.
    ///
    /// # Errors
    /// When two metrics share a name; a programming error.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let reconciles = IntCounterVec::new(
            Opts::new("streamagg_operator_reconciles_total", "Reconciles by outcome"),
            &["outcome"],
        )?;
        let reconcile_seconds = HistogramVec::new(
            HistogramOpts::new("streamagg_operator_reconcile_seconds", "Duration of a reconcile"),
            &["outcome"],
        )?;
        let actions = IntCounterVec::new(
            Opts::new("streamagg_operator_actions_total", "API effects by kind"),
            &["action"],
        )?;
        let conditions = IntGaugeVec::new(
            Opts::new("streamagg_operator_condition", "1 while the condition is True"),
            &["namespace", "name", "type"],
        )?;
        registry.register(Box::new(reconciles.clone()))?;
        registry.register(Box::new(reconcile_seconds.clone()))?;
        registry.register(Box::new(actions.clone()))?;
        registry.register(Box::new(conditions.clone()))?;
        Ok(Self {
            registry,
            reconciles,
            reconcile_seconds,
            actions,
            conditions,
        })
    }

    /// The text exposition format.
    ///
    /// # Errors
    /// When a metric family cannot be encoded.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}
