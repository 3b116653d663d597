//! The topics of a job as the brokers have them; what is missing is created but for the source.
//! Must not hold: what a task does about a problem.

use std::sync::Arc;

use streamagg_crds::resolved::Resolved;

use super::JobContext;
use crate::kafka::config;
use crate::kafka::topics::Topics;
use crate::metrics::ErrorClass;
use crate::pipeline::shuffle::RECORD_BYTES_MAX;
use crate::pipeline::sink::{OutputTopic, SinkPlan};
use crate::pipeline::stage::{Role, Stage, task_count};
use crate::pipeline::worker::Setup;
use crate::state::recovery::{Reason, Stop};

/// The source topics and the topics written, as the brokers have them.
pub struct Topology {
    source_partitions: u32,
    control_bytes_max: usize,
    /// The topic between two stages.
    shuffle: Option<OutputTopic>,
    results: OutputTopic,
    late: Option<OutputTopic>,
    dead: Option<OutputTopic>,
}

/// Least `max.message.bytes` of the topic between two stages: what every record but a single large partial fits into.
const SHUFFLE_RECORD_BYTES_LEAST: usize = 2 * RECORD_BYTES_MAX;

const FIELD: &str = "spec.source.kafka.topics";

/// Partitions of all source topics together.
fn source_partitions(context: &JobContext) -> Result<u32, Stop> {
    let job = &context.job;
    let source = source(context)?;
    let mut counts = Vec::with_capacity(job.source.topics.len());
    for topic in &job.source.topics {
        counts.push(source.existing(FIELD, topic)?);
    }
    refuse_compacted(job, &source)?;
    if counts.windows(2).any(|pair| pair[0] != pair[1]) {
        let found = job.source.topics.iter().zip(&counts);
        let found: Vec<String> = found.map(|(topic, count)| format!("{topic} has {count}")).collect();
        let message = format!(
            "{FIELD}: several topics need equally many partitions, so that the partitions keep their tasks when some are \
             added: {}; add partitions to those that have fewer; tried again",
            found.join(", ")
        );
        return Err(Stop::new(Reason::TopicUnsuitable, message));
    }
    Ok(counts.iter().sum())
}

fn refuse_compacted(job: &Resolved, source: &Topics) -> Result<(), Stop> {
    for topic in &job.source.topics {
        if source.settings(topic)?.compacted {
            let message = format!(
                "{FIELD}: topic {topic} is compacted, so that records vanish which a replay needs; set its cleanup.policy \
                 to delete"
            );
            return Err(Stop::new(Reason::TopicCompacted, message));
        }
    }
    Ok(())
}

/// Partitions of all source topics together, as they are now, whatever else is wrong with them; `None` where a topic has
/// become compacted, which is not known while the brokers do not say.
pub fn count_source_partitions(context: &JobContext) -> Result<Option<u32>, Stop> {
    let source = source(context)?;
    if refuse_compacted(&context.job, &source).is_err_and(|stop| stop.reason == Reason::TopicCompacted) {
        return Ok(None);
    }
    let topics = context.job.source.topics.iter();
    topics
        .map(|topic| source.existing(FIELD, topic))
        .sum::<Result<u32, Stop>>()
        .map(Some)
}

/// The topic between two stages: created or, if it is there, found to keep what it is given.
fn shuffle(job: &Resolved, sink: &Topics, partitions: u32) -> Result<OutputTopic, Stop> {
    const FIELD: &str = "spec.source.partitioning.any";
    let name = config::shuffle_topic(&job.job_id);
    let found = sink.ensure(FIELD, &name, partitions, &config::SHUFFLE_TOPIC_SETTINGS)?;
    if found != partitions {
        return Err(Stop::new(
            Reason::PartitionsChanged,
            format!(
                "{FIELD}.shufflePartitions is {partitions}, and topic {name} has {found} partitions: the number is fixed \
                 for the life of a job; give the field this value, or start a job with another jobId"
            ),
        ));
    }
    let settings = sink.settings(&name)?;
    let wrong = if settings.compacted {
        Some("it is compacted: set its cleanup.policy to delete")
    } else if settings.retention_ms.is_some() {
        Some("it has a retention.ms: set it to -1")
    } else if settings.retention_bytes.is_some() {
        Some("it has a retention.bytes: set it to -1")
    } else if settings.record_bytes_max < SHUFFLE_RECORD_BYTES_LEAST {
        Some("its max.message.bytes is below 524288: raise it, 16777216 is what the job gives it")
    } else {
        None
    };
    match wrong {
        Some(wrong) => Err(Stop::new(
            Reason::TopicUnsuitable,
            format!("topic {name} between the stages would lose events, for {wrong}; tried again"),
        )),
        None => Ok(OutputTopic {
            name,
            partitions,
            record_bytes_max: settings.record_bytes_max,
        }),
    }
}

