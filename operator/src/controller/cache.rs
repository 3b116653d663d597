//! What the watches last said of the aggregations and their children, so that a look at an idle aggregation asks the
//! API server nothing. A cache may be behind: what was read from it may show that nothing is to be done, and be reported;
//! it never authorises an action. Must not hold Secrets, or a decision.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, PodSpec, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::Event;
use serde::Serialize;
use serde::de::DeserializeOwned;
use streamagg_crds::v1alpha1::StreamAggregation;

use crate::labels;

/// One malformed object must not stop the watch of the others.
pub type Guarded = DeserializeGuard<StreamAggregation>;

/// Namespace and name of the aggregation something belongs to.
pub type Owner = (String, String);

/// Caches of all kinds; a clone is the same caches.
#[derive(Clone, Debug, Default)]
pub struct Caches {
    /// The aggregations.
    pub aggregations: Index<StreamAggregation>,
    /// Their children, by kind.
    pub stateful_sets: Index<StatefulSet>,
    /// Pods.
    pub pods: Index<Pod>,
    /// Job files and assignments.
    pub config_maps: Index<ConfigMap>,
    /// Services.
    pub services: Index<Service>,
    /// ServiceAccounts.
    pub service_accounts: Index<ServiceAccount>,
    /// PodDisruptionBudgets.
    pub disruption_budgets: Index<PodDisruptionBudget>,
    /// NetworkPolicies.
    pub network_policies: Index<NetworkPolicy>,
    /// Volume claims.
    pub claims: Index<PersistentVolumeClaim>,
}

impl Caches {
    /// Every kind was listed once.
    pub fn complete(&self) -> bool {
        self.aggregations.complete()
            && self.stateful_sets.complete()
            && self.pods.complete()
            && self.config_maps.complete()
            && self.services.complete()
            && self.service_accounts.complete()
            && self.disruption_budgets.complete()
            && self.network_policies.complete()
            && self.claims.complete()
    }
}

/// A kind whose objects of one aggregation are kept.
pub trait Kept: Sized {
    /// Its index.
    fn index(caches: &Caches) -> &Index<Self>;

    /// Takes out what nobody looks at.
    fn trim(&mut self) {}
}

macro_rules! kept {
    ($($kind:ty => $field:ident),* $(,)?) => {
        $(impl Kept for $kind {
            fn index(caches: &Caches) -> &Index<Self> {
                &caches.$field
            }
        })*
    };
}

kept! {
    StatefulSet => stateful_sets,
    ConfigMap => config_maps,
    Service => services,
    ServiceAccount => service_accounts,
    PodDisruptionBudget => disruption_budgets,
    NetworkPolicy => network_policies,
    PersistentVolumeClaim => claims,
}

impl Kept for Pod {
    fn index(caches: &Caches) -> &Index<Self> {
        &caches.pods
    }

    /// Its spec is its set's, but for what it mounts.
    fn trim(&mut self) {
        if let Some(spec) = self.spec.take() {
            self.spec = Some(PodSpec {
                volumes: spec.volumes,
                ..PodSpec::default()
            });
        }
    }
}

/// Objects of one kind, by the aggregation they belong to and their name.
///
/// They are kept as JSON and parsed when somebody looks: Kubernetes' types are mostly room for what is not there, and
/// take five times as much.
pub struct Index<K> {
    inner: Arc<RwLock<Inner>>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Index<K> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            kind: PhantomData,
        }
    }
}

impl<K> Default for Index<K> {
    fn default() -> Self {
        Self {
            inner: Arc::default(),
            kind: PhantomData,
        }
    }
}

impl<K> fmt::Debug for Index<K> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Index").finish_non_exhaustive()
    }
}

/// By owner, then in order of their names: there are few of a kind, and most often one.
type Objects = HashMap<Owner, Vec<(Box<str>, Arc<[u8]>)>>;

#[derive(Default)]
struct Inner {
    complete: bool,
    objects: Objects,
    /// A list under way; takes the place of `objects` when it is whole.
    listing: Objects,
}

impl<K> Index<K> {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first list is whole.
    pub fn complete(&self) -> bool {
        self.read().complete
    }

    /// The aggregation has one at least.
    pub fn has(&self, namespace: &str, name: &str) -> bool {
        let owner = (namespace.to_owned(), name.to_owned());
        self.read().objects.contains_key(&owner)
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.read().objects.values().map(Vec::len).sum()
    }

    /// No object is there.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes what a watch says; answers the owners of objects that are gone with it. `keep` gives what is kept of an
    /// object.
    fn take<E: ResourceExt>(
        &self,
        event: &Event<E>,
        owner: impl Fn(&E) -> Option<Owner>,
        keep: impl Fn(&E) -> Arc<[u8]>,
    ) -> HashSet<Owner> {
        let insert = |objects: &mut Objects, object: &E| {
            if let Some(owner) = owner(object) {
                let kept = objects.entry(owner).or_default();
                match position(kept, &object.name_any()) {
                    Ok(at) => kept[at].1 = keep(object),
                    Err(at) => {
                        kept.reserve_exact(1);
                        kept.insert(at, (object.name_any().into(), keep(object)));
                    }
                }
            }
        };
        let mut inner = self.write();
        match event {
            Event::Init => inner.listing = HashMap::new(),
            Event::InitApply(object) => insert(&mut inner.listing, object),
            Event::InitDone => {
                inner.complete = true;
                let listed = std::mem::take(&mut inner.listing);
                let before = std::mem::replace(&mut inner.objects, listed);
                let gone = before.into_keys().filter(|owner| !inner.objects.contains_key(owner));
                return gone.collect();
            }
            Event::Apply(object) => insert(&mut inner.objects, object),
            Event::Delete(object) => {
                let Some(owner) = owner(object) else {
                    return HashSet::new();
                };
                let left = inner.objects.get_mut(&owner).is_some_and(|kept| {
                    kept.retain(|(name, _)| **name != object.name_any());
                    !kept.is_empty()
                });
                if !left {
                    inner.objects.remove(&owner);
                    return HashSet::from([owner]);
                }
            }
        }
        HashSet::new()
    }
}

