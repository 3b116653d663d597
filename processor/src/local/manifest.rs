//! From a manifest's file to a plan. Must not judge the manifest itself: the rules are those of the crds crate.

use std::fmt;
use std::path::Path;

use serde_json::Value;
use streamagg_crds::manifest::{from_value, read_yaml};
use streamagg_crds::overrides::{self, Origin, Override};
use streamagg_crds::resolved::Resolved;
use streamagg_crds::rules::Place;
use streamagg_crds::structure;
use streamagg_crds::v1alpha1::StreamAggregationSpec;
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

/// A manifest with what follows from it.
pub(super) struct Loaded {
    /// As it stands in the file.
    pub(super) written: Value,
    /// With what was laid over it and with defaults.
    pub(super) value: Value,
    /// Paths that were laid over it, in order.
    pub(super) overridden: Vec<(String, Origin)>,
    pub(super) spec: StreamAggregationSpec,
    pub(super) job: Resolved,
    pub(super) plan: Plan,
}

/// Reads a manifest (`-`: from standard input), lays `overrides` over it, checks and compiles it.
///
/// # Errors
/// [`RunError::Manifest`] with every problem found.
pub(super) fn load(path: &Path, overrides: &[Override]) -> Result<Loaded, RunError> {
    let from_pipe = path == Path::new("-");
    let problem = |problem: String| ManifestProblem {
        file: if from_pipe {
            "standard input".to_owned()
        } else {
            path.display().to_string()
        },
        problem,
    };
    let text = if from_pipe {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.map_err(|error| RunError::Manifest {
        problems: vec![problem(format!("cannot be read: {error}"))],
    })?;
    compile(&text, overrides).map_err(|errors| RunError::Manifest {
        problems: errors.iter().map(|error| problem(error.to_string())).collect(),
    })
}

fn compile(text: &str, overrides: &[Override]) -> Result<Loaded, Vec<SpecError>> {
    let written = read_yaml(text)?;
    let mut value = written.clone();
    let overridden = overrides::apply(&mut value, overrides)?;
    if let Some(spec) = value.get_mut("spec") {
        structure::fill_defaults(spec, structure::spec_schema());
    }
    let manifest = from_value(value.clone(), Place::Laptop)?;
    let job = validate::resolve(&manifest.spec, &manifest.metadata.namespace, &manifest.metadata.name)?;
    let plan = Plan::compile(&job);
    Ok(Loaded {
        written,
        value,
        overridden,
        spec: manifest.spec,
        job,
        plan,
    })
}

/// What a cluster would refuse of a manifest that is valid here.
pub(super) fn refused_in_a_cluster(loaded: &Loaded) -> Vec<SpecError> {
    from_value(loaded.value.clone(), Place::Cluster)
        .err()
        .unwrap_or_default()
}
