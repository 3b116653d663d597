//! The plan of a checkpoint against a small model of pods and store: what it does, when it gives up, and that it gets
//! there from wherever an operator died. Must not talk to anybody.

use std::collections::BTreeSet;

use k8s_openapi::jiff::ToSpan;
use proptest::prelude::*;
use streamagg_crds::admin::{
    CHECKPOINT_MISSING, OperationPhase, PodStatus, Problem, Stage, TaskOperation, TaskState, TaskStatus,
};
use streamagg_crds::assignment::Assignment;
use streamagg_crds::v1alpha1::Rollout;

use super::*;
use crate::controller::fixtures;
use crate::controller::observed::{AssignmentFacts, PodFacts};

/// Pods of the model; each has two of four tasks.
const PODS: u32 = 2;

/// The object, its aggregation, and the store.
struct World {
    now: Timestamp,
    finalizers: Vec<String>,
    status: StreamCheckpointStatus,
    deleted_at: Option<Timestamp>,
    gone: bool,
    aggregation: bool,
    suspended: bool,
    has_store: bool,
    paused: bool,
    down: bool,
    store_broken: bool,
    two_stages: bool,
    /// The aggregation was deleted and made anew.
    replaced: bool,
    /// Its rollout goes back to this checkpoint.
    goes_back: bool,
    /// What the pods remember of operations, and what the operator remembers of the pods.
    operations: BTreeMap<(u32, String), u64>,
    /// Tasks asked for a checkpoint so far: when one was taken.
    asked: u64,
    checkpoints: BTreeMap<u32, OperationStatus>,
    pin_answers: BTreeMap<u32, OperationStatus>,
    pins: BTreeSet<(u32, String)>,
    retired: BTreeSet<String>,
    notes: Vec<String>,
}

fn world() -> World {
    World {
        now: Timestamp::UNIX_EPOCH,
        finalizers: vec!["example.org/other".to_owned()],
        status: StreamCheckpointStatus::default(),
        deleted_at: None,
        gone: false,
        aggregation: true,
        suspended: false,
        has_store: true,
        paused: false,
        down: false,
        store_broken: false,
        two_stages: false,
        replaced: false,
        goes_back: false,
        operations: BTreeMap::new(),
        asked: 0,
        checkpoints: BTreeMap::new(),
        pin_answers: BTreeMap::new(),
        pins: BTreeSet::new(),
        retired: BTreeSet::new(),
        notes: Vec::new(),
    }
}

impl World {
    fn facts(&self) -> Facts {
        let mut facts = Facts {
            now: self.now,
            name: "before".to_owned(),
            uid: "uid".to_owned(),
            generation: 1,
            resource_version: "1".to_owned(),
            deleted_at: self.deleted_at,
            finalizers: self.finalizers.clone(),
            of: "sample".to_owned(),
            status: self.status.clone(),
            aggregation: None,
            pins: BTreeMap::new(),
        };
        if self.aggregation && facts.needs_aggregation() {
            facts.aggregation = Some(self.aggregation());
            let answers = self.pin_answers.iter();
            facts.pins = answers.map(|(pod, answer)| (pod.to_string(), answer.clone())).collect();
        }
        facts
    }

    fn aggregation(&self) -> Aggregation {
        let mut observed = fixtures::observed(self.now);
        observed.paused = self.paused;
        observed.status.rollout = self.goes_back.then(goes_back);
        let tasks = (0..2 * PODS).map(|task| (task, task % PODS)).collect();
        observed.assignment = Some(AssignmentFacts {
            resource_version: "1".to_owned(),
            assignment: Assignment {
                tasks,
                ..Assignment::default()
            },
        });
        observed.pods = (0..PODS)
            .filter(|_| !self.suspended)
            .map(|ordinal| self.pod(ordinal))
            .collect();
        Aggregation {
            uid: if self.replaced { "another" } else { "aggregation" }.to_owned(),
            has_store: self.has_store,
            suspended: self.suspended,
            observed,
        }
    }

