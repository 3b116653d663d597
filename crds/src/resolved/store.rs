//! Where a valid manifest keeps its checkpoints. Must not open anything.

use crate::v1alpha1::{AzureStore, GcsStore, S3Store, StreamAggregationSpec};

/// Where checkpoints are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// A bucket.
    S3(S3Store),
    /// A bucket of Google Cloud Storage.
    Gcs(GcsStore),
    /// A container of Azure Blob Storage.
    Azure(AzureStore),
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
    // Exactly one is given: the rules see to it.
    let s3 = store.s3.clone().map(Store::S3);
    let gcs = store.gcs.clone().map(Store::Gcs);
    let azure = store.azure.clone().map(Store::Azure);
    let volume = store.volume.as_ref().map(|volume| Store::Volume {
        claim_name: volume.claim_name.clone(),
        path: volume.path.clone(),
    });
    s3.or(gcs).or(azure).or(volume)
}
