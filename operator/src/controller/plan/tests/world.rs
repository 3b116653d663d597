//! A small model of the cluster and its pods for the plan: actions change it, `tick` lets Kubernetes and the pods
//! do their part. It checks, at every action, what must never happen.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use streamagg_crds::admin::{CheckpointInfo, OperationStatus, PodStatus, Problem, TaskState, TaskStatus};
use streamagg_crds::assignment::Assignment;
use streamagg_crds::job_file::Restore;
use streamagg_crds::v1alpha1::{
    RolloutKind, RolloutStep, StreamAggregation, StreamAggregationStatus, StreamCheckpoint,
};
use streamagg_crds::value::Quantity;

use crate::controller::fixtures;
use crate::controller::observed::{
    AssignmentFacts, ClaimFacts, NamedUid, Observed, PodFacts, References, StatefulSetFacts,
};
use crate::controller::plan::{Action, Plan, Propagation, Wish, conditions, plan};
use crate::controller::requests::Requests;
use crate::controller::restore;

mod asked;
mod nature;
mod restores;

/// One pod of the model.
#[derive(Clone, Debug)]
pub struct PodModel {
    uid: String,
    pub revision: String,
    /// Job file that it mounts.
    job: Option<String>,
    deleting: bool,
    /// Ticks until it answers.
    boot: u32,
    pub down: bool,
    generation: u64,
    pub tasks: BTreeMap<u32, TaskState>,
    drain: Option<OperationStatus>,
    checkpoint: Option<OperationStatus>,
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
    /// Job file that they get.
    current_job: Option<String>,
    pub assignment: Option<(u64, Assignment)>,
    pub pods: BTreeMap<u32, PodModel>,
    pub status: StreamAggregationStatus,
    children: Vec<Value>,
    jobs: Vec<NamedUid>,
    token: bool,
    pub paused: bool,
    pub requests: Requests,
    pub finalizers: Vec<String>,
    pub deleted_at: Option<Timestamp>,
    pub claims: BTreeMap<u32, ClaimFacts>,
    /// Nothing is left of the object.
    pub gone: bool,
    /// Drains fail while this is set.
    pub store_broken: bool,
    /// Every task has a checkpoint in the store.
    pub saved: bool,
    /// Pods of this revision never answer.
    pub broken_revision: Option<String>,
    /// Every assignment ever written.
    written: BTreeMap<u64, BTreeMap<u32, u32>>,
    pub steps: Vec<(RolloutKind, RolloutStep)>,
    /// StreamCheckpoints, by name.
    pub kept: BTreeMap<String, StreamCheckpoint>,
    /// What is not in the store, whatever is kept: StreamCheckpoint and task.
    pub lost: BTreeSet<(String, u32)>,
    /// The nonce in each task's committed position.
    pub positions: BTreeMap<u32, u64>,
    aggregation: RefCell<Option<(i64, StreamAggregation)>>,
    built: RefCell<Option<(i64, Option<Restore>, Wish)>>,
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
            current_job: None,
            assignment: None,
            pods: BTreeMap::new(),
            status: StreamAggregationStatus::default(),
            children: Vec::new(),
            jobs: Vec::new(),
            token: false,
            paused: false,
            requests: Requests::default(),
            finalizers: Vec::new(),
            deleted_at: None,
            claims: BTreeMap::new(),
            gone: false,
            store_broken: false,
            saved: false,
            broken_revision: None,
            written: BTreeMap::new(),
            steps: Vec::new(),
            kept: BTreeMap::new(),
            lost: BTreeSet::new(),
            positions: BTreeMap::new(),
            aggregation: RefCell::default(),
            built: RefCell::default(),
        }
    }

    pub fn change(&mut self, key: &str, value: Value) {
        self.spec[key] = value;
        self.generation += 1;
    }

    pub fn observe(&self) -> Observed {
        let pods = self.pods.iter().map(|(ordinal, pod)| self.pod_facts(*ordinal, pod));
        let mut observed = Observed {
            now: self.now,
            generation: self.generation,
            deleted_at: self.deleted_at,
            finalizers: self.finalizers.clone(),
            resource_version: self.generation.to_string(),
            deletion_policy: self.aggregation().spec.deletion_policy,
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
            orders: restore::in_job_files(&self.children),
            restore_source: None,
            pods: pods.collect(),
            claims: self.claims.values().cloned().collect(),
            references: References::None,
            requests: self.requests.clone(),
            paused: self.paused,
            lag_samples: Vec::new(),
            running_since: None,
        };
        observed.restore_source = self.source(&observed);
        observed
    }

    fn pod_facts(&self, ordinal: u32, pod: &PodModel) -> PodFacts {
        let answers = pod.boot == 0 && !pod.down;
        let rows = pod.tasks.iter().map(|(task, state)| TaskStatus {
            task: *task,
            state: *state,
            checkpoint: self.saved.then(CheckpointInfo::default),
            restore_nonce: self.positions.get(task).copied().unwrap_or(0),
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
            crash: None,
            job_config_map: pod.job.clone(),
            admin: answers.then_some(admin),
            drain: pod.drain.clone(),
            checkpoint: pod.checkpoint.clone(),
        }
    }

    /// One reconcile of which only the first `prefix` effects happen; all of them, and the status, if `None`.
    pub fn reconcile(&mut self, prefix: Option<usize>) -> Plan {
        if self.gone {
            return Plan::default();
        }
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
            Action::Checkpoint { pod, id, .. } => self.checkpoint(&pod.uid, id),
            Action::DeletePod { uid, .. } => self.delete_pod(uid),
            Action::DeleteStatefulSet { uid, propagation } => self.delete_set(uid, *propagation),
            Action::GrowClaim { name, size, .. } => {
                let claim = self.claims.values_mut().find(|claim| claim.name == *name).unwrap();
                let bytes = size.parse::<Quantity>().unwrap().units();
                assert!(bytes > claim.requested_bytes, "a claim was asked to shrink");
                claim.requested_bytes = bytes;
            }
            Action::DeleteClaim { uid, .. } => self.delete_claim(uid),
            Action::SetFinalizers { finalizers, .. } => {
                self.finalizers.clone_from(finalizers);
                self.gone = self.deleted_at.is_some() && finalizers.is_empty();
            }
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
            self.current_job = facts.job_config_map.clone();
        }
        facts.settled = self.current_revision == facts.revision;
        facts.uid = match &self.set {
            Some(old) => {
                let bytes = |set: &StatefulSetFacts| set.volume.as_ref().map(|volume| volume.bytes);
                assert_eq!(bytes(old), bytes(&facts), "claim templates cannot change");
                old.uid.clone()
            }
            None => format!("set-{}", self.version),
        };
        self.set = Some(facts);
    }

    fn delete_set(&mut self, uid: &str, propagation: Propagation) {
        let Some(set) = self.set.as_mut().filter(|set| set.uid == uid) else {
            return;
        };
        match propagation {
            Propagation::Orphan => {
                let wanted = fixtures::desired(&self.spec, None).volume.unwrap().bytes;
                let small = |claim: &ClaimFacts| claim.phase == "Bound" && claim.requested_bytes < wanted;
                let replicas = set.replicas;
                assert!(
                    !self.claims.range(..replicas).any(|(_, claim)| small(claim)),
                    "replaced before the claims grew"
                );
                self.set = None;
            }
            Propagation::Foreground => {
                assert!(
                    self.deleted_at.is_some(),
                    "the set of a living object was deleted with its pods"
                );
                set.deleting = true;
                self.pods.values_mut().for_each(|pod| pod.deleting = true);
            }
        }
    }

    fn delete_claim(&mut self, uid: &str) {
        let deleted_at = self.deleted_at.expect("a claim of a living object was deleted");
        let late = self.now.duration_since(deleted_at).as_secs() >= 600;
        assert!(late || self.pods.is_empty(), "a claim was deleted under its pod");
        assert_eq!(self.spec["deletionPolicy"]["state"], "Delete");
        self.claims.retain(|_, claim| claim.uid != uid);
    }

    /// A user deletes the object.
    pub fn delete(&mut self) {
        self.deleted_at = self.deleted_at.or(Some(self.now));
        self.gone = self.finalizers.is_empty();
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
            let log = self.status.rollout.as_ref();
            // `UseLatest`: only to where its state can be restored.
            let restored = self.saved && log.is_some_and(|log| log.without_checkpoint.is_some());
            assert!(
                !(moved && runs && reachable) || restored,
                "task {task} moved off pod {owner} while it ran there"
            );
        }
        self.written.insert(assignment.generation, assignment.tasks.clone());
        let version = self.next_version();
        self.assignment = Some((version, assignment.clone()));
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
