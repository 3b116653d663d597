//! Counters of what went well and what did not: transactions, errors, assignments, decisions, rewinds, records shed.
//! Must not hold: what follows from them.

use prometheus::{GaugeVec, IntCounterVec};

use super::Maker;
use crate::pipeline::position::{Decision, DecisionKind};

/// What follows from an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// The same is tried again.
    Retry,
    /// A record is passed over and goes on as a dead letter.
    Skip,
    /// A person has to act.
    Fatal,
}

impl ErrorClass {
    fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Skip => "skip",
            Self::Fatal => "fatal",
        }
    }
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionOutcome {
    /// Its records are readable.
    Committed,
    /// None of its records ever is; it is sent again, or not, by the error behind it.
    Aborted,
    /// The broker gave no answer: read back from the control topic.
    Unknown,
    /// Another owner came.
    Fenced,
}

impl TransactionOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Aborted => "aborted",
            Self::Unknown => "unknown",
            Self::Fenced => "fenced",
        }
    }
}

pub(super) struct Outcomes {
    transactions: IntCounterVec,
    errors: IntCounterVec,
    assignments: IntCounterVec,
    decisions: IntCounterVec,
    restores: IntCounterVec,
    spans: IntCounterVec,
    records_shed: IntCounterVec,
    pub kept_share: GaugeVec,
}

impl Outcomes {
    pub fn new(make: &Maker<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            transactions: make.counter(
                "transactions_total",
                "Transactions, by outcome: committed, aborted, unknown, fenced.",
                &["task", "outcome"],
            )?,
            errors: make.counter(
                "errors_total",
                "Errors, by class (retry, skip, fatal) and kind.",
                &["task", "class", "kind"],
            )?,
            assignments: make.counter(
                "assignments_total",
                "Tasks that an assignment brought or took away: taken, released.",
                &["change"],
            )?,
            decisions: make.counter(
                "decisions_total",
                "Decision records, by kind: idle, tick, future_skew, share, cut.",
                &["task", "kind"],
            )?,
            restores: make.counter(
                "restores_total",
                "Rewinds to a checkpoint that a user ordered, carried out.",
                &["task"],
            )?,
            spans: make.counter("spans_total", "Spans for the OTLP collector: sent, lost.", &["outcome"])?,
            records_shed: make.counter(
                "records_shed_total",
                "Records passed over, for the task was too far behind (source.kafka.loadShedding).",
                &["task"],
            )?,
            kept_share: make.real(
                "kept_share",
                "Share of the records that is kept now, where source.kafka.loadShedding is given; 1 is all.",
            )?,
        })
    }

    pub fn transaction(&self, task: u32, outcome: TransactionOutcome) {
        self.transactions
            .with_label_values(&[task.to_string().as_str(), outcome.as_str()])
            .inc();
    }

    pub fn error(&self, task: u32, class: ErrorClass, kind: &str, count: u64) {
        if count > 0 {
            self.errors
                .with_label_values(&[task.to_string().as_str(), class.as_str(), kind])
                .inc_by(count);
        }
    }

    pub fn assigned(&self, taken: u64, released: u64) {
        self.assignments.with_label_values(&["taken"]).inc_by(taken);
        self.assignments.with_label_values(&["released"]).inc_by(released);
    }

    pub fn decided(&self, task: &str, decision: &Decision) {
        let kind = match decision.kind {
            DecisionKind::IdleAdvance { .. } => "idle",
            DecisionKind::Tick { .. } => "tick",
            DecisionKind::FutureSkew { .. } => "future_skew",
            DecisionKind::Share(_) => "share",
            DecisionKind::Cut(_) => "cut",
        };
        self.decisions.with_label_values(&[task, kind]).inc();
    }

    /// Decisions about records, which come with the outputs; that there were none is told, too.
    pub fn skewed(&self, task: &str, count: u64) {
        self.decisions.with_label_values(&[task, "future_skew"]).inc_by(count);
    }

    pub fn restored(&self, task: u32) {
        self.restores.with_label_values(&[&task.to_string()]).inc();
    }

    pub fn shed(&self, task: u32, records: u64, share: f64) {
        let task = task.to_string();
        self.records_shed.with_label_values(&[&task]).inc_by(records);
        self.kept_share.with_label_values(&[&task]).set(share);
    }

    pub fn spans(&self, sent: bool, count: u64) {
        let outcome = if sent { "sent" } else { "lost" };
        self.spans.with_label_values(&[outcome]).inc_by(count);
    }
}
