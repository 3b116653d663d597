//! Compares what was read from the output topics with what had to be there. Must not read topics.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;
use serde_json::value::RawValue;
use streamagg_crds::resolved::{Resolved, WindowKind};

use super::{Expectation, OutputRecord, Pane, WindowKey, is_session};

/// Problems of one kind shown in full; the rest is counted.
const SHOWN_MAX: usize = 5;

/// An aggregate that came with a change of the spec: a window that was open then has it for later events only, and
/// earlier results do not have it at all. It is compared in windows that start from this time on.
#[derive(Clone, Debug)]
pub struct Added {
    /// Name of the aggregate.
    pub aggregate: String,
    /// Windows from this start on have it for all their events, ms.
    pub from_ms: i64,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Panes, late and dead records that are not there.
    pub lost: Vec<String>,
    /// The same pane, late or dead record again.
    pub repeated: Vec<String>,
    /// There, but with other content, or not to be there at all.
    pub wrong: Vec<String>,
    /// Result panes, late and dead records that are right.
    pub right: [usize; 3],
    /// Results that take back another.
    pub taken_back: usize,
}

impl Report {
    /// Nothing lost, repeated or wrong.
    pub fn is_clean(&self) -> bool {
        self.lost.is_empty() && self.repeated.is_empty() && self.wrong.is_empty()
    }

    /// Something that waiting cannot mend.
    pub fn is_broken(&self) -> bool {
        !self.repeated.is_empty() || !self.wrong.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [panes, late, dead] = self.right;
        write!(
            out,
            "{panes} panes, {late} late and {dead} dead records are right; {} lost, {} repeated, {} wrong",
            self.lost.len(),
            self.repeated.len(),
            self.wrong.len()
        )?;
        for (name, list) in [
            ("lost", &self.lost),
            ("repeated", &self.repeated),
            ("wrong", &self.wrong),
        ] {
            for problem in list.iter().take(SHOWN_MAX) {
                write!(out, "\n  {name}: {problem}")?;
            }
        }
        Ok(())
    }
}

/// Compares all results, late and dead records with what was expected.
pub fn compare(
    job: &Resolved,
    expected: &Expectation,
    results: &[OutputRecord],
    late: &[OutputRecord],
    dead: &[OutputRecord],
    added: &[Added],
) -> Report {
    let mut report = Report::default();
    if expected.last_only {
        compare_last(job, expected, results, added, &mut report);
    } else {
        compare_results(job, expected, results, added, &mut report);
    }
    let late_expected = expected
        .late
        .iter()
        .map(|(place, (windows, lateness_ms))| (*place, format!("Late {windows} {lateness_ms}")));
    compare_side("late", &late_expected.collect(), late, &mut report, 1, |headers| {
        let header = |name: &str| headers.get(name).map(String::as_str).unwrap_or_default();
        format!(
            "Late {} {}",
            header("streamagg-window"),
            header("streamagg-lateness-ms")
        )
    });
    let dead_expected = expected
        .dead
        .iter()
        .map(|(place, reason)| (*place, (*reason).to_owned()));
    compare_side("dead", &dead_expected.collect(), dead, &mut report, 2, |headers| {
        headers.get("streamagg-reason").cloned().unwrap_or_default()
    });
    report
}

fn compare_results(
    job: &Resolved,
    expected: &Expectation,
    results: &[OutputRecord],
    added: &[Added],
    report: &mut Report,
) {
    let mut seen: BTreeMap<WindowKey, BTreeSet<u64>> = BTreeMap::new();
    let mut retracted: BTreeSet<WindowKey> = BTreeSet::new();
    for record in results {
        let Some(result) = parse_result(&record.value) else {
            report.wrong.push(format!("not a result: {}", record.value));
            continue;
        };
        // An accident across revisions may emit again under a higher revision: here that is a repetition too, since
        // nothing in these suites asks for it.
        let is_first = match result.retracts {
            true => retracted.insert(result.id.clone()),
            false => seen.entry(result.id.clone()).or_default().insert(result.index),
        };
        if !is_first {
            report.repeated.push(record.value.clone());
            continue;
        }
        // Records of a key are in one partition, in the order in which they were written.
        if !result.retracts && retracted.contains(&result.id) {
            report
                .wrong
                .push(format!("behind what takes it back: {}", record.value));
        }
        report.taken_back += usize::from(result.retracts);
        match expected_pane(expected, &result).map(|pane| difference(job, &result, pane, added)) {
            None => report.wrong.push(format!("must not be there: {}", record.value)),
            Some(Some(difference)) => report.wrong.push(format!("{difference}: {}", record.value)),
            Some(None) => report.right[0] += 1,
        }
        if record.key != expected_record_key(job, &result, &record.value) {
            report
                .wrong
                .push(format!("record key {} of {}", record.key, record.value));
        }
    }
    for (id, panes) in &expected.panes {
        let have = seen.get(id);
        for (index, pane) in panes.iter().enumerate() {
            if !have.is_some_and(|indices| indices.contains(&(index as u64))) {
                report.lost.push(format!("{id:?} pane {index} {pane:?}"));
            }
        }
    }
    for id in expected.retracted.difference(&retracted) {
        report.lost.push(format!("{id:?} is not taken back"));
    }
}