impl<K: DeserializeOwned> Index<K> {
    /// All objects of an aggregation, in order of their names.
    pub fn of(&self, namespace: &str, name: &str) -> Vec<K> {
        let owner = (namespace.to_owned(), name.to_owned());
        let found: Vec<_> = {
            let inner = self.read();
            let found = inner.objects.get(&owner).into_iter().flatten();
            found.map(|(_, text)| Arc::clone(text)).collect()
        };
        found.iter().filter_map(|text| parse(text)).collect()
    }

    /// One object of an aggregation.
    pub fn get(&self, namespace: &str, name: &str, object: &str) -> Option<K> {
        let owner = (namespace.to_owned(), name.to_owned());
        let found = {
            let inner = self.read();
            let kept = inner.objects.get(&owner)?;
            let at = position(kept, object).ok()?;
            Arc::clone(&kept[at].1)
        };
        parse(&found)
    }
}

impl<K: ResourceExt + Kept + Serialize> Index<K> {
    /// Takes what the watch of children says.
    pub fn take_children(&self, event: &Event<K>) {
        self.take(event, owner, text);
    }
}

impl Index<StreamAggregation> {
    /// Takes what the watch of aggregations says; answers those that are gone with it. One that does not parse is known
    /// and never found.
    pub fn take_aggregations(&self, event: &Event<Guarded>) -> HashSet<Owner> {
        let keep = |guarded: &Guarded| guarded.0.as_ref().map_or_else(|_| Arc::default(), text);
        self.take(event, itself, keep)
    }
}

/// Where the object of this name is, or would be.
fn position(kept: &[(Box<str>, Arc<[u8]>)], name: &str) -> Result<usize, usize> {
    kept.binary_search_by(|(kept, _)| (**kept).cmp(name))
}

fn text<K: Serialize>(object: &K) -> Arc<[u8]> {
    serde_json::to_vec(object).unwrap_or_default().into()
}

/// What was written by [`text`] always parses; what could not be written is as good as not there, and the API server is
/// asked.
fn parse<K: DeserializeOwned>(text: &[u8]) -> Option<K> {
    serde_json::from_slice(text).ok()
}

/// The aggregation a child belongs to, by its label.
pub fn owner<K: ResourceExt>(child: &K) -> Option<Owner> {
    let name = child.labels().get(labels::INSTANCE)?;
    Some((child.namespace()?, name.clone()))
}

/// An aggregation's own place.
pub fn itself<K: ResourceExt>(object: &K) -> Option<Owner> {
    Some((object.namespace()?, object.name_any()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, instance: &str) -> Pod {
        let labels = json!({labels::INSTANCE: instance});
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "n", "labels": labels}})).unwrap()
    }

    fn names(index: &Index<Pod>, instance: &str) -> Vec<String> {
        index.of("n", instance).iter().map(|pod| pod.name_any()).collect()
    }

    #[test]
    fn a_list_replaces_what_was_there_only_when_it_is_whole() {
        let index = Index::default();
        let take = |event| index.take(&event, owner, text);
        assert!(!index.complete());
        take(Event::Init);
        take(Event::InitApply(pod("a-0", "a")));
        take(Event::InitApply(pod("b-0", "b")));
        assert!(index.is_empty() && !index.complete());
        take(Event::InitDone);
        take(Event::Apply(pod("a-1", "a")));
        assert_eq!(names(&index, "a"), ["a-0", "a-1"]);
        // The watch was too old (410): everything is listed anew, and `b` went meanwhile.
        take(Event::Init);
        take(Event::InitApply(pod("a-1", "a")));
        assert_eq!(names(&index, "b"), ["b-0"], "the list is not whole yet");
        let gone = take(Event::InitDone);
        assert_eq!(gone, HashSet::from([("n".to_owned(), "b".to_owned())]));
        assert_eq!(names(&index, "a"), ["a-1"]);
    }

    #[test]
    fn the_last_object_of_an_aggregation_takes_it_along() {
        let index = Index::<Pod>::default();
        let take = |event| index.take(&event, owner, text);
        take(Event::Apply(pod("a-0", "a")));
        take(Event::Apply(pod("a-1", "a")));
        assert!(take(Event::Delete(pod("a-0", "a"))).is_empty());
        assert!(index.has("n", "a"));
        assert_eq!(take(Event::Delete(pod("a-1", "a"))).len(), 1);
        assert!(index.is_empty() && !index.has("n", "a"));
    }

    #[test]
    fn what_is_kept_comes_back_as_it_was_and_one_that_does_not_parse_is_known_and_not_found() {
        let good = crate::controller::fixtures::aggregation(&json!({}));
        let mut bad = serde_json::to_value(&good).unwrap();
        bad["spec"]["windows"] = json!("none");
        bad["metadata"]["name"] = json!("bad");
        let index = Index::<StreamAggregation>::default();
        for object in [serde_json::to_value(&good).unwrap(), bad] {
            index.take_aggregations(&Event::Apply(serde_json::from_value(object).unwrap()));
        }
        let (namespace, name) = itself(&good).unwrap();
        let kept = index.get(&namespace, &name, &name).unwrap();
        assert_eq!(serde_json::to_value(kept).unwrap(), serde_json::to_value(good).unwrap());
        assert!(index.has(&namespace, "bad") && index.get(&namespace, "bad", "bad").is_none());
    }
}
