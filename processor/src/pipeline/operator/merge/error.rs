//! What a window task refuses. Must not decide what becomes of the task.

use crate::pipeline::shuffle;

/// A record of the shuffle topic that this task cannot take. The task stops: to go on would lose or repeat events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShuffleError {
    /// Written by another engine.
    #[error("shuffle record at offset {offset}: its format is {found}, this engine reads {known}; run the engine that wrote it", known = shuffle::FORMAT)]
    Format {
        /// Of the record.
        offset: i64,
        /// Version of the format.
        found: u8,
    },
    /// Not written by a combine task at all, or damaged.
    #[error("shuffle record at offset {offset}: {what} is damaged; only this job may write to its shuffle topic")]
    Damaged {
        /// Of the record.
        offset: i64,
        /// Which part of it.
        what: &'static str,
    },
    /// Its rows are those of another spec, which the present one cannot read.
    #[error("shuffle record at offset {offset}: it was written under other windows, keys or aggregates; {why}")]
    Layout {
        /// Of the record.
        offset: i64,
        /// Why it cannot be read.
        why: Unreadable,
    },
    /// A source partition went on in another history.
    #[error(
        "shuffle record at offset {offset}: source partition {source_partition} writes history {found:?} and this task knows {known:?}: \
         no rewind that it was told of leads there, so the control topic has lost commits; restore it, or go back to a checkpoint \
         under a higher nonce"
    )]
    Lineage {
        /// Of the record.
        offset: i64,
        /// Number of the source partition.
        source_partition: u32,
        /// Lineage of the record.
        found: String,
        /// Lineage so far.
        known: String,
    },
    /// A record came twice, or records out of order.
    #[error(
        "shuffle record at offset {offset}: source partition {source_partition} repeats sequence {found} (the last was \
         {last}): the topic is not the one that was read, or the control topic has lost commits of the first stage; a rewind leads \
         out"
    )]
    Sequence {
        /// Of the record.
        offset: i64,
        /// Number of the source partition.
        source_partition: u32,
        /// Sequence of the record.
        found: u64,
        /// The last one taken.
        last: u64,
    },
}

/// Why partials of another spec cannot be read under the present one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The source partition has left the task's spec behind.
    #[error(
        "source partition {source_partition} has gone on from this task's spec to that one, so it is newer: restart this \
         pod with the newer spec. If the spec was put back, apply the newer one again until this task has read what was \
         written under it"
    )]
    Newer {
        /// Number of the source partition.
        source_partition: u32,
    },
    /// The present spec cannot follow it.
    #[error("{why}")]
    Apart {
        /// What differs, and what to do.
        why: String,
    },
    /// Nothing says what the layout is: too many specs ago, or not written by a combine task.
    #[error(
        "nothing before it says which, or that was too many changes of the spec ago; go back to the spec that wrote it"
    )]
    Untold,
}

/// A rewind of a source partition that a window task cannot follow. Checkpoints of a job take the window tasks first, and
/// all of them between the same rewinds, so that none is ahead of the positions that the combine tasks go back to, or of
/// another history.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CutRefused {
    /// It has merged what the rewind takes back.
    #[error(
        "source partition {source_partition} goes back to sequence {sequence}, and this task has taken {taken}; restore it \
         to the same checkpoint first"
    )]
    Merged {
        /// Number of the source partition.
        source_partition: u32,
        /// The last sequence taken.
        taken: u64,
        /// The last one that holds.
        sequence: u64,
    },
    /// It knows nothing of that history there.
    #[error(
        "source partition {source_partition} goes back to sequence {sequence} of history {parent}, which this task knows \
         {known} of; restore both to one checkpoint"
    )]
    Apart {
        /// Number of the source partition.
        source_partition: u32,
        /// The history that the rewind leaves.
        parent: String,
        /// The last sequence of it that holds.
        sequence: u64,
        /// What the task knows of it.
        known: String,
    },
}
