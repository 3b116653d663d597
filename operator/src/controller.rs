//! The controller: one call a step, in the order of the modules. Decisions are in the pure steps, effects in
//! `observe`, `apply` and `status`. Must not hold either.

pub mod apply;
pub mod build;
pub mod cache;
pub mod desired;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod memory;
pub mod observe;
pub mod observed;
pub mod plan;
pub mod requests;
pub mod restore;
pub mod run;
pub mod status;
mod summary;
pub mod validate;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::controller::Action as Requeue;
use kube::runtime::events::Recorder;
use kube::{Client, Resource, ResourceExt};
use streamagg_crds::v1alpha1::KIND;
use tracing::Instrument;

use crate::admin_client::AdminClient;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::telemetry::{self, step};
use cache::Caches;
use memory::Memory;
use observe::Seen;
use plan::{Plan, Verdict, Wish};

/// Base address of a pod's admin server, once it can have one.
pub type Resolver = Arc<dyn Fn(&Pod) -> Option<String> + Send + Sync>;

/// When to look again at an object that is not there; its watch tells earlier.
const GONE: Duration = Duration::from_secs(3600);

/// Everything a reconcile needs besides the object.
#[derive(Clone)]
pub struct Context {
    /// Kubernetes.
    pub client: Client,
    /// The pods.
    pub admin: AdminClient,
    /// Finds a pod's admin server.
    pub resolver: Resolver,
    /// Publishes events.
    pub recorder: Recorder,
    /// Counts.
    pub metrics: Metrics,
    /// Image for specs that name none.
    pub default_image: Option<String>,
    /// What may be forgotten without harm.
    pub memory: Memory,
    /// The same for checkpoints, by namespace and name of theirs.
    pub checkpoints: Memory,
    /// What the watches said, while there are watches (`run`).
    pub caches: Option<Caches>,
}

impl Context {
    /// The aggregation is gone, and everything known of it with it.
    fn forget(&self, namespace: &str, name: &str) {
        self.memory.forget(namespace, name);
        self.metrics.forget(namespace, name);
    }

    /// The watch of aggregations knows it; without a watch every one is taken as known.
    fn known(&self, namespace: &str, name: &str) -> bool {
        let caches = self.caches.as_ref().filter(|caches| caches.aggregations.complete());
        caches.is_none_or(|caches| caches.aggregations.has(namespace, name))
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Context")
            .field("default_image", &self.default_image)
            .finish_non_exhaustive()
    }
}

/// One reconcile, counted; see [`reconcile_once`].
///
/// # Errors
/// When the cluster could not be read or written; the status is written first if at all possible.
pub async fn reconcile<K>(object: Arc<K>, context: Arc<Context>) -> Result<Requeue, Error>
where
    K: Resource,
{
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let (metrics, started) = (&context.metrics, Instant::now());
    metrics.queue.leave(&namespace, &name);
    metrics.reconciling.inc();
    let span = telemetry::reconcile_span(KIND, &namespace, &name);
    let outcome = reconcile_once(&namespace, &name, &context)
        .instrument(span.clone())
        .await;
    telemetry::end(&span, outcome.as_ref().err());
    metrics.reconciling.dec();
    metrics.reconciled(outcome.as_ref().err(), started.elapsed());
    if !context.known(&namespace, &name) {
        // It went while it was looked at.
        context.forget(&namespace, &name);
    }
    outcome.map(Requeue::requeue)
}

