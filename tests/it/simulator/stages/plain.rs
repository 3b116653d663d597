//! Window tasks that deliver at least once: no transaction, and nobody is fenced.
//! Must not decide what the protocol decides.

use streamagg_processor::state::recovery::{AfterUnknown, Position, at_least_once, ownership};

use super::World;
use super::window::Process;

/// How far an epoch that is sent comes.
enum Sent {
    Whole,
    /// Nobody has acknowledged all of it.
    Unknown,
    /// Its process died.
    Died,
}

impl World {
    /// Outputs, then the position, then local state.
    pub(super) fn commit_plain(&mut self, pod: u32, task: u32, mut process: Process, sent: Position) {
        if !self.publish_plain(pod, task, &process, &sent) || self.crashes(pod, task) {
            return;
        }
        // Whatever a state has behind it is there for all to see.
        let seen = &self.published[self.partition(task)];
        let lost = process.pending.iter().find(|output| !seen.contains(output));
        assert_eq!(lost, None, "{:#?}", self.trace);
        process.pending.clear();
        process.committed = sent;
        self.save(pod, task, &mut process.task, process.store.clone(), &process.committed);
        self.pods[pod as usize].windows.insert(task, process);
    }

    /// Sends an epoch until all of it is there. False: the process is no more.
    fn publish_plain(&mut self, pod: u32, task: u32, process: &Process, sent: &Position) -> bool {
        loop {
            match self.send_plain(pod, task, process, sent) {
                Sent::Whole => return true,
                Sent::Died => return false,
                Sent::Unknown => self.note("plain: unknown", pod, task),
            }
            self.meanwhile(pod, task);
            let named = ownership::is_named(&self.pods[pod as usize].in_hand, task, pod);
            let known = self.ledgers[task as usize].shown.committed.as_ref();
            if let Some(later) = known.filter(|known| known.generation > sent.generation) {
                let generation = later.generation;
                self.pods[pod as usize].released.insert(task, generation);
                return false;
            }
            match at_least_once::after_unknown(named, known, sent) {
                AfterUnknown::Committed => return true,
                AfterUnknown::SendAgain => self.note("plain: sent again", pod, task),
                AfterUnknown::Release | AfterUnknown::StartUp => return false,
            }
        }
    }

    fn send_plain(&mut self, pod: u32, task: u32, process: &Process, sent: &Position) -> Sent {
        if process.token < self.ledgers[task as usize].token {
            if !process.pending.is_empty() {
                self.overlapped.insert(task);
            }
            self.note("plain: beside a later one", pod, task);
        }
        let fate = if self.faults { self.below(16) } else { 16 };
        let partition = self.partition(task);
        let seen = match fate {
            0 | 1 => usize::try_from(self.below(process.pending.len() as u64 + 1)).unwrap(),
            _ => process.pending.len(),
        };
        self.published[partition].extend_from_slice(&process.pending[..seen]);
        match fate {
            0 | 2 => {
                self.note("plain: dies before the position", pod, task);
                return Sent::Died;
            }
            1 | 3 => return Sent::Unknown,
            _ => {}
        }
        self.publish(pod, task, sent);
        match fate {
            4 => Sent::Unknown,
            _ => Sent::Whole,
        }
    }
}
