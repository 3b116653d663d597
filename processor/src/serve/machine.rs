//! What the machine says about this process: memory, its limit, threads, the volume of the data directory.
//! Must not hold: what follows from it (`state::budget`, `state::room`).

use std::fs;
use std::path::Path;

use crate::metrics::Usage;
use crate::state::budget::{Budget, Group, parse_limit};
use crate::state::local::volume_of;

/// The memory limit that applies to this process; `None` without one or where the system does not say.
pub fn memory_limit() -> Option<u64> {
    let group = Group::parse(&fs::read_to_string("/proc/self/cgroup").ok()?)?;
    let limits = group
        .limit_files()
        .into_iter()
        .filter_map(|file| fs::read_to_string(file).ok());
    limits.filter_map(|text| parse_limit(&text)).min()
}

/// What the process takes now.
pub fn usage(data_directory: &Path, budget: &Budget) -> Usage {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| -> Option<u64> {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let volume = volume_of(data_directory);
    Usage {
        resident_bytes: field("VmRSS").map(|kib| kib << 10),
        resident_peak_bytes: field("VmHWM").map(|kib| kib << 10),
        limit_bytes: memory_limit(),
        budget_bytes: Some(budget.bytes),
        threads: field("Threads"),
        disk_free_bytes: volume.map(|volume| volume.free),
        disk_size_bytes: volume.map(|volume| volume.size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_memory_threads_and_a_volume() {
        let usage = usage(&std::env::temp_dir(), &Budget::derive(None, None));
        assert!(usage.resident_bytes > Some(1 << 20), "{usage:?}");
        assert!(usage.resident_peak_bytes >= usage.resident_bytes);
        assert!(usage.threads >= Some(1));
        assert!(usage.disk_size_bytes >= usage.disk_free_bytes);
    }
}
