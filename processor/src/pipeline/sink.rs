//! What an epoch publishes, as records ready to be sent: results, late events, dead letters. Pure.
//! Must not hold: a producer, or the control topic's documents.

use std::ops::Range;

use super::output::{Cause, Output, Outputs};
use super::position::NO_WATERMARK;
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

/// A topic that is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputTopic {
    /// Its name.
    pub name: String,
    /// Its partitions, at least one.
    pub partitions: u32,
    /// Largest record it takes, bytes.
    pub record_bytes_max: usize,
}

impl OutputTopic {
    fn partition_of(&self, number: u32) -> i32 {
        i32::try_from(number % self.partitions.max(1)).unwrap_or(0)
    }
}

/// Where a task's outputs go.
#[derive(Clone, Debug)]
pub struct SinkPlan {
    /// Results.
    pub results: OutputTopic,
    /// Late events; dropped when absent.
    pub late: Option<OutputTopic>,
    /// Dead letters; dropped when absent.
    pub dead: Option<OutputTopic>,
    /// Source topic, for the headers.
    pub source_topic: String,
    /// The task: source partition.
    pub task: u32,
    /// Headers of a result, by window.
    window_headers: Vec<Headers>,
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

impl SinkPlan {
    /// The plan of one task.
    pub fn new(
        job_id: &str,
        window_names: &[String],
        (source_topic, task): (&str, u32),
        results: OutputTopic,
        (late, dead): (Option<OutputTopic>, Option<OutputTopic>),
    ) -> Self {
        let window_headers = window_names
            .iter()
            .map(|window| vec![header("streamagg-job", job_id), header("streamagg-window", window)])
            .collect();
        Self {
            results,
            late,
            dead,
            source_topic: source_topic.to_owned(),
            task,
            window_headers,
        }
    }
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

/// The traces of a step's outputs: each belongs to that of the record that put it out, if it came with one.
struct Tracing<'a> {
    causes: &'a [Cause],
    /// The trace of the first cause, once looked for.
    first: Option<Option<usize>>,
}

impl Tracing<'_> {
    /// The trace of an output, asked for in order. `trace` gives that of a record of the step's batch.
    fn of(&mut self, output: usize, traces: &mut Vec<Headers>, trace: &dyn Fn(usize) -> Headers) -> Option<usize> {
        while let [cause, rest @ ..] = self.causes
            && cause.until <= output
        {
            (self.causes, self.first) = (rest, None);
        }
        let cause = self.causes.first().filter(|cause| cause.from <= output)?;
        *self.first.get_or_insert_with(|| {
            let headers = trace(cause.record);
            (!headers.is_empty()).then(|| {
                traces.push(headers);
                traces.len() - 1
            })
        })
    }
}

/// A late, dead or refused record with a topic of its own.
struct SideEntry {
    dead: bool,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp_ms: Option<i64>,
    headers: Headers,
}

enum Entry {
    Result(ResultEntry),
    Side(SideEntry),
}

/// The outputs of an open epoch, in order. Immutable once it is closed, but for records that no topic takes.
#[derive(Default)]
pub struct EpochBuffer {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// Traces of results, each as headers.
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

    /// Bytes of the results.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Records that were too large for their topic since the last [`Self::clear`].
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Forgets everything, keeps the buffers.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
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
        self.bytes.extend_from_slice(&outputs.bytes);
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
    }

    /// The records in order.
    pub fn records<'a>(&'a self, plan: &'a SinkPlan) -> impl Iterator<Item = Outgoing<'a>> {
        self.entries.iter().filter_map(|entry| self.outgoing(entry, plan))
    }

    fn outgoing<'a>(&'a self, entry: &'a Entry, plan: &'a SinkPlan) -> Option<Outgoing<'a>> {
        match entry {
            Entry::Result(result) => Some(Outgoing {
                topic: &plan.results.name,
                partition: Some(plan.results.partition_of(result.partition_hash & 0x7fff_ffff)),
                key: Some(&self.bytes[result.key.clone()]),
                value: Some(&self.bytes[result.value.clone()]),
                // A window of all time has no end; then the producer's clock says when.
                timestamp_ms: (result.end_ms != i64::MAX).then(|| result.end_ms - 1),
                headers: plan.window_headers.get(result.window).map_or(&[], Vec::as_slice),
                trace: result
                    .trace
                    .and_then(|trace| self.traces.get(trace))
                    .map_or(&[], Vec::as_slice),
            }),
            Entry::Side(side) => {
                let topic = if side.dead {
                    plan.dead.as_ref()?
                } else {
                    plan.late.as_ref()?
                };
                Some(Outgoing {
                    topic: &topic.name,
                    partition: Some(topic.partition_of(plan.task)),
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
    /// value, a result becomes a dead letter. Sizes are judged before anything is sent, so that no record is tried for
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
                Entry::Side(side) => side.dead,
            };
            headers.push(header("streamagg-topic", &plan.source_topic));
            headers.push(header("streamagg-partition", plan.task));
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

impl SinkPlan {
    fn bound_of(&self, topic: &str) -> usize {
        [Some(&self.results), self.late.as_ref(), self.dead.as_ref()]
            .into_iter()
            .flatten()
            .find(|found| found.name == topic)
            .map_or(usize::MAX, |found| found.record_bytes_max)
    }

    /// Lowers the bound of a topic that refused a record of at most its bound. `false`: it cannot be lowered further.
    pub fn lower_bound(&mut self, topic: &str) -> bool {
        /// Below this, a refusal is not about size.
        const LEAST: usize = 4_096;
        for found in [Some(&mut self.results), self.late.as_mut(), self.dead.as_mut()]
            .into_iter()
            .flatten()
        {
            if found.name == topic && found.record_bytes_max > LEAST {
                found.record_bytes_max = (found.record_bytes_max / 2).max(LEAST);
                return true;
            }
        }
        false
    }

    fn side_entry(&self, dead: bool, source: SourceRecord, own: Headers) -> SideEntry {
        let mut headers = source.headers;
        headers.extend(own);
        headers.push(header("streamagg-topic", &self.source_topic));
        headers.push(header("streamagg-partition", self.task));
        headers.push(header("streamagg-offset", source.offset));
        SideEntry {
            dead,
            key: source.key,
            value: source.value,
            timestamp_ms: source.timestamp_ms,
            headers,
        }
    }
}

#[cfg(test)]
mod tests;
