//! The checkpoint store: uploads, listings, fetches and deletions on an object store or a directory.
//! Must not hold: which checkpoint is a base (`recovery`) or which may be deleted (`checkpoint`).

mod clouds;
mod sweep;
mod transfer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path as FilePath;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::Deserialize;
use streamagg_crds::resolved;

use super::checkpoint::{
    FileFormat, Kept, MANIFEST_VERSION, Manifest, RetentionRule, decision_floor, doomed_object, expired, input_floor,
    manifest_object, orphaned, pin_object, task_root,
};
use super::recovery::{Position, Reason, Stop};
pub use transfer::FetchError;

/// Error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store refused or does not answer.
    #[error("checkpoint store {place}: {error}")]
    Store {
        /// Where.
        place: String,
        /// What it said.
        error: object_store::Error,
    },
    /// A local file could not be read or written.
    #[error("checkpoint file {file}: {error}")]
    File {
        /// Which.
        file: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// The checkpoint that this one builds on was deleted meanwhile: its files may be gone, so this one was withdrawn.
    #[error("checkpoint {base} was deleted while another was built on it; the next one is made from scratch")]
    BaseGone {
        /// The base.
        base: String,
    },
    /// Files of the snapshot were deleted while it was uploaded.
    #[error(
        "snapshot {directory} lost files while it was uploaded: is its volume being deleted? There is no checkpoint of it"
    )]
    SnapshotGone {
        /// Where it was.
        directory: String,
    },
    /// An object is not what was just written.
    #[error("checkpoint store {place}: {object} has {found} bytes, {expected} were written")]
    Incomplete {
        /// Where.
        place: String,
        /// Which object.
        object: String,
        /// Bytes there.
        found: u64,
        /// Bytes written.
        expected: u64,
    },
}

/// Credentials of a store in a bucket, when they come from outside the pod's identity.
#[derive(Clone, Default)]
pub struct Credentials {
    /// Access key id of S3.
    pub access_key_id: Option<String>,
    /// Secret access key of S3.
    pub secret_access_key: Option<String>,
    /// Key of a service account of Google Cloud, a JSON document.
    pub service_account_key: Option<String>,
    /// Key of an Azure storage account.
    pub account_key: Option<String>,
}

/// A store, rooted at one job.
#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    job_id: String,
    place: String,
}

/// What a task has in the store.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Readable manifests.
    pub manifests: Vec<Manifest>,
    /// Manifests that cannot be read: id and why.
    pub unreadable: Vec<(String, String)>,
    /// Ids marked for deletion.
    pub doomed: BTreeSet<String>,
    /// Ids that somebody pins.
    pub pinned: BTreeSet<String>,
    /// Why the store could not be asked, where it seemed not to be needed.
    pub unlisted: Option<String>,
}

/// What retention did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retired {
    /// Ids of the checkpoints deleted.
    pub deleted: Vec<String>,
    /// The decision up to which no checkpoint that is left needs any; 0 where that is not known.
    pub decision_floor: u64,
    /// No checkpoint that is left needs input below this offset; absent where that is not known.
    pub input_floor: Option<i64>,
}

/// A checkpoint about to be uploaded.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Its id.
    pub id: String,
    /// The committed position of the state.
    pub position: Position,
    /// What wrote the files.
    pub format: FileFormat,
}

impl Store {
    /// Opens the store of a job. `volume_root` is where the volume of a `volume` store is mounted.
    pub fn open(
        config: &resolved::Store,
        job_id: &str,
        volume_root: Option<&FilePath>,
        credentials: &Credentials,
    ) -> Result<Self, Stop> {
        let unusable = |message: String| {
            Stop::new(
                Reason::CheckpointFailed,
                format!("spec.state.checkpoints.store: {message}; correct it"),
            )
        };
        let in_a_bucket =
            |opened: Result<clouds::Opened, object_store::Error>, prefix: &Option<String>| -> Result<Self, Stop> {
                let opened = opened.map_err(|error| unusable(error.to_string()))?;
                let prefix = prefix.as_deref().unwrap_or_default();
                Ok(Self {
                    objects: opened.objects,
                    prefix: Path::from(prefix),
                    job_id: job_id.to_owned(),
                    place: format!("{}/{prefix}", opened.place),
                })
            };
        match config {
            resolved::Store::S3(s3) => in_a_bucket(clouds::s3(s3, credentials), &s3.prefix),
            resolved::Store::Gcs(gcs) => in_a_bucket(clouds::gcs(gcs, credentials), &gcs.prefix),
            resolved::Store::Azure(azure) => in_a_bucket(clouds::azure(azure, credentials), &azure.prefix),
            resolved::Store::Volume { path, claim_name: _ } => {
                let path = path.as_deref().unwrap_or_default();
                let directory = match volume_root {
                    Some(root) => root.join(path.trim_start_matches('/')),
                    None if path.is_empty() => return Err(unusable("volume.path: is needed outside a cluster".into())),
                    None => FilePath::new(path).to_owned(),
                };
                std::fs::create_dir_all(&directory)
                    .map_err(|error| unusable(format!("volume.path {}: {error}", directory.display())))?;
                let objects = LocalFileSystem::new_with_prefix(&directory)
                    .map_err(|error| unusable(format!("volume.path {}: {error}", directory.display())))?;
                Ok(Self {
                    objects: Arc::new(objects.with_automatic_cleanup(true)),
                    prefix: Path::default(),
                    job_id: job_id.to_owned(),
                    place: directory.display().to_string(),
                })
            }
        }
    }

