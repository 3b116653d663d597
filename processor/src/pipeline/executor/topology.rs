//! The topics of a job as the brokers have them; what is missing is created but for the source.
//! Must not hold: what a task does about a problem.

use super::JobContext;
use crate::kafka::config;
use crate::kafka::topics::Topics;
use crate::pipeline::sink::{OutputTopic, SinkPlan};
use crate::state::recovery::{Reason, Stop};

/// The source topic and the topics written, as the brokers have them.
pub struct Topology {
    /// Partitions of the source topic: the number of tasks.
    pub source_partitions: u32,
    results: OutputTopic,
    late: Option<OutputTopic>,
    dead: Option<OutputTopic>,
}

impl Topology {
    /// Looks at every topic of the job; creates what is missing but for the source.
    pub fn observe(context: &JobContext) -> Result<Self, Stop> {
        let job = &context.job;
        let source = Topics::open(&config::admin(
            &job.source.bootstrap_servers,
            &job.job_id,
            &context.source_connection()?,
        ))?;
        let source_partitions = source.existing("spec.source.kafka.topics[0]", &job.source.topic)?;
        if source.settings(&job.source.topic)?.compacted {
            return Err(Stop::new(
                Reason::TopicCompacted,
                format!(
                    "spec.source.kafka.topics[0]: topic {} is compacted, so that records vanish which a replay needs; \
                     set its cleanup.policy to delete",
                    job.source.topic
                ),
            ));
        }
        let sink = Topics::open(&config::admin(
            &job.sink.bootstrap_servers,
            &job.job_id,
            &context.sink_connection()?,
        ))?;
        let control = config::control_topic(&job.job_id);
        let found = sink.ensure(
            "spec.jobId",
            &control,
            source_partitions,
            &config::control_topic_settings(),
        )?;
        if found != source_partitions {
            return Err(Stop::new(
                Reason::PartitionsChanged,
                format!(
                    "control topic {control} has {found} partitions, source topic {} has {source_partitions}: keys \
                     moved between partitions; give the topic its old number back or start a job with another jobId",
                    job.source.topic
                ),
            ));
        }
        if !sink.settings(&control)?.compacted {
            tracing::warn!(
                control,
                "the control topic is not compacted: positions vanish with its retention"
            );
        }
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
            results: output("spec.sink.kafka.topic", &job.sink.topic)?,
            late: side("spec.lateEvents.kafka.topic", &job.late_topic)?,
            dead: side("spec.deadLetters.kafka.topic", &job.dead_letter_topic)?,
        })
    }

    pub(super) fn sink_plan(&self, context: &JobContext, task: u32) -> SinkPlan {
        let job = &context.job;
        let source = (job.source.topic.as_str(), task);
        let side = (self.late.clone(), self.dead.clone());
        SinkPlan::new(
            &job.job_id,
            context.plan.window_names(),
            source,
            self.results.clone(),
            side,
        )
    }
}
