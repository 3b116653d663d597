//! Start-up of a task that delivers at least once, and its rewind: the protocol's decisions carried out, a crash at every
//! step boundary. Must not decide anything itself.

use streamagg_processor::state::recovery::position::POSITION_VERSION;
use streamagg_processor::state::recovery::startup::{self, OnTruncated};
use streamagg_processor::state::recovery::{
    Base, Birth, CheckpointFact, Facts, How, InputLog, LastInputCheck, Local, Order, Owner, Position, Reason, Refusal,
    Resume, Startup, Stop, at_least_once, rewind,
};

use super::{DELIVERY, Past, Process, Rewound, World};

/// Turns of one start-up: a claim, a rewind, a discard and one for each base.
const STARTUP_TURNS_MAX: usize = 50;

/// What a start-up has gathered. The control topic is read once.
struct Found {
    started: u64,
    owner: Owner,
    known: Option<Position>,
    refused: Vec<(Base, Refusal)>,
}

impl World {
    /// One start-up of a pod that the assignment in hand names.
    pub(super) fn start(&mut self, pod: u32) {
        let held = &self.pods[pod as usize];
        if held.process.is_some() || held.in_hand.generation < held.released || !self.is_named(pod) {
            return;
        }
        self.started += 1;
        let mut found = Found {
            started: self.started,
            owner: self.owner(pod),
            known: self.committed.clone(),
            refused: Vec::new(),
        };
        for _ in 0..STARTUP_TURNS_MAX {
            if self.crashes(pod) || self.turn(pod, &mut found) {
                return;
            }
        }
        panic!("start-up does not end: {:?}", found.refused);
    }

    /// Carries out one decision. True: the start-up is over.
    fn turn(&mut self, pod: u32, found: &mut Found) -> bool {
        match self.decision(pod, found) {
            Startup::Stop(stop) => self.begin_anew(pod, &stop),
            Startup::Release { generation } => {
                self.pods[pod as usize].released = generation;
                self.note("release", pod);
            }
            Startup::Birth { .. } => self.give_birth(pod, found),
            Startup::Rewind {
                claim: false,
                checkpoint,
            } => return !self.rewind(pod, found, &checkpoint),
            Startup::Rewind { claim: true, .. } => return self.claim(pod, found),
            Startup::Resume(resume) if resume.claim => return self.claim(pod, found),
            Startup::Resume(resume) if resume.discard_local.is_some() => {
                self.pods[pod as usize].volume = None;
                return false;
            }
            Startup::Resume(resume) => match self.resume(pod, found, &resume) {
                Ok(()) => {}
                Err(refusal) => {
                    found.refused.push((resume.base, refusal));
                    return false;
                }
            },
        }
        true
    }

    /// What start-up decides; the committed position first follows the state, unless a user takes that back.
    fn decision(&self, pod: u32, found: &mut Found) -> Startup {
        let (local, checkpoints) = self.found(pod);
        let known = found.known.clone();
        let mut facts = self.facts(found, known.as_ref(), &local, &checkpoints);
        if !facts.local_is_truth || rewind::pending(&facts).is_some() {
            return startup::decide(&facts);
        }
        let stands = match at_least_once::committed(&facts) {
            Ok(stands) => stands,
            Err(stop) => return Startup::Stop(stop),
        };
        facts.committed = stands.as_ref();
        let decision = startup::decide(&facts);
        found.known = stands;
        decision
    }

    /// Local state and checkpoints.
    fn found(&self, pod: u32) -> (Local, Vec<CheckpointFact>) {
        let local = match &self.pods[pod as usize].volume {
            Some(held) => Local::Held(Box::new(held.position.clone())),
            None => Local::Absent,
        };
        let checkpoints = self.store.iter().map(|checkpoint| checkpoint.manifest.fact());
        (local, checkpoints.collect())
    }

