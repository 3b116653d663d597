//! One test for each row of the start-up table.

use super::*;
use crate::core::share::Shed;
use crate::pipeline::position::TaskPosition;
use crate::state::recovery::position::POSITION_VERSION;

pub(crate) fn owner() -> Owner {
    Owner {
        uid: "uid-1".into(),
        job_id: "job".into(),
        task: 0,
        revision: "r1".into(),
        engine: "e1".into(),
        generation: 3,
    }
}

fn birth() -> Birth {
    Birth {
        version: POSITION_VERSION,
        uid: "uid-1".into(),
        job_id: "job".into(),
        task: 0,
        start_offset: 0,
        partitions: 2,
    }
}

/// The position after `count` records, as any honest owner would have written it.
pub(crate) fn position(count: u64) -> Position {
    let mut born = Position::born(&birth(), &owner(), "line-a".into());
    born.engine_position = engine_position(count);
    born
}

pub(crate) fn engine_position(count: u64) -> TaskPosition {
    TaskPosition {
        input_offset: i64::try_from(count).expect("small"),
        input_count: count,
        input_hash: count * 31,
        output_seq: count,
        output_hash: count * 17,
        watermark_ms: 0,
        result_revision: 0,
        shed: Shed::NOTHING,
    }
}

fn checkpoint(id: &str, position: Position) -> CheckpointFact {
    CheckpointFact {
        id: id.into(),
        position,
    }
}

/// Found facts with everything in order; cases change what they are about.
#[derive(Clone)]
pub(crate) struct World {
    pub owner: Owner,
    pub committed: Option<Position>,
    pub birth: Option<Birth>,
    pub local: Local,
    pub checkpoints: Vec<CheckpointFact>,
    pub log: InputLog,
    pub last_input: LastInputCheck,
    pub on_truncated: OnTruncated,
    pub refused: Vec<(Base, Refusal)>,
    pub order: Option<(u64, Option<String>)>,
    pub ordered_input: LastInputCheck,
}

impl World {
    pub fn at(count: u64) -> Self {
        Self {
            owner: owner(),
            committed: Some(position(count)),
            birth: Some(birth()),
            local: Local::Absent,
            checkpoints: Vec::new(),
            log: InputLog {
                start: 0,
                end: 100,
                partitions: 2,
            },
            last_input: LastInputCheck::Same,
            on_truncated: OnTruncated::Stop,
            refused: Vec::new(),
            order: None,
            ordered_input: LastInputCheck::Same,
        }
    }

    pub fn local(mut self, position: Position) -> Self {
        self.local = Local::Held(Box::new(position));
        self
    }

    pub fn stored(mut self, id: &str, position: Position) -> Self {
        self.checkpoints.push(checkpoint(id, position));
        self
    }

    pub fn decide(&self) -> Startup {
        decide(&self.facts())
    }

    pub fn facts(&self) -> Facts<'_> {
        Facts {
            owner: &self.owner,
            committed: self.committed.as_ref(),
            birth: self.birth.as_ref(),
            local: &self.local,
            checkpoints: &self.checkpoints,
            log: self.log,
            last_input: self.last_input,
            on_truncated: self.on_truncated,
            refused: &self.refused,
            order: self.order.as_ref().map(|(nonce, id)| Order {
                nonce: *nonce,
                name: "before",
                id: id.as_deref(),
                last_input: self.ordered_input,
            }),
            local_is_truth: false,
        }
    }

    pub fn resume(&self) -> Resume {
        match self.decide() {
            Startup::Resume(resume) => resume,
            other => panic!("expected to resume, got {other:?}"),
        }
    }

    pub fn reason(&self) -> Reason {
        match self.decide() {
            Startup::Stop(stop) => stop.reason,
            other => panic!("expected a stop, got {other:?}"),
        }
    }
}

#[test]
fn nothing_at_all_is_a_birth() {
    let mut world = World::at(0);
    (world.committed, world.birth) = (None, None);
    assert_eq!(world.decide(), Startup::Birth { discard_local: None });
}

