//! The loop of a local run: a batch in, one step of each task, its outputs out; results are shown at once when the
//! input pauses. Must not interpret records: partitions by key, judging and firing are the engine's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use streamagg_crds::resolved::Resolved;
use streamagg_processor::pipeline::builder::Plan;
use streamagg_processor::pipeline::operator::{StepStatus, Task};
use streamagg_processor::pipeline::output::{Output, Outputs, Record};

use super::RunError;
use super::partitioner::Partitioner;
use super::progress::{Progress, Totals};
use super::side_output::{dead_line, late_line, line_number};
use super::sink::LineSink;
use super::source::{Filled, IDLE_WAIT, Source};
use super::table::Table;
use crate::cli::RunArguments;

/// Results wait in the buffer for at most so long while the input flows.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);

/// Why the loop ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    EndOfInput,
    Interrupted,
}

/// A run of one manifest.
pub(super) struct Runner {
    source: Source,
    tasks: Vec<Task>,
    /// Only with more than one partition.
    partitioner: Option<Partitioner>,
    outputs: Outputs,
    destinations: Destinations,
    progress: Progress,
    max_bad_ratio: f64,
    flushed: Instant,
}

/// Where outputs go.
struct Destinations {
    results: Option<LineSink>,
    late: Option<LineSink>,
    dead: Option<LineSink>,
    table: Option<Table>,
}

impl Runner {
    pub(super) fn new(
        arguments: &RunArguments,
        job: &Resolved,
        plan: Arc<Plan>,
        source: Source,
    ) -> Result<Self, RunError> {
        let output = match (&arguments.output, arguments.table) {
            (Some(output), _) => Some(output.as_str()),
            (None, true) => None,
            (None, false) => Some("-"),
        };
        if arguments.table && output == Some("-") {
            let problem = "--table and --output - both write to standard output; give --output a file".to_owned();
            return Err(RunError::Usage { problem });
        }
        let destinations = Destinations {
            results: output.map(LineSink::create).transpose()?,
            late: arguments
                .late
                .as_deref()
                .map(|path| LineSink::file("--late", path))
                .transpose()?,
            dead: arguments
                .dead
                .as_deref()
                .map(|path| LineSink::file("--dead", path))
                .transpose()?,
            table: if arguments.table { Some(Table::new(job)?) } else { None },
        };
        Ok(Self {
            source,
            partitioner: (arguments.partitions > 1).then(|| Partitioner::new(&job.group_by, arguments.partitions)),
            tasks: (0..arguments.partitions)
                .map(|_| Task::new(Arc::clone(&plan), 0))
                .collect(),
            outputs: Outputs::default(),
            destinations,
            progress: Progress::new(arguments.quiet, arguments.table, &job.windows),
            max_bad_ratio: job.max_bad_ratio,
            flushed: Instant::now(),
        })
    }

    /// Runs to the end and says on standard error what was done.
    pub(super) fn run(mut self, stop: &AtomicBool) -> Result<(), RunError> {
        let ended = self.run_to_end(stop);
        // What was due before a failure of the input or the data is written all the same; the first problem is told.
        let flushed = self.destinations.flush();
        let shown = self.destinations.show_table(&self.progress.totals(&self.tasks), true);
        self.progress
            .finish(&self.tasks, matches!(ended, Ok(Ending::Interrupted)));
        ended.and(flushed).and(shown)
    }

    fn run_to_end(&mut self, stop: &AtomicBool) -> Result<Ending, RunError> {
        let mut wait = Duration::ZERO;
        loop {
            if stop.load(Ordering::Relaxed) {
                return Ok(Ending::Interrupted);
            }
            match self.source.fill(wait)? {
                Filled::Records => {
                    wait = Duration::ZERO;
                    self.step()?;
                    if self.flushed.elapsed() >= FLUSH_INTERVAL {
                        self.show()?;
                    }
                }
                Filled::Idle => {
                    self.show()?;
                    wait = IDLE_WAIT;
                }
                Filled::End => break,
            }
        }
        for task in &mut self.tasks {
            task.end_of_input(&mut self.outputs);
            self.destinations.take(&self.outputs, &[])?;
            self.outputs.clear();
        }
        Ok(Ending::EndOfInput)
    }

    /// One step of each task that the batch has records for.
    fn step(&mut self) -> Result<(), RunError> {
        let records = self.source.records();
        let Some(partitioner) = &mut self.partitioner else {
            let status = self.tasks[0].step(&records, &mut self.outputs);
            self.destinations.take(&self.outputs, &records)?;
            self.outputs.clear();
            return self.judge(status, &records);
        };
        let mut shares: Vec<Vec<Record<'_>>> = vec![Vec::new(); self.tasks.len()];
        for record in &records {
            shares[partitioner.partition(record.value)].push(*record);
        }
        for (task, share) in self.tasks.iter_mut().zip(&shares) {
            let status = task.step(share, &mut self.outputs);
            self.destinations.take(&self.outputs, share)?;
            self.outputs.clear();
            if status != StepStatus::Continue {
                return self.judge(status, share);
            }
        }
        Ok(())
    }

    fn judge(&self, status: StepStatus, records: &[Record<'_>]) -> Result<(), RunError> {
        let (consumed, bad, seen) = match status {
            StepStatus::Continue => return Ok(()),
            StepStatus::TooManyBadRecords { consumed, bad, seen } => (consumed, bad, seen),
        };
        let hint = match self.destinations.dead {
            Some(_) => "the file of --dead has them with their reasons",
            None => "give --dead FILE to see them with their reasons",
        };
        let line = consumed
            .checked_sub(1)
            .and_then(|last| records.get(last))
            .map_or(0, line_number);
        Err(RunError::TooManyBadRecords {
            line,
            bad,
            seen,
            ratio: self.max_bad_ratio,
            hint: hint.to_owned(),
        })
    }

    /// Makes visible what has happened so far.
    fn show(&mut self) -> Result<(), RunError> {
        self.flushed = Instant::now();
        self.destinations.flush()?;
        if self.progress.is_due() {
            let totals = self.progress.totals(&self.tasks);
            self.destinations.show_table(&totals, false)?;
            self.progress.show(&totals);
        }
        Ok(())
    }
}

impl Destinations {
    /// Writes the outputs of one step over `records`.
    fn take(&mut self, outputs: &Outputs, records: &[Record<'_>]) -> Result<(), RunError> {
        for output in &outputs.list {
            match output {
                Output::Result(result) => {
                    let value = outputs.slice(&result.value);
                    if let Some(sink) = &mut self.results {
                        sink.write_line(value)?;
                    }
                    if let Some(table) = &mut self.table {
                        table.observe(result.window, result.end_ms, outputs.slice(&result.key), value);
                    }
                }
                Output::Late(late) => {
                    if let (Some(sink), Some(record)) = (&mut self.late, records.get(late.record)) {
                        sink.write_line(&late_line(late, record))?;
                    }
                }
                Output::Dead(dead) => {
                    if let (Some(sink), Some(record)) = (&mut self.dead, records.get(dead.record)) {
                        sink.write_line(&dead_line(dead, record))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), RunError> {
        for sink in [&mut self.results, &mut self.late, &mut self.dead]
            .into_iter()
            .flatten()
        {
            sink.flush()?;
        }
        Ok(())
    }

    fn show_table(&mut self, totals: &Totals, last: bool) -> Result<(), RunError> {
        self.table.as_mut().map_or(Ok(()), |table| table.show(totals, last))
    }
}
