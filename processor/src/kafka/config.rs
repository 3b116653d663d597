//! From a job to librdkafka's settings and to the names of what a job owns on a cluster. Pure.
//! Must not hold: clients.

use std::collections::BTreeMap;

use streamagg_crds::resolved::Resolved;
use streamagg_crds::v1alpha1::Compression;

pub use super::settings::Settings;
use crate::pipeline::sink::QUEUE_BYTES;
use crate::pipeline::stage::{Role, Stage};

/// How long the broker keeps an open transaction of a task that vanished: readers wait no longer than this.
const TRANSACTION_TIMEOUT_MS: u32 = 60_000;

/// Name of the topic that holds a job's committed positions.
pub fn control_topic(job_id: &str) -> String {
    format!("{job_id}-control")
}

/// Name of the topic between the two stages of a job.
pub fn shuffle_topic(job_id: &str) -> String {
    format!("{job_id}-shuffle")
}

/// Topic and partition that a task reads.
pub fn input(job: &Resolved, role: Role) -> (String, u32) {
    match role.stage {
        Stage::Whole | Stage::Combine => source_partition(&job.source.topics, role.partition),
        Stage::Window => (shuffle_topic(&job.job_id), role.partition),
    }
}

/// Topic and partition behind the number of a source partition. The first partition of every topic comes before the second
/// of any: all topics have equally many, so that partitions which are added to each of them renumber no other.
fn source_partition(topics: &[String], number: u32) -> (String, u32) {
    let count = u32::try_from(topics.len()).unwrap_or(u32::MAX).max(1);
    let topic = topics.get((number % count) as usize).cloned().unwrap_or_default();
    (topic, number / count)
}

/// `transactional.id` of a task.
pub fn transactional_id(job: &Resolved, role: Role) -> String {
    let stage = match role.stage {
        Stage::Whole => "task",
        Stage::Combine => "combine",
        Stage::Window => "window",
    };
    let (topic, partition) = input(job, role);
    format!("{}/{stage}/{topic}/{partition}", job.job_id)
}

/// Topic settings of the control topic. Segments are small so that compaction gets at the positions of last hour.
pub fn control_topic_settings() -> [(&'static str, &'static str); 5] {
    [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "16777216"),
        ("segment.ms", "600000"),
        ("min.cleanable.dirty.ratio", "0.1"),
        // Longer than any start-up reads, so that a tombstone is seen by every reader that saw its record.
        ("delete.retention.ms", "86400000"),
    ]
}

/// Largest record of the topic between two stages, bytes: 256 KiB of partials, or one that is larger.
const SHUFFLE_RECORD_BYTES: &str = "16777216";

/// Topic settings of the topic between two stages. Nothing vanishes by itself: the job deletes what no state needs.
pub const SHUFFLE_TOPIC_SETTINGS: [(&str, &str); 4] = [
    ("cleanup.policy", "delete"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    ("max.message.bytes", SHUFFLE_RECORD_BYTES),
];

/// Settings of output topics that the processor creates. A result's timestamp is the end of its window: under the
/// broker's usual retention by time, results of windows that are older would be deleted as soon as they are written.
pub const OUTPUT_TOPIC_SETTINGS: [(&str, &str); 1] = [("retention.ms", "-1")];

/// What every client has, on top of how it reaches the cluster.
fn common(bootstrap_servers: &[String], client_id: &str, connection: &Settings) -> Settings {
    let mut settings = connection.clone();
    for (name, value) in [
        ("bootstrap.servers", bootstrap_servers.join(",").as_str()),
        ("client.id", client_id),
        ("socket.keepalive.enable", "true"),
        // A request never waits for the acknowledgement of the one before it: such a wait is up to 40 ms.
        ("socket.nagle.disable", "true"),
        ("reconnect.backoff.max.ms", "2000"),
        ("log.connection.close", "false"),
    ] {
        settings.set(name, value);
    }
    settings
}

fn set(settings: &mut Settings, values: &[(&str, &str)]) {
    for (name, value) in values {
        settings.set(name, value);
    }
}

/// Reader of a source partition. `queue_kib` bounds what is fetched ahead.
pub fn source_consumer(job: &Resolved, connection: &Settings, queue_kib: u32) -> Settings {
    let servers = &job.source.bootstrap_servers;
    input_consumer(servers, &job.job_id, connection, queue_kib, &job.source.properties)
}

/// Reader of a partition of the topic between two stages, on the sink's cluster.
pub fn shuffle_consumer(job: &Resolved, connection: &Settings, queue_kib: u32) -> Settings {
    let servers = &job.sink.bootstrap_servers;
    input_consumer(servers, &job.job_id, connection, queue_kib, &BTreeMap::new())
}

fn input_consumer(
    servers: &[String],
    job_id: &str,
    connection: &Settings,
    queue_kib: u32,
    properties: &BTreeMap<String, String>,
) -> Settings {
    let mut settings = common(servers, job_id, connection);
    set(
        &mut settings,
        &[
            ("queued.max.messages.kbytes", &queue_kib.to_string()),
            ("queued.min.messages", "1000000"),
            // How soon fetching goes on once there is room again.
            ("fetch.queue.backoff.ms", "10"),
            ("fetch.error.backoff.ms", "100"),
        ],
    );
    for (name, value) in properties {
        settings.set(name, value);
    }
    // What exactly-once rests on comes last: no property of the manifest changes it.
    set(
        &mut settings,
        &[
            ("group.id", job_id),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            // No group is joined. Offsets on their way to a coordinator that is gone hold up the end of the client so long.
            ("session.timeout.ms", "6000"),
            ("auto.offset.reset", "error"),
            ("isolation.level", "read_committed"),
            ("enable.partition.eof", "false"),
            ("allow.auto.create.topics", "false"),
        ],
    );
    settings
}

/// Asks for the high watermark of a source partition: records of open transactions count.
pub fn source_end(job: &Resolved, connection: &Settings) -> Settings {
    let mut settings = source_consumer(job, connection, 64);
    settings.set("isolation.level", "read_uncommitted");
    settings
}

/// Reader of the control topic, on the sink's cluster.
pub fn control_consumer(job: &Resolved, connection: &Settings) -> Settings {
    let mut settings = common(&job.sink.bootstrap_servers, &job.job_id, connection);
    set(
        &mut settings,
        &[
            ("group.id", &job.job_id),
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "error"),
            ("isolation.level", "read_committed"),
            ("enable.partition.eof", "true"),
            ("allow.auto.create.topics", "false"),
            ("fetch.wait.max.ms", "50"),
        ],
    );
    settings
}

