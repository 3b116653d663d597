//! What must stand in the output topics, worked out from the source topic in plain code, and what is lost, repeated
//! or wrong there. Shares no code with the engine; of the product it knows the manifest only.

pub mod batch;
mod compare;
mod number;

use std::collections::BTreeMap;

use serde_json::Value;
use streamagg_crds::resolved::{Function, Input, KeySource, Missing, Resolved, Timestamp, Watermark, WindowKind};
use streamagg_crds::v1alpha1::{KeyDefault, TimeUnit};
use streamagg_crds::value::{Instant, JsonPointer};

pub use self::compare::{Added, Report, compare};
use self::number::{average, decimal, parse};

/// A record of the source topic.
#[derive(Clone, Debug)]
pub struct SourceRecord {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Value; empty when there is none.
    pub value: Vec<u8>,
}

/// A record of an output topic, as a read_committed reader sees it.
#[derive(Clone, Debug, Default)]
pub struct OutputRecord {
    /// Record key.
    pub key: String,
    /// Record value.
    pub value: String,
    /// Headers that are text.
    pub headers: BTreeMap<String, String>,
}

/// Window name, start in ms, key as a JSON object with sorted members.
pub type WindowKey = (String, i64, String);

/// One firing of a window for a key.
#[derive(Clone, Debug, PartialEq)]
pub struct Pane {
    /// `OnTime` or `Late`.
    pub timing: &'static str,
    /// Whether no other can come.
    pub last: bool,
    /// Values in the order of the aggregates, as JSON text.
    pub values: Vec<String>,
}

/// Everything that must stand in the output topics.
#[derive(Clone, Debug, Default)]
pub struct Expectation {
    /// Panes by window and key, in order of their index.
    pub panes: BTreeMap<WindowKey, Vec<Pane>>,
    /// Late events by (partition, offset): windows missed, lateness in ms.
    pub late: BTreeMap<(i32, i64), (String, i64)>,
    /// Dead letters by (partition, offset): reason.
    pub dead: BTreeMap<(i32, i64), &'static str>,
    /// Windows that have events and have not fired.
    pub open: usize,
    /// Of each window and key there is one pane, what the last result must say: which others there are depends on how
    /// events of several partitions met.
    pub last_only: bool,
    /// The job went back to a checkpoint: what is left of the panes of a window need not begin with the first.
    pub went_back: bool,
    totals: BTreeMap<(i64, WindowKey), Sums>,
}

#[derive(Clone, Debug, Default)]
struct Sums {
    events: u64,
    /// By aggregate: values seen, sum, least, greatest; scaled by 10^12.
    fields: Vec<(u64, i128, i128, i128)>,
    panes: Vec<Pane>,
}

/// Works out what a job must have written after these records, which are in offset order within each partition.
pub fn expect(job: &Resolved, source: &[SourceRecord]) -> Expectation {
    let mut expectation = Expectation::default();
    let mut by_partition: BTreeMap<i32, Vec<&SourceRecord>> = BTreeMap::new();
    for record in source {
        by_partition.entry(record.partition).or_default().push(record);
    }
    let mut slowest = i64::MAX;
    for records in by_partition.values() {
        slowest = slowest.min(expect_partition(job, records, &mut expectation));
    }
    if job.source.shuffle_partitions.is_some() {
        expect_meeting(job, slowest, &mut expectation);
    }
    expectation
}

/// Partitions of which each has events of every key: a window is over when the slowest has passed its end, and late is
/// what was late in its own.
fn expect_meeting(job: &Resolved, slowest: i64, expectation: &mut Expectation) {
    let totals = std::mem::take(&mut expectation.totals);
    expectation.last_only = true;
    expectation.open = totals.keys().filter(|(end, _)| *end > slowest).count();
    let over = totals.into_iter().filter(|((end, _), _)| *end <= slowest);
    let pane = |sums: &Sums| Pane {
        timing: "any",
        last: false,
        values: values(job, sums),
    };
    expectation.panes = over.map(|((_, id), sums)| (id, vec![pane(&sums)])).collect();
}

fn merge(total: &mut Sums, sums: &Sums) {
    total.events += sums.events;
    total.fields.resize(sums.fields.len(), (0, 0, i128::MAX, i128::MIN));
    for (total, (seen, sum, least, greatest)) in total.fields.iter_mut().zip(&sums.fields) {
        *total = (
            total.0 + seen,
            total.1 + sum,
            total.2.min(*least),
            total.3.max(*greatest),
        );
    }
}

