//! Local state L of a task: its directory, the backend in it, and the position it stands at.
//! Must not hold: whether L may be trusted (`recovery`).

use std::fs;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use streamagg_crds::v1alpha1::Backend as BackendKind;

use super::backend::{Backend, Changes, Error, Reader, Visit};
use super::checkpoint::FileFormat;
use super::memory::MemoryBackend;
use super::recovery::{Local, Position, Reason, Stop};
use super::rocksdb::{RocksBackend, Shared};
use super::room::{Shortage, Volume};

/// Key of the position document; keys of the engine lie below 0x40.
const POSITION_KEY: &[u8] = &[0x40];
/// File of a checkpoint of memory state.
const PAIRS_FILE: &str = "pairs.bin";

/// State of one task, behind one of the backends.
pub enum LocalState {
    /// In memory; gone with the process.
    Memory(MemoryBackend),
    /// On the volume.
    Rocks(RocksBackend),
}

impl Backend for LocalState {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        match self {
            Self::Memory(backend) => backend.get(key),
            Self::Rocks(backend) => backend.get(key),
        }
    }

    fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), Error> {
        match self {
            Self::Memory(backend) => backend.scan(prefix, visit),
            Self::Rocks(backend) => backend.scan(prefix, visit),
        }
    }

    fn apply(&mut self, changes: &Changes) -> Result<(), Error> {
        match self {
            Self::Memory(backend) => backend.apply(changes),
            Self::Rocks(backend) => backend.apply(changes),
        }
    }
}

impl LocalState {
    /// For a task that keeps nothing.
    pub fn none() -> Self {
        Self::Memory(MemoryBackend::default())
    }

    /// The position that the state stands at.
    pub fn position(&self) -> Result<Option<Position>, Error> {
        let Some(bytes) = self.get(POSITION_KEY)? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| Error::Corrupt {
                what: format!("position of local state: {error}"),
            })
    }

    /// For a task whose rows leave memory; state in memory has no use for that.
    pub fn reader(&self) -> Option<Reader> {
        match self {
            Self::Memory(_) => None,
            Self::Rocks(backend) => Some(Reader::new(Arc::new(backend.clone()))),
        }
    }

    /// Adds the position to the changes that bring the state there.
    pub fn put_position(changes: &mut Changes, position: &Position) {
        // Serialising this plain type cannot fail; were it to, the state would be found damaged and replaced.
        changes.put(POSITION_KEY, &serde_json::to_vec(position).unwrap_or_default());
    }

    /// Begins what makes a snapshot quick and small, beside the work that goes on.
    pub fn prepare_snapshot(&self) -> Result<(), Error> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Rocks(backend) => backend.begin_flush(),
        }
    }

    /// Whether that is done. A snapshot holds everything also where it is not.
    pub fn is_prepared(&self) -> Result<bool, Error> {
        match self {
            Self::Memory(_) => Ok(true),
            Self::Rocks(backend) => backend.is_flushed(),
        }
    }

    /// Writes a copy of the state into `directory`, which must not exist.
    pub fn snapshot(&self, directory: &Path) -> Result<FileFormat, Error> {
        match self {
            Self::Rocks(backend) => backend.snapshot(directory).map(|()| FileFormat::RocksDB),
            Self::Memory(backend) => write_pairs(backend, directory)
                .map(|()| FileFormat::Pairs)
                .map_err(|error| Error::Store {
                    message: format!("{}: {error}", directory.display()),
                }),
        }
    }
}

fn write_pairs(backend: &MemoryBackend, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut file = BufWriter::new(fs::File::create(directory.join(PAIRS_FILE))?);
    let mut failed = None;
    let scanned = backend.scan(&[], &mut |key, value| {
        for part in [key, value] {
            let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
            let written = file
                .write_all(&length.to_le_bytes())
                .and_then(|()| file.write_all(part));
            if let Err(error) = written {
                failed.get_or_insert(error);
            }
        }
        Ok(())
    });
    match (scanned, failed) {
        (Ok(()), None) => file.flush(),
        (Err(error), _) => Err(io::Error::other(error.to_string())),
        (Ok(()), Some(error)) => Err(error),
    }
}

fn read_pairs(directory: &Path) -> io::Result<MemoryBackend> {
    let mut file = BufReader::new(fs::File::open(directory.join(PAIRS_FILE))?);
    let (mut backend, mut changes) = (MemoryBackend::default(), Changes::default());
    while let Some(key) = read_part(&mut file)? {
        let value = read_part(&mut file)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        changes.put(&key, &value);
    }
    backend
        .apply(&changes)
        .map_err(|error| io::Error::other(error.to_string()))?;
    Ok(backend)
}

