//! At-least-once delivery: local state is the truth, and the committed position is taken to be where it stands. Then the
//! start-up table goes on as it does for a position that local state has reached; nothing is suppressed. Pure.
//! Must not hold: the table.

use super::ownership::{self, AfterUnknown};
use super::position::Position;
use super::problem::{Reason, Stop};
use super::startup::{Base, Facts, Local, is_own};
use crate::pipeline::position::{Decision, DecisionKind, TaskPosition};

/// The committed position as the table is to see it: that of local state, else of the newest checkpoint, else birth's
/// for as long as the log reaches back there. Absent where nothing was ever committed or stored.
///
/// # Errors
/// When only an older log could bring the state back.
pub fn committed(facts: &Facts<'_>) -> Result<Option<Position>, Stop> {
    let head = head(facts);
    let stands = newest(facts, head);
    let Some(known) = facts.committed else {
        return Ok(stands.map(|position| in_history_of(head, position.clone())));
    };
    if known.uid != facts.owner.uid || known.job_id != facts.owner.job_id {
        // Somebody else's: the table says so.
        return Ok(Some(known.clone()));
    }
    let stands = match (stands, facts.birth) {
        (Some(position), _) => position.clone(),
        (None, Some(birth)) if facts.log.start <= birth.start_offset || known.engine_position.input_count == 0 => {
            Position::born(birth, facts.owner, known.lineage.clone())
        }
        (None, _) => {
            return Err(Stop::new(
                Reason::StateLost,
                format!(
                    "neither local state nor a checkpoint is left, and the input log, which starts at offset {}, does \
                     not reach back to where the job began; bring back the volume or the checkpoint store, or start a \
                     job with another jobId",
                    facts.log.start
                ),
            ));
        }
    };
    let stands = in_history_of(head, stands);
    // Who owns the task is the committed position's to say.
    Ok(Some(Position {
        generation: known.generation,
        epoch: known.epoch.max(stands.epoch),
        ..stands
    }))
}

/// What came last of all that is known of the task: behind a rewind is later than anything from before it, and the
/// committed position may be gone, or be of a process from before, which nothing fences.
fn head<'a>(facts: &Facts<'a>) -> Option<&'a Position> {
    let local = match facts.local {
        Local::Held(position) => Some(position.as_ref()),
        Local::Absent | Local::Damaged(_) => None,
    };
    let stored = facts.checkpoints.iter().map(|checkpoint| &checkpoint.position);
    let own = (stored.chain(local).chain(facts.committed)).filter(|position| is_own(facts, position));
    own.max_by_key(|position| (position.restore_nonce, position.place()))
}

/// A state from before the last rewind goes on in the history that this began.
fn in_history_of(head: Option<&Position>, stands: Position) -> Position {
    match head {
        Some(head) if stands.restore_nonce < head.restore_nonce => behind_rewind(head, stands),
        Some(_) | None => stands,
    }
}

/// A state from before the rewind that `known` came from: it goes on in the history of that, with what was decided there.
fn behind_rewind(known: &Position, stands: Position) -> Position {
    Position {
        uid: known.uid.clone(),
        revision: known.revision.clone(),
        engine: known.engine.clone(),
        revision_since: stands.engine_position.input_count,
        decisions_since: stands.control_seq,
        control_seq: known.control_seq,
        adopted: known.adopted.clone(),
        lineage: known.lineage.clone(),
        ancestors: known.ancestors.clone(),
        restore_nonce: known.restore_nonce,
        engine_position: TaskPosition {
            result_revision: known.engine_position.result_revision,
            ..stands.engine_position
        },
        ..stands
    }
}

/// Decides where records were not acknowledged, with the committed position read: whoever else wrote that is in nobody's way.
pub fn after_unknown(named: bool, committed: Option<&Position>, sent: &Position) -> AfterUnknown {
    ownership::after_unknown(named, committed, sent, committed)
}

/// What a state at `stands` obeys of decisions from behind it: at once, what rewinds took back of what is read from there
/// on. The rest is decided anew.
pub fn obeyed(decisions: Vec<Decision>, stands: &Position) -> Vec<Decision> {
    let cuts = decisions
        .into_iter()
        .filter(|decision| matches!(decision.kind, DecisionKind::Cut(_)));
    let at_once = |cut: Decision| Decision {
        input_offset: stands.engine_position.input_offset,
        ..cut
    };
    cuts.map(at_once).collect()
}

/// Local state, else the checkpoint that has come furthest; what was tried in this start-up and put aside is none.
fn newest<'a>(facts: &Facts<'a>, head: Option<&Position>) -> Option<&'a Position> {
    let is_usable = |base: &Base, position: &Position| {
        // What a rewind took back is in the past of nothing.
        let holds = head.is_none_or(|head| {
            position.restore_nonce >= head.restore_nonce || head.descends_from(&position.lineage, position.place())
        });
        is_own(facts, position) && holds && facts.refused.iter().all(|(refused, _)| refused != base)
    };
    let local = match facts.local {
        Local::Held(position) => Some(position.as_ref()).filter(|position| is_usable(&Base::Local, position)),
        Local::Absent | Local::Damaged(_) => None,
    };
    let stored = facts
        .checkpoints
        .iter()
        .filter(|checkpoint| is_usable(&Base::Checkpoint(checkpoint.id.clone()), &checkpoint.position));
    let stored = stored.map(|checkpoint| &checkpoint.position);
    // Of two at the same place local state, which needs no fetch: the last of equal maxima wins.
    stored.chain(local).max_by_key(|position| position.place())
}