#[test]
fn state_of_another_incarnation_does_not_hinder_a_birth() {
    let mut old = position(5);
    old.uid = "uid-0".into();
    let mut world = World::at(0).local(old.clone()).stored("s", old);
    (world.committed, world.birth) = (None, None);
    assert!(matches!(world.decide(), Startup::Birth { discard_local: Some(why) } if why.contains("uid-0")));
}

#[test]
fn no_position_but_local_state_or_a_checkpoint_is_damage() {
    for world in [World::at(0).local(position(5)), World::at(0).stored("s", position(5))] {
        let world = World {
            committed: None,
            birth: None,
            ..world
        };
        assert_eq!(world.reason(), Reason::CommittedPositionBehindState);
    }
}

#[test]
fn local_state_or_any_checkpoint_ahead_of_the_position_in_its_lineage_is_damage() {
    assert_eq!(
        World::at(5).local(position(6)).reason(),
        Reason::CommittedPositionBehindState
    );
    let world = World::at(5)
        .local(position(5))
        .stored("good", position(4))
        .stored("ahead", position(6));
    assert_eq!(world.reason(), Reason::CommittedPositionBehindState);
}

#[test]
fn state_from_behind_a_rebuild_that_the_position_does_not_know_is_damage() {
    let mut other = owner();
    other.revision = "r2".into();
    let rebuilt = position(9).forked(&other, "line-b".into(), position(4).place(), engine_position(9));
    let lost = World::at(5).local(rebuilt.clone());
    assert_eq!(lost.reason(), Reason::CommittedPositionBehindState);
    let lost = World::at(5).local(position(5)).stored("rebuilt", rebuilt);
    assert_eq!(lost.reason(), Reason::CommittedPositionBehindState);
}

#[test]
fn state_ahead_in_an_abandoned_lineage_is_no_damage() {
    let mut abandoned = position(9);
    abandoned.lineage = "line-b".into();
    let resume = World::at(5)
        .local(abandoned.clone())
        .stored("old", abandoned)
        .stored("good", position(4))
        .resume();
    assert_eq!(resume.base, Base::Checkpoint("good".into()));
    assert!(resume.discard_local.is_some_and(|why| why.contains("line-b")));
}

#[test]
fn a_birth_by_another_uid_is_identity_in_use() {
    let mut world = World::at(5);
    world.owner.uid = "uid-2".into();
    assert_eq!(world.reason(), Reason::IdentityInUse);
}

#[test]
fn a_position_of_a_higher_generation_releases() {
    let mut world = World::at(5);
    world.owner.generation = 2;
    assert_eq!(world.decide(), Startup::Release { generation: 3 });
}

#[test]
fn a_new_generation_claims_first_and_the_same_one_does_not() {
    let mut world = World::at(5).local(position(5));
    assert!(!world.resume().claim);
    world.owner.generation = 4;
    assert!(world.resume().claim);
}

#[test]
fn local_state_of_another_job_task_incarnation_or_lineage_is_discarded_for_a_checkpoint() {
    let change: [fn(&mut Position); 4] = [
        |position| position.job_id = "other".into(),
        |position| position.task = 1,
        |position| position.uid = "uid-0".into(),
        |position| position.lineage = "line-z".into(),
    ];
    for change in change {
        let mut foreign = position(5);
        change(&mut foreign);
        let resume = World::at(5).local(foreign).stored("s", position(3)).resume();
        assert_eq!((resume.base, resume.how), (Base::Checkpoint("s".into()), How::Replay));
        assert!(resume.discard_local.is_some());
    }
}

#[test]
fn damaged_local_state_is_discarded_for_a_checkpoint() {
    let mut world = World::at(5).stored("s", position(5));
    world.local = Local::Damaged("no CURRENT file".into());
    let resume = world.resume();
    assert_eq!((resume.base, resume.how), (Base::Checkpoint("s".into()), How::GoOn));
    assert!(resume.discard_local.is_some_and(|why| why.contains("CURRENT")));
}

