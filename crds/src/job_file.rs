//! The job file: what the operator hands to the pods, in a ConfigMap. Versioned, since operator and pods change apart.
//! Must not open files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::rules::Place;
use crate::structure;
use crate::v1alpha1::StreamAggregationSpec;
use crate::validate::{self, SpecError};

/// Version of the job file that this build writes and reads.
pub const JOB_FILE_VERSION: u32 = 1;

/// Namespace and uid of a job that runs outside a cluster.
pub const LOCAL_UID: &str = "local";

/// A job as a pod sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobFile {
    /// Version of this document, [`JOB_FILE_VERSION`].
    pub version: u32,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.uid`, or [`LOCAL_UID`].
    pub uid: String,
    /// Identity towards Kafka, resolved.
    pub job_id: String,
    /// [`pipeline_revision`] of the spec.
    pub revision: String,
    /// The user's last restore: carried out by each task whose committed position has seen a lower nonce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Restore>,
    /// What is declared. Written without what equals its default, so that an operator that knows more fields writes the
    /// same text for an old spec, and an older image can read it.
    #[serde(serialize_with = "without_defaults")]
    pub spec: StreamAggregationSpec,
}

/// A user's restore: every task goes back to a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restore {
    /// Higher than that of any restore before; at least 1.
    pub nonce: u64,
    /// What it is called by people: the name of a StreamCheckpoint.
    pub checkpoint: String,
    /// Id of the checkpoint of each task in the store; with two stages also where the tasks of the first stood.
    pub tasks: BTreeMap<u32, String>,
}

fn without_defaults<S: Serializer>(spec: &StreamAggregationSpec, serializer: S) -> Result<S::Ok, S::Error> {
    let mut value = serde_json::to_value(spec).map_err(serde::ser::Error::custom)?;
    structure::drop_defaults(&mut value, structure::spec_schema());
    value.sort_all_objects();
    value.serialize(serializer)
}

/// Why a job file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobFileError {
    /// Not JSON, or not of the job file's shape.
    #[error("job file: {0}; it is written by the operator: restart the operator, or give another file")]
    Unreadable(String),
    /// Of another version.
    #[error(
        "job file: version {found} is not supported, this image reads version {JOB_FILE_VERSION}; use an image that matches the operator"
    )]
    Version {
        /// The version found.
        found: u32,
    },
    /// The spec in it is not valid.
    #[error("job file: the spec is not valid: {}", list(.0))]
    Spec(Vec<SpecError>),
}

fn list(errors: &[SpecError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl JobFile {
    /// The job file of an object.
    pub fn new(namespace: &str, name: &str, uid: &str, spec: StreamAggregationSpec) -> Self {
        Self {
            version: JOB_FILE_VERSION,
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            uid: uid.to_owned(),
            job_id: validate::job_id(&spec, namespace, name),
            revision: pipeline_revision(&spec),
            restore: None,
            spec,
        }
    }

    /// Reads a job file.
    ///
    /// # Errors
    /// When it is unreadable, of another version, or holds a spec that is not valid.
    pub fn parse(text: &str) -> Result<Self, JobFileError> {
        let value: Value = serde_json::from_str(text).map_err(|error| JobFileError::Unreadable(error.to_string()))?;
        // The version first: a newer file may have another shape.
        match value.get("version").and_then(Value::as_u64).map(u32::try_from) {
            Some(Ok(JOB_FILE_VERSION)) => {}
            Some(found) => {
                return Err(JobFileError::Version {
                    found: found.unwrap_or(u32::MAX),
                });
            }
            None => return Err(JobFileError::Unreadable("no version".to_owned())),
        }
        // Strictly: a field that this image does not know might change results.
        let errors = structure::check(
            value.get("spec").unwrap_or(&Value::Null),
            structure::spec_schema(),
            "spec",
        );
        if !errors.is_empty() {
            return Err(JobFileError::Spec(errors));
        }
        let file: Self = serde_json::from_value(value).map_err(|error| JobFileError::Unreadable(error.to_string()))?;
        let errors = validate::validate(&file.spec, Place::Kafka);
        if errors.is_empty() {
            Ok(file)
        } else {
            Err(JobFileError::Spec(errors))
        }
    }
}

/// The spec's members that decide what is written to which output. Everything else may change without a new revision.
const DECIDES_RESULTS: [&str; 13] = [
    "where",
    "let",
    "explode",
    "event",
    "groupBy",
    "windows",
    "aggregates",
    "lateEvents",
    "deadLetters",
    "delivery",
    "source.format",
    "source.partitioning",
    "source.kafka.loadShedding",
];

/// Of these what decides when records are read only.
const DECIDES_PACE: &str = "event.maxDrift";

/// Whether a change of the field at `path` (without `spec.`) is a new revision.
pub fn decides_results(path: &str) -> bool {
    let within = |member: &str| {
        path.strip_prefix(member)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || rest.starts_with('['))
    };
    DECIDES_RESULTS.into_iter().any(within) && !within(DECIDES_PACE)
}

/// Short digest of what determines results: equal for specs that give the same output for the same records. Defaults
/// are left out, so that a later version, which knows more of them, gives an old spec the same revision.
pub fn pipeline_revision(spec: &StreamAggregationSpec) -> String {
    let mut value = serde_json::to_value(spec).unwrap_or_default();
    structure::drop_defaults(&mut value, structure::spec_schema());
    if let Some((parent, member)) = DECIDES_PACE.split_once('.')
        && let Some(parent) = value.get_mut(parent).and_then(Value::as_object_mut)
    {
        parent.remove(member);
    }
    let decisive: BTreeMap<&str, Option<&Value>> = DECIDES_RESULTS
        .iter()
        .map(|member| (*member, value.pointer(&format!("/{}", member.replace('.', "/")))))
        .collect();
    let mut decisive = serde_json::to_value(decisive).unwrap_or_default();
    decisive.sort_all_objects();
    if let Some(object) = decisive.as_object_mut() {
        object.retain(|_, member| !member.is_null());
    }
    hex::encode(&Sha256::digest(decisive.to_string().as_bytes())[..6])
}
