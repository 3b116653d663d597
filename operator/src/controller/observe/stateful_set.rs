//! The live StatefulSet as facts. Must not hold judgement.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PodSpec;
use streamagg_crds::value::Quantity;

use crate::controller::observed::{StatefulSetFacts, volume_text};
use crate::{labels, names};

/// Reads what decisions rest on; what is missing reads as "never made by us".
pub fn facts(set: &StatefulSet) -> StatefulSetFacts {
    let annotations = set.metadata.annotations.clone().unwrap_or_default();
    let annotation = |key: &str| annotations.get(key).cloned().unwrap_or_default();
    let spec = set.spec.clone().unwrap_or_default();
    let status = set.status.clone().unwrap_or_default();
    let pod = spec.template.spec.clone().unwrap_or_default();
    let container = pod
        .containers
        .iter()
        .find(|container| container.name == names::CONTAINER);
    let rolling = spec
        .update_strategy
        .clone()
        .and_then(|strategy| strategy.rolling_update);
    StatefulSetFacts {
        resource_version: set.metadata.resource_version.clone().unwrap_or_default(),
        observed: status.observed_generation >= set.metadata.generation,
        revision: annotation(labels::REVISION),
        content: annotation(labels::CONTENT),
        restart_nonce: annotation(labels::RESTART_NONCE).parse().ok(),
        image: container
            .and_then(|container| container.image.clone())
            .unwrap_or_default(),
        image_is_default: annotation(labels::IMAGE_SOURCE) == "Default",
        replicas: spec
            .replicas
            .and_then(|replicas| u32::try_from(replicas).ok())
            .unwrap_or(1),
        partition: rolling.and_then(|rolling| rolling.partition).unwrap_or(0),
        job_config_map: job_config_map(&pod),
        settled: status.current_revision.is_some() && status.current_revision == status.update_revision,
        volume: volume(&spec),
    }
}

/// The job ConfigMap a pod mounts.
pub fn job_config_map(pod: &PodSpec) -> Option<String> {
    let volume = pod.volumes.as_ref()?.iter().find(|volume| volume.name == "job")?;
    volume.config_map.as_ref().map(|source| source.name.clone())
}

fn volume(spec: &k8s_openapi::api::apps::v1::StatefulSetSpec) -> String {
    let template = spec
        .volume_claim_templates
        .as_ref()
        .and_then(|templates| templates.first());
    let Some(claim) = template.and_then(|template| template.spec.as_ref()) else {
        return String::new();
    };
    let requests = claim
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.as_ref());
    let size = requests.and_then(|requests| requests.get("storage"));
    let bytes = size
        .and_then(|size| size.0.parse::<Quantity>().ok())
        .map_or(0, |size| size.units());
    volume_text(bytes, claim.storage_class_name.as_deref())
}
