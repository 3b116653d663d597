//! How many records a task may read now, when `source.kafka.maxRecordsPerSecond` bounds its pace. Pure.
//! Must not hold: clocks, or waiting.

use std::time::Duration;

/// What a task may catch up with at once after it read less than it may: this much of a second.
const BURST: Duration = Duration::from_millis(100);
/// Shortest wait, so that what is read comes in batches.
const WAIT_SHORTEST: Duration = Duration::from_millis(10);
/// A record, in the unit of credit: credit is nanoseconds times records a second, so that nothing is rounded.
const RECORD: u128 = 1_000_000_000;

/// The pace of one task. Times are since any fixed moment, and do not fall.
#[derive(Clone, Copy, Debug)]
pub struct RateLimit {
    per_second: u128,
    credit: u128,
    last: Duration,
}

impl RateLimit {
    /// At most `per_second` records a second, from `now` on. 0 counts as 1.
    pub fn new(per_second: u64, now: Duration) -> Self {
        Self {
            per_second: u128::from(per_second.max(1)),
            credit: 0,
            last: now,
        }
    }

    /// Records that may be read now.
    pub fn allowed(&mut self, now: Duration) -> usize {
        let earned = now.saturating_sub(self.last).as_nanos().saturating_mul(self.per_second);
        let most = (BURST.as_nanos() * self.per_second).max(RECORD);
        self.credit = self.credit.saturating_add(earned).min(most);
        self.last = self.last.max(now);
        usize::try_from(self.credit / RECORD).unwrap_or(usize::MAX)
    }

    /// So many of them were read.
    pub fn took(&mut self, records: usize) {
        self.credit = self.credit.saturating_sub(records as u128 * RECORD);
    }

    /// How long to wait until more than nothing may be read.
    pub fn wait(&self) -> Duration {
        let missing = RECORD.saturating_sub(self.credit).div_ceil(self.per_second);
        Duration::from_nanos(u64::try_from(missing).unwrap_or(u64::MAX)).max(WAIT_SHORTEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads all it may, waits when that is nothing: records read in `seconds`.
    fn read_in(seconds: u64, per_second: u64) -> u64 {
        let mut rate = RateLimit::new(per_second, Duration::ZERO);
        let (mut now, mut read) = (Duration::ZERO, 0);
        while now < Duration::from_secs(seconds) {
            let allowed = rate.allowed(now);
            rate.took(allowed);
            read += allowed as u64;
            now += if allowed == 0 {
                rate.wait()
            } else {
                Duration::from_micros(700)
            };
        }
        read
    }

    #[test]
    fn a_task_reads_as_much_as_it_may_and_no_more() {
        for per_second in [1, 3, 7, 100, 9_999, 1_000_000] {
            let read = read_in(60, per_second);
            assert!(read <= 60 * per_second, "{per_second}: {read}");
            assert!(read + per_second / 50 + 1 >= 60 * per_second, "{per_second}: {read}");
        }
    }

    #[test]
    fn what_was_not_read_is_caught_up_with_for_a_tenth_of_a_second_only() {
        let mut rate = RateLimit::new(1_000, Duration::ZERO);
        assert_eq!(rate.allowed(Duration::ZERO), 0, "nothing is saved up before the start");
        assert_eq!(rate.wait(), Duration::from_millis(10));
        assert_eq!(rate.allowed(Duration::from_secs(3_600)), 100);
        rate.took(40);
        assert_eq!(rate.allowed(Duration::from_secs(3_600)), 60);
        // A clock that falls earns nothing.
        assert_eq!(rate.allowed(Duration::ZERO), 60);
        let mut slow = RateLimit::new(1, Duration::ZERO);
        assert_eq!(slow.allowed(Duration::from_millis(400)), 0);
        assert_eq!(slow.wait(), Duration::from_millis(600));
        assert_eq!(
            slow.allowed(Duration::from_secs(60)),
            1,
            "one record can always be saved up for"
        );
    }
}
