//! What a run tells on standard error: a line that is redrawn on a terminal, and a summary at the end.
//! Must not write to standard output, nor fail: nobody reading standard error is no reason to stop.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use streamagg_crds::resolved::Window;
use streamagg_processor::error::RejectReason;
use streamagg_processor::pipeline::operator::Task;
use streamagg_processor::pipeline::position::NO_WATERMARK;

const SHOW_INTERVAL: Duration = Duration::from_millis(250);
/// Back to the first column and clear the line (ECMA-48).
const REDRAW: &str = "\r\x1b[2K";

/// Sums over all tasks.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Totals {
    pub(super) records: u64,
    pub(super) results: u64,
    pub(super) late: u64,
    pub(super) outside: u64,
    pub(super) empty: u64,
    /// Dead records by reason, those that occurred.
    pub(super) dead: Vec<(RejectReason, u64)>,
    /// Windows that events missed, by name, those that were.
    pub(super) losses: Vec<(String, u64)>,
    pub(super) open_windows: u64,
    /// The least of the tasks that have one, ms since the epoch.
    pub(super) watermark_ms: Option<i64>,
    pub(super) elapsed: Duration,
}

impl Totals {
    fn dead_sum(&self) -> u64 {
        self.dead.iter().map(|(_, count)| count).sum()
    }

    fn records_per_second(&self) -> u64 {
        let micros = self.elapsed.as_micros().max(1);
        u64::try_from(u128::from(self.records) * 1_000_000 / micros).unwrap_or(u64::MAX)
    }

    /// One line for a terminal.
    pub(super) fn line(&self) -> String {
        let watermark = self.watermark_ms.map_or_else(|| "none yet".to_owned(), instant);
        format!(
            "{} events, {}/s, watermark {watermark}, {} open windows, {} late, {} dead",
            grouped(self.records),
            grouped(self.records_per_second()),
            grouped(self.open_windows),
            grouped(self.late),
            grouped(self.dead_sum()),
        )
    }

    fn summary(&self, cpu: Duration, interrupted: bool) -> String {
        let mut text = format!(
            "{} events, {} results, {} late, {} dead",
            grouped(self.records),
            grouped(self.results),
            grouped(self.late),
            grouped(self.dead_sum())
        );
        if !self.dead.is_empty() {
            let reasons: Vec<String> = self
                .dead
                .iter()
                .map(|(reason, count)| format!("{} {}", reason.as_str(), grouped(*count)))
                .collect();
            let _ = write!(text, " ({})", reasons.join(", "));
        }
        if self.outside > 0 {
            let _ = write!(text, ", {} between windows", grouped(self.outside));
        }
        if self.empty > 0 {
            let _ = write!(text, ", {} without an element", grouped(self.empty));
        }
        let _ = write!(
            text,
            " in {:.3} s: {} events/s, {:.3} s of CPU",
            self.elapsed.as_secs_f64(),
            grouped(self.records_per_second()),
            cpu.as_secs_f64()
        );
        for (window, count) in &self.losses {
            let _ = write!(
                text,
                "\nwindow {window}: {} times an event came after it was closed",
                grouped(*count)
            );
        }
        if interrupted {
            let _ = write!(
                text,
                "\ninterrupted: {} windows were open and did not fire",
                grouped(self.open_windows)
            );
        }
        text
    }
}

/// Draws the progress and the summary.
#[derive(Debug)]
pub(super) struct Progress {
    start: Instant,
    quiet: bool,
    /// Standard error is a terminal that nothing else is drawn on.
    draws: bool,
    drawn: bool,
    shown: Instant,
    window_names: Vec<String>,
}

impl Progress {
    pub(super) fn new(quiet: bool, table: bool, windows: &[Window]) -> Self {
        let start = Instant::now();
        Self {
            start,
            quiet,
            draws: !quiet && !table && std::io::stderr().is_terminal() && !std::io::stdout().is_terminal(),
            drawn: false,
            shown: start,
            window_names: windows.iter().map(|window| window.name.clone()).collect(),
        }
    }

    /// Whether it is time to draw again; asked before the totals are summed up.
    pub(super) fn is_due(&mut self) -> bool {
        let due = self.shown.elapsed() >= SHOW_INTERVAL;
        if due {
            self.shown = Instant::now();
        }
        due
    }

    pub(super) fn totals(&self, tasks: &[Task]) -> Totals {
        let sum = |count: &dyn Fn(&Task) -> u64| tasks.iter().map(count).sum();
        let dead = RejectReason::ALL
            .iter()
            .map(|reason| (*reason, sum(&|task| task.stats().rejected(*reason))));
        let losses = self.window_names.iter().enumerate();
        let losses = losses.map(|(index, name)| (name.clone(), sum(&|task| task.stats().losses[index])));
        let watermarks = tasks.iter().map(|task| task.position().watermark_ms);
        Totals {
            records: sum(&|task| task.stats().records),
            results: sum(&|task| task.stats().results),
            late: sum(&|task| task.stats().late),
            outside: sum(&|task| task.stats().outside),
            empty: sum(&|task| task.stats().empty),
            dead: dead.filter(|(_, count)| *count > 0).collect(),
            losses: losses.filter(|(_, count)| *count > 0).collect(),
            open_windows: sum(&|task| task.open_windows()),
            watermark_ms: watermarks.filter(|watermark| *watermark != NO_WATERMARK).min(),
            elapsed: self.start.elapsed(),
        }
    }

    pub(super) fn show(&mut self, totals: &Totals) {
        if self.draws {
            self.drawn = true;
            let mut stderr = std::io::stderr().lock();
            let _ = write!(stderr, "{REDRAW}{}", totals.line()).and_then(|()| stderr.flush());
        }
    }

    /// The summary, unless all should be quiet.
    pub(super) fn finish(&self, tasks: &[Task], interrupted: bool) {
        if !self.quiet {
            let redraw = if self.drawn { REDRAW } else { "" };
            let summary = self.totals(tasks).summary(cpu_time(), interrupted);
            let _ = writeln!(std::io::stderr(), "{redraw}{summary}");
        }
    }
}

fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

/// `1234567` as `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time for people, in UTC; times beyond the calendar as they are.
pub(super) fn instant(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) if ms == i64::MAX => "end".to_owned(),
        Err(_) => ms.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals() -> Totals {
        Totals {
            records: 1_234_567,
            results: 12,
            late: 3,
            outside: 0,
            empty: 0,
            dead: vec![(RejectReason::JsonInvalid, 4), (RejectReason::KeyMissing, 1)],
            losses: vec![("minute".to_owned(), 5)],
            open_windows: 7,
            watermark_ms: Some(1_700_000_000_999),
            elapsed: Duration::from_secs(2),
        }
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn the_line_and_the_summary_say_everything() {
        let line = "1,234,567 events, 617,283/s, watermark 2023-11-14 22:13:20, 7 open windows, 3 late, 5 dead";
        assert_eq!(totals().line(), line);
        let summary = "1,234,567 events, 12 results, 3 late, 5 dead (JsonInvalid 4, KeyMissing 1) in 2.000 s: \
            617,283 events/s, 1.500 s of CPU\nwindow minute: 5 times an event came after it was closed\n\
            interrupted: 7 windows were open and did not fire";
        assert_eq!(totals().summary(Duration::from_millis(1_500), true), summary);
    }
}
