//! Where results, late events and dead letters go. Must not hold what is read.

#[cfg(feature = "k8s")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(feature = "k8s")]
use super::schema;
use super::{Empty, KafkaSasl, KafkaTls, SinkSecurity};

/// Where results go; exactly one member.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SinkSpec {
    /// A Kafka topic. Late events, dead letters and the job's own topics are on its cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaSink>,
}

/// A Kafka topic that results are written to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct KafkaSink {
    /// The topic; results of one group are in one of its partitions, in order.
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::topic"))]
    pub topic: String,
    /// Compression of what is written.
    #[serde(default)]
    pub compression: Compression,
    /// Which partition a result goes to.
    #[serde(default)]
    pub partitioner: Partitioner,
    /// Addresses (`host:port`) of some brokers. Default: the source's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::bootstrap_servers"))]
    pub bootstrap_servers: Option<Vec<String>>,
    /// TLS towards the brokers. Default: the source's, see `security`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<KafkaTls>,
    /// SASL towards the brokers. Default: the source's, see `security`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl: Option<KafkaSasl>,
    /// Where `tls` and `sasl` come from when they are not given here.
    #[serde(default)]
    pub security: SinkSecurity,
}

/// Compression of records written to Kafka.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
pub enum Compression {
    /// None.
    None,
    /// gzip.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    #[default]
    Zstd,
}

/// Which partition of its topic a result goes to. Either way those of one group are in one partition, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
pub enum Partitioner {
    /// By the result's key, as Kafka's own clients choose it.
    #[default]
    Key,
    /// By the task that puts it out, so that a transaction writes to one partition of the topic: results are visible
    /// sooner, see `docs/processor.md`. Some partitions stay empty when the topic has more of them than the job has
    /// tasks.
    Task,
}

/// Where records go that are not aggregated; exactly one member. Default: `{drop: {}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SideOutput {
    /// A topic on the sink's cluster; records keep key, value and headers and gain headers that say why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<SideTopic>,
    /// Dropped and counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop: Option<Empty>,
}

impl Default for SideOutput {
    fn default() -> Self {
        Self {
            kafka: None,
            drop: Some(Empty {}),
        }
    }
}

/// A topic on the sink's cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SideTopic {
    /// Name of the topic.
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::topic"))]
    pub topic: String,
}

/// What readers with `isolation.level=read_committed` can rely on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
pub enum Delivery {
    /// Every result once, whatever fails.
    #[default]
    ExactlyOnce,
    /// No transactions; after a failure results may come again.
    AtLeastOnce,
}
