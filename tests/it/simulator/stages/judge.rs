//! How a world of two stages is judged: by what is left of the shuffle topic where rewinds have taken something back.
//! Must not hold: what happens in it.

use std::collections::BTreeSet;

use streamagg_processor::pipeline::output::{Outputs, Record};
use streamagg_processor::state::recovery::Position;
use streamagg_tests::oracle::{self, Expected};

use super::upgrading::{has_added, of_first_spec};
use super::{PODS, SETTLE_ROUNDS_MAX, World, entries_of};
use crate::engine::expected_form;
use crate::two_stages::judged::{answer, assert_panes_are_in_order, results, without_counts};

impl World {
    /// Without faults the work gets done, and then it is what it should be.
    pub(super) fn settle(&mut self) {
        self.faults = false;
        for pod in 0..PODS as u32 {
            self.upgrade(pod);
        }
        for _ in 0..SETTLE_ROUNDS_MAX {
            for pod in 0..PODS as u32 {
                self.learn(pod);
                for task in 0..self.ledgers.len() as u32 {
                    self.leave_for_order(pod, task);
                    self.commit(pod, task);
                    self.start(pod, task);
                    self.deliver(pod, task, 60);
                    self.commit(pod, task);
                }
            }
            if self.is_done() {
                break;
            }
        }
        assert!(self.is_done(), "not all was consumed: {:#?}", self.trace);
        self.judge();
    }

    fn judge(&mut self) {
        let mut all = Vec::new();
        for task in self.scene.logs.len() as u32..self.ledgers.len() as u32 {
            let straight = self.straight(self.partition(task));
            assert_panes_are_in_order(&without_counts(&self.scene, &results(&straight)));
            if self.is_plain(task) {
                self.judge_plain(task, &straight);
            } else {
                self.judge_exact(task, &straight);
            }
            all.extend(straight.iter().map(of_first_spec));
        }
        for (source, log) in self.scene.logs.iter().enumerate() {
            let expected = oracle::refused(&self.scene.spec, log);
            assert_eq!(self.refused[source], expected, "{:#?}", self.trace);
        }
        let expected = oracle::answer_of_sources(&self.scene.spec, &self.scene.logs);
        assert_eq!(
            answer(&self.scene, &results(&all)),
            expected,
            "{:#?}\n{:?}",
            self.trace,
            self.scene
        );
    }

    /// Each result once and in order, with what was added where its publisher had that.
    fn judge_exact(&self, task: u32, straight: &[Expected]) {
        let published = &self.published[self.partition(task)];
        let as_published = |(published, straight): (&Expected, &Expected)| match has_added(published) {
            true if self.unaware.contains(&task) => published.clone(),
            true => straight.clone(),
            false => of_first_spec(straight),
        };
        let expected: Vec<Expected> = published.iter().zip(straight).map(as_published).collect();
        assert_eq!(published, &expected, "task {task}: {:#?}", self.trace);
        let of_first = |outputs: &[Expected]| -> Vec<Expected> { outputs.iter().map(of_first_spec).collect() };
        assert_eq!(
            of_first(published),
            of_first(straight),
            "task {task}: {:#?}",
            self.trace
        );
    }

    /// Nothing is lost; and where nobody published beside a later process, the last that was seen of a window is its last
    /// value.
    fn judge_plain(&mut self, task: u32, straight: &[Expected]) {
        let published = self.published[self.partition(task)].iter().map(of_first_spec);
        let published: Vec<Expected> = published.collect();
        let seen: BTreeSet<String> = published.iter().map(|output| format!("{output:?}")).collect();
        let straight: Vec<Expected> = straight.iter().map(of_first_spec).collect();
        for output in &straight {
            let found = seen.contains(&format!("{output:?}"));
            assert!(found, "lost: {output:?}\n{:#?}", self.trace);
        }
        let has_gone_back = self.first.iter().any(|first| !first.cuts.is_empty());
        let keeps_sessions = !has_gone_back || !self.scene.has_sessions();
        if keeps_sessions && !self.overlapped.contains(&task) {
            // Which events a count window has, and which sessions come to be on the way, depends on the order of the source
            // partitions, which a rewind does not keep.
            let last = answer(&self.scene, &results(&published));
            let expected = answer(&self.scene, &results(&straight));
            assert_eq!(last, expected, "task {task}: {:#?}", self.trace);
            self.note("last values", 0, task);
        }
    }

    fn is_done(&self) -> bool {
        let nonce = self.order.as_ref().map_or(0, |(nonce, _)| *nonce);
        (0..self.ledgers.len() as u32).all(|task| {
            let behind = |position: &&Position| position.restore_nonce >= nonce;
            let stands = self.stands(task).filter(behind);
            stands.is_some_and(|position| match self.scene.logs.get(task as usize) {
                Some(log) => entries_of(position) == log.len(),
                None => position.engine_position.input_offset as usize == self.shuffle[self.partition(task)].len(),
            })
        })
    }

    /// Where a task has come to: its state, where that is the truth.
    fn stands(&self, task: u32) -> Option<&Position> {
        if !self.is_plain(task) {
            return self.ledgers[task as usize].shown.committed.as_ref();
        }
        let owner = &self.pods[self.assignment.tasks[&task] as usize];
        owner.volumes.get(&task).map(|(position, _)| position)
    }

    /// What a window task gives to which nothing happens, of what holds of its partition.
    pub(super) fn straight(&self, partition: usize) -> Vec<Expected> {
        let mut task = self.of_all_specs();
        for cut in self.first.iter().flat_map(|first| &first.cuts) {
            task.rewound(cut).expect("nothing was heard yet");
        }
        let holds: BTreeSet<usize> = (self.first.iter().flat_map(|first| &first.written[partition]))
            .copied()
            .collect();
        let records: Vec<Record<'_>> = holds
            .iter()
            .map(|offset| Record::new(*offset as i64, &self.shuffle[partition][*offset]))
            .collect();
        let mut outputs = Outputs::default();
        task.step(&records, &mut outputs, &mut Vec::new())
            .expect("each record once and in order");
        expected_form(&outputs, &[], 0)
    }
}
