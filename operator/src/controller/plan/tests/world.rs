//! A small model of the cluster and its pods for the plan: actions change it, `tick` lets Kubernetes and the pods
//! do their part. It checks, at every action, what must never happen.

use std::cell::RefCell;
use std::collections::BTreeMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use streamagg_crds::admin::{
    OperationPhase, OperationStatus, PodStatus, Problem, TaskOperation, TaskState, TaskStatus,
};
use streamagg_crds::assignment::Assignment;
use streamagg_crds::v1alpha1::{RolloutKind, RolloutStep, StreamAggregationStatus};

use crate::controller::fixtures;
use crate::controller::observed::{AssignmentFacts, NamedUid, Observed, PodFacts, StatefulSetFacts};
use crate::controller::plan::{Action, Plan, Wish, conditions, plan};

/// One pod of the model.
#[derive(Clone, Debug)]
pub struct PodModel {
    uid: String,
    pub revision: String,
    deleting: bool,
    /// Ticks until it answers.
    boot: u32,
    pub down: bool,
    generation: u64,
    pub tasks: BTreeMap<u32, TaskState>,
    drain: Option<OperationStatus>,
}

/// Everything there is.
#[derive(Clone, Debug)]
pub struct World {
    pub spec: Value,
    pub generation: i64,
    pub task_count: u32,
    now: Timestamp,
    version: u64,
    pub set: Option<StatefulSetFacts>,
    /// Revision that pods below the partition get.
    current_revision: String,
    pub assignment: Option<(u64, Assignment)>,
    pub pods: BTreeMap<u32, PodModel>,
    pub status: StreamAggregationStatus,
    children: Vec<Value>,
    jobs: Vec<NamedUid>,
    token: bool,
    /// Drains fail while this is set.
    pub store_broken: bool,
    /// Pods of this revision never answer.
    pub broken_revision: Option<String>,
    /// Every assignment ever written.
    written: BTreeMap<u64, BTreeMap<u32, u32>>,
    pub steps: Vec<(RolloutKind, RolloutStep)>,
    built: RefCell<Option<(i64, Wish)>>,
}

impl World {
    /// Nothing but the spec.
    pub fn new(task_count: u32, replicas: u32) -> Self {
        Self {
            spec: json!({"replicas": replicas}),
            generation: 1,
            task_count,
            now: Timestamp::UNIX_EPOCH,
            version: 1,
            set: None,
            current_revision: String::new(),
            assignment: None,
            pods: BTreeMap::new(),
            status: StreamAggregationStatus::default(),
            children: Vec::new(),
            jobs: Vec::new(),
            token: false,
            store_broken: false,
            broken_revision: None,
            written: BTreeMap::new(),
            steps: Vec::new(),
            built: RefCell::default(),
        }
    }

    pub fn change(&mut self, key: &str, value: Value) {
        self.spec[key] = value;
        self.generation += 1;
    }

    /// The spec, validated and built; kept per generation, since that is most of a round's cost. (The image is given
    /// in every spec here, so nothing of the live set flows in.)
    pub fn wish(&self) -> Wish {
        let mut built = self.built.borrow_mut();
        let fresh = || Wish::Valid(Box::new(fixtures::desired(&self.spec, None)));
        match built.as_ref() {
            Some((generation, wish)) if *generation == self.generation => wish.clone(),
            Some(_) | None => built.insert((self.generation, fresh())).1.clone(),
        }
    }

    pub fn observe(&self) -> Observed {
        let pods = self.pods.iter().map(|(ordinal, pod)| self.pod_facts(*ordinal, pod));
        Observed {
            now: self.now,
            generation: self.generation,
            deleting: false,
            status: self.status.clone(),
            stateful_set: self.set.clone(),
            assignment: self.assignment.clone().map(|(version, assignment)| AssignmentFacts {
                resource_version: version.to_string(),
                assignment,
            }),
            foreign: Vec::new(),
            token_exists: self.token,
            children: self.children.clone(),
            job_config_maps: self.jobs.clone(),
            pods: pods.collect(),
        }
    }

    fn pod_facts(&self, ordinal: u32, pod: &PodModel) -> PodFacts {
        let answers = pod.boot == 0 && !pod.down;
        let rows = pod.tasks.iter().map(|(task, state)| TaskStatus {
            task: *task,
            state: *state,
            ..TaskStatus::default()
        });
        let admin = PodStatus {
            pod: format!("sample-{ordinal}"),
            ordinal,
            task_count: Some(self.task_count),
            generation: pod.generation,
            generation_seen: pod.generation,
            tasks: rows.collect(),
            ..PodStatus::default()
        };
        let broken = self.broken_revision.as_ref() == Some(&pod.revision);
        PodFacts {
            name: format!("sample-{ordinal}"),
            uid: pod.uid.clone(),
            ordinal,
            revision: pod.revision.clone(),
            deleting: pod.deleting,
            ready: answers,
            address: Some(format!("http://{ordinal}")),
            failure: broken.then(|| Problem {
                reason: "ImagePull".to_owned(),
                message: "no such image".to_owned(),
            }),
            job_config_map: None,
            admin: answers.then_some(admin),
            drain: pod.drain.clone(),
        }
    }

