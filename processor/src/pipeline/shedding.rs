//! When a task sheds load (`source.kafka.loadShedding`): how far behind it is, and what share of the records it keeps from
//! now on. Pure: the shell hands in times and offsets, and writes what is decided as a decision record.
//! Must not hold: clocks, or which records a share keeps (`core::share`).

use streamagg_crds::resolved::LoadShedding;

use super::stage::Stage;
use crate::core::share::{HALVINGS_REMEMBERED, Share};

/// What a manifest can ask for is remembered.
const _: () = assert!(LoadShedding::HALVINGS_MAX as usize <= HALVINGS_REMEMBERED);

/// A task is looked at this often within the time that is too far behind …
const LOOKS: i64 = 10;
/// … but neither more often than this, ms,
const LOOK_SHORTEST_MS: i64 = 1_000;
/// nor less often.
const LOOK_LONGEST_MS: i64 = 10_000;
/// Between two looks that show a pace there is this many times the usual at most, or as much time as is too far.
const LOOKS_APART_MOST: i64 = 3;
/// A task that catches up by less than this part of the time that passes does not catch up.
const CATCHES_UP_LEAST: i64 = 10;

/// How far behind a task is, in ms: 0 when nothing waits for it, absent while that is not known. It stands at offset `seen`
/// of a partition that ended at `end` when that was looked at last, and the newest record it read was appended at
/// `newest_ms`.
pub fn behind_ms(now_ms: i64, newest_ms: Option<i64>, seen: i64, end: Option<i64>) -> Option<i64> {
    if end? <= seen {
        return Some(0);
    }
    Some(now_ms.saturating_sub(newest_ms?).max(0))
}

#[derive(Clone, Copy, Debug)]
struct Look {
    at_ms: i64,
    behind_ms: i64,
}

/// Decides the share of one task. Nothing of it is state: what it has decided is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shedding {
    rule: Option<LoadShedding>,
    last: Option<Look>,
}

impl Shedding {
    /// By the rule of a job, for a task of a stage. What a window task reads, the combine tasks have let through.
    pub fn new(rule: Option<LoadShedding>, stage: Stage) -> Self {
        Self {
            rule: rule.filter(|_| stage != Stage::Window),
            last: None,
        }
    }

    /// Whether there is a rule.
    pub fn is_wanted(&self) -> bool {
        self.rule.is_some()
    }

    /// The share that a task keeps from here on, if that is another than it keeps now.
    pub fn decide(&mut self, now_ms: i64, behind_ms: Option<i64>, share: Share) -> Option<Share> {
        let Some(rule) = self.rule else {
            return (!share.is_all()).then_some(Share::ALL);
        };
        let least = Share {
            halvings: rule.halvings_max,
        };
        if share.halvings > least.halvings {
            // The spec has changed.
            return Some(least);
        }
        let behind_ms = behind_ms?;
        // A clock that was set back begins anew.
        let before = self.last.filter(|last| last.at_ms <= now_ms);
        let every_ms = (rule.when_behind_ms / LOOKS).clamp(LOOK_SHORTEST_MS, LOOK_LONGEST_MS);
        if before.is_some_and(|last| now_ms - last.at_ms < every_ms) {
            return None;
        }
        self.last = Some(Look {
            at_ms: now_ms,
            behind_ms,
        });
        let before = before?;
        let decided = if behind_ms > rule.when_behind_ms {
            // Records that came late, or a pause of the task, are a leap and no pace: that shows from here on.
            let pace_ms = rule.when_behind_ms.max(LOOKS_APART_MOST * every_ms);
            let is_pace = before.behind_ms > rule.when_behind_ms && now_ms - before.at_ms <= pace_ms;
            let catches_up = !is_pace || catches_up(before, now_ms, behind_ms, rule.when_behind_ms);
            (!catches_up && share != least).then(|| share.halved())?
        } else if behind_ms <= rule.when_behind_ms / 2 && behind_ms <= before.behind_ms {
            share.doubled()
        } else {
            share
        };
        (decided != share).then_some(decided)
    }
}

