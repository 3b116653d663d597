//! Writes the status, conditional on the version that was read, and publishes events. Must not hold what they say.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use streamagg_crds::v1alpha1::{API_VERSION, CHECKPOINT_KIND, CheckpointPhase, StreamCheckpoint};

use super::observe::Look;
use super::plan::Plan;
use crate::controller::{Context, status};
use crate::error::Error;
use crate::names::FIELD_MANAGER;

/// Writes what is new.
pub(super) async fn write(look: &Look, plan: &Plan, context: &Context) -> Result<(), Error> {
    let (facts, namespace) = (&look.facts, &look.namespace);
    if plan.status != facts.status {
        let api: Api<StreamCheckpoint> = Api::namespaced(context.client.clone(), namespace);
        let document = json!({
            "apiVersion": API_VERSION,
            "kind": CHECKPOINT_KIND,
            "metadata": {"name": facts.name, "resourceVersion": facts.resource_version},
            "status": plan.status,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        match api.patch_status(&facts.name, &params, &Patch::Apply(&document)).await {
            Ok(_) => count(look, plan, context),
            // It went with its last finalizer.
            Err(kube::Error::Api(answer)) if answer.code == 404 => {}
            Err(error) => {
                return Err(Error::api(
                    "patch",
                    format!("streamcheckpoint/status {}", facts.name),
                    error,
                ));
            }
        }
    }
    let regarding = ObjectReference {
        api_version: Some(API_VERSION.to_owned()),
        kind: Some(CHECKPOINT_KIND.to_owned()),
        name: Some(facts.name.clone()),
        namespace: Some(namespace.clone()),
        uid: Some(facts.uid.clone()),
        ..ObjectReference::default()
    };
    status::publish(&regarding, &plan.notes, context).await;
    Ok(())
}

fn count(look: &Look, plan: &Plan, context: &Context) {
    let outcome = match plan.status.phase {
        Some(CheckpointPhase::Complete) => "Complete",
        Some(CheckpointPhase::Failed) => "Failed",
        _ => return,
    };
    if plan.status.phase != look.facts.status.phase {
        context.metrics.checkpoints.with_label_values(&[outcome]).inc();
    }
}
