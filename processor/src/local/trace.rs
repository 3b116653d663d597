//! Rows of the Azure LLM inference trace as JSON lines:
//! `2023-11-16 18:15:46.6805900,374,44` of `conv.csv` becomes
//! `{"ts":"2023-11-16T18:15:46.6805900Z","service":"conv","context_tokens":374,"generated_tokens":44}`.
//! Digits are copied as they are. Must not be a CSV reader: this one form, everything else is refused by line.

use std::path::Path;
use std::time::Duration;

use streamagg_processor::pipeline::output::Record;

use super::lines::{LineReader, LinesError};
use super::source::{Filled, MadeBatch};

const HEADER: &[u8] = b"TIMESTAMP,ContextTokens,GeneratedTokens";

/// Why a trace cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum TraceError {
    /// Not readable as lines.
    #[error(transparent)]
    Lines(#[from] LinesError),
    /// Another form.
    #[error(
        "line {line} is not a row of a trace such as `2023-11-16 18:15:46.6805900,374,44` below the header \
         `TIMESTAMP,ContextTokens,GeneratedTokens`"
    )]
    Row {
        /// Line of the file.
        line: i64,
    },
}

/// Reads a trace; a record's line is that of the CSV file.
#[derive(Debug)]
pub(super) struct TraceReader {
    lines: LineReader,
    /// The file's name without its ending, as JSON.
    service: String,
    batch: MadeBatch,
}

impl TraceReader {
    pub(super) fn new(lines: LineReader, path: &Path) -> Self {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let service = serde_json::Value::from(stem.as_ref()).to_string();
        Self {
            lines,
            service,
            batch: MadeBatch::default(),
        }
    }

    /// The rows as lines.
    pub(super) fn lines(&self) -> &LineReader {
        &self.lines
    }

    pub(super) fn records(&self) -> Vec<Record<'_>> {
        self.batch.records()
    }

    pub(super) fn fill(&mut self) -> Result<Filled, TraceError> {
        // A trace is recorded, so it never pauses: waiting is for pipes.
        const WAIT: Duration = Duration::from_millis(50);
        self.batch.clear();
        let filled = self.lines.fill(WAIT)?;
        for record in self.lines.records() {
            if record.offset == 0 && record.value == HEADER {
                continue;
            }
            let start = self.batch.bytes.len();
            append_row(record.value, &self.service, &mut self.batch.bytes).ok_or(TraceError::Row {
                line: record.offset + 1,
            })?;
            self.batch.lines.push((record.offset, start..self.batch.bytes.len()));
        }
        Ok(filled)
    }
}

/// `None` when the row has another form; what was appended then is of no use.
fn append_row(row: &[u8], service: &str, out: &mut Vec<u8>) -> Option<()> {
    let row = std::str::from_utf8(row).ok()?;
    let mut columns = row.split(',');
    let (time, context, generated) = (columns.next()?, columns.next()?, columns.next()?);
    let (day, of_day) = time.split_once(' ')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_time = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || b"-:.".contains(&byte));
    if columns.next().is_some() || !is_number(context) || !is_number(generated) || !is_time(day) || !is_time(of_day) {
        return None;
    }
    for part in [
        "{\"ts\":\"",
        day,
        "T",
        of_day,
        "Z\",\"service\":",
        service,
        ",\"context_tokens\":",
        context,
        ",\"generated_tokens\":",
        generated,
        "}",
    ] {
        out.extend_from_slice(part.as_bytes());
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(row: &str) -> Option<String> {
        let mut out = Vec::new();
        append_row(row.as_bytes(), "\"conv\"", &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_row_becomes_an_event_with_all_its_digits() {
        let expected =
            r#"{"ts":"2023-11-16T18:15:46.6805900Z","service":"conv","context_tokens":374,"generated_tokens":44}"#;
        assert_eq!(line("2023-11-16 18:15:46.6805900,374,44").as_deref(), Some(expected));
    }

    #[test]
    fn another_form_is_refused() {
        for row in [
            "",
            "a,b,c",
            "2023-11-16 18:15:46,1",
            "2023-11-16 18:15:46,1,2,3",
            "2023-11-16 18:15:46,-1,2",
            "2023-11-16T18:15:46,1,2",
        ] {
            assert_eq!(line(row), None, "{row}");
        }
    }
}
