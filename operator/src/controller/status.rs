//! Step `status`: writes status and write-ahead log in one conditional write, and publishes events.
//! Must not hold what the status says (`plan::conditions`).

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use serde_json::json;
use streamagg_crds::v1alpha1::{API_VERSION, KIND, StreamAggregation, StreamAggregationStatus};

use super::Context;
use super::observe::Seen;
use super::plan::{Note, Plan, Wish, conditions};
use crate::error::Error;
use crate::names::FIELD_MANAGER;

/// Fast-moving figures reach the status at most this often; metrics have them at once.
const FIGURES_INTERVAL: Duration = Duration::from_secs(15);
/// The API allows notes of 1,024 bytes.
const NOTE_LENGTH_MAX: usize = 900;

/// Writes the status if it says anything new. The write carries the resourceVersion that was read: two writers of
/// one field manager would overwrite each other's write-ahead log silently.
///
/// # Errors
/// When the API server refuses; `Conflict` when the object changed since it was read.
pub async fn write(seen: &Seen, wish: &Wish, plan: &Plan, context: &Context) -> Result<(), Error> {
    let Seen {
        namespace,
        name,
        observed,
        ..
    } = seen;
    let status = conditions::status(name, wish, observed, plan);
    context.metrics.show(namespace, name, &status);
    if !due(&observed.status, &status, seen, context) {
        context.memory.succeeded(namespace, name);
        return Ok(());
    }
    let api: Api<StreamAggregation> = Api::namespaced(context.client.clone(), namespace);
    let document = json!({
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "resourceVersion": seen.resource_version},
        "status": status,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let written = api.patch_status(name, &params, &Patch::Apply(&document)).await;
    match written {
        Ok(written) => {
            let version = written.metadata.resource_version;
            context.memory.status_written(namespace, name, version.as_deref());
        }
        // Deleted meanwhile: there is nobody left to tell.
        Err(kube::Error::Api(answer)) if answer.code == 404 => {
            context.forget(namespace, name);
            return Ok(());
        }
        Err(error) => return Err(Error::api("patch", format!("streamaggregation/status {name}"), error)),
    }
    count(&observed.status, &status, plan, context);
    context.memory.succeeded(namespace, name);
    let mut notes = plan.notes.clone();
    notes.extend(conditions::notes(&observed.status, &status));
    let regarding = ObjectReference {
        api_version: Some(API_VERSION.to_owned()),
        kind: Some(KIND.to_owned()),
        name: Some(seen.name.clone()),
        namespace: Some(seen.namespace.clone()),
        uid: Some(seen.uid.clone()),
        ..ObjectReference::default()
    };
    publish(&regarding, &notes, context).await;
    Ok(())
}

fn due(old: &StreamAggregationStatus, new: &StreamAggregationStatus, seen: &Seen, context: &Context) -> bool {
    if old == new {
        return false;
    }
    // The log is written whenever it changes; the rest may wait if only figures moved.
    let still = |status: &StreamAggregationStatus| {
        let counts = status.tasks.as_ref().map(|tasks| (tasks.count, tasks.running));
        (
            counts,
            StreamAggregationStatus {
                tasks: None,
                ..status.clone()
            },
        )
    };
    still(old) != still(new)
        || context
            .memory
            .figures_due(&seen.namespace, &seen.name, FIGURES_INTERVAL)
}

/// A rollout that was under way and is no more has ended, one way or another.
fn count(old: &StreamAggregationStatus, new: &StreamAggregationStatus, plan: &Plan, context: &Context) {
    let Some(ended) = &old.rollout else { return };
    let outcome = match &new.rollout {
        Some(next) if next.id == ended.id => return,
        Some(_) => "Superseded",
        None if plan.completed => "Completed",
        None => "Aborted",
    };
    let kind = format!("{:?}", ended.kind);
    context.metrics.rollouts.with_label_values(&[&kind, outcome]).inc();
}

/// A lost event never fails a reconcile.
pub(crate) async fn publish(regarding: &ObjectReference, notes: &[Note], context: &Context) {
    for note in notes {
        tracing::info!(
            namespace = regarding.namespace,
            kind = regarding.kind,
            name = regarding.name,
            reason = note.reason,
            note.message,
            "decision"
        );
        let event = Event {
            type_: if note.warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: note.reason.clone(),
            note: Some(note.message.chars().take(NOTE_LENGTH_MAX).collect()),
            action: note.subject.clone(),
            secondary: None,
        };
        if let Err(error) = context.recorder.publish(&event, regarding).await {
            tracing::debug!(%error, "event not published");
        }
    }
}
