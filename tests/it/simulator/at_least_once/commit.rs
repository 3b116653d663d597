//! An epoch without a transaction: its outputs, then the position, then local state; it may end between any two records.
//! Must not decide what the protocol decides.

use streamagg_processor::state::recovery::{AfterUnknown, Position, at_least_once, ownership};
use streamagg_tests::oracle::Expected;

use super::{PODS, Process, World};

/// How far an epoch that is sent comes.
#[derive(Clone, Copy, PartialEq)]
enum Sent {
    Whole,
    /// Nobody has acknowledged all of it.
    Unknown,
    /// Its process died.
    Died,
}

impl World {
    /// Closes the epoch of a pod.
    pub(super) fn commit(&mut self, pod: u32) {
        if !self.is_named(pod) {
            self.pods[pod as usize].process = None;
            return;
        }
        let owner = self.owner(pod);
        let Some(mut process) = self.pods[pod as usize].process.take() else {
            return;
        };
        let position = process.task.position();
        let sent = process.committed.advanced(&owner, position, process.last_input, 0);
        self.check_pending(&process);
        if !self.publish(pod, &process, &sent) || self.crashes(pod) {
            return;
        }
        // Whatever a state has behind it is there for all to see.
        self.assert_seen(&process.pending);
        process.pending.clear();
        process.committed = sent;
        self.save(pod, &mut process);
        self.pods[pod as usize].process = Some(process);
    }

    pub(super) fn is_named(&self, pod: u32) -> bool {
        ownership::is_named(&self.pods[pod as usize].in_hand, 0, pod)
    }

    /// What an epoch is about to put out is what the oracle has there.
    fn check_pending(&mut self, process: &Process) {
        if process.pending.is_empty() {
            return;
        }
        let expected = self.answer(&process.past.passed);
        let first = usize::try_from(process.committed.engine_position.output_seq).unwrap();
        let expected = &expected[first..][..process.pending.len()];
        assert_eq!(process.pending, expected, "{:#?}\n{:?}", self.trace, self.case);
    }

    /// Sends an epoch until all of it is there. False: the process is no more.
    fn publish(&mut self, pod: u32, process: &Process, sent: &Position) -> bool {
        loop {
            match self.send(pod, process, sent) {
                Sent::Whole => return true,
                Sent::Died => return false,
                Sent::Unknown => {}
            }
            self.note("unknown", pod);
            if self.below(4) == 0 {
                self.learn(pod);
            }
            self.meanwhile(pod);
            if self.pods[pod as usize].volume.is_none() {
                // All was begun anew, and this process ended with the rest.
                return false;
            }
            if let Some(later) = self
                .committed
                .as_ref()
                .filter(|known| known.generation > sent.generation)
            {
                self.pods[pod as usize].released = later.generation;
                self.note("release", pod);
                return false;
            }
            match at_least_once::after_unknown(self.is_named(pod), self.committed.as_ref(), sent) {
                AfterUnknown::Committed => {
                    self.note("was committed", pod);
                    return true;
                }
                AfterUnknown::SendAgain => self.note("sent again", pod),
                AfterUnknown::Release | AfterUnknown::StartUp => return false,
            }
        }
    }

    /// While a pod waits for an answer its task may be another's for a while, who goes on, and come back.
    fn meanwhile(&mut self, pod: u32) {
        if !self.faults || self.below(4) != 0 {
            return;
        }
        let other = (pod + 1) % PODS;
        self.faults = false;
        self.assign(other);
        self.learn(other);
        self.start(other);
        self.deliver(other, 6);
        self.commit(other);
        if self.below(4) != 0 {
            self.assign(pod);
            self.learn(pod);
        }
        self.faults = true;
        self.note("another's meanwhile", pod);
    }

    fn send(&mut self, pod: u32, process: &Process, sent: &Position) -> Sent {
        if process.started < self.started && !process.pending.is_empty() {
            self.overlapped = true;
            self.note("beside a later one", pod);
        }
        let fate = if self.faults { self.below(16) } else { 16 };
        if let 0 | 1 = fate {
            // Several partitions: any of the records may be there.
            let any = self.below(1 << 32);
            let some = (0..)
                .zip(&process.pending)
                .filter(|(place, _)| any >> (place % 32) & 1 == 1);
            let some: Vec<Expected> = some.map(|(_, output)| output.clone()).collect();
            self.show(&some);
            return self.ended(pod, fate == 0, "dies before all is written");
        }
        self.show(&process.pending);
        if let 2 | 3 = fate {
            return self.ended(pod, fate == 2, "dies before the position");
        }
        self.write(pod, process.started, sent);
        match fate {
            4 => Sent::Unknown,
            _ => Sent::Whole,
        }
    }

    fn ended(&mut self, pod: u32, dies: bool, what: &'static str) -> Sent {
        if !dies {
            return Sent::Unknown;
        }
        self.note(what, pod);
        Sent::Died
    }

    /// A position comes to the control topic, whoever writes it.
    pub(super) fn write(&mut self, pod: u32, started: u64, position: &Position) {
        let committer = *self.committers.entry(position.generation).or_insert(pod);
        assert_eq!(committer, pod, "two pods in generation {}", position.generation);
        let before = self.committed.replace(position.clone());
        if let Some(before) = before {
            // A process from before a rewind goes on: nothing fences it.
            let is_behind = position.restore_nonce < before.restore_nonce;
            assert!(
                !is_behind || started < self.started || self.is_forgotten,
                "{:#?}",
                self.trace
            );
            self.is_forgotten |= is_behind;
            self.earlier.push(before);
        }
    }
}
