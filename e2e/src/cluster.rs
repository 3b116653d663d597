//! A cluster through `kubectl` and `helm`, as a user has it. Must not know what a step expects.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::wait::{Seen, await_condition};

/// A namespace of a cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Everything here is in this namespace.
    pub namespace: String,
    kubeconfig: PathBuf,
}

impl Cluster {
    /// The cluster of `KUBECONFIG`, or the one of `make cluster`.
    pub fn new(namespace: &str) -> Self {
        let kubeconfig =
            std::env::var_os("KUBECONFIG").map_or_else(|| cache().join("cluster/kubeconfig"), PathBuf::from);
        Self {
            namespace: namespace.to_owned(),
            kubeconfig,
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// Runs `kubectl -n NAMESPACE …`.
    ///
    /// # Errors
    /// What it said on standard error.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = self.command("kubectl");
        command
            .args(["-n", &self.namespace, "--request-timeout=20s"])
            .args(arguments);
        finish(command, None)
    }

    /// Applies a manifest.
    ///
    /// # Errors
    /// What the API server said.
    pub fn apply(&self, manifest: &Value) -> Result<String, String> {
        let mut command = self.command("kubectl");
        command.args(["-n", &self.namespace, "apply", "-f", "-"]);
        finish(command, Some(&manifest.to_string()))
    }

    /// Merges a patch into an aggregation.
    ///
    /// # Errors
    /// What the API server said.
    pub fn patch(&self, name: &str, patch: &Value) -> Result<String, String> {
        self.kubectl(&["patch", "sagg", name, "--type=merge", "-p", &patch.to_string()])
    }

    /// Runs `helm …`: the one in the cache of `make cluster`, else that of the path.
    ///
    /// # Errors
    /// What it said on standard error.
    pub fn helm(&self, arguments: &[&str]) -> Result<String, String> {
        let own = cache().join("bin/helm");
        let mut command = if own.is_file() {
            self.command(&own.to_string_lossy())
        } else {
            self.command("helm")
        };
        command.args(arguments);
        finish(command, None)
    }

    /// An object as JSON.
    ///
    /// # Errors
    /// What the API server said.
    pub fn get(&self, kind: &str, name: &str) -> Result<Value, String> {
        let text = self.kubectl(&["get", kind, name, "-o", "json"])?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    /// Waits until an aggregation's current generation is looked at and `look` is content with its status.
    ///
    /// # Errors
    /// The status seen last.
    pub fn await_status(
        &self,
        name: &str,
        what: &str,
        deadline: Duration,
        look: impl Fn(&Status) -> bool,
    ) -> Result<Status, String> {
        await_condition(&format!("{what} of {name}"), deadline, || {
            match self.get("sagg", name) {
                Ok(object) => {
                    let status = Status { object };
                    if status.is_observed() && look(&status) {
                        Seen::Done(status)
                    } else {
                        Seen::NotYet(status.to_string())
                    }
                }
                Err(error) => Seen::NotYet(error),
            }
        })
    }

    /// Waits until Ready=True of the current generation with so many ready pods.
    ///
    /// # Errors
    /// The status seen last.
    pub fn await_ready(&self, name: &str, replicas: i64, deadline: Duration) -> Result<Status, String> {
        self.await_status(name, "Ready", deadline, |status| {
            status
                .condition("Ready")
                .is_some_and(|condition| condition.status == "True")
                && status.condition("Reconciling").is_none()
                && status.object["status"]["readyReplicas"].as_i64() == Some(replicas)
        })
    }

    /// Keeps what helps to understand a failure.
    pub fn diagnostics(&self, directory: &Path, operator_namespace: &str) {
        let write = |name: &str, text: Result<String, String>| {
            let text = text.unwrap_or_else(|error| error);
            // Diagnostics are the best that can be had; a failure to keep them must not hide the failure itself.
            let _ = std::fs::write(directory.join(name), text);
        };
        write("aggregations.yaml", self.kubectl(&["get", "sagg", "-o", "yaml"]));
        write(
            "objects.yaml",
            self.kubectl(&["get", "sts,pods,pvc,cm,svc,pdb,events", "-o", "yaml"]),
        );
        write("describe.txt", self.kubectl(&["describe", "sagg,sts,pods,pvc"]));
        let pods = self.kubectl(&["get", "pods", "-o", "name"]).unwrap_or_default();
        for pod in pods.lines() {
            let file = pod.replace('/', "-");
            write(&format!("{file}.log"), self.kubectl(&["logs", pod, "--tail=2000"]));
            write(
                &format!("{file}-previous.log"),
                self.kubectl(&["logs", pod, "--previous", "--tail=2000"]),
            );
        }
        let operator = Self {
            namespace: operator_namespace.to_owned(),
            ..self.clone()
        };
        let selector = ["logs", "deployment/streamagg", "--tail=5000"];
        write("operator.log", operator.kubectl(&selector));
        write("operator-pods.txt", operator.kubectl(&["describe", "pods"]));
    }
}

/// Where the project keeps what it builds outside the checkout.
fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/streamagg");
    std::env::var_os("STREAMAGG_CACHE").map_or_else(home, PathBuf::from)
}

fn finish(mut command: Command, input: Option<&str>) -> Result<String, String> {
    let what = format!("{command:?}");
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| format!("{what}: {error}"))?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin
            .write_all(text.as_bytes())
            .map_err(|error| format!("{what}: {error}"))?;
    }
    let output = child.wait_with_output().map_err(|error| format!("{what}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

/// A StreamAggregation as the API server has it.
#[derive(Clone, Debug)]
pub struct Status {
    /// The object.
    pub object: Value,
}

/// A condition of it.
#[derive(Clone, Debug)]
pub struct Condition {
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// CamelCase.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Status {
    /// Whether the operator has looked at the present generation.
    pub fn is_observed(&self) -> bool {
        self.object["status"]["observedGeneration"].as_i64() == self.object["metadata"]["generation"].as_i64()
    }

    /// A condition by its type, when it is there.
    pub fn condition(&self, kind: &str) -> Option<Condition> {
        let list = self.object["status"]["conditions"].as_array()?;
        let found = list.iter().find(|condition| condition["type"] == kind)?;
        let text = |member: &str| found[member].as_str().unwrap_or_default().to_owned();
        Some(Condition {
            status: text("status"),
            reason: text("reason"),
            message: text("message"),
        })
    }

    /// Whether a condition has this status.
    pub fn is(&self, kind: &str, status: &str) -> bool {
        self.condition(kind).is_some_and(|condition| condition.status == status)
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let status = &self.object["status"];
        write!(
            out,
            "generation {} (observed {}), state {}, replicas {}/{}, rollout {}",
            self.object["metadata"]["generation"],
            status["observedGeneration"],
            status["state"],
            status["readyReplicas"],
            status["replicas"],
            status["rollout"]
        )?;
        for condition in status["conditions"].as_array().into_iter().flatten() {
            write!(
                out,
                "; {}={} {} {}",
                condition["type"].as_str().unwrap_or_default(),
                condition["status"].as_str().unwrap_or_default(),
                condition["reason"].as_str().unwrap_or_default(),
                condition["message"].as_str().unwrap_or_default()
            )?;
        }
        Ok(())
    }
}
