//! Which source partition waits for which, with `event.maxDrift`: one whose watermark is too far ahead of the slowest is
//! not read until that one has caught up. Pure; times are since any fixed moment and do not fall.
//! Must not hold: clocks, or how the partitions of other pods are heard of.
//!
//! It is about when records are read, never about what becomes of them: nothing of it is written or replayed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::position::NO_WATERMARK;

/// A partition that has not moved for so long holds nobody back: its task is stopped, its broker is away, its records
/// belong to an open transaction, or it waits itself.
const COUNTS_FOR: Duration = Duration::from_secs(10);

/// How far a partition is read; pods tell each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Its watermark, ms.
    pub watermark_ms: i64,
    /// Everything below this offset was read.
    pub seen: i64,
    /// It has not come to where its end was a moment ago: it is not just waiting for records.
    pub behind: bool,
}

#[derive(Clone, Copy, Debug)]
struct Partition {
    mark: Mark,
    /// When it last moved.
    moved: Duration,
    /// It is read by this process.
    here: bool,
    /// Its end as it stood when it was looked at last, and the time before. Reaching the older one is enough: of a
    /// partition that new records come to, some are always on their way.
    ends: [Option<i64>; 2],
}

impl Partition {
    fn counts(&self, now: Duration) -> bool {
        self.mark.behind && now.saturating_sub(self.moved) <= COUNTS_FOR
    }

    fn look(&mut self) {
        let [_, older] = self.ends;
        self.mark.behind = older.is_none_or(|end| self.mark.seen < end);
    }
}

/// What is known of all partitions.
#[derive(Clone, Debug)]
pub struct Alignment {
    max_drift_ms: i64,
    partitions: BTreeMap<u32, Partition>,
}

impl Alignment {
    /// Nothing is known yet, so nobody waits.
    pub fn new(max_drift_ms: i64) -> Self {
        Self {
            max_drift_ms,
            partitions: BTreeMap::new(),
        }
    }

    /// A partition of this process was read so far. Until its end is known it counts as behind.
    pub fn read(&mut self, partition: u32, watermark_ms: i64, seen: i64, now: Duration) {
        let known = self.partitions.get(&partition).filter(|known| known.here);
        let mut next = known.copied().unwrap_or(Partition {
            mark: Mark {
                watermark_ms,
                seen,
                behind: true,
            },
            moved: now,
            here: true,
            ends: [None; 2],
        });
        if seen > next.mark.seen {
            next.moved = now;
        }
        (next.mark.watermark_ms, next.mark.seen) = (watermark_ms, seen);
        next.look();
        self.partitions.insert(partition, next);
    }

    /// A partition of this process ends there now.
    pub fn end(&mut self, partition: u32, end: i64) {
        if let Some(known) = self.partitions.get_mut(&partition).filter(|known| known.here) {
            known.ends = [Some(end), known.ends[0]];
            known.look();
        }
    }

    /// A partition of this process is not read any more.
    pub fn left(&mut self, partition: u32) {
        self.partitions.remove(&partition);
    }

    /// Another process said this of a partition, now or long ago.
    pub fn heard(&mut self, partition: u32, mark: Mark, now: Duration) {
        let news = self
            .partitions
            .get(&partition)
            .is_none_or(|known| !known.here && known.mark != mark);
        if news {
            let heard = Partition {
                mark,
                moved: now,
                here: false,
                ends: [None; 2],
            };
            self.partitions.insert(partition, heard);
        }
    }

    /// What to say to other processes of a partition of this one.
    pub fn mark(&self, partition: u32) -> Option<Mark> {
        let known = self.partitions.get(&partition)?;
        known.here.then_some(known.mark)
    }

