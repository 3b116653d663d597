//! How a local run can end other than well. Must not decide exit codes.

use std::path::PathBuf;

use crate::local::manifest::ManifestProblem;

/// Why a command did not reach its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// Manifests cannot be used; every problem is listed.
    #[error("{}", list(problems))]
    Manifest {
        /// All of them, in the order of the files.
        problems: Vec<ManifestProblem>,
    },
    /// Flags contradict each other or cannot be read.
    #[error("{problem}")]
    Usage {
        /// What, naming the flag.
        problem: String,
    },
    /// The input cannot be read.
    #[error("--input {name}: {problem}")]
    Input {
        /// The file, or "standard input".
        name: String,
        /// What happened, and what to do where that is known.
        problem: String,
    },
    /// Published results cannot be read.
    #[error("--published {name}: {problem}")]
    Published {
        /// The file, or "standard input".
        name: String,
        /// What happened, and what to do where that is known.
        problem: String,
    },
    /// Results derived again are not those that were published.
    #[error("{verdict}")]
    Differs {
        /// How many of how many, or that there were none.
        verdict: String,
    },
    /// The state directory cannot be used.
    #[error("--state {}: {problem}", path.display())]
    State {
        /// The directory.
        path: PathBuf,
        /// What, and what to do.
        problem: String,
    },
    /// An output cannot be written.
    #[error("{flag} {}: {source}; what was written before is not complete", path.display())]
    Output {
        /// The flag that named it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The reader of the output has gone.
    #[error("the reader of the output has gone")]
    OutputClosed,
    /// `maxBadRatio` was exceeded.
    #[error(
        "stopped at line {line}: {bad} of the last {seen} records are dead letters, more than spec.maxBadRatio {ratio} \
         allows; {hint}"
    )]
    TooManyBadRecords {
        /// Line of the last record consumed.
        line: i64,
        /// Dead letters in the window.
        bad: u64,
        /// Records in the window.
        seen: u64,
        /// What the manifest allows.
        ratio: f64,
        /// Where to look.
        hint: String,
    },
    /// Ctrl-C cannot be listened to.
    #[error("cannot install the handler of Ctrl-C: {source}")]
    Signals {
        /// What the system said.
        source: ctrlc::Error,
    },
}

fn list(problems: &[ManifestProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