/// Whether a task that is too far behind comes nearer as fast as it should: at this pace it is no longer too far behind
/// once as much time has passed as is too far.
fn catches_up(before: Look, now_ms: i64, behind_ms: i64, when_behind_ms: i64) -> bool {
    let passed = i128::from(now_ms - before.at_ms);
    let nearer = i128::from(before.behind_ms) - i128::from(behind_ms);
    let (behind, allowed) = (i128::from(behind_ms), i128::from(when_behind_ms.max(1)));
    nearer * i128::from(CATCHES_UP_LEAST) >= passed && nearer * allowed >= (behind - allowed) * passed
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: LoadShedding = LoadShedding {
        when_behind_ms: 60_000,
        halvings_max: 3,
    };

    fn share(halvings: u8) -> Share {
        Share { halvings }
    }

    /// A task to which 1,000 records a second come, that can count so many a second, and passes over any number. Answers
    /// the share and how far behind it is, second by second.
    fn run(seconds: i64, mut behind_ms: f64, per_second: impl Fn(i64) -> f64) -> Vec<(Share, i64)> {
        let mut shedding = Shedding::new(Some(RULE), Stage::Whole);
        let mut kept = Share::ALL;
        (0..seconds)
            .map(|second| {
                let read = per_second(second) / kept.as_f64();
                behind_ms = (behind_ms + 1_000.0 - read).max(0.0);
                #[expect(clippy::cast_possible_truncation, reason = "small")]
                let now = (second * 1_000, behind_ms as i64);
                if let Some(decided) = shedding.decide(now.0, Some(now.1), kept) {
                    assert!(decided == kept.halved() || decided == kept.doubled(), "one step");
                    kept = decided;
                }
                (kept, now.1)
            })
            .collect()
    }

    fn changes(run: &[(Share, i64)]) -> usize {
        run.windows(2).filter(|pair| pair[0].0 != pair[1].0).count()
    }

    #[test]
    fn a_task_that_keeps_up_sheds_nothing_however_late_it_is_at_times() {
        let kept = run(3_600, 0.0, |second| if second % 100 < 50 { 0.0 } else { 2_000.0 });
        assert!(kept.iter().all(|(share, _)| share.is_all()));
    }

    #[test]
    fn a_task_that_cannot_keep_up_sheds_as_much_as_it_has_to_and_changes_its_mind_seldom() {
        let kept = run(3_600, 0.0, |_| 600.0);
        assert!(
            kept.iter()
                .all(|(share, behind_ms)| share.halvings <= 1 && *behind_ms < 70_000)
        );
        // Half of it is more than it needs: it is caught up with slowly, and tries all again.
        assert!((5..60).contains(&changes(&kept)), "{}", changes(&kept));
    }

    #[test]
    fn a_task_comes_back_from_far_behind_and_then_keeps_all() {
        let kept = run(3_600, 7_200_000.0, |_| 2_000.0);
        let caught_up = kept
            .iter()
            .position(|(_, behind_ms)| *behind_ms < 60_000)
            .expect("it does");
        assert!(caught_up < 900, "{caught_up}");
        assert_eq!(kept[caught_up].0, share(3));
        assert!(kept[caught_up + 200..].iter().all(|(share, _)| share.is_all()));
        assert_eq!(changes(&kept), 6);
    }

    #[test]
    fn no_less_is_kept_than_the_least() {
        let kept = run(600, 0.0, |_| 1.0);
        assert_eq!(kept.last().expect("some").0, share(3));
    }

    #[test]
    fn what_is_not_known_or_was_just_decided_changes_nothing() {
        let mut shedding = Shedding::new(Some(RULE), Stage::Combine);
        assert_eq!(shedding.decide(0, None, Share::ALL), None);
        assert_eq!(
            shedding.decide(1_000, Some(100_000), Share::ALL),
            None,
            "one look says no pace"
        );
        assert_eq!(shedding.decide(6_999, Some(200_000), Share::ALL), None, "too soon");
        assert_eq!(shedding.decide(7_000, Some(106_000), Share::ALL), Some(share(1)));
        assert_eq!(shedding.decide(8_000, Some(200_000), share(1)), None, "too soon again");
        assert_eq!(
            shedding.decide(5_000, Some(300_000), share(1)),
            None,
            "the clock was set back"
        );
        assert_eq!(shedding.decide(11_000, Some(300_000), share(1)), Some(share(2)));
    }

    #[test]
    fn a_leap_is_no_pace() {
        let mut shedding = Shedding::new(Some(RULE), Stage::Whole);
        let mut look = |at_ms, behind_ms| shedding.decide(at_ms, Some(behind_ms), Share::ALL);
        assert_eq!(look(0, 0), None);
        assert_eq!(look(6_000, 90_000), None, "upstream committed what it had held back");
        assert_eq!(look(12_000, 30_000), None, "it is caught up with");
        assert_eq!(look(18_000, 70_000), None);
        assert_eq!(
            look(200_000, 250_000),
            None,
            "nothing was read while a checkpoint was made"
        );
        assert_eq!(look(206_000, 100_000), None, "it is caught up with");
        assert_eq!(look(212_000, 106_000), Some(share(1)), "that is slow");
    }

    #[test]
    fn what_the_spec_no_longer_allows_ends_at_once() {
        let mut none = Shedding::new(None, Stage::Whole);
        assert_eq!(none.decide(0, None, share(2)), Some(Share::ALL));
        assert_eq!(none.decide(0, Some(1_000_000), Share::ALL), None);
        assert_eq!(
            Shedding::new(Some(RULE), Stage::Whole).decide(0, None, share(5)),
            Some(share(3))
        );
        assert!(!Shedding::new(Some(RULE), Stage::Window).is_wanted());
    }

    #[test]
    fn a_task_is_behind_while_there_is_something_to_read() {
        assert_eq!(behind_ms(10_000, Some(4_000), 5, Some(6)), Some(6_000));
        assert_eq!(
            behind_ms(10_000, Some(14_000), 5, Some(6)),
            Some(0),
            "a time from the future"
        );
        assert_eq!(behind_ms(10_000, Some(4_000), 6, Some(6)), Some(0), "all is read");
        assert_eq!(behind_ms(10_000, None, 6, Some(6)), Some(0));
        assert_eq!(behind_ms(10_000, None, 5, Some(6)), None, "nothing was read yet");
        assert_eq!(
            behind_ms(10_000, Some(4_000), 5, None),
            None,
            "the end is not known yet"
        );
    }
}
