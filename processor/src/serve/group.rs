//! Processes outside Kubernetes share a job: a consumer group on the control topic, which has a partition for each task, says
//! who runs which. What the group says is who should try; that two never both commit is ownership's, as with an operator.
//! Must not hold: rules of ownership.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::topic_partition_list::TopicPartitionList;
use streamagg_crds::admin::{OperationPhase, TaskStatus};

use super::pod::{Pod, answers};
use super::supervise::generation_of;
use crate::kafka::access::Access;
use crate::kafka::brokers;
use crate::kafka::closing::Closing;
use crate::kafka::config;
use crate::kafka::consumer::client_config;
use crate::kafka::trouble::Trouble;
use crate::pipeline::executor::board::RequestKind;
use crate::state::recovery::{Reason, Stop};

/// Longest wait for the group's next word.
const POLL: Duration = Duration::from_millis(100);
/// How often a group that cannot be joined is tried again.
const JOIN_AGAIN_EVERY: Duration = Duration::from_secs(2);
/// A task that goes to another process first finishes and makes a checkpoint, for so long at most: the group waits for it.
const RELEASE_MAX: Duration = Duration::from_secs(60);
/// Longest wait for a client to leave the group, which gives up its tasks on the way.
const LEAVE_MAX: Duration = Duration::from_secs(150);
/// How often the group's client is asked whether it still finds a broker.
const ALIVE_EVERY: Duration = Duration::from_secs(30);
/// Longest wait for that answer.
const ALIVE_MAX: Duration = Duration::from_secs(5);
/// A task that somebody beside the group has taken is taken back no sooner.
const TAKE_BACK_EVERY: Duration = Duration::from_secs(30);

/// What the group has given to this process.
struct Member {
    pod: Arc<Pod>,
    topic: String,
    trouble: Trouble,
    tasks: Mutex<BTreeSet<u32>>,
}

impl Member {
    fn tasks(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks_in(&self, list: &TopicPartitionList) -> BTreeSet<u32> {
        let partitions = list.elements_for_topic(&self.topic);
        let numbers = partitions.iter().map(|element| u32::try_from(element.partition()));
        numbers.filter_map(Result::ok).collect()
    }

    /// The group gives these to somebody else once this returns.
    fn give_up(&self, gone: &BTreeSet<u32>, is_lost: bool) {
        self.tasks().retain(|task| !gone.contains(task));
        tracing::info!(tasks = ?gone, is_lost, "the group gives tasks to another process");
        if !is_lost {
            // Whoever has them next has no volume of theirs: the checkpoint is where it begins.
            await_drained(&self.pod, gone);
        }
        let held = self.pod.assignment();
        let kept = held
            .tasks_of(self.pod.context().ordinal)
            .filter(|task| !gone.contains(task));
        self.pod.take_here(held.generation + 1, kept);
        let deadline = Instant::now() + RELEASE_MAX;
        while self.pod.held().iter().any(|task| gone.contains(task)) && Instant::now() < deadline {
            std::thread::sleep(POLL);
            self.pod.reconcile();
        }
    }
}

impl ClientContext for Member {
    fn error(&self, error: KafkaError, reason: &str) {
        self.trouble.error(error, reason);
    }

    fn log(&self, level: RDKafkaLogLevel, kind: &str, words: &str) {
        self.trouble.log(level, kind, words);
    }
}

impl ConsumerContext for Member {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Revoke(list) => self.give_up(&self.tasks_in(list), consumer.assignment_lost()),
            Rebalance::Error(error) => tracing::error!(%error, "the group could not share the tasks out"),
            Rebalance::Assign(_) => {}
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            // Nothing is read here: the partitions stand for the tasks.
            if let Err(error) = consumer.pause(list) {
                tracing::debug!(%error, "the control topic could not be paused");
            }
            self.tasks().extend(self.tasks_in(list));
        }
    }
}

/// Is a member of the group until the pod has stopped.
pub(super) fn take_part(pod: &Arc<Pod>) {
    let mut told = None;
    while !(pod.is_stopping() && pod.is_stopped()) {
        // The control topic is there once the number of tasks is known.
        let joined = pod.task_count().map(|_| join(pod));
        match joined {
            Some(Ok(consumer)) => keep_in_step(pod, &consumer),
            Some(Err(stop)) => tell(pod, &mut told, &stop),
            None => {}
        }
        std::thread::sleep(if told.is_some() { JOIN_AGAIN_EVERY } else { POLL });
    }
}

fn join(pod: &Arc<Pod>) -> Result<Closing<Member>, Stop> {
    let context = pod.context();
    let settings = config::group_member(&context.job, &context.sink_connection()?);
    let topic = config::control_topic(&context.job.job_id);
    let member = Member {
        pod: Arc::clone(pod),
        topic: topic.clone(),
        trouble: Trouble::default(),
        tasks: Mutex::default(),
    };
    let consumer: BaseConsumer<Member> = client_config(&settings)
        .create_with_context(member)
        .map_err(|error| settings.access().unusable(&error))?;
    let subscribed = consumer.subscribe(&[&topic]);
    subscribed.map_err(|error| Stop::new(Reason::KafkaUnreachable, format!("joining the group of tasks: {error}")))?;
    tracing::info!(
        group = config::tasks_group(&context.job.job_id),
        "taking part in the group that shares the tasks out"
    );
    Ok(Closing::within(LEAVE_MAX, consumer))
}

