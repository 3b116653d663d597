//! The newest windows as a table: redrawn in place on a terminal, printed once at the end elsewhere.
//! Must not compute: it shows result values as the engine wrote them, averages rounded for the eye.

mod layout;

use std::collections::{BTreeMap, HashMap};
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::PathBuf;

use rustix::termios::tcgetwinsize;
use serde_json::Value;
use streamagg_crds::resolved::{Aggregate, Function, Resolved};

use super::RunError;
use super::progress::{Totals, instant};

/// Windows remembered for each window name.
const WINDOWS_KEPT_MAX: usize = 5;
/// Keys remembered for one window; more are counted, not shown.
const KEYS_KEPT_MAX: usize = 100_000;
/// Rows shown where there is no terminal to ask for its height.
const ROWS_PLAIN: usize = 40;
/// Rows shown for one window.
const ROWS_PER_WINDOW_MAX: usize = 12;

/// Results of one window by record key.
#[derive(Debug, Default)]
struct WindowResults {
    values: HashMap<Vec<u8>, Vec<u8>>,
    not_kept: u64,
}

/// The newest windows of a job.
#[derive(Debug)]
pub(super) struct Table {
    window_names: Vec<String>,
    key_names: Vec<String>,
    aggregate_names: Vec<String>,
    /// What rows are sorted by: the first count, otherwise the first aggregate.
    activity: String,
    /// By window of the job: results by window end.
    windows: Vec<BTreeMap<i64, WindowResults>>,
    live: bool,
    lines_drawn: usize,
}

impl Table {
    pub(super) fn new(job: &Resolved) -> Result<Self, RunError> {
        let count = job
            .aggregates
            .iter()
            .find(|aggregate| aggregate.function == Function::Count && aggregate.within.is_none());
        let activity = count.or(job.aggregates.first()).map(|aggregate| aggregate.name.clone());
        let mut aggregate_names: Vec<String> = job.aggregates.iter().map(column).collect();
        aggregate_names.dedup();
        Ok(Self {
            window_names: job.windows.iter().map(|window| window.name.clone()).collect(),
            key_names: job.group_by.iter().map(|part| part.name.clone()).collect(),
            aggregate_names,
            activity: activity.unwrap_or_default(),
            windows: job.windows.iter().map(|_| BTreeMap::new()).collect(),
            live: std::io::stdout().is_terminal(),
            lines_drawn: 0,
        })
    }

    /// Takes a result in; a later pane of the same window and key replaces the earlier.
    pub(super) fn observe(&mut self, window: usize, end_ms: i64, key: &[u8], value: &[u8]) {
        let windows = &mut self.windows[window];
        let full = windows.len() >= WINDOWS_KEPT_MAX;
        if full && !windows.contains_key(&end_ms) {
            if windows.first_key_value().is_some_and(|(oldest, _)| *oldest > end_ms) {
                return;
            }
            windows.pop_first();
        }
        let results = windows.entry(end_ms).or_default();
        if let Some(known) = results.values.get_mut(key) {
            known.clear();
            known.extend_from_slice(value);
        } else if results.values.len() < KEYS_KEPT_MAX {
            results.values.insert(key.to_vec(), value.to_vec());
        } else {
            results.not_kept += 1;
        }
    }

    /// Draws the table where it stands, or prints it when it is the last time.
    pub(super) fn show(&mut self, totals: &Totals, last: bool) -> Result<(), RunError> {
        if !self.live && !last {
            return Ok(());
        }
        let (height, width) = if self.live {
            terminal_size()
        } else {
            (ROWS_PLAIN, usize::MAX)
        };
        let mut text = String::new();
        if self.lines_drawn > 0 {
            // Up to the first line of the last drawing, and clear from there (ECMA-48).
            text.push_str(&format!("\x1b[{}F\x1b[J", self.lines_drawn));
        }
        let mut lines = self.lines(height);
        if self.live {
            lines.push(totals.line());
        }
        for line in &lines {
            // On a terminal a longer line would wrap and the count of lines to go up would be wrong.
            text.extend(line.chars().take(width));
            text.push('\n');
        }
        self.lines_drawn = lines.len();
        let mut stdout = std::io::stdout().lock();
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(output_error)
    }

    /// Header and rows, `rows_max` lines at most.
    fn lines(&self, rows_max: usize) -> Vec<String> {
        let mut header = vec!["window".to_owned(), "start (UTC)".to_owned(), "end".to_owned()];
        header.extend(self.key_names.iter().chain(&self.aggregate_names).cloned());
        let share = rows_max.saturating_sub(2) / self.window_names.len().max(1);
        let mut rows = Vec::new();
        for (name, windows) in self.window_names.iter().zip(&self.windows) {
            let mut left = share.max(1);
            for (end_ms, results) in windows.iter().rev() {
                let shown = left.min(ROWS_PER_WINDOW_MAX);
                let added = self.rows(name, *end_ms, results, shown);
                left -= added.len().min(left);
                rows.extend(added);
                if left == 0 {
                    break;
                }
            }
        }
        layout::align(&header, &rows, 3 + self.key_names.len())
    }

