//! The world of the simulator: two pods, one task, a broker, a store. Must not decide what the protocol decides.

mod keeping;
mod rewinding;
mod startup;

pub use self::keeping::loaded;

use std::collections::BTreeMap;
use std::sync::Arc;

use streamagg_crds::assignment::Assignment;
use streamagg_processor::pipeline::builder::Plan;
use streamagg_processor::pipeline::operator::{StepStatus, Task};
use streamagg_processor::pipeline::output::Outputs;
use streamagg_processor::pipeline::position::{Decision, DecisionKind};
use streamagg_processor::state::checkpoint::Manifest;
use streamagg_processor::state::recovery::{AfterFence, AfterUnknown, Birth, LastInput, Owner, Position, ownership};
use streamagg_tests::generator::Case;
use streamagg_tests::oracle::{Entry, Expected};

use super::{in_revision, splitmix64};
use crate::engine::{clock_at, decision, expected_form, oracle_form, plan, record};
use crate::paging::Store;

const PODS: u32 = 2;
/// Rounds in which a world without faults must come to its end.
const SETTLE_ROUNDS_MAX: usize = 60;

/// State on a volume or in the store: the position document and the entries, which change together.
type Held = (Position, Store);

struct Process {
    token: u64,
    task: Task,
    committed: Position,
    pending: Vec<Expected>,
    decisions: Vec<Decision>,
    /// Decisions up to this one are not needed by any checkpoint.
    floor: u64,
    last_input: Option<LastInput>,
}

#[derive(Default)]
struct Pod {
    in_hand: Assignment,
    released: u64,
    volume: Option<Held>,
    process: Option<Process>,
}

struct Checkpoint {
    manifest: Manifest,
    held: Held,
    damaged: bool,
}

/// Everything, and what happened.
pub struct World {
    case: Case,
    plan: Arc<Plan>,
    expected: Vec<Expected>,
    random: u64,
    faults: bool,
    /// Rows leave memory for the volume, as far as the seed says.
    pages: bool,
    /// A user orders to go back to checkpoints.
    rewinds: bool,
    /// The last order: nonce and checkpoint.
    order: Option<(u64, String)>,
    /// Whose transactions the broker takes: the last to initialise.
    token: u64,
    initialised: u64,
    birth: Option<Birth>,
    committed: Option<Position>,
    /// All decisions committed.
    made: Vec<Decision>,
    /// Those in the control topic, by number.
    decisions: BTreeMap<u64, Decision>,
    published: Vec<Expected>,
    committers: BTreeMap<u64, u32>,
    assignment: Assignment,
    pods: Vec<Pod>,
    store: Vec<Checkpoint>,
    pub trace: Vec<String>,
    pub counts: BTreeMap<&'static str, usize>,
}

