//! A manifest on a laptop: lines in, results out, the same engine as in the cluster, no Kafka and no RocksDB.
//! The thin shell: it reads, writes, looks at the clock and listens to Ctrl-C. Must not hold semantics of windows.

mod error;
mod explain;
mod idle;
mod lines;
mod manifest;
mod partitioner;
mod progress;
mod replay;
mod runner;
mod side_output;
mod sink;
mod source;
mod state;
mod table;
mod trace;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use error::RunError;
pub(crate) use replay::replay;
use streamagg_crds::overrides::Override;
use streamagg_crds::resolved::{Resolved, Timestamp};

use runner::Runner;
use sink::LineSink;
use source::{InputSpec, Source};

use crate::cli::{ExplainArguments, GenerateArguments, RunArguments};

/// Exit code after a second Ctrl-C: 128 + SIGINT, as shells expect.
const EXIT_SECOND_INTERRUPT: i32 = 130;

/// Runs a manifest until the input ends, Ctrl-C comes or something fails.
pub(crate) fn run(arguments: &RunArguments, environment: &[Override]) -> Result<(), RunError> {
    let input: InputSpec = arguments.input.parse()?;
    refuse_standard_input_twice(&arguments.manifest, "--input", &arguments.input)?;
    let manifest::Loaded { job, plan, .. } = load(&arguments.manifest, environment, &arguments.set)?;
    refuse_same_file(arguments, &input)?;
    refuse_record_times(&job)?;
    refuse_spreading_elements(&job, arguments.partitions)?;
    if arguments.state.is_some() {
        refuse_what_cannot_be_resumed(arguments, &input)?;
    }
    let stop = stop_flag()?;
    match Runner::new(arguments, &job, Arc::new(plan), input)? {
        Some(runner) => runner.run(&stop),
        None => Ok(()),
    }
}

/// What standard input holds is read once.
fn refuse_standard_input_twice(manifest: &Path, flag: &str, value: &str) -> Result<(), RunError> {
    if manifest != Path::new("-") || value != "-" {
        return Ok(());
    }
    let problem = format!("-f - and {flag} - both read standard input; give one of them a file");
    Err(RunError::Usage { problem })
}

/// A line has no timestamp of its own, and taking its place or the clock for one would give windows of neither.
fn refuse_record_times(job: &Resolved) -> Result<(), RunError> {
    if job.timestamp != Timestamp::Record {
        return Ok(());
    }
    let problem = "spec.event.timestamp.record: a line has no record timestamp; for this run name the field that has the \
                   time, as in --set 'event.timestamp={field: /ts}'";
    Err(RunError::Usage {
        problem: problem.to_owned(),
    })
}

/// The elements of one record may have keys of several partitions.
fn refuse_spreading_elements(job: &Resolved, partitions: u16) -> Result<(), RunError> {
    if partitions == 1 || job.explode.is_none() {
        return Ok(());
    }
    let problem = "--partitions spreads records by their key, and with spec.explode a record has as many as it has \
                   elements; leave --partitions out";
    Err(RunError::Usage {
        problem: problem.to_owned(),
    })
}

/// What was written to a pipe cannot be taken back, what was read from one cannot be read again.
fn refuse_what_cannot_be_resumed(arguments: &RunArguments, input: &InputSpec) -> Result<(), RunError> {
    let problem = match input {
        InputSpec::StandardInput => "--state needs an input that can be read again: give --input a file or generate:…",
        InputSpec::Generator(options) if options.live && !options.start_given => {
            "--state with live=true needs start=…: otherwise the events are others with every run"
        }
        InputSpec::Generator(_) | InputSpec::File(_) | InputSpec::Trace(_) => match arguments.output.as_deref() {
            Some("-") => "--state needs outputs that can be cut to what was committed: give --output a file",
            None if !arguments.table => {
                "--state needs outputs that can be cut to what was committed: give --output a file"
            }
            Some(_) | None => return Ok(()),
        },
    };
    Err(RunError::Usage {
        problem: problem.to_owned(),
    })
}

/// A manifest with what the environment and then the flags lay over it.
fn load(path: &Path, environment: &[Override], set: &[String]) -> Result<manifest::Loaded, RunError> {
    let mut overrides = environment.to_vec();
    for flag in set {
        overrides.push(Override::from_flag(flag).map_err(|error| RunError::Usage {
            problem: error.to_string(),
        })?);
    }
    manifest::load(path, &overrides)
}

