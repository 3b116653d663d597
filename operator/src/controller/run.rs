//! Wires watches to reconciles. Must not hold decisions.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::controller::{Config, Controller};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::watcher::{self, DefaultBackoff};
use kube::runtime::{Predicate, WatchStreamExt, predicates, watcher as watch};
use kube::{Api, Client, Resource};
use streamagg_crds::v1alpha1::StreamAggregation;

use super::{Context, error_policy, reconcile};
use crate::labels;

/// Reconciles at a time.
const CONCURRENCY: u16 = 8;
/// Changes that come within this time are one look.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// One malformed object must not stop the watch of the others.
type Guarded = DeserializeGuard<StreamAggregation>;

/// Watches and reconciles until `shutdown` resolves; reconciles under way are finished.
pub async fn run(
    context: Arc<Context>,
    namespace: Option<String>,
    shutdown: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let client = context.client.clone();
    let objects: Api<Guarded> = scoped(client.clone(), namespace.as_deref());
    let (reader, writer) = reflector::store();
    let triggers = predicates::generation
        .combine(predicates::annotations)
        .combine(predicates::labels)
        .combine(predicates::finalizers);
    let stream = watch(objects, watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .applied_objects()
        .predicate_filter(triggers, Default::default());
    let mut controller = Controller::for_stream(stream, reader)
        .with_config(Config::default().debounce(DEBOUNCE).concurrency(CONCURRENCY))
        .graceful_shutdown_on(shutdown);
    controller = controller.watches_stream(children::<StatefulSet>(&client, namespace.as_deref()), owner);
    controller = controller.watches_stream(children::<Pod>(&client, namespace.as_deref()), owner);
    controller = controller.watches_stream(children::<ConfigMap>(&client, namespace.as_deref()), owner);
    controller
        .run(
            reconcile::<Guarded>,
            |object, error, context| error_policy(&object, error, &context),
            context,
        )
        .for_each(|_| std::future::ready(()))
        .await;
}

fn scoped<K>(client: Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    }
}

/// Changes of our children, metadata only; nothing is cached.
fn children<K>(
    client: &Client,
    namespace: Option<&str>,
) -> impl futures::Stream<Item = Result<PartialObjectMeta<K>, watcher::Error>> + Send + 'static
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
{
    let api: Api<PartialObjectMeta<K>> = scoped(client.clone(), namespace);
    let config = watcher::Config::default().labels(&labels::managed_query());
    watch(api, config).backoff(DefaultBackoff::default()).touched_objects()
}

/// The aggregation a child belongs to, by its label.
fn owner<K>(child: PartialObjectMeta<K>) -> Option<ObjectRef<Guarded>> {
    let name = child.metadata.labels.as_ref()?.get(labels::INSTANCE)?;
    Some(ObjectRef::new(name).within(child.metadata.namespace.as_deref()?))
}
