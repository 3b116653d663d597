//! A client that lost every broker it knew may never find one again, also told them once more (`kafka::brokers`), and says
//! nothing: another one takes its place.
//! Must not hold: what a broker's error means (`kafka::consumer`).

use std::time::{Duration, Instant};

use super::End;
use super::running::Running;
use crate::metrics::ErrorClass;

/// Silence of a partition that has more to read, before another client reads on; doubles up to [`LONGEST`] while that is of
/// no use.
const FIRST: Duration = Duration::from_secs(15);
/// Longest such silence.
const LONGEST: Duration = Duration::from_secs(300);

/// How long nothing was read, and how long that may go on.
pub(super) struct Silence {
    since: Instant,
    allowed: Duration,
}

impl Default for Silence {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            allowed: FIRST,
        }
    }
}

impl Silence {
    /// Nothing was asked for.
    pub fn held_back(&mut self) {
        self.since = Instant::now();
    }

    fn is_over(&self) -> bool {
        self.since.elapsed() >= self.allowed
    }

    fn begin_again(&mut self) {
        *self = Self {
            since: Instant::now(),
            allowed: (2 * self.allowed).min(LONGEST),
        };
    }
}

impl Running<'_> {
    /// Nothing came, and the input was seen up to `seen`: another client reads on if that was so for too long.
    pub(super) fn mend_silence(&mut self, seen: i64) -> Result<(), End> {
        let executor = self.executor;
        // As somebody else's client sees it, who reads committed records, too.
        let end = executor.board.end();
        if end.is_none_or(|end| end <= seen) {
            self.silence = Silence::default();
        } else if self.silence.is_over() {
            let task = executor.task;
            tracing::warn!(
                task,
                seen,
                end,
                "ReaderSilent: there are records and none comes; another client reads on"
            );
            (executor.context.metrics).error(task, ErrorClass::Retry, "ReaderSilent", 1);
            self.started.reader = executor.open_input()?;
            self.started.reader.seek(seen);
            self.silence.begin_again();
        }
        Ok(())
    }
}
