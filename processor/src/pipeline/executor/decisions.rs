//! Decision records of a task in the control topic: which are there, which no checkpoint needs any more. Pure.
//! Must not hold: what is decided (`pipeline::by_clock`), or how low the floor may be (`state::checkpoint`).

use std::collections::BTreeMap;

use crate::kafka::control::ControlCopy;
use crate::state::recovery::Position;

/// Tombstones of one lineage in one transaction, at most.
const TOMBSTONES_MAX: u64 = 10_000;

/// Decisions in the control topic. Within a lineage their numbers have no gaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    /// First and last number, by lineage.
    spans: BTreeMap<String, (u64, u64)>,
    /// Decisions up to this one are not needed by any checkpoint.
    needless: u64,
}

impl Ledger {
    /// What the control topic holds.
    pub fn new(control: &ControlCopy) -> Self {
        let mut this = Self::default();
        for (control_seq, lineage) in control.decisions.keys() {
            this.add(lineage, *control_seq, *control_seq);
        }
        this
    }

    fn add(&mut self, lineage: &str, first: u64, last: u64) {
        if first > last {
            return;
        }
        let span = self.spans.entry(lineage.to_owned()).or_insert((first, last));
        *span = (span.0.min(first), span.1.max(last));
    }

    /// Every checkpoint that is left stands at this decision or behind it.
    pub fn needless_up_to(&mut self, control_seq: u64) {
        self.needless = self.needless.max(control_seq);
    }

    /// The floor that an epoch built on `committed` may carry.
    pub fn floor(&self, committed: &Position) -> u64 {
        let most = committed.decision_floor.saturating_add(TOMBSTONES_MAX);
        self.needless.min(committed.control_seq).min(most)
    }

    /// Lineage and number of the decisions that go when `sent` follows `committed`.
    pub fn tombstones(&self, committed: &Position, sent: &Position) -> Vec<(String, u64)> {
        if sent.decision_floor <= committed.decision_floor {
            return Vec::new();
        }
        let gone = |(lineage, (first, last)): (&String, &(u64, u64))| {
            let numbers = *first..=sent.decision_floor.min(*last);
            let lineage = lineage.clone();
            numbers.map(move |control_seq| (lineage.clone(), control_seq))
        };
        self.spans.iter().flat_map(gone).collect()
    }

    /// `sent` followed `committed`.
    pub fn committed(&mut self, committed: &Position, sent: &Position) {
        self.add(&sent.lineage, committed.control_seq + 1, sent.control_seq);
        for (first, _) in self.spans.values_mut() {
            *first = (*first).max(sent.decision_floor + 1);
        }
        self.spans.retain(|_, (first, last)| first <= last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::recovery::startup::tests::position;

    fn at(control_seq: u64, decision_floor: u64) -> Position {
        Position {
            control_seq,
            decision_floor,
            ..position(10)
        }
    }

    #[test]
    fn what_no_checkpoint_needs_goes_once_and_with_the_floor() {
        let mut ledger = Ledger::default();
        let (born, first) = (at(0, 0), at(3, 0));
        assert!(ledger.tombstones(&born, &first).is_empty());
        ledger.committed(&born, &first);
        ledger.needless_up_to(2);
        ledger.needless_up_to(1);
        let second = at(4, 0).with_decision_floor(ledger.floor(&first));
        assert_eq!(second.decision_floor, 2);
        let gone: Vec<u64> = ledger.tombstones(&first, &second).into_iter().map(|(_, n)| n).collect();
        assert_eq!(gone, [1, 2]);
        ledger.committed(&first, &second);
        assert_eq!(ledger.spans[&second.lineage], (3, 4));
        let third = at(4, 2).with_decision_floor(ledger.floor(&second));
        assert!(ledger.tombstones(&second, &third).is_empty(), "the floor did not rise");
    }

    #[test]
    fn a_transaction_takes_a_bounded_number_of_tombstones() {
        let (born, many) = (at(0, 0), at(3 * TOMBSTONES_MAX, 0));
        let mut ledger = Ledger::default();
        ledger.committed(&born, &many);
        ledger.needless_up_to(u64::MAX);
        let mut committed = many;
        for round in 1..=3 {
            let sent = committed.clone().with_decision_floor(ledger.floor(&committed));
            assert_eq!(sent.decision_floor, round * TOMBSTONES_MAX);
            let gone = ledger.tombstones(&committed, &sent);
            assert_eq!(gone.len() as u64, TOMBSTONES_MAX);
            ledger.committed(&committed, &sent);
            committed = sent;
        }
        assert_eq!(ledger.spans, BTreeMap::new());
    }
}