    /// One reconcile of which only the first `prefix` effects happen; all of them, and the status, if `None`.
    pub fn reconcile(&mut self, prefix: Option<usize>) -> Plan {
        let (wish, observed) = (self.wish(), self.observe());
        let plan = plan(&wish, &observed);
        assert_eq!(
            plan.actions,
            self::plan(&wish, &observed).actions,
            "the same facts give the same plan"
        );
        for action in plan.actions.iter().take(prefix.unwrap_or(usize::MAX)) {
            self.apply(action);
        }
        if prefix.is_none() {
            self.status = conditions::status("sample", &wish, &observed, &plan);
            if let Some(rollout) = &self.status.rollout
                && self.steps.last() != Some(&(rollout.kind, rollout.step))
            {
                self.steps.push((rollout.kind, rollout.step));
            }
        }
        plan
    }

    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    fn apply(&mut self, action: &Action) {
        match action {
            Action::ApplyChild(object) => {
                let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                let same = |live: &Value| live["kind"] == object["kind"] && live["metadata"]["name"] == name;
                self.children.retain(|live| !same(live));
                self.children.push((**object).clone());
                if object["kind"] == "ConfigMap" && !self.jobs.iter().any(|job| job.name == name) {
                    self.jobs.push(NamedUid {
                        uid: format!("uid-{name}"),
                        name,
                    });
                }
            }
            Action::CreateToken => self.token = true,
            Action::ApplyStatefulSet(set) => self.apply_set(set),
            Action::ScaleStatefulSet {
                replicas,
                partition,
                resource_version,
            } => {
                let version = self.next_version().to_string();
                let set = self.set.as_mut().unwrap();
                assert_eq!(set.resource_version, *resource_version, "decided on another version");
                set.replicas = *replicas;
                set.partition = *partition;
                set.resource_version = version;
                set.observed = false;
            }
            Action::WriteAssignment {
                assignment,
                resource_version,
            } => {
                self.write_assignment(assignment, resource_version.as_deref());
            }
            Action::Push { pod, assignment } => self.push(&pod.uid, assignment),
            Action::Drain { pod, id, tasks } => self.drain(&pod.uid, id, tasks),
            Action::DeletePod { uid, .. } => self.delete_pod(uid),
            Action::DeleteJobConfigMap { name, uid } => {
                let used = self.set.as_ref().and_then(|set| set.job_config_map.as_ref());
                assert_ne!(used, Some(name), "the job file in use was deleted");
                self.jobs.retain(|job| job.uid != *uid);
                self.children.retain(|child| child["metadata"]["name"] != **name);
            }
        }
    }

    fn apply_set(&mut self, set: &k8s_openapi::api::apps::v1::StatefulSet) {
        let version = self.next_version().to_string();
        let mut set = set.clone();
        set.metadata.resource_version = Some(version);
        let mut facts = crate::controller::observe::stateful_set_facts(&set);
        facts.observed = false;
        if let Some(old) = &self.set {
            if old.revision != facts.revision && old.replicas > 0 {
                let step = self.status.rollout.as_ref().map(|rollout| rollout.step);
                assert!(
                    step >= Some(RolloutStep::Apply),
                    "template changed before Commit: {step:?}"
                );
            }
        } else {
            self.current_revision = facts.revision.clone();
        }
        facts.settled = self.current_revision == facts.revision;
        self.set = Some(facts);
    }

    fn write_assignment(&mut self, assignment: &Assignment, resource_version: Option<&str>) {
        let live = self.assignment.as_ref().map(|(version, _)| version.to_string());
        assert_eq!(live.as_deref(), resource_version, "decided on another version");
        let before = self.assignment.as_ref().map(|(_, assignment)| assignment.tasks.clone());
        if let Some((last, _)) = self.written.last_key_value() {
            assert!(
                assignment.generation > *last,
                "generation {} reused",
                assignment.generation
            );
        }
        for (task, owner) in before.iter().flatten() {
            let moved = assignment.tasks.get(task) != Some(owner);
            let runs = self
                .pods
                .get(owner)
                .is_some_and(|pod| pod.tasks.get(task) == Some(&TaskState::Running));
            let reachable = self.pods.get(owner).is_some_and(|pod| !pod.down && !pod.deleting);
            assert!(
                !(moved && runs && reachable),
                "task {task} moved off pod {owner} while it ran there"
            );
        }
        self.written.insert(assignment.generation, assignment.tasks.clone());
        let version = self.next_version();
        self.assignment = Some((version, assignment.clone()));
    }

    fn push(&mut self, uid: &str, assignment: &Assignment) {
        let written = self.written.get(&assignment.generation);
        assert_eq!(written, Some(&assignment.tasks), "pushed what no ConfigMap held");
        if let Some((ordinal, pod)) = self.pods.iter_mut().find(|(_, pod)| pod.uid == uid) {
            take(*ordinal, pod, assignment);
        }
    }

