//! `explain`: what a pod of the job takes: memory and its parts, connections and threads. Must not look at this machine.

use std::fmt::Write as _;

use streamagg_crds::v1alpha1::{Backend, IdleAdvance};
use streamagg_processor::state::budget::{Budget, Origin};

use super::super::manifest::Loaded;

/// Brokers of a cluster for which threads and connections are counted.
const BROKERS: usize = 3;
/// Threads that a Kafka client has beside one for each broker and bootstrap server: its own, one for requests that are
/// for no broker, one for a coordinator.
const CLIENT_THREADS: usize = 3;
/// Threads of a pod beside those of tasks and clients: the main one, two for requests and uploads, one that keeps tasks
/// and assignment in step, one that watches the topics, one that counts their partitions.
const POD_THREADS: usize = 6;
/// Threads that RocksDB has in a process, for flushes and compactions of all tasks.
const ROCKSDB_THREADS: usize = 2;

pub(super) fn write_pod(out: &mut String, loaded: &Loaded) -> std::fmt::Result {
    write_memory(out, loaded)?;
    write_clients(out, loaded)
}

fn write_memory(out: &mut String, loaded: &Loaded) -> std::fmt::Result {
    let declared = loaded.spec.state.memory_budget.as_ref().map(|budget| budget.units());
    let limit = loaded.spec.resources.limits.get("memory").map(|limit| limit.units());
    let budget = Budget::derive(declared, limit);
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    writeln!(out, "\nmemory of a pod")?;
    let origin = match budget.origin {
        // A pod without a limit in the manifest may still have one, by a LimitRange for example.
        Origin::Default => "where the pod has no memory limit, else three quarters of that".to_owned(),
        origin @ (Origin::Declared | Origin::Limit { .. }) => origin.to_string(),
    };
    writeln!(out, "  budget        {}: {origin}", mib(budget.bytes))?;
    let beyond = beyond(loaded, budget.origin);
    writeln!(out, "  open windows  {}; {beyond}", mib(budget.state_bytes()))?;
    writeln!(
        out,
        "  RocksDB       {} of cache, {} of write buffers",
        mib(budget.cache_bytes()),
        mib(budget.write_buffer_bytes())
    )?;
    writeln!(
        out,
        "  a task        {} of records fetched ahead, {} of outputs of an open epoch; with others in its pod, its share",
        mib(budget.fetch_bytes(1)),
        mib(budget.output_bytes(1)),
    )
}

/// What becomes of state for which there is no memory.
fn beyond(loaded: &Loaded, origin: Origin) -> String {
    let stays = match (loaded.spec.state.backend, origin) {
        (Backend::Memory, _) => Some("state.backend is Memory"),
        (Backend::RocksDB, Origin::Default) => Some("neither state.memoryBudget nor a memory limit is given"),
        (Backend::RocksDB, Origin::Declared | Origin::Limit { .. }) => None,
    };
    match stays {
        Some(why) => format!("state beyond that stays in memory, too: {why}"),
        None => "what is beyond that is on the volume only".to_owned(),
    }
}

fn write_clients(out: &mut String, loaded: &Loaded) -> std::fmt::Result {
    let (source, sink) = (&loaded.job.source.bootstrap_servers, &loaded.job.sink.bootstrap_servers);
    let threads = |bootstrap: usize| CLIENT_THREADS + bootstrap + BROKERS;
    let (consumer, producer) = (threads(source.len()), threads(sink.len()));
    // A pod asks for the ends of each topic that its tasks read: with two stages also of the one between them.
    let (askers, topics) = match loaded.job.source.shuffle_partitions {
        None => (consumer, 1),
        Some(_) => (consumer + producer, 2),
    };
    writeln!(out, "\nclients of a pod, with {BROKERS} brokers in each cluster")?;
    // A reader of its own asks whether a silent partition is at its end, once one has been silent.
    let (asking, asks) = match &loaded.job.idle {
        Some(idle) if idle.advance != IdleAdvance::None => (consumer, ", as many of one that asks when it is silent"),
        Some(_) | None => (0, ""),
    };
    writeln!(
        out,
        "  a task        {} threads: its own, {consumer} of a consumer{asks}, {producer} of a producer",
        1 + consumer + asking + producer
    )?;
    writeln!(
        out,
        "                up to {} connections: to the partition's leader and the group's coordinator; to every broker \
         and the coordinator of transactions",
        2 + BROKERS + 1
    )?;
    writeln!(
        out,
        "  the pod       {} threads, {askers} of them of a consumer for each topic read ({topics}) that asks for the ends of \
         its partitions, over up to {BROKERS} connections",
        POD_THREADS + ROCKSDB_THREADS + askers
    )
}