    fn path(&self, task: u32, object: &str) -> Path {
        let relative = format!("{}/{}/{object}", self.prefix, task_root(&self.job_id, task));
        Path::from(relative)
    }

    fn failed(&self, error: object_store::Error) -> StoreError {
        StoreError::Store {
            place: self.place.clone(),
            error,
        }
    }

    async fn names(&self, task: u32, folder: &str) -> Result<Vec<String>, StoreError> {
        let prefix = self.path(task, folder);
        let found: Vec<object_store::ObjectMeta> = self
            .objects
            .list(Some(&prefix))
            .try_collect()
            .await
            .map_err(|error| self.failed(error))?;
        let depth = prefix.parts().count();
        Ok(found
            .iter()
            .map(|meta| {
                meta.location
                    .parts()
                    .skip(depth)
                    .map(|part| part.as_ref().to_owned())
                    .collect::<Vec<_>>()
            })
            .map(|parts| parts.join("/"))
            .collect())
    }

    /// Everything of a task.
    pub async fn list(&self, task: u32) -> Result<Listing, StoreError> {
        let mut listing = Listing::default();
        for name in self.names(task, "manifests").await? {
            let id = name.trim_end_matches(".json").to_owned();
            match self.manifest(task, &id).await? {
                Some(Ok(manifest)) => listing.manifests.push(manifest),
                Some(Err(why)) => listing.unreadable.push((id, why)),
                // Deleted since it was listed.
                None => {}
            }
        }
        listing.doomed.extend(self.names(task, "doomed").await?);
        listing.pinned = self.pins(task).await?;
        Ok(listing)
    }

