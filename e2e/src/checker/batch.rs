//! The batch answer to large, plain inputs: one window, one firing of each, compared with every result by its text.
//! Must not follow lateness further than events that miss every window: what it cannot answer it refuses.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use streamagg_crds::resolved::{Gap, Resolved, WindowKind};

use super::cell::Cell;
use super::{candidate, read};

/// Everything that was produced, summed up.
pub struct Batch<'a> {
    job: &'a Resolved,
    /// The job's `where`, in Rust.
    passes: fn(&Value) -> bool,
    watermarks: BTreeMap<i32, i64>,
    keys: HashMap<String, u32>,
    /// By key: what its windows are made of, in no order.
    spans: Vec<Vec<Span>>,
    /// Events that windows count.
    pub counted: u64,
    /// Events that missed every window.
    pub late: u64,
    /// Records that are no events.
    pub dead: u64,
}

/// A pane, or what is known of a session.
#[derive(Clone)]
struct Span {
    first_ms: i64,
    last_ms: i64,
    cell: Cell,
}

impl<'a> Batch<'a> {
    /// An answer to a job with one window.
    pub fn new(job: &'a Resolved, passes: fn(&Value) -> bool) -> Self {
        Self {
            job,
            passes,
            watermarks: BTreeMap::new(),
            keys: HashMap::new(),
            spans: Vec::new(),
            counted: 0,
            late: 0,
            dead: 0,
        }
    }

    /// Takes the next record of a partition.
    ///
    /// # Errors
    /// When the event is behind its watermark without missing every window.
    pub fn take(&mut self, partition: i32, bytes: &[u8]) -> Result<(), String> {
        let Ok(event) = read(self.job, bytes) else {
            self.dead += 1;
            return Ok(());
        };
        let watermark = self.watermarks.entry(partition).or_insert(i64::MIN);
        let before = *watermark;
        *watermark = before.max(candidate(self.job, &event));
        if !(self.passes)(&event.document) {
            return Ok(());
        }
        let window = &self.job.windows[0];
        // Start of what it is in by itself, end of its last window, and how far the next event may be away.
        let (first_ms, end, gap_ms) = match &window.kind {
            WindowKind::Tumbling { size_ms, .. } => pane(event.time_ms, *size_ms, *size_ms),
            WindowKind::Sliding { size_ms, slide_ms, .. } => pane(event.time_ms, *slide_ms, *size_ms),
            WindowKind::Session {
                gap: Gap::Fixed(gap_ms),
                ..
            } => (event.time_ms, event.time_ms + gap_ms, *gap_ms),
            WindowKind::Session { gap: Gap::Field(_), .. }
            | WindowKind::Cumulative { .. }
            | WindowKind::Count { .. }
            | WindowKind::Calendar { .. }
            | WindowKind::Global => {
                return Err("the batch answer knows tumbling, sliding and session windows of one gap only".to_owned());
            }
        };
        if end + window.allowed_lateness_ms <= before {
            self.late += 1;
            return Ok(());
        }
        if event.time_ms < before {
            return Err(format!("an event {} ms behind its watermark", before - event.time_ms));
        }
        let Ok(cell) = Cell::of(self.job, &event.document) else {
            self.dead += 1;
            return Ok(());
        };
        self.counted += 1;
        let next = u32::try_from(self.keys.len()).map_err(|error| error.to_string())?;
        let key = *self.keys.entry(event.key).or_insert(next);
        if key == next {
            self.spans.push(Vec::new());
        }
        let span = Span {
            first_ms,
            last_ms: first_ms,
            cell,
        };
        join(&mut self.spans[key as usize], span, gap_ms);
        Ok(())
    }

    /// The results that must be there, each once.
    ///
    /// # Errors
    /// When a window holds more than the answer can tell exactly.
    pub fn rows(self) -> Result<Rows, String> {
        let (mut rows, mut summed) = (HashMap::new(), 0);
        for (key, spans) in self.spans.iter().enumerate() {
            let key = u32::try_from(key).map_err(|error| error.to_string())?;
            for (start, end, cell) in windows_of(&self.job.windows[0].kind, spans) {
                summed += cell.events;
                rows.insert((start, end, key), values(self.job, &cell)?);
            }
        }
        let expected = rows.len();
        Ok(Rows {
            window: self.job.windows[0].name.clone(),
            keys: self.keys,
            rows,
            expected,
            summed,
        })
    }
}

