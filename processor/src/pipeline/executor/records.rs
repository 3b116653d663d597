//! Messages of the broker as the engine and the side outputs take them. Must not judge them.

use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Headers};

use crate::pipeline::output::{Envelope, Record};
use crate::pipeline::sink::SourceRecord;

/// What is around the values of a batch: one for each message where it is `needed`, otherwise nothing is looked at.
pub(super) fn envelopes<'a>(batch: &'a [BorrowedMessage<'_>], needed: bool) -> Vec<Envelope<'a>> {
    let envelope = |message: &'a BorrowedMessage<'_>| Envelope {
        topic: Some(message.topic()),
        partition: u32::try_from(message.partition()).unwrap_or(0),
        key: message.key(),
        headers: headers(message).collect(),
    };
    batch
        .iter()
        .take(if needed { batch.len() } else { 0 })
        .map(envelope)
        .collect()
}

/// A batch as records; `envelopes` are those of [`envelopes`].
pub(super) fn records<'a>(batch: &'a [BorrowedMessage<'_>], envelopes: &'a [Envelope<'a>]) -> Vec<Record<'a>> {
    let record = |(index, message): (usize, &'a BorrowedMessage<'_>)| Record {
        offset: message.offset(),
        value: message.payload().unwrap_or_default(),
        timestamp_ms: message.timestamp().to_millis(),
        envelope: envelopes.get(index),
    };
    batch.iter().enumerate().map(record).collect()
}

/// The headers of a message, in its order.
pub(super) fn headers<'a>(message: &'a BorrowedMessage<'_>) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> {
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    headers.map(|header| (header.key, header.value))
}

/// The record as side outputs carry it.
pub(super) fn source_record(message: &BorrowedMessage<'_>) -> SourceRecord {
    let headers = headers(message).map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)));
    SourceRecord {
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.collect(),
    }
}