#[test]
fn a_base_at_the_position_goes_on() {
    let resume = World::at(5).local(position(5)).stored("s", position(5)).resume();
    assert_eq!(
        (resume.base, resume.how, resume.skip_to),
        (Base::Local, How::GoOn, None)
    );
}

#[test]
fn a_base_at_the_same_offset_with_other_hashes_is_not_the_position() {
    let mut wrong = position(5);
    wrong.engine_position.output_hash ^= 1;
    let resume = World::at(5).local(wrong).stored("s", position(3)).resume();
    assert_eq!((resume.base, resume.how), (Base::Checkpoint("s".into()), How::Replay));
}

#[test]
fn the_newest_of_local_state_and_checkpoints_is_the_base() {
    let world = World::at(9).stored("old", position(2)).stored("new", position(7));
    assert_eq!(
        world.clone().local(position(5)).resume().base,
        Base::Checkpoint("new".into())
    );
    assert_eq!(world.local(position(8)).resume().base, Base::Local);
}

#[test]
fn an_older_base_of_the_same_writer_is_replayed() {
    let resume = World::at(9).local(position(4)).resume();
    assert_eq!((resume.base, resume.how), (Base::Local, How::Replay));
    assert_eq!(resume.from.input_count, 4);
}

#[test]
fn replay_is_exact_from_where_the_revision_began_and_a_rebuild_before() {
    let mut committed = position(9);
    committed.revision_since = 5;
    for (base, how) in [(4, How::Rebuild), (5, How::Replay), (8, How::Replay)] {
        let mut world = World::at(9).local(position(base));
        world.committed = Some(committed.clone());
        assert_eq!(world.resume().how, how, "base at {base}");
    }
}

#[test]
fn of_a_quiet_partition_decisions_say_where_the_revision_began() {
    // The count stood at 9 when the revision changed, behind the seventh decision; three more came then.
    let at = |control_seq: u64| Position {
        control_seq,
        ..position(9)
    };
    let mut changed = owner();
    changed.revision = "r2".into();
    let committed = at(7).advanced(&changed, position(9).engine_position, None, 3);
    for (base, how) in [(6, How::Rebuild), (7, How::Replay), (8, How::Replay), (10, How::GoOn)] {
        let mut world = World::at(9).local(at(base));
        world.owner = changed.clone();
        world.committed = Some(committed.clone());
        assert_eq!(world.resume().how, how, "base at decision {base}");
    }
}

#[test]
fn a_checkpoint_holds_what_is_committed_where_nothing_moved_since() {
    let stored = position(9);
    let advanced = |watermark_ms: i64| {
        let engine_position = TaskPosition {
            watermark_ms,
            ..stored.engine_position
        };
        stored.advanced(&owner(), engine_position, None, 0)
    };
    assert!(stored.holds_what(&advanced(stored.engine_position.watermark_ms)));
    // The clock has moved a task whose decisions have no numbers.
    let later = advanced(stored.engine_position.watermark_ms + 1);
    assert_eq!(later.place(), stored.place());
    assert!(!stored.holds_what(&later));
}

#[test]
fn another_revision_or_engine_rebuilds_unless_the_base_is_the_position() {
    let change: [fn(&mut Owner); 2] = [|owner| owner.revision = "r2".into(), |owner| owner.engine = "e2".into()];
    for change in change {
        let mut world = World::at(9).local(position(4));
        change(&mut world.owner);
        assert_eq!(world.resume().how, How::Rebuild);
        assert_eq!(world.local(position(9)).resume().how, How::GoOn);
    }
}

#[test]
fn a_diverging_base_gives_way_to_the_next_older_and_none_left_is_replay_diverged() {
    let mut world = World::at(9)
        .local(position(6))
        .stored("a", position(4))
        .stored("b", position(2));
    let order = [
        Base::Local,
        Base::Checkpoint("a".into()),
        Base::Checkpoint("b".into()),
        Base::Birth,
    ];
    for base in order {
        assert_eq!(world.resume().base, base);
        world.refused.push((base, Refusal::Diverged));
    }
    assert_eq!(world.reason(), Reason::ReplayDiverged);
}

