//! Reads a checkpoint, and the aggregation it is of while something is left to do. Must not hold judgement.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use kube::Api;
use streamagg_crds::v1alpha1::StreamCheckpoint;

use super::plan::{Aggregation, Facts};
use crate::controller::Context;
use crate::controller::memory::Asked;
use crate::controller::observe::{self, Seen};
use crate::error::Error;

/// What one look gave.
pub(super) struct Look {
    pub namespace: String,
    pub facts: Facts,
    /// Token of the pods' admin API.
    pub token: Option<String>,
}

/// Looks; `None` when the object is gone.
pub(super) async fn look(namespace: &str, name: &str, context: &Context) -> Result<Option<Look>, Error> {
    let api: Api<StreamCheckpoint> = Api::namespaced(context.client.clone(), namespace);
    let got = api.get_opt(name).await;
    let Some(object) = got.map_err(|error| Error::api("get", format!("streamcheckpoint {name}"), error))? else {
        return Ok(None);
    };
    let missing = |field| Error::Incomplete {
        object: format!("streamcheckpoint {name}"),
        field,
    };
    let metadata = object.metadata;
    let mut facts = Facts {
        now: Timestamp::now(),
        name: name.to_owned(),
        uid: metadata.uid.ok_or_else(|| missing("metadata.uid"))?,
        generation: metadata.generation.unwrap_or(0),
        resource_version: metadata
            .resource_version
            .ok_or_else(|| missing("metadata.resourceVersion"))?,
        deleted_at: metadata.deletion_timestamp.map(|time| time.0),
        finalizers: metadata.finalizers.unwrap_or_default(),
        of: object.spec.aggregation,
        status: object.status.unwrap_or_default(),
        aggregation: None,
        pins: BTreeMap::new(),
    };
    let mut token = None;
    if facts.needs_aggregation()
        && let Some(seen) = observe::for_another(namespace, &facts.of, context).await?
    {
        token.clone_from(&seen.token);
        let answer = |asked, uid: &str| context.checkpoints.answer(namespace, name, asked, uid);
        let mut aggregation = aggregation(seen);
        context.checkpoints.keep_answers(namespace, name, |uid| {
            aggregation.observed.pods.iter().any(|pod| pod.uid == uid)
        });
        for pod in &mut aggregation.observed.pods {
            pod.checkpoint = answer(Asked::Checkpoint, &pod.uid);
            let pins = answer(Asked::Pins, &pod.uid).map(|pins| (pod.uid.clone(), pins));
            facts.pins.extend(pins);
        }
        facts.aggregation = Some(aggregation);
    }
    Ok(Some(Look {
        namespace: namespace.to_owned(),
        facts,
        token,
    }))
}

fn aggregation(seen: Seen) -> Aggregation {
    let spec = seen.aggregation.as_deref().ok().map(|found| &found.spec);
    Aggregation {
        uid: seen.uid,
        has_store: spec.is_none_or(|spec| spec.state.checkpoints.is_some()),
        suspended: spec.is_some_and(|spec| spec.suspend),
        observed: seen.observed,
    }
}
