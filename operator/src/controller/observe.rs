//! Step `observe`: reads the object, its children and its pods, from the API server or from what the watches said of it,
//! and from the pods themselves.
//! Must not hold judgement about what it sees.

mod pods;
mod referred;
mod stateful_set;
mod token;

#[cfg(test)]
pub(crate) use stateful_set::facts as stateful_set_facts;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, ListParams, ObjectMeta};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use streamagg_crds::assignment::Assignment;
use streamagg_crds::v1alpha1::{
    DeletionPolicy, KIND, StreamAggregation, StreamAggregationSpec, StreamAggregationStatus, StreamCheckpoint,
};
use streamagg_crds::validate::SpecError;

use super::cache::{Caches, Kept};
use super::memory::Asked;
use super::observed::{AssignmentFacts, ClaimFacts, Foreign, NamedUid, Observed, PodFacts};
use super::{Context, plan, requests, restore, summary};
use crate::error::Error;
use crate::{labels, names};

/// However sure the caches seem, the API server itself is looked at this often.
const SERVER_INTERVAL: Duration = Duration::from_secs(600);

/// A kind of our children that the caches have.
trait Child:
    Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
    + Kept
    + Clone
    + std::fmt::Debug
    + DeserializeOwned
{
}

impl<K> Child for K where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Kept
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
{
}

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

/// An aggregation as it was read.
struct Current {
    metadata: ObjectMeta,
    aggregation: Result<Box<StreamAggregation>, SpecError>,
    status: Option<StreamAggregationStatus>,
    deletion_policy: DeletionPolicy,
}

/// Looks at everything as the API server has it now; `None` when the object is gone.
///
/// # Errors
/// When the API server refuses or does not answer. Pods that do not answer are facts, not errors.
pub async fn from_server(namespace: &str, name: &str, context: &Context) -> Result<Option<Seen>, Error> {
    let seen = for_another(namespace, name, context).await?;
    if seen.is_some() {
        context.memory.looked(namespace, name);
    }
    Ok(seen)
}

/// The same for somebody else than the aggregation's own reconcile.
///
/// # Errors
/// See [`from_server`].
pub async fn for_another(namespace: &str, name: &str, context: &Context) -> Result<Option<Seen>, Error> {
    let resource = ApiResource::erase::<StreamAggregation>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), namespace, &resource);
    let got = api.get_opt(name).await;
    let Some(object) = got.map_err(|error| Error::api("get", format!("streamaggregation {name}"), error))? else {
        return Ok(None);
    };
    let status = object.data.get("status").cloned();
    let current = Current {
        aggregation: typed(&object),
        status: status.and_then(|status| serde_json::from_value(status).ok()),
        deletion_policy: deletion_policy(&object),
        metadata: object.metadata,
    };
    look(namespace, name, current, None, context).await.map(Some)
}

/// Looks at what the watches said last; `None` when that may not be relied on even for a report: the caches are not whole
/// yet, behind our own last write, or it is time to look at the API server itself.
///
/// # Errors
/// When the API server refuses to show a Secret, which no cache has.
pub async fn from_caches(namespace: &str, name: &str, context: &Context) -> Result<Option<Seen>, Error> {
    let Some(caches) = context.caches.as_ref().filter(|caches| caches.complete()) else {
        return Ok(None);
    };
    if !context.memory.looked_within(namespace, name, SERVER_INTERVAL) {
        return Ok(None);
    }
    let Some(mut aggregation) = caches.aggregations.get(namespace, name, name).map(Box::new) else {
        return Ok(None);
    };
    let version = aggregation.metadata.resource_version.as_deref().unwrap_or_default();
    if is_behind(version, context.memory.written_version(namespace, name)) {
        return Ok(None);
    }
    let current = Current {
        metadata: aggregation.metadata.clone(),
        status: aggregation.status.take(),
        deletion_policy: aggregation.spec.deletion_policy.clone(),
        aggregation: Ok(aggregation),
    };
    look(namespace, name, current, Some(caches), context).await.map(Some)
}

