//! The processor pod: one container, non-root, read-only, with everything it needs mounted.
//! Must not hold reading of live objects.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMap, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar,
    EnvVarSource, HTTPGetAction, ObjectFieldSelector, PersistentVolumeClaimVolumeSource, PodAffinityTerm,
    PodAntiAffinity, PodSecurityContext, PodSpec, Probe, ResourceRequirements, SeccompProfile, SecretKeySelector,
    SecretVolumeSource, SecurityContext, TopologySpreadConstraint, Volume, VolumeMount, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use streamagg_crds::admin::ADMIN_PORT;
use streamagg_crds::v1alpha1::{Backend, CheckpointStore};

use super::secrets;
use crate::controller::validate::ValidatedAggregation;
use crate::{labels, names};

/// User and group of the image.
const USER_ID: i64 = 65_532;
/// At least the time to finish an epoch, commit and checkpoint.
pub(super) const GRACE_PERIOD_SECONDS: i64 = 60;

/// The pod of every ordinal.
pub fn pod_spec(aggregation: &ValidatedAggregation, job: &ConfigMap) -> PodSpec {
    PodSpec {
        service_account_name: Some(names::service_account(&aggregation.name)),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE_PERIOD_SECONDS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER_ID),
            run_as_group: Some(USER_ID),
            fs_group: Some(USER_ID),
            // A large state directory is not walked at every start when its root already fits.
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..Default::default()
            }),
            ..PodSecurityContext::default()
        }),
        affinity: Some(spread_over_nodes(&aggregation.name)),
        topology_spread_constraints: Some(vec![spread_over_zones(&aggregation.name)]),
        containers: vec![container(aggregation)],
        volumes: Some(volumes(aggregation, job)),
        ..PodSpec::default()
    }
}

fn container(aggregation: &ValidatedAggregation) -> Container {
    Container {
        name: names::CONTAINER.to_owned(),
        image: Some(aggregation.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(vec!["/usr/local/bin/streamagg-processor".to_owned()]),
        args: Some(arguments()),
        env: Some(environment(aggregation)),
        ports: Some(vec![ContainerPort {
            name: Some("admin".to_owned()),
            container_port: i32::from(ADMIN_PORT),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        resources: resources(aggregation),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                add: None,
            }),
            ..SecurityContext::default()
        }),
        // Startup succeeds once the admin server is up: a long restore is progress, not failure.
        startup_probe: Some(probe("/startupz", 1, 120)),
        readiness_probe: Some(probe("/readyz", 2, 2)),
        liveness_probe: Some(probe("/livez", 10, 6)),
        volume_mounts: Some(mounts(aggregation)),
        // The last lines of a failed start become the condition's message.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

fn arguments() -> Vec<String> {
    vec![
        "serve".to_owned(),
        format!("--job={}/{}", names::JOB_DIRECTORY, names::JOB_KEY),
        format!("--assignment={}/{}", names::ASSIGNMENT_DIRECTORY, names::ASSIGNMENT_KEY),
        format!("--token-file={}/{}", names::TOKEN_DIRECTORY, names::TOKEN_KEY),
        format!("--data-dir={}", names::DATA_DIRECTORY),
        format!("--listen=0.0.0.0:{ADMIN_PORT}"),
    ]
}

fn environment(aggregation: &ValidatedAggregation) -> Vec<EnvVar> {
    let pod_name = ObjectFieldSelector {
        api_version: Some("v1".to_owned()),
        field_path: "metadata.name".to_owned(),
    };
    let mut environment = vec![
        EnvVar {
            name: "POD_NAME".to_owned(),
            value: None,
            value_from: Some(EnvVarSource {
                field_ref: Some(pod_name),
                ..EnvVarSource::default()
            }),
        },
        // Not a flag: an image that does not know it goes on with lines for people.
        EnvVar {
            name: "STREAMAGG_LOG_FORMAT".to_owned(),
            value: Some("json".to_owned()),
            value_from: None,
        },
    ];
    // Not a flag, for the same reason.
    environment.push(EnvVar {
        name: "STREAMAGG_GRACE_SECONDS".to_owned(),
        value: Some(grace_period_seconds(aggregation).to_string()),
        value_from: None,
    });
    environment.extend(store(aggregation).into_iter().flat_map(credentials));
    if !aggregation.secret_keys.is_empty() {
        // Not a flag, for the same reason.
        environment.push(EnvVar {
            name: "STREAMAGG_SECRETS_DIR".to_owned(),
            value: Some(names::SECRETS_DIRECTORY.to_owned()),
            value_from: None,
        });
    }
    environment
}

/// Time that a pod has to end, also where the user's template says it.
fn grace_period_seconds(aggregation: &ValidatedAggregation) -> i64 {
    let theirs = aggregation
        .pod_template
        .as_ref()
        .and_then(|theirs| theirs.spec.as_ref());
    theirs
        .and_then(|spec| spec.termination_grace_period_seconds)
        .unwrap_or(GRACE_PERIOD_SECONDS)
}

/// Credentials of the checkpoint store, each a variable from a key of the store's Secret.
fn credentials(store: &CheckpointStore) -> Vec<EnvVar> {
    const S3: [(&str, &str); 2] = [
        ("AWS_ACCESS_KEY_ID", "accessKeyId"),
        ("AWS_SECRET_ACCESS_KEY", "secretAccessKey"),
    ];
    const GCS: [(&str, &str); 1] = [("GOOGLE_SERVICE_ACCOUNT_KEY", "serviceAccountKey")];
    const AZURE: [(&str, &str); 1] = [("AZURE_STORAGE_ACCOUNT_KEY", "accountKey")];
    let stores = [
        (store.s3.as_ref().and_then(|s3| s3.secret_ref.as_ref()), &S3[..]),
        (store.gcs.as_ref().and_then(|gcs| gcs.secret_ref.as_ref()), &GCS[..]),
        (
            store.azure.as_ref().and_then(|azure| azure.secret_ref.as_ref()),
            &AZURE[..],
        ),
    ];
    let variables = stores.into_iter().filter_map(|(secret, keys)| Some((secret?, keys)));
    variables
        .flat_map(|(secret, keys)| {
            keys.iter()
                .map(move |(variable, key)| from_secret(variable, &secret.name, key))
        })
        .collect()
}

fn from_secret(variable: &str, secret: &str, key: &str) -> EnvVar {
    let selector = SecretKeySelector {
        name: secret.to_owned(),
        key: key.to_owned(),
        optional: None,
    };
    EnvVar {
        name: variable.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(selector),
            ..EnvVarSource::default()
        }),
    }
}

