//! Topics of a job: that they are there, how many partitions they have, how large a record they take.
//! Must not hold: anything about a topic's content.

use std::time::Duration;

use futures::executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::access::Right;
use super::consumer::{client_config, stop_of};
use super::settings::Settings;
use super::trouble;
use crate::state::recovery::{Reason, Stop};

/// Longest wait for the cluster's controller.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest wait for the first answer, before it is asked why there is none.
const FIRST_TIMEOUT: Duration = Duration::from_secs(4);
/// How often a topic just created is looked for before it is given up.
const CREATED_LOOKS_MAX: u32 = 50;
/// A record's bound where the broker does not tell: Kafka's default less what a batch adds.
const RECORD_BYTES_DEFAULT: usize = 1_000_000;

/// Administration of one cluster.
pub struct Topics {
    admin: AdminClient<DefaultClientContext>,
    settings: Settings,
}

/// What a topic's settings say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    /// Records with the same key replace each other.
    pub compacted: bool,
    /// Records vanish with age or size. Where neither this nor the other holds, the policy is unknown.
    pub deleted: bool,
    /// Largest record, bytes.
    pub record_bytes_max: usize,
    /// How long records are kept, by their own timestamps; absent: without end, or unknown.
    pub retention_ms: Option<u64>,
    /// How many bytes of a partition are kept; absent: all, or unknown.
    pub retention_bytes: Option<u64>,
}

impl Topics {
    /// Connects.
    pub fn open(settings: &Settings) -> Result<Self, Stop> {
        let admin = client_config(settings)
            .create()
            .map_err(|error| settings.access().unusable(&error))?;
        Ok(Self {
            admin,
            settings: settings.clone(),
        })
    }

    fn unreachable(&self, error: &dyn std::fmt::Display) -> Stop {
        let servers = self.settings.servers();
        Stop::new(
            Reason::KafkaUnreachable,
            format!("no answer from the brokers at {servers}: {error}; still trying"),
        )
    }

    /// What the brokers say of one topic. Why none answers is asked for soon: a password that is wrong stays wrong.
    fn metadata(&self, topic: &str) -> Result<Metadata, Stop> {
        let client = self.admin.inner();
        if let Ok(metadata) = client.fetch_metadata(Some(topic), FIRST_TIMEOUT) {
            return Ok(metadata);
        }
        let heard = trouble::listen(&self.settings)?;
        let servers = self.settings.servers();
        if let Some((failure, words)) = &heard
            && let Some(stop) = self.settings.access().refused(*failure, servers, words)
        {
            return Err(stop);
        }
        client
            .fetch_metadata(Some(topic), ADMIN_TIMEOUT)
            .map_err(|error| match heard {
                Some((_, words)) => self.unreachable(&words),
                None => self.unreachable(&error),
            })
    }

