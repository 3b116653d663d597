//! Window tasks in the simulator: tasks as any other, with a shuffle partition for their input.
//! Must not decide anything itself.

use std::sync::Arc;

use streamagg_processor::pipeline::operator::merge::WindowTask;
use streamagg_processor::pipeline::output::{Outputs, Record};
use streamagg_processor::state::backend::{Backend, Changes};
use streamagg_processor::state::recovery::position::POSITION_VERSION;
use streamagg_processor::state::recovery::{Base, Birth, How, Local, Position, Startup};
use streamagg_tests::oracle::Expected;

use super::{Sent, World};
use crate::engine::expected_form;
use crate::paging::Store;

/// Turns of one start-up: a claim, a discard and a base.
const STARTUP_TURNS_MAX: usize = 6;

pub(super) struct Process {
    token: u64,
    task: WindowTask,
    /// Where its rows are; the volume, once they were saved.
    store: Store,
    committed: Position,
    pending: Vec<Expected>,
}

impl World {
    fn partition(&self, task: u32) -> usize {
        task as usize - self.scene.logs.len()
    }

    pub(super) fn merge(&mut self, pod: u32, task: u32, most: usize) {
        let partition = self.partition(task);
        let Some(process) = self.pods[pod as usize].windows.get_mut(&task) else {
            return;
        };
        process
            .pending
            .extend(consume(&mut process.task, &self.shuffle[partition], most));
    }

    pub(super) fn commit_window(&mut self, pod: u32, task: u32) {
        let (owner, partition) = (self.owner(pod, task), self.partition(task));
        let Some(mut process) = self.pods[pod as usize].windows.remove(&task) else {
            return;
        };
        let sent = process.committed.advanced(&owner, process.task.position(), None, 0);
        let results = std::mem::take(&mut process.pending);
        let mut land = |world: &mut Self| world.published[partition].extend(results.iter().cloned());
        let built_on = process.committed.clone();
        let outcome = self.transact(pod, task, &mut process.token, &built_on, &sent, &mut land);
        if outcome == Sent::Lost || self.crashes(pod, task) {
            return;
        }
        process.committed = sent;
        self.save(pod, task, &mut process.task, process.store.clone(), &process.committed);
        self.pods[pod as usize].windows.insert(task, process);
    }

    /// L is written after K.
    fn save(&mut self, pod: u32, task: u32, state: &mut WindowTask, mut store: Store, position: &Position) {
        assert!(state.take_failure().is_none(), "what has left memory is on the volume");
        let mut changes = Changes::default();
        state.take_changes(&mut changes);
        store.apply(&changes).expect("memory takes everything");
        self.pods[pod as usize].volumes.insert(task, (position.clone(), store));
        if self.pages {
            // What a budget decides elsewhere.
            state.evict_to(state.state_bytes() / 4 * (self.trace.len() % 5));
            if state.rows_left_in_store() > 0 {
                self.note("rows left memory", pod, task);
            }
        }
    }

    /// The task that a volume holds, else an empty one, and where its rows are.
    fn load(&mut self, pod: u32, task: u32) -> (WindowTask, Store) {
        let plan = Arc::clone(&self.plan);
        let Some((_, store)) = self.pods[pod as usize].volumes.get(&task) else {
            let (mut state, store) = (WindowTask::new(plan, 0), Store::default());
            if self.pages {
                state.page(store.reader());
            }
            return (state, store);
        };
        let store = store.clone();
        let state = if self.pages {
            WindowTask::restore_paged(plan, &store.reader(), self.trace.len() % 4 * 1_000)
        } else {
            WindowTask::restore(plan, &store)
        };
        let state = state.expect("readable").expect("a task is there");
        if state.rows_left_in_store() > 0 {
            self.note("starts with rows on the volume", pod, task);
        }
        (state, store)
    }

    pub(super) fn start_window(&mut self, pod: u32, task: u32, token: u64) {
        let owner = self.owner(pod, task);
        for _ in 0..STARTUP_TURNS_MAX {
            if self.crashes(pod, task) || token != self.ledgers[task as usize].token {
                return;
            }
            let local = match self.pods[pod as usize].volumes.get(&task) {
                Some((position, _)) => Local::Held(Box::new(position.clone())),
                None => Local::Absent,
            };
            let log_end = self.shuffle[self.partition(task)].len() as i64;
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
                    self.pods[pod as usize].volumes.remove(&task);
                    self.note("window born", pod, task);
                    return self.run_window(pod, task, token);
                }
                Startup::Resume(resume) if resume.claim => {
                    let committed = self.ledgers[task as usize].committed.as_ref().expect("K is there");
                    let claimed = committed.claimed(owner.generation);
                    self.publish(pod, task, &claimed);
                    self.note("claim", pod, task);
                }
                Startup::Resume(resume) if resume.discard_local.is_some() => {
                    self.pods[pod as usize].volumes.remove(&task);
                }
                Startup::Resume(resume) => {
                    match (&resume.base, resume.how) {
                        (Base::Birth, _) => {
                            self.pods[pod as usize].volumes.remove(&task);
                            self.note("replay from birth", pod, task);
                        }
                        (Base::Local, How::Replay) => self.note("replay", pod, task),
                        (Base::Local, How::GoOn) => self.note("go on", pod, task),
                        other => panic!("{other:?} without a store and with one revision"),
                    }
                    return self.run_window(pod, task, token);
                }
            }
        }
        panic!("start-up does not end: {:#?}", self.trace);
    }

    /// Loads what the volume holds, brings it to K with output suppressed, and runs.
    fn run_window(&mut self, pod: u32, task: u32, token: u64) {
        let (mut state, store) = self.load(pod, task);
        let committed = self.ledgers[task as usize].committed.clone().expect("K is there");
        let behind = committed.engine_position.input_offset - state.position().input_offset;
        let log = &self.shuffle[self.partition(task)];
        consume(&mut state, log, usize::try_from(behind).expect("L is a prefix of K"));
        assert!(
            committed.same_state(&state.position(), 0),
            "diverged: {:#?}",
            self.trace
        );
        if self.crashes(pod, task) {
            return;
        }
        self.save(pod, task, &mut state, store.clone(), &committed);
        let process = Process {
            token,
            task: state,
            store,
            committed,
            pending: Vec::new(),
        };
        self.pods[pod as usize].windows.insert(task, process);
    }
}

/// Consumes so many records at most and gives the results.
fn consume(task: &mut WindowTask, log: &[Vec<u8>], most: usize) -> Vec<Expected> {
    let at = usize::try_from(task.position().input_offset).expect("offsets begin at 0");
    let values = (at..).zip(&log[at..]).take(most);
    let records: Vec<Record<'_>> = values
        .map(|(offset, value)| Record::new(offset as i64, value))
        .collect();
    let (mut outputs, mut purged) = (Outputs::default(), Vec::new());
    task.step(&records, &mut outputs, &mut purged)
        .expect("each record once and in order");
    assert_eq!(purged, []);
    expected_form(&outputs, &[], 0)
}
