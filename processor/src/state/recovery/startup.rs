//! The start-up table: from what was found to what is done, before anything is done.
//! Must not hold: how facts are gathered or a decision is carried out.

use super::input::recreated;
pub use super::input::{InputLog, LastInputCheck, OnTruncated};
use super::position::{Birth, Owner, Place, Position};
use super::problem::{Reason, Stop};
use super::rewind::{self, Order};

/// Local state as found on the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Local {
    /// No state of any job.
    Absent,
    /// State with its position document.
    Held(Box<Position>),
    /// Something that cannot be read; it is discarded.
    Damaged(String),
}

/// A checkpoint whose manifest could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointFact {
    /// Id within the task.
    pub id: String,
    /// Position it holds.
    pub position: Position,
}

/// A state from which the committed position can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// Local state.
    Local,
    /// The checkpoint with this id.
    Checkpoint(String),
    /// Empty state at the start offset.
    Birth,
}

/// Why a base was tried and put aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Replay from it did not reproduce K.
    Diverged,
    /// It is damaged or cannot be read.
    Unreadable,
    /// The control topic has lost decisions between it and K.
    DecisionsGone,
}

/// Everything the decision depends on.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Who asks.
    pub owner: &'a Owner,
    /// K, read to the end of the control partition after initialising.
    pub committed: Option<&'a Position>,
    /// The birth record.
    pub birth: Option<&'a Birth>,
    /// L.
    pub local: &'a Local,
    /// Every S with a readable manifest, in any order.
    pub checkpoints: &'a [CheckpointFact],
    /// The input partition.
    pub log: InputLog,
    /// Digest check of the last consumed record.
    pub last_input: LastInputCheck,
    /// The job's rule for deleted input.
    pub on_truncated: OnTruncated,
    /// Bases tried in this start-up and put aside.
    pub refused: &'a [(Base, Refusal)],
    /// The user's order to go back to a checkpoint, carried out or not.
    pub order: Option<Order<'a>>,
    /// At-least-once delivery: `committed` follows the state (`recovery::at_least_once`), which cannot be ahead of it.
    pub local_is_truth: bool,
}

/// How K is reached from the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The base is K.
    GoOn,
    /// Replay with output suppressed; the hashes must match.
    Replay,
    /// Rebuild with output suppressed, then fork a new lineage: another revision or engine wrote K.
    Rebuild,
}

/// How a task goes on from a committed position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Commit K again with the own generation first.
    pub claim: bool,
    /// Local state belongs to something else: remove it.
    pub discard_local: Option<String>,
    /// Where to begin.
    pub base: Base,
    /// Place of the base.
    pub from: Place,
    /// How to reach K.
    pub how: How,
    /// First offset to read after K, when the input between was deleted and may be skipped.
    pub skip_to: Option<i64>,
}

/// The decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Startup {
    /// Nothing of this job exists: commit birth and the first position.
    Birth {
        /// Local state belongs to something else: remove it.
        discard_local: Option<String>,
    },
    /// A later owner exists: wait for an assignment of at least this generation.
    Release {
        /// Generation of K.
        generation: u64,
    },
    /// Fetch and verify this checkpoint, then commit it as K, in a new lineage.
    Rewind {
        /// Commit K again with the own generation first.
        claim: bool,
        /// Id of the checkpoint.
        checkpoint: String,
    },
    /// Go on from K.
    Resume(Resume),
    /// Stop.
    Stop(Stop),
}

/// The start-up table of the protocol, top to bottom.
pub fn decide(facts: &Facts<'_>) -> Startup {
    if let Some(birth) = facts.birth
        && birth.partitions != facts.log.partitions
    {
        return stop(
            Reason::PartitionsChanged,
            format!(
                "the source topic had {} partitions when the job began and has {} now, so that keys moved between \
                 partitions, and Kafka takes none away; start a job with another jobId",
                birth.partitions, facts.log.partitions
            ),
        );
    }
    let order = rewind::pending(facts);
    if let Some(not_mine) = (facts.committed).and_then(|committed| of_another(facts.owner, committed, order.is_some()))
    {
        return not_mine;
    }
    // The user's way out of what follows: whatever K, L and S say of each other, they come behind that checkpoint.
    if let Some(order) = order {
        return rewind::decide(facts, &order);
    }
    let Some(committed) = facts.committed else {
        return without_position(facts);
    };
    if !facts.local_is_truth
        && let Some(ahead) = ahead_of(facts, committed)
    {
        return stop(
            Reason::CommittedPositionBehindState,
            format!(
                "{ahead} is ahead of the committed position at offset {}: the control topic has lost commits, and \
                 going on would publish results twice; restore the control topic, go back to a checkpoint, or start a job \
                 with another jobId",
                committed.engine_position.input_offset
            ),
        );
    }
    if let Some(stop) = recreated(facts.log, facts.last_input, committed) {
        return Startup::Stop(stop);
    }
    resume(facts, committed)
}

