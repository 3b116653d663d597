//! Where a task stands in its log: a pure function of the records consumed and the decisions obeyed.
//! Must not hold: lineage, generation or epoch (they belong to the protocol, not to the engine).

use serde::{Deserialize, Serialize};

use super::operator::merge::Cut;
use crate::core::share::{Share, Shed};

/// Watermark of a task that has seen no event.
pub const NO_WATERMARK: i64 = i64::MIN;

/// Position of a task after its last record. Two owners at the same position have byte-equal state and outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaskPosition {
    /// Next input offset.
    pub input_offset: i64,
    /// Records consumed since birth (offsets may have gaps).
    pub input_count: u64,
    /// Running hash over offset, length and the first and last bytes of every record consumed.
    pub input_hash: u64,
    /// Outputs since birth: results, late and dead records.
    pub output_seq: u64,
    /// Running hash over the bytes of every output, in order.
    pub output_hash: u64,
    /// Watermark in ms since the epoch, [`NO_WATERMARK`] before the first event.
    pub watermark_ms: i64,
    /// `pane.revision` of the results from here on.
    pub result_revision: u32,
    /// The share of the records that is kept from here on, and what is remembered of smaller ones; absent: nothing was shed.
    /// Of a window task: what all source partitions have said of theirs.
    #[serde(default, skip_serializing_if = "Shed::is_nothing")]
    pub shed: Shed,
}

impl TaskPosition {
    /// The position of a task that starts at `input_offset`.
    pub fn start(input_offset: i64) -> Self {
        Self {
            input_offset,
            input_count: 0,
            input_hash: 0,
            output_seq: 0,
            output_hash: 0,
            watermark_ms: NO_WATERMARK,
            result_revision: 0,
            shed: Shed::NOTHING,
        }
    }
}

/// A decision record: what is not in the log but changes the state, pinned to the input offset before which it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Decision {
    /// Obeyed when the task's next input offset is this one, before that record is looked at.
    pub input_offset: i64,
    /// What was decided.
    pub kind: DecisionKind,
}

/// Kinds of decision records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum DecisionKind {
    /// The partition was idle: the watermark advances to this time, in ms since the epoch.
    IdleAdvance {
        /// New watermark; ignored if it is not above the present one.
        watermark_ms: i64,
    },
    /// The next record's time was further ahead of the clock than `maxFutureSkew`: it is a dead letter.
    FutureSkew {
        /// What the clock said, ms since the epoch.
        now_ms: i64,
    },
    /// Processing time has come here: triggers by processing time fire.
    Tick {
        /// The clock of whoever decided, in ms since the epoch; at most one tick counts for a time.
        now_ms: i64,
    },
    /// The task is behind, or is so no more: from here on it keeps this share of the records.
    Share(Share),
    /// Of a window task that a user's rewind took back: a source partition was taken back with it.
    Cut(Cut),
}
