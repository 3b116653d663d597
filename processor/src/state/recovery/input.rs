//! What a task's input looks like when it starts up, and whether it is the one that was consumed. Pure.
//! Must not hold: what follows from it (`startup`).

use super::position::Position;
use super::problem::{Reason, Stop};

/// What re-reading the last consumed record showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastInputCheck {
    /// There is none yet, or retention has removed it.
    Skipped,
    /// Same digest.
    Same,
    /// Another record stands at that offset, or none although the log covers it.
    Different,
}

/// The input partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputLog {
    /// First offset still there.
    pub start: i64,
    /// One past the last committed record.
    pub end: i64,
    /// Partitions of the topic.
    pub partitions: u32,
}

/// What to do when unread input has been deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnTruncated {
    /// Stop with `InputTruncated`.
    #[default]
    Stop,
    /// Go on behind the gap, but only from K on.
    Skip,
}

/// The input is not what `consumed` says of it.
pub(super) fn recreated(log: InputLog, last_input: LastInputCheck, consumed: &Position) -> Option<Stop> {
    let offset = consumed.engine_position.input_offset;
    let what = if log.end < offset {
        format!("it ends at offset {}, the job has consumed up to {offset}", log.end)
    } else {
        match last_input {
            LastInputCheck::Skipped | LastInputCheck::Same => return None,
            LastInputCheck::Different => format!("the last record consumed before offset {offset} is another one now"),
        }
    };
    Some(Stop::new(
        Reason::InputRecreated,
        format!("the source topic is not the one that was consumed: {what}; start a job with another jobId"),
    ))
}
