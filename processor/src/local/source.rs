//! Where events come from: lines, the generator or a recorded trace, behind one interface.
//! Must not judge what it reads.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use streamagg_processor::generator::{Generator, Options};
use streamagg_processor::pipeline::output::Record;
use xxhash_rust::xxh3::xxh3_64;

use super::RunError;
use super::lines::{BATCH_LINES_MAX, LineReader};
use super::trace::TraceReader;

/// How long to wait for an input that has nothing, before results, progress and Ctrl-C are looked after again.
pub(super) const IDLE_WAIT: Duration = Duration::from_millis(50);

/// What a source had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// A batch; it may be empty.
    Records,
    /// Nothing within the time given.
    Idle,
    /// Nothing any more.
    End,
}

/// `--input`, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum InputSpec {
    /// `-`.
    StandardInput,
    /// A file of JSON lines.
    File(PathBuf),
    /// `generate[:…]`.
    Generator(Options),
    /// `trace:FILE`.
    Trace(PathBuf),
}

impl InputSpec {
    /// The file it reads.
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) | Self::Trace(path) => Some(path),
            Self::StandardInput | Self::Generator(_) => None,
        }
    }
}

impl FromStr for InputSpec {
    type Err = RunError;

    fn from_str(text: &str) -> Result<Self, RunError> {
        if text == "-" {
            return Ok(Self::StandardInput);
        }
        if let Some(path) = text.strip_prefix("trace:") {
            return Ok(Self::Trace(path.into()));
        }
        let options = if text == "generate" {
            Some("")
        } else {
            text.strip_prefix("generate:")
        };
        match options {
            Some(options) => match options.parse() {
                Ok(options) => Ok(Self::Generator(options)),
                Err(problem) => Err(RunError::Usage {
                    problem: format!("--input: {problem}"),
                }),
            },
            None => Ok(Self::File(text.into())),
        }
    }
}

/// An open source with its current batch.
#[derive(Debug)]
pub(super) enum Source {
    /// Lines as they are.
    Lines { name: String, reader: LineReader },
    /// Generated lines.
    Generator(GeneratedLines),
    /// Rows of a trace as lines.
    Trace { name: String, reader: TraceReader },
}

/// How far a source was read; what a run resumes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Place {
    /// Lines or events.
    lines: u64,
    /// Bytes of a file; 0 for generated events.
    bytes: u64,
    /// Digest of the file's last bytes before the place, so that another file is noticed.
    digest: u64,
}

impl Source {
    pub(super) fn open(input: InputSpec) -> Result<Self, RunError> {
        Self::open_at(input, &Place::default())
    }

    /// Opens an input behind what an earlier run read of it.
    pub(super) fn open_at(input: InputSpec, place: &Place) -> Result<Self, RunError> {
        match input {
            InputSpec::StandardInput => {
                let name = "standard input".to_owned();
                let owned = std::io::stdin().as_fd().try_clone_to_owned();
                let file = owned.map(File::from).map_err(|error| input_error(&name, &error))?;
                Ok(Self::Lines {
                    reader: LineReader::new(file),
                    name,
                })
            }
            InputSpec::File(path) => {
                let (name, reader) = open_lines(&path, place)?;
                Ok(Self::Lines { name, reader })
            }
            InputSpec::Trace(path) => {
                let (name, lines) = open_lines(&path, place)?;
                let reader = TraceReader::new(lines, &path);
                Ok(Self::Trace { name, reader })
            }
            InputSpec::Generator(options) => {
                let mut lines = GeneratedLines::new(options);
                lines.pass_over(place.lines);
                Ok(Self::Generator(lines))
            }
        }
    }

    /// Behind the batch found by the last [`Self::fill`].
    pub(super) fn place(&self) -> Result<Place, RunError> {
        let (name, reader) = match self {
            Self::Lines { name, reader } => (name, reader),
            Self::Trace { name, reader } => (name, reader.lines()),
            Self::Generator(lines) => {
                let lines = lines.generator.produced();
                return Ok(Place {
                    lines,
                    ..Place::default()
                });
            }
        };
        let (lines, bytes) = reader.place();
        let digest = digest_before(reader.file(), bytes).map_err(|error| input_error(name, &error))?;
        Ok(Place {
            lines: lines.unsigned_abs(),
            bytes,
            digest,
        })
    }

    /// Finds the next batch; waits at most `wait` for it.
    pub(super) fn fill(&mut self, wait: Duration) -> Result<Filled, RunError> {
        match self {
            Self::Lines { name, reader } => reader.fill(wait).map_err(|error| input_error(name, &error)),
            Self::Generator(lines) => Ok(lines.fill(wait)),
            Self::Trace { name, reader } => reader.fill().map_err(|error| input_error(name, &error)),
        }
    }

    /// The batch found by the last [`Self::fill`].
    pub(super) fn records(&self) -> Vec<Record<'_>> {
        match self {
            Self::Lines { reader, .. } => reader.records(),
            Self::Generator(lines) => lines.batch.records(),
            Self::Trace { reader, .. } => reader.records(),
        }
    }
}

/// Bytes before a place that are compared when a run goes on.
const DIGEST_BYTES: u64 = 4096;

fn digest_before(file: &File, place: u64) -> std::io::Result<u64> {
    let length = place.min(DIGEST_BYTES);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    file.read_exact_at(&mut bytes, place - length)?;
    Ok(xxh3_64(&bytes))
}