    /// The partition that this one, at its watermark, has to wait for: the slowest of those that get on and have not come
    /// to their end, if that is too far back. The slowest itself waits for nobody, so one always gets on.
    pub fn waits_for(&self, partition: u32, watermark_ms: i64, now: Duration) -> Option<u32> {
        if watermark_ms == NO_WATERMARK {
            return None;
        }
        let others = self.partitions.iter().filter(|(other, _)| **other != partition);
        let slowest = others
            .filter(|(_, known)| known.counts(now))
            .min_by_key(|(_, known)| known.mark.watermark_ms)?;
        let ahead_ms = watermark_ms.saturating_sub(slowest.1.mark.watermark_ms);
        (ahead_ms > self.max_drift_ms).then_some(*slowest.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn seconds(count: u32) -> Duration {
        SECOND * count
    }

    /// Two partitions, the second 1 s ahead of what it may be.
    fn apart() -> Alignment {
        let mut alignment = Alignment::new(10_000);
        alignment.read(0, 5_000, 50, SECOND);
        alignment.read(1, 15_001, 50, SECOND);
        alignment
    }

    #[test]
    fn who_is_too_far_ahead_waits_until_the_slowest_has_caught_up() {
        let mut alignment = apart();
        assert_eq!(alignment.waits_for(1, 15_001, SECOND), Some(0));
        assert_eq!(alignment.waits_for(0, 5_000, SECOND), None, "the slowest gets on");
        assert_eq!(alignment.waits_for(1, 15_000, SECOND), None, "as far as it may be");
        assert_eq!(alignment.waits_for(1, NO_WATERMARK, SECOND), None);
        alignment.read(0, 5_001, 51, SECOND);
        assert_eq!(alignment.waits_for(1, 15_001, SECOND), None);
        alignment.read(2, NO_WATERMARK, 0, SECOND);
        assert_eq!(alignment.waits_for(1, 15_001, SECOND), Some(2), "no time is the least");
    }

    #[test]
    fn a_partition_at_its_end_holds_nobody_back_and_one_that_is_behind_again_does() {
        let mut alignment = apart();
        let waits = |alignment: &Alignment| alignment.waits_for(1, 15_001, SECOND).is_some();
        alignment.end(0, 60);
        assert!(waits(&alignment), "where its end was before is not known yet");
        alignment.end(0, 70);
        assert!(waits(&alignment));
        alignment.read(0, 5_000, 60, SECOND);
        assert!(!waits(&alignment), "what came meanwhile is on its way");
        assert!(!alignment.mark(0).unwrap().behind);
        alignment.end(0, 90);
        assert!(waits(&alignment), "it has not come to 70");
    }

    #[test]
    fn what_does_not_move_is_gone_or_is_elsewhere_holds_nobody_back() {
        let mut alignment = apart();
        let waits = |alignment: &Alignment, at| alignment.waits_for(1, 15_001, at);
        alignment.read(0, 5_000, 50, seconds(9));
        assert_eq!(waits(&alignment, seconds(11)), Some(0));
        assert_eq!(waits(&alignment, seconds(12)), None, "nothing was read for 10 s");
        alignment.read(0, 5_000, 51, seconds(12));
        assert_eq!(waits(&alignment, seconds(12)), Some(0));
        alignment.left(0);
        assert_eq!(waits(&alignment, seconds(12)), None);
        let mark = Mark {
            watermark_ms: 1,
            seen: 7,
            behind: true,
        };
        alignment.heard(0, mark, seconds(12));
        assert_eq!(waits(&alignment, seconds(12)), Some(0));
        alignment.heard(0, mark, seconds(20));
        assert_eq!(waits(&alignment, seconds(23)), None, "it says the same for 11 s");
        alignment.heard(0, Mark { seen: 8, ..mark }, seconds(23));
        assert_eq!(waits(&alignment, seconds(23)), Some(0));
        alignment.heard(
            0,
            Mark {
                behind: false,
                seen: 9,
                ..mark
            },
            seconds(23),
        );
        assert_eq!(waits(&alignment, seconds(23)), None);
        // It comes here; what it said from there does not count any more.
        alignment.read(0, 2, 9, seconds(23));
        assert_eq!(waits(&alignment, seconds(23)), Some(0));
        alignment.heard(0, Mark { behind: false, ..mark }, seconds(23));
        assert_eq!(waits(&alignment, seconds(23)), Some(0));
        assert_eq!(alignment.mark(0).map(|mark| mark.watermark_ms), Some(2));
    }

    proptest! {
        /// Whatever the logs: all are read to their ends, and nobody reads who is too far ahead of one that gets on.
        #[test]
        fn everything_is_read(
            logs in prop::collection::vec(prop::collection::vec(0_i64..100_000, 0..40), 1..6),
            max_drift_ms in 1_i64..50_000,
            looks_every in 1_u32..20,
        ) {
            let mut alignment = Alignment::new(max_drift_ms);
            let mut read = vec![(0_usize, NO_WATERMARK); logs.len()];
            let mut turn = 0_u32;
            while read.iter().zip(&logs).any(|((seen, _), log)| *seen < log.len()) {
                turn += 1;
                prop_assert!(turn < 4_000, "stuck at {read:?}");
                let now = Duration::from_millis(100) * turn;
                for (index, log) in logs.iter().enumerate() {
                    let (seen, watermark_ms) = &mut read[index];
                    let partition = u32::try_from(index).unwrap();
                    if turn.is_multiple_of(looks_every) {
                        alignment.end(partition, i64::try_from(log.len()).unwrap());
                    }
                    if alignment.waits_for(partition, *watermark_ms, now).is_none() && *seen < log.len() {
                        *watermark_ms = (*watermark_ms).max(log[*seen]);
                        *seen += 1;
                    }
                    alignment.read(partition, *watermark_ms, i64::try_from(*seen).unwrap(), now);
                }
            }
        }
    }
}