#[cfg(test)]
mod tests {
    use super::super::position::Birth;
    use super::super::startup::tests::{owner, position};
    use super::super::startup::{CheckpointFact, How, InputLog, LastInputCheck, OnTruncated, Refusal, Startup, decide};
    use super::*;

    /// What the table makes of it: the base and its record count, or the reason to stop.
    fn outcome(
        known: Option<u64>,
        local: Option<u64>,
        stored: &[u64],
        log_start: i64,
        refused: &[Base],
    ) -> Result<(Base, u64), Reason> {
        let (owner, known) = (owner(), known.map(position));
        let local = local.map_or(Local::Absent, |count| Local::Held(Box::new(position(count))));
        let checkpoints: Vec<CheckpointFact> = stored
            .iter()
            .map(|count| CheckpointFact {
                id: count.to_string(),
                position: position(*count),
            })
            .collect();
        let birth = known.as_ref().map(|_| Birth {
            version: 1,
            uid: owner.uid.clone(),
            job_id: owner.job_id.clone(),
            task: 0,
            start_offset: 0,
            partitions: 1,
        });
        let refused: Vec<(Base, Refusal)> = refused
            .iter()
            .cloned()
            .map(|base| (base, Refusal::Unreadable))
            .collect();
        let mut facts = Facts {
            owner: &owner,
            committed: known.as_ref(),
            birth: birth.as_ref(),
            local: &local,
            checkpoints: &checkpoints,
            log: InputLog {
                start: log_start,
                end: 100,
                partitions: 1,
            },
            last_input: LastInputCheck::Same,
            on_truncated: OnTruncated::Stop,
            refused: &refused,
            order: None,
            local_is_truth: true,
        };
        let taken = committed(&facts).map_err(|stop| stop.reason)?;
        facts.committed = taken.as_ref();
        match decide(&facts) {
            Startup::Resume(resume) => {
                assert_eq!(resume.how, How::GoOn, "nothing is suppressed");
                Ok((resume.base, resume.from.input_count))
            }
            Startup::Birth { .. } => Ok((Base::Birth, 0)),
            Startup::Stop(stop) => Err(stop.reason),
            Startup::Release { .. } | Startup::Rewind { .. } => Err(Reason::IdentityInUse),
        }
    }

    #[test]
    fn it_goes_on_from_the_newest_state_wherever_the_committed_position_is() {
        let checkpoint = |count: u64| Base::Checkpoint(count.to_string());
        for (known, local, stored, expected) in [
            (None, None, &[][..], (Base::Birth, 0)),
            (Some(9), Some(9), &[][..], (Base::Local, 9)),
            (Some(9), Some(5), &[][..], (Base::Local, 5)),
            (Some(5), Some(9), &[][..], (Base::Local, 9)),
            (None, Some(9), &[][..], (Base::Local, 9)),
            (Some(9), Some(3), &[5, 2][..], (checkpoint(5), 5)),
            (Some(4), None, &[2, 5][..], (checkpoint(5), 5)),
            (Some(9), None, &[][..], (Base::Birth, 0)),
        ] {
            let found = outcome(known, local, stored, 0, &[]);
            assert_eq!(found, Ok(expected), "{known:?} {local:?} {stored:?}");
        }
    }

    #[test]
    fn a_state_that_cannot_be_read_gives_way_to_the_next_older_one() {
        let five = Base::Checkpoint("5".to_owned());
        assert_eq!(
            outcome(Some(9), Some(9), &[5, 2], 0, &[Base::Local]),
            Ok((five.clone(), 5))
        );
        let refused = [Base::Local, five];
        let two = Base::Checkpoint("2".to_owned());
        assert_eq!(outcome(Some(9), Some(9), &[5, 2], 0, &refused), Ok((two, 2)));
    }

    /// After a crash before its state was written a task goes on from a position that is not the one committed.
    #[test]
    fn records_that_are_not_acknowledged_are_sent_again_whatever_position_is_committed() {
        let sent = position(5);
        for (named, committed, expected) in [
            (false, Some(position(5)), AfterUnknown::Release),
            (true, Some(position(5)), AfterUnknown::Committed),
            (true, Some(position(4)), AfterUnknown::SendAgain),
            (true, Some(position(7)), AfterUnknown::SendAgain),
            (true, None, AfterUnknown::SendAgain),
        ] {
            assert_eq!(after_unknown(named, committed.as_ref(), &sent), expected);
        }
    }

    #[test]
    fn a_log_that_does_not_reach_back_is_said() {
        assert_eq!(outcome(Some(9), None, &[], 1, &[]), Err(Reason::StateLost));
        assert_eq!(outcome(Some(9), Some(5), &[], 6, &[]), Err(Reason::InputTruncated));
        assert_eq!(outcome(Some(9), Some(5), &[], 5, &[]), Ok((Base::Local, 5)));
    }
}
