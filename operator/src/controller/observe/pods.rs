//! Pods as facts: what Kubernetes says of them and what they say themselves. Must not hold decisions.

use futures::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use streamagg_crds::admin::Problem;

use super::stateful_set::job_config_map;
use crate::admin_client::{AdminClient, Endpoint};
use crate::controller::Resolver;
use crate::controller::observed::PodFacts;
use crate::{labels, names};

/// Pods asked at a time for one aggregation.
const ASK_CONCURRENCY: usize = 16;
/// How long a pod may be unschedulable before that counts; a node that restarts is back by then.
const UNSCHEDULABLE_GRACE: SignedDuration = SignedDuration::from_secs(30);
/// Container restarts before a crash loop counts as one.
const RESTARTS_MIN: i32 = 3;

/// A run of this length is no crash loop.
const RUN_LASTING: SignedDuration = SignedDuration::from_secs(60);

/// The pods of `name` in order of their ordinals.
pub fn facts(name: &str, pods: &[Pod], now: Timestamp, resolver: &Resolver) -> Vec<PodFacts> {
    let mut facts: Vec<_> = pods.iter().filter_map(|pod| one(name, pod, now, resolver)).collect();
    facts.sort_by_key(|pod| pod.ordinal);
    facts
}

fn one(name: &str, pod: &Pod, now: Timestamp, resolver: &Resolver) -> Option<PodFacts> {
    let status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let ready = conditions
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let containers = status.container_statuses.unwrap_or_default();
    let container = containers.iter().find(|container| container.name == names::CONTAINER);
    let failure = container.and_then(container_failure);
    Some(PodFacts {
        name: pod.name_any(),
        uid: pod.uid()?,
        ordinal: names::ordinal(name, &pod.name_any())?,
        revision: pod.labels().get(labels::REVISION).cloned().unwrap_or_default(),
        deleting: pod.metadata.deletion_timestamp.is_some(),
        ready,
        address: resolver(pod),
        failure: failure.or_else(|| unschedulable(&conditions, now)),
        crash: container.and_then(crash),
        job_config_map: pod.spec.as_ref().and_then(job_config_map),
        admin: None,
        drain: None,
        checkpoint: None,
    })
}

fn container_failure(container: &ContainerStatus) -> Option<Problem> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let detail = waiting.message.clone().unwrap_or_default();
    let image = &container.image;
    let problem = |reason: &str, message: String| {
        Some(Problem {
            reason: reason.to_owned(),
            message,
        })
    };
    match waiting.reason.as_deref()? {
        "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => problem(
            "ImagePull",
            format!("image {image} cannot be pulled: {detail}; check spec.image and the registry's rights"),
        ),
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => problem(
            "PodConfigInvalid",
            format!("the container cannot be started: {detail}; create what is missing or change the spec"),
        ),
        "CrashLoopBackOff" if container.restart_count >= RESTARTS_MIN && !lasted(container) => {
            problem("RestartBudgetExhausted", crash(container)?)
        }
        _ => None,
    }
}

/// A container that ended and waits to be started again, in words.
fn crash(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    if waiting.reason.as_deref() != Some("CrashLoopBackOff") {
        return None;
    }
    let last = container
        .last_state
        .as_ref()
        .and_then(|state| state.terminated.as_ref());
    let (code, reason) = last.map_or((0, ""), |last| {
        (last.exit_code, last.reason.as_deref().unwrap_or_default())
    });
    let hint = match (reason, code) {
        ("OOMKilled", _) => "it ran out of memory: raise spec.resources.limits.memory",
        (_, 137) => "it was killed: look at its node, its limits and its liveness",
        (_, 2) => "it does not take its job file or flags: look at spec and spec.image",
        (_, _) => "look at its log",
    };
    let words = last
        .and_then(|last| last.message.as_deref())
        .map(tail_of)
        .unwrap_or_default();
    Some(format!(
        "the container keeps exiting (restarts: {}, last exit code: {code}); {hint}; it is started again by itself after a \
         pause; last words: {words}",
        container.restart_count
    ))
}