    fn drain(&mut self, uid: &str, id: &str, tasks: &[u32]) {
        let broken = self.store_broken;
        let Some(pod) = self.pods.values_mut().find(|pod| pod.uid == uid && !pod.down) else {
            return;
        };
        let mut rows = Vec::new();
        for task in tasks {
            let phase = match pod.tasks.get_mut(task) {
                Some(_) if broken => OperationPhase::Failed,
                Some(state @ TaskState::Running) => {
                    *state = TaskState::Draining;
                    OperationPhase::InProgress
                }
                Some(TaskState::Draining) => OperationPhase::InProgress,
                Some(_) | None => OperationPhase::Complete,
            };
            rows.push(TaskOperation {
                task: *task,
                phase,
                ..TaskOperation::default()
            });
        }
        pod.drain = Some(OperationStatus {
            id: id.to_owned(),
            tasks: rows,
        });
    }

    fn delete_pod(&mut self, uid: &str) {
        let rollout = self
            .status
            .rollout
            .as_ref()
            .expect("a pod was deleted without a rollout");
        assert!(
            rollout.step >= RolloutStep::Apply,
            "a pod was deleted before Commit, in {:?}",
            rollout.step
        );
        if let Some(pod) = self.pods.values_mut().find(|pod| pod.uid == uid) {
            pod.deleting = true;
        }
    }

    /// Kubernetes and the pods do one second's work.
    pub fn tick(&mut self) {
        self.now += SignedDuration::from_secs(1);
        self.pods.retain(|_, pod| !pod.deleting);
        let mounted = self
            .assignment
            .as_ref()
            .map(|(_, assignment)| assignment.clone())
            .unwrap_or_default();
        for (ordinal, pod) in &mut self.pods {
            if pod.boot > 0 && self.broken_revision.as_ref() != Some(&pod.revision) {
                pod.boot -= 1;
                if pod.boot == 0 {
                    take(*ordinal, pod, &mounted);
                }
            }
            for state in pod.tasks.values_mut() {
                *state = match *state {
                    TaskState::Starting => TaskState::Running,
                    TaskState::Draining => TaskState::Drained,
                    other => other,
                };
            }
        }
        self.stateful_set_controller();
    }

    fn stateful_set_controller(&mut self) {
        let version = self.version;
        let Some(set) = self.set.as_mut() else { return };
        set.observed = true;
        self.pods
            .iter_mut()
            .filter(|(ordinal, _)| **ordinal >= set.replicas)
            .for_each(|(_, pod)| pod.deleting = true);
        for ordinal in 0..set.replicas {
            let held = i64::from(ordinal) < i64::from(set.partition);
            let revision = if held { &self.current_revision } else { &set.revision };
            self.pods.entry(ordinal).or_insert_with(|| PodModel {
                uid: format!("pod-{ordinal}-{version}-{}", self.now.as_second()),
                revision: revision.clone(),
                deleting: false,
                boot: 2,
                down: false,
                generation: 0,
                tasks: BTreeMap::new(),
                drain: None,
            });
        }
        let updated = self
            .pods
            .values()
            .all(|pod| pod.revision == set.revision && pod.boot == 0 && !pod.down);
        if updated && self.pods.len() == set.replicas as usize {
            self.current_revision = set.revision.clone();
        }
        set.settled = self.current_revision == set.revision;
    }

    /// A container is killed: its pod starts over with what is mounted.
    pub fn restart_container(&mut self, ordinal: u32) {
        if let Some(pod) = self.pods.get_mut(&ordinal) {
            pod.boot = 2;
            pod.generation = 0;
            pod.tasks.clear();
            pod.drain = None;
        }
    }

    /// Reconciles and ticks without faults until nothing is left to do.
    pub fn settle(&mut self, rounds_max: usize) {
        for _ in 0..rounds_max {
            self.tick();
            let before = self.observe();
            let plan = self.reconcile(None);
            let ready = self.condition("Ready") == Some("True".to_owned());
            if plan.is_settled(&before) && ready {
                return;
            }
        }
        let plan = plan(&self.wish(), &self.observe());
        panic!("not settled after {rounds_max} rounds: {plan:#?}\n{:#?}", self.status);
    }

    pub fn condition(&self, type_: &str) -> Option<String> {
        let found = self.status.conditions.iter().find(|condition| condition.type_ == type_);
        found.map(|condition| condition.status.clone())
    }

    pub fn reason(&self, type_: &str) -> Option<String> {
        let found = self.status.conditions.iter().find(|condition| condition.type_ == type_);
        found.map(|condition| condition.reason.clone())
    }
}

/// A pod takes only a higher generation; drained tasks it keeps wake up.
fn take(ordinal: u32, pod: &mut PodModel, assignment: &Assignment) {
    if pod.boot > 0 || pod.down || assignment.generation <= pod.generation {
        return;
    }
    pod.generation = assignment.generation;
    let mut tasks = BTreeMap::new();
    for task in assignment.tasks_of(ordinal) {
        let state = match pod.tasks.get(&task) {
            Some(TaskState::Running) => TaskState::Running,
            _ => TaskState::Starting,
        };
        tasks.insert(task, state);
    }
    pod.tasks = tasks;
}