fn resources(aggregation: &ValidatedAggregation) -> Option<ResourceRequirements> {
    let resources = &aggregation.spec.resources;
    let quantities = |from: &BTreeMap<String, streamagg_crds::value::Quantity>| {
        let all: BTreeMap<_, _> = from
            .iter()
            .map(|(name, quantity)| (name.clone(), Quantity(quantity.as_str().to_owned())))
            .collect();
        (!all.is_empty()).then_some(all)
    };
    let (limits, requests) = (quantities(&resources.limits), quantities(&resources.requests));
    (limits.is_some() || requests.is_some()).then_some(ResourceRequirements {
        limits,
        requests,
        claims: None,
    })
}

fn probe(path: &str, period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("admin".to_owned()),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        failure_threshold: Some(failure_threshold),
        timeout_seconds: Some(3),
        ..Probe::default()
    }
}

fn volumes(aggregation: &ValidatedAggregation, job: &ConfigMap) -> Vec<Volume> {
    let name = &aggregation.name;
    let config_map = |volume: &str, source: String, optional: bool| Volume {
        name: volume.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: source,
            optional: optional.then_some(true),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    };
    let empty = |volume: &str| Volume {
        name: volume.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    };
    let mut volumes = vec![
        config_map("job", job.metadata.name.clone().unwrap_or_default(), false),
        config_map("assignment", names::assignment_config_map(name), true),
        Volume {
            name: "token".to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(names::token_secret(name)),
                default_mode: Some(0o440),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        },
        empty("tmp"),
    ];
    volumes.extend(secrets::volume(aggregation));
    match aggregation.spec.state.backend {
        // The claim template of the same name takes this place.
        Backend::RocksDB => {}
        Backend::Memory => volumes.push(empty(names::DATA_VOLUME)),
    }
    if let Some(claim_name) = checkpoint_claim(aggregation) {
        volumes.push(Volume {
            name: "checkpoints".to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name,
                read_only: None,
            }),
            ..Volume::default()
        });
    }
    volumes
}

fn mounts(aggregation: &ValidatedAggregation) -> Vec<VolumeMount> {
    let mount = |volume: &str, path: &str, read_only: bool| VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    let mut mounts = vec![
        mount("job", names::JOB_DIRECTORY, true),
        mount("assignment", names::ASSIGNMENT_DIRECTORY, true),
        mount("token", names::TOKEN_DIRECTORY, true),
        mount("tmp", "/tmp", false),
        mount(names::DATA_VOLUME, names::DATA_DIRECTORY, false),
    ];
    if !aggregation.secret_keys.is_empty() {
        mounts.push(mount(secrets::VOLUME, names::SECRETS_DIRECTORY, true));
    }
    if checkpoint_claim(aggregation).is_some() {
        mounts.push(mount("checkpoints", names::CHECKPOINT_DIRECTORY, false));
    }
    mounts
}

fn store(aggregation: &ValidatedAggregation) -> Option<&CheckpointStore> {
    aggregation
        .spec
        .state
        .checkpoints
        .as_ref()
        .map(|checkpoints| &checkpoints.store)
}

fn checkpoint_claim(aggregation: &ValidatedAggregation) -> Option<String> {
    store(aggregation)?.volume.as_ref()?.claim_name.clone()
}

/// Where there are zones; a cluster without them schedules as before.
fn spread_over_zones(name: &str) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "topology.kubernetes.io/zone".to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(LabelSelector {
            match_labels: Some(labels::selector(name)),
            ..LabelSelector::default()
        }),
        ..TopologySpreadConstraint::default()
    }
}

fn spread_over_nodes(name: &str) -> Affinity {
    let term = PodAffinityTerm {
        label_selector: Some(LabelSelector {
            match_labels: Some(labels::selector(name)),
            ..LabelSelector::default()
        }),
        topology_key: "kubernetes.io/hostname".to_owned(),
        ..PodAffinityTerm::default()
    };
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![WeightedPodAffinityTerm {
                weight: 100,
                pod_affinity_term: term,
            }]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}
