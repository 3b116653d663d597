//! Why a task does not run: the stable reasons, and what ends the wait.
//! Must not hold: how a problem was found.

use streamagg_crds::admin::Problem;

/// Reasons as published in status and conditions. Names are stable API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// State or checkpoints are ahead of the committed position: the control topic was damaged.
    CommittedPositionBehindState,
    /// The control topic belongs to another incarnation of the job.
    IdentityInUse,
    /// No base of the chain reproduces the committed position.
    ReplayDiverged,
    /// No base is left and the log does not reach back to birth.
    StateLost,
    /// Input that was not yet processed has been deleted.
    InputTruncated,
    /// The source topic is not the one that was consumed.
    InputRecreated,
    /// The source topic has another number of partitions than at birth.
    PartitionsChanged,
    /// A topic does not exist and cannot be created.
    TopicMissing,
    /// The source topic is compacted: records vanish that a replay needs.
    TopicCompacted,
    /// The topic between two stages loses records by its settings.
    TopicUnsuitable,
    /// The broker refused an operation for lack of rights.
    KafkaUnauthorized,
    /// The broker does not answer.
    KafkaUnreachable,
    /// The sink takes no transaction.
    SinkFailing,
    /// Too many records are bad.
    TooManyBadRecords,
    /// The state directory is full.
    DiskFull,
    /// The state directory cannot be used for another reason.
    StateUnusable,
    /// The state was written by a format that this engine does not read.
    IncompatibleState,
    /// Another process holds this volume.
    VolumeInUse,
    /// The checkpoint store does not answer or refuses.
    CheckpointFailed,
    /// The user's restore cannot be carried out.
    RestoreFailed,
    /// The job file or its values cannot be used.
    SpecInvalid,
}

/// What ends a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// A person acts and restarts the pod, or a higher generation arrives.
    Restart,
    /// It may pass by itself or by somebody's act elsewhere: the task tries again, slowly.
    Retry,
}

impl Reason {
    /// The name as published.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CommittedPositionBehindState => "CommittedPositionBehindState",
            Self::IdentityInUse => "IdentityInUse",
            Self::ReplayDiverged => "ReplayDiverged",
            Self::StateLost => "StateLost",
            Self::InputTruncated => "InputTruncated",
            Self::InputRecreated => "InputRecreated",
            Self::PartitionsChanged => "PartitionsChanged",
            Self::TopicMissing => "TopicMissing",
            Self::TopicCompacted => "TopicCompacted",
            Self::TopicUnsuitable => "TopicUnsuitable",
            Self::KafkaUnauthorized => "KafkaUnauthorized",
            Self::KafkaUnreachable => "KafkaUnreachable",
            Self::SinkFailing => "SinkFailing",
            Self::TooManyBadRecords => "TooManyBadRecords",
            Self::DiskFull => "DiskFull",
            Self::StateUnusable => "StateUnusable",
            Self::IncompatibleState => "IncompatibleState",
            Self::VolumeInUse => "VolumeInUse",
            Self::CheckpointFailed => "CheckpointFailed",
            Self::RestoreFailed => "RestoreFailed",
            Self::SpecInvalid => "SpecInvalid",
        }
    }

    /// Whether waiting can help.
    pub fn until(self) -> Until {
        match self {
            Self::CommittedPositionBehindState
            | Self::IdentityInUse
            | Self::ReplayDiverged
            | Self::StateLost
            | Self::InputTruncated
            | Self::InputRecreated
            | Self::PartitionsChanged
            | Self::TopicCompacted
            | Self::TooManyBadRecords
            | Self::IncompatibleState
            | Self::RestoreFailed
            | Self::SpecInvalid => Until::Restart,
            Self::TopicMissing
            | Self::TopicUnsuitable
            | Self::KafkaUnauthorized
            | Self::KafkaUnreachable
            | Self::SinkFailing
            | Self::DiskFull
            | Self::StateUnusable
            | Self::VolumeInUse
            | Self::CheckpointFailed => Until::Retry,
        }
    }
}

/// A stop: a reason and a sentence that says what happened and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", reason.as_str())]
pub struct Stop {
    /// Stable reason.
    pub reason: Reason,
    /// For people.
    pub message: String,
}

impl Stop {
    /// A stop with `reason` and `message`.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }

    /// As reported by the admin API.
    pub fn problem(&self) -> Problem {
        Problem {
            reason: self.reason.as_str().to_owned(),
            message: self.message.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names are in the status of objects, in alerts and in people's scripts.
    #[test]
    fn names_and_what_ends_a_stop_are_as_published() {
        for (reason, name, until) in [
            (
                Reason::CommittedPositionBehindState,
                "CommittedPositionBehindState",
                Until::Restart,
            ),
            (Reason::IdentityInUse, "IdentityInUse", Until::Restart),
            (Reason::ReplayDiverged, "ReplayDiverged", Until::Restart),
            (Reason::StateLost, "StateLost", Until::Restart),
            (Reason::InputTruncated, "InputTruncated", Until::Restart),
            (Reason::InputRecreated, "InputRecreated", Until::Restart),
            (Reason::PartitionsChanged, "PartitionsChanged", Until::Restart),
            (Reason::TopicMissing, "TopicMissing", Until::Retry),
            (Reason::TopicCompacted, "TopicCompacted", Until::Restart),
            (Reason::KafkaUnauthorized, "KafkaUnauthorized", Until::Retry),
            (Reason::KafkaUnreachable, "KafkaUnreachable", Until::Retry),
            (Reason::SinkFailing, "SinkFailing", Until::Retry),
            (Reason::TooManyBadRecords, "TooManyBadRecords", Until::Restart),
            (Reason::DiskFull, "DiskFull", Until::Retry),
            (Reason::StateUnusable, "StateUnusable", Until::Retry),
            (Reason::IncompatibleState, "IncompatibleState", Until::Restart),
            (Reason::VolumeInUse, "VolumeInUse", Until::Retry),
            (Reason::CheckpointFailed, "CheckpointFailed", Until::Retry),
            (Reason::RestoreFailed, "RestoreFailed", Until::Restart),
            (Reason::SpecInvalid, "SpecInvalid", Until::Restart),
        ] {
            let stop = Stop::new(reason, "what to do");
            assert_eq!((stop.problem().reason.as_str(), stop.reason.until()), (name, until));
            assert_eq!(stop.to_string(), format!("{name}: what to do"));
        }
    }
}