/// Says what a manifest means.
pub(crate) fn explain(arguments: &ExplainArguments, environment: &[Override]) -> Result<(), RunError> {
    let loaded = load(&arguments.manifest, environment, &arguments.set)?;
    print(&explain::explain(&loaded))
}

/// Writes the JSON schema of a manifest.
pub(crate) fn schema() -> Result<(), RunError> {
    print(&explain::schema())
}

fn print(text: &str) -> Result<(), RunError> {
    let mut sink = LineSink::create("-")?;
    sink.write_line(text.trim_end().as_bytes())?;
    sink.flush()
}

/// Checks every manifest; all problems of all files are reported.
pub(crate) fn validate(manifests: &[PathBuf]) -> Result<(), RunError> {
    let mut problems = Vec::new();
    for path in manifests {
        match manifest::load(path, &[]) {
            // Nobody listening to the good news is no problem: the exit code says it too.
            Ok(loaded) => {
                drop(writeln!(std::io::stdout(), "{}: valid", path.display()));
                for refused in manifest::refused_in_a_cluster(&loaded) {
                    drop(writeln!(std::io::stdout(), "  not in a cluster: {refused}"));
                }
            }
            Err(RunError::Manifest { problems: found }) => problems.extend(found),
            Err(other) => return Err(other),
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(RunError::Manifest { problems })
    }
}

/// Writes the lines of a source, without aggregating anything.
pub(crate) fn generate(arguments: &GenerateArguments) -> Result<(), RunError> {
    let text = match arguments.source.strip_prefix("trace:") {
        Some(_) => arguments.source.clone(),
        None => format!("generate:{}", arguments.source),
    };
    let stop = stop_flag()?;
    let spec: InputSpec = text.parse().map_err(of_generate)?;
    let mut source = Source::open(spec)?;
    let mut sink = LineSink::create(&arguments.output)?;
    let mut wait = std::time::Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        match source.fill(wait)? {
            source::Filled::Records => {
                wait = std::time::Duration::ZERO;
                for record in source.records() {
                    sink.write_line(record.value)?;
                }
            }
            source::Filled::Idle => {
                sink.flush()?;
                wait = source::IDLE_WAIT;
            }
            source::Filled::End => break,
        }
    }
    sink.flush()
}

/// Problems of sources speak of `--input`; here the source is the argument.
fn of_generate(error: RunError) -> RunError {
    match error {
        RunError::Usage { problem } => RunError::Usage {
            problem: problem.replacen("--input", "generate", 1),
        },
        other => other,
    }
}

/// Becomes true at the first Ctrl-C or SIGTERM; the second ends the process at once.
fn stop_flag() -> Result<Arc<AtomicBool>, RunError> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(EXIT_SECOND_INTERRUPT);
        }
    })
    .map_err(|source| RunError::Signals { source })?;
    Ok(stop)
}

/// One file in two roles would be overwritten while it is read, or mixed.
fn refuse_same_file(arguments: &RunArguments, input: &InputSpec) -> Result<(), RunError> {
    let output = arguments
        .output
        .as_deref()
        .filter(|output| *output != "-")
        .map(Path::new);
    let roles = [
        ("-f", Some(arguments.manifest.as_path())),
        ("--input", input.path()),
        ("--output", output),
        ("--late", arguments.late.as_deref()),
        ("--dead", arguments.dead.as_deref()),
    ];
    let mut seen: Vec<(&str, PathBuf)> = Vec::new();
    for (role, path) in roles {
        let Some(path) = path.filter(|path| !is_device(path)) else {
            continue;
        };
        let identity = std::path::absolute(path).and_then(|path| path.canonicalize().or(Ok(path)));
        let identity = identity.unwrap_or_else(|_| path.to_owned());
        if let Some((other, _)) = seen.iter().find(|(_, known)| *known == identity) {
            let problem = format!(
                "{other} and {role} name the same file {}; give each its own",
                path.display()
            );
            return Err(RunError::Usage { problem });
        }
        seen.push((role, identity));
    }
    Ok(())
}

/// `/dev/null` may serve in every role.
fn is_device(path: &Path) -> bool {
    File::open(path)
        .and_then(|file| file.metadata())
        .is_ok_and(|found| !found.is_file() && !found.is_dir())
}
