//! The Secrets that pods need for their brokers, mounted by reference: only the keys in use, readable by the processor.
//! Must not read them, and nothing of them may go into an object of ours.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{KeyToPath, ProjectedVolumeSource, SecretProjection, Volume, VolumeProjection};
use streamagg_crds::v1alpha1::StreamAggregationSpec;
use streamagg_crds::validate;

use crate::controller::validate::ValidatedAggregation;

/// Name of the volume.
pub const VOLUME: &str = "secrets";

/// Keys in use, by Secret.
pub type SecretKeys = BTreeMap<String, BTreeSet<String>>;

/// The keys that a valid spec uses.
pub fn secret_keys(spec: &StreamAggregationSpec, namespace: &str, name: &str) -> SecretKeys {
    let Some(job) = validate::resolve_valid(spec, namespace, name) else {
        return SecretKeys::new();
    };
    let mut keys = SecretKeys::new();
    let both = [&job.source.security, &job.sink.security];
    for key in both.into_iter().flat_map(|security| security.secret_keys()) {
        keys.entry(key.secret.clone()).or_default().insert(key.key.clone());
    }
    keys
}

/// One volume with a directory for each Secret; none where no Secret is in use.
pub fn volume(aggregation: &ValidatedAggregation) -> Option<Volume> {
    let keys = &aggregation.secret_keys;
    if keys.is_empty() {
        return None;
    }
    let sources = keys.iter().map(|(name, keys)| {
        let items = keys.iter().map(|key| KeyToPath {
            path: format!("{name}/{key}"),
            key: key.clone(),
            mode: None,
        });
        VolumeProjection {
            secret: Some(SecretProjection {
                items: Some(items.collect()),
                name: name.clone(),
                // A key that is missing must not keep the pod from starting: the processor says which field wants it.
                optional: Some(true),
            }),
            ..VolumeProjection::default()
        }
    });
    Some(Volume {
        name: VOLUME.to_owned(),
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(0o440),
            sources: Some(sources.collect()),
        }),
        ..Volume::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::controller::build::references::{Reference, references};
    use crate::controller::fixtures::{aggregation, desired};

    fn secured() -> Value {
        json!({
            "source": {"kafka": {
                "tls": {"caSecretRef": {"name": "ca"}},
                "sasl": {"mechanism": "Plain", "secretRef": {"name": "reader"}},
            }},
            "sink": {"kafka": {
                "tls": {"caSecretRef": {"name": "ca"}, "certSecretRef": {"name": "writer", "certificateKey": "user.crt"}},
                "sasl": {"mechanism": "Plain", "username": "me", "secretRef": {"name": "reader"}},
            }},
        })
    }

    #[test]
    fn only_the_keys_in_use_are_mounted_read_only_and_each_once() {
        let desired = desired(&secured(), None);
        let pod = json!(desired.objects.stateful_set.spec.unwrap().template.spec.unwrap());
        let volumes = pod["volumes"].as_array().unwrap();
        let volume = volumes.iter().find(|volume| volume["name"] == "secrets").unwrap();
        let item = |key: &str, path: &str| json!({"key": key, "path": path});
        let source = |name: &str, items: Value| json!({"secret": {"name": name, "items": items, "optional": true}});
        assert_eq!(
            volume["projected"],
            json!({"defaultMode": 0o440, "sources": [
                source("ca", json!([item("ca.crt", "ca/ca.crt")])),
                source("reader", json!([item("password", "reader/password"), item("username", "reader/username")])),
                source("writer", json!([item("tls.key", "writer/tls.key"), item("user.crt", "writer/user.crt")])),
            ]})
        );
        let container = &pod["containers"][0];
        let mounts = container["volumeMounts"].as_array().unwrap();
        let mount = json!({"name": "secrets", "mountPath": "/etc/streamagg/secrets", "readOnly": true});
        assert!(mounts.contains(&mount), "{mounts:?}");
        let directory = json!({"name": "STREAMAGG_SECRETS_DIR", "value": "/etc/streamagg/secrets"});
        assert!(container["env"].as_array().unwrap().contains(&directory));
    }

    #[test]
    fn secrets_of_brokers_are_looked_at_so_that_a_changed_one_rolls_the_pods() {
        let found = references(&aggregation(&secured()).spec);
        let wanted = ["ca", "reader", "writer"].map(|name| Reference::Secret(name.to_owned()));
        assert_eq!(found, wanted.into_iter().collect());
    }

    #[test]
    fn without_secrets_there_is_neither_volume_nor_mount() {
        let pod = json!(desired(&json!({}), None).objects.stateful_set).to_string();
        assert!(!pod.contains("/etc/streamagg/secrets"), "{pod}");
    }
}
