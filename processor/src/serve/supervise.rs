//! The threads beside the tasks: one keeps tasks and assignment in step, one watches the topics.
//! Must not hold: rules of ownership.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use streamagg_crds::assignment::{ASSIGNMENT_VERSION, Assignment};

use super::pod::Pod;
use super::{group, partitions};
use crate::kafka::config;
use crate::kafka::consumer::{PartitionReader, QUERY_TIMEOUT, ReadError};
use crate::kafka::control;
use crate::pipeline::executor::{JobContext, Partitions, Topology};
use crate::pipeline::stage::{Role, Stage};
use crate::state::recovery::{Reason, Stop};

/// How often the assignment file is looked at and ended threads are noticed.
const RECONCILE_EVERY: Duration = Duration::from_millis(250);
/// How often the ends of the partitions are asked for.
const LAG_EVERY: Duration = Duration::from_secs(2);
/// The same with `event.maxDrift`, and how often partitions of other pods are heard of.
const ALIGN_EVERY: Duration = Duration::from_secs(1);
/// Room of a client that reads nothing, KiB.
const LAG_QUEUE_KIB: u32 = 64;
/// How often a failed look at the topics is repeated.
const LOOK_AGAIN_EVERY: Duration = Duration::from_secs(2);

/// A process that leaves its group at once is not waited for there.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// Who says which tasks run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AssignedBy {
    /// The operator, in a file or by the admin API.
    Operator(Option<PathBuf>),
    /// Nobody: all of them do.
    Nobody,
    /// The consumer group of the processes that share the job.
    Group,
}

/// The threads.
pub(super) struct Supervisor {
    pod: Arc<Pod>,
    reconciler: JoinHandle<()>,
    member: Option<JoinHandle<()>>,
}

/// Starts the threads.
pub(super) fn start(pod: Arc<Pod>, by: AssignedBy) -> std::io::Result<Supervisor> {
    let (for_reconciler, for_watcher) = (Arc::clone(&pod), Arc::clone(&pod));
    let assignment = match &by {
        AssignedBy::Operator(path) => path.clone(),
        AssignedBy::Nobody | AssignedBy::Group => None,
    };
    let member = match &by {
        AssignedBy::Group => {
            let pod = Arc::clone(&pod);
            let thread = std::thread::Builder::new().name("group".to_owned());
            Some(thread.spawn(move || group::take_part(&pod))?)
        }
        AssignedBy::Operator(_) | AssignedBy::Nobody => None,
    };
    let assign_all = by == AssignedBy::Nobody;
    let reconciler = std::thread::Builder::new()
        .name("reconcile".to_owned())
        .spawn(move || {
            let mut last_problem = None;
            while !(for_reconciler.is_stopping() && for_reconciler.is_stopped()) {
                if let Some(path) = &assignment {
                    look_at_assignment(&for_reconciler, path, &mut last_problem);
                }
                for_reconciler.reconcile();
                std::thread::sleep(RECONCILE_EVERY);
            }
        })?;
    // Not joined at the end: it may be waiting for a broker.
    std::thread::Builder::new()
        .name("watch-topics".to_owned())
        .spawn(move || watch(&for_watcher, assign_all))?;
    let counting = Arc::clone(&pod);
    std::thread::Builder::new()
        .name("count-partitions".to_owned())
        .spawn(move || partitions::watch(&counting, assign_all))?;
    Ok(Supervisor {
        pod,
        reconciler,
        member,
    })
}

