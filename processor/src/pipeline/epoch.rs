//! When an epoch closes: when it matters, and never later than a bound. Pure.
//! Must not hold: clocks or transactions.

use std::time::Duration;

/// Bounds of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochLimits {
    /// Two commits are at least this far apart while outputs wait.
    pub min_interval: Duration,
    /// Work without outputs is committed after this long, so that a replay stays short.
    pub max_interval: Duration,
    /// Records of an epoch at most.
    pub records_max: u64,
    /// Bytes of outputs of an epoch at most.
    pub output_bytes_max: usize,
    /// Rows that go out with the epoch at most: they are in memory only.
    pub rows_max: usize,
}

impl Default for EpochLimits {
    fn default() -> Self {
        Self {
            min_interval: Duration::from_millis(20),
            max_interval: Duration::from_secs(5),
            records_max: 500_000,
            output_bytes_max: 32 << 20,
            rows_max: 100_000,
        }
    }
}

/// What an open epoch holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenEpoch {
    /// Records consumed.
    pub records: u64,
    /// Rows that go out with the epoch.
    pub rows: usize,
    /// Outputs that wait.
    pub outputs: usize,
    /// Their bytes.
    pub output_bytes: usize,
    /// Decision records made.
    pub decisions: usize,
    /// Markers or aborted records were passed behind the last record: the committed position does not know yet.
    pub passed: bool,
    /// Time since the last commit.
    pub since_commit: Duration,
}

impl OpenEpoch {
    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.records == 0 && self.outputs == 0 && self.decisions == 0 && !self.passed
    }
}

impl EpochLimits {
    /// The same with outputs of `bytes` at most.
    pub fn within(self, bytes: u64) -> Self {
        Self {
            output_bytes_max: self.output_bytes_max.min(usize::try_from(bytes).unwrap_or(usize::MAX)),
            ..self
        }
    }

    /// Whether the epoch closes now.
    pub fn closes(&self, epoch: OpenEpoch) -> bool {
        if epoch.is_empty() {
            return false;
        }
        epoch.records >= self.records_max
            || epoch.output_bytes >= self.output_bytes_max
            || epoch.rows >= self.rows_max
            || epoch.since_commit >= self.max_interval
            || (epoch.outputs > 0 && epoch.since_commit >= self.min_interval)
    }

    /// How long to wait for records before looking again, at most `idle`.
    pub fn wait(&self, epoch: OpenEpoch, idle: Duration) -> Duration {
        let due = if epoch.outputs > 0 {
            self.min_interval
        } else if epoch.records > 0 || epoch.decisions > 0 {
            self.max_interval
        } else {
            return idle;
        };
        due.saturating_sub(epoch.since_commit).min(idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(records: u64, outputs: usize, since_commit_ms: u64) -> OpenEpoch {
        OpenEpoch {
            records,
            rows: 0,
            outputs,
            output_bytes: 0,
            decisions: 0,
            passed: false,
            since_commit: Duration::from_millis(since_commit_ms),
        }
    }

    #[test]
    fn an_epoch_closes_when_it_matters() {
        let limits = EpochLimits {
            records_max: 100,
            output_bytes_max: 50,
            ..EpochLimits::default()
        };
        let cases = [
            (epoch(0, 0, 60_000), false, "nothing to commit"),
            (epoch(5, 0, 4_999), false, "nothing to publish yet"),
            (epoch(5, 0, 5_000), true, "replay stays short"),
            (epoch(5, 1, 19), false, "too soon after the last commit"),
            (epoch(5, 1, 20), true, "results are ready"),
            (epoch(100, 0, 0), true, "enough records"),
            (
                OpenEpoch {
                    passed: true,
                    ..epoch(0, 0, 4_999)
                },
                false,
                "what was passed can wait",
            ),
            (
                OpenEpoch {
                    passed: true,
                    ..epoch(0, 0, 5_000)
                },
                true,
                "markers were passed: their deletion must not look like a loss",
            ),
            (
                OpenEpoch {
                    output_bytes: 50,
                    ..epoch(1, 1, 0)
                },
                true,
                "enough bytes",
            ),
            (
                OpenEpoch {
                    rows: 100_000,
                    ..epoch(1, 0, 0)
                },
                true,
                "enough rows in memory",
            ),
        ];
        for (epoch, expected, why) in cases {
            assert_eq!(limits.closes(epoch), expected, "{why}");
        }
    }

    #[test]
    fn the_wait_ends_when_the_epoch_is_due() {
        let (limits, idle) = (EpochLimits::default(), Duration::from_millis(100));
        assert_eq!(limits.wait(epoch(0, 0, 0), idle), idle);
        assert_eq!(limits.wait(epoch(1, 1, 15), idle), Duration::from_millis(5));
        assert_eq!(limits.wait(epoch(1, 1, 60), idle), Duration::ZERO);
        assert_eq!(limits.wait(epoch(1, 0, 0), idle), idle);
    }
}
