//! The loop of a local run: a batch in, one step of each task, its outputs out; results are shown at once when the
//! input pauses. Must not interpret records: partitions by key, judging and firing are the engine's.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use streamagg_crds::resolved::Resolved;
use streamagg_processor::pipeline::builder::Plan;
use streamagg_processor::pipeline::operator::{StepStatus, Task};
use streamagg_processor::pipeline::output::{Envelope, Output, Outputs, Record};

use super::RunError;
use super::idle::Clock;
use super::partitioner::{Partitioner, envelope, in_partition};
use super::progress::{Progress, Totals};
use super::side_output::{dead_line, late_line, line_number};
use super::sink::LineSink;
use super::source::{Filled, IDLE_WAIT, InputSpec, Source};
use super::state::{Resumed, StateDirectory};
use super::table::Table;
use crate::cli::RunArguments;

/// Results wait in the buffer for at most so long while the input flows.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);
/// A run that keeps its state loses at most so much work when it is killed.
const COMMIT_INTERVAL: Duration = Duration::from_millis(200);

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
    needs_envelopes: bool,
    outputs: Outputs,
    destinations: Destinations,
    progress: Progress,
    max_bad_ratio: f64,
    flushed: Instant,
    state: Option<StateDirectory>,
    committed: Instant,
    clock: Clock,
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
        input: InputSpec,
    ) -> Result<Option<Self>, RunError> {
        let output = match (&arguments.output, arguments.table) {
            (Some(output), _) => Some(output.as_str()),
            (None, true) => None,
            (None, false) => Some("-"),
        };
        if arguments.table && output == Some("-") {
            let problem = "--table and --output - both write to standard output; give --output a file".to_owned();
            return Err(RunError::Usage { problem });
        }
        let (state, resumed) = match &arguments.state {
            Some(path) => {
                let (state, resumed) = StateDirectory::open(path, arguments, job, &plan)?;
                (Some(state), resumed)
            }
            None => (None, None),
        };
        if resumed.as_ref().is_some_and(|resumed| resumed.ended) {
            if !arguments.quiet {
                eprintln!("the run was at its end already; remove the directory of --state to run it anew");
            }
            return Ok(None);
        }
        let table = if arguments.table { Some(Table::new(job)?) } else { None };
        let destinations = Destinations::open(arguments, output, resumed.as_ref(), table)?;
        let place = resumed
            .as_ref()
            .map(|resumed| resumed.place.clone())
            .unwrap_or_default();
        let tasks = match resumed {
            Some(resumed) => resumed.tasks,
            None => (0..arguments.partitions)
                .map(|_| Task::new(Arc::clone(&plan), 0))
                .collect(),
        };
        let needs_envelopes = plan.needs_envelopes();
        Ok(Some(Self {
            needs_envelopes,
            source: Source::open_at(input, &place)?,
            clock: Clock::new(job, &tasks),
            state,
            committed: Instant::now(),
            partitioner: (arguments.partitions > 1)
                .then(|| Partitioner::new(&job.lets, &job.group_by, arguments.partitions)),
            tasks,
            outputs: Outputs::default(),
            destinations,
            progress: Progress::new(arguments.quiet, arguments.table, &job.windows),
            max_bad_ratio: job.max_bad_ratio,
            flushed: Instant::now(),
        }))
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
                self.commit(false)?;
                return Ok(Ending::Interrupted);
            }
            match self.source.fill(wait)? {
                Filled::Records => {
                    wait = Duration::ZERO;
                    self.step()?;
                    if self.committed.elapsed() >= COMMIT_INTERVAL {
                        self.commit(false)?;
                    }
                    if self.flushed.elapsed() >= FLUSH_INTERVAL {
                        self.show()?;
                    }
                }
                Filled::Idle => {
                    self.advance_idle()?;
                    self.show()?;
                    wait = IDLE_WAIT;
                }
                Filled::End => break,
            }
            self.tick()?;
        }
        for task in &mut self.tasks {
            task.end_of_input(&mut self.outputs);
            self.destinations.take(&self.outputs, &[])?;
            self.outputs.clear();
        }
        self.commit(true)?;
        Ok(Ending::EndOfInput)
    }

    /// Writes the outputs and then where the run stands, when it keeps its state.
    fn commit(&mut self, ended: bool) -> Result<(), RunError> {
        let Some(state) = &mut self.state else {
            return Ok(());
        };
        self.destinations.flush()?;
        self.committed = Instant::now();
        state.commit(
            &mut self.tasks,
            self.source.place()?,
            self.destinations.lengths(),
            ended,
        )
    }

    /// Processing time goes on: triggers that count it may fire.
    fn tick(&mut self) -> Result<(), RunError> {
        for (index, task) in self.tasks.iter_mut().enumerate() {
            if let Some(decision) = self.clock.tick(index, task) {
                task.decide(&decision, &mut self.outputs);
                self.destinations.take(&self.outputs, &[])?;
                self.outputs.clear();
            }
        }
        Ok(())
    }

    /// The input pauses: watermarks of idle partitions advance, if the manifest says so.
    fn advance_idle(&mut self) -> Result<(), RunError> {
        for (index, task) in self.tasks.iter_mut().enumerate() {
            if let Some(decision) = self.clock.idle(index, task) {
                task.decide(&decision, &mut self.outputs);
                self.destinations.take(&self.outputs, &[])?;
                self.outputs.clear();
            }
        }
        Ok(())
    }

    /// One step of each task that the batch has records for.
    fn step(&mut self) -> Result<(), RunError> {
        let envelopes: Vec<Envelope<'static>> = (0..self.tasks.len()).map(envelope).collect();
        let mut records = self.source.records();
        let Some(partitioner) = &mut self.partitioner else {
            in_partition(&mut records, &envelopes[0], self.needs_envelopes);
            let status = self.clock.step(0, &mut self.tasks[0], &records, &mut self.outputs);
            self.destinations.take(&self.outputs, &records)?;
            self.outputs.clear();
            return self.judge(status, &records);
        };
        let mut shares: Vec<Vec<Record<'_>>> = vec![Vec::new(); self.tasks.len()];
        for record in &records {
            shares[partitioner.partition(record)].push(*record);
        }
        for (index, (task, share)) in self.tasks.iter_mut().zip(&mut shares).enumerate() {
            in_partition(share, &envelopes[index], self.needs_envelopes);
            let status = self.clock.step(index, task, share, &mut self.outputs);
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
    /// Makes the files, or goes on in those of an earlier run.
    fn open(
        arguments: &RunArguments,
        output: Option<&str>,
        resumed: Option<&Resumed>,
        table: Option<Table>,
    ) -> Result<Self, RunError> {
        let lengths = resumed.map(|resumed| resumed.outputs);
        let file = |flag, path: &Path, index: usize| match lengths {
            Some(lengths) => LineSink::resume(flag, path, lengths[index]),
            None => LineSink::file(flag, path),
        };
        let results = match output {
            Some("-") => Some(LineSink::create("-")?),
            Some(path) => Some(file("--output", Path::new(path), 0)?),
            None => None,
        };
        let late = arguments.late.as_deref().map(|path| file("--late", path, 1));
        let dead = arguments.dead.as_deref().map(|path| file("--dead", path, 2));
        Ok(Self {
            results,
            late: late.transpose()?,
            dead: dead.transpose()?,
            table,
        })
    }

    /// Bytes of results, late and dead records.
    fn lengths(&self) -> [u64; 3] {
        [&self.results, &self.late, &self.dead].map(|sink| sink.as_ref().map_or(0, LineSink::length))
    }

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
