//! Combine tasks in the simulator: their whole state is in the committed position, so that they never replay.
//! Must not decide anything itself.

use std::sync::Arc;

use streamagg_processor::pipeline::operator::combine::{Combine, Source};
use streamagg_processor::pipeline::shuffle::Shuffle;
use streamagg_processor::state::recovery::position::POSITION_VERSION;
use streamagg_processor::state::recovery::{Base, Birth, How, Local, Position, Startup};
use streamagg_tests::oracle::{Entry, Expected};

use super::{Sent, World, entries_of};
use crate::two_stages::scene::{combine_entries, source};

/// Turns of one start-up: a claim and going on.
const STARTUP_TURNS_MAX: usize = 4;

pub(super) struct Process {
    token: u64,
    task: Combine,
    committed: Position,
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
            .advanced(&owner, state.position, None, process.decisions);
        let (shuffle, refused) = (
            std::mem::take(&mut process.shuffle),
            std::mem::take(&mut process.refused),
        );
        let mut land = |world: &mut Self| {
            world.states[task as usize] = Some(state.clone());
            for (partition, log) in (0..).zip(&mut world.shuffle) {
                log.extend(shuffle.of_partition(partition).map(<[u8]>::to_vec));
            }
            world.refused[task as usize].extend(refused.iter().cloned());
        };
        let built_on = process.committed.clone();
        let outcome = self.transact(pod, task, &mut process.token, &built_on, &sent, &mut land);
        if outcome == Sent::Lost || self.crashes(pod, task) {
            return;
        }
        process.committed = sent;
        process.decisions = 0;
        self.pods[pod as usize].combining.insert(task, process);
    }

    /// The start-up table with K itself as the local state.
    pub(super) fn start_combine(&mut self, pod: u32, task: u32, token: u64) {
        let owner = self.owner(pod, task);
        for _ in 0..STARTUP_TURNS_MAX {
            if token != self.ledgers[task as usize].token {
                return;
            }
            let local = match &self.ledgers[task as usize].committed {
                Some(position) => Local::Held(Box::new(position.clone())),
                None => Local::Absent,
            };
            let log_end = 2 * self.scene.logs[task as usize].len() as i64;
            match self.decision(&owner, &local, log_end, &[]) {
                Startup::Stop(stop) => panic!("{stop}\n{:#?}", self.trace),
                Startup::Release { generation } => {
                    self.pods[pod as usize].released.insert(task, generation);
                    return self.note("release", pod, task);
                }
                Startup::Rewind { .. } => panic!("nobody ordered that"),
                Startup::Birth { .. } => {
                    let birth = Birth {
                        version: POSITION_VERSION,
                        uid: owner.uid.clone(),
                        job_id: owner.job_id.clone(),
                        task,
                        start_offset: 0,
                        partitions: 1,
                    };
                    let born = Position::born(&birth, &owner, format!("lineage-{token}"));
                    self.ledgers[task as usize].birth = Some(birth);
                    self.publish(pod, task, &born);
                    let mut first = Combine::new(Arc::clone(&self.plan), self.source_of(task, &born), 0);
                    self.states[task as usize] = Some(first.close_epoch(&mut Shuffle::default()));
                    self.note("combine born", pod, task);
                }
                Startup::Resume(resume) if resume.claim => {
                    let committed = self.ledgers[task as usize].committed.as_ref().expect("K is there");
                    let claimed = committed.claimed(owner.generation);
                    self.publish(pod, task, &claimed);
                    self.note("claim", pod, task);
                }
                Startup::Resume(resume) => {
                    assert_eq!(
                        (&resume.base, resume.how),
                        (&Base::Local, How::GoOn),
                        "it never replays"
                    );
                    self.note("combine goes on", pod, task);
                    return self.run_combine(pod, task, token);
                }
            }
            if self.crashes(pod, task) {
                return;
            }
        }
        panic!("start-up does not end: {:#?}", self.trace);
    }

    fn run_combine(&mut self, pod: u32, task: u32, token: u64) {
        let committed = self.ledgers[task as usize].committed.clone().expect("K is there");
        let state = self.states[task as usize].as_ref().expect("committed with K");
        assert_eq!(state.position, committed.engine_position, "they are committed together");
        let combine = Combine::restore(Arc::clone(&self.plan), self.source_of(task, &committed), state);
        let process = Process {
            token,
            task: combine,
            at: entries_of(&committed),
            committed,
            decisions: 0,
            shuffle: Shuffle::default(),
            refused: Vec::new(),
        };
        self.pods[pod as usize].combining.insert(task, process);
    }

    fn source_of(&self, task: u32, position: &Position) -> Source {
        Source {
            lineage: position.lineage.clone(),
            ..source(&self.scene, task as usize)
        }
    }
}
