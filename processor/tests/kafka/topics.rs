//! Topics of a test's job on its broker: made, changed, deleted. Must not produce or read.

use std::time::Duration;

use futures::executor::block_on;
use rdkafka::admin::{AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
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
        let count = i32::try_from(self.partitions).expect("few");
        let new = NewTopic::new(topic, count, TopicReplication::Fixed(1));
        let results = block_on(self.admin().create_topics([&new], &AdminOptions::new())).expect("the broker answers");
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }

    /// Gives a topic of results one setting, beside those that it is made with.
    pub fn set_results_topic(&self, name: &str, value: &str) {
        let topic = format!("{}-out", self.name);
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

    pub fn delete_records_before(&self, partition: i32, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.name, partition, Offset::Offset(offset))
            .expect("an offset");
        block_on(self.admin().delete_records(&list, &AdminOptions::new())).expect("the broker answers");
    }
}
