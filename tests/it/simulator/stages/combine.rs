//! Combine tasks in the simulator: their whole state is in the committed position, so that they never replay.
//! Must not decide anything itself.

use streamagg_processor::pipeline::operator::combine::{Combine, CombineState, Source};
use streamagg_processor::pipeline::shuffle::Shuffle;
use streamagg_processor::state::recovery::Position;
use streamagg_tests::oracle::{Entry, Expected};

use super::sending::Sent;
use super::startup::Starting;
use super::{World, entries_of};
use crate::two_stages::scene::{combine_entries, source};

pub(super) struct Process {
    token: u64,
    task: Combine,
    pub committed: Position,
    /// Place in the source log.
    at: usize,
    decisions: u64,
    shuffle: Shuffle,
    refused: Vec<Expected>,
}

impl World {
    pub(super) fn combine(&mut self, pod: u32, task: u32, most: usize) {
        let Some(process) = self.pods[pod as usize].combining.get_mut(&task) else {
            return;
        };
        let log = &self.scene.logs[task as usize];
        let to = (process.at + most).min(log.len());
        let decided = log[process.at..to]
            .iter()
            .filter(|entry| matches!(entry, Entry::IdleAdvance(_) | Entry::Share(_)));
        process.decisions += decided.count() as u64;
        let (shuffle, refused) = (&mut process.shuffle, &mut process.refused);
        combine_entries(
            &self.scene,
            task as usize,
            &mut process.task,
            process.at..to,
            7,
            shuffle,
            refused,
        );
        process.at = to;
    }

    /// One transaction carries partials and watermarks, late and dead records, and the position with the state in it.
    pub(super) fn commit_combine(&mut self, pod: u32, task: u32) {
        let owner = self.owner(pod, task);
        let Some(mut process) = self.pods[pod as usize].combining.remove(&task) else {
            return;
        };
        let state = process.task.close_epoch(&mut process.shuffle);
        let sent = process
            .committed
            .advanced(&owner, state.position, None, process.decisions)
            .carrying(Some(state.carried));
        let (shuffle, refused) = (
            std::mem::take(&mut process.shuffle),
            std::mem::take(&mut process.refused),
        );
        let is_newest = !self.is_behind_spec(pod);
        let mut land = |world: &mut Self| {
            let written = &mut world.first[task as usize].written;
            for ((partition, log), places) in (0..).zip(&mut world.shuffle).zip(written) {
                let first = log.len();
                log.extend(shuffle.of_partition(partition).map(<[u8]>::to_vec));
                places.extend(first..log.len());
                if is_newest {
                    world.newer[partition as usize].extend(first..log.len());
                }
            }
            world.refused[task as usize].extend(refused.iter().cloned());
        };
        let built_on = process.committed.clone();
        let outcome = self.transact(pod, task, &mut process.token, &built_on, &sent, &mut land);
        if outcome == Sent::Lost {
            self.pods[pod as usize].left.insert(task, process.committed);
            return;
        }
        if self.crashes(pod, task) {
            return;
        }
        process.committed = sent;
        process.decisions = 0;
        self.pods[pod as usize].combining.insert(task, process);
    }

    pub(super) fn run_combine(&mut self, starting: &Starting, committed: Position) {
        let state = CombineState {
            position: committed.engine_position,
            carried: committed.combine.clone().unwrap_or_default(),
        };
        let source = self.source_of(starting.task, &committed);
        let combine = Combine::restore(self.plan_of(starting.pod), source, &state);
        let process = Process {
            token: starting.token,
            task: combine,
            at: entries_of(&committed),
            committed,
            decisions: 0,
            shuffle: Shuffle::default(),
            refused: Vec::new(),
        };
        let held = &mut self.pods[starting.pod as usize];
        held.combining.insert(starting.task, process);
    }

    fn source_of(&self, task: u32, position: &Position) -> Source {
        Source {
            lineage: position.lineage.clone(),
            ..source(&self.scene, task as usize)
        }
    }
}
