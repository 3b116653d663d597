//! Whether what is timed is right: the oracle's bytes on a small input of the same shape, and on the measured one the
//! number of events that the results count. Must not be timed.

use std::ops::Range;

use serde_json::Value;
use streamagg_processor::pipeline::operator::Task;
use streamagg_processor::pipeline::output::{Output, Outputs};
use streamagg_tests::oracle::{self, Entry, Expected};

use super::feed::Feed;
use super::workload::Workload;

/// Events of the input that the oracle sees too.
const EVENTS: usize = 2_000;

/// Compares the engine's results with the oracle's, byte by byte and in order.
pub fn against_oracle(workload: &Workload) -> Result<(), String> {
    // Few keys and few events a second: windows of all sizes fire, close and hold several events of a key.
    let mut feed = Feed::new(&format!(
        "events={EVENTS},rate=25,seed=7,tenants=5,keys=10,disorder=2000"
    ))?;
    let records = feed.next_chunk();
    let passes = |value: &[u8]| !workload.is_filtered || is_server_error(value);
    // The oracle knows no filter: it gets what passes. What does not pass moves the watermark too, so that only what
    // windows hold at the end can be compared.
    let mut log: Vec<Entry> = records
        .iter()
        .filter(|record| passes(record.value))
        .map(|record| Entry::Record(record.value.to_vec()))
        .collect();
    log.push(Entry::EndOfInput);
    let mut expected: Vec<(String, String)> = oracle::outputs(&workload.spec, &log)
        .into_iter()
        .filter_map(|output| match output {
            Expected::Result { key, value, .. } => Some((key, value)),
            Expected::Late { .. } | Expected::Dead { .. } => None,
        })
        .collect();
    let (mut task, mut outputs) = (Task::new(workload.plan()?, 0), Outputs::default());
    task.step(&records, &mut outputs);
    task.end_of_input(&mut outputs);
    let mut found = results(&outputs);
    if workload.is_filtered {
        found.sort();
        expected.sort();
    }
    if found.is_empty() || found != expected {
        let same = found
            .iter()
            .zip(&expected)
            .take_while(|(left, right)| left == right)
            .count();
        return Err(format!(
            "{}: result {same} of {} differs from the oracle's {}:\n{:?}\n{:?}",
            workload.name,
            found.len(),
            expected.len(),
            found.get(same),
            expected.get(same)
        ));
    }
    Ok(())
}

/// Whether the filtered workload counts an event, read by another parser.
pub fn is_server_error(value: &[u8]) -> bool {
    serde_json::from_slice::<Value>(value).is_ok_and(|event| event["status"].as_i64() >= Some(500))
}

/// Keys and values of the results.
fn results(outputs: &Outputs) -> Vec<(String, String)> {
    let text = |range: &Range<usize>| String::from_utf8_lossy(outputs.slice(range)).into_owned();
    let result = |output: &Output| match output {
        Output::Result(result) => Some((text(&result.key), text(&result.value))),
        Output::Late(_) | Output::Dead(_) => None,
    };
    outputs.list.iter().filter_map(result).collect()
}

/// Sum of `requests` over the results.
pub fn counted(outputs: &Outputs) -> u64 {
    const NAME: &[u8] = b"\"requests\":";
    let mut sum = 0;
    for output in &outputs.list {
        let Output::Result(result) = output else { continue };
        let value = outputs.slice(&result.value);
        let place = value.windows(NAME.len()).position(|bytes| bytes == NAME);
        let digits = &value[place.map_or(value.len(), |place| place + NAME.len())..];
        let number = |sum: u64, digit: &u8| sum * 10 + u64::from(digit - b'0');
        sum += digits.iter().take_while(|byte| byte.is_ascii_digit()).fold(0, number);
    }
    sum
}