    fn pod(&self, ordinal: u32) -> PodFacts {
        let rows = [ordinal, ordinal + PODS].map(|task| TaskStatus {
            task,
            stage: match (self.two_stages, task < PODS) {
                (false, _) => Stage::Whole,
                (true, true) => Stage::Window,
                (true, false) => Stage::Combine,
            },
            state: TaskState::Running,
            ..TaskStatus::default()
        });
        PodFacts {
            name: format!("sample-{ordinal}"),
            uid: ordinal.to_string(),
            ordinal,
            address: Some(String::new()),
            admin: (!self.down).then(|| PodStatus {
                job_id: "job".to_owned(),
                tasks: rows.to_vec(),
                ..PodStatus::default()
            }),
            checkpoint: self.checkpoints.get(&ordinal).cloned(),
            ..PodFacts::default()
        }
    }

    /// One reconcile of which the first `prefix` effects happen; all of them, and the status, if `None`.
    fn reconcile(&mut self, prefix: Option<usize>) -> Plan {
        let plan = plan(&self.facts());
        for action in plan.actions.iter().take(prefix.unwrap_or(usize::MAX)) {
            self.apply(action);
        }
        if prefix.is_none() && !self.gone {
            self.status = plan.status.clone();
            self.notes.extend(plan.notes.iter().map(|note| note.reason.clone()));
        }
        self.holds_together();
        plan
    }

    /// What must be true whenever an operator may die.
    fn holds_together(&self) {
        let held = self.finalizers.iter().any(|finalizer| finalizer == PINS_FINALIZER);
        assert!(self.pins.is_empty() || held || self.gone, "pinned without a finalizer");
        for (task, _) in &self.pins {
            let named = self.status.tasks.iter().any(|row| row.task.unsigned_abs() == *task);
            assert!(named || self.gone, "task {task} is pinned and the log does not know it");
        }
        let types: Vec<_> = self
            .status
            .conditions
            .iter()
            .map(|condition| condition.type_.as_str())
            .collect();
        assert!(
            !(types.contains(&"Reconciling") && types.contains(&"Stalled")),
            "{types:?}"
        );
    }

    fn apply(&mut self, action: &Action) {
        match action {
            Action::SetFinalizers(finalizers) => {
                self.finalizers.clone_from(finalizers);
                self.gone =
                    self.deleted_at.is_some() && !finalizers.iter().any(|finalizer| finalizer == PINS_FINALIZER);
            }
            Action::Checkpoint { pod, id, tasks } => {
                let ordinal: u32 = pod.uid.parse().unwrap();
                assert!(!tasks.is_empty(), "a pod is asked for nothing");
                let rows = [ordinal, ordinal + PODS]
                    .into_iter()
                    .filter_map(|task| self.taken(task, id, tasks));
                let rows: Vec<_> = rows.collect();
                for task in tasks {
                    self.asked += 1;
                    self.operations.entry((*task, id.clone())).or_insert(self.asked);
                }
                let answer = OperationStatus {
                    id: id.clone(),
                    tasks: rows,
                };
                self.checkpoints.insert(ordinal, answer);
            }
            Action::Pin {
                pod, id, checkpoints, ..
            } => {
                let rows = checkpoints.iter().map(|(task, checkpoint)| {
                    let reason = match (self.store_broken, self.retired.contains(checkpoint)) {
                        (true, _) => Some("CheckpointFailed"),
                        (false, true) => Some(CHECKPOINT_MISSING),
                        (false, false) => None,
                    };
                    settled(*task, reason)
                });
                let rows: Vec<_> = rows.collect();
                let pinned = rows
                    .iter()
                    .filter(|row| row.problem.is_none())
                    .map(|row| (row.task, checkpoints[&row.task].clone()));
                self.pins.extend(pinned);
                self.answer(pod, id, rows);
            }
            Action::Release { pod, id, tasks, .. } => {
                let reason = self.store_broken.then_some("CheckpointFailed");
                if reason.is_none() {
                    self.pins.retain(|(task, _)| !tasks.contains(task));
                }
                self.answer(pod, id, tasks.iter().map(|task| settled(*task, reason)).collect());
            }
        }
    }

