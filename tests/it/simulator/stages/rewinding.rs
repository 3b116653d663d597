//! A user who orders both stages to go back: combine tasks first, then window tasks, which are told of the cuts.
//! Must not decide what the protocol decides.

use std::collections::BTreeMap;

use streamagg_processor::pipeline::operator::merge::{Cut, WindowTask};
use streamagg_processor::pipeline::position::{Decision, DecisionKind};
use streamagg_processor::pipeline::stage::Stage;
use streamagg_processor::state::recovery::{Position, rewind};

use super::startup::{Starting, Turn};
use super::{FirstStage, World};

impl World {
    /// The user orders to go back to a checkpoint of the job.
    pub(super) fn order(&mut self, pod: u32, task: u32) {
        let is_whole = |(task, id): (&u32, &String)| !self.stored(*task, id).damaged;
        let whole: Vec<BTreeMap<u32, String>> = (self.jobs.iter())
            .filter(|ids| ids.iter().all(is_whole))
            .cloned()
            .collect();
        if whole.is_empty() {
            return;
        }
        let any = usize::try_from(self.below(whole.len() as u64)).unwrap();
        let nonce = self.order.as_ref().map_or(0, |(nonce, _)| *nonce) + 1 + self.below(3);
        self.order = Some((nonce, whole[any].clone()));
        self.making.clear();
        self.note("ordered", pod, task);
    }

    /// The rollout of an order replaces a pod: its tasks start anew, this one first.
    pub(super) fn roll(&mut self, pod: u32, first: u32) {
        self.learn(pod);
        let count = self.ledgers.len() as u32;
        for task in (first..count).chain(0..first) {
            self.leave_for_order(pod, task);
            self.start(pod, task);
        }
    }

    /// Once a rollout has replaced the pods no process is left that does not know of the order.
    pub(super) fn leave_for_order(&mut self, pod: u32, task: u32) {
        let position = self.running_at(pod, task);
        if position.is_some_and(|position| self.awaits_order(position)) {
            self.drop_process(pod, task);
        }
    }

    pub(super) fn awaits_order(&self, position: &Position) -> bool {
        let ordered = self.order.as_ref().map_or(0, |(nonce, _)| *nonce);
        position.restore_nonce < ordered
    }

    /// Goes back: one commit, then local state.
    pub(super) fn rewind(&mut self, starting: &mut Starting, id: &str) -> Turn {
        let (pod, task) = (starting.pod, starting.task);
        let stored = self.stored(task, id).manifest.position.clone();
        let Some(cuts) = self.cuts(task, id, &stored) else {
            self.note("waits for the first stage", pod, task);
            return Turn::Over;
        };
        self.verify(pod, task, id, &cuts);
        let (local, checkpoints) = self.found(starting);
        let facts = self.facts(starting, starting.known.as_ref(), &local, &checkpoints);
        let order = rewind::pending(&facts).expect("decided on");
        let lineage = rewind::lineage(order.nonce, starting.token.into());
        let decisions = cuts.len() as u64;
        let rewound = rewind::position(&facts, &order, &stored, lineage.clone(), decisions);
        let numbers = stored.control_seq + 1..;
        for (number, cut) in numbers.zip(cuts) {
            let decision = Decision {
                input_offset: stored.engine_position.input_offset,
                kind: DecisionKind::Cut(cut),
            };
            let ledger = &mut self.ledgers[task as usize];
            let key = (number, lineage.clone());
            ledger.write(|control| _ = control.decisions.insert(key.clone(), decision.clone()));
        }
        self.publish(pod, task, &rewound);
        self.take_back(task, id, &stored, &lineage);
        starting.known = Some(rewound);
        if self.is_combine(task) {
            self.note("combine rewound", pod, task);
        } else {
            self.note("window rewound", pod, task);
        }
        if self.crashes(pod, task) {
            return Turn::Over;
        }
        if let Some(rows) = &self.stored(task, id).rows {
            let held = (stored, rows.snapshot());
            self.pods[pod as usize].volumes.insert(task, held);
        }
        Turn::Next
    }

    /// What a window task has to know; `None`: the first stage goes back first.
    fn cuts(&self, task: u32, id: &str, stored: &Position) -> Option<Vec<Cut>> {
        let (nonce, ids) = self.order.as_ref().expect("decided on");
        let sources = 0..self.scene.logs.len() as u32;
        if self.role(task).stage == Stage::Combine {
            for window in sources.end..self.ledgers.len() as u32 {
                let other = &self.stored(window, &ids[&window]).manifest.position;
                let together = rewind::check_together((*nonce, id), stored, other);
                together.expect("of one checkpoint of the job");
            }
            return Some(Vec::new());
        }
        let cut = |source: u32| {
            let at = &self.stored(source, &ids[&source]).manifest.position;
            let together = rewind::check_together((*nonce, &ids[&source]), at, stored);
            together.expect("of one checkpoint of the job");
            let committed = self.ledgers[source as usize].shown.committed.as_ref()?;
            let lineage = rewind::begun_by(*nonce, committed)?;
            Some(rewind::cut(source, lineage, at))
        };
        sources.map(cut).collect()
    }

    /// A window task is read and told of the cuts before anything is committed.
    fn verify(&self, pod: u32, task: u32, id: &str, cuts: &[Cut]) {
        if let Some(rows) = &self.stored(task, id).rows {
            let restored = WindowTask::restore(self.plan_of(pod), rows);
            let mut window = restored.expect("readable").expect("a task is there");
            for cut in cuts {
                window.rewound(cut).expect("what it has merged was committed before");
            }
        }
    }

    /// What holds from here on of what the task has written: the newest revision of a result takes the place of others.
    fn take_back(&mut self, task: u32, id: &str, stored: &Position, lineage: &str) {
        if let Some((first, refused)) = &self.stored(task, id).written {
            let (mut first, refused): (FirstStage, usize) = (first.clone(), *refused);
            first.cuts.push(rewind::cut(task, lineage, stored));
            self.first[task as usize] = first;
            let all = streamagg_tests::oracle::refused(&self.scene.spec, &self.scene.logs[task as usize]);
            self.refused[task as usize] = all[..refused].to_vec();
        } else if !self.is_plain(task) {
            let partition = self.partition(task);
            let before = usize::try_from(stored.engine_position.output_seq).unwrap();
            self.published[partition] = self.straight(partition)[..before].to_vec();
        }
    }
}