pub(super) fn stop(reason: Reason, message: String) -> Startup {
    Startup::Stop(Stop::new(reason, message))
}

/// K is of another job, which a user may order to go on with, or of a later owner.
fn of_another(owner: &Owner, committed: &Position, is_ordered: bool) -> Option<Startup> {
    if (committed.uid != owner.uid && !is_ordered) || committed.job_id != owner.job_id {
        return Some(stop(
            Reason::IdentityInUse,
            format!(
                "the control topic belongs to job {} with uid {}, this one has uid {}; choose another jobId, go on with that \
                 job by restoring a checkpoint of it under a nonce above {}, or delete the control topic if it is gone for good",
                committed.job_id, committed.uid, owner.uid, committed.restore_nonce
            ),
        ));
    }
    (committed.generation > owner.generation).then_some(Startup::Release {
        generation: committed.generation,
    })
}

fn without_position(facts: &Facts<'_>) -> Startup {
    let local = match facts.local {
        Local::Held(position) if is_own(facts, position) => Some("local state".to_owned()),
        Local::Held(_) | Local::Absent | Local::Damaged(_) => None,
    };
    let stored = facts
        .checkpoints
        .iter()
        .find(|checkpoint| is_own(facts, &checkpoint.position))
        .map(|checkpoint| format!("checkpoint {}", checkpoint.id));
    if let Some(found) = local.or(stored) {
        return stop(
            Reason::CommittedPositionBehindState,
            format!(
                "{found} of this job exists but the control topic holds no position: it was deleted or emptied, and \
                 going on would publish results twice; restore the control topic, go back to a checkpoint, or start a job \
                 with another jobId"
            ),
        );
    }
    Startup::Birth {
        discard_local: foreign_local(facts, None),
    }
}

/// Whether a position is of this task, or of one that it goes on with.
pub(super) fn is_own(facts: &Facts<'_>, position: &Position) -> bool {
    let Owner { uid, job_id, task, .. } = facts.owner;
    let mut committed = facts.committed.iter().filter(|committed| committed.uid == *uid);
    let is_mine = position.uid == *uid || committed.any(|committed| committed.adopted.contains(&position.uid));
    is_mine && position.job_id == *job_id && position.task == *task
}

/// Why local state is not this task's, if it is not.
fn foreign_local(facts: &Facts<'_>, committed: Option<&Position>) -> Option<String> {
    match facts.local {
        Local::Absent => None,
        Local::Damaged(what) => Some(format!("it is damaged: {what}")),
        Local::Held(position) if !is_own(facts, position) => Some(format!(
            "it belongs to task {} of job {} (uid {})",
            position.task, position.job_id, position.uid
        )),
        Local::Held(position) => match committed {
            Some(committed) if !committed.descends_from(&position.lineage, position.place()) => Some(format!(
                "it is of lineage {}, which the committed one, {}, does not have in its past at offset {}",
                position.lineage, committed.lineage, position.engine_position.input_offset
            )),
            Some(_) | None => None,
        },
    }
}

/// L or an S of K's lineage that is ahead of K, or one of behind a rewind that K does not know.
fn ahead_of(facts: &Facts<'_>, committed: &Position) -> Option<String> {
    let ahead = |position: &Position| is_own(facts, position) && position.is_ahead_of(committed);
    if let Local::Held(position) = facts.local
        && ahead(position)
    {
        return Some(format!(
            "the state of this pod, at offset {},",
            position.engine_position.input_offset
        ));
    }
    facts
        .checkpoints
        .iter()
        .find(|checkpoint| ahead(&checkpoint.position))
        .map(|checkpoint| {
            format!(
                "checkpoint {} at offset {}",
                checkpoint.id, checkpoint.position.engine_position.input_offset
            )
        })
}

/// A base in the order in which bases are tried.
struct Candidate<'a> {
    base: Base,
    position: Option<&'a Position>,
    place: Place,
}

