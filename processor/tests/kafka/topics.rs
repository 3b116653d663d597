//! Topics of a test's job on its broker: made, changed, deleted. Must not produce or read.

use std::time::Duration;

use futures::executor::block_on;
use rdkafka::admin::{AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
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

    /// Gives the topic of dead letters one setting, beside those that it is made with.
    pub fn set_dead_letter_topic(&self, name: &str, value: &str) {
        let topic = format!("{}-dead", self.name);
        let config = AlterConfig::new(ResourceSpecifier::Topic(&topic))
            .set("retention.ms", "-1")
            .set(name, value);
        let results =
            block_on(self.admin().alter_configs([&config], &AdminOptions::new())).expect("the broker answers");
        assert!(results.iter().all(Result::is_ok), "{results:?}");
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
        let new = NewPartitions::new(topic, of_each + 1);
        let results =
            block_on(self.admin().create_partitions([&new], &AdminOptions::new())).expect("the broker answers");
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        self.look_at_partitions_again();
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