/// The topic of committed positions: a partition for each task. Answers the largest batch that it takes.
fn control(job: &Resolved, sink: &Topics, source_partitions: u32) -> Result<usize, Stop> {
    let tasks = task_count(source_partitions, job.source.shuffle_partitions);
    let control = config::control_topic(&job.job_id);
    let mut found = sink.ensure("spec.jobId", &control, tasks, &config::control_topic_settings())?;
    if found < tasks && job.source.shuffle_partitions.is_some() {
        // Partitions were added to the source: their tasks come behind all others.
        found = sink.grow(&control, tasks)?;
    }
    if found != tasks {
        if !has_records(sink, &control, found)? {
            return Err(control_never_used(&control, found, tasks));
        }
        let topic = job.source.topics.join(" and ");
        let message = match job.source.shuffle_partitions {
            None => format!(
                "control topic {control} has {found} partitions, source topic {topic} has {source_partitions}: keys moved \
                 between partitions, and Kafka takes none away; start a job with another jobId"
            ),
            Some(shuffle) => format!(
                "control topic {control} has {found} partitions and {shuffle} tasks of the second stage, source topic \
                 {topic} has only {source_partitions}: it is not the topic that was read; start a job with another jobId"
            ),
        };
        return Err(Stop::new(Reason::PartitionsChanged, message));
    }
    let settings = sink.settings(&control)?;
    if settings.deleted && (settings.retention_ms.is_some() || settings.retention_bytes.is_some()) {
        let message = format!(
            "control topic {control} would lose committed positions with its retention: set its cleanup.policy to compact, \
             and nothing else; tried again"
        );
        return Err(Stop::new(Reason::TopicUnsuitable, message));
    }
    Ok(settings.record_bytes_max)
}

/// A control topic with another number of partitions that no task ever wrote to: no key has moved. Most likely a user made it.
fn control_never_used(control: &str, found: u32, tasks: u32) -> Stop {
    let what_to_do = if found < tasks {
        "add partitions to it, or delete it, then it is created with so many"
    } else {
        "delete it, then it is created with so many"
    };
    let message = format!(
        "spec.jobId: control topic {control} has {found} partitions and needs {tasks}, one for each task; nothing was ever \
         written to it: {what_to_do}; tried again"
    );
    Stop::new(Reason::TopicUnsuitable, message)
}

/// The logs that the tasks of a job read.
pub(super) struct Inputs<'a> {
    context: &'a JobContext,
    source: Topics,
    sink: Topics,
}

impl<'a> Inputs<'a> {
    pub fn open(context: &'a JobContext) -> Result<Self, Stop> {
        Ok(Self {
            source: source(context)?,
            sink: sink(context)?,
            context,
        })
    }

    /// First offset of what a task reads.
    pub fn start_of(&self, role: Role) -> Result<i64, Stop> {
        let cluster = match role.stage {
            Stage::Whole | Stage::Combine => &self.source,
            Stage::Window => &self.sink,
        };
        let (topic, partition) = config::input(&self.context.job, role);
        cluster.start_of(&topic, partition)
    }
}

/// Whether anything was ever written between the stages.
pub(super) fn shuffle_has_records(context: &JobContext) -> Result<bool, Stop> {
    let job = &context.job;
    let partitions = job.source.shuffle_partitions.unwrap_or(0);
    has_records(&sink(context)?, &config::shuffle_topic(&job.job_id), partitions)
}

