//! Where a valid manifest keeps its checkpoints. Must not open anything.

use crate::v1alpha1::{S3Store, StreamAggregationSpec};

/// Where checkpoints are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// A bucket.
    S3(S3Store),
    /// A directory of a shared volume.
    Volume {
        /// Claim of the volume; needed in a cluster.
        claim_name: Option<String>,
        /// Directory within it.
        path: Option<String>,
    },
}

/// The store of checkpoints of a valid spec, when there is one.
pub fn store(spec: &StreamAggregationSpec) -> Option<Store> {
    let store = &spec.state.checkpoints.as_ref()?.store;
    match (&store.s3, &store.volume) {
        (Some(s3), _) => Some(Store::S3(s3.clone())),
        (None, Some(volume)) => Some(Store::Volume {
            claim_name: volume.claim_name.clone(),
            path: volume.path.clone(),
        }),
        (None, None) => None,
    }
}
