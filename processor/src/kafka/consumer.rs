//! Reads one partition from a given offset on the caller's thread. Committed records only; no group, no reset.
//! Must not hold: what records mean, or where to begin.

use std::cell::Cell;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use xxhash_rust::xxh3::Xxh3;

use super::access::{Access, Right};
use super::brokers::Reminder;
use super::closing::Closing;
use super::settings::Settings;
use super::trouble::Trouble;
use crate::state::recovery::{LastInput, LastInputCheck, Reason, Stop};

/// Longest wait for an answer about offsets.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the end of a reader's client: the last offset that it publishes is on its way until then.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// Error of a read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Passing trouble: the client goes on by itself, what was read stays read.
    #[error("reading {what}: {message}; still trying")]
    Passing {
        /// Topic and partition.
        what: String,
        /// The client's words.
        message: String,
    },
    /// The partition no longer has the offset asked for: gather the facts again.
    #[error("reading {what}: offset out of range")]
    OutOfRange {
        /// Topic and partition.
        what: String,
    },
    /// The task stops.
    #[error(transparent)]
    Stop(#[from] Stop),
}

/// Makes a librdkafka configuration.
pub fn client_config(settings: &Settings) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (name, value) in settings.iter() {
        config.set(name, value);
    }
    config
}

/// The stop that a broker's error code means wherever it comes from, if it means one.
pub fn stop_of(code: RDKafkaErrorCode, right: Right, topic: &str, access: &Access) -> Option<Stop> {
    use RDKafkaErrorCode as Code;
    if matches!(code, Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed) {
        return Some(access.no_right(right, topic, &code));
    }
    if matches!(
        code,
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition
    ) {
        return Some(Stop::new(
            Reason::TopicMissing,
            format!(
                "cannot {} topic {topic}: it does not exist; create it or correct the name",
                right.verb()
            ),
        ));
    }
    None
}

/// A reader of one partition.
pub struct PartitionReader {
    consumer: Closing<Trouble>,
    settings: Settings,
    topic: String,
    partition: i32,
    /// Where the next read begins, when it does not go on from the last.
    sought: Cell<Option<Offset>>,
    /// The client's position belongs to the last seek: it forgets the one before only after a while.
    position_is_new: Cell<bool>,
    reminder: Reminder,
}

impl PartitionReader {
    /// Connects; nothing is read before [`Self::seek`].
    pub fn open(settings: &Settings, (topic, partition): (String, u32)) -> Result<Self, Stop> {
        let consumer: BaseConsumer<Trouble> = client_config(settings)
            .create_with_context(Trouble::default())
            .map_err(|error| settings.access().unusable(&error))?;
        let partition = i32::try_from(partition).unwrap_or(i32::MAX);
        Ok(Self {
            consumer: Closing::within(CLOSE_MAX, consumer),
            settings: settings.clone(),
            topic,
            partition,
            sought: Cell::new(None),
            position_is_new: Cell::new(false),
            reminder: Reminder::default(),
        })
    }

    /// Nothing came: a client in doubt may have forgotten its brokers.
    fn remind(&self) {
        self.reminder.still_waiting(self.consumer.client(), &self.settings);
    }

    fn what(&self) -> String {
        format!("{}/{}", self.topic, self.partition)
    }

    /// The next record read is the first at or behind `offset`.
    pub fn seek(&self, offset: i64) {
        self.seek_to(Offset::Offset(offset));
    }

    /// The next record read is the first of the partition.
    pub fn seek_to_beginning(&self) {
        self.seek_to(Offset::Beginning);
    }

    /// Only notes it: librdkafka aborts the process when a partition is assigned again while it still takes back the
    /// assignment before, and start-up may seek twice without reading between.
    fn seek_to(&self, offset: Offset) {
        self.position_is_new.set(false);
        self.sought.set(Some(offset));
    }