/// The pane that a result has to be, or has to take back: of a session that is part of another one now, its last.
fn expected_pane<'e>(expected: &'e Expectation, result: &ResultLine) -> Option<&'e Pane> {
    let panes = expected.panes.get(&result.id)?;
    let index = usize::try_from(result.index).ok()?;
    let may_be = !result.retracts || (index + 1 == panes.len() && expected.retracted.contains(&result.id));
    panes.get(index).filter(|_| may_be)
}

/// Panes of a window and key come one after the other, each once, and the last one has all there is. One that has less
/// may still be followed by another, and a session that is part of another one by what takes it back.
fn compare_last(
    job: &Resolved,
    expected: &Expectation,
    results: &[OutputRecord],
    added: &[Added],
    report: &mut Report,
) {
    let mut seen: BTreeMap<WindowKey, (u64, ResultLine)> = BTreeMap::new();
    let mut taken: BTreeSet<WindowKey> = BTreeSet::new();
    for record in results {
        let Some(result) = parse_result(&record.value) else {
            report.wrong.push(format!("not a result: {}", record.value));
            continue;
        };
        if taken.contains(&result.id) {
            let behind = format!("behind what takes it back: {}", record.value);
            report.wrong.push(behind);
            continue;
        }
        if result.retracts {
            let is_last =
                |(panes, last): &(u64, ResultLine)| *panes == result.index + 1 && last.values == result.values;
            if !seen.remove(&result.id).is_some_and(|last| is_last(&last)) || !is_session(job, &result.id.0) {
                report.wrong.push(format!("not what is taken back: {}", record.value));
            }
            report.taken_back += 1;
            taken.insert(result.id);
            continue;
        }
        let begins_with = if expected.went_back { result.index } else { 0 };
        let panes = seen.get(&result.id).map_or(begins_with, |(panes, _)| *panes);
        if result.index != panes {
            let list = if result.index < panes {
                &mut report.repeated
            } else {
                &mut report.wrong
            };
            list.push(format!("pane {} after {panes} others: {}", result.index, record.value));
            continue;
        }
        if !expected.panes.contains_key(&result.id) && !is_session(job, &result.id.0) {
            report.wrong.push(format!("must not be there: {}", record.value));
        }
        seen.insert(result.id.clone(), (panes + 1, result));
    }
    for (id, panes) in &expected.panes {
        let found = seen.get(id).map(|(_, result)| result);
        let wanted = panes.first();
        match found
            .zip(wanted)
            .map(|(result, pane)| values_difference(job, result, pane, added))
        {
            None => report.lost.push(format!("{id:?}")),
            Some(Some(difference)) => report.lost.push(format!("{id:?}: {difference} in the last pane")),
            Some(None) => report.right[0] += 1,
        }
    }
    let is_over = |id: &&WindowKey| is_session(job, &id.0) && id.2 <= expected.sessions_over_ms;
    for id in seen
        .keys()
        .filter(is_over)
        .filter(|id| !expected.panes.contains_key(*id))
    {
        report.lost.push(format!("{id:?} is not taken back"));
    }
}

struct ResultLine {
    id: WindowKey,
    /// It takes back what was said of the window.
    retracts: bool,
    index: u64,
    timing: String,
    last: bool,
    /// Values as JSON text: numbers are compared by every digit.
    values: BTreeMap<String, String>,
}

