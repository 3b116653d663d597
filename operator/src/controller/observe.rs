//! Step `observe`: reads the object, its children and its pods, fresh from the API server and the pods themselves.
//! Must not hold judgement about what it sees.

mod pods;
mod stateful_set;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use streamagg_crds::v1alpha1::{StreamAggregation, StreamAggregationStatus};
use streamagg_crds::validate::SpecError;

use super::Context;
use super::observed::{AssignmentFacts, NamedUid, Observed};
use crate::error::Error;
use crate::{labels, names};

/// What one look gave.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`; every status write is conditional on it.
    pub resource_version: String,
    /// The typed object, or why it does not parse (an older or foreign schema let it in).
    pub aggregation: Result<Box<StreamAggregation>, SpecError>,
    /// The facts for `plan`.
    pub observed: Observed,
    /// Token of the pods' admin API.
    pub token: Option<String>,
}

/// Looks at everything; `None` when the object is gone.
///
/// # Errors
/// When the API server refuses or does not answer. Pods that do not answer are facts, not errors.
pub async fn observe(namespace: &str, name: &str, context: &Context) -> Result<Option<Seen>, Error> {
    let resource = ApiResource::erase::<StreamAggregation>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), namespace, &resource);
    let got = api.get_opt(name).await;
    let Some(object) = got.map_err(|error| Error::api("get", format!("streamaggregation {name}"), error))? else {
        return Ok(None);
    };
    let uid = required(object.metadata.uid.clone(), name, "metadata.uid")?;
    let resource_version = required(
        object.metadata.resource_version.clone(),
        name,
        "metadata.resourceVersion",
    )?;
    let status = object
        .data
        .get("status")
        .cloned()
        .and_then(|status| serde_json::from_value(status).ok());
    let reader = Reader {
        namespace,
        name,
        context,
    };
    let token = reader.token().await?;
    let now = Timestamp::now();
    let observed = Observed {
        now,
        generation: object.metadata.generation.unwrap_or(0),
        deleting: object.metadata.deletion_timestamp.is_some(),
        status: status.unwrap_or_else(StreamAggregationStatus::default),
        stateful_set: reader
            .get::<StatefulSet>(&names::stateful_set(name), "statefulset")
            .await?
            .map(|set| stateful_set::facts(&set)),
        assignment: reader.assignment().await?,
        token_exists: token.is_some(),
        children: reader.children().await?,
        job_config_maps: reader.job_config_maps().await?,
        pods: reader.pods(token.as_deref(), now).await?,
    };
    Ok(Some(Seen {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid,
        resource_version,
        aggregation: typed(&object),
        observed,
        token,
    }))
}

fn typed(object: &DynamicObject) -> Result<Box<StreamAggregation>, SpecError> {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(map) = value.as_object_mut() {
        map.remove("status");
    }
    let parsed = serde_json::from_value(value).map(Box::new);
    parsed.map_err(|error| SpecError::new("spec", format!("does not parse: {error}; apply the manifest anew")))
}

fn required(value: Option<String>, object: &str, field: &'static str) -> Result<String, Error> {
    value.ok_or_else(|| Error::Incomplete {
        object: object.to_owned(),
        field,
    })
}

/// Reads in one namespace for one aggregation.
struct Reader<'a> {
    namespace: &'a str,
    name: &'a str,
    context: &'a Context,
}

impl Reader<'_> {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.context.client.clone(), self.namespace)
    }

    async fn get<K>(&self, name: &str, kind: &str) -> Result<Option<K>, Error>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
    {
        self.api::<K>()
            .get_opt(name)
            .await
            .map_err(|error| Error::api("get", format!("{kind} {name}"), error))
    }

    async fn token(&self) -> Result<Option<String>, Error> {
        let secret = self.get::<Secret>(&names::token_secret(self.name), "secret").await?;
        let data = secret.and_then(|secret| secret.data).unwrap_or_default();
        Ok(data
            .get(names::TOKEN_KEY)
            .and_then(|token| String::from_utf8(token.0.clone()).ok()))
    }

    async fn assignment(&self) -> Result<Option<AssignmentFacts>, Error> {
        let name = names::assignment_config_map(self.name);
        let Some(map) = self.get::<ConfigMap>(&name, "configmap").await? else {
            return Ok(None);
        };
        let resource_version = required(map.metadata.resource_version, &name, "metadata.resourceVersion")?;
        let text = map
            .data
            .unwrap_or_default()
            .remove(names::ASSIGNMENT_KEY)
            .unwrap_or_default();
        let assignment = serde_json::from_str(&text).map_err(|source| Error::Document { object: name, source })?;
        Ok(Some(AssignmentFacts {
            resource_version,
            assignment,
        }))
    }

    async fn children(&self) -> Result<Vec<Value>, Error> {
        let account = self
            .get::<ServiceAccount>(&names::service_account(self.name), "serviceaccount")
            .await?;
        let service = self.get::<Service>(&names::service(self.name), "service").await?;
        let name = names::disruption_budget(self.name);
        let budget = self.get::<PodDisruptionBudget>(&name, "poddisruptionbudget").await?;
        let mut children: Vec<Value> = [json(&account), json(&service), json(&budget)]
            .into_iter()
            .filter(|value| !value.is_null())
            .collect();
        children.extend(self.jobs().await?.iter().map(json));
        Ok(children)
    }

    async fn jobs(&self) -> Result<Vec<ConfigMap>, Error> {
        let query = format!("{},{}=job", labels::instance_query(self.name), labels::COMPONENT);
        let listed = self
            .api::<ConfigMap>()
            .list(&ListParams::default().labels(&query))
            .await;
        Ok(listed.map_err(|error| Error::api("list", "configmaps", error))?.items)
    }

    async fn job_config_maps(&self) -> Result<Vec<NamedUid>, Error> {
        let named = |map: ConfigMap| {
            Some(NamedUid {
                name: map.metadata.name?,
                uid: map.metadata.uid?,
            })
        };
        Ok(self.jobs().await?.into_iter().filter_map(named).collect())
    }

    async fn pods(&self, token: Option<&str>, now: Timestamp) -> Result<Vec<super::observed::PodFacts>, Error> {
        let query = ListParams::default().labels(&labels::instance_query(self.name));
        let listed = self
            .api::<Pod>()
            .list(&query)
            .await
            .map_err(|error| Error::api("list", "pods", error))?;
        let pods = pods::facts(self.name, &listed.items, now, &self.context.resolver);
        let mut pods = pods::ask(pods, token, &self.context.admin).await;
        let memory = &self.context.memory;
        memory.keep_drains(self.namespace, self.name, |uid| pods.iter().any(|pod| pod.uid == uid));
        for pod in &mut pods {
            pod.drain = memory.drain(self.namespace, self.name, &pod.uid);
        }
        Ok(pods)
    }
}

fn json<T: Serialize>(object: &T) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}