fn open_lines(path: &Path, place: &Place) -> Result<(String, LineReader), RunError> {
    let (name, mut file) = open(path)?;
    if *place == Place::default() {
        return Ok((name, LineReader::new(file)));
    }
    if digest_before(&file, place.bytes).ok() != Some(place.digest) {
        let problem = format!(
            "is not the file that --state has read up to line {}: bring that back, or give another directory",
            place.lines
        );
        return Err(input_error(&name, &problem));
    }
    file.seek(SeekFrom::Start(place.bytes))
        .map_err(|error| input_error(&name, &error))?;
    let lines = i64::try_from(place.lines).unwrap_or(i64::MAX);
    Ok((name, LineReader::at(file, lines, place.bytes)))
}

fn open(path: &Path) -> Result<(String, File), RunError> {
    let name = path.display().to_string();
    File::open(path)
        .map(|file| (name.clone(), file))
        .map_err(|error| input_error(&name, &error))
}

fn input_error(name: &str, problem: &dyn std::fmt::Display) -> RunError {
    RunError::Input {
        name: name.to_owned(),
        problem: problem.to_string(),
    }
}

/// Lines made here, rather than found in a file.
#[derive(Debug, Default)]
pub(super) struct MadeBatch {
    pub(super) bytes: Vec<u8>,
    pub(super) lines: Vec<(i64, Range<usize>)>,
}

impl MadeBatch {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.lines.clear();
    }

    pub(super) fn records(&self) -> Vec<Record<'_>> {
        let record = |(offset, range): &(i64, Range<usize>)| Record::new(*offset, &self.bytes[range.clone()]);
        self.lines.iter().map(record).collect()
    }
}

/// The generator as a source; `live=true` holds events back until their time has come.
#[derive(Debug)]
pub(super) struct GeneratedLines {
    generator: Generator,
    rate: u64,
    live_since: Option<Instant>,
    batch: MadeBatch,
}

impl GeneratedLines {
    fn new(mut options: Options) -> Self {
        if options.live && !options.start_given {
            let now = SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default();
            options.start_ms = i64::try_from(now.as_millis()).unwrap_or(options.start_ms);
        }
        let live_since = options.live.then(Instant::now);
        Self {
            rate: options.rate,
            generator: Generator::new(options),
            live_since,
            batch: MadeBatch::default(),
        }
    }

    /// Makes the first events again and forgets them.
    fn pass_over(&mut self, events: u64) {
        let mut line = Vec::new();
        while self.generator.produced() < events && self.generator.next_into(&mut line) {
            line.clear();
        }
    }

    fn fill(&mut self, wait: Duration) -> Filled {
        self.batch.clear();
        let mut due = self.due();
        if due == 0 {
            std::thread::sleep(wait);
            due = self.due();
            if due == 0 {
                return Filled::Idle;
            }
        }
        for _ in 0..due {
            let offset = i64::try_from(self.generator.produced()).unwrap_or(i64::MAX);
            let start = self.batch.bytes.len();
            if !self.generator.next_into(&mut self.batch.bytes) {
                break;
            }
            self.batch.lines.push((offset, start..self.batch.bytes.len() - 1));
        }
        if self.batch.lines.is_empty() {
            Filled::End
        } else {
            Filled::Records
        }
    }

    /// Events of the next batch whose time has come.
    fn due(&self) -> usize {
        let Some(since) = self.live_since else {
            return BATCH_LINES_MAX;
        };
        // One more than elapsed × rate: the first event is due at once.
        let due = since.elapsed().as_micros() * u128::from(self.rate) / 1_000_000 + 1;
        let ahead = due.saturating_sub(u128::from(self.generator.produced()));
        usize::try_from(ahead).unwrap_or(usize::MAX).min(BATCH_LINES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_a_file_unless_it_says_otherwise() {
        assert_eq!("-".parse::<InputSpec>().unwrap(), InputSpec::StandardInput);
        assert_eq!(
            "a/b.jsonl".parse::<InputSpec>().unwrap(),
            InputSpec::File("a/b.jsonl".into())
        );
        assert_eq!(
            "trace:a.csv".parse::<InputSpec>().unwrap(),
            InputSpec::Trace("a.csv".into())
        );
        assert_eq!(
            "generate".parse::<InputSpec>().unwrap(),
            InputSpec::Generator(Options::default())
        );
        let InputSpec::Generator(options) = "generate:events=7".parse().unwrap() else {
            panic!("not the generator")
        };
        assert_eq!(options.events, 7);
        let refused = "generate:evens=7".parse::<InputSpec>().unwrap_err().to_string();
        assert!(
            refused.starts_with("--input: generator option `evens` does not exist"),
            "{refused}"
        );
    }

    #[test]
    fn a_live_generator_keeps_its_rate() {
        let mut lines = GeneratedLines::new("events=30,rate=1000,live=true".parse().unwrap());
        let (start, mut seen) = (Instant::now(), 0);
        while lines.fill(Duration::from_millis(2)) != Filled::End {
            seen += lines.batch.lines.len();
        }
        assert_eq!(seen, 30);
        assert!(
            start.elapsed() >= Duration::from_millis(29),
            "30 events at 1000/s took {:?}",
            start.elapsed()
        );
    }
}
