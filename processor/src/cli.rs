//! The command line: its grammar, and which exit code an ending has. Must not do the work itself.

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};
use streamagg_crds::overrides::Override;
use streamagg_crds::value::Instant;

use crate::local::{self, RunError};

/// Exit code of bad flags and bad manifests.
pub(crate) const EXIT_USAGE: u8 = 2;
/// Exit code of data with more dead letters than `maxBadRatio` allows.
const EXIT_BAD_DATA: u8 = 3;
/// Exit code of everything else that went wrong.
const EXIT_FAILURE: u8 = 1;

const EXIT_CODES: &str = "Exit codes: 0 done; 2 bad manifest or flags (every problem is listed with its path); \
    3 more bad records than maxBadRatio allows; 1 anything else.";

const EXIT_CODES_REPLAY: &str = "Exit codes: 0 the results are equal; 1 they differ, there is nothing to compare, or \
    something cannot be read; 2 bad manifest or flags; 3 more bad records than maxBadRatio allows.";

/// Streaming aggregation: windows over events, declared in one manifest for the cluster and the laptop.
#[derive(Debug, Parser)]
#[command(name = "streamagg-processor", version, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a manifest here: JSON lines in, results as lines or as a table out.
    #[command(after_help = EXIT_CODES)]
    Run(RunArguments),
    /// Checks manifests and lists every problem with its path.
    #[command(after_help = EXIT_CODES)]
    Validate(ValidateArguments),
    /// Says what a manifest means: topics, windows, panes, state of a key, and where each value came from.
    #[command(after_help = EXIT_CODES)]
    Explain(ExplainArguments),
    /// Writes the JSON schema of a manifest, for editors.
    Schema,
    /// Derives results again from a range of the input and compares them with what was published.
    #[command(after_help = EXIT_CODES_REPLAY)]
    Replay(ReplayArguments),
    /// Writes generated LLM traffic, or a recorded trace, as JSON lines.
    Generate(GenerateArguments),
    /// Runs a manifest or a job file on Kafka, exactly once, with an admin server.
    #[cfg(feature = "runtime")]
    #[command(after_help = EXIT_CODES)]
    Serve(Box<streamagg_processor::serve::ServeArgs>),
}

/// `run`.
#[derive(Args, Debug)]
pub(crate) struct RunArguments {
    /// The manifest: the same file that `kubectl apply` takes; `-` reads it from standard input.
    #[arg(short = 'f', long = "file", alias = "config", value_name = "FILE|-")]
    pub(crate) manifest: PathBuf,
    /// Lays a value over the manifest, as in `--set state.memoryBudget=64Mi`; wins over the environment
    /// (`STREAMAGG_SPEC__STATE__MEMORY_BUDGET`), which wins over the manifest.
    #[arg(long, value_name = "PATH=VALUE")]
    pub(crate) set: Vec<String>,
    /// Where events come from: a file of JSON lines, `-` for standard input, `generate[:events=N,rate=R,seed=S,…]` for
    /// generated LLM traffic, or `trace:FILE.csv` for a recorded one.
    #[arg(long, default_value = "-", value_name = "FILE|-|generate[:…]|trace:FILE")]
    pub(crate) input: String,
    /// Where result values go, one JSON object a line [default: - (standard output), nowhere with --table].
    #[arg(long, value_name = "FILE|-")]
    pub(crate) output: Option<String>,
    /// File for late events; without it they are counted and dropped.
    #[arg(long, value_name = "FILE")]
    pub(crate) late: Option<PathBuf>,
    /// File for records that are no usable events; without it they are counted and dropped.
    #[arg(long, value_name = "FILE")]
    pub(crate) dead: Option<PathBuf>,
    /// Shows the newest windows as a table: live on a terminal, otherwise once at the end.
    #[arg(long)]
    pub(crate) table: bool,
    /// Spreads the events by group key over so many partitions, each with a watermark of its own, as Kafka would.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) partitions: u16,
    /// Keeps the state in a directory: run again after a kill, the results are those of one undisturbed run. The input
    /// must be one that can be read again, and the outputs must be files.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// No progress and no summary on standard error.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `replay`.
#[derive(Args, Debug)]
pub(crate) struct ReplayArguments {
    /// The manifest that the results were made with.
    #[arg(short = 'f', long = "file", alias = "config", value_name = "FILE|-")]
    pub(crate) manifest: PathBuf,
    /// Lays a value over the manifest, as for `run`.
    #[arg(long, value_name = "PATH=VALUE")]
    pub(crate) set: Vec<String>,
    /// The events, as for `run`.
    #[arg(long, value_name = "FILE|-|generate[:…]|trace:FILE")]
    pub(crate) input: String,
    /// Only these lines of the input, counted from 1, both included.
    #[arg(long, value_name = "FIRST-LAST")]
    pub(crate) lines: Option<LineRange>,
    /// Values of results as they were published, one a line: the output of `run`, or of a consumer of the topic.
    #[arg(long, value_name = "FILE|-")]
    pub(crate) published: String,
    /// Only this window; may be given more than once.
    #[arg(long, value_name = "NAME")]
    pub(crate) window: Vec<String>,
    /// Only windows that start at this time or later, such as 2026-01-01T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<Instant>,
    /// Only windows that end at this time or earlier.
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<Instant>,
    /// The input is a part of what the results were made of, such as one partition: published results that it does not
    /// give are passed over.
    #[arg(long)]
    pub(crate) partial: bool,
    /// As for `run` when the results were made with it.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) partitions: u16,
    /// How many differences are shown.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(crate) show: usize,
}

/// Lines of an input, from 1, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LineRange {
    pub(crate) first: i64,
    pub(crate) last: i64,
}

