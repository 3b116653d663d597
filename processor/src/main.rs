//! The processor binary: reads the command line, runs what it names, turns the ending into an exit code.
//! Must not hold logic of the engine, nor read the environment anywhere else than here and in clap.

use std::process::ExitCode;

use clap::Parser;
use streamagg_crds::overrides::Override;

mod cli;
mod local;

/// Values of the manifest that the environment gives, by name, so that the same environment gives the same order.
fn overrides() -> Vec<Override> {
    let mut found: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .collect();
    found.sort();
    found
        .iter()
        .filter_map(|(name, value)| Override::from_environment(name, value))
        .collect()
}

fn main() -> ExitCode {
    match cli::Arguments::try_parse() {
        Ok(arguments) => cli::dispatch(arguments, &overrides()),
        Err(problem) => {
            // Clap's own code for a usage problem is 2, for --help and --version 0. A closed pipe is no error.
            let code = u8::try_from(problem.exit_code()).unwrap_or(cli::EXIT_USAGE);
            let _ = problem.print();
            ExitCode::from(code)
        }
    }
}