/// One partition by itself; answers how far event time has come in it.
fn expect_partition(job: &Resolved, records: &[&SourceRecord], expectation: &mut Expectation) -> i64 {
    let mut watermark = i64::MIN;
    // By end first, so that what is due is at the front.
    let mut open: BTreeMap<(i64, usize, i64, String), Sums> = BTreeMap::new();
    for record in records {
        let place = (record.partition, record.offset);
        let event = match read(job, &record.value) {
            Ok(event) => event,
            Err(reason) => {
                expectation.dead.insert(place, reason);
                continue;
            }
        };
        let (mut missed, mut counted, mut targets) = (Vec::new(), false, Vec::new());
        for (index, window) in job.windows.iter().enumerate() {
            let mut missed_here = false;
            for (start, end) in instances(&window.kind, event.time_ms) {
                if end + window.allowed_lateness_ms <= watermark {
                    missed_here = true;
                } else {
                    counted = true;
                    targets.push((end, index, start, event.key.clone()));
                }
            }
            if missed_here {
                missed.push(window.name.as_str());
            }
        }
        if !counted && !missed.is_empty() {
            expectation
                .late
                .insert(place, (missed.join(","), watermark - event.time_ms));
            continue;
        }
        let fields = match numbers(job, &event.document) {
            Ok(fields) => fields,
            Err(reason) => {
                expectation.dead.insert(place, reason);
                continue;
            }
        };
        for target in targets {
            let end = target.0;
            let sums = open.entry(target).or_default();
            add(sums, &fields);
            if end <= watermark {
                let pane = Pane {
                    timing: "Late",
                    last: false,
                    values: values(job, sums),
                };
                sums.panes.push(pane);
            }
        }
        watermark = watermark.max(candidate(job, &event));
        fire(job, watermark, &mut open, expectation);
    }
    expectation.open += open.values().filter(|sums| sums.panes.is_empty()).count();
    open.into_iter().for_each(|(id, sums)| keep(job, id, sums, expectation));
    watermark
}

/// The watermark that an event allows.
fn candidate(job: &Resolved, event: &Event) -> i64 {
    let behind = event.time_ms - job.watermark.bound_ms();
    match &job.watermark {
        Watermark::BoundedOutOfOrderness { .. } | Watermark::Monotonic => behind,
        Watermark::Periodic { step_ms, .. } => behind.div_euclid(*step_ms) * step_ms,
        Watermark::Punctuated { field, unit } => at(&event.document, field)
            .and_then(|mark| time(*unit, mark))
            .unwrap_or(i64::MIN),
    }
}

fn fire(
    job: &Resolved,
    watermark: i64,
    open: &mut BTreeMap<(i64, usize, i64, String), Sums>,
    expectation: &mut Expectation,
) {
    for ((_, index, _, _), sums) in open.range_mut(..(watermark + 1, 0, i64::MIN, String::new())) {
        if sums.panes.is_empty() {
            let last = job.windows[*index].allowed_lateness_ms == 0;
            let pane = Pane {
                timing: "OnTime",
                last,
                values: values(job, sums),
            };
            sums.panes.push(pane);
        }
    }
    let purged = |id: &(i64, usize, i64, String)| id.0 + job.windows[id.1].allowed_lateness_ms <= watermark;
    let ended = open.range(..(watermark + 1, 0, i64::MIN, String::new()));
    let gone: Vec<_> = ended.map(|(id, _)| id.clone()).filter(purged).collect();
    for id in gone {
        if let Some(sums) = open.remove(&id) {
            keep(job, id, sums, expectation);
        }
    }
}

fn keep(job: &Resolved, id: (i64, usize, i64, String), sums: Sums, expectation: &mut Expectation) {
    let (end, index, start, key) = id;
    let window = (job.windows[index].name.clone(), start, key);
    merge(expectation.totals.entry((end, window.clone())).or_default(), &sums);
    if !sums.panes.is_empty() {
        expectation.panes.entry(window).or_default().extend(sums.panes);
    }
}

struct Event {
    time_ms: i64,
    key: String,
    document: Value,
}

fn at<'a>(document: &'a Value, pointer: &JsonPointer) -> Option<&'a Value> {
    document.pointer(pointer.as_str()).filter(|value| !value.is_null())
}

/// The checker knows fields only; jobs of the suite derive nothing.
fn input<'a>(document: &'a Value, input: &Input) -> Option<&'a Value> {
    match input {
        Input::Field(field) => at(document, field),
        Input::Let(_) => None,
    }
}

fn time(unit: TimeUnit, value: &Value) -> Option<i64> {
    match unit {
        TimeUnit::Rfc3339 => value
            .as_str()
            .and_then(|text| text.parse::<Instant>().ok())
            .map(|instant| instant.ms()),
        TimeUnit::Milliseconds => value.as_i64(),
        TimeUnit::Seconds => value.as_i64().map(|seconds| seconds * 1000),
        TimeUnit::Microseconds => value.as_i64().map(|micros| micros.div_euclid(1000)),
        TimeUnit::Nanoseconds => value.as_i64().map(|nanos| nanos.div_euclid(1_000_000)),
    }
}

