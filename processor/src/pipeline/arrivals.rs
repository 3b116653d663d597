//! When the records and windows of an open epoch became known, so that its commit says how long they took. Pure.
//! Must not hold: clocks, or where figures go.

use super::output::{Output, Outputs, Record};

/// Times of one kind kept apart at most; beyond, neighbours in time are counted as one.
const RUNS_MAX: usize = 4_096;

/// Times with how often each was seen, in little memory whatever their number.
#[derive(Clone, Debug)]
pub struct Times {
    runs: Vec<(i64, u64)>,
    /// Times are rounded down to this many ms; doubles when there are too many.
    grain_ms: i64,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            runs: Vec::new(),
            grain_ms: 1,
        }
    }
}

impl Times {
    /// Notes a time.
    #[inline]
    pub fn note(&mut self, time_ms: i64) {
        let time_ms = time_ms - time_ms.rem_euclid(self.grain_ms);
        match self.runs.last_mut() {
            Some((last, count)) if *last == time_ms => *count += 1,
            Some(_) | None => self.begin(time_ms),
        }
    }

    fn begin(&mut self, time_ms: i64) {
        while self.runs.len() >= RUNS_MAX {
            self.coarsen();
        }
        self.runs.push((time_ms - time_ms.rem_euclid(self.grain_ms), 1));
    }

    fn coarsen(&mut self) {
        // First those that only came out of order, then those that are close.
        self.runs.sort_unstable_by_key(|(time_ms, _)| *time_ms);
        self.merge();
        if self.runs.len() * 2 > RUNS_MAX {
            self.grain_ms = self.grain_ms.saturating_mul(2);
            let grain_ms = self.grain_ms;
            self.runs
                .iter_mut()
                .for_each(|(time_ms, _)| *time_ms -= time_ms.rem_euclid(grain_ms));
            self.merge();
        }
    }

    fn merge(&mut self) {
        self.runs.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                earlier.1 += later.1;
            }
            same
        });
    }

    /// Time and how often it was seen.
    pub fn iter(&self) -> impl Iterator<Item = (i64, u64)> {
        self.runs.iter().copied()
    }

    /// Forgets everything, keeps the buffer.
    pub fn clear(&mut self) {
        self.runs.clear();
        self.grain_ms = 1;
    }
}

/// The times of an open epoch.
#[derive(Clone, Debug, Default)]
pub struct Arrivals {
    /// When each record was appended to its topic.
    pub records: Times,
    /// When each record was that put something out: what the results of the epoch waited for.
    pub causes: Times,
    /// Ends of the windows whose results go out.
    pub windows: Times,
    /// When the last record was appended.
    pub last_ms: Option<i64>,
}

impl Arrivals {
    /// Takes the records of a step and what they put out, before the outputs are drained.
    pub fn take(&mut self, records: &[Record<'_>], outputs: &Outputs) {
        for time_ms in records.iter().filter_map(|record| record.timestamp_ms) {
            self.records.note(time_ms);
        }
        if let Some(last) = records.last() {
            self.last_ms = last.timestamp_ms;
        }
        for cause in &outputs.causes {
            if let Some(time_ms) = records.get(cause.record).and_then(|record| record.timestamp_ms) {
                self.causes.note(time_ms);
            }
        }
        for output in &outputs.list {
            if let Output::Result(result) = output
                && result.end_ms != i64::MAX
            {
                self.windows.note(result.end_ms);
            }
        }
    }

    /// Forgets everything but when the last record was appended.
    pub fn clear(&mut self) {
        self.records.clear();
        self.causes.clear();
        self.windows.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_neighbours_are_one_run() {
        let mut times = Times::default();
        [5, 5, 5, 7, 5].into_iter().for_each(|time| times.note(time));
        assert_eq!(times.iter().collect::<Vec<_>>(), [(5, 3), (7, 1), (5, 1)]);
        times.clear();
        assert_eq!(times.iter().count(), 0);
    }

    /// Out of order and far apart: nothing is lost, memory is bounded, a time is off by less than the grain.
    #[test]
    fn many_times_are_kept_coarsely_and_none_is_lost() {
        let (mut times, mut sum) = (Times::default(), 0_i64);
        let count = 100_000_i64;
        for index in 0..count {
            let time = (index * 7_919) % count - 50;
            sum += time;
            times.note(time);
        }
        let kept: Vec<(i64, u64)> = times.iter().collect();
        assert!(kept.len() <= RUNS_MAX, "{}", kept.len());
        assert_eq!(kept.iter().map(|(_, n)| n).sum::<u64>(), 100_000);
        let kept_sum: i64 = kept.iter().map(|(time, n)| time * i64::try_from(*n).unwrap()).sum();
        assert!(kept_sum <= sum && sum - kept_sum < count * times.grain_ms);
        assert!(times.grain_ms <= 64, "{}", times.grain_ms);
    }
}
