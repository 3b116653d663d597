//! Running a workload: once to check what it puts out, then several times for the CPU it takes.
//! Must not time the making of events.

use serde_json::{Value, json};
use streamagg_processor::pipeline::operator::Task;
use streamagg_processor::pipeline::output::Outputs;
use streamagg_processor::pipeline::position::TaskPosition;

use super::check;
use super::feed::Feed;
use super::workload::Workload;

/// Records handed to one step.
const BATCH: usize = 4096;
/// Timed runs; the best counts.
const RUNS: usize = 2;

/// What was measured.
pub struct Figures {
    pub cpu_seconds_per_million: f64,
    pub results: u64,
    pub rows: usize,
    pub state_bytes: usize,
}

impl Figures {
    pub fn json(&self, workload: &Workload) -> Value {
        json!({
            "workload": workload.name,
            "eventsPerCpuSecond": (1e6 / self.cpu_seconds_per_million).round(),
            "aim": workload.aim,
            "cpuSecondsPerMillionEvents": self.cpu_seconds_per_million,
            "events": workload.events,
            "results": self.results,
            "rows": self.rows,
            "stateBytes": self.state_bytes,
        })
    }
}

/// Checks and measures a workload.
pub fn run(workload: &Workload) -> Result<Figures, String> {
    let (position, results) = checked(workload)?;
    let mut best: Option<Figures> = None;
    for _ in 0..RUNS {
        let (figures, end) = timed(workload)?;
        if end != position {
            return Err(format!("{}: two runs put out different bytes", workload.name));
        }
        if best
            .as_ref()
            .is_none_or(|best| figures.cpu_seconds_per_million < best.cpu_seconds_per_million)
        {
            best = Some(Figures { results, ..figures });
        }
    }
    best.ok_or_else(|| "nothing was run".to_owned())
}

/// Runs to the end of the input and counts what the results count. Answers the position before the end of the input,
/// whose hash stands for every byte put out, and the number of results.
fn checked(workload: &Workload) -> Result<(TaskPosition, u64), String> {
    let mut feed = Feed::new(&workload.traffic())?;
    let (mut task, mut outputs) = (Task::new(workload.plan()?, 0), Outputs::default());
    let (mut found, mut passed) = (0, 0);
    loop {
        let records = feed.next_chunk();
        if records.is_empty() {
            break;
        }
        passed += match workload.is_filtered {
            true => records
                .iter()
                .filter(|record| check::is_server_error(record.value))
                .count(),
            false => records.len(),
        } as u64;
        for batch in records.chunks(BATCH) {
            outputs.clear();
            task.step(batch, &mut outputs);
            found += check::counted(&outputs);
        }
    }
    let (position, results) = (task.position(), task.stats().results);
    outputs.clear();
    task.end_of_input(&mut outputs);
    found += check::counted(&outputs);
    let expected = passed * workload.windows_per_event;
    if found != expected || task.stats().dead() > 0 {
        return Err(format!(
            "{}: the results count {found} events, not {expected}; {} dead",
            workload.name,
            task.stats().dead()
        ));
    }
    Ok((position, results))
}

fn timed(workload: &Workload) -> Result<(Figures, TaskPosition), String> {
    let mut feed = Feed::new(&workload.traffic())?;
    let (mut task, mut outputs) = (Task::new(workload.plan()?, 0), Outputs::default());
    let (mut seconds, mut rows, mut state_bytes) = (0.0, 0, 0);
    loop {
        let records = feed.next_chunk();
        let Some(first) = records.first() else { break };
        let is_measured = first.offset >= workload.warm_up as i64;
        let before = cpu_seconds();
        for batch in records.chunks(BATCH) {
            outputs.clear();
            task.step(batch, &mut outputs);
        }
        if is_measured {
            seconds += cpu_seconds() - before;
        }
        rows = rows.max(task.rows());
        state_bytes = state_bytes.max(task.state_bytes());
    }
    let figures = Figures {
        cpu_seconds_per_million: seconds / (workload.events as f64 / 1e6),
        results: 0,
        rows,
        state_bytes,
    };
    Ok((figures, task.position()))
}

/// CPU seconds of this process so far (user + system), from the kernel's scheduler statistics.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let first = text.split(' ').next().and_then(|first| first.parse::<f64>().ok());
    first.unwrap_or(f64::NAN) / 1e9
}
