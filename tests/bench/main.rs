//! Benchmarks of the engine: one core, input in memory. A table for a person, a JSON file for a script.
//! Must not assert anything about time; a figure counts only when the output it came from was checked.
//!
//! `bench [EVENTS] [--json FILE]`; `bench memory NAME` is what it runs of itself for figures of memory.

mod check;
mod feed;
mod memory;
mod run;
mod workload;

use std::process::ExitCode;

use serde_json::{Value, json};

use self::run::Figures;
use self::workload::{Workload, workloads};

/// Where the figures go when nothing else is said.
const JSON_FILE: &str = "target/bench/engine.json";
/// Events measured of each workload when nothing else is said.
const EVENTS: u64 = 1_000_000;

fn main() -> ExitCode {
    match bench(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("bench: {message}");
            ExitCode::FAILURE
        }
    }
}

fn bench(arguments: Vec<String>) -> Result<(), String> {
    let (mut events, mut file, mut only) = (EVENTS, JSON_FILE.to_owned(), String::new());
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "memory" => return memory::child(&arguments.next().unwrap_or_default()),
            "--json" => file = arguments.next().ok_or("--json: name a file")?,
            "--only" => only = arguments.next().ok_or("--only: name a workload")?,
            number => {
                events = number
                    .parse()
                    .map_err(|_| format!("{number:?} is no number of events"))?;
            }
        }
    }
    println!("Event time 100,000/s, disorder 2 s, bound 5 s, 20,000 keys where not said otherwise; output checked.");
    println!(
        "{:34} {:>12} {:>9} {:>10} {:>11} {:>10} {:>9}",
        "workload", "events/CPU s", "aim", "CPU s/M", "results", "rows", "state MB"
    );
    let mut lines = Vec::new();
    for workload in workloads(events)
        .iter()
        .filter(|workload| workload.name.contains(&only))
    {
        check::against_oracle(workload)?;
        let figures = run::run(workload)?;
        print_line(workload, &figures);
        lines.push(figures.json(workload));
    }
    let beside = three_beside_one(&lines);
    if let Some(ratio) = beside {
        println!("three windows beside one: {ratio:.2} times the cost (goal < 1.3)");
    }
    let memory = if only.is_empty() {
        memory::figures()?
    } else {
        Vec::new()
    };
    write_json(
        &file,
        &json!({"engine": lines, "threeWindowsBesideOne": beside, "memory": memory}),
    )
}

fn print_line(workload: &Workload, figures: &Figures) {
    let aim = workload.aim.map_or(String::new(), |aim| aim.to_string());
    println!(
        "{:34} {:>12.0} {:>9} {:>10.3} {:>11} {:>10} {:>9.1}",
        workload.name,
        1e6 / figures.cpu_seconds_per_million,
        aim,
        figures.cpu_seconds_per_million,
        figures.results,
        figures.rows,
        figures.state_bytes as f64 / 1e6,
    );
}

/// W5: what three windows cost beside one of them.
fn three_beside_one(lines: &[Value]) -> Option<f64> {
    let cost = |name: &str| {
        let line = lines.iter().find(|line| line["workload"] == name)?;
        line["cpuSecondsPerMillionEvents"].as_f64()
    };
    Some(cost(workload::THREE)? / cost(workload::ONE)?)
}

fn write_json(file: &str, document: &Value) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{file}: {error}");
    if let Some(directory) = std::path::Path::new(file).parent() {
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    std::fs::write(file, format!("{document:#}\n")).map_err(failed)?;
    println!("{file} holds these figures for scripts");
    Ok(())
}