impl Supervisor {
    /// Waits until every task has left, `limit` at most. Whether all have.
    pub(super) fn join(self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while !self.pod.is_stopped() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        if self.reconciler.is_finished() && self.reconciler.join().is_err() {
            tracing::error!("the reconcile thread panicked");
        }
        // The group gives the tasks to others as soon as this process has left it.
        let deadline = Instant::now() + LEAVE_MAX;
        while self.member.as_ref().is_some_and(|thread| !thread.is_finished()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.pod.is_stopped()
    }
}

fn look_at_assignment(pod: &Pod, path: &Path, last_problem: &mut Option<String>) {
    let problem = match std::fs::read_to_string(path) {
        // Not written yet: generation 0.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => Some(error.to_string()),
        Ok(text) if text.trim().is_empty() => None,
        Ok(text) => match parse_assignment(text.as_bytes()) {
            Ok(assignment) => {
                pod.take(assignment);
                None
            }
            Err(error) => Some(error),
        },
    };
    if problem != *last_problem {
        if let Some(problem) = &problem {
            tracing::error!(path = %path.display(), problem, "assignment not readable, the one in force stays");
        }
        *last_problem = problem;
    }
}

/// Parses an assignment of a version that this build reads.
pub fn parse_assignment(bytes: &[u8]) -> Result<Assignment, String> {
    let assignment: Assignment = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if assignment.version == ASSIGNMENT_VERSION {
        Ok(assignment)
    } else {
        Err(format!(
            "version {} is not supported, this image reads {ASSIGNMENT_VERSION}",
            assignment.version
        ))
    }
}

fn watch(pod: &Pod, assign_all: bool) {
    let mut logged = None;
    while pod.task_count().is_none() {
        match learn(pod, assign_all) {
            Ok(()) => {}
            Err(stop) => {
                if logged.as_ref() != Some(&stop) {
                    tracing::error!(reason = stop.reason.as_str(), "{}; looking again", stop.message);
                }
                pod.set_problem(Some(stop.problem()));
                logged = Some(stop);
                std::thread::sleep(LOOK_AGAIN_EVERY);
            }
        }
    }
    // One client for all partitions of a topic: each has threads and connections of its own.
    let mut readers = Readers::new();
    while !pod.is_stopping() {
        for task in pod.held() {
            match end_of(pod, task, &mut readers) {
                Ok(end) => pod.set_end_offset(task, end),
                Err(error) => tracing::debug!(task, error, "end of the partition not known"),
            }
        }
        match &pod.context().partitions {
            None => std::thread::sleep(LAG_EVERY),
            Some(partitions) => {
                if let Err(error) = hear_of_others(pod, partitions, &readers) {
                    tracing::debug!(%error, "how far other pods are is not known");
                }
                std::thread::sleep(ALIGN_EVERY);
            }
        }
    }
}

/// A client for each topic that tasks of this pod read.
type Readers = BTreeMap<(Stage, String), PartitionReader>;

/// Hears how far the source partitions are that other pods read, if any are read here.
fn hear_of_others(pod: &Pod, partitions: &Partitions, readers: &Readers) -> Result<(), ReadError> {
    let mut of_source = readers.iter().filter(|((stage, _), _)| *stage == Stage::Combine);
    let (Some((_, reader)), Some(tasks)) = (of_source.next(), pod.task_count()) else {
        return Ok(());
    };
    let held = pod.held();
    let elsewhere = (0..tasks).filter(|task| !held.contains(task));
    let roles = elsewhere.map(|task| pod.context().role(task));
    let others: Vec<Role> = roles.filter(|role| role.stage == Stage::Combine).collect();
    if others.is_empty() {
        return Ok(());
    }
    let inputs: Vec<(String, u32)> = (others.iter())
        .map(|role| config::input(&pod.context().job, *role))
        .collect();
    for (place, note) in reader.notes_of(&inputs)? {
        partitions.heard(others[place].partition, &note);
    }
    Ok(())
}

/// Looks at the topics, before anything is assigned or when partitions were added: how many tasks there are, and the highest
/// generation in any committed position.
pub(super) fn learn(pod: &Pod, assign_all: bool) -> Result<(), Stop> {
    let context = pod.context();
    let topology = Topology::observe(context)?;
    let mut generation = 0;
    for task in 0..topology.task_count() {
        generation = generation.max(generation_of(context, task)?);
    }
    pod.learn(topology.task_count(), generation);
    if assign_all {
        let next = pod.assignment().generation + 1;
        pod.take_here(generation.max(next), 0..topology.task_count());
    }
    Ok(())
}

/// Generation in the committed position of a task; 0 where there is none.
pub(super) fn generation_of(context: &JobContext, task: u32) -> Result<u64, Stop> {
    let settings = config::control_consumer(&context.job, &context.sink_connection()?);
    let topic = config::control_topic(&context.job.job_id);
    match control::look(&settings, &topic, task, None) {
        Ok(copy) => Ok(copy.position.map_or(0, |position| position.generation)),
        Err(ReadError::Stop(stop)) => Err(stop),
        Err(error) => Err(Stop::new(Reason::KafkaUnreachable, error.to_string())),
    }
}

fn end_of(pod: &Pod, task: u32, readers: &mut Readers) -> Result<i64, String> {
    let context = pod.context();
    let role = context.role(task);
    let (topic, partition) = config::input(&context.job, role);
    let place = (role.stage, topic);
    let reader = match readers.entry(place.clone()) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => {
            let opened = context.open_input(role, LAG_QUEUE_KIB);
            entry.insert(opened.map_err(|stop| stop.to_string())?)
        }
    };
    let partition = i32::try_from(partition).map_err(|error| error.to_string())?;
    let watermarks = reader.watermarks_of(partition, QUERY_TIMEOUT);
    // A client that does not answer may never do so again: the next look has another.
    watermarks.map(|(_, end)| end).map_err(|error| {
        readers.remove(&place);
        error.to_string()
    })
}
