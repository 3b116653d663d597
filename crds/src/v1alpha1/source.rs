//! What a job reads. Must not hold where results go.

use std::collections::BTreeMap;

#[cfg(feature = "k8s")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(feature = "k8s")]
use super::schema;
use super::{Empty, KafkaSasl, KafkaTls};
use crate::value::{Duration, Instant};

/// What to read and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SourceSpec {
    /// A Kafka topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaSource>,
    /// How a record's value is read.
    #[serde(default)]
    pub format: FormatSpec,
    /// How the topic's partitions relate to the group key.
    pub partitioning: PartitioningSpec,
}

/// A Kafka topic to read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct KafkaSource {
    /// Addresses (`host:port`) of some brokers; the rest is learnt from them.
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::bootstrap_servers"))]
    pub bootstrap_servers: Vec<String>,
    /// Topics to read. With `partitioning: {byKey: {}}` exactly one; with `{any: {}}` several, each with the same number of
    /// partitions.
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::topics"))]
    pub topics: Vec<String>,
    /// Where the first run begins; resolved once, when the job is born. Default: `{earliest: {}}`.
    #[serde(default)]
    pub start_from: StartFrom,
    /// What happens when records that were not yet read are gone from the topic.
    #[serde(default)]
    pub on_truncated: OnTruncated,
    /// Most records that each task, which is a partition of the topic, reads in a second. A replay after a restart is not
    /// bound by it. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(range(min = 1, max = 1_000_000_000)))]
    pub max_records_per_second: Option<i64>,
    /// Lets a task that is too far behind pass over a share of the records instead of falling further behind; every result
    /// then says in `keptShare` which share of the records was kept. Default: no record is passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_shedding: Option<LoadSheddingSpec>,
    /// TLS towards the brokers. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<KafkaTls>,
    /// SASL towards the brokers. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl: Option<KafkaSasl>,
    /// Settings of librdkafka's consumer, from an allow-list; values are strings.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::properties"))]
    pub properties: BTreeMap<String, String>,
}

/// When a task passes over records, and how many at most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct LoadSheddingSpec {
    /// How long ago the last record read was appended when a task counts as too far behind: it then halves the share of the
    /// records it keeps, again and again until it catches up, and doubles it when it is less than half as far behind.
    #[serde(default = "LoadSheddingSpec::when_behind_default")]
    pub when_behind: Duration,
    /// The share of the records that is kept at least: 0.001 to 0.5.
    #[serde(default = "LoadSheddingSpec::keep_at_least_default")]
    pub keep_at_least: f64,
}

impl LoadSheddingSpec {
    fn when_behind_default() -> Duration {
        Duration::from_ms(60_000)
    }

    fn keep_at_least_default() -> f64 {
        0.1
    }
}

/// Where the first run of a job begins; exactly one member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct StartFrom {
    /// At the oldest record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earliest: Option<Empty>,
    /// After the newest record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<Empty>,
    /// At the first record whose Kafka timestamp is not before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Instant>,
}

impl Default for StartFrom {
    fn default() -> Self {
        Self {
            earliest: Some(Empty {}),
            latest: None,
            timestamp: None,
        }
    }
}

/// What happens when records that were not yet read are gone from the topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
pub enum OnTruncated {
    /// The task stops until a person decides.
    #[default]
    Stop,
    /// The task goes on behind the gap.
    Skip,
}

/// How a record's value is read; exactly one member. Default: `{json: {strict: false}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct FormatSpec {
    /// One JSON object a record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<JsonFormat>,
}

impl Default for FormatSpec {
    fn default() -> Self {
        Self {
            json: Some(JsonFormat::default()),
        }
    }
}

/// JSON records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct JsonFormat {
    /// Whether a record that is broken outside the fields in use is a dead letter too.
    #[serde(default)]
    pub strict: bool,
}

/// How the topic's partitions relate to the group key; exactly one member.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct PartitioningSpec {
    /// All events of a group are in one partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_key: Option<Empty>,
    /// Events of a group may be in any partition: they are pre-aggregated where they come in and meet in tasks of a
    /// second stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub any: Option<AnyPartitioning>,
}

/// Events of a group may be in any partition.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AnyPartitioning {
    /// Tasks of the second stage, each with a partition of the topic between the stages; fixed for the life of the job.
    #[serde(default = "AnyPartitioning::shuffle_partitions_default")]
    #[cfg_attr(feature = "k8s", schemars(range(min = 1, max = 1024)))]
    pub shuffle_partitions: u32,
}

impl AnyPartitioning {
    fn shuffle_partitions_default() -> u32 {
        8
    }
}
