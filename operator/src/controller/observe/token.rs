//! The token of the pods' admin API. No cache has Secrets, so it is read by name: with everything else from the API server,
//! and in between only when a pod may want for it. It is written once and never changes; all that can happen to it is that
//! somebody deletes it, and pods that run do not miss it. Must not hold how it is made (`apply`).

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{Resource, ResourceExt};

use super::Reader;
use crate::error::Error;
use crate::names;

/// Age of a token that is read anew while a pod is not ready: that may be for want of it.
const TOKEN_INTERVAL: Duration = Duration::from_secs(30);

/// The token, or that there is none.
///
/// # Errors
/// When the API server refuses or does not answer.
pub async fn read(reader: &Reader<'_>) -> Result<Option<String>, Error> {
    let (namespace, name) = (reader.namespace, reader.name);
    let memory = &reader.context.memory;
    let caches = reader.context.caches.as_ref();
    let pods = caches.map(|caches| caches.pods.of(namespace, name)).unwrap_or_default();
    let question = question(reader.uid, &pods);
    let age = if pods.iter().all(is_ready) {
        Duration::MAX
    } else {
        TOKEN_INTERVAL
    };
    if reader.caches.is_some()
        && let Some(token) = memory.token(namespace, name, &question, age)
    {
        return Ok(Some(token));
    }
    let secret_name = names::token_secret(name);
    let got = reader.api::<Secret>().get_opt(&secret_name).await;
    let secret = got.map_err(|error| Error::api("get", format!("secret {secret_name}"), error))?;
    reader.note(&format!("secret {secret_name}"), secret.as_ref().map(Secret::meta));
    let mut data = secret.and_then(|secret| secret.data).unwrap_or_default();
    let token = data.remove(names::TOKEN_KEY);
    let token = token.and_then(|token| String::from_utf8(token.0).ok());
    memory.keep_token(namespace, name, &question, token.as_deref());
    Ok(token)
}

/// What a token was read for: a pod that is new has to mount it.
fn question(uid: &str, pods: &[Pod]) -> String {
    pods.iter()
        .filter_map(ResourceExt::uid)
        .fold(uid.to_owned(), |question, pod| format!("{question} {pod}"))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, ready: &str) -> Pod {
        let status = json!({"conditions": [{"type": "Ready", "status": ready}]});
        serde_json::from_value(json!({"metadata": {"uid": uid}, "status": status})).unwrap()
    }

    #[test]
    fn a_token_that_was_read_for_some_pods_says_nothing_of_a_new_one() {
        let (old, new) = (pod("1", "True"), pod("2", "False"));
        let before = question("uid", std::slice::from_ref(&old));
        assert_eq!(before, question("uid", std::slice::from_ref(&old)));
        assert_ne!(before, question("other", std::slice::from_ref(&old)));
        assert_ne!(before, question("uid", &[]));
        assert!(is_ready(&old) && !is_ready(&new) && !is_ready(&Pod::default()));
        assert_ne!(before, question("uid", &[old, new]));
    }
}
