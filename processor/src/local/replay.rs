//! `replay`: derives results again from a range of the input and compares them with what was published.
//! No clock is asked and no decision made, so results that hang on those may differ. Must not judge events itself.

mod ledger;

use std::sync::Arc;

use streamagg_crds::overrides::Override;
use streamagg_crds::value::Instant;
use streamagg_processor::pipeline::operator::{StepStatus, Task};
use streamagg_processor::pipeline::output::{Envelope, Output, Outputs, Record};

use super::partitioner::{Partitioner, envelope, in_partition};
use super::side_output::line_number;
use super::source::{Filled, IDLE_WAIT, InputSpec, Source};
use super::{
    RunError, load, manifest, print, refuse_record_times, refuse_spreading_elements, refuse_standard_input_twice,
};
use crate::cli::{LineRange, ReplayArguments};

use ledger::{Comparison, Ledger, Selection};

/// Compares; equal is `Ok`.
pub(crate) fn replay(arguments: &ReplayArguments, environment: &[Override]) -> Result<(), RunError> {
    refuse_standard_input_twice(&arguments.manifest, "--input", &arguments.input)?;
    refuse_standard_input_twice(&arguments.manifest, "--published", &arguments.published)?;
    let loaded = load(&arguments.manifest, environment, &arguments.set)?;
    refuse_record_times(&loaded.job)?;
    refuse_spreading_elements(&loaded.job, arguments.partitions)?;
    let selection = Selection {
        windows: windows(arguments, &loaded)?,
        from_ms: arguments.from.as_ref().map(Instant::ms),
        to_ms: arguments.to.as_ref().map(Instant::ms),
    };
    if arguments.input == "-" && arguments.published == "-" {
        let problem = "--input - and --published - both read standard input; give one of them a file".to_owned();
        return Err(RunError::Usage { problem });
    }
    let input: InputSpec = arguments.input.parse()?;
    let published = read_published(&arguments.published, &selection)?;
    let derived = derive(arguments, loaded, input, &selection)?;
    let comparison = Comparison::of(&published, &derived, arguments.partial);
    print(&comparison.report(arguments.show))?;
    match comparison.verdict() {
        None => Ok(()),
        Some(verdict) => Err(RunError::Differs { verdict }),
    }
}

/// Names of `--window`, which must be windows of the manifest.
fn windows(arguments: &ReplayArguments, loaded: &manifest::Loaded) -> Result<Vec<String>, RunError> {
    let known = loaded.plan.window_names();
    match arguments.window.iter().find(|name| !known.contains(name)) {
        None => Ok(arguments.window.clone()),
        Some(name) => Err(RunError::Usage {
            problem: format!("--window {name}: no such window; the manifest has {}", known.join(", ")),
        }),
    }
}

fn read_published(name: &str, selection: &Selection) -> Result<Ledger, RunError> {
    let spec = match name {
        "-" => InputSpec::StandardInput,
        file => InputSpec::File(file.into()),
    };
    let wrong = |problem: String| RunError::Published {
        name: if name == "-" { "standard input" } else { name }.to_owned(),
        problem,
    };
    // A source speaks of --input.
    let named = |error: RunError| match error {
        RunError::Input { problem, .. } => wrong(problem),
        other => other,
    };
    let mut ledger = Ledger::default();
    let mut source = Source::open(spec).map_err(named)?;
    loop {
        match source.fill(IDLE_WAIT).map_err(named)? {
            Filled::Records => {
                for record in source.records() {
                    let entered = ledger.enter(record.value, selection);
                    entered.map_err(|problem| wrong(format!("line {}: {problem}", line_number(&record))))?;
                }
            }
            Filled::Idle => {}
            Filled::End => return Ok(ledger),
        }
    }
}

/// The results that the input gives.
fn derive(
    arguments: &ReplayArguments,
    loaded: manifest::Loaded,
    input: InputSpec,
    selection: &Selection,
) -> Result<Ledger, RunError> {
    let job = loaded.job;
    let plan = Arc::new(loaded.plan);
    let mut partitioner = Partitioner::new(&job.lets, &job.group_by, arguments.partitions);
    let mut tasks: Vec<Task> = (0..arguments.partitions)
        .map(|_| Task::new(Arc::clone(&plan), 0))
        .collect();
    let needs_envelopes = plan.needs_envelopes();
    let envelopes: Vec<Envelope<'static>> = (0..tasks.len()).map(envelope).collect();
    let mut outputs = Outputs::default();
    let mut ledger = Ledger::default();
    let mut source = Source::open(input)?;
    let mut shares: Vec<Vec<Record<'_>>>;
    loop {
        match source.fill(IDLE_WAIT)? {
            Filled::Records => {}
            Filled::Idle => continue,
            Filled::End => break,
        }
        let records = source.records();
        let last = records.last().map_or(0, line_number);
        shares = vec![Vec::new(); tasks.len()];
        for record in records.iter().filter(|record| contains(arguments.lines, record)) {
            shares[partitioner.partition(record)].push(*record);
        }
        for ((task, share), envelope) in tasks.iter_mut().zip(&mut shares).zip(&envelopes) {
            in_partition(share, envelope, needs_envelopes);
            let status = task.step(share, &mut outputs);
            enter_all(&mut ledger, &mut outputs, selection);
            judge(status, share, job.max_bad_ratio)?;
        }
        if arguments.lines.is_some_and(|lines| lines.last <= last) {
            break;
        }
    }
    ledger.input_ends();
    for task in &mut tasks {
        task.end_of_input(&mut outputs);
        enter_all(&mut ledger, &mut outputs, selection);
    }
    Ok(ledger)
}

fn contains(lines: Option<LineRange>, record: &Record<'_>) -> bool {
    lines.is_none_or(|lines| (lines.first..=lines.last).contains(&line_number(record)))
}

fn enter_all(ledger: &mut Ledger, outputs: &mut Outputs, selection: &Selection) {
    for output in &outputs.list {
        if let Output::Result(result) = output {
            let entered = ledger.enter(outputs.slice(&result.value), selection);
            debug_assert!(entered.is_ok(), "the engine's own results can be read: {entered:?}");
        }
    }
    outputs.clear();
}

fn judge(status: StepStatus, records: &[Record<'_>], ratio: f64) -> Result<(), RunError> {
    let StepStatus::TooManyBadRecords { consumed, bad, seen } = status else {
        return Ok(());
    };
    let last = consumed.checked_sub(1).and_then(|last| records.get(last));
    Err(RunError::TooManyBadRecords {
        line: last.map_or(0, line_number),
        bad,
        seen,
        ratio,
        hint: "run with --dead FILE to see them with their reasons".to_owned(),
    })
}
