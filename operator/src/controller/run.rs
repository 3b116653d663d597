//! Wires watches to caches and reconciles. Must not hold decisions.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use k8s_openapi::NamespaceResourceScope;
use kube::core::{ObjectMeta, PartialObjectMeta, PartialObjectMetaExt};
use kube::runtime::controller::{Config, Controller};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::watcher::{self, DefaultBackoff, Event};
use kube::runtime::{Predicate, WatchStreamExt, predicates, watcher as watch};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use streamagg_crds::v1alpha1::{StreamAggregation, StreamCheckpoint};

use super::cache::{self, Caches, Guarded, Kept, Owner};
use super::{Context, error_policy, reconcile};
use crate::{checkpoint, labels};

/// Reconciles at a time; the others wait in the queue, each aggregation at most once.
const CONCURRENCY: u16 = 8;
/// The same for checkpoints on demand.
const CHECKPOINT_CONCURRENCY: u16 = 4;
/// Changes that come within this time are one look.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Objects in one answer of a list: a large answer would stay in the process's memory long after it was read.
const PAGE: u32 = 100;
/// What `kubectl apply` leaves: a second copy of the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What the queue holds of an aggregation.
type Queued = PartialObjectMeta<StreamAggregation>;

/// Watches and reconciles until `shutdown` resolves; reconciles under way are finished.
pub async fn run(
    context: Arc<Context>,
    namespace: Option<String>,
    shutdown: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let mut context = Context::clone(&context);
    let caches = Caches::default();
    context.caches = Some(caches.clone());
    let context = Arc::new(context);
    let watches = Watches {
        context: Arc::clone(&context),
        caches,
        namespace,
    };
    let (reader, writer) = reflector::store();
    let triggers = predicates::generation
        .combine(predicates::annotations)
        .combine(predicates::labels)
        .combine(predicates::finalizers);
    let queue = Arc::clone(&context);
    let stream = watches
        .aggregations()
        .reflect(writer)
        .applied_objects()
        .predicate_filter(triggers, Default::default())
        .inspect(move |object| {
            if let Some((namespace, name)) = object.as_ref().ok().and_then(cache::itself) {
                queue.metrics.queue.enter(&namespace, &name);
            }
        });
    let shutdown = shutdown.shared();
    let checkpoints = checkpoints(&watches, shutdown.clone());
    let managed = labels::managed_query();
    let claims = labels::processor_query();
    let mut controller = Controller::for_stream(stream, reader)
        .with_config(Config::default().debounce(DEBOUNCE).concurrency(CONCURRENCY))
        .graceful_shutdown_on(shutdown);
    macro_rules! children {
        ($($kind:path, $query:expr);* $(;)?) => {
            $(controller = controller.watches_stream(watches.children::<$kind>($query), watches.enqueue());)*
        };
    }
    children! {
        k8s_openapi::api::apps::v1::StatefulSet, &managed;
        k8s_openapi::api::core::v1::Pod, &managed;
        k8s_openapi::api::core::v1::ConfigMap, &managed;
        k8s_openapi::api::core::v1::Service, &managed;
        k8s_openapi::api::core::v1::ServiceAccount, &managed;
        k8s_openapi::api::policy::v1::PodDisruptionBudget, &managed;
        k8s_openapi::api::networking::v1::NetworkPolicy, &managed;
        k8s_openapi::api::core::v1::PersistentVolumeClaim, &claims;
    }
    let aggregations = controller
        .run(
            reconcile::<Queued>,
            |object, error, context| error_policy(&object, error, &context),
            context,
        )
        .for_each(|_| std::future::ready(()));
    tokio::join!(aggregations, checkpoints);
}

