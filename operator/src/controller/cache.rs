//! What the watches last said of the aggregations and their children, so that a look at an idle aggregation asks the
//! API server nothing. A cache may be behind: what was read from it may show that nothing is to be done, and be reported;
//! it never authorises an action. Must not hold Secrets, or a decision.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::Event;
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
    pub aggregations: Index<Guarded>,
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
    Pod => pods,
    ConfigMap => config_maps,
    Service => services,
    ServiceAccount => service_accounts,
    PodDisruptionBudget => disruption_budgets,
    NetworkPolicy => network_policies,
    PersistentVolumeClaim => claims,
}

/// Objects of one kind, by the aggregation they belong to and their name.
pub struct Index<K> {
    inner: Arc<RwLock<Inner<K>>>,
}

impl<K> Clone for Index<K> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<K> Default for Index<K> {
    fn default() -> Self {
        let inner = Inner {
            complete: false,
            objects: HashMap::new(),
            listing: HashMap::new(),
        };
        Self {
            inner: Arc::new(RwLock::new(inner)),
        }
    }
}

impl<K> fmt::Debug for Index<K> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Index").finish_non_exhaustive()
    }
}

type Objects<K> = HashMap<Owner, BTreeMap<String, Arc<K>>>;

struct Inner<K> {
    complete: bool,
    objects: Objects<K>,
    /// A list under way; takes the place of `objects` when it is whole.
    listing: Objects<K>,
}

impl<K> Index<K> {
    fn read(&self) -> RwLockReadGuard<'_, Inner<K>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner<K>> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first list is whole.
    pub fn complete(&self) -> bool {
        self.read().complete
    }

    /// All objects of an aggregation, in order of their names.
    pub fn of(&self, namespace: &str, name: &str) -> Vec<Arc<K>> {
        let inner = self.read();
        let found = inner.objects.get(&(namespace.to_owned(), name.to_owned()));
        found
            .map(|objects| objects.values().cloned().collect())
            .unwrap_or_default()
    }

    /// One object of an aggregation.
    pub fn get(&self, namespace: &str, name: &str, object: &str) -> Option<Arc<K>> {
        let inner = self.read();
        let found = inner.objects.get(&(namespace.to_owned(), name.to_owned()))?;
        found.get(object).cloned()
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.read().objects.values().map(BTreeMap::len).sum()
    }

    /// No object is there.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: ResourceExt + Clone> Index<K> {
    /// Takes what a watch says; answers the owners of objects that are gone with it.
    pub fn take(&self, event: &Event<K>, owner: impl Fn(&K) -> Option<Owner>) -> HashSet<Owner> {
        let mut inner = self.write();
        match event {
            Event::Init => inner.listing = HashMap::new(),
            Event::InitApply(object) => insert(&mut inner.listing, object, owner(object)),
            Event::InitDone => {
                inner.complete = true;
                let listed = std::mem::take(&mut inner.listing);
                let before = std::mem::replace(&mut inner.objects, listed);
                let gone = before.into_keys().filter(|owner| !inner.objects.contains_key(owner));
                return gone.collect();
            }
            Event::Apply(object) => insert(&mut inner.objects, object, owner(object)),
            Event::Delete(object) => {
                let Some(owner) = owner(object) else {
                    return HashSet::new();
                };
                let left = inner.objects.get_mut(&owner).is_some_and(|objects| {
                    objects.remove(&object.name_any());
                    !objects.is_empty()
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

fn insert<K: ResourceExt + Clone>(objects: &mut Objects<K>, object: &K, owner: Option<Owner>) {
    if let Some(owner) = owner {
        let kept = objects.entry(owner).or_default();
        kept.insert(object.name_any(), Arc::new(object.clone()));
    }
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
        let take = |event| index.take(&event, owner);
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
        let index = Index::default();
        let take = |event| index.take(&event, owner);
        take(Event::Apply(pod("a-0", "a")));
        take(Event::Apply(pod("a-1", "a")));
        assert!(take(Event::Delete(pod("a-0", "a"))).is_empty());
        assert_eq!(take(Event::Delete(pod("a-1", "a"))).len(), 1);
        assert!(index.is_empty());
    }
}
