//! Benchmarks of the processor on a real broker, exactly once, beside Flink's SQL on the same topics where that can say
//! the same. Prints a table for people and writes a JSON file for scripts. A figure counts only when every result was
//! compared with the batch answer.
//! Must not assert anything about time.
//!
//! `bench-broker [EVENTS] [--workloads "W2 W8"] [--no-flink] [--json FILE]`

mod disturbed;
mod drain;
mod feed;
mod flink;
mod job;
mod live;
mod workload;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};
use streamagg_e2e::broker::Broker;

use self::drain::Filled;
use self::workload::{Workload, workloads};

/// Name of the broker that is started for this.
const BROKER: &str = "bench";
/// Events of a workload that drains a topic, when nothing else is said.
const EVENTS: u64 = 1_000_000;
/// Where the figures go when nothing else is said.
const JSON_FILE: &str = "target/bench/broker.json";
/// The workloads that do not drain a topic.
const OTHERS: [&str; 3] = ["W8", "W9", "W10"];

fn main() -> ExitCode {
    let bench = Arguments::parse(std::env::args().skip(1)).and_then(|arguments| run(&arguments));
    match bench {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Arguments {
    events: u64,
    /// All when empty.
    chosen: Vec<String>,
    is_beside_flink: bool,
    file: PathBuf,
}

impl Arguments {
    fn parse(mut given: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self {
            events: EVENTS,
            chosen: Vec::new(),
            is_beside_flink: true,
            file: PathBuf::from(JSON_FILE),
        };
        while let Some(argument) = given.next() {
            match argument.as_str() {
                "--workloads" => {
                    let names = given.next().ok_or("--workloads: name some")?;
                    arguments.chosen = names.split_whitespace().map(str::to_uppercase).collect();
                }
                "--no-flink" => arguments.is_beside_flink = false,
                "--json" => arguments.file = given.next().ok_or("--json: name a file")?.into(),
                number => {
                    arguments.events = number
                        .parse()
                        .map_err(|_| format!("{number:?} is no number of events"))?;
                }
            }
        }
        let all = workloads();
        let known = |name: &String| OTHERS.contains(&name.as_str()) || all.iter().any(|one| one.id == name);
        match arguments.chosen.iter().find(|name| !known(name)) {
            None => Ok(arguments),
            Some(name) => {
                let ids: Vec<&str> = all.iter().map(|one| one.id).chain(OTHERS).collect();
                Err(format!("no workload {name}; there are {}", ids.join(" ")))
            }
        }
    }

    fn is_chosen(&self, id: &str) -> bool {
        self.chosen.is_empty() || self.chosen.iter().any(|name| name == id)
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    if arguments.is_beside_flink {
        flink::fetch()?;
    } else {
        println!("not chosen: Flink");
    }
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let broker = Broker::start(BROKER)?;
    let measured = measure(&broker, directory.path(), arguments);
    let kept = match &measured {
        Ok(_) => None,
        Err(_) => Some(directory.keep()),
    };
    Broker::delete(BROKER)?;
    let figures = measured.map_err(|error| {
        let place = kept.unwrap_or_default();
        format!("{error}\nlogs are in {}", place.display())
    })?;
    if let Some(parent) = arguments.file.parent() {
        std::fs::create_dir_all(parent).map_err(|error| error.to_string())?;
    }
    let text = serde_json::to_string_pretty(&figures).map_err(|error| error.to_string())?;
    std::fs::write(&arguments.file, text + "\n").map_err(|error| format!("{}: {error}", arguments.file.display()))?;
    println!("figures: {}", arguments.file.display());
    Ok(())
}

fn measure(broker: &Broker, directory: &Path, arguments: &Arguments) -> Result<Value, String> {
    let mut figures = json!({"events": arguments.events});
    let mut filled = Filled::default();
    println!(
        "Exactly once on a real broker, {} partitions; event time 100,000/s, disorder 2 s, bound 5 s, 529 B a event;",
        job::PARTITIONS
    );
    println!(
        "every result of ours compared with the batch answer, Flink's counted and summed. CPU of the broker is not in it."
    );
    println!("{}", drain::head());
    for workload in workloads().iter().filter(|workload| arguments.is_chosen(workload.id)) {
        figures[workload.id] = drained(broker, directory, workload, &mut filled, arguments)?;
    }
    if arguments.is_chosen("W8") {
        figures["W8"] = latencies(broker, directory, arguments)?;
    }
    if arguments.is_chosen("W9") || arguments.is_chosen("W10") {
        let found = disturbed::recovery_and_checkpoint(broker, directory)?;
        println!(
            "W9  SIGKILL at 100,000 events/s with {} open windows: every task commits again after {:.2} s, with the \
             volume lost after {:.2} s",
            found["windows"],
            found["diskKeptSeconds"].as_f64().unwrap_or(f64::NAN),
            found["diskLostSeconds"].as_f64().unwrap_or(f64::NAN)
        );
        println!(
            "W10 checkpoint under that load: a task pauses for {:.0} ms, the upload takes {:.1} s",
            found["checkpointPauseMs"].as_f64().unwrap_or(f64::NAN),
            found["checkpointSeconds"].as_f64().unwrap_or(f64::NAN)
        );
        figures["W9 W10"] = found;
        if arguments.is_beside_flink {
            let flink = disturbed::beside_flink(broker, directory)?;
            println!(
                "    Flink     SIGKILL of its JVM: goes on after {:.1} s from the newest checkpoint; a checkpoint takes {:.1} s",
                flink["recoverySeconds"].as_f64().unwrap_or(f64::NAN),
                flink["checkpointSeconds"].as_f64().unwrap_or(f64::NAN)
            );
            figures["W9 W10"]["flink"] = flink;
        }
    }
    Ok(figures)
}

fn drained(
    broker: &Broker,
    directory: &Path,
    workload: &Workload,
    filled: &mut Filled,
    arguments: &Arguments,
) -> Result<Value, String> {
    let events = arguments.events;
    let records = filled.fill(broker, &workload.input, events)?;
    let job = drain::job(broker, directory, workload)?;
    let own = drain::drain(&job, broker, workload, events, records)?;
    let title = format!("{:4}{}", workload.id, workload.title);
    println!("{}", drain::line(&title, "streamagg", &own.figures));
    if !arguments.is_beside_flink || workload.flink.is_none() {
        return Ok(json!({"title": workload.title, "streamagg": own.figures}));
    }
    let flink = flink::drain(broker, directory, workload, (records, &own))?;
    println!("{}", drain::line("", "Flink", &flink));
    let cpu = |figures: &Value| figures["cpuSecondsPerMillion"].as_f64().unwrap_or(f64::NAN);
    let ratio = cpu(&flink) / cpu(&own.figures);
    let same = flink["sameResults"].as_bool().unwrap_or_default();
    println!(
        "{:42} {ratio:.1} times Flink's events a CPU second{}",
        "",
        if same {
            ""
        } else {
            ", to be taken with care: Flink's results are not the same in number and sum"
        }
    );
    let ratio = same.then_some(ratio);
    Ok(json!({"title": workload.title, "streamagg": own.figures, "flink": flink, "ratio": ratio}))
}

fn latencies(broker: &Broker, directory: &Path, arguments: &Arguments) -> Result<Value, String> {
    let line = |id: &str, who: &str, figures: &Value| {
        let number = |name: &str| figures[name].as_f64().unwrap_or(f64::NAN);
        println!(
            "{id:3} {who:10} p50 {:.0} ms, p95 {:.0} ms, p99 {:.0} ms, at most {:.0} ms over {} results",
            number("p50Ms"),
            number("p95Ms"),
            number("p99Ms"),
            number("maxMs"),
            figures["results"]
        );
    };
    println!(
        "W8  10,000 events/s, tumble 1 s: from the send of the event that closes a window to its committed result"
    );
    live::warm_up(broker, directory)?;
    let own = live::latency(broker, directory)?;
    line("W8", "streamagg", &own);
    let by_task = live::latency_by_task(broker, directory)?;
    line("W8T", "streamagg", &by_task);
    if !arguments.is_beside_flink {
        return Ok(json!({"streamagg": own, "partitionerTask": by_task}));
    }
    let flink = flink::latency(broker, directory)?;
    line("W8", "Flink", &flink);
    Ok(json!({"streamagg": own, "partitionerTask": by_task, "flink": flink}))
}
