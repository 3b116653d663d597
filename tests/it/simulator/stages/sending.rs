//! The transaction of an epoch, and what follows where nobody knows how it ended.
//! Must not decide what the protocol decides.

use streamagg_processor::state::recovery::{AfterFence, AfterUnknown, Position, ownership};

use super::{PODS, World};

/// How a transaction ended for the one who sent it.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Sent {
    Committed,
    Lost,
}

impl World {
    /// Sends the transaction of an epoch; `land` makes its effects visible, all at once.
    pub(super) fn transact(
        &mut self,
        pod: u32,
        task: u32,
        token: &mut u64,
        built_on: &Position,
        sent: &Position,
        land: &mut dyn FnMut(&mut Self),
    ) -> Sent {
        let is_lost = self.faults && self.below(6) == 0;
        if !is_lost {
            return self.send(pod, task, *token, sent, land);
        }
        self.note("unknown", pod, task);
        if self.below(2) == 0 && *token == self.ledgers[task as usize].token {
            self.send(pod, task, *token, sent, land);
        }
        self.meanwhile(pod, task);
        let in_hand = &self.pods[pod as usize].in_hand;
        let (named, generation) = (ownership::is_named(in_hand, task, pod), in_hand.generation);
        if named {
            *token = self.initialise(task);
        }
        let committed = self.ledgers[task as usize].shown.committed.as_ref();
        if let Some(later) = committed.filter(|committed| committed.generation > generation) {
            let generation = later.generation;
            self.pods[pod as usize].released.insert(task, generation);
            return Sent::Lost;
        }
        match ownership::after_unknown(named, committed, sent, Some(built_on)) {
            AfterUnknown::Committed => Sent::Committed,
            AfterUnknown::SendAgain => {
                self.note("sent again", pod, task);
                self.send(pod, task, *token, sent, land)
            }
            AfterUnknown::Release | AfterUnknown::StartUp => Sent::Lost,
        }
    }

    /// While a pod waits for an answer its task may be another's for a while, who goes on, and come back.
    pub(super) fn meanwhile(&mut self, pod: u32, task: u32) {
        if !self.faults || self.below(4) != 0 {
            return;
        }
        let other = (pod + 1) % PODS as u32;
        self.faults = false;
        self.assign(other, task);
        self.learn(other);
        self.start(other, task);
        self.deliver(other, task, 12);
        self.commit(other, task);
        if self.below(4) != 0 {
            self.assign(pod, task);
            self.learn(pod);
        }
        self.faults = true;
        self.note("another's meanwhile", pod, task);
    }

    fn send(&mut self, pod: u32, task: u32, token: u64, sent: &Position, land: &mut dyn FnMut(&mut Self)) -> Sent {
        let ledger = &self.ledgers[task as usize];
        if token != ledger.token {
            if let AfterFence::Release { generation } =
                ownership::after_fence(ledger.shown.committed.as_ref(), sent.generation)
            {
                self.pods[pod as usize].released.insert(task, generation);
            }
            self.note("fenced", pod, task);
            return Sent::Lost;
        }
        self.publish(pod, task, sent);
        land(self);
        Sent::Committed
    }

    pub(super) fn publish(&mut self, pod: u32, task: u32, position: &Position) {
        let ledger = &mut self.ledgers[task as usize];
        let committer = *ledger.committers.entry(position.generation).or_insert(pod);
        assert_eq!(committer, pod, "two pods committed task {task} in one generation");
        let goes_on = ledger.commit(position) || self.is_plain(task);
        assert!(goes_on, "task {task} publishes twice: {:#?}", self.trace);
    }
}