    /// The most active rows of a window, at most `shown`; the last says how many more there are.
    fn rows(&self, name: &str, end_ms: i64, results: &WindowResults, shown: usize) -> Vec<Vec<String>> {
        let parsed = results
            .values
            .values()
            .filter_map(|value| serde_json::from_slice::<Value>(value).ok());
        let mut parsed: Vec<Value> = parsed.collect();
        let activity = |result: &Value| result["values"][&self.activity].as_f64().unwrap_or(f64::NEG_INFINITY);
        parsed.sort_by(|left, right| {
            let by_key = || left["key"].to_string().cmp(&right["key"].to_string());
            activity(right).total_cmp(&activity(left)).then_with(by_key)
        });
        let total = parsed.len() as u64 + results.not_kept;
        let fits = total <= shown as u64;
        let kept = if fits { shown } else { shown.saturating_sub(1) };
        let mut rows: Vec<Vec<String>> = parsed
            .iter()
            .take(kept)
            .map(|result| self.row(name, end_ms, result))
            .collect();
        if !fits {
            let more = total - rows.len() as u64;
            rows.push(vec![
                name.to_owned(),
                String::new(),
                instant(end_ms),
                format!("… {more} more"),
            ]);
        }
        rows
    }

    fn row(&self, name: &str, end_ms: i64, result: &Value) -> Vec<String> {
        let start = result["start"].as_i64().map(instant).unwrap_or_default();
        let end = end_text(result["start"].as_i64(), end_ms);
        let keys = self.key_names.iter().map(|name| layout::cell(&result["key"][name]));
        let values = self
            .aggregate_names
            .iter()
            .map(|name| layout::cell(&result["values"][name]));
        [name.to_owned(), start, end]
            .into_iter()
            .chain(keys)
            .chain(values)
            .collect()
    }
}

/// The member of `values` that has an aggregate: its own, or that of its composite.
fn column(aggregate: &Aggregate) -> String {
    aggregate.within.as_ref().unwrap_or(&aggregate.name).clone()
}

/// The end without its date where the start has told it.
fn end_text(start_ms: Option<i64>, end_ms: i64) -> String {
    const DAY_MS: i64 = 86_400_000;
    let end = instant(end_ms);
    match (start_ms, end.split_once(' ')) {
        (Some(start_ms), Some((_, of_day))) if end_ms - start_ms < DAY_MS => of_day.to_owned(),
        _ => end,
    }
}

fn output_error(source: std::io::Error) -> RunError {
    if source.kind() == ErrorKind::BrokenPipe {
        return RunError::OutputClosed;
    }
    RunError::Output {
        flag: "--table",
        path: PathBuf::from("-"),
        source,
    }
}

/// Lines for the table and columns; a line is left for the totals and one for the cursor.
fn terminal_size() -> (usize, usize) {
    match tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_row > 4 && size.ws_col > 0 => (usize::from(size.ws_row) - 2, usize::from(size.ws_col)),
        Ok(_) | Err(_) => (ROWS_PLAIN, usize::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table {
            window_names: vec!["minute".to_owned()],
            key_names: vec!["model".to_owned()],
            aggregate_names: vec!["requests".to_owned(), "latency".to_owned()],
            activity: "requests".to_owned(),
            windows: vec![BTreeMap::new()],
            live: false,
            lines_drawn: 0,
        }
    }

    fn observe(table: &mut Table, end_ms: i64, model: &str, requests: u64) {
        let start_ms = end_ms - 60_000;
        let value = format!(
            r#"{{"start":{start_ms},"key":{{"model":"{model}"}},"values":{{"requests":{requests},"latency":1.23456}}}}"#
        );
        table.observe(0, end_ms, format!("{start_ms}{model}").as_bytes(), value.as_bytes());
    }

    #[test]
    fn the_newest_windows_come_first_and_the_busiest_rows_on_top() {
        let mut table = table();
        observe(&mut table, 60_000, "a", 9);
        observe(&mut table, 120_000, "a", 2);
        observe(&mut table, 120_000, "b", 30);
        observe(&mut table, 120_000, "a", 4);
        let expected = [
            "window  start (UTC)          end       model  requests  latency",
            "minute  1970-01-01 00:01:00  00:02:00  b            30    1.235",
            "minute  1970-01-01 00:01:00  00:02:00  a             4    1.235",
            "minute  1970-01-01 00:00:00  00:01:00  a             9    1.235",
        ];
        assert_eq!(table.lines(40), expected);
    }

    #[test]
    fn windows_and_rows_are_bounded() {
        let mut table = table();
        for window in 1..=20 {
            for key in 0..30 {
                observe(&mut table, window * 60_000, &format!("m{key:02}"), key);
            }
        }
        observe(&mut table, 60_000, "too-old", 1);
        assert_eq!(table.windows[0].len(), WINDOWS_KEPT_MAX);
        let lines = table.lines(12);
        assert_eq!(lines.len(), 11, "{lines:#?}");
        assert!(lines[10].contains("… 21 more"), "{lines:#?}");
    }
}
