//! Where what an epoch publishes goes. Pure.
//! Must not hold: what is published.

use streamagg_crds::v1alpha1::Partitioner;

use super::{Headers, ResultEntry, SideEntry, SourceRecord, header};

/// What waits in the client is a second copy of the epoch: enough to keep the broker busy, no more. A record that is larger is
/// never taken.
pub const QUEUE_BYTES: usize = 32 << 20;

/// A topic that is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputTopic {
    /// Its name.
    pub name: String,
    /// Its partitions, at least one.
    pub partitions: u32,
    /// Largest record it takes, bytes.
    pub record_bytes_max: usize,
}

impl OutputTopic {
    pub(super) fn partition_of(&self, number: u32) -> i32 {
        i32::try_from(number % self.partitions.max(1)).unwrap_or(0)
    }
}

/// Where a task's outputs go.
#[derive(Clone, Debug)]
pub struct SinkPlan {
    /// Results.
    pub results: OutputTopic,
    /// Late events; dropped when absent.
    pub late: Option<OutputTopic>,
    /// Dead letters; dropped when absent.
    pub dead: Option<OutputTopic>,
    /// Records for the second stage, of a task of the first.
    pub shuffle: Option<OutputTopic>,
    /// Topic that the task reads, for the headers.
    pub input_topic: String,
    /// Its partition.
    pub partition: u32,
    /// Which partition of its topic a result goes to.
    pub partitioner: Partitioner,
    /// Headers of a result, by window.
    pub(super) window_headers: Vec<Headers>,
}

impl SinkPlan {
    /// The plan of one task.
    pub fn new(
        job_id: &str,
        window_names: &[String],
        (input_topic, partition): (&str, u32),
        results: OutputTopic,
        (late, dead): (Option<OutputTopic>, Option<OutputTopic>),
    ) -> Self {
        let window_headers = window_names
            .iter()
            .map(|window| vec![header("streamagg-job", job_id), header("streamagg-window", window)])
            .collect();
        Self {
            results,
            late,
            dead,
            shuffle: None,
            input_topic: input_topic.to_owned(),
            partition,
            partitioner: Partitioner::Key,
            window_headers,
        }
    }

    /// The same with another choice of partitions.
    pub fn partitioned_by(self, partitioner: Partitioner) -> Self {
        Self { partitioner, ..self }
    }

    pub(super) fn partition_of(&self, result: &ResultEntry) -> i32 {
        self.results.partition_of(match self.partitioner {
            Partitioner::Key => result.partition_hash & 0x7fff_ffff,
            Partitioner::Task => self.partition,
        })
    }

    /// The same with a topic for the second stage.
    pub fn shuffling_to(self, shuffle: Option<OutputTopic>) -> Self {
        Self { shuffle, ..self }
    }

    pub(super) fn bound_of(&self, topic: &str) -> usize {
        [
            Some(&self.results),
            self.shuffle.as_ref(),
            self.late.as_ref(),
            self.dead.as_ref(),
        ]
        .into_iter()
        .flatten()
        .find(|found| found.name == topic)
        .map_or(QUEUE_BYTES, |found| found.record_bytes_max.min(QUEUE_BYTES))
    }

    /// Lowers the bound of a topic that refused a record of at most its bound. `false`: it cannot be lowered further, or
    /// it is the topic between two stages: a guess there would cost many events.
    pub fn lower_bound(&mut self, topic: &str) -> bool {
        /// Below this, a refusal is not about size.
        const LEAST: usize = 4_096;
        for found in [Some(&mut self.results), self.late.as_mut(), self.dead.as_mut()]
            .into_iter()
            .flatten()
        {
            if found.name == topic && found.record_bytes_max > LEAST {
                found.record_bytes_max = (found.record_bytes_max / 2).max(LEAST);
                return true;
            }
        }
        false
    }

    pub(super) fn side_entry(&self, dead: bool, source: SourceRecord, own: Headers) -> SideEntry {
        let mut headers = source.headers;
        headers.extend(own);
        headers.push(header("streamagg-topic", &self.input_topic));
        headers.push(header("streamagg-partition", self.partition));
        headers.push(header("streamagg-offset", source.offset));
        SideEntry {
            dead,
            key: source.key,
            value: source.value,
            timestamp_ms: source.timestamp_ms,
            headers,
        }
    }
}
