//! Load shedding of a running task: gathers how far behind it is, has the task obey what is decided, leaves the decision
//! to the epoch that is open. Must not decide anything itself (`pipeline::shedding`).

use rdkafka::message::{BorrowedMessage, Message};

use super::Executor;
use super::running::Running;
use crate::core::share::Share;
use crate::pipeline::position::{Decision, DecisionKind};
use crate::pipeline::shedding::{self, Shedding};
use crate::pipeline::stage::Stage;

/// What a running task knows of the load.
pub(super) struct Load {
    shedding: Shedding,
    /// When the last record read was appended, ms.
    newest_ms: Option<i64>,
    /// Records shed that the metrics have heard of.
    reported: u64,
    /// The metrics have a share.
    has_told: bool,
}

impl Load {
    pub fn new(executor: &Executor) -> Self {
        Self {
            shedding: Shedding::new(executor.context.job.source.load_shedding, executor.role.stage),
            newest_ms: None,
            reported: 0,
            has_told: false,
        }
    }

    /// These records were read.
    pub fn read(&mut self, batch: &[BorrowedMessage<'_>]) {
        let newest_ms = batch.last().and_then(|last| last.timestamp().to_millis());
        self.newest_ms = newest_ms.or(self.newest_ms);
    }
}

impl Running<'_> {
    /// The share of the records that the task keeps. A window task keeps all that the combine tasks let through; what its
    /// position says is of these.
    fn share(&self) -> Share {
        match self.executor.role.stage {
            Stage::Whole | Stage::Combine => self.started.task.position().shed.share,
            Stage::Window => Share::ALL,
        }
    }

    /// Decides which share of the records is kept from here on, and obeys it.
    pub(super) fn shed(&mut self) {
        let kept = self.share();
        if !self.load.shedding.is_wanted() && kept.is_all() {
            return;
        }
        let now_ms = self.executor.context.clock.now_ms();
        // What is not read because another partition is behind is no load.
        let behind_ms = if self.brakes.is_waiting() {
            None
        } else {
            shedding::behind_ms(now_ms, self.load.newest_ms, self.seen(), self.executor.board.end())
        };
        let Some(share) = self.load.shedding.decide(now_ms, behind_ms, kept) else {
            return;
        };
        let input_offset = self.started.task.position().input_offset;
        tracing::warn!(
            task = self.executor.task,
            offset = input_offset,
            behind_ms,
            share = share.as_f64(),
            "load shedding: from here on this share of the records is kept"
        );
        self.obey(Decision {
            input_offset,
            kind: DecisionKind::Share(share),
        });
    }

    /// The share of the records that is kept, where some may be shed.
    pub(super) fn kept_share(&mut self) -> Option<f64> {
        let (share, shed) = (self.share(), self.started.task.stats().shed);
        let new = shed - std::mem::replace(&mut self.load.reported, shed);
        let tells = self.load.shedding.is_wanted() || !share.is_all() || new > 0;
        // Once more when it is over: the gauge goes back to all.
        if !std::mem::replace(&mut self.load.has_told, tells) && !tells {
            return None;
        }
        self.executor
            .context
            .metrics
            .shed(self.executor.task, new, share.as_f64());
        Some(share.as_f64())
    }
}