fn read_part(file: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match file.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut part = vec![0; usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX)];
    file.read_exact(&mut part)?;
    Ok(Some(part))
}

/// The stop that a failure of local state means.
pub fn stop_of(error: &Error, directory: &Path) -> Stop {
    let place = directory.display();
    let reason = match error {
        Error::Incompatible { .. } | Error::Format { .. } => Reason::IncompatibleState,
        Error::Corrupt { .. } => Reason::StateUnusable,
        Error::Store { message } if is_full(message) => {
            let message = format!("no space left in state directory {place}: enlarge the volume; {message}");
            return Stop::new(Reason::DiskFull, message);
        }
        Error::Store { message } if message.contains("/LOCK:") => {
            let message = format!("state directory {place} is held by another process of this pod; {message}");
            return Stop::new(Reason::VolumeInUse, message);
        }
        Error::Store { .. } => Reason::StateUnusable,
    };
    Stop::new(reason, error.to_string())
}

fn is_full(message: &str) -> bool {
    message.contains("No space left") || message.contains("os error 28") || message.contains("quota exceeded")
}

/// The place of one task on the volume.
#[derive(Clone)]
pub struct TaskDirectory {
    root: PathBuf,
    kind: BackendKind,
    shared: Shared,
}

/// The directory is this process's until this is dropped.
pub struct Hold(#[expect(dead_code, reason = "its lock is what counts")] fs::File);

/// What opening the directory gave.
pub struct Opened {
    /// The state; absent when it is damaged.
    pub state: Option<LocalState>,
    /// What start-up is told.
    pub local: Local,
}

impl TaskDirectory {
    /// The directory of `task` below the data directory.
    pub fn new(data_directory: &Path, task: u32, kind: BackendKind, shared: Shared) -> Self {
        Self {
            root: data_directory.join("tasks").join(task.to_string()),
            kind,
            shared,
        }
    }

    /// The task's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Takes the directory, before anything there or in the name of the task is touched: of two processes with the same volume
    /// the second must not fence the first.
    ///
    /// # Errors
    /// `VolumeInUse` while another has it.
    pub fn hold(&self) -> Result<Hold, Stop> {
        fs::create_dir_all(&self.root).map_err(|error| self.unusable(&error))?;
        let mut options = fs::File::options();
        options.create(true).truncate(false).write(true);
        let create = || {
            options
                .open(self.root.join("held"))
                .map_err(|error| self.unusable(&error))
        };
        let file = match create() {
            // Remains may be what fills it.
            Err(stop) if stop.reason == Reason::DiskFull => {
                self.clear_remains()?;
                create()?
            }
            created => created?,
        };
        match file.try_lock() {
            Ok(()) => Ok(Hold(file)),
            Err(fs::TryLockError::WouldBlock) => {
                let place = self.root.display();
                let message = format!("state directory {place} is held by another process of this pod; tried again");
                Err(Stop::new(Reason::VolumeInUse, message))
            }
            Err(fs::TryLockError::Error(error)) => Err(self.unusable(&error)),
        }
    }

    /// Whether the volume has room for `more` bytes and for what is kept free. What does not say how full it is, has.
    ///
    /// # Errors
    /// `DiskFull`, with the directory, what is missing and the field that helps.
    pub fn check_room(&self, more: u64, was_full: bool) -> Result<(), Stop> {
        match (self.kind, volume_of(&self.root)) {
            (BackendKind::RocksDB, Some(volume)) => {
                let judged = volume.judge(more, was_full);
                judged.map_err(|shortage| self.full(volume, shortage))
            }
            (BackendKind::RocksDB, None) | (BackendKind::Memory, _) => Ok(()),
        }
    }

    fn full(&self, volume: Volume, shortage: Shortage) -> Stop {
        let mib = |bytes: u64| bytes >> 20;
        Stop::new(
            Reason::DiskFull,
            format!(
                "the volume of state directory {} has {} MiB of {} MiB free, {} MiB are needed: stopped before it is \
                 full; enlarge spec.state.volume.size or free some, the task then goes on by itself",
                self.root.display(),
                mib(shortage.free),
                mib(volume.size),
                mib(shortage.needed),
            ),
        )
    }

    fn database(&self) -> PathBuf {
        self.root.join("db")
    }

    /// Where a checkpoint is fetched to before it is installed.
    pub fn staging(&self) -> PathBuf {
        self.root.join("restoring")
    }

    /// Where the snapshot for checkpoint `id` is made.
    pub fn snapshot(&self, id: &str) -> PathBuf {
        self.root.join("snapshots").join(id)
    }

    fn unusable(&self, error: &io::Error) -> Stop {
        let message = format!("{}: {error}", self.root.display());
        stop_of(&Error::Store { message }, &self.root)
    }

    /// Removes what an upload or a fetch left that was cut short.
    pub fn clear_remains(&self) -> Result<(), Stop> {
        for remains in [self.root.join("snapshots"), self.staging()] {
            remove(&remains).map_err(|error| self.unusable(&error))?;
        }
        Ok(())
    }

    /// Opens what is there, or makes empty state.
    pub fn open(&self) -> Result<Opened, Stop> {
        fs::create_dir_all(&self.root).map_err(|error| self.unusable(&error))?;
        self.clear_remains()?;
        let state = match self.kind {
            BackendKind::Memory => LocalState::Memory(MemoryBackend::default()),
            BackendKind::RocksDB => match RocksBackend::open(&self.database(), &self.shared) {
                Ok(backend) => LocalState::Rocks(backend),
                Err(Error::Corrupt { what }) => {
                    return Ok(Opened {
                        state: None,
                        local: Local::Damaged(what),
                    });
                }
                Err(error) => return Err(stop_of(&error, &self.root)),
            },
        };
        match state.position() {
            Ok(Some(position)) => Ok(Opened {
                state: Some(state),
                local: Local::Held(Box::new(position)),
            }),
            Ok(None) => Ok(Opened {
                state: Some(state),
                local: Local::Absent,
            }),
            Err(Error::Corrupt { what }) => Ok(Opened {
                state: None,
                local: Local::Damaged(what),
            }),
            Err(error) => Err(stop_of(&error, &self.root)),
        }
    }

    /// Removes the state, which must be closed, and makes an empty one.
    pub fn discard(&self) -> Result<LocalState, Stop> {
        remove(&self.database()).map_err(|error| self.unusable(&error))?;
        match self.open()?.state {
            Some(state) => Ok(state),
            None => Err(Stop::new(
                Reason::StateUnusable,
                format!(
                    "state directory {} cannot be emptied: remove it by hand",
                    self.root.display()
                ),
            )),
        }
    }

    /// Opens what was fetched to [`Self::staging`] where it is, to look at it.
    pub fn open_staged(&self, format: FileFormat) -> Result<LocalState, Error> {
        match (self.kind, format) {
            (BackendKind::RocksDB, FileFormat::RocksDB) => {
                RocksBackend::open(&self.staging(), &self.shared).map(LocalState::Rocks)
            }
            (BackendKind::Memory, FileFormat::Pairs) => {
                let read = read_pairs(&self.staging());
                read.map(LocalState::Memory).map_err(|error| Error::Corrupt {
                    what: format!("checkpoint: {error}"),
                })
            }
            (BackendKind::RocksDB, FileFormat::Pairs) | (BackendKind::Memory, FileFormat::RocksDB) => {
                Err(Error::Corrupt {
                    what: "checkpoint was made by another state backend".to_owned(),
                })
            }
        }
    }

    /// Puts the files fetched to [`Self::staging`] in the place of the state, which must be closed.
    pub fn install(&self, format: FileFormat) -> Result<LocalState, Error> {
        let failed = |error: io::Error| Error::Store {
            message: format!("{}: {error}", self.root.display()),
        };
        match (self.kind, format) {
            (BackendKind::RocksDB, FileFormat::RocksDB) => {
                remove(&self.database()).map_err(failed)?;
                fs::rename(self.staging(), self.database()).map_err(failed)?;
                RocksBackend::open(&self.database(), &self.shared).map(LocalState::Rocks)
            }
            (BackendKind::Memory, _) | (BackendKind::RocksDB, FileFormat::Pairs) => {
                let state = self.open_staged(format)?;
                remove(&self.staging()).map_err(failed)?;
                Ok(state)
            }
        }
    }
}

/// The volume that a directory lies on, or will.
pub fn volume_of(directory: &Path) -> Option<Volume> {
    let there = directory.ancestors().find(|path| path.exists())?;
    let found = rustix::fs::statvfs(there).ok()?;
    Some(Volume {
        free: found.f_bavail.saturating_mul(found.f_frsize),
        size: found.f_blocks.saturating_mul(found.f_frsize),
    })
}

/// Removes a directory and what is in it, if it is there.
pub fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
