//! `spec.podTemplate`: parts of a pod template that users merge into ours. Checked against Kubernetes' own types, and
//! kept from what makes a pod a processor. Must not hold our own template (`pod`).

use k8s_openapi::DeepMerge;
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use serde_json::Value;
use streamagg_crds::v1alpha1::PodTemplate;
use streamagg_crds::validate::SpecError;

use super::pod::GRACE_PERIOD_SECONDS;
use crate::{labels, names};

/// Volumes of ours; the claim template's is one of them.
const VOLUMES: [&str; 7] = [
    "job",
    "assignment",
    "token",
    "tmp",
    names::DATA_VOLUME,
    "checkpoints",
    "secrets",
];
/// Directories that are mounted by us.
const DIRECTORIES: [&str; 7] = [
    names::JOB_DIRECTORY,
    names::ASSIGNMENT_DIRECTORY,
    names::TOKEN_DIRECTORY,
    names::SECRETS_DIRECTORY,
    names::DATA_DIRECTORY,
    names::CHECKPOINT_DIRECTORY,
    "/tmp",
];
const PATH: &str = "spec.podTemplate";

/// The template as Kubernetes' type, or all that is wrong with it.
pub fn parse(template: &PodTemplate) -> Result<PodTemplateSpec, Vec<SpecError>> {
    let given = Value::Object(template.0.clone());
    let parsed: PodTemplateSpec = serde_json::from_value(given.clone()).map_err(|error| {
        let message = format!("is no part of a pod template: {error}");
        vec![SpecError::new(PATH, message)]
    })?;
    let mut problems = Vec::new();
    let known = serde_json::to_value(&parsed).unwrap_or_default();
    unknown(&given, &known, PATH, &mut problems);
    metadata(&given, &mut problems);
    if let Some(spec) = &parsed.spec {
        pod(spec, &mut problems);
    }
    if problems.is_empty() { Ok(parsed) } else { Err(problems) }
}

/// Ours with theirs merged over it: lists by the names of their elements, single values replaced.
pub fn merge(mut ours: PodTemplateSpec, theirs: Option<&PodTemplateSpec>) -> PodTemplateSpec {
    if let Some(theirs) = theirs {
        ours.merge_from(theirs.clone());
    }
    ours
}

/// What the types do not know is lost on the way through them.
fn unknown(given: &Value, known: &Value, path: &str, problems: &mut Vec<SpecError>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (name, member) in given.iter().filter(|(_, member)| !member.is_null()) {
                let at = format!("{path}.{name}");
                match known.get(name) {
                    Some(known) => unknown(member, known, &at, problems),
                    None => problems.push(SpecError::new(at, "unknown field of a pod template; remove it")),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (index, (given, known)) in given.iter().zip(known).enumerate() {
                unknown(given, known, &format!("{path}[{index}]"), problems);
            }
        }
        (_, _) => {}
    }
}

fn metadata(given: &Value, problems: &mut Vec<SpecError>) {
    let metadata = given.get("metadata").and_then(Value::as_object);
    for (name, _) in metadata.into_iter().flatten() {
        if name != "labels" && name != "annotations" {
            let message = "is not taken; only labels and annotations are";
            problems.push(SpecError::new(format!("{PATH}.metadata.{name}"), message));
        }
    }
    for part in ["labels", "annotations"] {
        let all = given.pointer(&format!("/metadata/{part}")).and_then(Value::as_object);
        for (name, _) in all.into_iter().flatten() {
            let ours = [labels::INSTANCE, labels::MANAGED_BY, labels::NAME, labels::COMPONENT];
            if ours.contains(&name.as_str()) || name.starts_with("streamagg.io/") {
                let message = format!("{name} belongs to the operator; remove it");
                problems.push(SpecError::new(format!("{PATH}.metadata.{part}"), message));
            }
        }
    }
}

fn pod(spec: &PodSpec, problems: &mut Vec<SpecError>) {
    let mut refuse = |at: String, message: String| problems.push(SpecError::new(format!("{PATH}.spec{at}"), message));
    if let Some(seconds) = spec
        .termination_grace_period_seconds
        .filter(|seconds| *seconds < GRACE_PERIOD_SECONDS)
    {
        let message = format!("is {seconds}; at least {GRACE_PERIOD_SECONDS} are needed to finish and checkpoint");
        refuse(".terminationGracePeriodSeconds".to_owned(), message);
    }
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        if VOLUMES.contains(&volume.name.as_str()) {
            let message = format!("{} is a volume of the operator; choose another name", volume.name);
            refuse(format!(".volumes[{index}].name"), message);
        }
    }
    let all = spec.containers.iter().map(|container| ("containers", container));
    let all = all.chain(
        spec.init_containers
            .iter()
            .flatten()
            .map(|container| ("initContainers", container)),
    );
    for (list, container) in all {
        let at = format!(".{list}[{}]", container.name);
        if container.name.is_empty() {
            refuse(
                format!(".{list}"),
                format!("a container has no name; ours is {}", names::CONTAINER),
            );
        } else if container.name != names::CONTAINER && container.image.is_none() {
            refuse(
                format!("{at}.image"),
                "is required of a container of your own".to_owned(),
            );
        } else if container.name == names::CONTAINER {
            processor(container, &at, &mut refuse);
        }
    }
}

