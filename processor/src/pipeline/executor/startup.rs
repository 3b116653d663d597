//! Start-up of a task: gathers the facts in the protocol's order, carries out what is decided.
//! Must not hold: the start-up table (`state::recovery::startup`).

use std::time::Instant;

use streamagg_crds::admin::TaskState;
use uuid::Uuid;

use super::commit::{Committer, Epoch};
use super::decisions::Ledger;
use super::failpoint::Place;
use super::replay::{Reached, Replay, save};
use super::topology::Topology;
use super::{End, Executor};
use crate::kafka::config;
use crate::kafka::consumer::PartitionReader;
use crate::kafka::control::ControlCopy;
use crate::pipeline::sink::SinkPlan;
use crate::pipeline::stage::Stage;
use crate::pipeline::worker::{Setup, Worker};
use crate::state::checkpoint::Manifest;
use crate::state::local::{Hold, LocalState};
use crate::state::recovery::startup::{OnTruncated, decide};
use crate::state::recovery::{
    Base, CheckpointFact, Facts, How, InputLog, LastInputCheck, Local, Owner, Position, Reason, Refusal, Resume,
    Startup, Stop, at_least_once, rewind,
};
use crate::state::store::Listing;

/// A task that stands at the committed position.
pub(super) struct Started<'a> {
    pub committer: Committer<'a>,
    pub reader: PartitionReader,
    pub task: Worker,
    pub state: LocalState,
    pub committed: Position,
    pub sink: SinkPlan,
    /// Decisions in the control topic.
    pub ledger: Ledger,
    /// First offset to read.
    pub next_offset: i64,
    /// Newest checkpoint that belongs to K's past, as the base of the next upload.
    pub newest: Option<Manifest>,
    /// Last, so that the database is closed before it.
    pub _hold: Option<Hold>,
}

/// What is gathered once and changes only by what start-up itself does.
pub(super) struct Found {
    pub setup: Setup,
    /// Tasks of the job.
    pub tasks: u32,
    pub owner: Owner,
    pub control: ControlCopy,
    pub local: Local,
    pub listing: Listing,
    /// Times that the store was listed.
    pub listings: u32,
    pub log: InputLog,
    pub last_input: LastInputCheck,
    /// The same of the checkpoint that a user ordered.
    pub ordered_input: LastInputCheck,
    pub refused: Vec<(Base, Refusal)>,
}

