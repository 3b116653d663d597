//! One test for each row that an order adds to the start-up table, and what the position behind it is.

use super::super::startup::tests::{World, owner, position};
use super::super::startup::{Base, How, OnTruncated, Refusal};
use super::*;
use crate::pipeline::position::{Decision, DecisionKind};
use crate::state::recovery::at_least_once;

fn of_lineage(count: u64, lineage: &str) -> Position {
    Position {
        lineage: lineage.to_owned(),
        ..position(count)
    }
}

/// K at 9, a checkpoint at 4 and an order to go back to it.
fn ordered() -> World {
    World {
        order: Some((1, Some("old".to_owned()))),
        ..World::at(9).local(position(9)).stored("old", position(4))
    }
}

fn assert_goes_back(world: &World, to: &str) {
    let expected = Startup::Rewind {
        claim: false,
        checkpoint: to.to_owned(),
    };
    assert_eq!(world.decide(), expected);
}

/// The world after the rewind that it decides on was carried out.
fn carried_out(world: &World) -> World {
    let facts = world.facts();
    let order = pending(&facts).expect("it is pending");
    let stored = stored(&facts, order.id.expect("given")).expect("in the store").clone();
    let rewound = super::position(&facts, &order, &stored, lineage(order.nonce, 7), 0);
    World {
        committed: Some(rewound),
        ..world.clone().local(stored)
    }
}

/// What is taken to be committed where the state is the truth.
fn truth(world: &World) -> Position {
    let facts = Facts {
        local_is_truth: true,
        ..world.facts()
    };
    at_least_once::committed(&facts)
        .expect("there is state")
        .expect("known")
}

#[test]
fn an_order_with_a_higher_nonce_goes_back_and_only_once() {
    let world = ordered();
    assert_goes_back(&world, "old");
    let behind = carried_out(&world);
    let resume = behind.resume();
    assert_eq!((resume.base, resume.how), (Base::Local, How::GoOn));
    let mut later = behind.clone();
    for nonce in [0, 1] {
        later.order = Some((nonce, Some("old".to_owned())));
        assert_eq!(later.resume().how, How::GoOn, "nonce {nonce}");
    }
    later.order = Some((2, Some("old".to_owned())));
    assert_goes_back(&later, "old");
}

#[test]
fn a_lower_generation_is_claimed_first_and_a_higher_one_releases() {
    let mut world = ordered();
    world.owner.generation = 4;
    assert_eq!(
        world.decide(),
        Startup::Rewind {
            claim: true,
            checkpoint: "old".to_owned()
        }
    );
    world.owner.generation = 2;
    assert_eq!(world.decide(), Startup::Release { generation: 3 });
}

#[test]
fn another_object_goes_on_with_the_history_of_a_former_one_by_an_order_only() {
    let mut world = ordered();
    world.owner.uid = "uid-2".to_owned();
    assert_goes_back(&world, "old");
    let behind = carried_out(&world);
    let committed = behind.committed.as_ref().expect("set");
    assert_eq!(
        (committed.uid.as_str(), &committed.adopted[..]),
        ("uid-2", &["uid-1".to_owned()][..])
    );
    // The checkpoint is its own from here on, on the volume and in the store; the object before finds itself without.
    assert_eq!((behind.resume().base, behind.resume().how), (Base::Local, How::GoOn));
    let mut lost = behind.clone();
    lost.local = Local::Absent;
    assert_eq!(lost.resume().base, Base::Checkpoint("old".to_owned()));
    let mut former = behind.clone();
    former.owner.uid = "uid-1".to_owned();
    assert_eq!(former.reason(), Reason::IdentityInUse);
    // Going back once more is an order like any other.
    let mut again = behind.clone();
    again.order = Some((2, Some("old".to_owned())));
    assert_eq!(carried_out(&again).committed.expect("set").adopted, ["uid-1"]);
    // Not without an order, nor by one that the former object has carried out, nor another job.
    world.committed.as_mut().expect("set").restore_nonce = 1;
    match world.decide() {
        Startup::Stop(stop) => assert!(
            stop.reason == Reason::IdentityInUse && stop.message.contains("a nonce above 1"),
            "{stop}"
        ),
        other => panic!("{other:?}"),
    }
    world.order = None;
    assert_eq!(world.reason(), Reason::IdentityInUse);
    let mut other = ordered();
    other.owner.job_id = "another".to_owned();
    assert_eq!(other.reason(), Reason::IdentityInUse);
    // What an earlier object left in the store is no order of this one's.
    let mut own = ordered();
    own.checkpoints.push(own.checkpoints[0].clone());
    (
        own.checkpoints[1].position.uid,
        own.checkpoints[1].position.restore_nonce,
    ) = ("uid-0".to_owned(), 7);
    own.checkpoints[1].id = "former".to_owned();
    assert_goes_back(&own, "old");
    // Nor can it be gone back to under a nonce that its history has had.
    own.order = Some((7, Some("former".to_owned())));
    assert_eq!(own.reason(), Reason::RestoreFailed);
    own.order = Some((8, Some("former".to_owned())));
    assert_goes_back(&own, "former");
    // Nor that any other of its history has had: it would be ahead of the position right after the commit.
    own.checkpoints.push(own.checkpoints[1].clone());
    (own.checkpoints[2].id, own.checkpoints[2].position.restore_nonce) = ("last".to_owned(), 8);
    assert_eq!(own.reason(), Reason::RestoreFailed);
    own.order = Some((9, Some("former".to_owned())));
    assert_goes_back(&own, "former");
    assert_eq!(carried_out(&own).resume().how, How::GoOn);
}