/// Start of the pane, end of the last window that covers a time, and no gap; windows lie on the epoch.
fn pane(time_ms: i64, slide_ms: i64, size_ms: i64) -> (i64, i64, i64) {
    let start = time_ms - time_ms.rem_euclid(slide_ms);
    (start, start + size_ms, 0)
}

/// Adds to what lies at most `gap_ms` away.
fn join(spans: &mut Vec<Span>, mut span: Span, gap_ms: i64) {
    while let Some(near) = spans
        .iter()
        .rposition(|other| other.first_ms - gap_ms <= span.last_ms && span.first_ms <= other.last_ms + gap_ms)
    {
        let mut other = spans.swap_remove(near);
        other.first_ms = other.first_ms.min(span.first_ms);
        other.last_ms = other.last_ms.max(span.last_ms);
        other.cell.merge(&span.cell);
        span = other;
    }
    spans.push(span);
}

fn windows_of(kind: &WindowKind, spans: &[Span]) -> Vec<(i64, i64, Cell)> {
    match kind {
        WindowKind::Session {
            gap: Gap::Fixed(gap_ms),
            ..
        } => {
            let row = |span: &Span| (span.first_ms, span.last_ms + gap_ms, span.cell.clone());
            spans.iter().map(row).collect()
        }
        WindowKind::Sliding { size_ms, slide_ms, .. } => {
            let mut windows: BTreeMap<i64, Cell> = BTreeMap::new();
            for span in spans {
                let mut start = span.first_ms;
                while start > span.first_ms - size_ms {
                    windows.entry(start).or_default().merge(&span.cell);
                    start -= slide_ms;
                }
            }
            let row = |(start, cell)| (start, start + size_ms, cell);
            windows.into_iter().map(row).collect()
        }
        WindowKind::Tumbling { size_ms, .. } => {
            let row = |span: &Span| (span.first_ms, span.first_ms + size_ms, span.cell.clone());
            spans.iter().map(row).collect()
        }
        WindowKind::Session { gap: Gap::Field(_), .. }
        | WindowKind::Cumulative { .. }
        | WindowKind::Count { .. }
        | WindowKind::Calendar { .. }
        | WindowKind::Global => Vec::new(),
    }
}

/// The members of `values`, as they must be written.
fn values(job: &Resolved, cell: &Cell) -> Result<String, String> {
    let names = job.aggregates.iter().map(|aggregate| &aggregate.name);
    let member = |(name, value): (&String, Result<String, String>)| value.map(|value| format!("\"{name}\":{value}"));
    let members: Vec<String> = names.zip(cell.values(job)).map(member).collect::<Result<_, _>>()?;
    Ok(members.join(","))
}

/// What must be there and has not been seen.
pub struct Rows {
    window: String,
    keys: HashMap<String, u32>,
    rows: HashMap<(i64, i64, u32), String>,
    /// Results in all.
    pub expected: usize,
    /// What their counts of events add up to.
    pub summed: u64,
}

impl Rows {
    /// A result was read: it is the one that had to be there, every byte of its values, and for the first time.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn take(&mut self, text: &str) -> Result<(), String> {
        let number = |name: &str| between(text, name, ",").and_then(|text| text.parse::<i64>().ok());
        let key = between(text, ",\"key\":", ",\"pane\":").and_then(|key| self.keys.get(key));
        let (Some(start), Some(end), Some(key)) = (number("\"start\":"), number("\"end\":"), key) else {
            return Err(format!("not a result of these events: {text}"));
        };
        let head = format!("{{\"op\":\"Upsert\",\"window\":\"{}\",\"start\":", self.window);
        if !text.starts_with(&head)
            || between(text, "\"pane\":", ",\"final\"") != Some("{\"index\":0,\"timing\":\"OnTime\"")
        {
            return Err(format!("not a first firing on time: {text}"));
        }
        let Some(expected) = self.rows.remove(&(start, end, *key)) else {
            return Err(format!("again, or must not be there: {text}"));
        };
        match between(text, "\"values\":{", "}}") {
            // The last member may itself end in a brace.
            Some(found) if expected == found || expected == format!("{found}}}") => Ok(()),
            _ => Err(format!("should have {expected}: {text}")),
        }
    }

    /// Results still to come.
    pub fn missing(&self) -> usize {
        self.rows.len()
    }
}

/// What stands between `from` and the last place of `to` that ends the text, or else the first behind `from`.
fn between<'t>(text: &'t str, from: &str, to: &str) -> Option<&'t str> {
    let start = text.find(from)? + from.len();
    let rest = text.get(start..)?;
    rest.get(..rest.find(to)?)
}

#[cfg(test)]
mod tests;
