//! Tests of `ownership`. Must not test other modules.

use std::collections::BTreeMap;

use super::super::startup::tests::{owner, position};
use super::*;

fn assignment(generation: u64, tasks: &[(u32, u32)]) -> Assignment {
    Assignment {
        version: 1,
        generation,
        tasks: BTreeMap::from_iter(tasks.iter().copied()),
    }
}

#[test]
fn only_a_higher_generation_is_taken() {
    for (in_hand, offered, expected) in [(0, 1, true), (3, 3, false), (3, 2, false), (3, 9, true)] {
        assert_eq!(
            takes(&assignment(in_hand, &[]), &assignment(offered, &[])),
            expected,
            "{in_hand} then {offered}"
        );
    }
}

#[test]
fn a_pod_is_named_only_by_an_assignment_that_gives_it_the_task() {
    assert!(is_named(&assignment(2, &[(0, 1)]), 0, 1));
    assert!(!is_named(&assignment(2, &[(0, 1)]), 0, 0));
    assert!(!is_named(&assignment(2, &[(0, 1)]), 1, 1));
    assert!(
        !is_named(&assignment(0, &[(0, 1)]), 0, 1),
        "generation 0 means that nothing was assigned"
    );
}

#[test]
fn a_fenced_task_is_released_only_by_a_higher_generation() {
    let mut committed = position(4);
    committed.generation = 7;
    assert_eq!(after_fence(Some(&committed), 6), AfterFence::Release { generation: 7 });
    assert_eq!(after_fence(Some(&committed), 7), AfterFence::BackOff);
    assert_eq!(after_fence(Some(&committed), 8), AfterFence::BackOff);
    assert_eq!(after_fence(None, 1), AfterFence::BackOff);
}

#[test]
fn the_back_off_doubles_up_to_a_bound_and_twins_differ() {
    let mut least_before = Duration::ZERO;
    for attempt in 0..7 {
        let (low, high) = (fence_backoff(attempt, 0), fence_backoff(attempt, u64::MAX));
        assert!(low < high, "attempt {attempt}: {low:?} {high:?}");
        assert!(low > least_before);
        assert!(high <= FENCE_BACKOFF_LONGEST);
        least_before = low;
    }
    assert!(fence_backoff(u32::MAX, 12_345) <= FENCE_BACKOFF_LONGEST);
}

#[test]
fn an_unknown_outcome_is_settled_by_the_whole_position() {
    let built_on = position(4);
    let sent = built_on.advanced(&owner(), position(6).engine_position, None, 0);
    // Same lineage and epoch number, another cut: somebody else's commit.
    let mut foreign = sent.clone();
    foreign.engine_position.input_count = 5;
    let cases = [
        (true, Some(&sent), AfterUnknown::Committed),
        (true, Some(&built_on), AfterUnknown::SendAgain),
        (true, Some(&foreign), AfterUnknown::StartUp),
        (true, None, AfterUnknown::StartUp),
        (false, Some(&sent), AfterUnknown::Release),
        (false, Some(&built_on), AfterUnknown::Release),
    ];
    for (named, committed, expected) in cases {
        assert_eq!(after_unknown(named, committed, &sent, Some(&built_on)), expected);
    }
    assert_eq!(
        after_unknown(true, None, &sent, None),
        AfterUnknown::SendAgain,
        "a birth that did not arrive"
    );
}
