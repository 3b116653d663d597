//! What keeping the state costs: the same events without a store, with the memory backend and with RocksDB, an epoch after
//! another as the processor cuts them. CPU of all threads, RocksDB's own included. Must not assert anything about time.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use streamagg_crds::manifest::parse_manifest;
use streamagg_crds::validate::resolve;
use streamagg_processor::generator::{Generator, Options};
use streamagg_processor::pipeline::builder::Plan;
use streamagg_processor::pipeline::operator::Task;
use streamagg_processor::pipeline::output::{Outputs, Record};
use streamagg_processor::state::backend::{Backend, Changes};
use streamagg_processor::state::memory::MemoryBackend;
use streamagg_processor::state::rocksdb::{RocksBackend, Shared};

/// Tumbling windows of 10 s over 20,000 keys, 8 aggregates.
const MANIFEST: &str = include_str!("../../tests/tools/bench-local.yaml");
/// Two seconds of disorder; event time 100,000 events a second, so that windows fire and are purged.
const TRAFFIC: &str = "rate=100000,disorder=2000,tenants=4000,models=5,keys=20000,seed=1";
const EVENTS: u64 = 2_000_000;
const BATCH: usize = 4096;
/// Batches of an epoch: five epochs a second at 100,000 events a second.
const EPOCH: usize = 5;
/// Cache and write buffers of RocksDB.
const BUDGET: usize = 64 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let events = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(EVENTS);
    let manifest = parse_manifest(MANIFEST).map_err(|errors| format!("{errors:?}"))?;
    let job = resolve(&manifest.spec, "default", "bench").map_err(|errors| format!("{errors:?}"))?;
    let plan = Arc::new(Plan::compile(&job));
    let options: Options = format!("{TRAFFIC},events={events}").parse()?;
    let input = Input::new(options);
    println!(
        "State: tumbling windows of 10 s, 8 aggregates, 20,000 keys, {events} events, an epoch every {} events:",
        BATCH * EPOCH
    );
    println!(
        "{:10} {:>14} {:>10} {:>14} {:>14}",
        "backend", "events/CPU s", "CPU s/M", "entries", "MB written"
    );
    let none = measure("none", &input, &plan, None::<MemoryBackend>)?;
    let memory = measure("memory", &input, &plan, Some(MemoryBackend::default()))?;
    let directory = tempfile::tempdir()?;
    let rocksdb = RocksBackend::open(directory.path(), &Shared::new(BUDGET, 1))?;
    let rocksdb = measure("rocksdb", &input, &plan, Some(rocksdb))?;
    println!("{{\"backends\":[{none},{memory},{rocksdb}]}}");
    Ok(())
}

/// All events in memory.
struct Input {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Input {
    fn new(options: Options) -> Self {
        let (mut generator, mut bytes, mut ends) = (Generator::new(options), Vec::new(), Vec::new());
        while generator.next_into(&mut bytes) {
            ends.push(bytes.len());
        }
        Self { bytes, ends }
    }

    fn records(&self) -> Vec<Record<'_>> {
        let mut start = 0;
        let record = |(offset, end): (i64, &usize)| {
            let value = &self.bytes[start..*end];
            start = *end;
            Record::new(offset, value.trim_ascii_end())
        };
        (0..).zip(&self.ends).map(record).collect()
    }
}

/// Runs all events, prints a line and answers it as JSON. The state that was kept must be the task's.
fn measure<B: Backend>(
    name: &str,
    input: &Input,
    plan: &Arc<Plan>,
    mut backend: Option<B>,
) -> Result<String, Box<dyn Error>> {
    let records = input.records();
    let (mut task, mut outputs, mut changes) = (Task::new(Arc::clone(plan), 0), Outputs::default(), Changes::default());
    let (mut entries, mut bytes) = (0, 0);
    let began = cpu_time();
    for epoch in records.chunks(BATCH * EPOCH) {
        for batch in epoch.chunks(BATCH) {
            outputs.clear();
            task.step(batch, &mut outputs);
        }
        if let Some(backend) = &mut backend {
            changes.clear();
            task.take_changes(&mut changes);
            backend.apply(&changes)?;
            (entries, bytes) = (entries + changes.len(), bytes + changes.byte_len());
        }
    }
    let seconds = (cpu_time() - began).as_secs_f64();
    if let Some(backend) = &backend {
        let restored = Task::restore(Arc::clone(plan), backend)?.ok_or("nothing was kept")?;
        if (restored.position(), restored.rows()) != (task.position(), task.rows()) {
            return Err(format!("{name}: what was kept is not the state of the task").into());
        }
    }
    let per_million = seconds / records.len() as f64 * 1e6;
    println!(
        "{name:10} {:>14.0} {per_million:>10.3} {entries:>14} {:>14.1}",
        1e6 / per_million,
        bytes as f64 / 1e6
    );
    Ok(format!(
        "{{\"backend\":\"{name}\",\"cpuSecondsPerMillionEvents\":{per_million:.3},\"entries\":{entries},\"bytes\":{bytes}}}"
    ))
}

/// CPU seconds of all threads of this process.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}
