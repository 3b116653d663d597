//! Step `validate`: the last step that may fail on user input. Must not hold clients; what it needs of the
//! cluster comes in as facts.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::ResourceExt;
use streamagg_crds::job_file::{JobFile, Restore};
use streamagg_crds::v1alpha1::{StateSpec, StreamAggregation, StreamAggregationSpec};
use streamagg_crds::validate::{self, SpecError};

use super::build::secrets::{SecretKeys, secret_keys};
use super::build::{pod_template, pods_part, volume};
use super::observed::{References, StatefulSetFacts};
use super::requests;
use crate::names::NAME_LENGTH_MAX;

/// An aggregation that can be built without a further check.
#[derive(Clone, Debug)]
pub struct ValidatedAggregation {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.uid`.
    pub uid: String,
    /// The spec.
    pub spec: StreamAggregationSpec,
    /// Image of this revision, resolved.
    pub image: String,
    /// Text of the annotation that asks for a restart, or that did last: taking it off restarts nothing.
    pub restart_request: Option<String>,
    /// `spec.podTemplate`, checked.
    pub pod_template: Option<PodTemplateSpec>,
    /// What the spec refers to; missing ones count as they were.
    pub references: References,
    /// What pods mount for their brokers.
    pub secret_keys: SecretKeys,
    /// What pods read.
    pub job: JobFile,
    /// The same as text.
    pub job_text: String,
}

/// Checks the spec and resolves what follows from it. `order` is the restore that pods carry out, or have carried out.
///
/// # Errors
/// Everything wrong with the spec, each with its path.
pub fn validate(
    aggregation: &StreamAggregation,
    live: Option<&StatefulSetFacts>,
    default_image: Option<&str>,
    references: &References,
    order: Option<Restore>,
) -> Result<ValidatedAggregation, Vec<SpecError>> {
    let spec = &aggregation.spec;
    let name = aggregation.name_any();
    let namespace = aggregation.namespace().unwrap_or_default();
    let mut problems = validate::validate_for_cluster(&namespace, &name, spec);
    if name.len() > NAME_LENGTH_MAX {
        let message = format!(
            "has {} characters, at most {NAME_LENGTH_MAX} fit the names of the pods",
            name.len()
        );
        problems.push(SpecError::new("metadata.name", message));
    }
    if let Some(live) = live {
        problems.extend(volume_change(&spec.state, live));
    }
    let pod_template = spec.pod_template.as_ref().map(pod_template::parse).transpose();
    problems.extend(pod_template.as_ref().err().into_iter().flatten().cloned());
    let image = resolve_image(spec, live, default_image);
    if image.is_none() {
        let message =
            "missing, and the operator was started without a default; set it, or give the operator --processor-image";
        problems.push(SpecError::new("spec.image", message));
    }
    let uid = aggregation.uid().unwrap_or_default();
    let job = JobFile {
        restore: order,
        ..JobFile::new(&namespace, &name, &uid, pods_part(spec))
    };
    let job_text = match serde_json::to_string(&job) {
        Ok(text) => text,
        Err(error) => {
            problems.push(SpecError::new(
                "spec",
                format!("cannot be written as a job file: {error}"),
            ));
            String::new()
        }
    };
    match image {
        Some(image) if problems.is_empty() => Ok(ValidatedAggregation {
            secret_keys: secret_keys(spec, &namespace, &name),
            name,
            namespace,
            uid,
            spec: spec.clone(),
            image,
            restart_request: requests::read(aggregation.metadata.annotations.as_ref())
                .restart
                .or_else(|| live.and_then(|live| live.restart_request.clone())),
            pod_template: pod_template.ok().flatten(),
            references: in_force(references, live),
            job,
            job_text,
        }),
        Some(_) | None => Err(problems),
    }
}

/// A Secret that is away for a while is no reason to restart pods that run.
fn in_force(references: &References, live: Option<&StatefulSetFacts>) -> References {
    match references {
        References::Missing(_) => {
            let before = live.and_then(|live| live.references.clone());
            before.map_or(References::None, References::Digest)
        }
        References::None | References::Digest(_) | References::WithoutToken => references.clone(),
    }
}

/// The image is pinned per revision: without `spec.image` a new default of the operator takes effect only with a
/// new `restartNonce`, so that an upgrade of the operator restarts no pod.
fn resolve_image(
    spec: &StreamAggregationSpec,
    live: Option<&StatefulSetFacts>,
    default_image: Option<&str>,
) -> Option<String> {
    if let Some(image) = &spec.image {
        return Some(image.clone());
    }
    let pinned = live.filter(|live| live.image_is_default && live.restart_nonce == Some(spec.restart_nonce));
    pinned
        .map(|live| live.image.clone())
        .or_else(|| default_image.map(ToOwned::to_owned))
}

/// Volumes grow; they cannot shrink or change their class. The API server takes a smaller size, since a growth that
/// the storage class refuses has to be taken back.
fn volume_change(state: &StateSpec, live: &StatefulSetFacts) -> Option<SpecError> {
    let (path, message) = match (volume(state), &live.volume) {
        (None, None) => return None,
        (Some(wanted), Some(live)) if wanted.class != live.class => (
            "spec.state.volume.storageClassName",
            format!(
                "cannot change (is {:?}, asked for {:?}); put it back, or create another StreamAggregation",
                live.class.clone().unwrap_or_default(),
                wanted.class.unwrap_or_default()
            ),
        ),
        (Some(wanted), Some(live)) if wanted.bytes < live.bytes => (
            "spec.state.volume.size",
            format!(
                "cannot shrink (is {}, asked for {}): volumes only grow; put the size back",
                live.size, wanted.size
            ),
        ),
        (Some(_), Some(_)) => return None,
        (Some(_), None) | (None, Some(_)) => (
            "spec.state.backend",
            "cannot change; put it back, or create another StreamAggregation".to_owned(),
        ),
    };
    Some(SpecError::new(path, message))
}
