//! Removes files that uploads left which never ended: a crash between the first file and the manifest.
//! Must not hold: which files those are (`checkpoint`).

use futures::TryStreamExt;

use super::{Store, StoreError};
use crate::state::checkpoint::{StoredFile, abandoned};

impl Store {
    /// Removes what nobody names and nobody can be uploading any more. Returns how many files that were.
    pub async fn sweep(&self, task: u32, now_ms: i64) -> Result<usize, StoreError> {
        let prefix = self.path(task, "files");
        let depth = prefix.parts().count();
        let found: Vec<object_store::ObjectMeta> = self
            .objects
            .list(Some(&prefix))
            .try_collect()
            .await
            .map_err(|error| self.failed(error))?;
        let files: Vec<StoredFile> = found
            .iter()
            .map(|meta| {
                let parts = meta.location.parts().skip(depth);
                let name = parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
                StoredFile {
                    object: format!("files/{name}"),
                    written_ms: meta.last_modified.timestamp_millis(),
                }
            })
            .collect();
        // In this order: see `abandoned`.
        let listing = self.list(task).await?;
        if !listing.unreadable.is_empty() {
            // One of these may name any file.
            return Ok(0);
        }
        let abandoned = abandoned(&files, &listing.manifests, now_ms);
        for object in &abandoned {
            self.delete(task, object).await?;
        }
        Ok(abandoned.len())
    }
}
