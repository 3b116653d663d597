//! The guard against times from the future: compared with the clock once, then pinned by a decision.
//! Must not hold: a clock of its own. The shell hands one in, and a replay hands in none.

use super::judge::Rejection;
use crate::error::RejectReason;
use crate::pipeline::builder::Plan;
use crate::pipeline::position::{Decision, DecisionKind};

/// What the task knows of the clock. Not state: nothing of it outlives the record that is judged.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    /// As the shell read it; absent in a replay.
    pub now_ms: Option<i64>,
    /// A decision obeyed: the next record was rejected when the clock said this.
    obeyed_ms: Option<i64>,
    /// The same for the record in hand.
    rejected_ms: Option<i64>,
    /// Where the task stood before the record in hand.
    stood_at: i64,
}

impl Clock {
    /// The next record was rejected when the clock said `now_ms`.
    pub fn obey(&mut self, now_ms: i64) {
        self.obeyed_ms = Some(now_ms);
    }

    /// A record begins, at a task that stands at `input_offset`.
    pub fn begin(&mut self, input_offset: i64) {
        self.rejected_ms = self.obeyed_ms.take();
        self.stood_at = input_offset;
    }

    /// Rejects the event in hand when it is too far ahead, and says so in a decision if none did before.
    pub fn judge(&self, plan: &Plan, event_time_ms: i64, decisions: &mut Vec<Decision>) -> Result<(), Rejection> {
        let Some(skew_ms) = plan.max_future_skew_ms else {
            return Ok(());
        };
        let now_ms = match (self.rejected_ms, self.now_ms) {
            (Some(now_ms), _) => now_ms,
            (None, Some(now_ms)) if event_time_ms > now_ms.saturating_add(skew_ms) => {
                decisions.push(Decision {
                    input_offset: self.stood_at,
                    kind: DecisionKind::FutureSkew { now_ms },
                });
                now_ms
            }
            (None, _) => return Ok(()),
        };
        let ahead_ms = event_time_ms.saturating_sub(now_ms);
        Err(Rejection {
            reason: RejectReason::TimestampInFuture,
            detail: format!(
                "event time {event_time_ms} is {ahead_ms} ms ahead of the clock, maxFutureSkew is {skew_ms} ms"
            ),
        })
    }
}
