//! Checkpoints as documents: the manifest, the names of objects, what retention may delete. Pure.
//! Must not hold: a store, a clock.

pub mod due;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use streamagg_crds::admin::CheckpointInfo;

use super::recovery::{CheckpointFact, Position};

/// Version of the manifest that this engine writes and reads.
pub const MANIFEST_VERSION: u32 = 1;

/// What wrote the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileFormat {
    /// A RocksDB database, as its own checkpoint makes it.
    RocksDB,
    /// One file of length-prefixed pairs.
    Pairs,
}

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileEntry {
    /// Name in the state directory.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of its content, hex.
    pub sha256: String,
    /// Object that holds it, relative to the task's root: its own upload's or, unchanged, an earlier one's.
    pub object: String,
}

/// A complete checkpoint of one task. It is put last, so that a checkpoint is visible only when it is whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// [`MANIFEST_VERSION`].
    pub version: u32,
    /// Id, unique within the task.
    pub id: String,
    /// The committed position that the state stands at: job, task, uid and lineage chain included.
    pub position: Position,
    /// What wrote the files.
    pub format: FileFormat,
    /// When it was completed, ms since the Unix epoch.
    pub completed_at_ms: i64,
    /// Checkpoint whose objects it shares.
    pub base: Option<String>,
    /// Its files.
    pub files: Vec<FileEntry>,
}

impl Manifest {
    /// As the start-up table sees it.
    pub fn fact(&self) -> CheckpointFact {
        CheckpointFact {
            id: self.id.clone(),
            position: self.position.clone(),
        }
    }

    /// As the admin API reports it.
    pub fn info(&self) -> CheckpointInfo {
        CheckpointInfo {
            id: self.id.clone(),
            epoch: self.position.epoch,
            input_offset: self.position.engine_position.input_offset,
            completed_at_ms: self.completed_at_ms,
            bytes: self.files.iter().map(|file| file.size).sum(),
        }
    }

    /// The object that already holds `name` with this content, if this checkpoint has it.
    pub fn object_of(&self, name: &str, size: u64, sha256: &str) -> Option<&str> {
        self.files
            .iter()
            .find(|file| file.name == name && file.size == size && file.sha256 == sha256)
            .map(|file| file.object.as_str())
    }
}

/// Id of a checkpoint: ordered by epoch for people, unique by `random`.
pub fn checkpoint_id(epoch: u64, random: u32) -> String {
    format!("{epoch:012}-{random:08x}")
}

/// Root of a task's objects below the store's prefix.
pub fn task_root(job_id: &str, task: u32) -> String {
    format!("{job_id}/tasks/{task}")
}

/// Manifest of checkpoint `id`, relative to the task's root.
pub fn manifest_object(id: &str) -> String {
    format!("manifests/{id}.json")
}

/// File `name` uploaded for checkpoint `id`. Never shared by name between uploads: a file may be deleted only when no
/// manifest names its object, and no upload can revive an object by chance.
pub fn file_object(id: &str, name: &str) -> String {
    format!("files/{id}/{name}")
}

/// Mark of a checkpoint that is being deleted; never removed.
pub fn doomed_object(id: &str) -> String {
    format!("doomed/{id}")
}

/// Pin of checkpoint `id` held by `holder`.
pub fn pin_object(id: &str, holder: &str) -> String {
    format!("pins/{id}/{holder}")
}

/// Longest name that a caller gives an object.
const NAME_LENGTH_MAX: usize = 63;

/// Whether a caller's text can name an object in the store: it stays where it is put.
pub fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=NAME_LENGTH_MAX).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(allowed)
}

/// A checkpoint as retention sees it.
#[derive(Clone, Debug)]
pub struct Kept<'a> {
    /// Its manifest.
    pub manifest: &'a Manifest,
    /// Somebody holds a pin.
    pub pinned: bool,
    /// All its files are there with the right sizes.
    pub verified: bool,
}

/// What a job allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionRule {
    /// At most so many.
    pub count: usize,
    /// None older than this.
    pub age_ms: Option<i64>,
}

/// Ids that may be deleted: beyond count or age, but never what is pinned nor the newest verified one on the chain of
/// the committed position. `kept` is in any order.
pub fn expired(kept: &[Kept<'_>], committed: &Position, rule: RetentionRule, now_ms: i64) -> Vec<String> {
    let mut newest_first: Vec<&Kept<'_>> = kept.iter().collect();
    newest_first.sort_by_key(|kept| {
        let position = &kept.manifest.position;
        std::cmp::Reverse((position.epoch, position.place(), kept.manifest.completed_at_ms))
    });
    let needed = newest_first
        .iter()
        .filter(|kept| {
            let position = &kept.manifest.position;
            kept.verified && committed.descends_from(&position.lineage, position.place())
        })
        .max_by_key(|kept| (kept.manifest.position.place(), kept.manifest.completed_at_ms))
        .map(|kept| kept.manifest.id.as_str());
    newest_first
        .iter()
        .enumerate()
        .filter(|(rank, kept)| {
            let old = rule
                .age_ms
                .is_some_and(|age_ms| now_ms - kept.manifest.completed_at_ms > age_ms);
            (*rank >= rule.count || old) && !kept.pinned && needed != Some(kept.manifest.id.as_str())
        })
        .map(|(_, kept)| kept.manifest.id.clone())
        .collect()
}

/// The decision up to which none is needed any more, by the positions of all checkpoints that are left: a replay begins
/// at one of them. Without a checkpoint it begins at birth, and all are needed.
pub fn decision_floor<'a>(kept: impl Iterator<Item = &'a Position>) -> u64 {
    kept.map(|position| position.control_seq).min().unwrap_or(0)
}

/// The input offset below which none is needed any more, by the positions of all checkpoints that are left. Without a
/// checkpoint a replay begins at birth, and all is needed.
pub fn input_floor<'a>(kept: impl Iterator<Item = &'a Position>) -> Option<i64> {
    kept.map(|position| position.engine_position.input_offset).min()
}

/// Objects of `deleted` that none of `remaining`, listed after its manifest was deleted, names.
pub fn orphaned(deleted: &Manifest, remaining: &[Manifest]) -> Vec<String> {
    let named: BTreeSet<&str> = remaining
        .iter()
        .flat_map(|manifest| manifest.files.iter().map(|file| file.object.as_str()))
        .collect();
    deleted
        .files
        .iter()
        .filter(|file| !named.contains(file.object.as_str()))
        .map(|file| file.object.clone())
        .collect()
}

#[cfg(test)]
mod tests;