#[test]
fn it_is_the_way_out_of_a_position_that_is_missing_or_behind() {
    let missing = World {
        committed: None,
        birth: None,
        ..ordered()
    };
    assert_goes_back(&missing, "old");
    let behind = carried_out(&missing);
    assert_eq!(behind.resume().how, How::GoOn);
    let mut ahead = ordered();
    ahead.committed = Some(position(3));
    ahead.last_input = LastInputCheck::Different;
    assert_goes_back(&ahead, "old");
    // Without a position everything found says which nonce is the highest.
    let restored = Position {
        restore_nonce: 1,
        ..position(5)
    };
    let again = missing.stored("newer", restored.clone());
    assert_eq!(again.reason(), Reason::CommittedPositionBehindState);
    // Nor does an order come again where the position was taken back to before it.
    let taken_back = ordered().stored("newer", restored);
    assert_eq!(taken_back.reason(), Reason::CommittedPositionBehindState);
}

#[test]
fn any_lineage_of_the_job_will_do() {
    let mut world = ordered().stored("abandoned", of_lineage(6, "line-z"));
    world.order = Some((1, Some("abandoned".to_owned())));
    assert_goes_back(&world, "abandoned");
    let back = carried_out(&ordered());
    // Forward again: what the first rewind left.
    let mut forward = back.stored("newest", position(8));
    forward.order = Some((2, Some("newest".to_owned())));
    assert_goes_back(&forward, "newest");
    let behind = carried_out(&forward);
    let committed = behind.committed.as_ref().expect("set");
    assert_eq!(
        (committed.restore_nonce, committed.engine_position.result_revision),
        (2, 2)
    );
    assert!(!committed.descends_from(
        &carried_out(&ordered()).committed.expect("set").lineage,
        position(4).place()
    ));
    assert_eq!(behind.resume().how, How::GoOn);
}