    /// The manifest of a checkpoint, or why it cannot be read; `None` when it is not there.
    pub async fn manifest(&self, task: u32, id: &str) -> Result<Option<Result<Manifest, String>>, StoreError> {
        match self.objects.get(&self.path(task, &manifest_object(id))).await {
            Ok(found) => {
                let bytes = found.bytes().await.map_err(|error| self.failed(error))?;
                Ok(Some(parse_manifest(&bytes, id)))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn pins(&self, task: u32) -> Result<BTreeSet<String>, StoreError> {
        let pins = self.names(task, "pins").await?;
        Ok(pins
            .iter()
            .filter_map(|name| name.split('/').next())
            .map(str::to_owned)
            .collect())
    }

    async fn has(&self, task: u32, object: &str) -> Result<bool, StoreError> {
        Ok(self.size_of(task, object).await?.is_some())
    }

    /// Bytes of an object, if it is there.
    async fn size_of(&self, task: u32, object: &str) -> Result<Option<u64>, StoreError> {
        match self.objects.head(&self.path(task, object)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Pins a checkpoint. `false`: it is gone or doomed, choose another.
    pub async fn pin(&self, task: u32, id: &str, holder: &str) -> Result<bool, StoreError> {
        let pin = self.path(task, &pin_object(id, holder));
        self.objects
            .put(&pin, PutPayload::new())
            .await
            .map_err(|error| self.failed(error))?;
        let good = self.has(task, &manifest_object(id)).await? && !self.has(task, &doomed_object(id)).await?;
        if !good {
            self.unpin(task, id, holder).await?;
        }
        Ok(good)
    }

    /// Removes a pin.
    pub async fn unpin(&self, task: u32, id: &str, holder: &str) -> Result<(), StoreError> {
        self.delete(task, &pin_object(id, holder)).await
    }

    /// Removes every pin of `holder`, whatever it pins.
    pub async fn release(&self, task: u32, holder: &str) -> Result<(), StoreError> {
        self.release_of(task, |by| by == holder).await
    }

    /// Removes the pins of all these holders.
    pub async fn release_of(&self, task: u32, is_one: impl Fn(&str) -> bool) -> Result<(), StoreError> {
        for name in self.names(task, "pins").await? {
            if let Some((id, by)) = name.split_once('/')
                && is_one(by)
            {
                self.unpin(task, id, by).await?;
            }
        }
        Ok(())
    }

    async fn delete(&self, task: u32, object: &str) -> Result<(), StoreError> {
        match self.objects.delete(&self.path(task, object)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn put_manifest(&self, task: u32, manifest: &Manifest) -> Result<(), StoreError> {
        let path = self.path(task, &manifest_object(&manifest.id));
        let bytes = serde_json::to_vec_pretty(manifest).unwrap_or_default();
        let options = PutOptions::from(PutMode::Create);
        self.objects
            .put_opts(&path, bytes.into(), options)
            .await
            .map_err(|error| self.failed(error))?;
        Ok(())
    }

    /// Whether every file of a checkpoint is there with the right size.
    pub async fn is_complete(&self, task: u32, manifest: &Manifest) -> Result<bool, StoreError> {
        for file in &manifest.files {
            if self.size_of(task, &file.object).await? != Some(file.size) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Deletes what retention allows, and finishes deletions that a crash cut short.
    pub async fn retire(
        &self,
        task: u32,
        committed: &Position,
        rule: RetentionRule,
        now_ms: i64,
    ) -> Result<Retired, StoreError> {
        let listing = self.list(task).await?;
        let mut verified = BTreeMap::new();
        for manifest in &listing.manifests {
            verified.insert(manifest.id.as_str(), self.is_complete(task, manifest).await?);
        }
        let kept: Vec<Kept<'_>> = listing
            .manifests
            .iter()
            .map(|manifest| Kept {
                manifest,
                pinned: listing.pinned.contains(&manifest.id),
                verified: verified.get(manifest.id.as_str()).copied().unwrap_or(false),
            })
            .collect();
        let mut deleted = Vec::new();
        for id in expired(&kept, committed, rule, now_ms) {
            if let Some(manifest) = listing.manifests.iter().find(|manifest| manifest.id == id)
                && self.delete_checkpoint(task, manifest).await?
            {
                deleted.push(id);
            }
        }
        let left = listing
            .manifests
            .iter()
            .filter(|manifest| !deleted.contains(&manifest.id))
            .map(|manifest| &manifest.position);
        // What cannot be read may need any decision and any input.
        let (decision_floor, input_floor) = if listing.unreadable.is_empty() {
            (decision_floor(left.clone()), input_floor(left))
        } else {
            (0, None)
        };
        Ok(Retired {
            deleted,
            decision_floor,
            input_floor,
        })
    }

    /// Deletes one checkpoint: mark, look at the pins again, manifest, then files that nobody names.
    async fn delete_checkpoint(&self, task: u32, manifest: &Manifest) -> Result<bool, StoreError> {
        let doomed = self.path(task, &doomed_object(&manifest.id));
        self.objects
            .put(&doomed, PutPayload::new())
            .await
            .map_err(|error| self.failed(error))?;
        if self.pins(task).await?.contains(&manifest.id) {
            return Ok(false);
        }
        self.delete(task, &manifest_object(&manifest.id)).await?;
        let listing = self.list(task).await?;
        if listing.unreadable.is_empty() {
            for object in orphaned(manifest, &listing.manifests) {
                self.delete(task, &object).await?;
            }
        } else {
            // An unreadable manifest may name these files: they are left to the slow sweep.
            tracing::warn!(
                task,
                id = manifest.id,
                "files of a deleted checkpoint kept: a manifest is unreadable"
            );
        }
        Ok(true)
    }
}

fn parse_manifest(bytes: &[u8], id: &str) -> Result<Manifest, String> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let found: Versioned = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if found.version != MANIFEST_VERSION {
        return Err(format!(
            "version {}, this engine reads {MANIFEST_VERSION}",
            found.version
        ));
    }
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if manifest.id == id {
        Ok(manifest)
    } else {
        Err(format!("it names itself {}", manifest.id))
    }
}

#[cfg(test)]
mod tests;