    /// The answer about a task; nothing about one that was never asked for under this id.
    fn taken(&self, task: u32, id: &str, asked: &[u32]) -> Option<TaskOperation> {
        let known = self.operations.get(&(task, id.to_owned()));
        let phase = match (self.store_broken, known) {
            (_, None) if !asked.contains(&task) => return None,
            (true, _) => OperationPhase::Failed,
            (false, Some(_)) => OperationPhase::Complete,
            (false, None) => OperationPhase::InProgress,
        };
        let checkpoint = CheckpointInfo {
            id: format!("{id}.{task}"),
            epoch: known.copied().unwrap_or_default(),
            bytes: 1 << 20,
            ..CheckpointInfo::default()
        };
        Some(TaskOperation {
            task,
            phase,
            checkpoint: (phase == OperationPhase::Complete && self.has_store).then_some(checkpoint),
            problem: None,
        })
    }

    /// The first stage was asked behind the second: its positions hold what the window tasks have merged.
    fn is_a_cut(&self) -> bool {
        let taken = |stage: fn(u32) -> bool| {
            let rows = self.status.tasks.iter();
            rows.filter(move |row| stage(row.task.unsigned_abs()))
                .map(|row| row.epoch)
        };
        let (windows, combines) = (taken(|task| task < PODS), taken(|task| task >= PODS));
        !self.two_stages || windows.max() < combines.min()
    }

    fn answer(&mut self, pod: &PodTarget, id: &str, tasks: Vec<TaskOperation>) {
        let answer = OperationStatus {
            id: id.to_owned(),
            tasks,
        };
        self.pin_answers.insert(pod.uid.parse().unwrap(), answer);
    }

    fn forget(&mut self) {
        self.checkpoints.clear();
        self.pin_answers.clear();
    }

    fn rounds(&mut self, count: usize) {
        for _ in 0..count {
            if self.gone {
                return;
            }
            self.now += 1.second();
            self.reconcile(None);
        }
    }

    fn delete(&mut self) {
        self.deleted_at = Some(self.now);
    }

    fn reason(&self, type_: &str) -> Option<&str> {
        let mut all = self.status.conditions.iter();
        all.find(|condition| condition.type_ == type_)
            .map(|condition| condition.reason.as_str())
    }
}

/// A log that names the checkpoint.
fn goes_back() -> Rollout {
    let log = serde_json::json!({
        "id": "restore-1", "kind": "Restore", "generation": 1, "targetRevision": "a", "targetReplicas": 2, "step": "Commit",
        "startedAt": "2026-01-01T00:00:00Z", "restore": {"nonce": 3, "checkpoint": "before", "tasks": []},
    });
    serde_json::from_value(log).unwrap()
}

fn settled(task: u32, reason: Option<&str>) -> TaskOperation {
    TaskOperation {
        task,
        phase: reason.map_or(OperationPhase::Complete, |_| OperationPhase::Failed),
        checkpoint: None,
        problem: reason.map(|reason| Problem {
            reason: reason.to_owned(),
            message: "the store says no".to_owned(),
        }),
    }
}

/// Something goes wrong.
type Harm = fn(&mut World);
/// Something begins and ends.
type Switch = fn(&mut World, bool);

#[test]
fn it_is_taken_written_down_pinned_and_left_alone() {
    let mut world = world();
    world.rounds(10);
    assert_eq!(world.status.phase, Some(CheckpointPhase::Complete));
    assert_eq!((world.status.size.as_deref(), world.pins.len()), (Some("4Mi"), 4));
    assert_eq!(world.notes, ["CheckpointComplete"]);
    assert_eq!(world.reason("Ready"), Some("Complete"));
    assert_eq!(world.finalizers, ["example.org/other", PINS_FINALIZER]);
    let facts = world.facts();
    let again = plan(&facts);
    assert!(again.actions.is_empty() && again.notes.is_empty() && again.status == facts.status);
    world.delete();
    world.rounds(5);
    assert!(world.gone && world.pins.is_empty() && world.finalizers == ["example.org/other"]);
}