fn parse_result(text: &str) -> Option<ResultLine> {
    let value: Value = serde_json::from_str(text).ok()?;
    let id = (
        value["window"].as_str()?.to_owned(),
        value["start"].as_i64()?,
        value["end"].as_i64()?,
        value["key"].to_string(),
    );
    let retracts = match value["op"].as_str()? {
        "Upsert" => false,
        "Retract" => true,
        _ => return None,
    };
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
    let values: BTreeMap<String, &RawValue> = serde_json::from_str(members.get("values")?.get()).ok()?;
    let pane = &value["pane"];
    Some(ResultLine {
        id,
        retracts,
        index: pane["index"].as_u64()?,
        timing: pane["timing"].as_str()?.to_owned(),
        last: pane["final"].as_bool()?,
        values: values
            .into_iter()
            .map(|(name, value)| (name, value.get().to_owned()))
            .collect(),
    })
}

/// `{"window":…,"start":…,"key":…}` of a result value, with the key's own text; of windows that grow, which share their
/// start, with the end.
fn expected_record_key(job: &Resolved, result: &ResultLine, value: &str) -> String {
    let mut windows = job.windows.iter().filter(|window| window.name == result.id.0);
    let has_end = windows.any(|window| matches!(window.kind, WindowKind::Cumulative { .. }));
    let start = value.find("\"window\":").unwrap_or_default();
    let end = value
        .find(if has_end { ",\"key\":" } else { ",\"end\":" })
        .unwrap_or_default();
    let key_start = value.find("\"key\":{").unwrap_or_default();
    let key_end = value.find(",\"pane\":").unwrap_or_default();
    let part = |from: usize, to: usize| value.get(from..to).unwrap_or_default();
    format!("{{{},{}}}", part(start, end), part(key_start, key_end))
}

fn difference(job: &Resolved, result: &ResultLine, pane: &Pane, added: &[Added]) -> Option<String> {
    if result.timing != pane.timing || result.last != pane.last {
        return Some(format!("should be {} with final {}", pane.timing, pane.last));
    }
    values_difference(job, result, pane, added)
}

fn values_difference(job: &Resolved, result: &ResultLine, pane: &Pane, added: &[Added]) -> Option<String> {
    for (aggregate, expected) in job.aggregates.iter().zip(&pane.values) {
        let is_young = |rule: &Added| rule.aggregate == aggregate.name && result.id.1 < rule.from_ms;
        if added.iter().any(is_young) {
            continue;
        }
        let found = result.values.get(&aggregate.name);
        if found != Some(expected) {
            return Some(format!("{} should be {expected}", aggregate.name));
        }
    }
    let known = |name: &String| job.aggregates.iter().any(|aggregate| aggregate.name == *name);
    result
        .values
        .keys()
        .find(|name| !known(name))
        .map(|name| format!("{name} is no aggregate"))
}

/// Late or dead records: each expected one once, told by the headers that name its source record.
fn compare_side(
    kind: &str,
    expected: &BTreeMap<(i32, i64), String>,
    records: &[OutputRecord],
    report: &mut Report,
    slot: usize,
    describe: impl Fn(&BTreeMap<String, String>) -> String,
) {
    let mut seen: BTreeMap<(i32, i64), ()> = BTreeMap::new();
    for record in records {
        let number = |name: &str| record.headers.get(name)?.parse::<i64>().ok();
        let place = number("streamagg-partition").zip(number("streamagg-offset"));
        let Some(place) = place.and_then(|(partition, offset)| Some((i32::try_from(partition).ok()?, offset))) else {
            report
                .wrong
                .push(format!("{kind} record without its place: {:?}", record.headers));
            continue;
        };
        if seen.insert(place, ()).is_some() {
            report.repeated.push(format!("{kind} record {place:?}"));
            continue;
        }
        let found = describe(&record.headers);
        match expected.get(&place) {
            Some(expected) if *expected == found => report.right[slot] += 1,
            Some(expected) => report
                .wrong
                .push(format!("{kind} record {place:?} is {found}, not {expected}")),
            None => report
                .wrong
                .push(format!("{kind} record {place:?} must not be there: {found}")),
        }
    }
    for (place, expected) in expected.iter().filter(|(place, _)| !seen.contains_key(place)) {
        report.lost.push(format!("{kind} record {place:?}: {expected}"));
    }
}
