//! The StatefulSet: identity, volumes that outlive pods, update strategy. Must not hold the pod itself (`pod`) or
//! reading of live objects.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec,
    StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolumeClaim, PersistentVolumeClaimSpec, PodTemplateSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde_json::json;
use streamagg_crds::v1alpha1::Backend;

use super::{metadata, pod, pod_template, short_hash};
use crate::controller::observed::References;
use crate::controller::validate::ValidatedAggregation;
use crate::{labels, names};

/// Partition that holds every pod at the revision it has: above the highest ordinal the API allows.
pub const PARTITION_HOLD: i32 = 10_000;
/// Partition that lets every pod come back with the newest template.
pub const PARTITION_OPEN: i32 = 0;

/// What tells one template from another.
pub struct Identity<'a> {
    /// All that makes pods be replaced.
    pub revision: &'a str,
    /// The same without the restart nonce.
    pub content: &'a str,
}

/// Hash of the spec's part of the template. It is over the inputs, not over the rendered template, so that an
/// operator that renders differently restarts no pod.
pub fn content(aggregation: &ValidatedAggregation, job: &ConfigMap) -> String {
    let spec = &aggregation.spec;
    let mut inputs = json!({
        "job": job.metadata.name,
        "image": aggregation.image,
        "resources": spec.resources,
        "store": spec.state.checkpoints.as_ref().map(|checkpoints| &checkpoints.store),
    });
    // Only where they are used: what is new here must not restart the pods of others.
    if let Some(template) = spec.pod_template.as_ref().filter(|template| !template.0.is_empty()) {
        inputs["podTemplate"] = json!(template);
    }
    if let References::Digest(digest) = &aggregation.references {
        inputs["references"] = json!(digest);
    }
    short_hash(&inputs.to_string())
}

/// Replicas and partition are those of a fresh, settled set; `plan` sets what the moment asks for.
pub fn stateful_set(aggregation: &ValidatedAggregation, job: &ConfigMap, identity: &Identity<'_>) -> StatefulSet {
    let name = &aggregation.name;
    let mut set_metadata = metadata(aggregation, names::stateful_set(name), "processor");
    set_metadata.annotations = Some(annotations(aggregation, identity));
    let mut pod_labels = labels::common(name, "processor");
    pod_labels.insert(labels::REVISION.to_owned(), identity.revision.to_owned());
    let ours = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(pod_labels),
            ..ObjectMeta::default()
        }),
        spec: Some(pod::pod_spec(aggregation, job)),
    };
    let spec = StatefulSetSpec {
        service_name: Some(names::service(name)),
        replicas: Some(aggregation.spec.replicas),
        pod_management_policy: Some("Parallel".to_owned()),
        revision_history_limit: Some(5),
        selector: LabelSelector {
            match_labels: Some(labels::selector(name)),
            ..LabelSelector::default()
        },
        update_strategy: Some(StatefulSetUpdateStrategy {
            type_: Some("RollingUpdate".to_owned()),
            rolling_update: Some(RollingUpdateStatefulSetStrategy {
                partition: Some(PARTITION_HOLD),
                ..RollingUpdateStatefulSetStrategy::default()
            }),
        }),
        persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
            when_deleted: Some("Retain".to_owned()),
            when_scaled: Some("Retain".to_owned()),
        }),
        volume_claim_templates: claim_templates(aggregation),
        template: pod_template::merge(ours, aggregation.pod_template.as_ref()),
        ..StatefulSetSpec::default()
    };
    StatefulSet {
        metadata: set_metadata,
        spec: Some(spec),
        status: None,
    }
}

fn annotations(aggregation: &ValidatedAggregation, identity: &Identity<'_>) -> BTreeMap<String, String> {
    let source = if aggregation.spec.image.is_some() {
        "Spec"
    } else {
        "Default"
    };
    let mut annotations: BTreeMap<String, String> = [
        (labels::REVISION, identity.revision.to_owned()),
        (labels::CONTENT, identity.content.to_owned()),
        (labels::RESTART_NONCE, aggregation.spec.restart_nonce.to_string()),
        (labels::IMAGE_SOURCE, source.to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    if let References::Digest(digest) = &aggregation.references {
        annotations.insert(labels::REFERENCES.to_owned(), digest.clone());
    }
    if let Some(request) = &aggregation.restart_request {
        annotations.insert(labels::RESTART.to_owned(), request.clone());
    }
    annotations
}

fn claim_templates(aggregation: &ValidatedAggregation) -> Option<Vec<PersistentVolumeClaim>> {
    let volume = match aggregation.spec.state.backend {
        Backend::RocksDB => aggregation.spec.state.volume.as_ref()?,
        Backend::Memory => return None,
    };
    let requests = [("storage".to_owned(), Quantity(volume.size.as_str().to_owned()))].into();
    Some(vec![PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(names::DATA_VOLUME.to_owned()),
            labels: Some(labels::selector(&aggregation.name)),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: volume.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(requests),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }])
}