#[test]
fn an_unreadable_checkpoint_gives_way_to_the_next_older() {
    let mut world = World::at(9).stored("a", position(8)).stored("b", position(2));
    world.refused.push((Base::Checkpoint("a".into()), Refusal::Unreadable));
    assert_eq!(world.resume().base, Base::Checkpoint("b".into()));
}

#[test]
fn without_a_base_birth_is_replayed_if_log_and_decisions_reach_it() {
    let world = World::at(9);
    assert_eq!((world.resume().base, world.resume().how), (Base::Birth, How::Replay));
    let mut expired = world.clone();
    expired.log.start = 1;
    assert_eq!(expired.reason(), Reason::StateLost);
    let mut tombstoned = world;
    tombstoned.committed.as_mut().expect("set").decision_floor = 1;
    assert_eq!(tombstoned.reason(), Reason::StateLost);
}

#[test]
fn a_position_at_birth_without_state_goes_on_from_birth() {
    let resume = World::at(0).resume();
    assert_eq!((resume.base, resume.how), (Base::Birth, How::GoOn));
}

#[test]
fn deleted_input_stops_or_is_skipped_from_the_position_on_only() {
    let mut at_position = World::at(5).local(position(5));
    at_position.log.start = 8;
    assert_eq!(at_position.reason(), Reason::InputTruncated);
    at_position.on_truncated = OnTruncated::Skip;
    assert_eq!(at_position.resume().skip_to, Some(8));

    let mut before_position = World::at(9).local(position(5));
    before_position.log.start = 8;
    assert_eq!(before_position.reason(), Reason::InputTruncated);
    before_position.on_truncated = OnTruncated::Skip;
    assert_eq!(before_position.reason(), Reason::StateLost);
}

#[test]
fn deleted_markers_and_aborted_records_are_no_loss_once_they_were_seen() {
    // K stands behind record 5; markers and aborted records up to 12 were seen, and everything is deleted.
    let mut world = World::at(5).local(position(5));
    world.committed = Some(position(5).having_seen(Some(12)));
    world.log.start = 12;
    assert_eq!((world.resume().how, world.resume().skip_to), (How::GoOn, Some(12)));
    // One record more may have been unread.
    world.log.start = 13;
    assert_eq!(world.reason(), Reason::InputTruncated);
    // A replay from an older state needs the records between, whatever was seen behind K ...
    let mut older = World::at(5).local(position(3));
    older.committed = world.committed.clone();
    older.log.start = 4;
    assert_eq!(older.reason(), Reason::InputTruncated);
    // ... unless that state itself saw that there are none.
    older.local = Local::Held(Box::new(position(3).having_seen(Some(4))));
    assert_eq!((older.resume().how, older.resume().skip_to), (How::Replay, None));
}

#[test]
fn what_was_seen_only_grows_and_follows_the_position() {
    let seen = position(5).having_seen(Some(12)).having_seen(Some(9)).having_seen(None);
    assert_eq!((seen.seen_offset, seen.unread_from()), (Some(12), 12));
    let later = seen.advanced(&owner(), engine_position(20), None, 0);
    assert_eq!(later.unread_from(), 20);
    assert_eq!(seen.claimed(9).unread_from(), 12);
}

#[test]
fn a_log_that_starts_exactly_at_the_base_is_whole() {
    let mut world = World::at(9).local(position(5));
    world.log.start = 5;
    assert_eq!(world.resume().how, How::Replay);
}

#[test]
fn a_recreated_topic_is_noticed_by_its_end_or_by_the_last_record() {
    let mut shorter = World::at(9).local(position(9));
    shorter.log.end = 8;
    assert_eq!(shorter.reason(), Reason::InputRecreated);
    let mut other_record = World::at(9).local(position(9));
    other_record.last_input = LastInputCheck::Different;
    assert_eq!(other_record.reason(), Reason::InputRecreated);
    other_record.last_input = LastInputCheck::Skipped;
    assert_eq!(other_record.resume().how, How::GoOn);
}

#[test]
fn another_number_of_partitions_stops() {
    let mut world = World::at(9);
    world.log.partitions = 3;
    assert_eq!(world.reason(), Reason::PartitionsChanged);
}

