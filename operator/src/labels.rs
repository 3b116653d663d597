//! Labels and annotations the operator sets and selects by. Changing one orphans live objects.
//! Must not hold: values that depend on the spec.

use std::collections::BTreeMap;

/// Name of the aggregation an object belongs to.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// Always [`MANAGER`].
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Always `streamagg`.
pub const NAME: &str = "app.kubernetes.io/name";
/// What the object is for: `processor`, `job`, `assignment`.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// Value of [`MANAGED_BY`].
pub const MANAGER: &str = "streamagg-operator";
/// Prefix of every annotation that is ours.
pub const PREFIX: &str = "streamagg.io/";
/// Annotation on an aggregation: a new id asks for a checkpoint of all tasks while they run on.
pub const CHECKPOINT: &str = "streamagg.io/checkpoint";
/// Annotation on an aggregation: a new text asks for a restart, as a new `spec.restartNonce` does. The set remembers it.
pub const RESTART: &str = "streamagg.io/restart";
/// Annotation on an aggregation: `"true"` lets its pods run on and holds every change back.
pub const PAUSED: &str = "streamagg.io/paused";
/// Finalizer that keeps a deleted aggregation until its volumes are gone; only with `deletionPolicy.state: Delete`.
pub const FINALIZER: &str = "streamagg.io/state";
/// Finalizer that keeps a deleted StreamCheckpoint until what it keeps in the store is released.
pub const PINS_FINALIZER: &str = "streamagg.io/pins";
/// Revision of the pod template a pod or StatefulSet carries.
pub const REVISION: &str = "streamagg.io/revision";
/// Revision without the restart nonce: tells a restart from an upgrade.
pub const CONTENT: &str = "streamagg.io/content";
/// `spec.restartNonce` the template was rendered with.
pub const RESTART_NONCE: &str = "streamagg.io/restart-nonce";
/// Keyed digest of the Secrets and ConfigMaps that the template refers to.
pub const REFERENCES: &str = "streamagg.io/references";
/// `Default` when the image came from the operator, `Spec` when from the manifest.
pub const IMAGE_SOURCE: &str = "streamagg.io/image-source";

/// Labels of every object of the aggregation `name`.
pub fn common(name: &str, component: &str) -> BTreeMap<String, String> {
    let mut labels = selector(name);
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels.insert(COMPONENT.to_owned(), component.to_owned());
    labels
}

/// Labels the StatefulSet, Service and PodDisruptionBudget select pods by; immutable in a StatefulSet.
pub fn selector(name: &str) -> BTreeMap<String, String> {
    [(NAME, "streamagg"), (INSTANCE, name)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// Selector string for the children of `name`.
pub fn instance_query(name: &str) -> String {
    format!("{MANAGED_BY}={MANAGER},{INSTANCE}={name}")
}

/// Selector string for the children of every aggregation.
pub fn managed_query() -> String {
    format!("{MANAGED_BY}={MANAGER}")
}

/// Selector string for what the StatefulSets make for the pods of every aggregation (volume claims).
pub fn processor_query() -> String {
    format!("{NAME}=streamagg,{INSTANCE}")
}

/// Pod selector as `status.selector` shows it to the scale subresource.
pub fn selector_string(name: &str) -> String {
    selector(name)
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(",")
}
