//! Carries out the actions of a plan in order. A pod that does not answer stops nothing. Must not decide anything.

use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use serde_json::json;
use streamagg_crds::admin::{OperationStatus, PinRequest};
use streamagg_crds::v1alpha1::StreamCheckpoint;

use super::observe::Look;
use super::plan::{Action, Plan};
use crate::admin_client::{self, Endpoint};
use crate::controller::Context;
use crate::controller::memory::Asked;
use crate::controller::plan::PodTarget;
use crate::error::Error;
use crate::names;

/// Carries out every action. A change of the finalizers moves the version on.
pub(super) async fn apply(look: &mut Look, plan: &Plan, context: &Context) -> Result<(), Error> {
    for action in &plan.actions {
        match action {
            Action::SetFinalizers(finalizers) => set_finalizers(look, finalizers, context).await?,
            Action::Checkpoint { pod, id, tasks } => {
                if let Some(endpoint) = endpoint(look, pod) {
                    let answer = context.admin.checkpoint(&endpoint, id, tasks).await;
                    remember(look, pod, Asked::Checkpoint, id, answer, context);
                }
            }
            Action::Pin {
                pod,
                id,
                holder,
                checkpoints,
            } => {
                if let Some(endpoint) = endpoint(look, pod) {
                    let pins = PinRequest {
                        checkpoints: checkpoints.clone(),
                    };
                    let answer = context.admin.pin(&endpoint, holder, &pins).await;
                    remember(look, pod, Asked::Pins, id, answer, context);
                }
            }
            Action::Release { pod, id, holder, tasks } => {
                if let Some(endpoint) = endpoint(look, pod) {
                    let answer = context.admin.release(&endpoint, holder, tasks).await;
                    remember(look, pod, Asked::Pins, id, answer, context);
                }
            }
        }
        context.metrics.actions.with_label_values(&[action.kind()]).inc();
    }
    Ok(())
}

fn endpoint(look: &Look, pod: &PodTarget) -> Option<Endpoint> {
    Some(Endpoint {
        base: pod.address.clone(),
        token: look.token.clone()?,
    })
}

/// Kept under the operation's own id: what was said of pins before a retry does not count after it.
fn remember(
    look: &Look,
    pod: &PodTarget,
    asked: Asked,
    id: &str,
    answer: Result<OperationStatus, admin_client::Error>,
    context: &Context,
) {
    let (namespace, name) = (&look.namespace, &look.facts.name);
    match answer {
        Ok(mut answer) => {
            id.clone_into(&mut answer.id);
            context.checkpoints.remember(namespace, name, asked, &pod.uid, answer);
        }
        Err(error) => {
            tracing::warn!(namespace, checkpoint = name, pod = pod.name, %error, "pod not asked, trying again")
        }
    }
}

async fn set_finalizers(look: &mut Look, finalizers: &[String], context: &Context) -> Result<(), Error> {
    let api: Api<PartialObjectMeta<StreamCheckpoint>> = Api::namespaced(context.client.clone(), &look.namespace);
    let version = &look.facts.resource_version;
    let change = json!({"metadata": {"resourceVersion": version, "finalizers": finalizers}});
    let params = PatchParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    match api.patch(&look.facts.name, &params, &Patch::Merge(change)).await {
        Ok(object) => {
            look.facts.resource_version = object.metadata.resource_version.unwrap_or_default();
            Ok(())
        }
        // The last finalizer is off and the object is gone.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(Error::api(
            "patch",
            format!("streamcheckpoint {}", look.facts.name),
            error,
        )),
    }
}
