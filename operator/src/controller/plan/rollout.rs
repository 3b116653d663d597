//! The rollout machine: one step at a time, each written down before the next may act.
//! Must not hold which rollout is wanted (`choose`) or the draining itself (`drain`).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::SignedDuration;
use streamagg_crds::v1alpha1::{Rollout, RolloutKind, RolloutStep};

use super::assignment::{balance, successor};
use super::drain::{self, Drained};
use super::{Action, Note, Plan, Verdict, policy, restoring, upkeep};
use crate::controller::build::{PARTITION_HOLD, PARTITION_OPEN, stateful_set_with};
use crate::controller::desired::Desired;
use crate::controller::observed::{Observed, StatefulSetFacts};
use crate::controller::{restore, summary};

/// How long pods may take to drain.
const CHECKPOINT_LIMIT: SignedDuration = SignedDuration::from_secs(120);
/// How long the old revision runs after the first failed try to drain; doubled each time.
const RETRY_PAUSE_FIRST_SECONDS: i64 = 5;
/// Longest pause between two tries.
const RETRY_PAUSE_MAX_SECONDS: i64 = 60;
/// Failed tries before people are told.
pub(super) const ATTEMPTS_BEFORE_VERDICT: i32 = 3;
/// How long new pods may take to be there and answer.
const PODS_LIMIT: SignedDuration = SignedDuration::from_secs(300);
/// How long restoring may take before it counts as stuck; it goes on after that.
const RESTORE_LIMIT: SignedDuration = SignedDuration::from_secs(600);

/// What new pods have to come to.
const AIM: &str = "run all their tasks";

/// How long a step may take before it gets a verdict.
pub fn limit(step: RolloutStep) -> SignedDuration {
    match step {
        RolloutStep::Checkpoint => CHECKPOINT_LIMIT,
        RolloutStep::Plan | RolloutStep::Verify | RolloutStep::Commit | RolloutStep::Apply => PODS_LIMIT,
        RolloutStep::Restore | RolloutStep::Stabilize => RESTORE_LIMIT,
    }
}

/// What a step comes to.
pub(super) enum Outcome {
    /// Not there yet.
    Stay,
    /// The next step.
    Go(RolloutStep),
    /// Back to the start after a pause, with the error.
    Retry(String),
    /// On without a checkpoint of every task, and why.
    Without(String),
    /// Given up for good, with the error.
    Abort(String),
    /// The rollout is over.
    Done,
}

/// Carries the chosen rollout one step further, or tidies up when there is none.
pub fn plan(desired: Option<&Desired>, observed: &Observed, chosen: Option<Rollout>, plan: &mut Plan) {
    let Some(set) = observed.stateful_set.as_ref() else {
        return;
    };
    let Some(rollout) = chosen else {
        at_rest(desired, observed, set, plan);
        return;
    };
    let written = observed.rollout().is_some_and(|logged| logged.id == rollout.id);
    if !written {
        plan.rollout = Some(rollout);
        return;
    }
    let context = Step {
        desired,
        observed,
        set,
        rollout: &rollout,
    };
    let outcome = match rollout.step {
        RolloutStep::Plan => context.prepare(plan),
        RolloutStep::Checkpoint => context.checkpoint(plan),
        RolloutStep::Verify => Outcome::Go(RolloutStep::Commit),
        RolloutStep::Commit => context.commit(plan),
        RolloutStep::Apply => context.apply(plan),
        RolloutStep::Restore => context.restore(plan),
        RolloutStep::Stabilize => context.stabilize(),
    };
    plan.rollout = next(&rollout, &outcome, observed);
    if let (RolloutStep::Verify, Some(next)) = (rollout.step, plan.rollout.as_mut()) {
        // What the pods report of the store now is what a return would start from.
        next.checkpoint = summary::tasks_summary(observed).and_then(|tasks| Some(tasks.newest_checkpoint?.id));
    }
    policy::note(&rollout, &outcome, plan);
    if matches!(outcome, Outcome::Done) {
        plan.completed = true;
        let runs = rollout.kind != RolloutKind::Suspend && set.replicas > 0;
        plan.stable_revision = runs.then(|| set.revision.clone());
        plan.notes.push(Note {
            warning: false,
            reason: "RolloutCompleted".to_owned(),
            subject: rollout.id.clone(),
            message: format!(
                "{:?} of generation {} {}",
                rollout.kind,
                rollout.generation,
                end(&rollout, set)
            ),
        });
    }
}

