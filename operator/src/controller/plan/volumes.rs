//! Volumes that grow: first every bound claim, then the StatefulSet, whose claim templates cannot change, is replaced
//! while its pods run on. Each step is keyed on UID and repeatable, and none needs a pod that works: a full disk or a
//! pending pod must not stand in the way. Must not shrink or delete a volume.

use super::{Action, Note, Plan, Propagation};
use crate::controller::desired::Desired;
use crate::controller::observed::{ClaimFacts, Observed, StatefulSetFacts};

/// Plans the next step; whether the StatefulSet is about to be replaced, so that nothing else may change it.
pub fn plan(desired: &Desired, observed: &Observed, set: &StatefulSetFacts, plan: &mut Plan) -> bool {
    let Some(wanted) = &desired.volume else { return false };
    for claim in too_small(desired, observed) {
        plan.actions.push(Action::GrowClaim {
            name: claim.name.clone(),
            resource_version: claim.resource_version.clone(),
            size: wanted.size.clone(),
        });
    }
    if !plan.actions.is_empty() {
        plan.notes.push(Note {
            warning: false,
            reason: "VolumesGrow".to_owned(),
            subject: format!("generation-{}", observed.generation),
            message: format!("volumes grow to {}", wanted.size),
        });
    }
    let outdated = set.volume.as_ref().is_some_and(|live| live.bytes < wanted.bytes);
    if outdated && plan.actions.is_empty() {
        plan.actions.push(Action::DeleteStatefulSet {
            uid: set.uid.clone(),
            propagation: Propagation::Orphan,
        });
    }
    outdated
}

/// Bound claims that ask for less than the spec says. A claim that is not bound cannot change; it is looked at again
/// once it is.
fn too_small<'a>(desired: &'a Desired, observed: &'a Observed) -> impl Iterator<Item = &'a ClaimFacts> {
    let bytes = desired.volume.as_ref().map_or(0, |wanted| wanted.bytes);
    observed
        .claims
        .iter()
        .filter(move |claim| in_use(claim, observed) && claim.phase == "Bound" && claim.requested_bytes < bytes)
}

/// Whether a pod has it or is about to.
pub fn in_use(claim: &ClaimFacts, observed: &Observed) -> bool {
    let replicas = observed.stateful_set.as_ref().map_or(0, |set| set.replicas);
    let has_pod = observed.pods.iter().any(|pod| pod.ordinal == claim.ordinal);
    !claim.deleting && (claim.ordinal < replicas || has_pod)
}

/// What keeps the volumes from having the size of the spec.
pub fn pending(desired: &Desired, observed: &Observed) -> Option<String> {
    let wanted = desired.volume.as_ref()?;
    let set = observed.stateful_set.as_ref();
    let small =
        |claim: &&ClaimFacts| in_use(claim, observed) && claim.phase == "Bound" && claim.capacity_bytes < wanted.bytes;
    if let Some(claim) = observed.claims.iter().find(small) {
        return Some(format!("volumes grow to {}; waiting for {}", wanted.size, claim.name));
    }
    let outdated = set
        .and_then(|set| set.volume.as_ref())
        .is_some_and(|live| live.bytes < wanted.bytes);
    outdated.then(|| {
        format!(
            "volumes grow to {}; the StatefulSet is replaced, its pods run on",
            wanted.size
        )
    })
}
