//! Window tasks in the simulator: tasks as any other, with a shuffle partition for their input.
//! Must not decide anything itself.

use streamagg_processor::pipeline::operator::merge::{ShuffleError, WindowTask};
use streamagg_processor::pipeline::output::{Outputs, Record};
use streamagg_processor::pipeline::position::{Decision, DecisionKind};
use streamagg_processor::state::backend::{Backend, Changes};
use streamagg_processor::state::recovery::Position;
use streamagg_tests::oracle::Expected;

use super::sending::Sent;
use super::startup::Starting;
use super::{World, in_revision};
use crate::engine::expected_form;
use crate::paging::Store;

pub(super) struct Process {
    pub token: u64,
    pub task: WindowTask,
    /// Where its rows are; the volume, once they were saved.
    pub store: Store,
    pub committed: Position,
    pub pending: Vec<Expected>,
}

impl World {
    pub(super) fn partition(&self, task: u32) -> usize {
        task as usize - self.scene.logs.len()
    }

    pub(super) fn merge(&mut self, pod: u32, task: u32, most: usize) {
        let partition = self.partition(task);
        let Some(process) = self.pods[pod as usize].windows.get_mut(&task) else {
            return;
        };
        let revision = process.committed.engine_position.result_revision;
        let before = process.task.position().input_offset as usize;
        match consume(&mut process.task, &self.shuffle[partition], most) {
            Ok(results) => {
                let results = results.into_iter().map(|result| in_revision(result, revision));
                process.pending.extend(results);
                let after = process.task.position().input_offset as usize;
                self.look_for_newer(pod, task, before..after);
            }
            Err(ShuffleError::Lineage { .. }) => self.stop_at_lineage(pod, task),
            Err(ShuffleError::Layout { .. }) => self.waits_for_spec(pod, task),
            Err(error) => panic!("{error}\n{:#?}", self.trace),
        }
    }

    /// A history that a task was not told of: it stops, and that is right where an order is yet to be carried out.
    fn stop_at_lineage(&mut self, pod: u32, task: u32) {
        let committed = self.running_at(pod, task).expect("it runs");
        assert!(self.awaits_order(committed), "untold: {:#?}", self.trace);
        self.drop_process(pod, task);
        self.note("stops before a history", pod, task);
    }

    pub(super) fn commit_window(&mut self, pod: u32, task: u32) {
        let (owner, partition) = (self.owner(pod, task), self.partition(task));
        let Some(mut process) = self.pods[pod as usize].windows.remove(&task) else {
            return;
        };
        let sent = process.committed.advanced(&owner, process.task.position(), None, 0);
        if self.is_plain(task) {
            return self.commit_plain(pod, task, process, sent);
        }
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
    pub(super) fn save(&mut self, pod: u32, task: u32, state: &mut WindowTask, mut store: Store, position: &Position) {
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
    pub(super) fn load(&mut self, pod: u32, task: u32) -> (WindowTask, Store) {
        let plan = self.plan_of(pod);
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

    /// Decisions between a base and the committed position, as the control topic has them.
    pub(super) fn decisions_of(&self, task: u32, committed: &Position, after: u64) -> Vec<Decision> {
        let all = self.ledgers[task as usize].shown.decisions.iter();
        all.filter(|((number, lineage), _)| (after + 1..=committed.decisions_limit(lineage)).contains(number))
            .map(|(_, decision)| decision.clone())
            .collect()
    }

    /// Runs what stands at the committed position.
    pub(super) fn run_window(
        &mut self,
        starting: &Starting,
        committed: Position,
        (mut state, store): (WindowTask, Store),
    ) {
        let (pod, task) = (starting.pod, starting.task);
        if self.crashes(pod, task) {
            return;
        }
        self.save(pod, task, &mut state, store.clone(), &committed);
        let process = Process {
            token: starting.token,
            task: state,
            store,
            committed,
            pending: Vec::new(),
        };
        self.pods[pod as usize].windows.insert(task, process);
    }

    pub(super) fn replay(&self, task: u32, state: &mut WindowTask, committed: &Position, decisions: &[Decision]) {
        let log = &self.shuffle[self.partition(task)];
        let target = committed.engine_position.input_offset;
        let mut decisions = decisions.iter().peekable();
        loop {
            let at = state.position().input_offset;
            while let Some(decision) = decisions.next_if(|next| next.input_offset <= at) {
                let DecisionKind::Cut(cut) = &decision.kind else {
                    panic!("{decision:?} is none of a window task");
                };
                state
                    .rewound(cut)
                    .expect("the state that the rewind began with took it");
            }
            if at >= target {
                return;
            }
            consume(state, log, 1).expect("what was committed can be read");
        }
    }
}

/// Consumes so many records at most and gives the results.
fn consume(task: &mut WindowTask, log: &[Vec<u8>], most: usize) -> Result<Vec<Expected>, ShuffleError> {
    let at = usize::try_from(task.position().input_offset).expect("offsets begin at 0");
    let values = (at..).zip(&log[at..]).take(most);
    let records: Vec<Record<'_>> = values
        .map(|(offset, value)| Record::new(offset as i64, value))
        .collect();
    let (mut outputs, mut purged) = (Outputs::default(), Vec::new());
    task.step(&records, &mut outputs, &mut purged)?;
    assert_eq!(purged, []);
    Ok(expected_form(&outputs, &[], 0))
}