impl World {
    pub fn new(seed: u64, case: Case) -> Self {
        let assignment = Assignment {
            version: 1,
            generation: 1,
            tasks: BTreeMap::from([(0, 0)]),
        };
        Self {
            plan: plan(&case.spec),
            expected: oracle_form(&case.spec, &case.log),
            case,
            random: seed,
            faults: true,
            pages: seed % 2 == 1,
            rewinds: seed.is_multiple_of(3),
            order: None,
            token: 0,
            initialised: 0,
            birth: None,
            committed: None,
            made: Vec::new(),
            decisions: BTreeMap::new(),
            published: Vec::new(),
            committers: BTreeMap::new(),
            assignment,
            pods: (0..PODS).map(|_| Pod::default()).collect(),
            store: Vec::new(),
            trace: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        splitmix64(&mut self.random) % limit
    }

    fn note(&mut self, what: &'static str, pod: u32) {
        *self.counts.entry(what).or_default() += 1;
        let place = self.committed.as_ref().map(Position::place);
        self.trace
            .push(format!("{what} {pod} {place:?} {}", self.published.len()));
    }

    /// Whether the process of a pod dies at this boundary.
    fn crashes(&mut self, pod: u32) -> bool {
        let crashed = self.faults && self.below(12) == 0;
        if crashed {
            self.pods[pod as usize].process = None;
            self.note("crash", pod);
        }
        crashed
    }

    /// One thing happens.
    pub fn event(&mut self) {
        let pod = u32::try_from(self.below(u64::from(PODS))).unwrap();
        match self.below(20) {
            0..=5 => self.deliver(pod, 1 + self.random % 6),
            6..=9 => self.commit(pod),
            10..=12 => self.start(pod),
            13..=15 => self.learn(pod),
            16 => self.checkpoint(pod),
            17 => {
                let owner = u32::try_from(self.below(u64::from(PODS))).unwrap();
                self.assign(owner);
            }
            18 => {
                self.pods[pod as usize].process = None;
                if self.below(2) == 0 {
                    self.pods[pod as usize].volume = None;
                }
                self.note("crash", pod);
            }
            _ => match (self.rewinds, self.random % 4) {
                (true, 0..=2) => self.order(pod),
                // Behind a rewind the checkpoint itself is needed: from an older one all is rebuilt, which is not modelled.
                (false, 0) => self.damage(pod),
                _ => {}
            },
        }
    }

    fn assign(&mut self, owner: u32) {
        self.assignment.generation += 1;
        self.assignment.tasks.insert(0, owner);
        self.note("rebalance", owner);
    }

    fn learn(&mut self, pod: u32) {
        let held = &mut self.pods[pod as usize].in_hand;
        if ownership::takes(held, &self.assignment) {
            *held = self.assignment.clone();
        }
    }

    /// Without faults the work gets done, and then it is what it should be.
    pub fn settle(&mut self) {
        self.faults = false;
        for _ in 0..SETTLE_ROUNDS_MAX {
            for pod in 0..PODS {
                self.learn(pod);
                self.commit(pod);
                self.start(pod);
                self.deliver(pod, 50);
                self.commit(pod);
            }
            if self.published.len() == self.expected.len() && self.consumed() == self.case.log.len() {
                break;
            }
        }
        assert_eq!(
            self.consumed(),
            self.case.log.len(),
            "not all was consumed: {:#?}",
            self.trace
        );
        assert_eq!(self.published, self.expected, "{:#?}\n{:?}", self.trace, self.case);
    }

    fn consumed(&self) -> usize {
        self.committed.as_ref().map_or(0, |committed| {
            next_entry(
                &self.case.log,
                committed.engine_position.input_count,
                self.entries_decided(committed),
            )
        })
    }

    /// Decisions up to a position that the log has as entries; the others were made about records.
    fn entries_decided(&self, position: &Position) -> u64 {
        let made = &self.made[..usize::try_from(position.control_seq).unwrap()];
        made.iter().filter(|decision| is_entry(decision)).count() as u64
    }

    fn owner(&self, pod: u32) -> Owner {
        Owner {
            uid: "uid".to_owned(),
            job_id: "job".to_owned(),
            task: 0,
            revision: "revision".to_owned(),
            engine: "engine".to_owned(),
            generation: self.pods[pod as usize].in_hand.generation,
        }
    }

    fn initialise(&mut self) -> u64 {
        self.initialised += 1;
        self.token = self.initialised;
        self.token
    }

    fn deliver(&mut self, pod: u32, entries: u64) {
        let Some(mut process) = self.pods[pod as usize].process.take() else {
            return;
        };
        let committed = self.entries_decided(&process.committed);
        let left = process.task.rows_left_in_store();
        for _ in 0..entries {
            let open = process.decisions.iter().filter(|decision| is_entry(decision)).count() as u64;
            let at = next_entry(&self.case.log, process.task.position().input_count, committed + open);
            let Some(entry) = self.case.log.get(at) else {
                break;
            };
            let mut outputs = Outputs::default();
            if let Some(decision) = decision(entry, process.task.position().input_offset) {
                process.task.decide(&decision, &mut outputs);
                process.decisions.push(decision);
                self.note("decision", pod);
            } else {
                let record = record(&self.case, at);
                process.task.set_clock(clock_at(&self.case, at));
                assert_eq!(process.task.step(&[record], &mut outputs), StepStatus::Continue);
                process.last_input = Some(LastInput {
                    offset: record.offset,
                    digest: 0,
                });
                if !outputs.decisions.is_empty() {
                    self.note("too far in the future", pod);
                    process.decisions.append(&mut outputs.decisions);
                }
            }
            let revision = process.committed.engine_position.result_revision;
            let put_out = expected_form(&outputs, &[at], 0).into_iter();
            process
                .pending
                .extend(put_out.map(|output| in_revision(output, revision)));
        }
        if process.task.rows_left_in_store() < left {
            // They were changed, or fired together with what is in memory.
            self.note("back from the volume", pod);
        }
        self.pods[pod as usize].process = Some(process);
    }

    /// Closes the epoch of a pod: the transaction, then local state; either may not come to pass.
    fn commit(&mut self, pod: u32) {
        if !ownership::is_named(&self.pods[pod as usize].in_hand, 0, pod) {
            self.pods[pod as usize].process = None;
            return;
        }
        let owner = self.owner(pod);
        let Some(mut process) = self.pods[pod as usize].process.take() else {
            return;
        };
        let decisions = process.decisions.len() as u64;
        let sent = process
            .committed
            .advanced(&owner, process.task.position(), process.last_input, decisions)
            .with_decision_floor(process.floor);
        let is_lost = self.faults && self.below(6) == 0;
        let committed = if is_lost {
            self.note("unknown", pod);
            self.send_unknown(pod, &mut process, &sent)
        } else {
            self.send(pod, &mut process, &sent)
        };
        if !committed || self.crashes(pod) {
            return;
        }
        process.committed = sent;
        let (_, store) = self.pods[pod as usize].volume.take().expect("a process has one");
        self.save(pod, &mut process.task, store, &process.committed);
        self.pods[pod as usize].process = Some(process);
    }

    /// The transaction of an epoch, with a known outcome: fenced, or everything at once.
    fn send(&mut self, pod: u32, process: &mut Process, sent: &Position) -> bool {
        if process.token != self.token {
            self.note("fenced", pod);
            if let AfterFence::Release { generation } = ownership::after_fence(self.committed.as_ref(), sent.generation)
            {
                self.pods[pod as usize].released = generation;
            }
            return false;
        }
        self.publish(pod, sent);
        let first = usize::try_from(process.committed.control_seq).unwrap();
        for (index, decision) in (first..).zip(process.decisions.drain(..)) {
            match self.made.get(index) {
                Some(made) => assert_eq!(*made, decision, "behind a rewind the same is decided"),
                None => self.made.push(decision.clone()),
            }
            self.decisions.insert(index as u64 + 1, decision);
        }
        assert!(self.made.len() as u64 >= sent.control_seq);
        if sent.decision_floor > process.committed.decision_floor {
            self.note("tombstone", pod);
            self.decisions = self.decisions.split_off(&(sent.decision_floor + 1));
        }
        self.published.append(&mut process.pending);
        assert!(
            self.expected.starts_with(&self.published),
            "not a prefix: {:#?}",
            self.trace
        );
        true
    }

    /// The same when the answer is lost: the protocol finds out what became of it.
    fn send_unknown(&mut self, pod: u32, process: &mut Process, sent: &Position) -> bool {
        if self.below(2) == 0 && process.token == self.token {
            self.send(pod, process, sent);
        }
        self.meanwhile(pod);
        let in_hand = &self.pods[pod as usize].in_hand;
        let (named, generation) = (ownership::is_named(in_hand, 0, pod), in_hand.generation);
        if named {
            process.token = self.initialise();
        }
        let committed = self.committed.as_ref();
        if let Some(later) = committed.filter(|committed| committed.generation > generation) {
            self.pods[pod as usize].released = later.generation;
            return false;
        }
        match ownership::after_unknown(named, committed, sent, Some(&process.committed)) {
            AfterUnknown::Committed => true,
            AfterUnknown::SendAgain => {
                self.note("sent again", pod);
                self.send(pod, process, sent)
            }
            AfterUnknown::Release | AfterUnknown::StartUp => false,
        }
    }

    /// While a pod waits for an answer its task may be another's for a while, who goes on, and come back.
    fn meanwhile(&mut self, pod: u32) {
        if !self.faults || self.below(4) != 0 {
            return;
        }
        let other = (pod + 1) % PODS;
        self.faults = false;
        self.assign(other);
        self.learn(other);
        self.start(other);
        self.deliver(other, 6);
        self.commit(other);
        if self.below(4) != 0 {
            self.assign(pod);
            self.learn(pod);
        }
        self.faults = true;
        self.note("another's meanwhile", pod);
    }

    fn publish(&mut self, pod: u32, position: &Position) {
        let committer = *self.committers.entry(position.generation).or_insert(pod);
        assert_eq!(
            committer, pod,
            "two pods committed in generation {}",
            position.generation
        );
        self.committed = Some(position.clone());
    }
}

/// The entry behind so many records and decisions; the clock's are passed over.
fn next_entry(log: &[Entry], mut records: u64, mut decisions: u64) -> usize {
    let is_behind = |entry: &Entry| {
        let left = match entry {
            Entry::Clock(_) => return false,
            Entry::Record(_) | Entry::Stamped(..) | Entry::Shed(_) => &mut records,
            Entry::IdleAdvance(_) | Entry::Tick(_) | Entry::Share(_) | Entry::EndOfInput => &mut decisions,
        };
        let is_behind = *left == 0;
        *left = left.saturating_sub(1);
        is_behind
    };
    log.iter().position(is_behind).unwrap_or(log.len())
}

/// Whether a decision is an entry of the log, and not one about a record.
fn is_entry(decision: &Decision) -> bool {
    !matches!(decision.kind, DecisionKind::FutureSkew { .. })
}
