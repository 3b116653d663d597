//! When a checkpoint is due: by the clock, and sooner where a replay from the last one would take long. Pure.
//! Must not hold: a clock.

use std::time::Duration;

/// A replay that would take so long makes a checkpoint due before its time.
const REPLAY_MAX: Duration = Duration::from_secs(10);
/// But none is made sooner after the last.
const APART_MIN: Duration = Duration::from_secs(10);
/// The pace is that of about so many records.
const PACE_RECORDS: u64 = 1 << 22;

/// How long a task takes for a record, as it was of late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    records: u64,
    busy: Duration,
}

impl Pace {
    /// The task stepped over so many records in this time.
    pub fn add(&mut self, records: u64, took: Duration) {
        self.records += records;
        self.busy += took;
        if self.records > PACE_RECORDS {
            self.records /= 2;
            self.busy /= 2;
        }
    }

    /// How long it would take for so many.
    pub fn time_for(&self, records: u64) -> Duration {
        let nanos = self.busy.as_nanos() * u128::from(records) / u128::from(self.records.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// Whether a checkpoint is due `since` the last was begun, when a replay from it would take `replay`.
pub fn is_due(interval: Duration, since: Duration, replay: Duration) -> bool {
    since >= interval || (replay >= REPLAY_MAX && since >= APART_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_makes_it_due_and_a_long_replay_does_sooner() {
        let seconds = Duration::from_secs;
        for (since, replay, expected) in [
            (59, 9, false),
            (60, 0, true),
            (9, 60, false),
            (10, 10, true),
            (10, 9, false),
        ] {
            let due = is_due(seconds(60), seconds(since), seconds(replay));
            assert_eq!(due, expected, "{since} s, {replay} s");
        }
        assert!(
            is_due(seconds(1), seconds(1), seconds(0)),
            "an interval below the least distance counts"
        );
    }

    #[test]
    fn the_pace_follows_what_was_of_late() {
        let mut pace = Pace::default();
        assert_eq!(pace.time_for(u64::MAX), Duration::ZERO, "nothing is known yet");
        pace.add(1_000, Duration::from_millis(1));
        assert_eq!(pace.time_for(10_000_000), Duration::from_secs(10));
        for _ in 0..100 {
            pace.add(PACE_RECORDS, Duration::from_nanos(PACE_RECORDS * 10));
        }
        let now = pace.time_for(1_000_000);
        assert!(
            now > Duration::from_millis(9) && now < Duration::from_millis(11),
            "{now:?}"
        );
        assert!(pace.records <= PACE_RECORDS, "no overflow in years");
    }
}