#[test]
fn what_cannot_be_gone_back_to_stops_and_names_it() {
    let stopped = |world: &World, reason: Reason, part: &str| match world.decide() {
        Startup::Stop(stop) => {
            assert_eq!(stop.reason, reason, "{stop}");
            assert!(stop.message.contains(part) && stop.message.contains("before"), "{stop}");
        }
        other => panic!("{other:?}"),
    };
    let mut missing = ordered();
    missing.order = Some((1, Some("gone".to_owned())));
    stopped(&missing, Reason::RestoreFailed, "gone of task 0 is not in the store");
    stopped(&missing, Reason::RestoreFailed, r#"there are ["old"]"#);
    let mut none = ordered();
    none.order = Some((1, None));
    stopped(&none, Reason::RestoreFailed, "nothing of task 0");
    let mut foreign = ordered();
    foreign.checkpoints[0].position.task = 1;
    stopped(&foreign, Reason::RestoreFailed, "is of task 1 of job job");
    for on_truncated in [OnTruncated::Stop, OnTruncated::Skip] {
        let mut truncated = World {
            on_truncated,
            ..ordered()
        };
        truncated.log.start = 5;
        stopped(&truncated, Reason::InputTruncated, "starts at offset 5");
        truncated.log.start = 4;
        assert_goes_back(&truncated, "old");
    }
}

#[test]
fn another_input_stops_a_rewind_as_it_does_any_start() {
    let mut shorter = ordered();
    shorter.log.end = 3;
    assert_eq!(shorter.reason(), Reason::InputRecreated);
    let mut other = ordered();
    other.ordered_input = LastInputCheck::Different;
    assert_eq!(other.reason(), Reason::InputRecreated);
    let mut grown = ordered();
    grown.log.partitions = 3;
    assert_eq!(grown.reason(), Reason::PartitionsChanged);
}

#[test]
fn a_task_that_came_later_is_born_where_nothing_of_it_ever_was() {
    let mut world = World::at(0);
    (world.committed, world.birth) = (None, None);
    world.order = Some((3, None));
    assert_eq!(world.decide(), Startup::Birth { discard_local: None });
    world.order = Some((3, Some("old".to_owned())));
    assert_eq!(world.reason(), Reason::RestoreFailed);
}

#[test]
fn the_position_is_the_checkpoints_above_everything_known() {
    let mut world = ordered();
    let committed = world.committed.as_mut().expect("set");
    (
        committed.epoch,
        committed.decision_floor,
        committed.engine_position.result_revision,
    ) = (70, 2, 4);
    world.checkpoints[0].position.control_seq = 3;
    world.checkpoints[0].position.last_input = None;
    world.owner.revision = "r2".to_owned();
    let facts = world.facts();
    let order = pending(&facts).expect("pending");
    let stored = &world.checkpoints[0].position;
    let rewound = super::position(&facts, &order, stored, lineage(1, 7), 2);
    assert_eq!((rewound.epoch, rewound.restore_nonce, rewound.generation), (71, 1, 3));
    assert_eq!((rewound.control_seq, rewound.decision_floor), (5, 2));
    assert_eq!((rewound.revision.as_str(), rewound.revision_since), ("r2", 4));
    assert_eq!(rewound.engine_position.result_revision, 5);
    assert!(rewound.same_state(&stored.engine_position, 5));
    assert_eq!(rewound.lineage, lineage(1, 7));
    let (place, trunk) = (stored.place(), stored.lineage.as_str());
    assert!(rewound.descends_from(trunk, place));
    assert!(!rewound.descends_from(trunk, position(5).place()));
    assert_eq!(rewound.ancestors[0].decisions_limit(), 3);
    // Decisions that are gone bar a base from before them, never the checkpoint itself.
    let mut gone = world.clone();
    gone.committed.as_mut().expect("set").decision_floor = 9;
    let rewound = super::position(&gone.facts(), &order, stored, lineage(1, 8), 0);
    assert_eq!(rewound.decision_floor, 3);
}

#[test]
fn behind_it_the_checkpoint_is_the_base_whatever_else_is_found() {
    let world = carried_out(&ordered().stored("later", position(8)));
    // A crash between the commit and the local write: local state is what it was.
    let crashed = world.clone().local(position(9));
    let resume = crashed.resume();
    assert_eq!(
        (resume.base, resume.how),
        (Base::Checkpoint("old".to_owned()), How::GoOn)
    );
    assert!(resume.discard_local.is_some());
    // What the new history has published since is replayed from it, exactly.
    let mut further = world.clone();
    let engine_position = TaskPosition {
        result_revision: 1,
        ..position(7).engine_position
    };
    let committed = further.committed.take().expect("set");
    further.committed = Some(committed.advanced(&owner(), engine_position, None, 0));
    assert_eq!(
        (further.resume().base, further.resume().how),
        (Base::Local, How::Replay)
    );
    // Results from before it carry another revision: from an older base it is no exact replay.
    let mut older = further.stored("older", position(2));
    older.local = Local::Absent;
    older
        .refused
        .push((Base::Checkpoint("old".to_owned()), Refusal::Unreadable));
    assert_eq!(
        (older.resume().base, older.resume().how),
        (Base::Checkpoint("older".to_owned()), How::Rebuild)
    );
}

#[test]
fn at_least_once_a_rewind_takes_the_state_back_that_is_the_truth() {
    let world = ordered().stored("later", position(8));
    assert_goes_back(&world, "old");
    let behind = carried_out(&world);
    let committed = behind.committed.clone().expect("set");
    // Local state may be the checkpoint, or lost, or what it was before: the rewind holds.
    for local in [
        Local::Held(Box::new(position(4))),
        Local::Absent,
        Local::Held(Box::new(position(9))),
    ] {
        let stands = truth(&World {
            local,
            ..behind.clone()
        });
        assert_eq!(
            (stands.place(), &stands.lineage),
            (position(4).place(), &committed.lineage)
        );
        assert_eq!((stands.restore_nonce, stands.engine_position.result_revision), (1, 1));
    }
    let engine_position = TaskPosition {
        result_revision: 1,
        ..position(6).engine_position
    };
    let gone_on = committed.advanced(&owner(), engine_position, None, 0);
    let stands = truth(&behind.clone().local(gone_on.clone()));
    assert_eq!(stands.place(), position(6).place());
    // Also where the control topic was emptied, or a process from before has written its own there: what was left has
    // come further, in the store and there, and is not taken.
    for known in [None, Some(position(9))] {
        let lost = World {
            committed: known,
            ..behind.clone().local(gone_on.clone())
        };
        let stands = truth(&lost);
        assert_eq!(
            (stands.place(), &stands.lineage),
            (position(6).place(), &committed.lineage)
        );
        // Without its state the rewind's checkpoint goes on in the history that the rewind began.
        let mut damaged = lost.stored("behind", gone_on.clone()).local(position(9));
        damaged.refused = vec![(Base::Checkpoint("behind".to_owned()), Refusal::Unreadable)];
        let stands = truth(&damaged);
        assert_eq!(
            (stands.place(), &stands.lineage),
            (position(4).place(), &committed.lineage)
        );
        assert_eq!((stands.restore_nonce, stands.engine_position.result_revision), (1, 1));
    }
}

/// A rewind of two stages decides what is taken back of the first: a state from before it has not obeyed that.
#[test]
fn at_least_once_a_state_from_before_a_rewind_obeys_what_that_took_back_at_once() {
    let cut_at = |input_offset| Decision {
        input_offset,
        kind: DecisionKind::Cut(cut(0, &lineage(1, 7), &position(7))),
    };
    let mut behind = carried_out(&ordered().stored("older", position(2)));
    let rewound = behind.committed.as_mut().expect("set");
    rewound.control_seq += 1;
    let rewound = rewound.clone();
    let bases = [
        (Local::Absent, "old", 4, vec![]),
        (Local::Absent, "older", 2, vec!["old"]),
    ];
    for (local, base, count, refused) in bases {
        let mut world = World {
            local,
            ..behind.clone()
        };
        let refused = refused
            .into_iter()
            .map(|id| (Base::Checkpoint(id.to_owned()), Refusal::Unreadable));
        world.refused.extend(refused);
        let stands = truth(&world);
        assert_eq!(stands.control_seq, rewound.control_seq);
        let decisions = at_least_once::obeyed(vec![cut_at(4)], &stands);
        let at_once = position(count).engine_position.input_offset;
        assert_eq!(decisions, [cut_at(at_once)]);
        world.committed = Some(stands);
        let resume = world.resume();
        assert_eq!(
            (resume.base, resume.how),
            (Base::Checkpoint(base.to_owned()), How::Replay)
        );
    }
    // Behind it, the state has obeyed.
    let gone_on = rewound.advanced(&owner(), position(6).engine_position, None, 0);
    let mut world = behind.local(gone_on);
    world.committed = Some(truth(&world));
    assert_eq!((world.resume().base, world.resume().how), (Base::Local, How::GoOn));
    let tick = Decision {
        input_offset: 4,
        kind: DecisionKind::Tick { now_ms: 1 },
    };
    assert_eq!(at_least_once::obeyed(vec![tick], &rewound), [], "decided anew");
}

#[test]
fn window_tasks_know_what_is_taken_back_of_the_first_stage() {
    let window = position(4);
    let combine = Position { task: 3, ..position(7) };
    let found = cut(1, &lineage(2, 7), &combine);
    let expected = Cut {
        source: 1,
        lineage: lineage(2, 7),
        parent: "line-a".to_owned(),
        sequence: 7,
    };
    assert_eq!(found, expected);
    let together = |combine: &Position| check_together((2, "id"), combine, &window);
    together(&combine).expect("of one checkpoint");
    // Born while another order stood, which was refused or taken back: it never went back.
    let born_behind_an_order = Position {
        restore_nonce: 1,
        ..combine.clone()
    };
    together(&born_behind_an_order).expect("no rewind");
    let behind_another = Position {
        restore_nonce: 1,
        lineage: lineage(1, 7),
        ..combine.clone()
    };
    let of_another = Position {
        uid: "uid-0".to_owned(),
        ..combine
    };
    for apart in [behind_another, of_another] {
        let stop = together(&apart).expect_err("they are not of one checkpoint");
        assert_eq!(stop.reason, Reason::RestoreFailed);
    }
}

#[test]
fn the_lineage_of_a_rewind_is_found_in_the_history_behind_it() {
    let first = carried_out(&ordered()).committed.expect("set");
    assert_eq!(begun_by(1, &first), Some(first.lineage.as_str()));
    let mut again = carried_out(&ordered()).stored("behind", first.clone());
    again.order = Some((3, Some("behind".to_owned())));
    let second = carried_out(&again).committed.expect("set");
    assert_eq!(begun_by(3, &second), Some(second.lineage.as_str()));
    assert_eq!(begun_by(1, &second), Some(first.lineage.as_str()));
    for never in [2, 4] {
        assert_eq!(begun_by(never, &second), None, "{never}");
    }
    assert_ne!(lineage(1, 7), lineage(1, 8));
    assert_eq!([nonce_of("line-a"), nonce_of("rewind-x-1"), nonce_of("")], [0, 0, 0]);
    assert_eq!(nonce_of(&lineage(12, 7)), 12);
}