    fn facts<'a>(
        &'a self,
        found: &'a Found,
        committed: Option<&'a Position>,
        local: &'a Local,
        checkpoints: &'a [CheckpointFact],
    ) -> Facts<'a> {
        Facts {
            owner: &found.owner,
            committed,
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
            refused: &found.refused,
            order: self.order.as_ref().map(|(nonce, id)| Order {
                nonce: *nonce,
                name: "any",
                id: Some(id),
                last_input: LastInputCheck::Skipped,
            }),
            local_is_truth: Self::role().state_is_truth(DELIVERY),
        }
    }

    /// Where the control topic was emptied and then all state was lost, only a human helps.
    fn begin_anew(&mut self, pod: u32, stop: &Stop) {
        let lost = [Reason::StateLost, Reason::CommittedPositionBehindState].contains(&stop.reason);
        assert!(lost && self.birth.is_none(), "{stop}\n{:#?}", self.trace);
        self.committed = None;
        self.earlier.clear();
        (self.order, self.is_forgotten) = (None, true);
        self.rewound.clear();
        self.store.clear();
        for held in &mut self.pods {
            (held.process, held.volume, held.copy) = (None, None, None);
        }
        self.note("begun anew", pod);
    }

    fn claim(&mut self, pod: u32, found: &mut Found) -> bool {
        let claimed = found.known.as_ref().map(|known| known.claimed(found.owner.generation));
        let claimed = claimed.expect("a position to claim");
        self.write(pod, found.started, &claimed);
        found.known = Some(claimed);
        self.note("claim", pod);
        false
    }

    fn give_birth(&mut self, pod: u32, found: &Found) {
        let owner = &found.owner;
        let birth = Birth {
            version: POSITION_VERSION,
            uid: owner.uid.clone(),
            job_id: owner.job_id.clone(),
            task: 0,
            start_offset: 0,
            partitions: 1,
        };
        let born = Position::born(&birth, owner, format!("lineage-{}", found.started));
        self.birth = Some(birth);
        self.write(pod, found.started, &born);
        self.note("birth", pod);
        self.pods[pod as usize].volume = None;
        if !self.crashes(pod) {
            self.run(pod, found, born, Past::default());
        }
    }

    /// Goes back: the position, then local state. False: the process dies between.
    fn rewind(&mut self, pod: u32, found: &mut Found, id: &str) -> bool {
        let (local, checkpoints) = self.found(pod);
        let facts = self.facts(found, found.known.as_ref(), &local, &checkpoints);
        let order = rewind::pending(&facts).expect("decided on");
        let chosen = self.store.iter().find(|checkpoint| checkpoint.manifest.id == id);
        let held = chosen.expect("decided on").held.snapshot();
        let lineage = rewind::lineage(order.nonce, self.started.into());
        let rewound = rewind::position(&facts, &order, &held.position, lineage, 0);
        let again = self
            .rewound
            .last()
            .is_some_and(|last| last.nonce >= rewound.restore_nonce);
        assert!(!again || self.is_forgotten, "carried out twice: {:#?}", self.trace);
        let forward = (found.known.as_ref()).is_some_and(|known| rewound.place() > known.place());
        self.rewound.push(Rewound {
            nonce: rewound.restore_nonce,
            at: held.past.at,
            revision: rewound.engine_position.result_revision,
        });
        self.is_forgotten = false;
        self.write(pod, found.started, &rewound);
        found.known = Some(rewound);
        self.note(if forward { "forward again" } else { "rewound" }, pod);
        if again {
            self.note("rewound again", pod);
        }
        if self.crashes(pod) {
            return false;
        }
        self.pods[pod as usize].volume = Some(held);
        true
    }

    /// Loads the base, which is where the task goes on.
    fn resume(&mut self, pod: u32, found: &Found, resume: &Resume) -> Result<(), Refusal> {
        match &resume.base {
            Base::Local => self.note("go on", pod),
            Base::Birth => {
                self.pods[pod as usize].volume = None;
                self.note("from birth", pod);
            }
            Base::Checkpoint(id) => {
                let chosen = self.store.iter().find(|checkpoint| checkpoint.manifest.id == *id);
                let chosen = chosen.filter(|checkpoint| !checkpoint.damaged);
                let held = chosen.ok_or(Refusal::Unreadable)?.held.snapshot();
                self.pods[pod as usize].volume = Some(held);
                self.note("checkpoint used", pod);
            }
        }
        assert_eq!(resume.how, How::GoOn, "nothing is suppressed: {:#?}", self.trace);
        let known = found.known.clone().expect("a position to go on from");
        let volume = self.pods[pod as usize].volume.as_ref();
        let past = volume.map_or_else(Past::default, |held| held.past.clone());
        let past = self.behind_rewinds(pod, &known, past);
        if !self.crashes(pod) {
            self.run(pod, found, known, past);
        }
        Ok(())
    }

    /// What a user has taken back is in the past of nothing, and a rewind is not forgotten.
    fn behind_rewinds(&mut self, pod: u32, known: &Position, past: Past) -> Past {
        let Some(last) = self.rewound.last() else {
            return past;
        };
        let is_behind = past.rewinds == self.rewound.len();
        assert!(
            is_behind || past.at <= last.at,
            "taken back: {past:?} {:#?}",
            self.trace
        );
        let knows = known.restore_nonce >= last.nonce;
        if !self.is_forgotten {
            assert!(knows, "the rewind is forgotten: {:#?}", self.trace);
            assert!(
                known.engine_position.result_revision >= last.revision,
                "{:#?}",
                self.trace
            );
        }
        if !is_behind {
            self.note("from before the rewind", pod);
        }
        let rewinds = if knows { self.rewound.len() } else { past.rewinds };
        Past { rewinds, ..past }
    }

    fn run(&mut self, pod: u32, found: &Found, committed: Position, past: Past) {
        let (mut task, store) = self.load(pod);
        task.set_result_revision(committed.engine_position.result_revision);
        assert!(
            committed.same_state(&task.position(), committed.control_seq),
            "{committed:?} is not {:?}: {:#?}",
            task.position(),
            self.trace
        );
        let mut process = Process {
            started: found.started,
            task,
            committed,
            past,
            pending: Vec::new(),
            last_input: None,
        };
        self.save_to(pod, &mut process, store);
        self.pods[pod as usize].process = Some(process);
    }
}