fn read(job: &Resolved, bytes: &[u8]) -> Result<Event, &'static str> {
    let document: Value = serde_json::from_slice(bytes).map_err(|_| "JsonInvalid")?;
    if !document.is_object() {
        return Err("JsonInvalid");
    }
    let Timestamp::Field { field, unit } = &job.timestamp else {
        return Err("the checker knows times in fields only");
    };
    let time_ms = time(*unit, at(&document, field).ok_or("TimestampMissing")?).ok_or("TimestampInvalid")?;
    let mut key = serde_json::Map::new();
    for part in &job.group_by {
        let KeySource::Input(source) = &part.source else {
            return Err("the checker knows keys in fields only");
        };
        let value = match (input(&document, source), &part.when_missing) {
            (Some(Value::Object(_) | Value::Array(_)), _) => return Err("KeyInvalid"),
            (Some(value), _) => value.clone(),
            (None, Missing::Reject) => return Err("KeyMissing"),
            (None, Missing::Null) => Value::Null,
            (None, Missing::Default(KeyDefault::Integer(number))) => Value::from(*number),
            (None, Missing::Default(KeyDefault::Text(text))) => Value::from(text.as_str()),
        };
        key.insert(part.name.clone(), value);
    }
    Ok(Event {
        time_ms,
        key: Value::Object(key).to_string(),
        document,
    })
}

fn numbers(job: &Resolved, document: &Value) -> Result<Vec<Option<i128>>, &'static str> {
    let number = |function: &Function| match function.inputs().first().and_then(|source| input(document, source)) {
        None => Ok(None),
        Some(Value::Number(number)) => parse(&number.to_string()).map(Some).ok_or("NumberOutOfRange"),
        Some(_) => Err("FieldTypeInvalid"),
    };
    job.aggregates
        .iter()
        .map(|aggregate| number(&aggregate.function))
        .collect()
}

fn add(sums: &mut Sums, fields: &[Option<i128>]) {
    sums.events += 1;
    sums.fields.resize(fields.len(), (0, 0, i128::MAX, i128::MIN));
    for (sum, field) in sums.fields.iter_mut().zip(fields) {
        if let Some(value) = field {
            *sum = (sum.0 + 1, sum.1 + value, sum.2.min(*value), sum.3.max(*value));
        }
    }
}

fn values(job: &Resolved, sums: &Sums) -> Vec<String> {
    let value = |function: &Function, (seen, sum, least, greatest): (u64, i128, i128, i128)| match function {
        Function::Count => sums.events.to_string(),
        Function::Sum(_) | Function::Average(_) | Function::Min(_) | Function::Max(_) if seen == 0 => "null".to_owned(),
        Function::Sum(_) => decimal(sum),
        Function::Average(_) => decimal(average(sum, i128::from(seen))),
        Function::Min(_) => decimal(least),
        Function::Max(_) => decimal(greatest),
        Function::First(_)
        | Function::Last(_)
        | Function::ArgMin(..)
        | Function::ArgMax(..)
        | Function::Variance { .. }
        | Function::Stddev { .. }
        | Function::Percentile { .. }
        | Function::Distinct { .. }
        | Function::TopK { .. }
        | Function::Histogram { .. }
        | Function::Rate { .. }
        | Function::Ratio(..)
        | Function::WeightedAverage(..) => "a function that the checker does not know".to_owned(),
    };
    job.aggregates
        .iter()
        .zip(&sums.fields)
        .map(|(aggregate, sum)| value(&aggregate.function, *sum))
        .collect()
}

/// `(start, end)` of the windows that cover a time.
fn instances(kind: &WindowKind, time_ms: i64) -> Vec<(i64, i64)> {
    let (size, slide, offset) = match kind {
        WindowKind::Tumbling { size_ms, offset_ms } => (*size_ms, *size_ms, *offset_ms),
        WindowKind::Sliding {
            size_ms,
            slide_ms,
            offset_ms,
        } => (*size_ms, *slide_ms, *offset_ms),
        // The jobs of the crash harness have none of these; a result of one would be reported as one too many.
        WindowKind::Cumulative { .. }
        | WindowKind::Session { .. }
        | WindowKind::Count { .. }
        | WindowKind::Calendar { .. }
        | WindowKind::Global => return Vec::new(),
    };
    let mut start = time_ms - (time_ms - offset).rem_euclid(slide);
    let mut list = Vec::new();
    while start + size > time_ms {
        list.push((start, start + size));
        start -= slide;
    }
    list
}

#[cfg(test)]
mod tests;
