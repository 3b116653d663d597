//! Memory of 100,000 windows (W13): each kind in a process of its own, by the kernel's count of resident pages.
//! Must not time anything.

use serde_json::{Value, json};
use streamagg_processor::pipeline::operator::Task;
use streamagg_processor::pipeline::output::Outputs;
use streamagg_tests::oracle::{Repeat, Shape, Window};

use super::feed::Feed;
use super::workload::{Workload, eight_and_sketches, spec, window};

const WINDOWS: usize = 100_000;
/// Aim for 100,000 windows, bytes.
const AIM: u64 = 150_000_000;
/// Records handed to one step; few, for they lie in memory too.
const BATCH: usize = 4096;

/// Name, window, keys, events.
const KINDS: [(&str, u64, u64); 5] = [
    ("tumbling, 10 events a window", 100_000, 1_000_000),
    ("tumbling, 60 events a window", 100_000, 6_000_000),
    ("sliding, 10 panes of 10 k keys", 10_000, 1_000_000),
    ("early panes, 10 events a window", 100_000, 1_000_000),
    ("session, 10 events a window", 100_000, 1_000_000),
];

fn shape(name: &str) -> Window {
    const HOUR: i64 = 3_600_000;
    let tumbling = window("w", Shape::Sliding, HOUR, HOUR);
    if name.starts_with("sliding") {
        window("w", Shape::Sliding, 100_000, 1_000)
    } else if name.starts_with("session") {
        window("w", Shape::Session, 0, HOUR)
    } else if name.starts_with("early") {
        let mut early = tumbling;
        early.trigger.early = Some(Repeat::Events(1_000_000));
        early
    } else {
        tumbling
    }
}

/// Runs every kind in a child and prints its line.
pub fn figures() -> Result<Vec<Value>, String> {
    println!(
        "Memory of 100,000 windows, 8 aggregates + p50/p95/p99 + distinct (aim {} MB):",
        AIM / 1_000_000
    );
    println!(
        "{:34} {:>12} {:>12} {:>14}",
        "windows", "resident MB", "counted MB", "after expiry MB"
    );
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut lines = Vec::new();
    for (name, _, _) in KINDS {
        let output = std::process::Command::new(&program).args(["memory", name]).output();
        let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
        let line: Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("{name}: {error}; {}", String::from_utf8_lossy(&output.stderr)))?;
        let megabytes = |member: &str| line[member].as_f64().unwrap_or(f64::NAN) / 1e6;
        println!(
            "{name:34} {:>12.1} {:>12.1} {:>14.1}",
            megabytes("residentBytes"),
            megabytes("stateBytes"),
            megabytes("stateBytesAfterExpiry")
        );
        lines.push(line);
    }
    Ok(lines)
}

/// Measures one kind in this process and prints JSON.
pub fn child(name: &str) -> Result<(), String> {
    let kind = KINDS.iter().find(|kind| kind.0 == name);
    let (_, keys, events) = kind.ok_or_else(|| format!("memory: {name:?} is not measured"))?;
    let workload = Workload {
        name: "memory",
        aim: None,
        spec: spec(vec![shape(name)], eight_and_sketches()),
        is_filtered: false,
        keys: *keys,
        warm_up: 0,
        events: *events,
        windows_per_event: 1,
    };
    let mut feed = Feed::new(&workload.traffic())?;
    let (mut task, mut outputs) = (Task::new(workload.plan()?, 0), Outputs::default());
    let mut before = None;
    loop {
        let records = feed.next_chunk();
        // The input is in memory by now, the state is not.
        let before = *before.get_or_insert_with(resident_bytes);
        if records.is_empty() {
            let rows = task.rows();
            if rows < WINDOWS * 9 / 10 {
                return Err(format!("{name}: {rows} windows, too few"));
            }
            let (resident, state) = (resident_bytes().saturating_sub(before), task.state_bytes());
            task.end_of_input(&mut outputs);
            println!(
                "{}",
                json!({"windows": name, "rows": rows, "aimBytes": AIM, "residentBytes": resident, "stateBytes": state,
                    "stateBytesAfterExpiry": task.state_bytes()})
            );
            return Ok(());
        }
        for batch in records.chunks(BATCH) {
            outputs.clear();
            task.step(batch, &mut outputs);
        }
    }
}

/// Resident pages of this process, bytes.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}
