//! Start-up of tasks of both stages: the protocol's decisions carried out, a crash at every step boundary.
//! Must not decide anything itself.

use streamagg_processor::pipeline::position::Decision;
use streamagg_processor::state::recovery::position::POSITION_VERSION;
use streamagg_processor::state::recovery::startup::{self, OnTruncated};
use streamagg_processor::state::recovery::{
    Base, Birth, CheckpointFact, Facts, How, InputLog, LastInputCheck, Local, Order, Owner, Position, Reason, Refusal,
    Resume, Startup, Stop, at_least_once, ownership, rewind,
};

use super::World;

/// Turns of one start-up: a claim, a rewind, a discard and one for each base.
const STARTUP_TURNS_MAX: usize = 20;

/// A start-up under way. The control topic is read once.
pub(super) struct Starting {
    pub pod: u32,
    pub task: u32,
    pub token: u64,
    pub owner: Owner,
    pub known: Option<Position>,
    pub refused: Vec<(Base, Refusal)>,
}

/// What follows a decision that was carried out.
pub(super) enum Turn {
    Next,
    Over,
}

impl World {
    /// A pod starts what the assignment in hand gives it, this task first.
    pub(super) fn start_all(&mut self, pod: u32, first: u32) {
        let count = self.ledgers.len() as u32;
        for task in (first..count).chain(0..first) {
            self.start(pod, task);
        }
    }

    pub(super) fn start(&mut self, pod: u32, task: u32) {
        let held = &self.pods[pod as usize];
        let released = held.released.get(&task).copied().unwrap_or(0);
        let runs = held.combining.contains_key(&task) || held.windows.contains_key(&task);
        if runs || held.in_hand.generation < released || !ownership::is_named(&held.in_hand, task, pod) {
            return;
        }
        self.upgrade_for(pod, task);
        self.spare_unseen(pod, task);
        let mut starting = Starting {
            pod,
            task,
            token: self.initialise(task),
            owner: self.owner(pod, task),
            known: self.ledgers[task as usize].shown.committed.clone(),
            refused: Vec::new(),
        };
        for _ in 0..STARTUP_TURNS_MAX {
            if self.crashes(pod, task) {
                return;
            }
            if let Turn::Over = self.turn(&mut starting) {
                return;
            }
        }
        panic!("start-up does not end: {:#?}", self.trace);
    }

    fn turn(&mut self, starting: &mut Starting) -> Turn {
        let (pod, task) = (starting.pod, starting.task);
        match self.decision(starting) {
            Startup::Stop(stop) => self.stop(starting, &stop),
            Startup::Release { generation } => {
                self.pods[pod as usize].released.insert(task, generation);
                self.note("release", pod, task);
                Turn::Over
            }
            Startup::Birth { .. } if self.is_second_birth() => {
                self.note("stops before a second birth", pod, task);
                self.stop(
                    starting,
                    &Stop::new(Reason::CommittedPositionBehindState, "of the shell"),
                )
            }
            Startup::Birth { .. } => self.give_birth(starting),
            Startup::Rewind {
                claim: false,
                checkpoint,
            } => self.rewind(starting, &checkpoint),
            Startup::Rewind { claim: true, .. } => self.claim(starting),
            Startup::Resume(resume) if resume.claim => self.claim(starting),
            Startup::Resume(resume) if resume.discard_local.is_some() => {
                self.pods[pod as usize].volumes.remove(&task);
                Turn::Next
            }
            Startup::Resume(resume) => self.resume(starting, &resume),
        }
    }

    /// What start-up decides. Without transactions the committed position first follows the state, unless a user takes that
    /// back.
    fn decision(&self, starting: &mut Starting) -> Startup {
        let (local, checkpoints) = self.found(starting);
        let known = starting.known.clone();
        let mut facts = self.facts(starting, known.as_ref(), &local, &checkpoints);
        if !facts.local_is_truth || rewind::pending(&facts).is_some() {
            return startup::decide(&facts);
        }
        let stands = match at_least_once::committed(&facts) {
            Ok(stands) => stands,
            Err(stop) => return Startup::Stop(stop),
        };
        facts.committed = stands.as_ref();
        let decision = startup::decide(&facts);
        starting.known = stands;
        decision
    }

    /// Local state, which is the committed position of a combine task, and checkpoints: to a combine task those are of use
    /// only to go back to.
    pub(super) fn found(&self, starting: &Starting) -> (Local, Vec<CheckpointFact>) {
        let (pod, task) = (starting.pod as usize, starting.task);
        let known = starting.known.as_ref();
        let left = self.pods[pod].left.get(&task);
        let is_left = |left: &&Position| known.is_none_or(|known| left.is_ahead_of(known));
        let local = match self.is_combine(task) {
            true => left.filter(is_left).or(known),
            false => self.pods[pod].volumes.get(&task).map(|(position, _)| position),
        };
        let local = local.map_or(Local::Absent, |position| Local::Held(Box::new(position.clone())));
        let of_use = self.lists_store(task, known);
        let checkpoints = self.store[task as usize].iter().filter(|_| of_use);
        (
            local,
            checkpoints.map(|checkpoint| checkpoint.manifest.fact()).collect(),
        )
    }

    pub(super) fn lists_store(&self, task: u32, known: Option<&Position>) -> bool {
        !self.is_combine(task) || known.is_none_or(|known| self.awaits_order(known))
    }