/// The cache does not have our own last write yet. Versions that are no numbers cannot be compared: then nothing is
/// taken from a cache once something was written.
fn is_behind(version: &str, written: Option<u64>) -> bool {
    match (version.parse::<u64>(), written) {
        (Ok(version), Some(written)) => version < written,
        (Ok(_), None) => false,
        (Err(_), _) => true,
    }
}

async fn look(
    namespace: &str,
    name: &str,
    current: Current,
    caches: Option<&Caches>,
    context: &Context,
) -> Result<Seen, Error> {
    let metadata = current.metadata;
    let uid = required(metadata.uid, name, "metadata.uid")?;
    let resource_version = required(metadata.resource_version, name, "metadata.resourceVersion")?;
    let reader = Reader {
        namespace,
        name,
        uid: &uid,
        foreign: Mutex::default(),
        caches,
        context,
    };
    let token = token::read(&reader).await?;
    let now = Timestamp::now();
    let set = reader.get::<StatefulSet>(&names::stateful_set(name)).await?;
    let deleting = metadata.deletion_timestamp.is_some();
    let set_uid = set.as_ref().and_then(|set| set.metadata.uid.clone());
    let jobs = reader.jobs().await?;
    let mut observed = Observed {
        now,
        generation: metadata.generation.unwrap_or(0),
        deleted_at: metadata.deletion_timestamp.as_ref().map(|time| time.0),
        finalizers: metadata.finalizers.unwrap_or_default(),
        resource_version: resource_version.clone(),
        deletion_policy: current.deletion_policy,
        status: current.status.unwrap_or_default(),
        stateful_set: set.as_ref().map(stateful_set::facts),
        assignment: reader.assignment().await?,
        token_exists: token.is_some(),
        children: reader.children(&jobs).await?,
        orders: BTreeMap::new(),
        restore_source: None,
        job_config_maps: jobs.iter().filter_map(named).collect(),
        pods: reader.pods(set_uid.as_deref(), token.as_deref(), now).await?,
        claims: reader.claims(set.as_ref(), deleting).await?,
        paused: paused(metadata.annotations.as_ref()),
        requests: requests::read(metadata.annotations.as_ref()),
        references: referred::read(&reader, current.aggregation.as_deref().ok(), token.as_deref()).await?,
        lag_samples: Vec::new(),
        running_since: None,
        foreign: reader.foreign.into_inner().unwrap_or_else(PoisonError::into_inner),
    };
    observed.orders = restore::in_job_files(&observed.children);
    let spec = current.aggregation.as_ref().ok().map(|aggregation| &aggregation.spec);
    observed.restore_source = restore_source(spec, &observed, namespace, context).await?;
    remember(namespace, name, &mut observed, context);
    Ok(Seen {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid,
        resource_version,
        aggregation: current.aggregation,
        observed,
        token,
    })
}

/// The StreamCheckpoint to go back to, while that is not decided. No cache has them: few are looked at, and not for long.
async fn restore_source(
    spec: Option<&StreamAggregationSpec>,
    observed: &Observed,
    namespace: &str,
    context: &Context,
) -> Result<Option<Box<StreamCheckpoint>>, Error> {
    let asked = spec.and_then(|spec| restore::asked(spec.restore_from.as_ref(), observed));
    let Some(name) = asked.map(|asked| &asked.checkpoint) else {
        return Ok(None);
    };
    let api: Api<StreamCheckpoint> = Api::namespaced(context.client.clone(), namespace);
    let got = api.get_opt(name).await;
    let got = got.map_err(|error| Error::api("get", format!("streamcheckpoint {name}"), error))?;
    Ok(got.map(Box::new))
}

/// What only time tells, from the looks before this one.
fn remember(namespace: &str, name: &str, observed: &mut Observed, context: &Context) {
    let runs = plan::all_running(observed);
    let lag: Option<i64> = summary::rows(observed).map(|row| row.lag).sum();
    let kept = context.memory.sample(namespace, name, observed.now, runs, lag);
    (observed.running_since, observed.lag_samples) = kept;
}

fn typed(object: &DynamicObject) -> Result<Box<StreamAggregation>, SpecError> {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(map) = value.as_object_mut() {
        map.remove("status");
    }
    let parsed = serde_json::from_value(value).map(Box::new);
    parsed.map_err(|error| SpecError::new("spec", format!("does not parse: {error}; apply the manifest anew")))
}