/// Whether this client finds no broker where another one does, also when it was told them again: it never will.
fn is_dead(pod: &Pod, consumer: &BaseConsumer<Member>) -> bool {
    let topic = &consumer.context().topic;
    if consumer.fetch_metadata(Some(topic), ALIVE_MAX).is_ok() {
        return false;
    }
    let job = &pod.context().job;
    brokers::name_again(consumer.client(), &job.sink.bootstrap_servers.join(","));
    let Ok(connection) = pod.context().sink_connection() else {
        return false;
    };
    let settings = config::admin(&job.sink.bootstrap_servers, &job.job_id, &connection);
    let another: Result<BaseProducer, KafkaError> = client_config(&settings).create();
    let is_answered = another.is_ok_and(|another| another.client().fetch_metadata(Some(topic), ALIVE_MAX).is_ok());
    // Asked again: the brokers may have come back in between.
    is_answered && consumer.fetch_metadata(Some(topic), ALIVE_MAX).is_err()
}

/// Follows the group: what it gives is assigned here, in a generation above every committed position of it. Until the pod has
/// stopped, or this client is of no use any more.
fn keep_in_step(pod: &Arc<Pod>, consumer: &BaseConsumer<Member>) {
    let (mut told, mut taken, mut asked) = (None, None::<Instant>, Instant::now());
    while !(pod.is_stopping() && pod.is_stopped()) {
        if asked.elapsed() >= ALIVE_EVERY {
            if is_dead(pod, consumer) {
                tracing::warn!("the group's client finds no broker any more; another one joins");
                return;
            }
            asked = Instant::now();
        }
        if let Some(Err(error)) = consumer.poll(POLL) {
            tell(pod, &mut told, &problem(pod, consumer, &error));
        }
        let (given, held) = (consumer.context().tasks().clone(), pod.assignment());
        let here: BTreeSet<u32> = held.tasks_of(pod.context().ordinal).collect();
        let seen = pod.generation_seen();
        let is_overtaken = seen > held.generation && taken.is_none_or(|at| at.elapsed() >= TAKE_BACK_EVERY);
        if pod.is_stopping() || given == here && !is_overtaken {
            continue;
        }
        match highest_generation(pod, given.difference(&here)) {
            Ok(committed) => {
                pod.take_here(committed.max(seen).max(held.generation) + 1, given.into_iter());
                taken = Some(Instant::now());
                told = None;
                pod.set_problem(None);
            }
            Err(stop) => tell(pod, &mut told, &stop),
        }
    }
}

fn highest_generation<'a>(pod: &Pod, tasks: impl Iterator<Item = &'a u32>) -> Result<u64, Stop> {
    let mut highest = 0;
    for task in tasks {
        highest = highest.max(generation_of(pod.context(), *task)?);
    }
    Ok(highest)
}

fn await_drained(pod: &Pod, tasks: &BTreeSet<u32>) {
    // One that does not run has nothing to finish.
    let runs = |row: &TaskStatus| tasks.contains(&row.task) && answers(row.state);
    let held: Vec<u32> = (pod.status().tasks.iter())
        .filter(|row| runs(row))
        .map(|row| row.task)
        .collect();
    let id = format!("group-{}", pod.assignment().generation);
    let deadline = Instant::now() + RELEASE_MAX;
    loop {
        let drained = pod.operate(RequestKind::Drain, &id, Some(&held));
        let is_over = |phase: OperationPhase| phase != OperationPhase::InProgress;
        if drained.tasks.iter().all(|row| is_over(row.phase)) || pod.is_stopping() || Instant::now() >= deadline {
            return;
        }
        std::thread::sleep(POLL);
    }
}

fn problem(pod: &Pod, consumer: &BaseConsumer<Member>, error: &KafkaError) -> Stop {
    let job = &pod.context().job;
    let group = config::tasks_group(&job.job_id);
    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed) {
        return Access::new(&job.sink.security).no_group(&group, error);
    }
    let heard = consumer
        .context()
        .trouble
        .take()
        .map(|(_, words)| format!(" ({words})"));
    Stop::new(
        Reason::KafkaUnreachable,
        format!(
            "the group {group}, which shares the tasks out, does not answer: {error}{}; still trying",
            heard.unwrap_or_default()
        ),
    )
}

fn tell(pod: &Pod, told: &mut Option<Stop>, stop: &Stop) {
    if told.as_ref() != Some(stop) {
        tracing::error!(reason = stop.reason.as_str(), "{}", stop.message);
    }
    pod.set_problem(Some(stop.problem()));
    *told = Some(stop.clone());
}