/// The last run was long enough to forgive earlier ones.
fn lasted(container: &ContainerStatus) -> bool {
    let last = container
        .last_state
        .as_ref()
        .and_then(|state| state.terminated.as_ref());
    let run = last.and_then(|last| Some((last.started_at.as_ref()?.0, last.finished_at.as_ref()?.0)));
    run.is_some_and(|(from, to)| to.duration_since(from) >= RUN_LASTING)
}

/// The end of a log, short enough for a condition.
fn tail_of(text: &str) -> String {
    const LENGTH_MAX: usize = 600;
    let text = text.trim();
    let skip = text.chars().count().saturating_sub(LENGTH_MAX);
    text.chars().skip(skip).collect()
}

fn unschedulable(conditions: &[PodCondition], now: Timestamp) -> Option<Problem> {
    let condition = conditions.iter().find(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable")
    })?;
    let since = condition.last_transition_time.as_ref()?.0;
    (now.duration_since(since) >= UNSCHEDULABLE_GRACE).then(|| Problem {
        reason: "Unschedulable".to_owned(),
        message: format!(
            "no node takes the pod: {}; add nodes, or lower spec.resources",
            condition.message.clone().unwrap_or_default()
        ),
    })
}

/// Asks every pod that has an address for its status.
pub async fn ask(pods: Vec<PodFacts>, token: Option<&str>, admin: &AdminClient) -> Vec<PodFacts> {
    let Some(token) = token else { return pods };
    let asked = stream::iter(pods).map(|mut pod| async move {
        let Some(base) = pod.address.clone() else { return pod };
        let endpoint = Endpoint {
            base,
            token: token.to_owned(),
        };
        match admin.status(&endpoint).await {
            // A recycled address may belong to another pod by now.
            Ok(status) if status.pod == pod.name => pod.admin = Some(status),
            Ok(status) => tracing::debug!(pod = pod.name, answered = status.pod, "another pod answered"),
            Err(error) => tracing::debug!(pod = pod.name, %error, "no status"),
        }
        pod
    });
    asked.buffered(ASK_CONCURRENCY).collect().await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A container that waits in a back-off after its last run took so many seconds.
    fn container(restarts: i32, seconds: u32, code: i32, reason: &str) -> ContainerStatus {
        let ended = json!({
            "exitCode": code, "reason": reason, "message": "last words",
            "startedAt": "2026-01-01T00:00:00Z", "finishedAt": format!("2026-01-01T00:{:02}:{:02}Z", seconds / 60, seconds % 60),
        });
        let status = json!({
            "name": "processor", "image": "a", "imageID": "", "ready": false, "restartCount": restarts,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": ended},
        });
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn a_restart_budget_is_three_short_runs_and_its_message_says_how_they_ended() {
        for (restarts, seconds, exhausted) in [(2, 1, false), (3, 1, true), (3, 59, true), (30, 60, false)] {
            let container = container(restarts, seconds, 137, "Error");
            let failure = container_failure(&container).map(|problem| problem.reason);
            let expected = exhausted.then(|| "RestartBudgetExhausted".to_owned());
            assert_eq!(failure, expected, "{restarts} restarts, {seconds} s");
            assert!(crash(&container).is_some(), "degraded in any case");
        }
        for (code, reason, hint) in [
            (137, "OOMKilled", "limits.memory"),
            (137, "Error", "it was killed"),
            (2, "Error", "spec.image"),
        ] {
            let words = crash(&container(3, 1, code, reason)).unwrap();
            assert!(
                words.contains(hint) && words.contains("last words: last words"),
                "{words}"
            );
            assert!(words.contains("started again by itself"), "{words}");
        }
        let mut running = container(9, 1, 137, "Error");
        running.state = serde_json::from_value(json!({"running": {}})).unwrap();
        assert!(
            container_failure(&running).is_none() && crash(&running).is_none(),
            "recovers by itself"
        );
    }
}
