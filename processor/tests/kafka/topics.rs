//! Topics of a test's job on its broker: made, changed, deleted. Must not produce or read.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::executor::block_on;
use rdkafka::admin::{
    AdminOptions, AlterConfig, ConfigSource, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::rig::{Job, PATIENCE, eventually};

impl Job {
    /// Whether the broker has a topic.
    pub fn has_topic(&self, topic: &str) -> bool {
        let admin = self.admin();
        let metadata = admin
            .inner()
            .fetch_metadata(None, PATIENCE)
            .expect("the broker answers");
        metadata.topics().iter().any(|found| found.name() == topic)
    }

    pub fn create_topic(&self, topic: &str) {
        self.create_topic_with(topic, self.partitions, &[]);
    }

    pub fn create_topic_with(&self, topic: &str, partitions: u32, settings: &[(&str, &str)]) {
        let count = i32::try_from(partitions).expect("few");
        // -1: as many replicas as the brokers have by default.
        let mut new = NewTopic::new(topic, count, TopicReplication::Fixed(-1));
        for (name, value) in settings {
            new = new.set(name, value);
        }
        let results = block_on(self.admin().create_topics([&new], &AdminOptions::new())).expect("the broker answers");
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }

    /// The same job with a topic of late events.
    pub fn with_late_topic(mut self) -> Self {
        self.more.spec = format!("\n  lateEvents: {{kafka: {{topic: {}-late}}}}", self.name).leak();
        self
    }

    /// Gives the topic of dead letters one setting, beside those that it is made with.
    pub fn set_dead_letter_topic(&self, name: &str, value: &str) {
        self.set_topic(&format!("{}-dead", self.name), &[("retention.ms", "-1"), (name, value)]);
    }

    /// Gives a topic these settings, and the broker's defaults for all others.
    pub fn set_topic(&self, topic: &str, settings: &[(&str, &str)]) {
        let mut config = AlterConfig::new(ResourceSpecifier::Topic(topic));
        for (name, value) in settings {
            config = config.set(name, value);
        }
        let results =
            block_on(self.admin().alter_configs([&config], &AdminOptions::new())).expect("the broker answers");
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }

    /// The settings that a topic was given: none of those that it has because its broker does.
    pub fn settings_of(&self, topic: &str) -> BTreeMap<String, String> {
        let described = block_on(
            self.admin()
                .describe_configs([&ResourceSpecifier::Topic(topic)], &AdminOptions::new()),
        );
        let described = described.expect("the broker answers").remove(0);
        let entries = described.expect("the topic is there").entries.into_iter();
        let own = entries.filter(|entry| entry.source == ConfigSource::DynamicTopic);
        own.map(|entry| (entry.name, entry.value.unwrap_or_default())).collect()
    }

    pub fn partitions_of(&self, topic: &str) -> usize {
        let admin = self.admin();
        let metadata = admin.inner().fetch_metadata(Some(topic), PATIENCE);
        let metadata = metadata.expect("the broker answers");
        metadata.topics().iter().map(|topic| topic.partitions().len()).sum()
    }

    pub fn delete_topic(&self, topic: &str) {
        block_on(self.admin().delete_topics(&[topic], &AdminOptions::new())).expect("the broker answers");
        eventually("the topic is gone", || {
            let metadata = self
                .admin()
                .inner()
                .fetch_metadata(None, Duration::from_secs(5))
                .map_err(|e| e.to_string())?;
            let there = metadata.topics().iter().any(|found| found.name() == topic);
            if there { Err("still there".to_owned()) } else { Ok(()) }
        });
    }

    /// Adds a partition to the source topic; what is produced from here on goes there, too.
    pub fn add_partition(&mut self) {
        for topic in &self.topics.clone() {
            self.add_partition_to(topic);
        }
    }

    /// A partition more for one of the job's topics.
    pub fn add_partition_to(&mut self, topic: &str) {
        let of_each = self.partitions as usize / self.topics.len();
        self.partitions += 1;
        self.set_partitions(topic, of_each + 1);
        self.look_at_partitions_again();
    }

    /// Adds partitions to any topic, until it has so many.
    pub fn set_partitions(&self, topic: &str, partitions: usize) {
        let new = NewPartitions::new(topic, partitions);
        let results =
            block_on(self.admin().create_partitions([&new], &AdminOptions::new())).expect("the broker answers");
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }

    /// First offset and end of a partition.
    pub fn offsets(&self, topic: &str, partition: u32) -> (i64, i64) {
        let partition = i32::try_from(partition).expect("few");
        let admin = self.admin();
        let found = admin.inner().fetch_watermarks(topic, partition, PATIENCE);
        found.expect("the broker answers")
    }

    pub fn delete_records_before(&self, partition: i32, offset: i64) {
        self.delete_records_of(&self.name, partition, offset);
    }

    pub fn delete_records_of(&self, topic: &str, partition: i32, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset))
            .expect("an offset");
        block_on(self.admin().delete_records(&list, &AdminOptions::new())).expect("the broker answers");
    }
}