    /// Number of partitions, or `None` when there is no such topic.
    pub fn partitions(&self, topic: &str) -> Result<Option<u32>, Stop> {
        let metadata = self.metadata(topic)?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
            return Ok(None);
        };
        if let Some(error) = found.error() {
            let code = RDKafkaErrorCode::from(error);
            return match (code, stop_of(code, Right::Describe, topic, self.settings.access())) {
                (RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic, _) => Ok(None),
                (_, Some(stop)) => Err(stop),
                (_, None) => Err(self.unreachable(&code)),
            };
        }
        Ok(u32::try_from(found.partitions().len()).ok().filter(|count| *count > 0))
    }

    /// Number of partitions of a topic that must be there.
    pub fn existing(&self, field: &str, topic: &str) -> Result<u32, Stop> {
        self.partitions(topic)?
            .ok_or_else(|| missing(field, topic, "create it or correct the name"))
    }

    /// Number of partitions of a topic that is created when it is not there.
    pub fn ensure(
        &self,
        field: &str,
        topic: &str,
        partitions: u32,
        settings: &[(&'static str, &'static str)],
    ) -> Result<u32, Stop> {
        if let Some(found) = self.partitions(topic)? {
            return Ok(found);
        }
        let count = i32::try_from(partitions).unwrap_or(i32::MAX);
        // -1: the broker's own default.
        let mut new = NewTopic::new(topic, count, TopicReplication::Fixed(-1));
        for (name, value) in settings {
            new = new.set(name, value);
        }
        let options = AdminOptions::new()
            .operation_timeout(Some(ADMIN_TIMEOUT))
            .request_timeout(Some(ADMIN_TIMEOUT));
        let results = block_on(self.admin.create_topics([&new], &options)).map_err(|error| self.unreachable(&error))?;
        match results.into_iter().next() {
            Some(Ok(_)) | None => tracing::info!(topic, partitions, "topic created"),
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {}
            Some(Err((_, code))) => {
                if let Some(stop) = stop_of(code, Right::Create, topic, self.settings.access()) {
                    return Err(stop);
                }
                return Err(missing(
                    field,
                    topic,
                    &format!("creating it failed ({code}): create it by hand"),
                ));
            }
        }
        for _ in 0..CREATED_LOOKS_MAX {
            if let Some(found) = self.partitions(topic)? {
                return Ok(found);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(missing(
            field,
            topic,
            "it was created but does not show: see the broker's log",
        ))
    }

    /// Adds partitions to a topic that is there, until it has so many. Answers how many it has.
    pub fn grow(&self, topic: &str, partitions: u32) -> Result<u32, Stop> {
        let count = usize::try_from(partitions).unwrap_or(usize::MAX);
        let options = AdminOptions::new().request_timeout(Some(ADMIN_TIMEOUT));
        let results = block_on((self.admin).create_partitions([&NewPartitions::new(topic, count)], &options))
            .map_err(|error| self.unreachable(&error))?;
        if let Some(Err((_, code))) = results.into_iter().next() {
            if let Some(stop) = stop_of(code, Right::Create, topic, self.settings.access()) {
                return Err(stop);
            }
            // Another pod was faster, or it cannot be: the number that is found says which.
            tracing::warn!(topic, partitions, %code, "partitions not added");
        }
        for _ in 0..CREATED_LOOKS_MAX {
            if let Some(found) = self.partitions(topic)?.filter(|found| *found >= partitions) {
                return Ok(found);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(self.partitions(topic)?.unwrap_or(0))
    }

    /// One past the last record that was ever written to a partition.
    pub fn end_of(&self, topic: &str, partition: u32) -> Result<i64, Stop> {
        Ok(self.watermarks(topic, partition)?.1)
    }

    /// The first record of a partition that is still there.
    pub fn start_of(&self, topic: &str, partition: u32) -> Result<i64, Stop> {
        Ok(self.watermarks(topic, partition)?.0)
    }

    fn watermarks(&self, topic: &str, partition: u32) -> Result<(i64, i64), Stop> {
        let partition = i32::try_from(partition).unwrap_or(i32::MAX);
        let watermarks = self.admin.inner().fetch_watermarks(topic, partition, ADMIN_TIMEOUT);
        watermarks.map_err(|error| self.unreachable(&error))
    }

    /// Deletes the records of a partition below `offset`; those that are gone already are no failure.
    pub async fn delete_before(&self, topic: &str, partition: u32, offset: i64) -> Result<(), Stop> {
        let mut list = TopicPartitionList::new();
        let partition = i32::try_from(partition).unwrap_or(i32::MAX);
        list.add_partition_offset(topic, partition, Offset::Offset(offset))
            .map_err(|error| self.unreachable(&error))?;
        let options = AdminOptions::new().request_timeout(Some(ADMIN_TIMEOUT));
        let results = (self.admin.delete_records(&list, &options).await).map_err(|error| self.unreachable(&error))?;
        for element in results.elements() {
            match element.error() {
                Ok(()) | Err(KafkaError::OffsetFetch(RDKafkaErrorCode::OffsetOutOfRange)) => {}
                Err(error) => {
                    let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
                    let refused = stop_of(code, Right::Delete, topic, self.settings.access());
                    return Err(refused.unwrap_or_else(|| self.unreachable(&error)));
                }
            }
        }
        Ok(())
    }

    /// Settings of a topic; defaults where this user may not read them.
    pub fn settings(&self, topic: &str) -> Result<TopicSettings, Stop> {
        let mut found = TopicSettings {
            compacted: false,
            deleted: false,
            record_bytes_max: RECORD_BYTES_DEFAULT,
            retention_ms: None,
            retention_bytes: None,
        };
        let options = AdminOptions::new().request_timeout(Some(ADMIN_TIMEOUT));
        let described = block_on(
            self.admin
                .describe_configs([&ResourceSpecifier::Topic(topic)], &options),
        );
        let resource = match described.map(|results| results.into_iter().next()) {
            Ok(Some(Ok(resource))) => resource,
            Ok(Some(Err(code))) => {
                tracing::warn!(topic, %code, "topic settings not readable, defaults assumed");
                return Ok(found);
            }
            Ok(None) => return Ok(found),
            Err(KafkaError::AdminOp(code)) => return Err(self.unreachable(&code)),
            Err(error) => return Err(self.unreachable(&error)),
        };
        let value = |name: &str| resource.get(name).and_then(|entry| entry.value.clone());
        let policy = value("cleanup.policy").unwrap_or_default();
        (found.compacted, found.deleted) = (policy.contains("compact"), policy.contains("delete"));
        if let Some(bytes) = value("max.message.bytes").and_then(|text| text.parse().ok()) {
            found.record_bytes_max = bytes;
        }
        // −1, for ever, does not parse.
        found.retention_ms = value("retention.ms").and_then(|text| text.parse().ok());
        found.retention_bytes = value("retention.bytes").and_then(|text| text.parse().ok());
        Ok(found)
    }
}

fn missing(field: &str, topic: &str, what_to_do: &str) -> Stop {
    Stop::new(
        Reason::TopicMissing,
        format!("{field}: topic {topic} does not exist; {what_to_do}"),
    )
}
