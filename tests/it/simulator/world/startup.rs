//! Start-up in the simulator: facts gathered, the protocol's decision carried out, a crash at every step boundary.
//! Must not decide anything itself.

use streamagg_processor::pipeline::operator::{StepStatus, Task};
use streamagg_processor::pipeline::output::Outputs;
use streamagg_processor::state::recovery::position::POSITION_VERSION;
use streamagg_processor::state::recovery::startup::{self, OnTruncated};
use streamagg_processor::state::recovery::{
    Base, Birth, CheckpointFact, Facts, How, InputLog, LastInputCheck, Local, Order, Owner, Position, Refusal, Resume,
    Startup, ownership,
};

use super::{Process, World};
use crate::engine::record;
use crate::paging::Store;

/// Turns of one start-up: a claim, a discard and one for each base.
const STARTUP_TURNS_MAX: usize = 50;

impl World {
    /// One start-up of a pod that the assignment in hand names.
    pub(super) fn start(&mut self, pod: u32) {
        let held = &self.pods[pod as usize];
        let waits = held.in_hand.generation < held.released;
        if held.process.is_some() || waits || !ownership::is_named(&held.in_hand, 0, pod) {
            return;
        }
        let token = self.initialise();
        let owner = self.owner(pod);
        let mut refused: Vec<(Base, Refusal)> = Vec::new();
        for _ in 0..STARTUP_TURNS_MAX {
            // Another process may have taken over between any two steps of this one.
            if self.crashes(pod) || token != self.token {
                return;
            }
            match self.decision(pod, &owner, &refused) {
                Startup::Stop(stop) => panic!("{stop}\n{:#?}", self.trace),
                Startup::Release { generation } => {
                    self.pods[pod as usize].released = generation;
                    return self.note("release", pod);
                }
                Startup::Birth { .. } => return self.give_birth(pod, &owner, token),
                Startup::Rewind { claim: true, .. } => {
                    let claimed = self.committed.as_ref().expect("K is there").claimed(owner.generation);
                    self.publish(pod, &claimed);
                }
                Startup::Rewind {
                    claim: false,
                    checkpoint,
                } => {
                    if !self.rewind(pod, &owner, &checkpoint) {
                        return;
                    }
                }
                Startup::Resume(resume) if resume.claim => {
                    let claimed = self.committed.as_ref().expect("K is there").claimed(owner.generation);
                    self.publish(pod, &claimed);
                    self.note("claim", pod);
                }
                Startup::Resume(resume) if resume.discard_local.is_some() => self.pods[pod as usize].volume = None,
                Startup::Resume(resume) => match self.resume(pod, &resume, token) {
                    Ok(()) => return,
                    Err(refusal) => refused.push((resume.base, refusal)),
                },
            }
        }
        panic!("start-up does not end: {refused:?}");
    }

    fn decision(&self, pod: u32, owner: &Owner, refused: &[(Base, Refusal)]) -> Startup {
        let (local, checkpoints) = self.found(pod);
        startup::decide(&self.facts(owner, &local, &checkpoints, refused))
    }

    /// Local state and checkpoints.
    pub(super) fn found(&self, pod: u32) -> (Local, Vec<CheckpointFact>) {
        let local = match &self.pods[pod as usize].volume {
            Some((position, _)) => Local::Held(Box::new(position.clone())),
            None => Local::Absent,
        };
        let checkpoints = self.store.iter().map(|checkpoint| checkpoint.manifest.fact());
        (local, checkpoints.collect())
    }

