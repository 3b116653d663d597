//! Going back to a checkpoint: taken, passed, gone back to under load, deleted on the way. Must not know how it is carried out.

use serde_json::json;
use streamagg_crds::manifest::read_yaml;
use streamagg_e2e::cluster::Status;

use super::run::{JOB, READY_MAX, Run};

pub fn to_a_checkpoint_under_load(run: &mut Run) -> Result<(), String> {
    run.start_load(500)?;
    let name = "before-change";
    let mut checkpoint = read_yaml(include_str!("../../config/checkpoint/before-change.yaml"))
        .map_err(|errors| format!("{errors:?}"))?;
    checkpoint["metadata"] = json!({"name": name, "namespace": run.cluster.namespace});
    run.cluster.apply(&checkpoint)?;
    run.cluster
        .kubectl(&["wait", "scp", name, "--for=condition=Ready", "--timeout=120s"])?;
    run.await_progress()?;
    run.went_back()?;
    let back = json!({"checkpoint": name, "nonce": 1});
    run.cluster.patch(JOB, &json!({"spec": {"restoreFrom": back}}))?;
    // Deleted as soon as it is asked for, it is held until every task is back.
    let restored = |status: &Status| status.object["status"]["restored"]["nonce"] == 1;
    run.cluster.await_status(JOB, "the decision", READY_MAX, |status| {
        restored(status) || status.object["status"]["rollout"]["step"] == "Restore"
    })?;
    run.cluster.kubectl(&["delete", "scp", name, "--wait=false"])?;
    let status = run.cluster.await_status(JOB, "restored", READY_MAX, restored)?;
    println!("  {status}");
    run.cluster.await_ready(JOB, 2, READY_MAX)?;
    run.await_replaced()?;
    run.cluster
        .kubectl(&["wait", "scp", name, "--for=delete", "--timeout=120s"])?;
    run.verify()
}