    /// The next message or error of the client, from where it was last sought.
    fn next(&self, wait: Duration) -> Option<Result<BorrowedMessage<'_>, KafkaError>> {
        if let Some(offset) = self.sought.take() {
            let mut list = TopicPartitionList::new();
            let assigned = list
                .add_partition_offset(&self.topic, self.partition, offset)
                .and_then(|()| self.consumer.assign(&list));
            if let Err(error) = assigned {
                self.sought.set(Some(offset));
                return Some(Err(error));
            }
        }
        self.consumer.poll(whole_ms(wait))
    }

    fn classify(&self, error: &KafkaError) -> ReadError {
        let code = error.rdkafka_error_code();
        let access = self.settings.access();
        let stop = code.and_then(|code| stop_of(code, Right::Read, &self.topic, access));
        if let Some(stop) = stop.or_else(|| self.consumer.context().stop(&self.settings)) {
            return ReadError::Stop(stop);
        }
        match code {
            Some(RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset) => {
                ReadError::OutOfRange { what: self.what() }
            }
            Some(_) | None => ReadError::Passing {
                what: self.what(),
                message: error.to_string(),
            },
        }
    }

    /// Appends what is there, at most `max` records, waiting up to `wait` for the first.
    pub fn poll<'a>(
        &'a self,
        max: usize,
        wait: Duration,
        batch: &mut Vec<BorrowedMessage<'a>>,
    ) -> Result<(), ReadError> {
        let mut wait = wait;
        while batch.len() < max {
            match self.next(wait) {
                None if batch.is_empty() => {
                    self.remind();
                    break;
                }
                None => break,
                Some(Ok(message)) => {
                    self.position_is_new.set(true);
                    batch.push(message);
                }
                // The end of a partition ends a batch; readers that want to know use `read_to_end`.
                Some(Err(KafkaError::PartitionEOF(_))) => break,
                Some(Err(error)) => {
                    self.reminder.doubt();
                    return Err(self.classify(&error));
                }
            }
            wait = Duration::ZERO;
        }
        Ok(())
    }

    /// Offset up to which the partition was read since the last seek: every record below it was polled, and what has no
    /// record (markers of transactions, aborted records) was passed. Absent until something was read.
    pub fn seen_offset(&self) -> Option<i64> {
        let position = self.consumer.position().ok()?;
        match position.find_partition(&self.topic, self.partition)?.offset() {
            Offset::Offset(offset) => self.position_is_new.get().then_some(offset),
            Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => {
                self.position_is_new.set(true);
                None
            }
        }
    }

    /// Hands every record from the beginning to the end, as it stands when called, to `visit`. Needs
    /// `enable.partition.eof`. Where there is a `mark`, the end is none that comes before a record with this key: it is
    /// shown by a leader that was replaced and does not know it. Gives up after `limit` without progress.
    pub fn read_to_end(
        &self,
        limit: Duration,
        mark: Option<&[u8]>,
        visit: &mut dyn FnMut(&BorrowedMessage<'_>) -> Result<(), Stop>,
    ) -> Result<(), ReadError> {
        // Asked for first: a leader answers only when it knows its own end, so that what follows is not too short.
        let (start, end) = self.watermarks()?;
        // Not of the first partition: only a read shows whether the topic may be read.
        if start == end && self.partition != 0 && mark.is_none() {
            return Ok(());
        }
        self.seek_to_beginning();
        let (mut heard, mut is_whole) = (Instant::now(), mark.is_none());
        self.reminder.begin();
        loop {
            match self.next(Duration::from_millis(500)) {
                Some(Ok(message)) => {
                    is_whole |= mark.is_some() && message.key() == mark;
                    visit(&message)?;
                }
                Some(Err(KafkaError::PartitionEOF(_))) if is_whole => return Ok(()),
                Some(Err(KafkaError::PartitionEOF(_))) if heard.elapsed() < limit => continue,
                Some(Err(error)) => match self.classify(&error) {
                    ReadError::Passing { .. } if heard.elapsed() < limit => continue,
                    other => return Err(other),
                },
                None if heard.elapsed() < limit => {
                    self.remind();
                    continue;
                }
                None => {
                    let message = match is_whole {
                        true => format!("no answer for {} s", limit.as_secs()),
                        false => format!(
                            "what was just written there is not to be seen after {} s: its leader may have been replaced",
                            limit.as_secs()
                        ),
                    };
                    return Err(ReadError::Passing {
                        what: self.what(),
                        message,
                    });
                }
            }
            heard = Instant::now();
            self.reminder.begin();
        }
    }

    /// First offset and one past the last committed record.
    pub fn watermarks(&self) -> Result<(i64, i64), ReadError> {
        self.watermarks_within(QUERY_TIMEOUT)
    }

    /// The same, not waited for longer than `limit`. A reader of uncommitted records gets the high watermark.
    pub fn watermarks_within(&self, limit: Duration) -> Result<(i64, i64), ReadError> {
        self.watermarks_of(self.partition, limit)
    }

    /// The same of any partition of the topic.
    pub fn watermarks_of(&self, partition: i32, limit: Duration) -> Result<(i64, i64), ReadError> {
        let found = self.consumer.fetch_watermarks(&self.topic, partition, limit);
        found.map_err(|error| {
            self.reminder.doubt();
            self.remind();
            self.classify(&error)
        })
    }

    /// Offset of the first record not before `timestamp_ms`; the end when there is none.
    pub fn offset_at(&self, timestamp_ms: i64) -> Result<i64, ReadError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, self.partition, Offset::Offset(timestamp_ms))
            .map_err(|error| self.classify(&error))?;
        let found = self
            .consumer
            .offsets_for_times(list, QUERY_TIMEOUT)
            .map_err(|error| self.classify(&error))?;
        match found
            .find_partition(&self.topic, self.partition)
            .map(|element| element.offset())
        {
            Some(Offset::Offset(offset)) => Ok(offset),
            Some(_) | None => Ok(self.watermarks()?.1),
        }
    }

    /// Re-reads the last consumed record and compares its digest.
    pub fn check_last_input(&self, last: LastInput, log_start: i64, log_end: i64) -> Result<LastInputCheck, ReadError> {
        if last.offset < log_start {
            return Ok(LastInputCheck::Skipped);
        }
        if last.offset >= log_end {
            return Ok(LastInputCheck::Different);
        }
        self.seek(last.offset);
        let deadline = Instant::now() + QUERY_TIMEOUT;
        loop {
            match self.next(Duration::from_millis(200)) {
                Some(Ok(message)) if message.offset() == last.offset && digest(&message) == last.digest => {
                    return Ok(LastInputCheck::Same);
                }
                Some(Ok(_)) => return Ok(LastInputCheck::Different),
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(LastInputCheck::Different),
                Some(Err(error)) => match self.classify(&error) {
                    ReadError::Passing { .. } => {}
                    ReadError::OutOfRange { .. } => return Ok(LastInputCheck::Skipped),
                    ReadError::Stop(stop) => return Err(stop.into()),
                },
                None => {}
            }
            if Instant::now() > deadline {
                let message = format!(
                    "no record at offset {} within {} s",
                    last.offset,
                    QUERY_TIMEOUT.as_secs()
                );
                return Err(ReadError::Passing {
                    what: self.what(),
                    message,
                });
            }
        }
    }

    /// Commits a group offset, for lag tools only: nothing reads it back. A note beside it is for [`Self::notes_of`].
    pub fn publish_group_offset(&self, offset: i64, note: Option<&str>) {
        let mut list = TopicPartitionList::new();
        let added = list.add_partition_offset(&self.topic, self.partition, Offset::Offset(offset));
        if let (Some(mut element), Some(note)) = (list.find_partition(&self.topic, self.partition), note) {
            element.set_metadata(note);
        }
        if let Err(error) = added.and_then(|()| self.consumer.commit(&list, CommitMode::Async)) {
            tracing::debug!(%error, "group offset not committed");
        }
    }

    /// The notes that tasks left beside the group offsets of these partitions, of any topic, where there are any; each
    /// with the place of its partition in the list given.
    pub fn notes_of(&self, inputs: &[(String, u32)]) -> Result<Vec<(usize, String)>, ReadError> {
        let mut list = TopicPartitionList::new();
        for (topic, partition) in inputs {
            list.add_partition(topic, i32::try_from(*partition).unwrap_or(i32::MAX));
        }
        let found = self
            .consumer
            .committed_offsets(list, QUERY_TIMEOUT)
            .map_err(|error| self.classify(&error))?;
        let notes = inputs.iter().enumerate().filter_map(|(place, (topic, partition))| {
            let element = found.find_partition(topic, i32::try_from(*partition).ok()?)?;
            let note = element.metadata();
            (!note.is_empty()).then(|| (place, note.to_owned()))
        });
        Ok(notes.collect())
    }
}

/// Rounded up: the client waits whole milliseconds, and what is left of one in a loop without a pause.
fn whole_ms(wait: Duration) -> Duration {
    Duration::from_millis(u64::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX))
}

/// Digest of a record, so that another one at the same offset is noticed.
pub fn digest(message: &BorrowedMessage<'_>) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(&message.timestamp().to_millis().unwrap_or(-1).to_le_bytes());
    for part in [message.key(), message.payload()] {
        hasher.update(&part.map_or(u64::MAX, |bytes| bytes.len() as u64).to_le_bytes());
        hasher.update(part.unwrap_or_default());
    }
    hasher.digest()
}