    pub(super) fn facts<'a>(
        &'a self,
        owner: &'a Owner,
        local: &'a Local,
        checkpoints: &'a [CheckpointFact],
        refused: &'a [(Base, Refusal)],
    ) -> Facts<'a> {
        Facts {
            owner,
            committed: self.committed.as_ref(),
            birth: self.birth.as_ref(),
            local,
            checkpoints,
            log: InputLog {
                start: 0,
                end: self.case.offsets.last().map_or(0, |offset| offset + 1),
                partitions: 1,
            },
            last_input: LastInputCheck::Skipped,
            on_truncated: OnTruncated::Stop,
            refused,
            order: self.order.as_ref().map(|(nonce, id)| Order {
                nonce: *nonce,
                name: "any",
                id: Some(id),
                last_input: LastInputCheck::Skipped,
            }),
            local_is_truth: false,
        }
    }

    fn give_birth(&mut self, pod: u32, owner: &Owner, token: u64) {
        let birth = Birth {
            version: POSITION_VERSION,
            uid: owner.uid.clone(),
            job_id: owner.job_id.clone(),
            task: 0,
            start_offset: 0,
            partitions: 1,
        };
        let born = Position::born(&birth, owner, format!("lineage-{token}"));
        self.birth = Some(birth);
        self.publish(pod, &born);
        self.note("birth", pod);
        self.pods[pod as usize].volume = None;
        if !self.crashes(pod) {
            let loaded = self.load(pod);
            self.run(pod, token, loaded, born);
        }
    }

    /// Loads the base, brings it to K with output suppressed, and runs.
    fn resume(&mut self, pod: u32, resume: &Resume, token: u64) -> Result<(), Refusal> {
        match &resume.base {
            Base::Local => {}
            Base::Birth => {
                self.pods[pod as usize].volume = None;
                self.note("replay from birth", pod);
            }
            Base::Checkpoint(id) => {
                let found = self.store.iter().find(|checkpoint| checkpoint.manifest.id == *id);
                let found = found
                    .filter(|checkpoint| !checkpoint.damaged)
                    .ok_or(Refusal::Unreadable)?;
                let (position, store) = &found.held;
                self.pods[pod as usize].volume = Some((position.clone(), store.snapshot()));
                self.note("checkpoint used", pod);
            }
        }
        let (mut task, store) = self.load(pod);
        let committed = self.committed.clone().expect("K is there");
        task.set_result_revision(committed.engine_position.result_revision);
        match resume.how {
            How::GoOn => self.note("go on", pod),
            How::Replay => {
                self.note("replay", pod);
                self.replay(&mut task, resume.from.control_seq, &committed);
            }
            How::Rebuild => panic!("one revision, one engine: nothing is rebuilt"),
        }
        assert!(
            committed.same_state(&task.position(), committed.control_seq),
            "diverged: {:#?}",
            self.trace
        );
        if !self.crashes(pod) {
            self.run(pod, token, (task, store), committed);
        }
        Ok(())
    }

    fn replay(&self, task: &mut Task, from: u64, committed: &Position) {
        let decisions = (from + 1..=committed.control_seq).map(|number| &self.decisions[&number]);
        let mut decisions = decisions.peekable();
        let mut outputs = Outputs::default();
        let records = (0..self.case.log.len()).filter(|entry| self.case.log[*entry].record().is_some());
        let (begin, target) = (task.position().input_offset, committed.engine_position.input_offset);
        let records = records.map(|entry| record(&self.case, entry));
        for record in records.filter(|record| (begin..target).contains(&record.offset)) {
            while let Some(decision) = decisions.next_if(|next| next.input_offset <= task.position().input_offset) {
                task.decide(decision, &mut outputs);
            }
            outputs.clear();
            assert_eq!(task.step(&[record], &mut outputs), StepStatus::Continue);
        }
        for decision in decisions {
            task.decide(decision, &mut outputs);
        }
    }

    fn run(&mut self, pod: u32, token: u64, (mut task, store): (Task, Store), committed: Position) {
        self.save(pod, &mut task, store, &committed);
        self.pods[pod as usize].process = Some(Process {
            token,
            task,
            committed,
            pending: Vec::new(),
            decisions: Vec::new(),
            floor: 0,
            last_input: None,
        });
    }
}
