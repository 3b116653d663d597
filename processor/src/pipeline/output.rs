//! What a step puts out, as bytes in one buffer: results, late records, dead records.
//! Must not hold: topics, files or when something is published.

use std::ops::Range;

use super::position::Decision;

/// One record of the input partition, as the shell hands it in.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Offset in the partition; strictly ascending over all steps of a task.
    pub offset: i64,
    /// Value bytes; empty for a record without a value.
    pub value: &'a [u8],
    /// The record's own timestamp, ms since the epoch; absent where the transport has none (lines, old brokers).
    pub timestamp_ms: Option<i64>,
    /// What is around the value; needed only where [`super::builder::Plan::needs_envelopes`] says so.
    pub envelope: Option<&'a Envelope<'a>>,
}

/// What is around the value of a record. What is absent is missing where it is a part of the key.
#[derive(Clone, Debug, Default)]
pub struct Envelope<'a> {
    /// The topic.
    pub topic: Option<&'a str>,
    /// The partition.
    pub partition: u32,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// Names and values of headers, in order.
    pub headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

impl<'a> Record<'a> {
    /// A record without a timestamp of its own.
    pub fn new(offset: i64, value: &'a [u8]) -> Self {
        Self {
            offset,
            value,
            timestamp_ms: None,
            envelope: None,
        }
    }
}

/// A result, ready to be published.
#[derive(Clone, Debug)]
pub struct ResultRecord {
    /// Record key, in [`Outputs::bytes`].
    pub key: Range<usize>,
    /// Record value (one line of JSON, no newline), in [`Outputs::bytes`].
    pub value: Range<usize>,
    /// Index of the window in the spec.
    pub window: usize,
    /// End of the window, ms since the epoch; the record's timestamp is one less.
    pub end_ms: i64,
    /// murmur2 of the group key: the sink partition is `(hash & 0x7fff_ffff) % partitions`.
    pub partition_hash: u32,
}

/// An event that every window it belongs to has already been purged for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateRecord {
    /// Index of the record in the batch handed to the step.
    pub record: usize,
    /// Where records are taken apart: the elements of this one that are late, from 0, ascending. The others counted.
    pub elements: Vec<u32>,
    /// Names of the windows it missed, with commas between.
    pub windows: String,
    /// Watermark that judged it, ms.
    pub watermark_ms: i64,
    /// Watermark − event time, ms; of several elements the largest.
    pub lateness_ms: i64,
}

/// A record that is not a usable event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadRecord {
    /// Index of the record in the batch handed to the step.
    pub record: usize,
    /// Stable reason, such as `JsonInvalid`.
    pub reason: crate::error::RejectReason,
    /// The field concerned and what was found, for people.
    pub detail: String,
    /// Watermark at that moment, ms.
    pub watermark_ms: i64,
}

/// One output in the order of the log.
#[derive(Clone, Debug)]
pub enum Output {
    /// A pane of a window.
    Result(ResultRecord),
    /// A late event.
    Late(LateRecord),
    /// A bad record.
    Dead(DeadRecord),
}

/// The record of a step that put something out: with it a window was over, or it is late or dead itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Index of the record in the batch handed to the step.
    pub record: usize,
    /// Its outputs begin here in [`Outputs::list`].
    pub from: usize,
    /// They end before this one.
    pub until: usize,
}

/// Outputs of one step, in order. The caller drains them before the next step (`record` indices refer to the batch).
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// Keys and values of the results.
    pub bytes: Vec<u8>,
    /// The outputs in order.
    pub list: Vec<Output>,
    /// Which record put out what, in order; what a decision put out has none.
    pub causes: Vec<Cause>,
    /// Decisions that the step made by the clock it was given, in order; they belong into the commit of these outputs.
    pub decisions: Vec<Decision>,
}

impl Outputs {
    /// Forgets everything, keeps the buffers.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.list.clear();
        self.causes.clear();
        self.decisions.clear();
    }

    /// Notes that a record of the step put out all that lies behind the first `before` outputs, if anything does.
    pub fn caused_by(&mut self, record: usize, before: usize) {
        let until = self.list.len();
        if until > before {
            self.causes.push(Cause {
                record,
                from: before,
                until,
            });
        }
    }

    /// Bytes of a range.
    pub fn slice(&self, range: &Range<usize>) -> &[u8] {
        &self.bytes[range.clone()]
    }
}