/// The window tasks of a job of two stages have their checkpoints.
fn at_first_stage() -> World {
    let mut world = World {
        two_stages: true,
        ..world()
    };
    while world.status.phase != Some(CheckpointPhase::FirstStage) {
        world.rounds(1);
    }
    world
}

#[test]
fn of_two_stages_the_first_is_asked_when_the_second_is_written_down() {
    let mut world = at_first_stage();
    let tasks = |world: &World| -> Vec<i32> { world.status.tasks.iter().map(|row| row.task).collect() };
    assert_eq!(tasks(&world), [0, 1], "the window tasks");
    // What goes first now takes nothing back: a position is the better the later it is.
    world.paused = true;
    world.rounds(1_000);
    assert_eq!(world.reason("Reconciling"), Some("AggregationPaused"));
    world.paused = false;
    world.rounds(5);
    assert_eq!(world.status.phase, Some(CheckpointPhase::Complete));
    assert_eq!((tasks(&world), world.pins.len()), (vec![0, 1, 2, 3], 4));
    assert!(world.is_a_cut(), "{:?}", world.status.tasks);
}

#[test]
fn two_aggregations_of_a_name_make_no_checkpoint_together() {
    let mut world = at_first_stage();
    world.replaced = true;
    world.rounds(5);
    assert_eq!(world.reason("Stalled"), Some("AggregationReplaced"));
}

#[test]
fn what_goes_first_is_named_and_does_not_count_as_time() {
    let mut world = world();
    world.rounds(2);
    let waits: [(&str, Switch); 3] = [
        ("WaitingForAggregation", |world, on| world.aggregation = !on),
        ("AggregationSuspended", |world, on| world.suspended = on),
        ("AggregationPaused", |world, on| world.paused = on),
    ];
    for (reason, set) in waits {
        set(&mut world, true);
        world.rounds(1_000);
        assert_eq!(world.reason("Reconciling"), Some(reason));
        set(&mut world, false);
    }
    world.rounds(5);
    assert_eq!(world.status.phase, Some(CheckpointPhase::Complete));
}

#[test]
fn each_failure_has_its_reason_and_says_what_to_do() {
    let cases: [(Harm, &str, &str); 4] = [
        (
            |world| world.has_store = false,
            "NoCheckpointStore",
            "spec.state.checkpoints.store",
        ),
        (
            |world| world.store_broken = true,
            "CheckpointFailed",
            "checkpoint store",
        ),
        (|world| world.down = true, "CheckpointFailed", "600 s"),
        (
            |world| {
                world.retired = ["uid", "uid-1", "uid-2", "uid-3"]
                    .map(|id| format!("scp-{id}.3"))
                    .into()
            },
            "PinFailed",
            "retain.count",
        ),
    ];
    for (fault, reason, hint) in cases {
        let mut world = world();
        fault(&mut world);
        world.rounds(700);
        assert_eq!(
            (world.status.phase, world.reason("Stalled")),
            (Some(CheckpointPhase::Failed), Some(reason))
        );
        let message = world.status.message.clone().unwrap();
        assert!(
            message.contains(hint) && message.contains("create another"),
            "{message}"
        );
        assert_eq!(world.notes, ["CheckpointFailed"]);
        (world.has_store, world.store_broken, world.down) = (true, false, false);
        world.rounds(5);
        assert_eq!(world.reason("Stalled"), Some(reason), "a verdict stays");
        world.delete();
        world.rounds(10);
        assert!(world.gone && world.pins.is_empty());
    }
}

#[test]
fn a_store_that_is_away_while_it_is_pinned_is_waited_for() {
    let mut world = world();
    while world.status.phase != Some(CheckpointPhase::Pinning) {
        world.rounds(1);
    }
    world.store_broken = true;
    world.rounds(20);
    assert_eq!(world.reason("Reconciling"), Some("Pinning"));
    assert!(world.status.message.clone().unwrap().contains("the store says no"));
    world.store_broken = false;
    world.rounds(5);
    assert_eq!(
        (world.status.phase, world.pins.len()),
        (Some(CheckpointPhase::Complete), 4)
    );
}

