//! From a manifest's file to a plan. Must not judge the manifest itself: the rules are those of the crds crate.

use std::fmt;
use std::path::Path;

use streamagg_crds::parse_manifest;
use streamagg_crds::resolved::Resolved;
use streamagg_crds::validate::{self, SpecError};
use streamagg_processor::pipeline::builder::Plan;

use super::RunError;

/// A problem of a manifest with the file it stands in.
#[derive(Debug)]
pub(crate) struct ManifestProblem {
    file: String,
    problem: String,
}

impl fmt::Display for ManifestProblem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.file, self.problem)
    }
}

/// Reads, checks and compiles a manifest.
///
/// # Errors
/// [`RunError::Manifest`] with every problem found.
pub(super) fn load(path: &Path) -> Result<(Resolved, Plan), RunError> {
    let problem = |problem: String| ManifestProblem {
        file: path.display().to_string(),
        problem,
    };
    let text = std::fs::read_to_string(path).map_err(|error| RunError::Manifest {
        problems: vec![problem(format!("cannot be read: {error}"))],
    })?;
    let resolve = |text: &str| -> Result<Resolved, Vec<SpecError>> {
        let manifest = parse_manifest(text)?;
        validate::resolve(&manifest.spec, &manifest.metadata.namespace, &manifest.metadata.name)
    };
    let job = resolve(&text).map_err(|errors| RunError::Manifest {
        problems: errors.iter().map(|error| problem(error.to_string())).collect(),
    })?;
    let plan = Plan::compile(&job);
    Ok((job, plan))
}
