//! Step `apply`: carries out the actions of a plan in order, one effect each. It decides nothing and does not look
//! at the spec. Stops at the first refusal of the API server; a pod that does not answer stops nothing.

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret};
use kube::Api;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams, Preconditions, TypeMeta,
};
use kube::core::PartialObjectMeta;
use serde_json::{Value, json};
use streamagg_crds::assignment::Assignment;
use streamagg_crds::v1alpha1::StreamAggregation;

use super::memory::Asked;
use super::observe::Seen;
use super::plan::{Action, Plan, PodTarget, Propagation};
use super::{Context, build};
use crate::admin_client::Endpoint;
use crate::error::Error;
use crate::{labels, names};

/// Carries out every action. Changes of the aggregation's own metadata move `seen.resource_version` on.
///
/// # Errors
/// The first refusal of the API server.
pub async fn apply(seen: &mut Seen, plan: &Plan, context: &Context) -> Result<(), Error> {
    super::log(seen, plan);
    for action in &plan.actions {
        if let Action::SetFinalizers {
            finalizers,
            resource_version,
        } = action
        {
            seen.resource_version = set_finalizers(seen, finalizers, resource_version, context).await?;
        } else {
            Writer { seen, context }.carry_out(action).await?;
        }
        context.metrics.actions.with_label_values(&[action.kind()]).inc();
    }
    Ok(())
}

async fn set_finalizers(
    seen: &Seen,
    finalizers: &[String],
    resource_version: &str,
    context: &Context,
) -> Result<String, Error> {
    let api: Api<PartialObjectMeta<StreamAggregation>> = Api::namespaced(context.client.clone(), &seen.namespace);
    let change = json!({"metadata": {"resourceVersion": resource_version, "finalizers": finalizers}});
    let patched = api.patch(&seen.name, &merge_params(), &Patch::Merge(change)).await;
    match patched {
        Ok(object) => Ok(object.metadata.resource_version.unwrap_or_default()),
        // The last finalizer is off and the object is gone.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(resource_version.to_owned()),
        Err(error) => Err(Error::api("patch", format!("streamaggregation {}", seen.name), error)),
    }
}

struct Writer<'a> {
    seen: &'a Seen,
    context: &'a Context,
}