fn paused(annotations: Option<&BTreeMap<String, String>>) -> bool {
    annotations
        .and_then(|all| all.get(labels::PAUSED))
        .is_some_and(|value| value == "true")
}

/// A policy that does not parse deletes nothing.
fn deletion_policy(object: &DynamicObject) -> DeletionPolicy {
    let policy = object.data.pointer("/spec/deletionPolicy").cloned();
    policy
        .and_then(|policy| serde_json::from_value(policy).ok())
        .unwrap_or_default()
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
    uid: &'a str,
    /// Objects met under our names that are not ours.
    foreign: Mutex<Vec<Foreign>>,
    /// Where to read instead of asking the API server.
    caches: Option<&'a Caches>,
    context: &'a Context,
}

impl Reader<'_> {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.context.client.clone(), self.namespace)
    }

    async fn get<K: Child>(&self, name: &str) -> Result<Option<K>, Error> {
        let kind = K::kind(&()).to_lowercase();
        let object = match self.caches {
            Some(caches) => K::index(caches).get(self.namespace, self.name, name),
            None => {
                let got = self.api::<K>().get_opt(name).await;
                got.map_err(|error| Error::api("get", format!("{kind} {name}"), error))?
            }
        };
        self.note(&format!("{kind} {name}"), object.as_ref().map(K::meta));
        Ok(object)
    }

    /// Ours by label, as `query` says.
    async fn list<K: Child>(&self, query: &str) -> Result<Vec<K>, Error> {
        if let Some(caches) = self.caches {
            return Ok(K::index(caches).of(self.namespace, self.name));
        }
        let listed = self.api::<K>().list(&ListParams::default().labels(query)).await;
        let listed = listed.map_err(|error| Error::api("list", K::plural(&()), error))?;
        Ok(listed.items)
    }

    fn note(&self, object: &str, metadata: Option<&ObjectMeta>) {
        if let Some(foreign) = metadata.and_then(|metadata| self.foreign(object, metadata)) {
            let mut all = self.foreign.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(foreign);
        }
    }

    fn foreign(&self, object: &str, metadata: &ObjectMeta) -> Option<Foreign> {
        let owners = metadata.owner_references.as_deref().unwrap_or_default();
        if owners.iter().any(|owner| owner.uid == self.uid) {
            return None;
        }
        let passing = owners.iter().any(|owner| owner.kind == KIND && owner.name == self.name);
        Some(Foreign {
            object: object.to_owned(),
            passing,
        })
    }

    async fn assignment(&self) -> Result<Option<AssignmentFacts>, Error> {
        let name = names::assignment_config_map(self.name);
        let Some(map) = self.get::<ConfigMap>(&name).await? else {
            return Ok(None);
        };
        let resource_version = required(map.metadata.resource_version, &name, "metadata.resourceVersion")?;
        let text = map
            .data
            .unwrap_or_default()
            .remove(names::ASSIGNMENT_KEY)
            .unwrap_or_default();
        let assignment = serde_json::from_str(&text).unwrap_or_else(|error| {
            // Somebody edited it; `plan` writes it anew from what the pods hold.
            tracing::warn!(namespace = self.namespace, configmap = name, %error, "assignment does not parse");
            Assignment::default()
        });
        Ok(Some(AssignmentFacts {
            resource_version,
            assignment,
        }))
    }

    async fn children(&self, jobs: &[ConfigMap]) -> Result<Vec<Value>, Error> {
        let account = self.get::<ServiceAccount>(&names::service_account(self.name)).await?;
        let service = self.get::<Service>(&names::service(self.name)).await?;
        let budget = names::disruption_budget(self.name);
        let budget = self.get::<PodDisruptionBudget>(&budget).await?;
        let policy = self.get::<NetworkPolicy>(&names::network_policy(self.name)).await?;
        let mut children: Vec<Value> = [json(&account), json(&service), json(&budget), json(&policy)]
            .into_iter()
            .filter(|value| !value.is_null())
            .collect();
        children.extend(jobs.iter().map(json));
        Ok(children)
    }

    async fn jobs(&self) -> Result<Vec<ConfigMap>, Error> {
        let query = format!("{},{}=job", labels::instance_query(self.name), labels::COMPONENT);
        let mut maps = self.list::<ConfigMap>(&query).await?;
        // The cache has the assignment too.
        maps.retain(|map| {
            let component = map
                .metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(labels::COMPONENT));
            component.is_some_and(|component| component == "job")
        });
        Ok(maps)
    }

    /// A set without claim templates has none; without a set there may be some that were left.
    async fn claims(&self, set: Option<&StatefulSet>, deleting: bool) -> Result<Vec<ClaimFacts>, Error> {
        let templates = set.and_then(|set| set.spec.as_ref()?.volume_claim_templates.as_ref());
        if set.is_some() && templates.is_none_or(Vec::is_empty) && !deleting {
            return Ok(Vec::new());
        }
        let listed = self
            .list::<PersistentVolumeClaim>(&labels::selector_string(self.name))
            .await?;
        let mut claims: Vec<_> = listed
            .iter()
            .filter_map(|claim| stateful_set::claim_facts(self.name, claim))
            .collect();
        claims.sort_by_key(|claim| claim.ordinal);
        Ok(claims)
    }

    /// The pods of exactly this StatefulSet; those of an earlier one under the same name are not ours. Without one,
    /// those that it left behind.
    async fn pods(&self, set_uid: Option<&str>, token: Option<&str>, now: Timestamp) -> Result<Vec<PodFacts>, Error> {
        let listed = self.list::<Pod>(&labels::instance_query(self.name)).await?;
        let owned = |pod: &Pod| {
            let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
            match set_uid {
                Some(set_uid) => owners.iter().any(|owner| owner.uid == set_uid),
                None => owners
                    .iter()
                    .all(|owner| owner.kind == "StatefulSet" && owner.name == names::stateful_set(self.name)),
            }
        };
        let items: Vec<Pod> = listed.into_iter().filter(owned).collect();
        let pods = pods::facts(self.name, &items, now, &self.context.resolver);
        let mut pods = pods::ask(pods, token, &self.context.admin).await;
        let memory = &self.context.memory;
        memory.keep_answers(self.namespace, self.name, |uid| pods.iter().any(|pod| pod.uid == uid));
        let answer = |asked, pod: &PodFacts| memory.answer(self.namespace, self.name, asked, &pod.uid);
        for pod in &mut pods {
            pod.drain = answer(Asked::Drain, pod);
            pod.checkpoint = answer(Asked::Checkpoint, pod);
        }
        Ok(pods)
    }
}

