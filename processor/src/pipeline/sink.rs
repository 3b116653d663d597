//! What an epoch publishes, as records ready to be sent: results, late events, dead letters. Pure.
//! Must not hold: a producer, or the control topic's documents.

mod plan;
mod trace;

use std::ops::Range;

pub use self::plan::{OutputTopic, QUEUE_BYTES, SinkPlan};
use self::trace::{Tracing, keep};
use super::output::{Output, Outputs};
use super::position::NO_WATERMARK;
use super::shuffle::Destination;
use super::worker::Between;
use crate::core::trace_context::{TRACEPARENT, TraceContext};

/// Headers of a record, in order.
pub type Headers = Vec<(String, Option<Vec<u8>>)>;

/// A record to publish.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Partition; by the client's choice when absent.
    pub partition: Option<i32>,
    /// Key.
    pub key: Option<&'a [u8]>,
    /// Value; absent is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Timestamp in ms since the epoch; now when absent.
    pub timestamp_ms: Option<i64>,
    /// Headers, in order.
    pub headers: &'a [(String, Option<Vec<u8>>)],
    /// Headers behind them: the trace that the record belongs to.
    pub trace: &'a [(String, Option<Vec<u8>>)],
}

impl Outgoing<'_> {
    /// Upper bound of the record's size in a batch by itself, bytes.
    pub fn size(&self) -> usize {
        /// Batch header, varints and client id at their largest.
        const OVERHEAD: usize = 256;
        let headers: usize = self
            .headers
            .iter()
            .chain(self.trace)
            .map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len) + 10)
            .sum();
        OVERHEAD + self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len) + headers
    }
}

/// A source record, for what becomes late or dead.
#[derive(Default)]
pub struct SourceRecord {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, ms.
    pub timestamp_ms: Option<i64>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Headers,
}

fn header(name: &str, value: impl ToString) -> (String, Option<Vec<u8>>) {
    (name.to_owned(), Some(value.to_string().into_bytes()))
}

struct ResultEntry {
    key: Range<usize>,
    value: Range<usize>,
    window: usize,
    end_ms: i64,
    partition_hash: u32,
    /// Where its trace is.
    trace: Option<usize>,
}

/// A late, dead or refused record with a topic of its own.
struct SideEntry {
    dead: bool,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp_ms: Option<i64>,
    headers: Headers,
}

/// A record for one partition of the second stage.
struct ShuffleEntry {
    partition: u32,
    value: Range<usize>,
    /// Where its trace is.
    trace: Option<usize>,
}

enum Entry {
    Result(ResultEntry),
    Side(SideEntry),
    Shuffle(ShuffleEntry),
}

/// Bytes and records that a buffer has room for, emptied.
const BYTES_KEPT: usize = 8 << 20;
const ENTRIES_KEPT: usize = 1 << 16;

/// The outputs of an open epoch, in order. Immutable once it is closed, but for records that no topic takes.
#[derive(Default)]
pub struct EpochBuffer {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// Traces of results and of watermarks between the stages, each as headers.
    traces: Vec<Headers>,
    refused: u64,
}

