//! What is expected of a job and what a read_committed reader finds. Shares nothing with the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;

use super::rig::{Event, Job, PATIENCE, WATERMARK_BOUND_MS, WINDOW_MS, eventually};

impl Job {
    /// Count and sum of key `k{key}` in the window that begins there, of one partition.
    pub fn open_window(&self, start_ms: i64, key: u32) -> (i64, i64) {
        let log = self.log.lock().expect("not poisoned");
        let events = log.get(&0).into_iter().flatten();
        let inside = events.filter(|event| event.1 == key && event.0.div_euclid(WINDOW_MS) * WINDOW_MS == start_ms);
        inside.fold((0, 0), |(count, sum), event| (count + 1, sum + event.2))
    }

    /// Results are expected of these events, too, which are in partition 0.
    pub(super) fn expect(&self, events: &[Event]) {
        let mut log = self.log.lock().expect("not poisoned");
        log.entry(0).or_default().extend(events);
    }

    /// Events that meet in windows, and how far event time has come for them: each partition by itself or, with two
    /// stages, all of them as far as the slowest. Nothing is known of time in a partition without events.
    fn meeting(&self) -> Vec<(i64, Vec<Event>)> {
        let log = self.log.lock().expect("not poisoned");
        let newest = |events: &Vec<Event>| events.iter().map(|event| event.0).max();
        if self.shuffle_partitions.is_none() {
            let alone = log
                .values()
                .filter_map(|events| Some((newest(events)?, events.clone())));
            return alone.collect();
        }
        let slowest = log.values().filter_map(newest).min();
        let together = |slowest| (slowest, log.values().flatten().copied().collect());
        slowest.map(together).into_iter().collect()
    }

    /// Result lines that must be there, once each: window sums from scratch. `ended`: of all windows, also of those that
    /// no event has closed.
    pub fn expected(&self, ended: bool) -> BTreeSet<String> {
        let mut expected = BTreeSet::new();
        for (newest, events) in self.meeting() {
            let mut windows: BTreeMap<(i64, u32), (i64, i64)> = BTreeMap::new();
            for (time, key, value) in &events {
                let window = windows
                    .entry((time.div_euclid(WINDOW_MS) * WINDOW_MS, *key))
                    .or_default();
                window.0 += 1;
                window.1 += value;
            }
            for ((start, key), (count, sum)) in windows {
                if ended || start + WINDOW_MS <= newest - WATERMARK_BOUND_MS {
                    expected.insert(format!("{start} k{key} n={count} s={sum}"));
                }
            }
        }
        expected
    }

    /// Everything a read_committed reader sees, in the form of [`Self::expected`]; partitions share keys, so each line
    /// carries how often it may come. Early panes are left out.
    pub fn published(&self) -> Vec<String> {
        self.published_when(|timing| timing != "Early")
    }

    /// The panes whose timing is wanted.
    pub fn published_when(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let mut lines = Vec::new();
        self.read(&format!("{}-out", self.name), &mut |message| {
            let value: Value = serde_json::from_slice(message.payload().expect("a value")).expect("JSON");
            if wanted(value["pane"]["timing"].as_str().expect("text")) {
                lines.push(format!(
                    "{} {} n={} s={}",
                    value["start"],
                    value["key"]["k"].as_str().expect("text"),
                    value["values"]["n"],
                    value["values"]["s"]
                ));
            }
        });
        lines
    }

    /// Hands every committed record of a topic with the job's partitions to `visit`.
    pub fn read(&self, topic: &str, visit: &mut dyn FnMut(&BorrowedMessage<'_>)) {
        let consumer = self.consumer();
        // A source that has grown has more than the topics that were made with it.
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE);
        let found = metadata.map_or(0, |metadata| {
            metadata.topics().iter().map(|topic| topic.partitions().len()).sum()
        });
        let partitions = match found {
            0 => self.partitions as usize,
            found => found.min(self.partitions as usize),
        };
        read_partitions(&consumer, topic, 0..partitions, visit);
    }

    /// The same of one partition, whatever number it has.
    pub fn read_partition(&self, topic: &str, partition: usize, visit: &mut dyn FnMut(&BorrowedMessage<'_>)) {
        read_partitions(&self.consumer(), topic, partition..partition + 1, visit);
    }

    fn consumer(&self) -> BaseConsumer {
        self.client()
            .set("group.id", "checker")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("enable.auto.commit", "false")
            .create()
            .expect("a consumer")
    }

    /// Waits for every expected result, then demands that each is there exactly as often as there are partitions that
    /// produced it, and nothing else.
    pub fn assert_exact(&self) {
        self.assert_exactly(&self.expected(false));
    }

    /// The same for the results given.
    pub fn assert_exactly(&self, expected: &BTreeSet<String>) {
        // Every partition holds the same events, so every line is expected once for each; in two stages they meet.
        let copies = match self.shuffle_partitions {
            Some(_) => 1,
            None => self.partitions as usize,
        };
        let count = |lines: &[String]| {
            let mut counts: BTreeMap<String, usize> = BTreeMap::new();
            for line in lines {
                *counts.entry(line.clone()).or_default() += 1;
            }
            counts
        };
        let seen = eventually("all results", || {
            let lines = self.published();
            let wanted = expected.len() * copies;
            if lines.len() >= wanted {
                Ok(lines)
            } else {
                Err(format!("{} of {wanted} results", lines.len()))
            }
        });
        let counts = count(&seen);
        let lost: Vec<&String> = expected.iter().filter(|line| !counts.contains_key(*line)).collect();
        let wrong: Vec<&String> = counts.keys().filter(|line| !expected.contains(*line)).collect();
        let repeated: Vec<(&String, &usize)> = counts.iter().filter(|(_, times)| **times != copies).collect();
        assert!(
            lost.is_empty() && wrong.is_empty() && repeated.is_empty(),
            "lost {lost:?}, wrong {wrong:?}, not {copies} times {repeated:?}"
        );
        assert!(!expected.is_empty(), "a test without results shows nothing");
    }
}

/// Reads these partitions to their ends.
fn read_partitions(
    consumer: &BaseConsumer,
    topic: &str,
    partitions: Range<usize>,
    visit: &mut dyn FnMut(&BorrowedMessage<'_>),
) {
    let (mut list, count) = (TopicPartitionList::new(), partitions.len());
    for partition in partitions {
        let partition = i32::try_from(partition).expect("few");
        list.add_partition_offset(topic, partition, Offset::Beginning)
            .expect("an offset");
    }
    consumer.assign(&list).expect("assigns");
    let mut ended = BTreeSet::new();
    let deadline = Instant::now() + PATIENCE;
    while ended.len() < count {
        assert!(Instant::now() < deadline, "the output topic does not end");
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => visit(&message),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ended.insert(partition);
            }
            Some(Err(error)) if !passes(&error) => panic!("reading {topic}: {error}"),
            Some(Err(_)) | None => {}
        }
    }
}

/// A broker that is gone: the client goes on by itself.
fn passes(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut};
    matches!(
        error.rdkafka_error_code(),
        Some(AllBrokersDown | BrokerTransportFailure | OperationTimedOut)
    )
}