#[test]
fn a_deleted_one_is_held_for_the_store_but_not_for_ever() {
    let ends: [(Harm, usize); 4] = [
        // It is waited for as long as it may come back.
        (|world| world.store_broken = true, 301),
        (|world| world.suspended = true, 301),
        // No pod will ever come.
        (|world| world.aggregation = false, 1),
        (|world| (world.suspended, world.has_store) = (true, false), 1),
    ];
    for (fault, rounds) in ends {
        let mut world = world();
        world.rounds(10);
        fault(&mut world);
        world.delete();
        world.rounds(rounds - 1);
        assert!(!world.gone);
        world.rounds(1);
        assert!(world.gone && !world.pins.is_empty());
    }
    let mut world = world();
    world.delete();
    world.rounds(1);
    assert!(
        !world.gone && world.finalizers.len() == 1,
        "one that was never looked at is not ours to hold"
    );
}

#[test]
fn a_deleted_one_is_held_while_its_aggregation_goes_back_to_it_and_that_time_does_not_count() {
    let mut world = world();
    world.rounds(10);
    world.goes_back = true;
    world.delete();
    world.rounds(1_000);
    assert!(!world.gone && world.pins.len() == 4);
    let message = world.status.message.clone().unwrap();
    assert!(
        message.contains("sample goes back to it (restoreFrom nonce 3)"),
        "{message}"
    );
    (world.goes_back, world.store_broken) = (false, true);
    world.rounds(200);
    assert!(!world.gone, "the store is waited for from now on");
    world.store_broken = false;
    world.rounds(5);
    assert!(world.gone && world.pins.is_empty());
}

/// What may happen between two looks.
#[derive(Clone, Debug)]
enum Fault {
    /// The operator dies after so many effects, and forgets what pods answered.
    Dies(usize),
    /// Pods come back and know no operation.
    PodsRestart,
    /// A checkpoint that is not pinned is taken by retention.
    Retires(u32),
    /// Looks without fault.
    Looks(usize),
    /// The object is deleted.
    Deleted,
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        (0..4_usize).prop_map(Fault::Dies),
        Just(Fault::PodsRestart),
        (0..4_u32).prop_map(Fault::Retires),
        (1..4_usize).prop_map(Fault::Looks),
        Just(Fault::Deleted),
    ]
}

proptest! {
    #[test]
    fn it_gets_there_from_wherever_an_operator_died(
        faults in prop::collection::vec(fault(), 0..20), two_stages in any::<bool>(),
    ) {
        let mut world = World { two_stages, ..world() };
        for fault in faults {
            if world.gone {
                break;
            }
            match fault {
                Fault::Dies(effects) => {
                    world.reconcile(Some(effects));
                    world.forget();
                }
                Fault::PodsRestart => {
                    world.operations.clear();
                    world.forget();
                }
                Fault::Retires(task) => {
                    let pinned = |id: &String| world.pins.contains(&(task, id.clone()));
                    let row = world.status.tasks.iter().find(|row| row.task.unsigned_abs() == task);
                    let id = row.map(|row| row.id.clone()).filter(|id| !pinned(id));
                    world.retired.extend(id);
                }
                Fault::Looks(count) => world.rounds(count),
                Fault::Deleted => world.delete(),
            }
        }
        world.rounds(30);
        if world.deleted_at.is_some() {
            let held = world.finalizers.iter().any(|finalizer| finalizer == PINS_FINALIZER);
            prop_assert!(!held && world.pins.is_empty(), "{:?}", world.status);
        } else if world.status.phase == Some(CheckpointPhase::Complete) {
            let named: BTreeSet<_> = world.status.tasks.iter().map(|row| (row.task.unsigned_abs(), row.id.clone())).collect();
            prop_assert!(named.is_subset(&world.pins) && named.len() == 4, "{:?} {named:?}", world.pins);
            prop_assert!(world.is_a_cut(), "{:?}", world.status.tasks);
        } else {
            prop_assert_eq!(world.reason("Stalled"), Some("PinFailed"));
        }
    }
}
