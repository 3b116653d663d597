//! The live StatefulSet and its volume claims as facts. Must not hold judgement.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use streamagg_crds::value::Quantity;

use crate::controller::observed::{ClaimFacts, StatefulSetFacts, VolumeFacts};
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
        uid: set.metadata.uid.clone().unwrap_or_default(),
        deleting: set.metadata.deletion_timestamp.is_some(),
        resource_version: set.metadata.resource_version.clone().unwrap_or_default(),
        observed: status.observed_generation >= set.metadata.generation,
        revision: annotation(labels::REVISION),
        content: annotation(labels::CONTENT),
        references: annotations.get(labels::REFERENCES).cloned(),
        restart_nonce: annotation(labels::RESTART_NONCE).parse().ok(),
        restart_request: annotations.get(labels::RESTART).cloned(),
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

fn volume(spec: &k8s_openapi::api::apps::v1::StatefulSetSpec) -> Option<VolumeFacts> {
    let template = spec.volume_claim_templates.as_ref()?.first()?;
    let claim = template.spec.as_ref()?;
    let size = storage(claim.resources.as_ref()?.requests.as_ref());
    Some(VolumeFacts {
        bytes: bytes(&size),
        size,
        class: claim.storage_class_name.clone(),
    })
}

fn storage(amounts: Option<&BTreeMap<String, Amount>>) -> String {
    let size = amounts.and_then(|amounts| amounts.get("storage"));
    size.map(|size| size.0.clone()).unwrap_or_default()
}

/// The API server may spell a size differently from what was sent, so sizes are compared as numbers.
fn bytes(size: &str) -> u64 {
    size.parse::<Quantity>().map_or(0, |size| size.units())
}

/// A volume claim of the pods of `name`; `None` for any other.
pub fn claim_facts(name: &str, claim: &PersistentVolumeClaim) -> Option<ClaimFacts> {
    let metadata = &claim.metadata;
    let spec = claim.spec.as_ref()?;
    let status = claim.status.clone().unwrap_or_default();
    let requests = spec
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.as_ref());
    Some(ClaimFacts {
        name: metadata.name.clone()?,
        uid: metadata.uid.clone()?,
        resource_version: metadata.resource_version.clone()?,
        ordinal: names::claim_ordinal(name, metadata.name.as_deref()?)?,
        deleting: metadata.deletion_timestamp.is_some(),
        phase: status.phase.unwrap_or_else(|| "Pending".to_owned()),
        requested_bytes: bytes(&storage(requests)),
        capacity_bytes: bytes(&storage(status.capacity.as_ref())),
    })
}
