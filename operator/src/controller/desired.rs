//! What the spec asks for, ready to be compared with what is there. Made by `build`, which cannot fail.
//! Must not hold anything observed of pods.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use streamagg_crds::job_file::Restore;
use streamagg_crds::v1alpha1::CheckpointFailurePolicy;

use super::observed::VolumeFacts;

/// The spec's wishes and the objects that carry them out.
#[derive(Clone, Debug)]
pub struct Desired {
    /// `spec.replicas`.
    pub replicas: u32,
    /// `spec.suspend`.
    pub suspend: bool,
    /// Revision of the pod template: all that makes pods be replaced.
    pub revision: String,
    /// The same without the restart nonce.
    pub content: String,
    /// `spec.restartNonce`.
    pub restart_nonce: i64,
    /// Text of the annotation that asks for a restart, or that did last.
    pub restart_request: Option<String>,
    /// The restore in the job file: to be carried out, or carried out.
    pub restore: Option<Restore>,
    /// Image the revision runs.
    pub image: String,
    /// Revision of the pipeline, as the pods report it.
    pub pipeline_revision: String,
    /// Size and class of the pods' volumes, with a backend that has them.
    pub volume: Option<VolumeFacts>,
    /// How often a checkpoint is due, ms, with a store.
    pub checkpoint_interval_ms: Option<i64>,
    /// How long all tasks have to run before a revision counts as stable, ms.
    pub stabilization_ms: i64,
    /// The revision is not final until the token is there, which keys the digest of what the spec refers to.
    pub waits_for_token: bool,
    /// `spec.upgrade.onCheckpointFailure`.
    pub on_checkpoint_failure: CheckpointFailurePolicy,
    /// There is a store that moved tasks can be restored from.
    pub has_store: bool,
    /// The objects.
    pub objects: Objects,
}

/// The objects of one aggregation; the assignment and the token are made elsewhere.
#[derive(Clone, Debug)]
pub struct Objects {
    /// Identity of the pods, without a token.
    pub service_account: ServiceAccount,
    /// Headless service.
    pub service: Service,
    /// Keeps voluntary disruptions to one pod at a time.
    pub disruption_budget: PodDisruptionBudget,
    /// Closes all ports but those declared.
    pub network_policy: NetworkPolicy,
    /// The job file.
    pub job: ConfigMap,
    /// The pods; replicas and partition are placeholders that `plan` fills in.
    pub stateful_set: StatefulSet,
}