impl EpochBuffer {
    /// Number of records.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is nothing to publish.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of the results and of what goes to the second stage.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Records that were too large for their topic since the last [`Self::clear`].
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Forgets everything, keeps buffers of the usual size: those of a rare large epoch are given back.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(BYTES_KEPT);
        self.entries.clear();
        self.entries.shrink_to(ENTRIES_KEPT);
        self.traces.clear();
        self.refused = 0;
    }

    /// Traces of the records that put out what is in it, of those that came with one.
    pub fn traces(&self) -> impl Iterator<Item = TraceContext> {
        let parents = self.traces.iter().flatten().filter(|(name, _)| name == TRACEPARENT);
        parents.filter_map(|(_, value)| TraceContext::parse(value.as_deref()?))
    }

    /// Takes what a step put out. `source` gives a record of the step's batch by index, `trace` the headers of its trace.
    pub fn take(
        &mut self,
        outputs: &mut Outputs,
        plan: &SinkPlan,
        source: &dyn Fn(usize) -> SourceRecord,
        trace: &dyn Fn(usize) -> Headers,
    ) {
        let shift = self.bytes.len();
        if self.bytes.is_empty() {
            // One watermark may fire very much: it need not be there twice.
            std::mem::swap(&mut self.bytes, &mut outputs.bytes);
        } else {
            self.bytes.extend_from_slice(&outputs.bytes);
        }
        let mut tracing = Tracing {
            causes: &outputs.causes,
            first: None,
        };
        for (index, output) in outputs.list.drain(..).enumerate() {
            let entry = match output {
                Output::Result(result) => Entry::Result(ResultEntry {
                    key: result.key.start + shift..result.key.end + shift,
                    value: result.value.start + shift..result.value.end + shift,
                    window: result.window,
                    end_ms: result.end_ms,
                    partition_hash: result.partition_hash,
                    trace: tracing.of(index, &mut self.traces, trace),
                }),
                Output::Late(late) if plan.late.is_some() => {
                    let mut headers = vec![
                        header("streamagg-reason", "Late"),
                        header("streamagg-window", late.windows),
                    ];
                    headers.push(header("streamagg-watermark", late.watermark_ms));
                    headers.push(header("streamagg-lateness-ms", late.lateness_ms));
                    if !late.elements.is_empty() {
                        let elements: Vec<String> = late.elements.iter().map(u32::to_string).collect();
                        headers.push(header("streamagg-elements", elements.join(",")));
                    }
                    Entry::Side(plan.side_entry(false, source(late.record), headers))
                }
                Output::Dead(dead) if plan.dead.is_some() => {
                    let mut headers = vec![header("streamagg-reason", dead.reason.as_str())];
                    headers.push(header("streamagg-detail", dead.detail));
                    if dead.watermark_ms != NO_WATERMARK {
                        headers.push(header("streamagg-watermark", dead.watermark_ms));
                    }
                    Entry::Side(plan.side_entry(true, source(dead.record), headers))
                }
                Output::Late(_) | Output::Dead(_) => continue,
            };
            self.entries.push(entry);
        }
        outputs.clear();
        outputs.bytes.shrink_to(BYTES_KEPT);
        outputs.list.shrink_to(ENTRIES_KEPT);
    }

    /// Takes what goes between the stages, and partials that came when their windows were gone. `trace` as in
    /// [`Self::take`].
    pub fn take_between(&mut self, between: &mut Between, plan: &SinkPlan, trace: &dyn Fn(usize) -> Headers) {
        let shift = self.bytes.len();
        self.bytes.extend_from_slice(&between.shuffle.bytes);
        let partitions = plan.shuffle.as_ref().map_or(0, |topic| topic.partitions);
        for record in between.shuffle.list.drain(..) {
            let to = match record.destination {
                Destination::One(partition) => partition..partition + 1,
                Destination::Every => 0..partitions,
            };
            let value = record.value.start + shift..record.value.end + shift;
            let headers = record.cause.map(trace);
            let trace = headers.and_then(|headers| keep(headers, &mut self.traces));
            self.entries.extend(to.map(|partition| {
                let value = value.clone();
                Entry::Shuffle(ShuffleEntry {
                    partition,
                    value,
                    trace,
                })
            }));
        }
        between.shuffle.clear();
        for purged in between.purged.drain(..).filter(|_| plan.late.is_some()) {
            self.entries.push(Entry::Side(SideEntry {
                dead: false,
                key: None,
                value: Some(purged.value),
                timestamp_ms: None,
                headers: vec![
                    header("streamagg-reason", "AfterPurge"),
                    header("streamagg-window", purged.windows),
                    header("streamagg-watermark", purged.watermark_ms),
                    header("streamagg-topic", &plan.input_topic),
                    header("streamagg-partition", plan.partition),
                ],
            }));
        }
    }

    /// The records in order.
    pub fn records<'a>(&'a self, plan: &'a SinkPlan) -> impl Iterator<Item = Outgoing<'a>> {
        self.entries.iter().filter_map(|entry| self.outgoing(entry, plan))
    }

    fn trace(&self, at: Option<usize>) -> &[(String, Option<Vec<u8>>)] {
        at.and_then(|at| self.traces.get(at)).map_or(&[], Vec::as_slice)
    }

    fn outgoing<'a>(&'a self, entry: &'a Entry, plan: &'a SinkPlan) -> Option<Outgoing<'a>> {
        match entry {
            Entry::Result(result) => Some(Outgoing {
                topic: &plan.results.name,
                partition: Some(plan.partition_of(result)),
                key: Some(&self.bytes[result.key.clone()]),
                value: Some(&self.bytes[result.value.clone()]),
                // A window of all time has no end; then the producer's clock says when.
                timestamp_ms: (result.end_ms != i64::MAX).then(|| result.end_ms - 1),
                headers: plan.window_headers.get(result.window).map_or(&[], Vec::as_slice),
                trace: self.trace(result.trace),
            }),
            Entry::Shuffle(record) => Some(Outgoing {
                topic: &plan.shuffle.as_ref()?.name,
                partition: i32::try_from(record.partition).ok(),
                key: None,
                value: Some(&self.bytes[record.value.clone()]),
                timestamp_ms: None,
                headers: &[],
                trace: self.trace(record.trace),
            }),
            Entry::Side(side) => {
                let topic = if side.dead {
                    plan.dead.as_ref()?
                } else {
                    plan.late.as_ref()?
                };
                Some(Outgoing {
                    topic: &topic.name,
                    partition: Some(topic.partition_of(plan.partition)),
                    key: side.key.as_deref(),
                    value: side.value.as_deref(),
                    timestamp_ms: side.timestamp_ms,
                    headers: &side.headers,
                    // Theirs are those of the source record.
                    trace: &[],
                })
            }
        }
    }

    /// Replaces every record that its topic does not take by one that says so: a late event or dead letter loses its
    /// value, a result or a partial becomes a dead letter. Sizes are judged before anything is sent, so that no record is tried for
    /// ever.
    pub fn refuse_too_large(&mut self, plan: &SinkPlan) {
        for index in 0..self.entries.len() {
            let Some(outgoing) = self.outgoing(&self.entries[index], plan) else {
                continue;
            };
            let bound = plan.bound_of(outgoing.topic);
            let size = outgoing.size();
            if size <= bound {
                continue;
            }
            let topic = outgoing.topic.to_owned();
            tracing::error!(topic, size, bound, "record is too large for its topic");
            let mut headers = vec![
                header("streamagg-reason", "RecordTooLarge"),
                header("streamagg-too-large-for", topic),
                header("streamagg-bytes", size),
            ];
            self.refused += 1;
            let entry = &mut self.entries[index];
            let dead = match entry {
                Entry::Result(result) => {
                    headers.extend(plan.window_headers.get(result.window).into_iter().flatten().cloned());
                    headers.push(header("streamagg-window-end", result.end_ms));
                    true
                }
                Entry::Shuffle(_) => true,
                Entry::Side(side) => side.dead,
            };
            headers.push(header("streamagg-topic", &plan.input_topic));
            headers.push(header("streamagg-partition", plan.partition));
            if let Entry::Side(side) = entry {
                headers.extend(
                    side.headers
                        .iter()
                        .filter(|(name, _)| name == "streamagg-offset")
                        .cloned(),
                );
            }
            *entry = Entry::Side(SideEntry {
                dead,
                key: None,
                value: None,
                timestamp_ms: None,
                headers,
            });
        }
    }
}

#[cfg(test)]
mod tests;
