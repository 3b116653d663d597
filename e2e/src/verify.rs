//! Reads source and outputs of a job from a broker and has the checker compare them. Must not produce or kill.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use streamagg_crds::resolved::Resolved;

use crate::broker::{Broker, Reader};
use crate::checker::{Added, OutputRecord, Report, SourceRecord, compare, expect};
use crate::wait::{Seen, await_condition};

/// The four topics of a job.
pub struct Verifier {
    job: Resolved,
    source: Reader<SourceRecord>,
    results: Reader<OutputRecord>,
    late: Reader<OutputRecord>,
    dead: Reader<OutputRecord>,
    /// Aggregates that came later.
    pub added: Vec<Added>,
    /// The same record may come again, as at-least-once delivery has it.
    pub may_repeat: bool,
    /// The job went back to a checkpoint: of a window's results those of the highest revision hold, and late and dead
    /// records behind it come again.
    pub went_back: bool,
}

impl Verifier {
    /// Opens the topics of a job, which needs both side topics.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub fn open(broker: &Broker, job: &Resolved) -> Result<Self, String> {
        let side = |topic: &Option<String>| topic.clone().ok_or("the job has no late or dead-letter topic");
        Ok(Self {
            source: broker.source_reader(&job.source.topics[0])?,
            results: broker.reader(&job.sink.topic)?,
            late: broker.reader(&side(&job.late_topic)?)?,
            dead: broker.reader(&side(&job.dead_letter_topic)?)?,
            job: job.clone(),
            added: Vec::new(),
            may_repeat: false,
            went_back: false,
        })
    }

    /// From here on results have other aggregates.
    pub fn change_job(&mut self, job: &Resolved, added: Vec<Added>) {
        self.job = job.clone();
        self.added.extend(added);
    }

    /// Reads new results; answers how many there are in all.
    ///
    /// # Errors
    /// When the broker does.
    pub fn results(&mut self) -> Result<usize, String> {
        self.results.read_on()?;
        Ok(self.results.records.len())
    }

    /// Reads on; answers how many records were new. Outputs first: what they rest on is then surely in what is read of the
    /// source.
    fn read_on(&mut self) -> Result<usize, String> {
        let outputs = self.results.read_on()? + self.late.read_on()? + self.dead.read_on()?;
        Ok(outputs + self.source.read_on()?)
    }

    /// Reads everything that is committed now and compares.
    ///
    /// # Errors
    /// When the broker does.
    pub fn report(&mut self) -> Result<Report, String> {
        self.read_on()?;
        Ok(self.compare())
    }

    fn compare(&self) -> Report {
        let mut expected = expect(&self.job, &self.source.records);
        expected.went_back = self.went_back;
        let side = |reader| once(reader, self.may_repeat || self.went_back);
        let (mut results, late, dead) = (once(&self.results, self.may_repeat), side(&self.late), side(&self.dead));
        if self.went_back {
            results = newest(&results, expected.last_only).into();
        }
        compare(&self.job, &expected, &results, &late, &dead, &self.added)
    }

    /// Highest revision of a result that was read so far.
    pub fn revision(&self) -> u64 {
        let outputs = self.results.records.iter();
        let revisions = outputs.filter_map(|record| pane(record)?["revision"].as_u64());
        revisions.max().unwrap_or(0)
    }

    /// Waits until everything is there; gives up at once when something is repeated or wrong.
    ///
    /// # Errors
    /// The last report, when it is not clean.
    pub fn await_clean(&mut self, deadline: Duration) -> Result<Report, String> {
        let mut last = None;
        let outcome = await_condition("every expected output", deadline, || {
            // Comparing takes seconds, which what is waited for can use.
            let report = match (self.read_on(), last.take()) {
                (Err(error), _) => return Seen::NotYet(error),
                (Ok(0), Some(report)) => report,
                (Ok(_), _) => self.compare(),
            };
            if self.source.records.is_empty() {
                return Seen::NotYet("nothing in the source topic".to_owned());
            }
            if report.is_clean() {
                return Seen::Done(Ok(report));
            }
            if report.is_broken() {
                return Seen::Done(Err(report.to_string()));
            }
            let seen = report.to_string();
            last = Some(report);
            Seen::NotYet(seen)
        });
        outcome?
    }

    /// Fails when something is repeated or wrong now; what is still missing may come.
    ///
    /// # Errors
    /// The report.
    pub fn check_so_far(&mut self) -> Result<Report, String> {
        let report = self.report()?;
        if report.is_broken() {
            Err(report.to_string())
        } else {
            Ok(report)
        }
    }

    /// Records in the source topic that were read so far.
    pub fn source_len(&self) -> usize {
        self.source.records.len()
    }
}

/// What was read, with the same record only once where it may repeat.
fn once(reader: &Reader<OutputRecord>, may_repeat: bool) -> Cow<'_, [OutputRecord]> {
    if !may_repeat {
        return Cow::Borrowed(&reader.records);
    }
    let mut seen = BTreeSet::new();
    let records = reader.records.iter();
    let first = records.filter(|record| seen.insert((&record.key, &record.value, &record.headers)));
    first.cloned().collect()
}

fn pane(record: &OutputRecord) -> Option<Value> {
    let mut value: Value = serde_json::from_str(&record.value).ok()?;
    Some(value.get_mut("pane")?.take())
}

/// Highest revision, and what has it.
type Newest<'a> = (u64, Vec<&'a OutputRecord>);

/// Of each pane of a window and key (which the record's key names) what has the highest revision: more than one is a
/// repetition, which the checker finds. `of_window`: all panes that have the window's highest revision, where only the last of
/// them has to be what is expected.
fn newest(records: &[OutputRecord], of_window: bool) -> Vec<OutputRecord> {
    let mut panes: BTreeMap<(&str, Option<u64>), Newest<'_>> = BTreeMap::new();
    for record in records {
        let pane = pane(record).unwrap_or_default();
        let revision = pane["revision"].as_u64().unwrap_or(0);
        let index = pane["index"].as_u64().filter(|_| !of_window);
        let (newest, held) = panes.entry((&record.key, index)).or_default();
        if revision > *newest {
            held.clear();
        }
        if revision >= *newest {
            *newest = revision;
            held.push(record);
        }
    }
    panes.into_values().flat_map(|(_, held)| held).cloned().collect()
}