fn end(rollout: &Rollout, set: &StatefulSetFacts) -> &'static str {
    match rollout.kind {
        RolloutKind::Restore if set.replicas == 0 => "is carried out when the aggregation is resumed",
        _ => "is complete",
    }
}

/// The log after this reconcile.
fn next(rollout: &Rollout, outcome: &Outcome, observed: &Observed) -> Option<Rollout> {
    let mut next = rollout.clone();
    let step = match outcome {
        Outcome::Stay => return Some(next),
        Outcome::Done | Outcome::Abort(_) => return None,
        Outcome::Go(step) => *step,
        Outcome::Without(error) => {
            next.without_checkpoint = Some(error.clone());
            RolloutStep::Verify
        }
        Outcome::Retry(error) => {
            next.attempts += 1;
            next.last_error = Some(error.clone());
            RolloutStep::Plan
        }
    };
    let limit = match outcome {
        Outcome::Retry(_) => retry_pause(next.attempts),
        Outcome::Stay | Outcome::Go(_) | Outcome::Without(_) | Outcome::Done | Outcome::Abort(_) => limit(step),
    };
    next.step = step;
    next.step_started_at = Some(Time(observed.now));
    next.deadline = Some(Time(observed.now + limit));
    Some(next)
}

fn retry_pause(attempts: i32) -> SignedDuration {
    let doublings = attempts.clamp(1, 10).unsigned_abs() - 1;
    SignedDuration::from_secs((RETRY_PAUSE_FIRST_SECONDS << doublings).min(RETRY_PAUSE_MAX_SECONDS))
}

/// Past the deadline of the step under way.
pub(super) fn overdue(rollout: &Rollout, observed: &Observed) -> bool {
    rollout
        .deadline
        .as_ref()
        .is_some_and(|deadline| observed.now >= deadline.0)
}

/// Without a rollout: a suspended set takes a new template at once, a settled one closes its partition.
fn at_rest(desired: Option<&Desired>, observed: &Observed, set: &StatefulSetFacts, plan: &mut Plan) {
    if let Some(desired) = desired.filter(|desired| desired.suspend && desired.revision != set.revision)
        && set.replicas == 0
    {
        plan.actions.push(Action::ApplyStatefulSet(Box::new(stateful_set_with(
            desired,
            0,
            PARTITION_OPEN,
        ))));
        return;
    }
    let settled = set.observed && set.settled && observed.pods.iter().all(|pod| pod.revision == set.revision);
    if settled && set.partition != PARTITION_HOLD {
        plan.actions.push(scale(set, set.replicas, PARTITION_HOLD));
    }
    if upkeep::all_running(observed) && observed.status.last_stable_revision.as_ref() != Some(&set.revision) {
        plan.stable_revision = Some(set.revision.clone());
    }
}

fn scale(set: &StatefulSetFacts, replicas: u32, partition: i32) -> Action {
    Action::ScaleStatefulSet {
        replicas,
        partition,
        resource_version: set.resource_version.clone(),
    }
}

/// One step with everything it looks at.
struct Step<'a> {
    desired: Option<&'a Desired>,
    observed: &'a Observed,
    set: &'a StatefulSetFacts,
    rollout: &'a Rollout,
}