/// One look at `namespace/name`; answers when to look again:
/// 1. observe (clients), 2. validate, 3. build, 4. plan (pure), 5. apply, 6. status (clients).
///
/// What the caches show suffices to see that nothing is to be done, which is the rule. They may be behind, so anything
/// else is decided anew on what the API server says now: no action rests on a cache.
///
/// # Errors
/// See [`reconcile`].
pub async fn reconcile_once(namespace: &str, name: &str, context: &Context) -> Result<Duration, Error> {
    let looked = observe::from_caches(namespace, name, context).instrument(step("observe", "cache"));
    if let Some(seen) = looked.await? {
        context.metrics.looks.with_label_values(&["cache"]).inc();
        let wish = wish(&seen, context);
        let plan = plan::plan(&wish, &seen.observed);
        if plan.only_reports(&seen.observed) {
            status::write(&seen, &wish, &plan, context)
                .instrument(step("status", ""))
                .await?;
            return Ok(plan.requeue);
        }
    }
    context.metrics.looks.with_label_values(&["server"]).inc();
    let looked = observe::from_server(namespace, name, context).instrument(step("observe", "server"));
    let Some(mut seen) = looked.await? else {
        context.forget(namespace, name);
        return Ok(GONE);
    };
    let wish = wish(&seen, context);
    let mut plan = plan::plan(&wish, &seen.observed);
    let actions = plan
        .actions
        .iter()
        .map(plan::Action::kind)
        .collect::<Vec<_>>()
        .join(" ");
    let applied = apply::apply(&mut seen, &plan, context)
        .instrument(step("apply", &actions))
        .await;
    if let Err(error) = &applied {
        // What the log says must not run ahead of what was done.
        plan.rollout = seen.observed.status.rollout.clone();
        plan.notes.clear();
        plan.verdict = refusal(error).or(plan.verdict);
    }
    status::write(&seen, &wish, &plan, context)
        .instrument(step("status", ""))
        .await?;
    applied?;
    Ok(plan.requeue)
}

fn wish(seen: &Seen, context: &Context) -> Wish {
    let aggregation = match &seen.aggregation {
        Ok(aggregation) => aggregation,
        Err(problem) => return Wish::Invalid(vec![problem.clone()]),
    };
    let live = seen.observed.stateful_set.as_ref();
    let references = &seen.observed.references;
    let (order, obstacle) = match restore::resolve(aggregation, &seen.observed) {
        Ok(order) => (order, None),
        Err(obstacle) => (None, Some(obstacle)),
    };
    match validate::validate(aggregation, live, context.default_image.as_deref(), references, order) {
        // Nothing of a spec is begun without the restore that it asks for.
        Ok(validated) => obstacle.map_or_else(|| Wish::Valid(Box::new(build::build(&validated))), Wish::from),
        Err(problems) => Wish::Invalid(problems),
    }
}

/// A write that the API server refuses for its content will be refused again: people have to know.
fn refusal(error: &Error) -> Option<Verdict> {
    let Error::Api { source, resource, .. } = error else {
        return None;
    };
    let kube::Error::Api(answer) = source.as_ref() else {
        return None;
    };
    let hint = "; put spec.state.volume.size back, or let the storage class expand volumes (allowVolumeExpansion)";
    if resource.starts_with("persistentvolumeclaim ") && matches!(answer.code, 403 | 422) {
        return Some(Verdict {
            reason: "VolumeStuck".to_owned(),
            message: format!("{error}{hint}"),
        });
    }
    let reason = match answer.code {
        422 => "SpecInvalid",
        403 => "Forbidden",
        _ => return None,
    };
    Some(Verdict {
        reason: reason.to_owned(),
        message: error.to_string(),
    })
}

/// Errors are retried with a capped back-off; a conflict at once.
pub fn error_policy<K: Resource>(object: &Arc<K>, error: &Error, context: &Context) -> Requeue {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let delay = context.memory.delay_after(&namespace, &name, error);
    tracing::warn!(namespace, name, %error, retry_in_ms = delay.as_millis(), "reconcile failed");
    Requeue::requeue(delay)
}

/// The plan of one look, for logs.
pub(crate) fn log(seen: &Seen, plan: &Plan) {
    for action in &plan.actions {
        tracing::debug!(
            namespace = seen.namespace,
            name = seen.name,
            action = action.kind(),
            "planned"
        );
    }
}
