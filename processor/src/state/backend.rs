//! What the engine demands of a state store. Pure; implementations are `memory` and (feature `runtime`) `rocksdb`.
//! Must not hold: key formats (`codec`) or when a batch is applied (the executor).

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Error of a state store. Every one is fatal for the task: it closes and starts up again from what is durable.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The store refused or failed.
    #[error("state store: {message}")]
    Store {
        /// What failed, with the path where there is one.
        message: String,
    },
    /// A stored value cannot be read back.
    #[error("state is damaged: {what}; remove the state directory to restore from the newest checkpoint")]
    Corrupt {
        /// Which value, and what is wrong with it.
        what: String,
    },
    /// The spec changed in a way that the state cannot follow.
    #[error(
        "the state does not fit the changed spec: {what}; undo the change, or give the job a new jobId to start afresh"
    )]
    Incompatible {
        /// What changed.
        what: String,
    },
    /// The state was written by a newer or unknown format.
    #[error("state format {found} is not readable by this engine (it reads {readable}); run the engine that wrote it")]
    Format {
        /// Format tag found.
        found: u32,
        /// Format tag that this engine reads.
        readable: u32,
    },
}

/// One change of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// Set `key` to `value`.
    Put {
        /// Key bytes.
        key: &'a [u8],
        /// Value bytes.
        value: &'a [u8],
    },
    /// Remove `key` if it is there.
    Delete {
        /// Key bytes.
        key: &'a [u8],
    },
    /// Remove every key in `[from, to)`.
    DeleteRange {
        /// First key.
        from: &'a [u8],
        /// First key not removed.
        to: &'a [u8],
    },
}

#[derive(Clone, Debug)]
enum Operation {
    Put { key: Range<usize>, value: Range<usize> },
    Delete { key: Range<usize> },
    DeleteRange { from: Range<usize>, to: Range<usize> },
}

/// The changes of one epoch, in the order in which they must be applied. One buffer, no allocation per change.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    bytes: Vec<u8>,
    operations: Vec<Operation>,
}

impl Changes {
    fn push(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        let key = self.push(key);
        let value = self.push(value);
        self.operations.push(Operation::Put { key, value });
    }

    /// Removes `key`.
    pub fn delete(&mut self, key: &[u8]) {
        let key = self.push(key);
        self.operations.push(Operation::Delete { key });
    }

    /// Removes every key in `[from, to)`.
    pub fn delete_range(&mut self, from: &[u8], to: &[u8]) {
        let from = self.push(from);
        let to = self.push(to);
        self.operations.push(Operation::DeleteRange { from, to });
    }

    /// The changes in order.
    pub fn iter(&self) -> impl Iterator<Item = Change<'_>> {
        self.operations.iter().map(|operation| match operation {
            Operation::Put { key, value } => Change::Put {
                key: &self.bytes[key.clone()],
                value: &self.bytes[value.clone()],
            },
            Operation::Delete { key } => Change::Delete {
                key: &self.bytes[key.clone()],
            },
            Operation::DeleteRange { from, to } => Change::DeleteRange {
                from: &self.bytes[from.clone()],
                to: &self.bytes[to.clone()],
            },
        })
    }

    /// Number of changes.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there is nothing to apply.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Bytes of keys and values held.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets the changes, keeps the buffers.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.operations.clear();
    }
}

/// What a scan calls with each key and value; an error ends it.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), Error> + 'a;

/// A store of one task's state.
///
/// Required: **order** — `scan` visits keys in ascending byte order; **atomicity** — after `apply` returned or the
/// process died in it, either all changes are there or none; **durability** — what `apply` accepted survives the death
/// of the process (not necessarily of the machine: local state is only a prefix of the committed position, and a
/// checkpoint or replay supplies the rest). A failed `apply` leaves the store unusable until it is opened again.
pub trait Backend {
    /// Value of `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;

    /// Visits every pair whose key starts with `prefix`, in ascending order; the first error ends the visit.
    fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), Error>;

    /// As [`Self::scan`], of each of these prefixes in turn; they ascend, and few keys have one.
    fn scan_each(&self, prefixes: &[Vec<u8>], visit: &mut Visit<'_>) -> Result<(), Error> {
        prefixes.iter().try_for_each(|prefix| self.scan(prefix, visit))
    }

    /// Applies all changes in order, atomically.
    fn apply(&mut self, changes: &Changes) -> Result<(), Error>;
}

/// A store that a task reads while it runs. It answers what was applied last.
#[derive(Clone)]
pub struct Reader(Arc<dyn Backend + Send + Sync>);

impl Reader {
    /// Reads from this store.
    pub fn new(store: Arc<dyn Backend + Send + Sync>) -> Self {
        Self(store)
    }

    /// The store, to read.
    pub fn backend(&self) -> &dyn Backend {
        &*self.0
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Reader")
    }
}