impl Step<'_> {
    fn target_replicas(&self) -> u32 {
        self.rollout.target_replicas.unsigned_abs()
    }

    /// Plan: wait out the pause after a failed try; new pods of a larger set have to be there and answer.
    fn prepare(&self, plan: &mut Plan) -> Outcome {
        if let Some(error) = self.rollout.last_error.as_ref() {
            // The first failures may be a hiccup of the store; the old revision goes on meanwhile.
            plan.verdict = (self.rollout.attempts >= ATTEMPTS_BEFORE_VERDICT).then(|| Verdict {
                reason: "CheckpointFailed".to_owned(),
                message: format!("{error}; the old revision goes on, the change is tried again (or take it back)"),
            });
            if !overdue(self.rollout, self.observed) {
                return Outcome::Stay;
            }
        }
        let growing = self.rollout.kind == RolloutKind::Rescale && self.set.replicas < self.target_replicas();
        if growing {
            plan.actions
                .push(scale(self.set, self.target_replicas(), self.set.partition));
            return Outcome::Stay;
        }
        if self.rollout.kind == RolloutKind::Rescale && !self.pods_answer() {
            plan.verdict = self.pods_verdict("answer");
            return Outcome::Stay;
        }
        Outcome::Go(RolloutStep::Checkpoint)
    }

    fn pods_answer(&self) -> bool {
        let answers = |ordinal| {
            let mut pods = self.observed.pods.iter();
            pods.any(|pod| pod.ordinal == ordinal && !pod.deleting && pod.admin.is_some())
        };
        (0..self.target_replicas()).all(answers)
    }

    /// Checkpoint: every task concerned drains to its committed position. What a failure leads to is the spec's `policy`.
    fn checkpoint(&self, plan: &mut Plan) -> Outcome {
        match drain::plan(self.rollout, self.observed, overdue(self.rollout, self.observed), plan) {
            Drained::All => Outcome::Go(RolloutStep::Verify),
            Drained::Waiting => Outcome::Stay,
            Drained::Failed(error) => policy::after_failure(self.desired, self.observed, self.rollout, error),
        }
    }

    /// Commit: from here on the change is carried through. A rescale writes the new assignment, unless a task that
    /// was drained has been started again meanwhile (its container was restarted): then it drains once more.
    fn commit(&self, plan: &mut Plan) -> Outcome {
        if self.rollout.kind != RolloutKind::Rescale {
            return Outcome::Go(RolloutStep::Apply);
        }
        let drained = self.rollout.without_checkpoint.is_none();
        if drained && drain::still_running(self.rollout, self.observed) {
            return Outcome::Go(RolloutStep::Checkpoint);
        }
        if self.write_assignment(plan) {
            Outcome::Stay
        } else {
            Outcome::Go(RolloutStep::Apply)
        }
    }

    /// Whether the assignment still has to be written for the target replicas.
    fn write_assignment(&self, plan: &mut Plan) -> bool {
        let tasks = upkeep::tasks(self.observed);
        let wanted = balance(tasks, upkeep::task_count(self.observed), self.target_replicas());
        if wanted == *tasks {
            return false;
        }
        plan.actions.push(Action::WriteAssignment {
            assignment: successor(upkeep::generation_max(self.observed), wanted),
            resource_version: self
                .observed
                .assignment
                .as_ref()
                .map(|live| live.resource_version.clone()),
        });
        true
    }

    /// Apply: the StatefulSet and its pods become what was committed.
    fn apply(&self, plan: &mut Plan) -> Outcome {
        match self.rollout.kind {
            RolloutKind::Upgrade | RolloutKind::Restart | RolloutKind::Restore => self.replace_pods(plan),
            RolloutKind::Rescale if self.shrunk(plan) => Outcome::Go(RolloutStep::Restore),
            RolloutKind::Suspend if self.shrunk(plan) => Outcome::Done,
            RolloutKind::Rescale | RolloutKind::Suspend => Outcome::Stay,
            RolloutKind::Resume => self.resume(plan),
        }
    }

    fn template_in_force(&self) -> bool {
        self.set.revision == self.rollout.target_revision && self.set.partition == PARTITION_OPEN && self.set.observed
    }

    /// Applies the target template with an open partition. The partition first: with a closed one a deleted pod
    /// would come back as it was.
    fn apply_template(&self, replicas: u32, plan: &mut Plan) {
        let desired = self
            .desired
            .filter(|desired| desired.revision == self.rollout.target_revision);
        if self.set.revision != self.rollout.target_revision
            && let Some(desired) = desired
        {
            let stateful_set = stateful_set_with(desired, replicas, PARTITION_OPEN);
            plan.actions.push(Action::ApplyStatefulSet(Box::new(stateful_set)));
        } else if self.set.partition != PARTITION_OPEN || self.set.replicas != replicas {
            plan.actions.push(scale(self.set, replicas, PARTITION_OPEN));
        }
    }

    fn replace_pods(&self, plan: &mut Plan) -> Outcome {
        if !self.template_in_force() {
            self.apply_template(self.set.replicas, plan);
            return Outcome::Stay;
        }
        let old: Vec<_> = self
            .observed
            .pods
            .iter()
            .filter(|pod| pod.revision != self.set.revision)
            .collect();
        for pod in old.iter().filter(|pod| !pod.deleting) {
            plan.actions.push(Action::DeletePod {
                name: pod.name.clone(),
                uid: pod.uid.clone(),
            });
        }
        if old.is_empty() {
            return Outcome::Go(RolloutStep::Restore);
        }
        if overdue(self.rollout, self.observed) {
            let stuck: Vec<_> = old.iter().map(|pod| pod.name.as_str()).collect();
            plan.verdict = Some(Verdict {
                reason: "VolumeStuck".to_owned(),
                message: format!(
                    "old pods do not go away: {}; look at their nodes, then delete them by hand",
                    stuck.join(", ")
                ),
            });
        }
        Outcome::Stay
    }

    /// Whether the set has its target size and the pods that leave are gone.
    fn shrunk(&self, plan: &mut Plan) -> bool {
        if self.set.replicas != self.target_replicas() {
            plan.actions
                .push(scale(self.set, self.target_replicas(), self.set.partition));
            return false;
        }
        let leaving = self
            .observed
            .pods
            .iter()
            .any(|pod| pod.ordinal >= self.target_replicas());
        self.set.observed && !leaving
    }

    /// Without pods the assignment may be rewritten freely; then the set comes back in one write.
    fn resume(&self, plan: &mut Plan) -> Outcome {
        if self.set.replicas == 0 && self.observed.pods.is_empty() && self.write_assignment(plan) {
            return Outcome::Stay;
        }
        if self.set.revision != self.rollout.target_revision
            || self.set.replicas != self.target_replicas()
            || self.set.partition != PARTITION_OPEN
        {
            self.apply_template(self.target_replicas(), plan);
            return Outcome::Stay;
        }
        Outcome::Go(RolloutStep::Restore)
    }

    /// Restore: every pod is of the target revision and ready, every task runs.
    fn restore(&self, plan: &mut Plan) -> Outcome {
        let replaces = match self.rollout.kind {
            RolloutKind::Upgrade | RolloutKind::Restart | RolloutKind::Resume | RolloutKind::Restore => true,
            RolloutKind::Rescale | RolloutKind::Suspend => false,
        };
        if replaces && self.observed.pods.iter().any(|pod| pod.revision != self.set.revision) {
            // A pod that was evicted in the wrong moment came back as it was.
            self.replace_pods(plan);
            return Outcome::Stay;
        }
        if let Some(order) = restore::under_way(self.observed).filter(|_| replaces && self.set.replicas > 0) {
            plan.verdict = restoring::verdict(&order, self.rollout, self.observed).or_else(|| self.pods_verdict(AIM));
            return Outcome::Stay;
        }
        if upkeep::all_running(self.observed) {
            let watched = replaces && self.stabilization_ms() > 0;
            return if watched {
                Outcome::Go(RolloutStep::Stabilize)
            } else {
                Outcome::Done
            };
        }
        plan.verdict = self.pods_verdict(AIM);
        Outcome::Stay
    }

    fn stabilization_ms(&self) -> i64 {
        self.desired.map_or(0, |desired| desired.stabilization_ms)
    }

    /// Stabilize: all tasks run without a break for the time asked; a break starts it over.
    fn stabilize(&self) -> Outcome {
        if !upkeep::all_running(self.observed) {
            return Outcome::Go(RolloutStep::Restore);
        }
        let since = self
            .rollout
            .step_started_at
            .as_ref()
            .map_or(self.observed.now, |time| time.0);
        let ran_ms = self.observed.now.as_millisecond() - since.as_millisecond();
        if ran_ms >= self.stabilization_ms() {
            Outcome::Done
        } else {
            Outcome::Stay
        }
    }

    /// Why the pods will not get there by themselves: a hopeless pod, or the deadline has passed.
    fn pods_verdict(&self, aim: &str) -> Option<Verdict> {
        for pod in &self.observed.pods {
            if let Some(problem) = pod.hopeless() {
                let message = format!("{}: {}", pod.name, problem.message);
                return Some(Verdict {
                    reason: problem.reason,
                    message,
                });
            }
        }
        overdue(self.rollout, self.observed).then(|| Verdict {
            reason: "RestoreFailed".to_owned(),
            message: format!(
                "pods of revision {} do not {aim} within {} s of step {:?}; look at the pods' logs, or change the spec",
                self.rollout.target_revision,
                limit(self.rollout.step).as_secs(),
                self.rollout.step
            ),
        })
    }
}
