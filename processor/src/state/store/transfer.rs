//! Files between a snapshot directory and the store, with digests.
//! Must not hold: when or which.

use std::path::Path as FilePath;

use futures::StreamExt;
use object_store::ObjectStoreExt;
use object_store::buffered::BufWriter;
use sha2::{Digest, Sha256};
use tokio::fs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Draft, Store, StoreError};
use crate::state::checkpoint::{FileEntry, MANIFEST_VERSION, Manifest, file_object, manifest_object};

/// Bytes read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Why a checkpoint could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A file is missing or is not what the manifest says: this checkpoint is refused, an older one may do.
    #[error("checkpoint {id} is damaged: {what}")]
    Damaged {
        /// The checkpoint.
        id: String,
        /// Which file, and what is wrong with it.
        what: String,
    },
    /// It was deleted while it was fetched: retention of another process, which kept a newer one. List again.
    #[error("checkpoint {id} was deleted while it was fetched")]
    Retired {
        /// The checkpoint.
        id: String,
    },
    /// Passing trouble.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn file_error(path: &FilePath, error: std::io::Error) -> StoreError {
    StoreError::File {
        file: path.display().to_string(),
        error,
    }
}

async fn digest_of(path: &FilePath) -> Result<(u64, String), StoreError> {
    let mut file = fs::File::open(path).await.map_err(|error| file_error(path, error))?;
    let (mut hasher, mut size) = (Sha256::new(), 0);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = file.read(&mut chunk).await.map_err(|error| file_error(path, error))?;
        if read == 0 {
            return Ok((size, hex::encode(hasher.finalize())));
        }
        size += read as u64;
        hasher.update(&chunk[..read]);
    }
}

