//! How long a task waits before it starts up again. Pure.
//! Must not hold: whether it does.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
/// Longest wait.
pub(super) const LONGEST: Duration = Duration::from_secs(30);

/// Waits that grow while nothing is committed, however long each attempt takes.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    attempts: u32,
    epoch: u64,
}

impl Backoff {
    /// The wait behind an attempt, at whose end `epoch` was the last one known to be committed.
    pub fn next(&mut self, epoch: u64) -> Duration {
        if epoch > self.epoch {
            *self = Self { attempts: 0, epoch };
        }
        let wait = FIRST.saturating_mul(1 << self.attempts.min(8)).min(LONGEST);
        self.attempts += 1;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_until_something_is_committed() {
        let mut backoff = Backoff::default();
        let waits = [7, 7, 7, 8, 8].map(|epoch| backoff.next(epoch).as_millis());
        assert_eq!(waits, [500, 1_000, 2_000, 500, 1_000]);
        let longest = (0..20).map(|_| backoff.next(8)).max();
        assert_eq!(longest, Some(LONGEST));
    }
}