#[test]
fn a_checkpoint_of_an_ancestor_counts_up_to_the_fork() {
    let trunk = position(9);
    let mut other = owner();
    other.revision = "r2".into();
    let forked = trunk.forked(&other, "line-b".into(), position(4).place(), engine_position(9));
    assert_eq!(forked.revision_since, 4);
    let mut world = World::at(9)
        .stored("below", position(3))
        .stored("at", position(4))
        .stored("above", position(6));
    world.committed = Some(forked);
    world.owner = other;
    assert_eq!(
        (world.resume().base, world.resume().how),
        (Base::Checkpoint("at".into()), How::Replay)
    );
    world.refused.push((Base::Checkpoint("at".into()), Refusal::Unreadable));
    assert_eq!(
        (world.resume().base, world.resume().how),
        (Base::Checkpoint("below".into()), How::Rebuild)
    );
}

#[test]
fn local_state_of_an_ancestor_counts_up_to_the_fork() {
    // A crash between the commit of a new lineage and the local write after it: L is what the rebuild began from.
    let mut other = owner();
    other.revision = "r2".into();
    let forked = position(9).forked(&other, "line-b".into(), position(4).place(), engine_position(9));
    let cases = [
        (3, Some((Base::Local, How::Rebuild))),
        (4, Some((Base::Local, How::Replay))),
        (6, None),
    ];
    for (count, expected) in cases {
        let mut world = World::at(9).local(position(count));
        world.committed = Some(forked.clone());
        world.owner = other.clone();
        // Birth is out of reach.
        world.log.start = 3;
        match expected {
            Some((base, how)) => {
                let resume = world.resume();
                assert_eq!(
                    (resume.base, resume.how, resume.discard_local),
                    (base, how, None),
                    "{count}"
                );
            }
            None => assert_eq!(world.reason(), Reason::StateLost, "{count}"),
        }
    }
}

#[test]
fn a_chain_of_forks_is_limited_by_every_fork_on_the_way() {
    let line_b = position(9).forked(&owner(), "line-b".into(), position(6).place(), engine_position(9));
    let line_c = line_b.forked(&owner(), "line-c".into(), position(3).place(), engine_position(9));
    assert!(line_c.descends_from("line-b", position(3).place()));
    assert!(!line_c.descends_from("line-b", position(5).place()));
    assert!(
        !line_c.descends_from("line-a", position(5).place()),
        "the later fork lies below the earlier"
    );
    assert!(line_c.descends_from("line-a", position(2).place()));
    assert!(!line_c.descends_from("line-x", position(0).place()));
}

#[test]
fn an_epoch_moves_the_revision_mark_only_when_the_writer_changes() {
    let first = position(4);
    let same = first.advanced(&owner(), engine_position(6), None, 2);
    assert_eq!((same.revision_since, same.epoch, same.control_seq), (0, 1, 2));
    let mut other = owner();
    other.revision = "r2".into();
    let changed = same.advanced(&other, engine_position(8), None, 0);
    assert_eq!((changed.revision_since, changed.revision.as_str()), (6, "r2"));
    assert_eq!((same.decisions_since, changed.decisions_since), (0, 2));
    let claimed = same.claimed(9);
    assert_eq!((claimed.generation, claimed.epoch, claimed.revision_since), (9, 2, 0));
    assert_eq!(claimed.place(), same.place());
}

#[test]
fn the_position_document_survives_json() {
    let forked = position(9).forked(&owner(), "line-b".into(), position(4).place(), engine_position(9));
    let text = serde_json::to_string(&forked).expect("serialises");
    assert_eq!(serde_json::from_str::<Position>(&text).expect("parses"), forked);
    // As engines wrote it that did not note how far the input was seen, and as they read what is written now.
    assert!(!text.contains("seenOffset"), "{text}");
    let seen = forked.clone().having_seen(Some(40));
    let text = serde_json::to_string(&seen).expect("serialises");
    assert_eq!(serde_json::from_str::<Position>(&text).expect("parses"), seen);
}
