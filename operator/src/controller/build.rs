//! Step `build`: from a validated aggregation to its objects. Pure and infallible.
//! Must not hold anything read from the cluster except what `validate` pinned.

mod disruption_budget;
mod network_policy;
mod pod;
pub(super) mod pod_template;
pub mod references;
pub(super) mod secrets;
mod service;
mod stateful_set;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use sha2::{Digest, Sha256};
use streamagg_crds::v1alpha1::{API_VERSION, Backend, KIND, StateSpec, StreamAggregationSpec};

use streamagg_crds::value::Duration;

use super::desired::{Desired, Objects};
use super::observed::{References, VolumeFacts};
use super::validate::ValidatedAggregation;
use crate::{labels, names};

pub use stateful_set::{PARTITION_HOLD, PARTITION_OPEN};

/// Hex digits of a content hash in a name or label.
const HASH_DIGITS: usize = 10;

/// Builds everything.
pub fn build(aggregation: &ValidatedAggregation) -> Desired {
    let job = job_config_map(aggregation);
    let content = stateful_set::content(aggregation, &job);
    // Only where it is used: what is new here must not restart the pods of others.
    let request = aggregation.restart_request.as_ref();
    let request = request.map_or_else(String::new, |request| format!(" request={request}"));
    let nonce = aggregation.spec.restart_nonce;
    let revision = short_hash(&format!("{content} nonce={nonce}{request}"));
    let identity = stateful_set::Identity {
        revision: &revision,
        content: &content,
    };
    let stateful_set = stateful_set::stateful_set(aggregation, &job, &identity);
    let template = stateful_set
        .spec
        .as_ref()
        .map(|spec| spec.template.clone())
        .unwrap_or_default();
    Desired {
        replicas: aggregation.spec.replicas.unsigned_abs(),
        suspend: aggregation.spec.suspend,
        restart_nonce: aggregation.spec.restart_nonce,
        restart_request: aggregation.restart_request.clone(),
        restore: aggregation.job.restore.clone(),
        image: aggregation.image.clone(),
        pipeline_revision: aggregation.job.revision.clone(),
        volume: volume(&aggregation.spec.state),
        checkpoint_interval_ms: aggregation
            .spec
            .state
            .checkpoints
            .as_ref()
            .map(|checkpoints| milliseconds(checkpoints.interval)),
        stabilization_ms: milliseconds(aggregation.spec.upgrade.stabilization),
        waits_for_token: aggregation.references == References::WithoutToken,
        on_checkpoint_failure: aggregation.spec.upgrade.on_checkpoint_failure,
        has_store: aggregation.spec.state.checkpoints.is_some(),
        objects: Objects {
            service_account: service::service_account(aggregation),
            service: service::service(aggregation),
            disruption_budget: disruption_budget::disruption_budget(aggregation),
            network_policy: network_policy::network_policy(aggregation, &template),
            job,
            stateful_set,
        },
        revision,
        content,
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.ms()).unwrap_or(i64::MAX)
}

/// Size and class of the pods' volumes.
pub(super) fn volume(state: &StateSpec) -> Option<VolumeFacts> {
    match state.backend {
        Backend::RocksDB => state.volume.as_ref().map(|volume| VolumeFacts {
            size: volume.size.as_str().to_owned(),
            bytes: volume.size.units(),
            class: volume.storage_class_name.clone(),
        }),
        Backend::Memory => None,
    }
}

/// The part of a spec that pods read. What only the operator acts on is set back to its default, so that changing
/// it neither makes a new job file nor restarts a pod.
pub fn pods_part(spec: &StreamAggregationSpec) -> StreamAggregationSpec {
    StreamAggregationSpec {
        replicas: 1,
        suspend: false,
        restart_nonce: 0,
        restore_from: None,
        image: None,
        upgrade: Default::default(),
        autoscaling: None,
        deletion_policy: Default::default(),
        pod_template: None,
        state: StateSpec {
            volume: None,
            ..spec.state.clone()
        },
        ..spec.clone()
    }
}

/// The desired StatefulSet with the replicas and the partition of this moment.
pub fn stateful_set_with(desired: &Desired, replicas: u32, partition: i32) -> StatefulSet {
    let mut stateful_set = desired.objects.stateful_set.clone();
    if let Some(spec) = stateful_set.spec.as_mut() {
        spec.replicas = i32::try_from(replicas).ok();
        let strategy = spec
            .update_strategy
            .as_mut()
            .and_then(|strategy| strategy.rolling_update.as_mut());
        if let Some(rolling_update) = strategy {
            rolling_update.partition = Some(partition);
        }
    }
    stateful_set
}

fn job_config_map(aggregation: &ValidatedAggregation) -> ConfigMap {
    let text = aggregation.job_text.clone();
    let name = names::job_config_map(&aggregation.name, &short_hash(&text));
    ConfigMap {
        metadata: metadata(aggregation, name, "job"),
        data: Some([(names::JOB_KEY.to_owned(), text)].into()),
        immutable: Some(true),
        ..ConfigMap::default()
    }
}

/// Metadata every child carries.
pub(crate) fn metadata(aggregation: &ValidatedAggregation, name: String, component: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(aggregation.namespace.clone()),
        labels: Some(labels::common(&aggregation.name, component)),
        owner_references: Some(vec![owner_reference(&aggregation.name, &aggregation.uid)]),
        ..ObjectMeta::default()
    }
}

/// Makes a child go when its aggregation goes.
pub fn owner_reference(name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: API_VERSION.to_owned(),
        kind: KIND.to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// First hex digits of the text's SHA-256.
pub fn short_hash(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
        .chars()
        .take(HASH_DIGITS)
        .collect()
}

#[cfg(test)]
mod tests;