fn candidates<'a>(facts: &Facts<'a>, committed: &Position) -> Vec<Candidate<'a>> {
    let mut found = Vec::new();
    if let Local::Held(position) = facts.local
        && is_own(facts, position)
        && committed.descends_from(&position.lineage, position.place())
    {
        found.push(Candidate {
            base: Base::Local,
            position: Some(position.as_ref()),
            place: position.place(),
        });
    }
    for checkpoint in facts.checkpoints {
        let position = &checkpoint.position;
        if is_own(facts, position) && committed.descends_from(&position.lineage, position.place()) {
            found.push(Candidate {
                base: Base::Checkpoint(checkpoint.id.clone()),
                position: Some(position),
                place: position.place(),
            });
        }
    }
    // Newest first; stable, so that L comes before an S at the same place: it needs no fetch.
    found.sort_by_key(|candidate| std::cmp::Reverse(candidate.place));
    if let Some(birth) = facts.birth {
        let place = Place {
            input_count: 0,
            control_seq: 0,
            input_offset: birth.start_offset,
        };
        found.push(Candidate {
            base: Base::Birth,
            position: None,
            place,
        });
    }
    // Decisions up to the floor may be gone from the control topic.
    found.retain(|candidate| candidate.place.control_seq >= committed.decision_floor);
    // A base at K's place with other hashes is no prefix of K.
    found.retain(|candidate| {
        candidate.place < committed.place()
            || candidate
                .position
                .is_none_or(|position| committed.same_state(&position.engine_position, position.control_seq))
    });
    found.retain(|candidate| facts.refused.iter().all(|(base, _)| *base != candidate.base));
    found
}

fn resume(facts: &Facts<'_>, committed: &Position) -> Startup {
    let found = candidates(facts, committed);
    let Some(chosen) = found.first() else {
        return nothing_left(facts, "no local state, no checkpoint, and birth cannot be replayed");
    };
    let at_committed = chosen.place == committed.place();
    // Only decisions lie between: no input is needed.
    let same_records = chosen.place.input_count == committed.engine_position.input_count;
    let base_unread_from = chosen.position.map_or(chosen.place.input_offset, Position::unread_from);
    let unread_from = if same_records {
        base_unread_from.max(committed.unread_from())
    } else {
        base_unread_from
    };
    // What was deleted is skipped: markers and aborted records only, or what `onTruncated` allows below.
    let skip_to = (facts.log.start > committed.engine_position.input_offset).then_some(facts.log.start);
    if facts.log.start > unread_from {
        match (facts.on_truncated, same_records, &chosen.base) {
            (_, false, Base::Birth) => {
                return nothing_left(facts, "the log does not reach back to where the job began");
            }
            (OnTruncated::Stop, _, _) => return truncated(facts, unread_from),
            (OnTruncated::Skip, false, _) => {
                return nothing_left(
                    facts,
                    "input between the newest state and the committed position was deleted",
                );
            }
            (OnTruncated::Skip, true, _) => {}
        }
    }
    let same_writer = committed.revision == facts.owner.revision && committed.engine == facts.owner.engine;
    let since = (committed.revision_since, committed.decisions_since);
    let how = if at_committed {
        How::GoOn
    } else if same_writer && (chosen.place.input_count, chosen.place.control_seq) >= since {
        How::Replay
    } else {
        How::Rebuild
    };
    Startup::Resume(Resume {
        claim: committed.generation < facts.owner.generation,
        discard_local: foreign_local(facts, Some(committed)),
        base: chosen.base.clone(),
        from: chosen.place,
        how,
        skip_to,
    })
}

fn truncated(facts: &Facts<'_>, unread_from: i64) -> Startup {
    stop(
        Reason::InputTruncated,
        format!(
            "the input log starts at offset {}, the newest state ends at {unread_from}: records between were deleted \
             unread; lengthen the topic's retention; to go on without them set onTruncated: Skip, or start \
             a job with another jobId",
            facts.log.start
        ),
    )
}

fn nothing_left(facts: &Facts<'_>, why: &str) -> Startup {
    if facts.refused.iter().any(|(_, refusal)| *refusal == Refusal::Diverged) {
        return stop(
            Reason::ReplayDiverged,
            "replay from every base gave other results than were committed; keep the checkpoints and the control \
             topic, and report this as a defect of the engine"
                .to_owned(),
        );
    }
    if facts
        .refused
        .iter()
        .any(|(_, refusal)| *refusal == Refusal::DecisionsGone)
    {
        return stop(
            Reason::CommittedPositionBehindState,
            format!(
                "{why}: the control topic has lost decision records that are needed on the way to the committed position; \
                 restore the control topic, bring back the volume or a newer checkpoint, or go back to a checkpoint"
            ),
        );
    }
    stop(
        Reason::StateLost,
        format!("{why}; bring back the volume or the checkpoint store, or start a job with another jobId"),
    )
}

#[cfg(test)]
pub(crate) mod tests;