/// Whether anything was ever written to a topic, also if it is gone.
fn has_records(topics: &Topics, topic: &str, partitions: u32) -> Result<bool, Stop> {
    for partition in 0..partitions {
        if topics.end_of(topic, partition)? > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Deletes what no checkpoint of a window task needs of the topic between the stages: below `offset` every base of a
/// start-up, local state included, is behind it. Failing is no harm but for the room; it is tried with the next checkpoint.
pub(super) async fn trim(context: &JobContext, task: u32, offset: i64) {
    let role = context.role(task);
    if role.stage != Stage::Window {
        return;
    }
    let name = config::shuffle_topic(&context.job.job_id);
    let trimmed = match sink(context) {
        Ok(sink) => sink.delete_before(&name, role.partition, offset).await,
        Err(stop) => Err(stop),
    };
    match trimmed {
        Ok(()) => tracing::info!(task, topic = name, offset, "topic between the stages trimmed"),
        Err(stop) => {
            tracing::error!(
                task,
                topic = name,
                reason = stop.reason.as_str(),
                "ShuffleNotTrimmed: the topic between the stages grows, tried again with the next checkpoint: {}",
                stop.message
            );
            context.metrics.error(task, ErrorClass::Retry, "ShuffleNotTrimmed", 1);
        }
    }
}

fn source(context: &JobContext) -> Result<Topics, Stop> {
    let job = &context.job;
    Topics::open(&config::admin(
        &job.source.bootstrap_servers,
        &job.job_id,
        &context.source_connection()?,
    ))
}

fn sink(context: &JobContext) -> Result<Topics, Stop> {
    let job = &context.job;
    Topics::open(&config::admin(
        &job.sink.bootstrap_servers,
        &job.job_id,
        &context.sink_connection()?,
    ))
}

impl Topology {
    /// Looks at every topic of the job; creates what is missing but for the source.
    pub fn observe(context: &JobContext) -> Result<Self, Stop> {
        let job = &context.job;
        let source_partitions = source_partitions(context)?;
        let sink = sink(context)?;
        let shuffle = (job.source.shuffle_partitions)
            .map(|partitions| shuffle(job, &sink, partitions))
            .transpose()?;
        let control_bytes_max = control(job, &sink, source_partitions)?;
        let output = |field: &str, name: &str| -> Result<OutputTopic, Stop> {
            let partitions = sink.ensure(field, name, source_partitions, &config::OUTPUT_TOPIC_SETTINGS)?;
            let settings = sink.settings(name)?;
            let record_bytes_max = settings.record_bytes_max;
            if let Some(retention_ms) = settings.retention_ms {
                tracing::warn!(
                    topic = name,
                    retention_ms,
                    "results carry the time of their window: the broker deletes those older than the topic's \
                     retention.ms, also when they were only just written"
                );
            }
            Ok(OutputTopic {
                name: name.to_owned(),
                partitions,
                record_bytes_max,
            })
        };
        let side = |field: &str, name: &Option<String>| name.as_ref().map(|name| output(field, name)).transpose();
        Ok(Self {
            source_partitions,
            control_bytes_max,
            shuffle,
            results: output("spec.sink.kafka.topic", &job.sink.topic)?,
            late: side("spec.lateEvents.kafka.topic", &job.late_topic)?,
            dead: side("spec.deadLetters.kafka.topic", &job.dead_letter_topic)?,
        })
    }

    /// Number of tasks of the job.
    pub fn task_count(&self) -> u32 {
        task_count(self.source_partitions, self.shuffle_partitions())
    }

    fn shuffle_partitions(&self) -> Option<u32> {
        self.shuffle.as_ref().map(|topic| topic.partitions)
    }

    /// Partitions of the topic that a task reads.
    pub(super) fn input_partitions(&self, role: Role) -> u32 {
        match role.stage {
            Stage::Whole | Stage::Combine => self.source_partitions,
            Stage::Window => self.shuffle_partitions().unwrap_or(0),
        }
    }

    pub(super) fn setup(&self, context: &JobContext, role: Role) -> Setup {
        Setup {
            plan: Arc::clone(&context.plan),
            role,
            sources: self.source_partitions,
            shuffle_partitions: self.shuffle_partitions().unwrap_or(0),
        }
    }

    /// Bytes that a batch of records may have, before it is compressed: what every topic takes that is written. Of a larger
    /// one the broker says that a record is too large.
    pub fn batch_bytes(&self) -> usize {
        /// What a batch has beside its records.
        const FRAME_BYTES: usize = 256;
        let others = [&self.shuffle, &self.late, &self.dead].into_iter().flatten();
        let outputs = others.chain([&self.results]).map(|topic| topic.record_bytes_max);
        let least = outputs.fold(self.control_bytes_max, usize::min);
        least.saturating_sub(FRAME_BYTES)
    }

    pub(super) fn sink_plan(&self, context: &JobContext, role: Role) -> SinkPlan {
        let job = &context.job;
        let (input_topic, partition) = config::input(job, role);
        let side = (self.late.clone(), self.dead.clone());
        SinkPlan::new(
            &job.job_id,
            context.plan.window_names(),
            (&input_topic, partition),
            self.results.clone(),
            side,
        )
        .partitioned_by(job.sink.partitioner)
        .shuffling_to(self.shuffle.clone().filter(|_| role.stage == Stage::Combine))
    }
}
