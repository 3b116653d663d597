//! Strategies for specs and logs: disorder, lateness, broken records, numbers and keys at the edges.
//! Must not know the engine; a spec is rendered as the manifest a user would write.

mod event;
mod render;
mod window;

use std::fmt;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use self::event::{Draft, draft, render};
pub use self::render::manifest;
use self::window::window;
use crate::oracle::{Entry, Function, Missing, Shape, Spec, Unit, Watermark, Window, is_kept};

/// A spec and a log for it.
#[derive(Clone)]
pub struct Case {
    /// The parameters.
    pub spec: Spec,
    /// Offset of each entry's record, strictly ascending with gaps; for a decision the next input offset.
    pub offsets: Vec<i64>,
    /// The log.
    pub log: Vec<Entry>,
}

impl Case {
    /// The same where every record is kept: nobody decides otherwise.
    pub fn without_shedding(mut self) -> Self {
        let entries = self.log.into_iter().zip(self.offsets);
        let kept = entries.filter(|(entry, _)| !matches!(entry, Entry::Share(_)));
        let kept = kept.map(|(entry, offset)| match entry {
            Entry::Shed(record) => (*record, offset),
            entry => (entry, offset),
        });
        (self.log, self.offsets) = kept.unzip();
        self
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{:?}", self.spec)?;
        for (entry, (item, offset)) in self.log.iter().zip(&self.offsets).enumerate() {
            match item {
                Entry::Record(bytes) => writeln!(out, "  {entry} @{offset}: {:?}", String::from_utf8_lossy(bytes))?,
                Entry::Stamped(stamp, bytes) => writeln!(
                    out,
                    "  {entry} @{offset} at {stamp:?}: {:?}",
                    String::from_utf8_lossy(bytes)
                )?,
                Entry::Shed(record) => writeln!(out, "  {entry} @{offset}: shed: {record:?}")?,
                Entry::Share(halvings) => writeln!(out, "  {entry} @{offset}: keep 1/2^{halvings}")?,
                Entry::Clock(now) => writeln!(out, "  {entry} @{offset}: the clock says {now}")?,
                Entry::IdleAdvance(to) => writeln!(out, "  {entry} @{offset}: idle advance to {to}")?,
                Entry::Tick(now) => writeln!(out, "  {entry} @{offset}: tick at {now}")?,
                Entry::EndOfInput => writeln!(out, "  {entry} @{offset}: end of input")?,
            }
        }
        Ok(())
    }
}

const BAD_RECORDS: [&[u8]; 14] = [
    b"",
    b" ",
    b"{",
    b"nonsense",
    b"[1,2]",
    b"42",
    b"null",
    b"\"text\"",
    b"true",
    b"{\"ts\"",
    b"{\"ts\" 1}",
    b"{ts:1}",
    b"{\"ts\":}",
    b"\xff\xfe",
];
fn field(path: &str) -> Vec<String> {
    path.split('/').skip(1).map(str::to_owned).collect()
}

