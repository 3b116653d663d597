//! The processor binary: reads the command line, runs what it names, turns the ending into an exit code.
//! Must not hold logic of the engine, nor read the environment anywhere else than here and in clap.

use std::process::ExitCode;

use clap::Parser;

mod cli;
mod local;

fn main() -> ExitCode {
    match cli::Arguments::try_parse() {
        Ok(arguments) => cli::dispatch(arguments),
        Err(problem) => {
            // Clap's own code for a usage problem is 2, for --help and --version 0. A closed pipe is no error.
            let code = u8::try_from(problem.exit_code()).unwrap_or(cli::EXIT_USAGE);
            let _ = problem.print();
            ExitCode::from(code)
        }
    }
}