impl Writer<'_> {
    async fn carry_out(&self, action: &Action) -> Result<(), Error> {
        match action {
            Action::ApplyChild(object) => self.apply_child(object).await,
            Action::CreateToken => self.create_token().await,
            Action::ApplyStatefulSet(set) => self.apply_stateful_set(set).await,
            Action::ScaleStatefulSet {
                replicas,
                partition,
                resource_version,
            } => self.scale(*replicas, *partition, resource_version).await,
            Action::WriteAssignment {
                assignment,
                resource_version,
            } => self.write_assignment(assignment, resource_version.clone()).await,
            Action::Push { pod, assignment } => {
                self.push(pod, assignment).await;
                Ok(())
            }
            Action::Drain { pod, id, tasks } => {
                self.drain(pod, id, tasks).await;
                Ok(())
            }
            Action::Checkpoint { pod, id, tasks } => {
                self.checkpoint(pod, id, tasks).await;
                Ok(())
            }
            Action::DeletePod { name, uid } => self.delete::<Pod>("pod", name, uid, DeleteParams::default()).await,
            Action::DeleteJobConfigMap { name, uid } => {
                self.delete::<ConfigMap>("configmap", name, uid, DeleteParams::default())
                    .await
            }
            Action::DeleteStatefulSet { uid, propagation } => {
                let params = match propagation {
                    Propagation::Orphan => DeleteParams::orphan(),
                    Propagation::Foreground => DeleteParams::foreground(),
                };
                let name = names::stateful_set(&self.seen.name);
                self.delete::<StatefulSet>("statefulset", &name, uid, params).await
            }
            Action::GrowClaim {
                name,
                resource_version,
                size,
            } => self.grow_claim(name, resource_version, size).await,
            Action::DeleteClaim { name, uid } => {
                let params = DeleteParams::default();
                self.delete::<PersistentVolumeClaim>("persistentvolumeclaim", name, uid, params)
                    .await
            }
            // `apply` did it.
            Action::SetFinalizers { .. } => Ok(()),
        }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.context.client.clone(), &self.seen.namespace)
    }

    async fn apply_child(&self, object: &Value) -> Result<(), Error> {
        let text = |pointer: &str| {
            object
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let types = TypeMeta {
            api_version: text("/apiVersion"),
            kind: text("/kind"),
        };
        let name = text("/metadata/name");
        let kind = types.kind.to_lowercase();
        let group_version_kind = kube::core::GroupVersionKind::try_from(types).map_err(|_| Error::Incomplete {
            object: name.clone(),
            field: "apiVersion",
        })?;
        let resource = ApiResource::from_gvk(&group_version_kind);
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.context.client.clone(), &self.seen.namespace, &resource);
        let applied = api.patch(&name, &apply_params(), &Patch::Apply(object)).await;
        applied
            .map(drop)
            .map_err(|error| Error::api("patch", format!("{kind} {name}"), error))
    }

    async fn create_token(&self) -> Result<(), Error> {
        let name = names::token_secret(&self.seen.name);
        let token = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
        let secret = Secret {
            metadata: self.metadata(&name, "token"),
            data: Some([(names::TOKEN_KEY.to_owned(), ByteString(token.into_bytes()))].into()),
            immutable: Some(true),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        };
        let created = self.api::<Secret>().create(&post_params(), &secret).await;
        created
            .map(drop)
            .map_err(|error| Error::api("create", format!("secret {name}"), error))
    }

    async fn apply_stateful_set(&self, set: &StatefulSet) -> Result<(), Error> {
        let name = names::stateful_set(&self.seen.name);
        let applied = self
            .api::<StatefulSet>()
            .patch(&name, &apply_params(), &Patch::Apply(set))
            .await;
        applied
            .map(drop)
            .map_err(|error| Error::api("patch", format!("statefulset {name}"), error))
    }

    async fn scale(&self, replicas: u32, partition: i32, resource_version: &str) -> Result<(), Error> {
        let name = names::stateful_set(&self.seen.name);
        let change = json!({
            "metadata": {"resourceVersion": resource_version},
            "spec": {"replicas": replicas, "updateStrategy": {"rollingUpdate": {"partition": partition}}},
        });
        let patched = self
            .api::<StatefulSet>()
            .patch(&name, &merge_params(), &Patch::Merge(change))
            .await;
        patched
            .map(drop)
            .map_err(|error| Error::api("patch", format!("statefulset {name}"), error))
    }

    async fn grow_claim(&self, name: &str, resource_version: &str, size: &str) -> Result<(), Error> {
        let change = json!({
            "metadata": {"resourceVersion": resource_version},
            "spec": {"resources": {"requests": {"storage": size}}},
        });
        let claims = self.api::<PersistentVolumeClaim>();
        let patched = claims.patch(name, &merge_params(), &Patch::Merge(change)).await;
        patched
            .map(drop)
            .map_err(|error| Error::api("patch", format!("persistentvolumeclaim {name}"), error))
    }

    async fn write_assignment(&self, assignment: &Assignment, resource_version: Option<String>) -> Result<(), Error> {
        let name = names::assignment_config_map(&self.seen.name);
        let text = serde_json::to_string(assignment).map_err(|source| Error::Document {
            object: name.clone(),
            source,
        })?;
        let creates = resource_version.is_none();
        let map = ConfigMap {
            metadata: ObjectMeta {
                resource_version,
                ..self.metadata(&name, "assignment")
            },
            data: Some([(names::ASSIGNMENT_KEY.to_owned(), text)].into()),
            ..ConfigMap::default()
        };
        let (verb, written) = if creates {
            ("create", self.api::<ConfigMap>().create(&post_params(), &map).await)
        } else {
            (
                "update",
                self.api::<ConfigMap>().replace(&name, &post_params(), &map).await,
            )
        };
        written
            .map(drop)
            .map_err(|error| Error::api(verb, format!("configmap {name}"), error))?;
        let (name, generation) = (&self.seen.name, assignment.generation);
        tracing::info!(namespace = self.seen.namespace, name, generation, tasks = ?assignment.tasks, "assignment written");
        Ok(())
    }

    fn metadata(&self, name: &str, component: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(self.seen.namespace.clone()),
            labels: Some(labels::common(&self.seen.name, component)),
            owner_references: Some(vec![build::owner_reference(&self.seen.name, &self.seen.uid)]),
            ..ObjectMeta::default()
        }
    }

    fn endpoint(&self, pod: &PodTarget) -> Option<Endpoint> {
        let token = self.seen.token.clone()?;
        Some(Endpoint {
            base: pod.address.clone(),
            token,
        })
    }

    async fn push(&self, pod: &PodTarget, assignment: &Assignment) {
        let Some(endpoint) = self.endpoint(pod) else { return };
        if let Err(error) = self.context.admin.push(&endpoint, assignment).await {
            tracing::warn!(pod = pod.name, generation = assignment.generation, %error, "assignment not pushed, trying again");
        }
    }

    async fn drain(&self, pod: &PodTarget, id: &str, tasks: &[u32]) {
        let Some(endpoint) = self.endpoint(pod) else { return };
        match self.context.admin.drain(&endpoint, id, tasks).await {
            Ok(answer) => {
                let Seen { namespace, name, .. } = self.seen;
                let memory = &self.context.memory;
                memory.remember(namespace, name, Asked::Drain, &pod.uid, answer);
            }
            Err(error) => tracing::warn!(pod = pod.name, id, %error, "drain not asked, trying again"),
        }
    }

    async fn checkpoint(&self, pod: &PodTarget, id: &str, tasks: &[u32]) {
        let Some(endpoint) = self.endpoint(pod) else { return };
        match self.context.admin.checkpoint(&endpoint, id, tasks).await {
            Ok(answer) => {
                let Seen { namespace, name, .. } = self.seen;
                let memory = &self.context.memory;
                memory.remember(namespace, name, Asked::Checkpoint, &pod.uid, answer);
            }
            Err(error) => tracing::warn!(pod = pod.name, id, %error, "checkpoint not asked, trying again"),
        }
    }

    /// Deletes exactly this incarnation; one that is gone or was replaced is fine.
    async fn delete<K>(&self, kind: &str, name: &str, uid: &str, params: DeleteParams) -> Result<(), Error>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let preconditions = Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        };
        let params = params.preconditions(preconditions);
        match self.api::<K>().delete(name, &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(Error::api("delete", format!("{kind} {name}"), error)),
        }
    }
}

fn apply_params() -> PatchParams {
    PatchParams::apply(names::FIELD_MANAGER).force()
}

fn merge_params() -> PatchParams {
    PatchParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

fn post_params() -> PostParams {
    PostParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}
