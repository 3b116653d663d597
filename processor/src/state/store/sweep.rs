//! The slow sweep: files of uploads that a crash cut short. Must not look at checkpoints otherwise.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStoreExt};

use super::{Store, StoreError};

impl Store {
    /// Deletes files that no manifest names and that are older than any upload under way. Returns how many.
    pub async fn sweep(&self, task: u32, now_ms: i64, age_ms: i64) -> Result<u64, StoreError> {
        // Listed before the manifests: one put meanwhile is seen, and what it names stays.
        let files: Vec<ObjectMeta> = self
            .objects
            .list(Some(&self.path(task, "files")))
            .try_collect()
            .await
            .map_err(|error| self.failed(error))?;
        let is_old = |file: &&ObjectMeta| now_ms.saturating_sub(file.last_modified.timestamp_millis()) >= age_ms;
        let old: Vec<&ObjectMeta> = files.iter().filter(is_old).collect();
        if old.is_empty() {
            return Ok(0);
        }
        let listing = self.list(task).await?;
        if !listing.unreadable.is_empty() {
            // It may name any of them.
            return Ok(0);
        }
        let named = listing.manifests.iter().flat_map(|manifest| &manifest.files);
        let named: BTreeSet<_> = named.map(|file| self.path(task, &file.object)).collect();
        let mut deleted = 0;
        for file in old.iter().filter(|file| !named.contains(&file.location)) {
            match self.objects.delete(&file.location).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => deleted += 1,
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(deleted)
    }
}
