//! When the watermark of an idle partition advances, and how far: facts in, decision out.
//! Must not hold: a clock or how facts are gathered. The shell writes the decision with its effects.

use streamagg_crds::resolved::Idle;
use streamagg_crds::v1alpha1::IdleAdvance;

use crate::pipeline::position::{DecisionKind, NO_WATERMARK};

/// The rule of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `event.idle`.
    pub idle: Idle,
    /// Bound of out-of-orderness, ms: an event that is not late may be so much behind the clock.
    pub bound_ms: i64,
    /// Windows of other partitions wait for this one (`partitioning: any`): one without any event must not hold them.
    pub meets_others: bool,
}

/// What the shell sees of one partition. Times are ms since the epoch, by one clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The clock now.
    pub now_ms: i64,
    /// Every record up to the *high* watermark was consumed and none waits in a buffer. (An open upstream transaction
    /// ends at the last stable offset, below the high watermark: that partition is not idle.)
    pub at_end: bool,
    /// When the last record came, or when the task started if none did.
    pub last_arrival_ms: i64,
    /// The task's watermark behind that record, before any idle advance.
    pub watermark_then_ms: i64,
    /// The task's watermark now.
    pub watermark_ms: i64,
    /// The watermark at which something fires or is purged next; `i64::MAX` when nothing waits.
    pub next_due_ms: i64,
}

/// Whether the watermark advances now, as the decision to write. It moves when something becomes due, otherwise once
/// every `idle.after`, so that an idle partition costs a commit only when that matters.
pub fn decide(rule: &Rule, facts: &Facts) -> Option<DecisionKind> {
    let silent_ms = facts.now_ms.saturating_sub(facts.last_arrival_ms);
    let is_idle = facts.at_end && silent_ms >= rule.idle.after_ms;
    if !is_idle || rule.idle.advance == IdleAdvance::None {
        return None;
    }
    let most_ms = facts.now_ms.saturating_sub(rule.bound_ms);
    let watermark_ms = match (facts.watermark_then_ms, rule.meets_others) {
        (NO_WATERMARK, false) => return None,
        // No event says how far its time has come: the clock alone does.
        (NO_WATERMARK, true) => most_ms,
        (watermark_then_ms, _) => watermark_then_ms.saturating_add(silent_ms).min(most_ms),
    };
    let matters = watermark_ms >= facts.next_due_ms
        || watermark_ms >= facts.watermark_ms.saturating_add(rule.idle.after_ms.max(1));
    (watermark_ms > facts.watermark_ms && matters).then_some(DecisionKind::IdleAdvance { watermark_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER_MS: i64 = 30_000;
    const RULE: Rule = Rule {
        idle: Idle {
            after_ms: AFTER_MS,
            advance: IdleAdvance::WallClock,
        },
        bound_ms: 5_000,
        meets_others: false,
    };
    const NEVER: i64 = NO_WATERMARK;
    const NOTHING: i64 = i64::MAX;

    /// Now, watermark behind the last record, watermark now, what is due next; the last record came at 1,000 s.
    fn facts([now_ms, watermark_then_ms, watermark_ms, next_due_ms]: [i64; 4]) -> Facts {
        Facts {
            now_ms,
            at_end: true,
            last_arrival_ms: 1_000_000,
            watermark_then_ms,
            watermark_ms,
            next_due_ms,
        }
    }

    #[test]
    fn the_table_of_idle_partitions() {
        let table = [
            ("long enough", [1_030_000, 995_000, 995_000, 1_010_000], Some(1_025_000)),
            ("too early", [1_029_999, 995_000, 995_000, 1_010_000], None),
            ("never an event", [1_030_000, NEVER, NEVER, NOTHING], None),
            ("events from the past", [1_030_000, 5, 5, 60], Some(30_005)),
            (
                "from the future",
                [1_030_000, 1_020_000, 1_020_000, 1_021_000],
                Some(1_025_000),
            ),
            ("beyond the clock", [1_030_000, 2_000_000, 2_000_000, 2_000_001], None),
            ("advanced, none due", [1_040_000, 995_000, 1_025_000, 1_050_000], None),
            (
                "advanced, one due",
                [1_055_000, 995_000, 1_025_000, 1_050_000],
                Some(1_050_000),
            ),
            ("nothing waits", [1_059_999, 995_000, 1_025_000, NOTHING], None),
            (
                "once every `after`",
                [1_060_000, 995_000, 1_025_000, NOTHING],
                Some(1_055_000),
            ),
            ("the clock went back", [0, 995_000, 995_000, 1_010_000], None),
        ];
        for (what, row, expected) in table {
            let expected = expected.map(|watermark_ms| DecisionKind::IdleAdvance { watermark_ms });
            assert_eq!(decide(&RULE, &facts(row)), expected, "{what}: {row:?}");
        }
    }

    #[test]
    fn without_any_event_the_clock_moves_it_only_where_others_wait_for_it() {
        let mut rule = RULE;
        rule.meets_others = true;
        let decided = |row| decide(&rule, &facts(row));
        let advance = |watermark_ms| Some(DecisionKind::IdleAdvance { watermark_ms });
        assert_eq!(decided([1_029_999, NEVER, NEVER, NEVER + 1]), None, "too early");
        assert_eq!(decided([1_030_000, NEVER, NEVER, NEVER + 1]), advance(1_025_000));
        assert_eq!(decided([1_040_000, NEVER, 1_025_000, 1_050_000]), None, "none due");
        assert_eq!(decided([1_055_000, NEVER, 1_025_000, 1_050_000]), advance(1_050_000));
        assert_eq!(
            decided([1_030_000, 5, 5, 60]),
            advance(30_005),
            "an event counts more than the clock"
        );
    }

    #[test]
    fn what_waits_and_what_must_not_move_does_not() {
        let idle = facts([1_030_000, 995_000, 995_000, 1_010_000]);
        let waits = Facts { at_end: false, ..idle };
        assert_eq!(decide(&RULE, &waits), None);
        let mut still = RULE;
        still.idle.advance = IdleAdvance::None;
        assert_eq!(decide(&still, &idle), None);
    }
}
