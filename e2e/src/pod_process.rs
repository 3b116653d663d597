//! SIGKILL of the process in a pod. On the local provider the node's processes are this machine's: it is found in
//! `/proc` and killed, which no API can do. Elsewhere the pod is deleted without grace. Must not wait for a successor.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::cluster::Cluster;

/// How a process was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By SIGKILL; the kubelet starts the container again.
    Sigkill,
    /// By deleting its pod with grace period 0, as its processes are not of this machine.
    PodDeleted,
}

/// Kills the process `program` of `pod`.
///
/// # Errors
/// When there is no such pod, or its container does not run just now.
pub fn kill(cluster: &Cluster, pod: &str, program: &str) -> Result<Ending, String> {
    let object = cluster.get("pod", pod)?;
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    match find(program, &uid) {
        Some(process) => {
            let status = Command::new("kill")
                .args(["-KILL", &process])
                .status()
                .map_err(|error| error.to_string())?;
            if status.success() {
                Ok(Ending::Sigkill)
            } else {
                Err(format!("kill -KILL {process}: {status}"))
            }
        }
        // Between two lives of a container there is nothing to kill, here or elsewhere.
        None if !is_running(&object) => Err(format!("{pod} runs no process just now")),
        None => {
            cluster.kubectl(&["delete", "pod", pod, "--grace-period=0", "--force"])?;
            Ok(Ending::PodDeleted)
        }
    }
}

fn is_running(pod: &Value) -> bool {
    pod["status"]["containerStatuses"][0]["state"]["running"].is_object()
}

/// Process id of a program whose control group names the pod.
fn find(program: &str, pod_uid: &str) -> Option<String> {
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let path = entry.path();
        let is_program = std::fs::read(path.join("cmdline")).is_ok_and(|line| {
            let first = line.split(|byte| *byte == 0).next().unwrap_or_default();
            Path::new(&*String::from_utf8_lossy(first))
                .file_name()
                .is_some_and(|name| name == program)
        });
        if is_program && std::fs::read_to_string(path.join("cgroup")).is_ok_and(|groups| names_pod(&groups, pod_uid)) {
            return Some(entry.file_name().to_string_lossy().into_owned());
        }
    }
    None
}

/// Control groups of pods are named by uid, with dashes or (systemd driver) underscores.
fn names_pod(groups: &str, pod_uid: &str) -> bool {
    !pod_uid.is_empty() && (groups.contains(pod_uid) || groups.contains(&pod_uid.replace('-', "_")))
}