/// Name of the group that shares the tasks out among processes outside Kubernetes. Not the one of offsets: while a group
/// has members, nobody else may commit to it.
pub fn tasks_group(job_id: &str) -> String {
    format!("{job_id}-tasks")
}

/// A member of that group, on the sink's cluster. It reads nothing.
pub fn group_member(job: &Resolved, connection: &Settings) -> Settings {
    let mut settings = common(&job.sink.bootstrap_servers, &job.job_id, connection);
    set(
        &mut settings,
        &[
            ("group.id", &tasks_group(&job.job_id)),
            ("partition.assignment.strategy", "cooperative-sticky"),
            // How soon the tasks of a process that was killed go to others.
            ("session.timeout.ms", "10000"),
            ("heartbeat.interval.ms", "2000"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "latest"),
            ("allow.auto.create.topics", "false"),
            // How soon the group shares out the tasks of partitions that were added, once the control topic has theirs.
            ("topic.metadata.refresh.interval.ms", "5000"),
        ],
    );
    settings
}

/// Administration and metadata of one cluster.
pub fn admin(bootstrap_servers: &[String], job_id: &str, connection: &Settings) -> Settings {
    let mut settings = common(bootstrap_servers, job_id, connection);
    set(&mut settings, &[("allow.auto.create.topics", "false")]);
    settings
}

/// Bytes of a batch where the topics take it, before it is compressed: librdkafka's own bound.
const BATCH_BYTES_MAX: usize = 1_000_000;

/// The transactional producer of a task.
pub fn producer(job: &Resolved, connection: &Settings, role: Role, batch_bytes: usize) -> Settings {
    let mut settings = plain_producer(job, connection, batch_bytes);
    set(
        &mut settings,
        &[
            ("transactional.id", &transactional_id(job, role)),
            ("transaction.timeout.ms", &TRANSACTION_TIMEOUT_MS.to_string()),
        ],
    );
    settings
}

/// The producer of a task that delivers at least once. `batch_bytes`: of a batch, at most.
pub fn plain_producer(job: &Resolved, connection: &Settings, batch_bytes: usize) -> Settings {
    let mut settings = common(&job.sink.bootstrap_servers, &job.job_id, connection);
    let compression = match job.sink.compression {
        Compression::None => "none",
        Compression::Gzip => "gzip",
        Compression::Snappy => "snappy",
        Compression::Lz4 => "lz4",
        Compression::Zstd => "zstd",
    };
    set(
        &mut settings,
        &[
            ("enable.idempotence", "true"),
            ("message.timeout.ms", &TRANSACTION_TIMEOUT_MS.to_string()),
            ("acks", "all"),
            // An epoch is whole before it is sent: there is nothing to wait for.
            ("linger.ms", "0"),
            // With the default of 100 ms, transactions in a row take 106 ms each.
            ("retry.backoff.ms", "5"),
            ("retry.backoff.max.ms", "200"),
            ("queue.buffering.max.messages", "100000"),
            ("queue.buffering.max.kbytes", &(QUEUE_BYTES >> 10).to_string()),
            // A topic's bound is one of batches.
            ("batch.size", &batch_bytes.clamp(1, BATCH_BYTES_MAX).to_string()),
            // Only failures are looked at.
            ("delivery.report.only.error", "true"),
            ("compression.type", compression),
            // The shell refuses what a topic does not take, by that topic's own bound.
            ("message.max.bytes", "100000000"),
        ],
    );
    settings
}

#[cfg(test)]
mod tests;
