//! The control topic: what it shows of each task, what brokers have lost of it, and what can tell of that.
//! Must not decide what the protocol decides.

use std::collections::BTreeMap;

use streamagg_processor::pipeline::position::Decision;
use streamagg_processor::state::recovery::{Birth, Position, Reason, Stop};

use super::World;
use super::startup::{Starting, Turn};

/// What the control topic holds for a task.
#[derive(Clone, Default)]
pub(super) struct Control {
    pub birth: Option<Birth>,
    pub committed: Option<Position>,
    /// Decisions by number and the history that they were made in.
    pub decisions: BTreeMap<(u64, String), Decision>,
}

/// What brokers know of a task.
#[derive(Default)]
pub(super) struct Ledger {
    /// Whose transactions are taken: the last to initialise.
    pub token: u64,
    pub shown: Control,
    /// What would be shown had nothing been lost; absent where nothing was.
    pub acknowledged: Option<Control>,
    /// Positions shown before.
    pub earlier: Vec<Position>,
    pub committers: BTreeMap<u64, u32>,
}

impl Ledger {
    /// What is written comes to what is left.
    pub fn write(&mut self, write: impl Fn(&mut Control)) {
        write(&mut self.shown);
        self.acknowledged.iter_mut().for_each(write);
    }

    /// A position is written. False: it goes on from before what was acknowledged, which only a claim may that publishes
    /// nothing, and what has gone back.
    pub fn commit(&mut self, position: &Position) -> bool {
        let all = self.acknowledged.as_ref().unwrap_or(&self.shown);
        let goes_on = !(all.committed.as_ref()).is_some_and(|known| is_behind(Some(position), known));
        let before = self.shown.committed.replace(position.clone());
        let claims = before
            .as_ref()
            .is_some_and(|before| before.claimed(position.generation) == *position);
        self.earlier.extend(before);
        if let Some(all) = &mut self.acknowledged
            && (goes_on || !claims)
        {
            all.committed = Some(position.clone());
        }
        goes_on || claims
    }
}

fn is_behind(shown: Option<&Position>, other: &Position) -> bool {
    let place = |position: &Position| (position.restore_nonce, position.place());
    shown.is_none_or(|shown| place(shown) < place(other))
}

impl World {
    /// Brokers lose what they have acknowledged: the last positions of a task, or all there is of all.
    pub(super) fn lose_control(&mut self, pod: u32, task: u32) {
        if self.below(3) == 0 {
            for ledger in &mut self.ledgers {
                let shown = std::mem::take(&mut ledger.shown);
                ledger.acknowledged.get_or_insert(shown);
                ledger.earlier.clear();
            }
            return self.note("control topic emptied", pod, task);
        }
        let lost = 1 + usize::try_from(self.below(3)).expect("few");
        let ledger = &mut self.ledgers[task as usize];
        let Some(left) = ledger.earlier.len().checked_sub(lost) else {
            return;
        };
        let mut gone = ledger.earlier.split_off(left);
        let shown = ledger.shown.clone();
        ledger.acknowledged.get_or_insert(shown);
        ledger.shown.committed = Some(gone.swap_remove(0));
        self.note("committed position lost", pod, task);
    }

    /// The topic is restored as it was.
    fn give_back(&mut self) {
        for ledger in &mut self.ledgers {
            if let Some(acknowledged) = ledger.acknowledged.take() {
                ledger.shown = acknowledged;
            }
        }
    }

    /// A pod that finds nothing of what came later cannot know that it goes on from too early: here that does not happen,
    /// for nobody could tell it from a task to which nothing did. Nor does one that would carry out the same order again,
    /// which the shell looks for in the other tasks. State that is the truth needs no more than itself.
    pub(super) fn spare_unseen(&mut self, pod: u32, task: u32) {
        let ledger = &self.ledgers[task as usize];
        let known = ledger.acknowledged.as_ref().and_then(|all| all.committed.as_ref());
        let shown = ledger.shown.committed.as_ref();
        let Some(known) = known.filter(|known| is_behind(shown, known) && !self.awaits_order(known)) else {
            return;
        };
        let held = &self.pods[pod as usize];
        let stored = self.store[task as usize]
            .iter()
            .map(|checkpoint| &checkpoint.manifest.position)
            .filter(|_| self.lists_store(task, shown));
        let volume = held.volumes.get(&task).map(|(position, _)| position);
        let mut found = stored.chain(held.left.get(&task)).chain(volume);
        let is_seen = found.any(|found| is_behind(shown, found) && found.restore_nonce >= known.restore_nonce);
        let is_told = match shown {
            Some(_) => self.is_plain(task),
            None => self.order.is_none() && self.is_second_birth(),
        };
        if !is_seen && !is_told {
            self.give_back();
            self.note("spared", pod, task);
        }
    }

    /// Partials, and no task that was born: the shell looks at this.
    pub(super) fn is_second_birth(&self) -> bool {
        let was_born = self.ledgers.iter().any(|ledger| ledger.shown.birth.is_some());
        !was_born && self.shuffle.iter().any(|log| !log.is_empty())
    }

    /// A task says that the control topic has lost something, and a user restores that, or orders to go back.
    pub(super) fn stop(&mut self, starting: &Starting, stop: &Stop) -> Turn {
        let (pod, task) = (starting.pod, starting.task);
        let says_so = [Reason::CommittedPositionBehindState, Reason::StateLost].contains(&stop.reason);
        let is_lost = self.ledgers[task as usize].acknowledged.is_some();
        assert!(is_lost && says_so, "{stop}\n{:#?}", self.trace);
        self.note("stops at what was lost", pod, task);
        let before = self.order.clone();
        if self.faults && self.rewinds && self.below(2) == 0 {
            self.order(pod, task);
        }
        if self.order == before {
            self.give_back();
        } else {
            self.note("ordered for what was lost", pod, task);
        }
        Turn::Over
    }
}