async fn files_of(directory: &FilePath) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    let mut entries = fs::read_dir(directory)
        .await
        .map_err(|error| file_error(directory, error))?;
    while let Some(entry) = entries
        .next_entry()
        .await
        .map_err(|error| file_error(directory, error))?
    {
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

impl Store {
    /// Uploads the files of `directory` that `base` does not have (or has no longer, or with another size), then the
    /// manifest. The checkpoint exists once this returned; before, nothing of it is visible. `before_manifest` runs between the files and the manifest.
    pub async fn upload(
        &self,
        task: u32,
        directory: &FilePath,
        draft: Draft,
        base: Option<&Manifest>,
        now_ms: impl Fn() -> i64,
        before_manifest: impl Fn(),
    ) -> Result<Manifest, StoreError> {
        let mut files = Vec::new();
        let names = files_of(directory).await?;
        for name in names.clone() {
            let path = directory.join(&name);
            let (size, sha256) = digest_of(&path).await?;
            let shared = base.and_then(|base| base.object_of(&name, size, &sha256));
            let object = match shared {
                Some(object) if self.size_of(task, object).await? == Some(size) => object.to_owned(),
                Some(_) | None => {
                    if let Some(damaged) = shared {
                        tracing::warn!(
                            task,
                            object = damaged,
                            "stored file is damaged or gone, uploading it again"
                        );
                    }
                    let object = file_object(&draft.id, &name);
                    self.put_file(task, &path, &object, size).await?;
                    object
                }
            };
            files.push(FileEntry {
                name,
                size,
                sha256,
                object,
            });
        }
        before_manifest();
        // Somebody may be deleting the volume under us: what was listed then is a part of the snapshot only.
        if files_of(directory).await? != names {
            return Err(StoreError::SnapshotGone {
                directory: directory.display().to_string(),
            });
        }
        let manifest = Manifest {
            version: MANIFEST_VERSION,
            id: draft.id,
            position: draft.position,
            format: draft.format,
            completed_at_ms: now_ms(),
            base: base.map(|base| base.id.clone()),
            files,
        };
        self.put_manifest(task, &manifest).await?;
        if let Some(base) = base
            && !self.has(task, &manifest_object(&base.id)).await?
        {
            self.delete(task, &manifest_object(&manifest.id)).await?;
            return Err(StoreError::BaseGone { base: base.id.clone() });
        }
        Ok(manifest)
    }

    async fn put_file(&self, task: u32, path: &FilePath, object: &str, size: u64) -> Result<(), StoreError> {
        let location = self.path(task, object);
        let mut file = fs::File::open(path).await.map_err(|error| file_error(path, error))?;
        let mut writer = BufWriter::new(std::sync::Arc::clone(&self.objects), location);
        let copied = tokio::io::copy(&mut file, &mut writer).await;
        let written = match copied {
            Ok(_) => writer.shutdown().await,
            Err(error) => Err(error),
        };
        written.map_err(|error| StoreError::File {
            file: format!("{} → {object}", path.display()),
            error,
        })?;
        let found = self.size_of(task, object).await?.unwrap_or_default();
        if found == size {
            Ok(())
        } else {
            let (place, object) = (self.place.clone(), object.to_owned());
            Err(StoreError::Incomplete {
                place,
                object,
                found,
                expected: size,
            })
        }
    }

    /// Fetches a checkpoint into `directory`, which is emptied first, and verifies every digest. `progress` is told the
    /// share done, 0–1.
    pub async fn fetch(
        &self,
        task: u32,
        manifest: &Manifest,
        directory: &FilePath,
        progress: impl Fn(f64),
    ) -> Result<(), FetchError> {
        match self.fetch_files(task, manifest, directory, progress).await {
            // A manifest goes before its files: what looks like damage may be retention.
            Err(FetchError::Damaged { id, .. }) if !self.has(task, &manifest_object(&id)).await? => {
                Err(FetchError::Retired { id })
            }
            other => other,
        }
    }

    async fn fetch_files(
        &self,
        task: u32,
        manifest: &Manifest,
        directory: &FilePath,
        progress: impl Fn(f64),
    ) -> Result<(), FetchError> {
        crate::state::local::remove(directory).map_err(|error| file_error(directory, error))?;
        fs::create_dir_all(directory)
            .await
            .map_err(|error| file_error(directory, error))?;
        let total: u64 = manifest.files.iter().map(|file| file.size).sum::<u64>().max(1);
        let mut done = 0;
        for file in &manifest.files {
            // A manifest is data from outside: a name never leaves the directory.
            if file.name.contains(['/', '\\']) || file.name.starts_with("..") {
                let what = format!("file name {:?}", file.name);
                return Err(FetchError::Damaged {
                    id: manifest.id.clone(),
                    what,
                });
            }
            self.fetch_file(task, manifest, file, &directory.join(&file.name))
                .await?;
            done += file.size;
            #[expect(clippy::cast_precision_loss, reason = "a share for people")]
            progress(done as f64 / total as f64);
        }
        Ok(())
    }

    async fn fetch_file(
        &self,
        task: u32,
        manifest: &Manifest,
        entry: &FileEntry,
        path: &FilePath,
    ) -> Result<(), FetchError> {
        let damaged = |what: String| FetchError::Damaged {
            id: manifest.id.clone(),
            what,
        };
        let found = match self.objects.get(&self.path(task, &entry.object)).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => {
                return Err(damaged(format!("{} is missing", entry.object)));
            }
            Err(error) => return Err(self.failed(error).into()),
        };
        let mut file = fs::File::create(path).await.map_err(|error| file_error(path, error))?;
        let mut hasher = Sha256::new();
        let mut chunks = found.into_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| self.failed(error))?;
            hasher.update(&chunk);
            file.write_all(&chunk).await.map_err(|error| file_error(path, error))?;
        }
        file.flush().await.map_err(|error| file_error(path, error))?;
        if hex::encode(hasher.finalize()) == entry.sha256 {
            Ok(())
        } else {
            Err(damaged(format!(
                "{} has another digest than the manifest says",
                entry.object
            )))
        }
    }
}
