//! Plays the node: the kubelet (pods become Ready) around the processors. Everything else in these tests is real.
//! Must not know what the operator decides.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use streamagg_crds::assignment::Assignment;
use streamagg_crds::job_file::JobFile;
use streamagg_operator::controller::Resolver;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::pods::Processors;

/// Serves the processors and plays the kubelet of `namespace`; ends when dropped.
pub struct Node {
    /// What the processors do.
    pub processors: Processors,
    /// Finds them.
    pub resolver: Resolver,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Node {
    /// Starts both.
    pub async fn start(client: Client, namespace: &str) -> Self {
        let processors = Processors::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let router = processors.router();
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let kubelet = tokio::spawn(kubelet(client, namespace.to_owned(), processors.clone()));
        let resolver: Resolver = Arc::new(move |pod: &Pod| Some(format!("{base}/{}", pod.name_any())));
        Self {
            processors,
            resolver,
            tasks: vec![server, kubelet],
        }
    }
}

/// Pods become Ready, with a processor that knows what is mounted; those that are gone take theirs with them.
async fn kubelet(client: Client, namespace: String, processors: Processors) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let maps: Api<ConfigMap> = Api::namespaced(client, &namespace);
    loop {
        let Ok(list) = pods.list(&ListParams::default()).await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let living: Vec<_> = list
            .iter()
            .filter_map(|pod| Some((pod.name_any(), pod.uid()?)))
            .collect();
        processors.keep(&living);
        for pod in list.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
            let known = processors.lives(&pod.name_any());
            // An image of this name does not exist, as on a real node.
            let image = pod
                .spec
                .as_ref()
                .and_then(|spec| spec.containers.first()?.image.clone())
                .unwrap_or_default();
            if !known && image.contains("missing") {
                let waiting = json!({"reason": "ImagePullBackOff", "message": "not found"});
                set_status(&pods, pod, false, json!({"waiting": waiting})).await;
            } else if known && !is_ready(pod) {
                // The last try met a busy server.
                set_status(&pods, pod, true, json!({"running": {}})).await;
            } else if !known {
                let assignment = mounted(&maps, pod).await.unwrap_or_default();
                // What cannot be mounted keeps the container from starting.
                let Some(file) = job_file(&maps, pod).await else {
                    continue;
                };
                processors.start(&pod.name_any(), pod.uid().unwrap(), file, &assignment);
                set_status(&pods, pod, true, json!({"running": {}})).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let mut all = conditions.into_iter().flatten();
    all.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

async fn mounted(maps: &Api<ConfigMap>, pod: &Pod) -> Option<Assignment> {
    let (name, _) = pod
        .name_any()
        .rsplit_once('-')
        .map(|(name, ordinal)| (name.to_owned(), ordinal.to_owned()))?;
    let map = maps.get_opt(&format!("{name}-assignment")).await.ok()??;
    serde_json::from_str(map.data?.get("assignment.json")?).ok()
}

async fn job_file(maps: &Api<ConfigMap>, pod: &Pod) -> Option<JobFile> {
    let volumes = pod.spec.as_ref()?.volumes.as_ref()?;
    let volume = volumes.iter().find(|volume| volume.name == "job")?;
    let map = maps.get_opt(&volume.config_map.as_ref()?.name).await.ok()??;
    JobFile::parse(map.data?.get("job.json")?).ok()
}

async fn set_status(pods: &Api<Pod>, pod: &Pod, ready: bool, state: serde_json::Value) {
    let status = json!({"status": {
        "phase": if ready { "Running" } else { "Pending" },
        "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
        "containerStatuses": [{
            "name": "processor", "image": "image", "imageID": "", "ready": ready, "restartCount": 0, "state": state,
        }],
    }});
    // The pod may be gone by now.
    let _ = pods
        .patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(status))
        .await;
}