impl FromStr for LineRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let range = text.split_once('-').and_then(|(first, last)| {
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            (1 <= first && first <= last).then_some(Self { first, last })
        });
        range.ok_or_else(|| "expected the first and the last line, counted from 1, such as 1000-2000".to_owned())
    }
}

/// `explain`.
#[derive(Args, Debug)]
pub(crate) struct ExplainArguments {
    /// The manifest; `-`: standard input.
    #[arg(short = 'f', long = "file", alias = "config", value_name = "FILE|-")]
    pub(crate) manifest: PathBuf,
    /// Lays a value over the manifest, as for `run`.
    #[arg(long, value_name = "PATH=VALUE")]
    pub(crate) set: Vec<String>,
}

/// `validate`.
#[derive(Args, Debug)]
struct ValidateArguments {
    /// Manifests to check; `-`: standard input.
    #[arg(short = 'f', long = "file", alias = "config", value_name = "FILE|-", required = true, num_args = 1..)]
    manifests: Vec<PathBuf>,
}

/// `generate`.
#[derive(Args, Debug)]
pub(crate) struct GenerateArguments {
    /// `events=N,rate=R,seed=S,tenants=N,models=N,keys=N,disorder=MS,late=SHARE,bad=SHARE,hot=SHARE,start=RFC3339,live=true`
    /// for generated traffic (events=0: without end; live=true: at its rate), or `trace:FILE.csv` for a recorded one.
    #[arg(default_value = "", value_name = "OPTIONS|trace:FILE")]
    pub(crate) source: String,
    /// Where the lines go.
    #[arg(long, default_value = "-", value_name = "FILE|-")]
    pub(crate) output: String,
}

/// Does what was asked and says how it ended.
pub(crate) fn dispatch(arguments: Arguments, environment: &[Override]) -> ExitCode {
    let ending = match arguments.command {
        Command::Run(arguments) => local::run(&arguments, environment),
        Command::Validate(arguments) => local::validate(&arguments.manifests),
        Command::Explain(arguments) => local::explain(&arguments, environment),
        Command::Schema => local::schema(),
        Command::Replay(arguments) => local::replay(&arguments, environment),
        Command::Generate(arguments) => local::generate(&arguments),
        #[cfg(feature = "runtime")]
        Command::Serve(arguments) => return streamagg_processor::serve::serve(*arguments),
    };
    match ending {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            if !matches!(problem, RunError::OutputClosed) {
                eprintln!("{problem}");
            }
            ExitCode::from(exit_code(&problem))
        }
    }
}

fn exit_code(problem: &RunError) -> u8 {
    match problem {
        RunError::Manifest { .. } | RunError::Usage { .. } => EXIT_USAGE,
        RunError::TooManyBadRecords { .. } => EXIT_BAD_DATA,
        RunError::Input { .. }
        | RunError::Output { .. }
        | RunError::State { .. }
        | RunError::Published { .. }
        | RunError::Differs { .. }
        | RunError::Signals { .. } => EXIT_FAILURE,
        // Whoever read the output had enough (`| head`): that is an ending, not a failure.
        RunError::OutputClosed => 0,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn config_is_another_name_of_file() {
        for flag in ["-f", "--file", "--config"] {
            let parsed = Arguments::try_parse_from(["streamagg-processor", "run", flag, "job.yaml"]).unwrap();
            let Command::Run(arguments) = parsed.command else {
                panic!("run was parsed as something else")
            };
            assert_eq!(arguments.manifest, PathBuf::from("job.yaml"));
        }
    }
}