fn missing() -> impl Strategy<Value = Missing> {
    prop_oneof![
        Just(Missing::Reject),
        Just(Missing::Null),
        Just(Missing::Default(r#""unknown""#.to_owned())),
        Just(Missing::Default("7".to_owned())),
    ]
}

/// A part of the key that is around the record.
fn around() -> impl Strategy<Value = (String, Vec<String>, Missing)> {
    let names = select(vec![
        "@h",
        "@h",
        "@absent",
        "@Topic",
        "@Partition",
        "@Key",
        "@Key",
        "@Timestamp",
    ]);
    (names, missing()).prop_map(|(name, missing)| ("around".to_owned(), vec![name.to_owned()], missing))
}

fn watermark() -> impl Strategy<Value = Watermark> {
    prop_oneof![
        3 => Just(Watermark::Bounded),
        1 => Just(Watermark::Monotonic),
        1 => Just(Watermark::Punctuated { field: field("/n/wm") }),
        1 => (1..200i64).prop_map(|step_ms| Watermark::Periodic { step_ms }),
    ]
}

/// Strategy of the watermark, whether times are the records' own, how far ahead a time may be.
fn time_rules() -> impl Strategy<Value = (Watermark, bool, Option<i64>)> {
    let skew = prop_oneof![2 => Just(None), 1 => (0..100i64).prop_map(Some)];
    (watermark(), prop::bool::weighted(0.2), skew)
}

/// Any function, and the field it looks at.
fn aggregate() -> impl Strategy<Value = (Function, Vec<String>)> {
    let numeric = || select(vec!["/a", "/n/b", "/list/1"]).prop_map(field);
    let anything = || select(vec!["/a", "/n/b", "/tenant", "/n/model"]).prop_map(field);
    let of_numbers = select(vec![
        Function::Count,
        Function::Sum,
        Function::Average,
        Function::Min,
        Function::Max,
        Function::Variance(false),
        Function::Variance(true),
        Function::Stddev(false),
        Function::Stddev(true),
        Function::Percentile(vec!["0.5", "0.999", "0", "1"]),
        Function::Percentile(vec!["0.1", "0.333333333333"]),
        Function::Histogram(vec!["-1.5", "0", "0.1", "1000000"]),
        Function::EventRate(1000),
        Function::SumRate(60_000),
    ]);
    let of_anything = select(vec![
        Function::First,
        Function::Last,
        Function::Distinct,
        Function::TopK(1),
        Function::TopK(10),
    ]);
    let extreme = (numeric(), any::<bool>()).prop_map(|(by, least)| match least {
        true => Function::ArgMin(by),
        false => Function::ArgMax(by),
    });
    let pair = (numeric(), any::<bool>()).prop_map(|(other, weighted)| match weighted {
        true => Function::WeightedAverage(other),
        false => Function::Ratio(other),
    });
    prop_oneof![
        4 => (of_numbers, numeric()),
        2 => (of_anything, anything()),
        1 => (extreme, anything()),
        1 => (pair, numeric()),
    ]
}

/// Aggregates with their names; those that are in a composite make one with their neighbours.
fn named(aggregates: Vec<((Function, Vec<String>), bool)>) -> Vec<(String, Function, Vec<String>)> {
    let mut composites = 0;
    let name = |(n, ((function, path), is_member)): (usize, ((Function, Vec<String>), bool))| {
        composites += usize::from(!is_member);
        let within = if is_member {
            format!("c{composites}.")
        } else {
            String::new()
        };
        (format!("{within}x{n}"), function, path)
    };
    aggregates.into_iter().enumerate().map(name).collect()
}

/// Any spec of this version's windows and aggregates.
pub fn spec() -> impl Strategy<Value = Spec> {
    let unit = select(vec![
        Unit::Rfc3339,
        Unit::Seconds,
        Unit::Milliseconds,
        Unit::Microseconds,
        Unit::Nanoseconds,
    ]);
    let aggregates = prop::collection::vec((aggregate(), prop::bool::weighted(0.3)), 1..8);
    let group_by = prop::collection::vec(missing(), 0..=2);
    (
        unit,
        (0..120i64, time_rules(), prop::bool::weighted(0.3)),
        (
            group_by,
            prop::option::weighted(0.25, around()),
            prop::option::weighted(0.25, any::<bool>()),
        ),
        prop::collection::vec(window(), 1..=3),
        aggregates,
    )
        .prop_map(
            |(
                unit,
                (bound_ms, (watermark, stamped, skew_ms), sheds),
                (group_by, around, explode),
                windows,
                aggregates,
            )| {
                Spec {
                    // Elements may have times of their own.
                    timestamp: match (stamped, explode) {
                        (true, _) => Vec::new(),
                        (false, Some(true)) => field("/n/ts"),
                        (false, _) => field("/ts"),
                    },
                    explode: explode.map(|_| field("/n")),
                    unit,
                    bound_ms,
                    watermark,
                    skew_ms,
                    sheds,
                    group_by: (group_by.into_iter().zip([("tenant", "/tenant"), ("model", "/n/model")]))
                        .map(|(missing, (name, path))| (name.to_owned(), field(path), missing))
                        .chain(around)
                        .collect(),
                    // Names descend so that order by name and order in the spec differ.
                    windows: (windows.into_iter().zip(["w-c", "w-b", "w-a"]))
                        .map(|(window, name)| Window {
                            name: name.to_owned(),
                            ..window
                        })
                        .collect(),
                    aggregates: named(aggregates),
                }
            },
        )
}

#[derive(Clone, Debug)]
enum DraftEntry {
    Event(Box<Draft>),
    Bad(&'static [u8]),
    Idle(i64),
    Clock(i64),
    Tick(i64),
    Share(u8),
}

fn draft_entry() -> impl Strategy<Value = DraftEntry> {
    prop_oneof![
        60 => draft().prop_map(|draft| DraftEntry::Event(Box::new(draft))),
        2 => select(&BAD_RECORDS[..]).prop_map(DraftEntry::Bad),
        1 => (-100..300i64).prop_map(DraftEntry::Idle),
        2 => (-100..100i64).prop_map(DraftEntry::Clock),
        3 => (0..500i64).prop_map(DraftEntry::Tick),
        3 => (0..5u8).prop_map(DraftEntry::Share),
    ]
}

/// Any spec with a log of up to `records_max` records for it, ended or not.
pub fn case(records_max: usize) -> impl Strategy<Value = Case> {
    let base = select(vec![
        0i64,
        -3_000,
        -86_400_000 * 365,
        951_782_399_000,
        1_700_000_000_000,
        253_402_300_000_000,
    ]);
    let entries = prop::collection::vec((draft_entry(), 1..4i64), 0..=records_max);
    (spec(), base, entries, any::<bool>()).prop_map(|(spec, base, entries, ended)| {
        let has_days = spec.windows.iter().any(|window| window.shape == Shape::Day); // None behind the year 9999.
        let base = if has_days { base.min(1_700_000_000_000) } else { base };
        let (mut now, mut next, mut clock) = (base, 0, 0);
        let (mut log, mut offsets) = (Vec::new(), Vec::new());
        for (entry, gap) in entries {
            match entry {
                DraftEntry::Event(draft) => {
                    now += draft.step_ms;
                    let time_ms = now + draft.shift_ms;
                    let value = render(&spec, &draft, time_ms, draft.mark_ms.map(|mark_ms| now + mark_ms));
                    log.push(match (spec.timestamp.is_empty(), draft.bad_time) {
                        (false, _) => Entry::Record(value),
                        (true, None) => Entry::Stamped(Some(time_ms), value),
                        (true, Some("")) => Entry::Stamped(Some(i64::MAX), value),
                        (true, Some(_)) => Entry::Stamped(None, value),
                    });
                }
                DraftEntry::Bad(bytes) => log.push(Entry::Record(bytes.to_vec())),
                DraftEntry::Tick(step_ms) => {
                    clock += step_ms;
                    log.push(Entry::Tick(clock));
                    offsets.push(next);
                    continue;
                }
                DraftEntry::Share(halvings) => {
                    if spec.sheds {
                        log.push(Entry::Share(halvings));
                        offsets.push(next);
                    }
                    continue;
                }
                DraftEntry::Idle(ahead_ms) => {
                    log.push(Entry::IdleAdvance(now + ahead_ms));
                    offsets.push(next);
                    continue;
                }
                DraftEntry::Clock(ahead_ms) => {
                    log.push(Entry::Clock(now + ahead_ms));
                    offsets.push(next);
                    continue;
                }
            }
            offsets.push(next + gap - 1);
            next += gap;
        }
        if ended {
            log.push(Entry::EndOfInput);
            offsets.push(next);
        }
        mark_shed(&mut log, 0, |entry| offsets[entry]);
        Case { spec, offsets, log }
    })
}

/// Marks the records of a log that the share in force does not keep, by their offsets in a partition.
pub fn mark_shed(log: &mut [Entry], partition: u32, offset: impl Fn(usize) -> i64) {
    let mut halvings = 0;
    for (entry, item) in log.iter_mut().enumerate() {
        if let Entry::Share(decided) = item {
            halvings = *decided;
        }
        let record = match std::mem::replace(item, Entry::EndOfInput) {
            Entry::Shed(record) => *record,
            other => other,
        };
        let is_shed = record.record().is_some() && !is_kept(partition, offset(entry), halvings);
        *item = if is_shed { Entry::Shed(Box::new(record)) } else { record };
    }
}

/// Cuts of a log of any length into batches, used round and round.
pub fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        Just(vec![1]),
        Just(vec![1_000_000]),
        prop::collection::vec(1..40usize, 1..8)
    ]
}

/// Places in a list of any length.
pub fn places() -> impl Strategy<Value = Vec<Index>> {
    prop::collection::vec(any::<Index>(), 0..5)
}