/// Reconciles checkpoints on demand: few, and looked at only until they have ended, so they are in no cache.
fn checkpoints(
    watches: &Watches,
    shutdown: impl Future<Output = ()> + Send + Sync + 'static,
) -> impl Future<Output = ()> {
    let context = Arc::clone(&watches.context);
    let (reader, writer) = reflector::store();
    let triggers = predicates::generation.combine(predicates::finalizers);
    let noted = Arc::clone(&context);
    let stream = watch(watches.scoped::<PartialObjectMeta<StreamCheckpoint>>(), watched())
        .default_backoff()
        .modify(|object| trim(object.meta_mut()))
        .inspect_err(move |error| note(error, "streamcheckpoints", &noted))
        .reflect(writer)
        .applied_objects()
        .predicate_filter(triggers, Default::default());
    Controller::for_stream(stream, reader)
        .with_config(Config::default().debounce(DEBOUNCE).concurrency(CHECKPOINT_CONCURRENCY))
        .graceful_shutdown_on(shutdown)
        .run(
            checkpoint::reconcile::<PartialObjectMeta<StreamCheckpoint>>,
            |object, error, context| checkpoint::error_policy(&object, error, &context),
            context,
        )
        .for_each(|_| std::future::ready(()))
}

struct Watches {
    context: Arc<Context>,
    caches: Caches,
    namespace: Option<String>,
}

impl Watches {
    fn scoped<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let client = self.context.client.clone();
        match &self.namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        }
    }

    /// Aggregations go whole into their cache and as metadata into the queue. Those that are gone are forgotten: nobody
    /// reconciles them again.
    fn aggregations(&self) -> impl Stream<Item = watcher::Result<Event<Queued>>> + Send + 'static {
        let (context, index) = (Arc::clone(&self.context), self.caches.aggregations.clone());
        watch(self.scoped::<Guarded>(), watched())
            .default_backoff()
            .modify(|object| trim(object.meta_mut()))
            .map(move |event| {
                let event = event.inspect_err(|error| note(error, "streamaggregations", &context))?;
                for (namespace, name) in index.take_aggregations(&event) {
                    context.forget(&namespace, &name);
                }
                Ok(metadata(event))
            })
    }

    /// Changes of our children of one kind; the cache has them before anybody looks.
    fn children<K>(&self, query: &str) -> impl Stream<Item = watcher::Result<PartialObjectMeta<K>>> + Send + 'static
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Kept
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let (context, index) = (Arc::clone(&self.context), K::index(&self.caches).clone());
        watch(self.scoped::<K>(), watched().labels(query))
            .backoff(DefaultBackoff::default())
            .modify(|object| {
                trim(object.meta_mut());
                object.trim();
            })
            .map(move |event| {
                let event = event.inspect_err(|error| note(error, &K::plural(&()), &context))?;
                index.take_children(&event);
                Ok(metadata(event))
            })
            .touched_objects()
    }

    /// Puts the aggregation of a child into the queue.
    fn enqueue<K>(&self) -> impl Fn(PartialObjectMeta<K>) -> Option<ObjectRef<Queued>> + Send + Sync + 'static
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let context = Arc::clone(&self.context);
        move |child| {
            let (namespace, name): Owner = cache::owner(&child)?;
            if context.known(&namespace, &name) {
                context.metrics.queue.enter(&namespace, &name);
            }
            Some(ObjectRef::new(&name).within(&namespace))
        }
    }
}

fn watched() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

/// What nobody looks at is not kept.
fn trim(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
    if let Some(annotations) = metadata.annotations.as_mut() {
        annotations.remove(LAST_APPLIED);
    }
}

/// The watcher tries again by itself, with its own capped back-off.
fn note(error: &watcher::Error, resource: &str, context: &Context) {
    context.metrics.watch_errors.with_label_values(&[resource]).inc();
    tracing::warn!(resource, %error, "watch interrupted, trying again");
}

fn metadata<K, M>(event: Event<K>) -> Event<PartialObjectMeta<M>>
where
    K: Resource,
    M: Resource<DynamicType = ()>,
{
    let partial = |object: K| object.meta().clone().into_response_partial();
    match event {
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(partial(object)),
        Event::InitDone => Event::InitDone,
        Event::Apply(object) => Event::Apply(partial(object)),
        Event::Delete(object) => Event::Delete(partial(object)),
    }
}