    pub(super) fn facts<'a>(
        &'a self,
        starting: &'a Starting,
        committed: Option<&'a Position>,
        local: &'a Local,
        checkpoints: &'a [CheckpointFact],
    ) -> Facts<'a> {
        let task = starting.task;
        let end = match self.is_combine(task) {
            true => 2 * self.scene.logs[task as usize].len(),
            false => self.shuffle[self.partition(task)].len(),
        };
        Facts {
            owner: &starting.owner,
            committed,
            birth: self.ledgers[task as usize].shown.birth.as_ref(),
            local,
            checkpoints,
            log: InputLog {
                start: 0,
                end: end as i64,
                partitions: 1,
            },
            last_input: LastInputCheck::Skipped,
            on_truncated: OnTruncated::Stop,
            refused: &starting.refused,
            order: self.order.as_ref().map(|(nonce, ids)| Order {
                nonce: *nonce,
                name: "any",
                id: ids.get(&task).map(String::as_str),
                last_input: LastInputCheck::Skipped,
            }),
            local_is_truth: self.is_plain(task),
        }
    }

    fn claim(&mut self, starting: &mut Starting) -> Turn {
        let known = starting.known.as_ref().expect("a position to claim");
        let claimed = known.claimed(starting.owner.generation);
        self.publish(starting.pod, starting.task, &claimed);
        starting.known = Some(claimed);
        self.note("claim", starting.pod, starting.task);
        Turn::Next
    }

    fn give_birth(&mut self, starting: &Starting) -> Turn {
        let (pod, task, owner) = (starting.pod, starting.task, &starting.owner);
        let birth = Birth {
            version: POSITION_VERSION,
            uid: owner.uid.clone(),
            job_id: owner.job_id.clone(),
            task,
            start_offset: 0,
            partitions: 1,
        };
        let born = Position::born(&birth, owner, format!("lineage-{}", starting.token));
        self.ledgers[task as usize].write(|control| control.birth = Some(birth.clone()));
        self.publish(pod, task, &born);
        self.pods[pod as usize].volumes.remove(&task);
        if self.is_combine(task) {
            self.note("combine born", pod, task);
        } else {
            self.note("window born", pod, task);
        }
        if self.crashes(pod, task) {
            return Turn::Over;
        }
        match self.is_combine(task) {
            true => self.run_combine(starting, born),
            false => {
                let empty = self.load(pod, task);
                self.run_window(starting, born, empty);
            }
        }
        Turn::Over
    }

    fn resume(&mut self, starting: &mut Starting, resume: &Resume) -> Turn {
        let (pod, task) = (starting.pod, starting.task);
        let committed = starting.known.clone().expect("a position to go on from");
        if self.is_combine(task) {
            let goes_on = (&resume.base, resume.how) == (&Base::Local, How::GoOn);
            assert!(goes_on, "it never replays: {resume:?}");
            self.note("combine goes on", pod, task);
            self.run_combine(starting, committed);
            return Turn::Over;
        }
        let decisions = self.decisions_of(task, &committed, resume.from.control_seq);
        let needed = committed.control_seq - resume.from.control_seq;
        if decisions.len() as u64 != needed {
            let is_lost = self.ledgers[task as usize].acknowledged.is_some();
            assert!(is_lost, "no decision was lost: {:#?}", self.trace);
            starting.refused.push((resume.base.clone(), Refusal::DecisionsGone));
            return Turn::Next;
        }
        if !self.take_base(starting, resume) {
            starting.refused.push((resume.base.clone(), Refusal::Unreadable));
            return Turn::Next;
        }
        let decisions = match self.is_plain(task) {
            true => at_least_once::obeyed(decisions, &committed),
            false => decisions,
        };
        if self.is_plain(task) && resume.how == How::Replay {
            self.note("plain: obeys", pod, task);
        }
        self.reach(starting, resume, committed, &decisions);
        Turn::Over
    }

    /// The base becomes local state. False: it is damaged.
    fn take_base(&mut self, starting: &Starting, resume: &Resume) -> bool {
        let (pod, task) = (starting.pod, starting.task);
        match &resume.base {
            Base::Birth => {
                self.pods[pod as usize].volumes.remove(&task);
                self.note("replay from birth", pod, task);
            }
            Base::Checkpoint(id) => {
                let checkpoint = self.stored(task, id);
                if checkpoint.damaged {
                    return false;
                }
                let rows = checkpoint.rows.as_ref().expect("of a window task").snapshot();
                let held = (checkpoint.manifest.position.clone(), rows);
                self.pods[pod as usize].volumes.insert(task, held);
                self.note("checkpoint used", pod, task);
            }
            Base::Local if resume.how == How::GoOn => self.note("go on", pod, task),
            Base::Local => self.note("replay", pod, task),
        }
        true
    }

    /// Brings what the volume holds to the committed position with output suppressed, and runs.
    fn reach(&mut self, starting: &Starting, resume: &Resume, committed: Position, decisions: &[Decision]) {
        let (pod, task) = (starting.pod, starting.task);
        let (mut state, store) = self.load(pod, task);
        let rebuilds = resume.how == How::Rebuild;
        let revision = committed.engine_position.result_revision + u32::from(rebuilds);
        state.set_result_revision(revision);
        self.replay(task, &mut state, &committed, decisions);
        let (at, known) = (state.position(), committed.engine_position);
        if !rebuilds {
            assert_eq!(at, known, "diverged: {:#?}", self.trace);
            return self.run_window(starting, committed, (state, store));
        }
        assert_eq!((at.input_offset, at.input_hash), (known.input_offset, known.input_hash));
        let lineage = format!("fork-{}", starting.token);
        let forked = committed.forked(&starting.owner, lineage, resume.from, at);
        self.publish(pod, task, &forked);
        self.note("rebuilt", pod, task);
        if !self.crashes(pod, task) {
            self.run_window(starting, forked, (state, store));
        }
    }
}
