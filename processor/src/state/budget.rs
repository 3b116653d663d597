//! How much memory a pod has, and what each part of it may take. Pure.
//! Must not hold: reading files, or what a part does at its bound.

use std::fmt;

/// Budget where neither the manifest nor a memory limit says anything.
const DEFAULT_BYTES: u64 = 256 << 20;
/// Share of a memory limit for the budget, in eighths: the rest is code, stacks, clients and what the allocator keeps.
const EIGHTHS_OF_LIMIT: u64 = 6;
/// Bounds of what is fetched ahead for one task.
const FETCH_BYTES: (u64, u64) = (1 << 20, 16 << 20);
/// Bounds of the outputs of one task's open epoch.
const OUTPUT_BYTES: (u64, u64) = (1 << 20, 32 << 20);
/// Limits at or above this are none: the kernel says "no limit" with its largest number of pages.
const UNLIMITED_BYTES: u64 = 1 << 60;

/// Where a budget comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `spec.state.memoryBudget`.
    Declared,
    /// Three quarters of the memory limit.
    Limit {
        /// The limit.
        bytes: u64,
    },
    /// Nothing says anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Declared => out.write_str("spec.state.memoryBudget"),
            Self::Limit { bytes } => write!(out, "three quarters of the memory limit of {} MiB", bytes >> 20),
            Self::Default => out.write_str("default, without a memory limit"),
        }
    }
}

/// The memory budget of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// All of it.
    pub bytes: u64,
    /// Where it comes from.
    pub origin: Origin,
}

impl Budget {
    /// From what the manifest declares and the memory limit of the pod.
    pub fn derive(declared_bytes: Option<u64>, limit_bytes: Option<u64>) -> Self {
        let (bytes, origin) = match (declared_bytes, limit_bytes) {
            (Some(bytes), _) => (bytes, Origin::Declared),
            (None, Some(bytes)) => (bytes / 8 * EIGHTHS_OF_LIMIT, Origin::Limit { bytes }),
            (None, None) => (DEFAULT_BYTES, Origin::Default),
        };
        Self { bytes, origin }
    }

    /// RocksDB's block cache, for all tasks.
    pub fn cache_bytes(&self) -> u64 {
        self.bytes / 8
    }

    /// RocksDB's write buffers, for all tasks.
    pub fn write_buffer_bytes(&self) -> u64 {
        self.bytes / 8
    }

    /// What is fetched ahead for one of `tasks`.
    pub fn fetch_bytes(&self, tasks: u64) -> u64 {
        (self.bytes / 8 / tasks.max(1)).clamp(FETCH_BYTES.0, FETCH_BYTES.1)
    }

    /// The outputs of the open epoch of one of `tasks`; while they are sent, the client holds them once more.
    pub fn output_bytes(&self, tasks: u64) -> u64 {
        (self.bytes / 16 / tasks.max(1)).clamp(OUTPUT_BYTES.0, OUTPUT_BYTES.1)
    }

    /// What is left for the rows of open windows, of all tasks.
    pub fn state_bytes(&self) -> u64 {
        self.bytes / 2
    }
}

/// What a file of a control group says about memory; `None` is no limit.
pub fn parse_limit(text: &str) -> Option<u64> {
    let bytes: u64 = text.trim().parse().ok()?;
    (bytes > 0 && bytes < UNLIMITED_BYTES).then_some(bytes)
}

/// The version of a control group and where a process is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Group {
    /// Version 2, below `/sys/fs/cgroup`.
    V2(String),
    /// Version 1, below `/sys/fs/cgroup/memory`.
    V1(String),
}

impl Group {
    /// From `/proc/self/cgroup`. Where both are mounted, the one with the memory controller counts.
    pub fn parse(text: &str) -> Option<Self> {
        let mut found = None;
        for line in text.lines() {
            let mut parts = line.splitn(3, ':');
            let (Some(number), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            if controllers.split(',').any(|controller| controller == "memory") {
                return Some(Self::V1(path.to_owned()));
            }
            if number == "0" && controllers.is_empty() {
                found = Some(Self::V2(path.to_owned()));
            }
        }
        found
    }

    /// Files that hold a limit which applies, innermost first: a group is also bound by those around it, and in a
    /// container the path may be the host's, of which only the root is visible.
    pub fn limit_files(&self) -> Vec<String> {
        let (root, path, file) = match self {
            Self::V2(path) => ("/sys/fs/cgroup", path, "memory.max"),
            Self::V1(path) => ("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes"),
        };
        let mut files = Vec::new();
        let mut path = path.trim_matches('/');
        // A path that leaves the mount, as one of another namespace does, names nothing here.
        if path.split('/').any(|part| part == "..") {
            path = "";
        }
        loop {
            let between = if path.is_empty() { "" } else { "/" };
            files.push(format!("{root}{between}{path}/{file}"));
            if path.is_empty() {
                return files;
            }
            path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_declared_wins_over_the_limit_over_the_default() {
        let (declared, limit) = (Some(64 << 20), Some(1 << 30));
        let of = |declared, limit| Budget::derive(declared, limit);
        assert_eq!(of(declared, limit).bytes, 64 << 20);
        assert_eq!(of(declared, limit).origin, Origin::Declared);
        assert_eq!(of(None, limit).bytes, 768 << 20);
        assert_eq!(of(None, limit).origin, Origin::Limit { bytes: 1 << 30 });
        assert_eq!(of(None, None).bytes, 256 << 20);
    }

    /// With any number of tasks for which the bounds leave room, the parts are not more than the whole.
    #[test]
    fn the_parts_are_not_more_than_the_whole() {
        for bytes in [64_u64 << 20, 256 << 20, 768 << 20, 8 << 30] {
            let budget = Budget::derive(Some(bytes), None);
            for tasks in [1, 2, (bytes / 16) >> 20] {
                let tasks = tasks.max(1);
                let parts = budget.cache_bytes()
                    + budget.write_buffer_bytes()
                    + tasks * (budget.fetch_bytes(tasks) + 2 * budget.output_bytes(tasks))
                    + budget.state_bytes();
                assert!(parts <= bytes, "{bytes} {tasks}: {parts}");
            }
        }
    }

    #[test]
    fn limits_of_both_versions_are_read() {
        let two = Group::parse("0::/kubepods/pod1/c\n").unwrap();
        assert_eq!(
            two.limit_files(),
            [
                "/sys/fs/cgroup/kubepods/pod1/c/memory.max",
                "/sys/fs/cgroup/kubepods/pod1/memory.max",
                "/sys/fs/cgroup/kubepods/memory.max",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        let one = Group::parse("12:cpu,cpuacct:/x\n4:memory:/docker/1\n0::/x\n").unwrap();
        assert_eq!(
            one.limit_files(),
            [
                "/sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes"
            ]
        );
        assert_eq!(
            Group::V2("/../a".to_owned()).limit_files(),
            ["/sys/fs/cgroup/memory.max"],
            "a path of another namespace"
        );
        assert_eq!(Group::parse("nonsense"), None);
        assert_eq!(parse_limit("536870912\n"), Some(536_870_912));
        assert_eq!(parse_limit("max\n"), None);
        assert_eq!(parse_limit("9223372036854771712"), None, "version 1's way to say none");
    }
}