/// What makes the container a processor stays as it is.
fn processor(container: &Container, at: &str, refuse: &mut impl FnMut(String, String)) {
    let fixed = [
        ("image", container.image.is_some(), "use spec.image"),
        ("command", container.command.is_some(), "remove it"),
        ("args", container.args.is_some(), "remove it"),
        ("ports", container.ports.is_some(), "remove it"),
        ("startupProbe", container.startup_probe.is_some(), "remove it"),
        ("readinessProbe", container.readiness_probe.is_some(), "remove it"),
        ("livenessProbe", container.liveness_probe.is_some(), "remove it"),
    ];
    for (name, given, instead) in fixed {
        if given {
            refuse(format!("{at}.{name}"), format!("is the operator's; {instead}"));
        }
    }
    if container
        .env
        .iter()
        .flatten()
        .any(|variable| variable.name == "POD_NAME")
    {
        refuse(format!("{at}.env"), "POD_NAME is the operator's; remove it".to_owned());
    }
    for mount in container.volume_mounts.iter().flatten() {
        if DIRECTORIES.contains(&mount.mount_path.trim_end_matches('/')) {
            let message = format!("{} is mounted by the operator; choose another path", mount.mount_path);
            refuse(format!("{at}.volumeMounts"), message);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(template: Value) -> Vec<String> {
        let template: PodTemplate = serde_json::from_value(template).unwrap();
        let problems = parse(&template).err().unwrap_or_default();
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_unknown_or_ours_is_refused_by_its_path() {
        for (template, expected) in [
            (
                json!({"spec": {"nodeSelektor": {}}}),
                "spec.podTemplate.spec.nodeSelektor: unknown field",
            ),
            (
                json!({"spec": {"tolerations": [{"kee": "a"}]}}),
                "spec.podTemplate.spec.tolerations[0].kee: unknown",
            ),
            (
                json!({"spec": {"nodeSelector": 1}}),
                "spec.podTemplate: is no part of a pod template",
            ),
            (
                json!({"metadata": {"name": "a"}}),
                "spec.podTemplate.metadata.name: is not taken",
            ),
            (
                json!({"metadata": {"labels": {"streamagg.io/revision": "a"}}}),
                "belongs to the operator",
            ),
            (
                json!({"spec": {"containers": [{"name": "processor", "image": "a"}]}}),
                "use spec.image",
            ),
            (
                json!({"spec": {"containers": [{"name": "processor", "args": []}]}}),
                "containers[processor].args",
            ),
            (
                json!({"spec": {"containers": [{"name": "mine"}]}}),
                "containers[mine].image: is required",
            ),
            (json!({"spec": {"containers": [{}]}}), "a container has no name"),
            (
                json!({"spec": {"volumes": [{"name": "token", "emptyDir": {}}]}}),
                "volumes[0].name: token",
            ),
            (
                json!({"spec": {"terminationGracePeriodSeconds": 5}}),
                "at least 60 are needed",
            ),
            (
                json!({"spec": {"containers": [{"name": "processor", "volumeMounts": [{"name": "a", "mountPath": "/tmp/"}]}]}}),
                "is mounted by the operator",
            ),
        ] {
            let found = problems(template.clone());
            assert!(found.len() == 1 && found[0].contains(expected), "{template}: {found:?}");
        }
    }

    #[test]
    fn what_is_given_is_merged_by_name() {
        let template = json!({
            "metadata": {"labels": {"team": "a"}},
            "spec": {
                "priorityClassName": "high", "imagePullSecrets": [{"name": "pull"}],
                "containers": [
                    {"name": "processor", "env": [{"name": "RUST_LOG", "value": "debug"}], "imagePullPolicy": "Always"},
                    {"name": "sidecar", "image": "proxy:1"},
                ],
                "volumes": [{"name": "extra", "emptyDir": {}}],
            },
        });
        let desired = crate::controller::fixtures::desired(&json!({"podTemplate": template}), None);
        let merged = desired.objects.stateful_set.spec.unwrap().template;
        let pod = merged.spec.unwrap();
        assert_eq!(merged.metadata.unwrap().labels.unwrap()["team"], "a");
        let names: Vec<_> = pod.containers.iter().map(|container| container.name.as_str()).collect();
        assert_eq!(names, ["processor", "sidecar"]);
        let ours = &pod.containers[0];
        let variables: Vec<_> = ours
            .env
            .iter()
            .flatten()
            .map(|variable| variable.name.as_str())
            .collect();
        assert!(
            ["POD_NAME", "RUST_LOG"].iter().all(|name| variables.contains(name)),
            "{variables:?}"
        );
        assert_eq!(ours.image_pull_policy.as_deref(), Some("Always"));
        assert!(ours.readiness_probe.is_some() && pod.volumes.unwrap().len() > 4);
        let plain = crate::controller::fixtures::desired(&json!({}), None);
        let empty = crate::controller::fixtures::desired(&json!({"podTemplate": {}}), None);
        assert_eq!(plain.revision, empty.revision, "an empty template changes nothing");
        assert_ne!(plain.revision, desired.revision);
    }
}
