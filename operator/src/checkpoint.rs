//! The controller of `StreamCheckpoint`s: `observe → plan → apply → status`, as for aggregations. Decisions are in `plan`.
//! Must not hold them, nor anything about an aggregation but looking at it.

mod apply;
mod observe;
pub mod plan;
mod status;

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::runtime::controller::Action as Requeue;
use kube::{Resource, ResourceExt};
use streamagg_crds::v1alpha1::CHECKPOINT_KIND;
use tracing::Instrument;

use crate::controller::Context;
use crate::error::Error;
use crate::telemetry;

/// When to look again at an object that is not there; its watch tells earlier.
const GONE: Duration = Duration::from_secs(3600);

/// One reconcile, counted; see [`reconcile_once`].
///
/// # Errors
/// When the cluster could not be read or written.
pub async fn reconcile<K: Resource>(object: Arc<K>, context: Arc<Context>) -> Result<Requeue, Error> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let started = Instant::now();
    let span = telemetry::reconcile_span(CHECKPOINT_KIND, &namespace, &name);
    let outcome = reconcile_once(&namespace, &name, &context)
        .instrument(span.clone())
        .await;
    telemetry::end(&span, outcome.as_ref().err());
    context.metrics.reconciled(outcome.as_ref().err(), started.elapsed());
    outcome.map(Requeue::requeue)
}

/// One look at the checkpoint `namespace/name`; answers when to look again.
///
/// # Errors
/// See [`reconcile`].
pub async fn reconcile_once(namespace: &str, name: &str, context: &Context) -> Result<Duration, Error> {
    let Some(mut seen) = observe::look(namespace, name, context).await? else {
        context.checkpoints.forget(namespace, name);
        return Ok(GONE);
    };
    let plan = plan::plan(&seen.facts);
    apply::apply(&mut seen, &plan, context).await?;
    status::write(&seen, &plan, context).await?;
    if plan.is_over() {
        context.checkpoints.forget(namespace, name);
    } else {
        context.checkpoints.succeeded(namespace, name);
    }
    Ok(plan.requeue)
}

/// Errors are tried again with the aggregations' back-off; a conflict at once.
pub fn error_policy<K: Resource>(object: &Arc<K>, error: &Error, context: &Context) -> Requeue {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let delay = context.checkpoints.delay_after(&namespace, &name, error);
    tracing::warn!(namespace, checkpoint = name, %error, retry_in_ms = delay.as_millis(), "reconcile failed");
    Requeue::requeue(delay)
}
