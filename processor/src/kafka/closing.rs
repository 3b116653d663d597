//! A consumer whose end is not waited for without limit. Must not hold: when a client is given up, or another takes its place.

use std::ops::Deref;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, ConsumerContext};

/// A consumer that closes on a thread of its own when it is dropped. The client library closes it only when everything
/// asked of brokers is settled, and that of a client that lost its brokers may never be: it stays behind then, with its
/// threads, and whoever dropped it goes on.
pub struct Closing<C: ConsumerContext + 'static> {
    /// There until it is dropped.
    consumer: Option<BaseConsumer<C>>,
    limit: Duration,
}

impl<C: ConsumerContext + 'static> Closing<C> {
    /// Whoever drops `consumer` waits for its end for `limit` at most.
    pub fn within(limit: Duration, consumer: BaseConsumer<C>) -> Self {
        let consumer = Some(consumer);
        Self { consumer, limit }
    }
}

impl<C: ConsumerContext + 'static> Deref for Closing<C> {
    type Target = BaseConsumer<C>;

    fn deref(&self) -> &BaseConsumer<C> {
        match &self.consumer {
            Some(consumer) => consumer,
            None => unreachable!("it is taken out by drop alone"),
        }
    }
}

impl<C: ConsumerContext + 'static> Drop for Closing<C> {
    fn drop(&mut self) {
        let consumer = self.consumer.take();
        let (ended, end) = mpsc::channel();
        let close = move || {
            drop(consumer);
            // Nobody listens any more to one that took too long.
            ended.send(()).ok();
        };
        // Without a thread it has been closed here.
        let started = thread::Builder::new().name("kafka-closing".to_owned()).spawn(close);
        if started.is_ok() && end.recv_timeout(self.limit).is_err() {
            tracing::warn!(
                waited_s = self.limit.as_secs(),
                "a Kafka client does not come to its end; it is left behind"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Instant;

    use rdkafka::config::ClientConfig;
    use rdkafka::consumer::{CommitMode, Consumer, DefaultConsumerContext};
    use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

    use super::*;

    /// How long the client library waits with an offset for a coordinator that does not answer.
    const SESSION: Duration = Duration::from_secs(60);

    fn consumer(servers: &str) -> BaseConsumer<DefaultConsumerContext> {
        ClientConfig::new()
            .set("bootstrap.servers", servers)
            .set("group.id", "closing")
            .set("enable.auto.commit", "false")
            .set("session.timeout.ms", SESSION.as_millis().to_string())
            .create_with_context(DefaultConsumerContext)
            .unwrap()
    }

    #[test]
    fn a_client_whose_brokers_say_nothing_is_left_behind() {
        // Connections come about, and nobody answers.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let consumer = consumer(&silent.local_addr().unwrap().to_string());
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset("topic", 0, Offset::Offset(1)).unwrap();
        consumer.assign(&offsets).unwrap();
        consumer.commit(&offsets, CommitMode::Async).unwrap();
        let began = Instant::now();
        drop(Closing::within(Duration::from_millis(100), consumer));
        assert!(began.elapsed() < SESSION / 2, "waited for {:?}", began.elapsed());
    }
}
