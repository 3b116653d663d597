//! The controller: one call a step, in the order of the modules. Decisions are in the pure steps, effects in
//! `observe`, `apply` and `status`. Must not hold either.

pub mod apply;
pub mod build;
pub mod desired;
#[cfg(test)]
mod fixtures;
pub mod memory;
pub mod observe;
pub mod observed;
pub mod plan;
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

use crate::admin_client::AdminClient;
use crate::error::Error;
use crate::metrics::Metrics;
use memory::Memory;
use observe::Seen;
use plan::{Plan, Verdict, Wish};

/// Base address of a pod's admin server, once it can have one.
pub type Resolver = Arc<dyn Fn(&Pod) -> Option<String> + Send + Sync>;

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
}

impl fmt::Debug for Context {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Context")
            .field("default_image", &self.default_image)
            .finish_non_exhaustive()
    }
}

/// One look at one aggregation:
/// 1. observe (clients), 2. validate, 3. build, 4. plan (pure), 5. apply, 6. status (clients).
///
/// # Errors
/// When the cluster could not be read or written; the status is written first if at all possible.
pub async fn reconcile<K>(object: Arc<K>, context: Arc<Context>) -> Result<Requeue, Error>
where
    K: Resource,
{
    let started = Instant::now();
    let outcome = reconcile_once(&object.namespace().unwrap_or_default(), &object.name_any(), &context).await;
    let label = outcome.as_ref().map_or_else(Error::kind, |_| "ok");
    context.metrics.reconciles.with_label_values(&[label]).inc();
    context
        .metrics
        .reconcile_seconds
        .with_label_values(&[label])
        .observe(started.elapsed().as_secs_f64());
    outcome.map(Requeue::requeue)
}

/// One look at `namespace/name`; answers when to look again.
///
/// # Errors
/// See [`reconcile`].
pub async fn reconcile_once(namespace: &str, name: &str, context: &Context) -> Result<Duration, Error> {
    let Some(mut seen) = observe::observe(namespace, name, context).await? else {
        context.memory.forget(namespace, name);
        return Ok(Duration::from_secs(3600));
    };
    let wish = wish(&seen, context);
    let mut plan = plan::plan(&wish, &seen.observed);
    let applied = apply::apply(&mut seen, &plan, context).await;
    if let Err(error) = &applied {
        // What the log says must not run ahead of what was done.
        plan.rollout = seen.observed.status.rollout.clone();
        plan.notes.clear();
        plan.verdict = refusal(error).or(plan.verdict);
    }
    status::write(&seen, &wish, &plan, context).await?;
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
    match validate::validate(aggregation, live, context.default_image.as_deref(), references) {
        Ok(validated) => Wish::Valid(Box::new(build::build(&validated))),
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
    let delay = match error {
        Error::Conflict { .. } => Duration::from_millis(200),
        Error::Api { .. } | Error::Incomplete { .. } | Error::Document { .. } => {
            context.memory.next_backoff(&namespace, &name)
        }
    };
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