impl Executor {
    /// From an assignment that names this pod to a task at the committed position.
    pub(super) fn start_up(&self) -> Result<Started<'_>, End> {
        let keeps_state = self.role.stage.keeps_state();
        let hold = keeps_state.then(|| self.directory.hold()).transpose()?;
        // Before anything is said or done: while there is no room the task stays as it is. Remains may be what fills it.
        self.directory.clear_remains()?;
        self.directory.check_room(0, self.was_full.get())?;
        self.board.enter(TaskState::Starting);
        let view = self.board.view();
        if !view.named {
            return Err(End::Left);
        }
        let began = Instant::now();
        let topology = Topology::observe(&self.context)?;
        let mut committer = Committer::init(&self.context, &self.board, self.task, topology.batch_bytes())?;
        // In this order: the store is listed after K was read, so that no checkpoint is ahead of it unnoticed.
        let control = committer.read_control()?;
        committer.recovered();
        let opened = self.open_state(&control)?;
        let reader = self.open_input()?;
        let (start, end) = reader.watermarks()?;
        let last_input = match control.position.as_ref().and_then(|position| position.last_input) {
            Some(last) => reader.check_last_input(last, start, end)?,
            None => LastInputCheck::Skipped,
        };
        let listing = self.list_store(&control, &opened.local)?;
        let ordered_input = self.check_ordered_input(&control, &listing.manifests, &reader, (start, end))?;
        let log = InputLog {
            start,
            end,
            partitions: self.partitions_now(&topology, &control),
        };
        let owner = self.owner(view.generation);
        let mut found = Found {
            setup: topology.setup(&self.context, self.role),
            tasks: topology.task_count(),
            owner,
            control,
            local: opened.local,
            listing,
            listings: 1,
            log,
            last_input,
            ordered_input,
            refused: Vec::new(),
        };
        let started = self.carry_out(&mut found, &mut committer, &reader, opened.state)?;
        tracing::info!(
            task = self.task,
            took_ms = began.elapsed().as_millis(),
            "task at the committed position"
        );
        let (task, state, committed, next_offset, newest) = started;
        let sink = topology.sink_plan(&self.context, self.role);
        Ok(Started {
            committer,
            reader,
            task,
            state,
            committed,
            sink,
            ledger: Ledger::new(&found.control),
            next_offset,
            newest,
            _hold: hold,
        })
    }

    /// A reader of the input, which fetches ahead what there is memory for.
    pub(super) fn open_input(&self) -> Result<PartitionReader, Stop> {
        let bytes = self.context.budget.fetch_bytes(self.board.tasks_here());
        let queue_kib = u32::try_from(bytes >> 10).unwrap_or(u32::MAX);
        self.context.open_input(self.role, queue_kib)
    }

    /// Partitions of the input, to be compared with those at birth. With two stages a source may grow: keys need not stay
    /// in their partitions, and each partition has its own task.
    fn partitions_now(&self, topology: &Topology, control: &ControlCopy) -> u32 {
        let now = topology.input_partitions(self.role);
        match (self.role.stage, &control.birth) {
            (Stage::Combine, Some(birth)) => now.min(birth.partitions),
            (Stage::Combine, None) | (Stage::Whole | Stage::Window, _) => now,
        }
    }

    /// What the start-up table is told.
    pub(super) fn facts<'a>(&'a self, found: &'a Found, checkpoints: &'a [CheckpointFact]) -> Facts<'a> {
        Facts {
            owner: &found.owner,
            committed: found.control.position.as_ref(),
            birth: found.control.birth.as_ref(),
            local: &found.local,
            checkpoints,
            log: found.log,
            last_input: found.last_input,
            on_truncated: self.on_truncated(),
            refused: &found.refused,
            order: self.order(found.ordered_input),
            local_is_truth: self.state_is_truth(),
        }
    }

    /// What the start-up table says. With at-least-once delivery K first follows the state, unless a user takes that back.
    fn decide(&self, found: &mut Found) -> Result<Startup, End> {
        let checkpoints: Vec<CheckpointFact> = found.listing.manifests.iter().map(Manifest::fact).collect();
        let mut facts = self.facts(found, &checkpoints);
        let follows = facts.local_is_truth && rewind::pending(&facts).is_none();
        let stands = follows.then(|| at_least_once::committed(&facts)).transpose()?;
        if let Some(position) = &stands {
            facts.committed = position.as_ref();
        }
        let decision = decide(&facts);
        if let Some(position) = stands {
            found.control.position = position;
        }
        tracing::info!(task = self.task, ?decision, "start-up");
        match (&decision, &found.control.damage) {
            (Startup::Birth { .. } | Startup::Resume(_), Some(damage)) => Err(damage.clone().into()),
            (Startup::Birth { .. } | Startup::Resume(_), None) => Ok(decision),
            (Startup::Rewind { .. } | Startup::Release { .. } | Startup::Stop(_), _) => Ok(decision),
        }
    }

    fn carry_out(
        &self,
        found: &mut Found,
        committer: &mut Committer<'_>,
        reader: &PartitionReader,
        mut state: Option<LocalState>,
    ) -> Result<(Worker, LocalState, Position, i64, Option<Manifest>), End> {
        // Every turn ends, claims or goes back once, or puts one of finitely many bases aside.
        loop {
            self.board.beat();
            let resume = match self.decide(found)? {
                Startup::Stop(stop) => return Err(self.without_store(found, stop).into()),
                Startup::Release { generation } => return Err(End::Released { generation }),
                Startup::Birth { discard_local } => {
                    let state = self.emptied(state.take(), discard_local.as_deref())?;
                    return self.give_birth(found, committer, reader, state);
                }
                Startup::Rewind { claim: true, .. } => {
                    self.claim(found, committer)?;
                    continue;
                }
                Startup::Rewind {
                    claim: false,
                    checkpoint,
                } => {
                    self.rewind(found, committer, &mut state, &checkpoint)?;
                    continue;
                }
                Startup::Resume(resume) => resume,
            };
            if resume.claim {
                self.claim(found, committer)?;
                continue;
            }
            if let Some(why) = &resume.discard_local {
                state = Some(self.emptied(state.take(), Some(why))?);
                found.local = Local::Absent;
                continue;
            }
            match self.resume(found, committer, reader, &resume, &mut state)? {
                Some((task, committed)) => {
                    let Some(state) = state.take() else {
                        return Err(End::Again("local state is closed".to_owned()));
                    };
                    let next = resume.skip_to.unwrap_or(committed.engine_position.input_offset);
                    let manifests = std::mem::take(&mut found.listing.manifests);
                    let newest = newest_of(manifests, &committed, &found.refused);
                    return Ok((task, state, committed, next, newest));
                }
                None => continue,
            }
        }
    }

    /// What the start-up table says, unless it might say something else of the checkpoints of a store that did not answer.
    fn without_store(&self, found: &Found, stop: Stop) -> Stop {
        match &found.listing.unlisted {
            Some(why) if stop.reason == Reason::StateLost => Stop::new(Reason::CheckpointFailed, why.clone()),
            Some(_) | None => self.of_input(stop),
        }
    }

    /// The job's rule is about events. What the first stage wrote is never passed over: it may be of any event.
    fn on_truncated(&self) -> OnTruncated {
        match self.role.stage {
            Stage::Whole | Stage::Combine => self.context.on_truncated,
            Stage::Window => OnTruncated::Stop,
        }
    }

    /// What the start-up table says of the input, with the input's name where that is not the source.
    fn of_input(&self, stop: Stop) -> Stop {
        match self.role.stage {
            Stage::Whole | Stage::Combine => stop,
            Stage::Window => {
                let (topic, partition) = config::input(&self.context.job, self.role);
                let message = format!("partition {partition} of {topic}, between the stages: {}", stop.message);
                Stop::new(stop.reason, message)
            }
        }
    }

    /// Empty local state: what is there if it is empty, else what is left after discarding.
    fn emptied(&self, state: Option<LocalState>, why: Option<&str>) -> Result<LocalState, Stop> {
        match (state, why) {
            (Some(state), None) => Ok(state),
            (state, why) => {
                drop(state);
                tracing::warn!(task = self.task, why, "local state discarded");
                self.directory.discard()
            }
        }
    }

    /// The owner's first act: K again, with its generation.
    fn claim(&self, found: &mut Found, committer: &mut Committer<'_>) -> Result<(), End> {
        if let Some(committed) = &found.control.position {
            let claimed = committed.claimed(found.owner.generation);
            committer.commit(Epoch {
                outputs: None,
                birth: None,
                decisions: &[],
                tombstones: &[],
                built_on: Some(committed),
                sent: &claimed,
            })?;
            found.control.position = Some(claimed);
            self.context.failpoints.pass(Place::AfterClaim);
        }
        Ok(())
    }

    /// Loads the base and brings it to K. `None`: the base was put aside, decide again.
    fn resume(
        &self,
        found: &mut Found,
        committer: &mut Committer<'_>,
        reader: &PartitionReader,
        resume: &Resume,
        state: &mut Option<LocalState>,
    ) -> Result<Option<(Worker, Position)>, End> {
        let Some(committed) = found.control.position.clone() else {
            return Err(End::Again("no committed position".to_owned()));
        };
        // Such a base would be rebuilt into another state, and nobody would notice where no hash is compared. One stage whose
        // state is the truth obeys none of them.
        let obeys = self.role.stage != Stage::Whole || !self.state_is_truth();
        if obeys && !(found.control).has_all_decisions(&committed, resume.from.control_seq) {
            tracing::warn!(task = self.task, base = ?resume.base, "base refused: decision records behind it are gone");
            found.refused.push((resume.base.clone(), Refusal::DecisionsGone));
            return Ok(None);
        }
        let refusal = match self.load(found, &resume.base, state)? {
            Err(why) => {
                tracing::warn!(task = self.task, base = ?resume.base, why, "base refused");
                Refusal::Unreadable
            }
            Ok(mut task) => match self.reach(found, committer, reader, resume, &committed, &mut task, state)? {
                Some(committed) => return Ok(Some((task, committed))),
                None => {
                    tracing::error!(task = self.task, base = ?resume.base, "replay from this base diverged");
                    Refusal::Diverged
                }
            },
        };
        found.refused.push((resume.base.clone(), refusal));
        Ok(None)
    }

    /// Brings a loaded base to K and saves it. `None`: it diverged.
    #[expect(clippy::too_many_arguments, reason = "one step of start-up over what start-up holds")]
    fn reach(
        &self,
        found: &Found,
        committer: &mut Committer<'_>,
        reader: &PartitionReader,
        resume: &Resume,
        committed: &Position,
        task: &mut Worker,
        state: &mut Option<LocalState>,
    ) -> Result<Option<Position>, End> {
        let Some(state) = state.as_mut() else {
            return Err(End::Again("local state is closed".to_owned()));
        };
        if task.position().input_count != resume.from.input_count {
            return Ok(None);
        }
        let decisions = found.control.decisions_of(committed, resume.from.control_seq);
        let mut replay = Replay {
            context: &self.context,
            board: &self.board,
            reader,
            directory: &self.directory,
            committed,
            decisions: match self.state_is_truth() {
                true => at_least_once::obeyed(decisions, committed),
                false => decisions,
            },
            control_seq: resume.from.control_seq,
            log_start: found.log.start,
        };
        let reached = match resume.how {
            How::GoOn => {
                task.set_result_revision(committed.engine_position.result_revision);
                if !committed.same_state(&task.position(), resume.from.control_seq) {
                    return Ok(None);
                }
                committed.clone()
            }
            How::Replay => {
                self.board.enter(TaskState::Replaying);
                self.context.metrics.replays(self.task, "exact");
                task.set_result_revision(committed.engine_position.result_revision);
                let reached = replay.run(task, Some(state))?;
                if reached == Reached::Missed || task.position() != committed.engine_position {
                    return Ok(None);
                }
                committed.clone()
            }
            How::Rebuild => {
                self.board.enter(TaskState::Replaying);
                self.context.metrics.replays(self.task, "across_revisions");
                tracing::warn!(
                    task = self.task,
                    "ReplayedAcrossRevisions: state is rebuilt by another revision"
                );
                task.set_result_revision(committed.engine_position.result_revision + 1);
                let reached = replay.run(task, None)?;
                if reached == Reached::Missed
                    || task.position().input_offset != committed.engine_position.input_offset
                    || task.position().input_hash != committed.engine_position.input_hash
                {
                    return Ok(None);
                }
                let lineage = Uuid::new_v4().to_string();
                let forked = committed.forked(&found.owner, lineage, resume.from, task.position());
                committer.commit(Epoch {
                    outputs: None,
                    birth: None,
                    decisions: &[],
                    tombstones: &[],
                    built_on: Some(committed),
                    sent: &forked,
                })?;
                self.context.failpoints.pass(Place::AfterFork);
                forked
            }
        };
        save(task, state, &self.directory, &reached, self.state_budget())?;
        self.read_within_memory(found, &reached, state, task)?;
        Ok(Some(reached))
    }
}

/// The newest checkpoint of K's past that start-up did not refuse: the next upload shares its files.
fn newest_of(manifests: Vec<Manifest>, committed: &Position, refused: &[(Base, Refusal)]) -> Option<Manifest> {
    let is_refused = |id: &str| {
        refused
            .iter()
            .any(|(base, _)| matches!(base, Base::Checkpoint(refused) if refused == id))
    };
    manifests
        .into_iter()
        .filter(|manifest| !is_refused(&manifest.id))
        .filter(|manifest| committed.descends_from(&manifest.position.lineage, manifest.position.place()))
        .max_by_key(|manifest| (manifest.position.place(), manifest.completed_at_ms))
}