fn named(map: &ConfigMap) -> Option<NamedUid> {
    Some(NamedUid {
        name: map.metadata.name.clone()?,
        uid: map.metadata.uid.clone()?,
    })
}

fn json<T: Serialize>(object: &T) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use kube::core::{DeserializeGuard, ObjectList};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cache_without_our_own_last_write_is_behind() {
        assert!(!is_behind("7", None) && !is_behind("7", Some(7)) && !is_behind("10", Some(9)));
        assert!(is_behind("9", Some(10)));
        assert!(is_behind("opaque", None) && is_behind("", Some(1)));
    }

    #[test]
    fn one_malformed_object_is_named_and_hides_no_other() {
        let good = crate::controller::fixtures::aggregation(&json!({}));
        let mut bad = serde_json::to_value(&good).unwrap();
        bad["spec"]["windows"] = json!("none");
        let list = json!({
            "apiVersion": "streamagg.io/v1alpha1", "kind": "StreamAggregationList", "metadata": {}, "items": [bad, good],
        });
        let list: ObjectList<DeserializeGuard<StreamAggregation>> = serde_json::from_value(list).unwrap();
        assert!(list.items[0].0.is_err() && list.items[1].0.is_ok());
        let object: DynamicObject = serde_json::from_value(bad).unwrap();
        let problem = typed(&object).unwrap_err().to_string();
        assert!(
            problem.contains("spec") && problem.contains("apply the manifest anew"),
            "{problem}"
        );
    }
}
