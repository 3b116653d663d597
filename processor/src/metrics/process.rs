//! What the process takes of the machine and may take of it. Must not read it: `serve::machine` does.

use prometheus::Gauge;

use super::Maker;

/// Memory and threads of the process, bytes where not said otherwise; absent where the system does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory in use.
    pub resident_bytes: Option<u64>,
    /// Most of it that was in use.
    pub resident_peak_bytes: Option<u64>,
    /// Limit of the control group.
    pub limit_bytes: Option<u64>,
    /// Budget for buffers and state that was derived.
    pub budget_bytes: Option<u64>,
    /// Threads, those of libraries included.
    pub threads: Option<u64>,
    /// Free on the volume of the data directory.
    pub disk_free_bytes: Option<u64>,
    /// Size of that volume.
    pub disk_size_bytes: Option<u64>,
}

pub(super) struct Process {
    resident: Gauge,
    resident_peak: Gauge,
    limit: Gauge,
    budget: Gauge,
    threads: Gauge,
    disk_free: Gauge,
    disk_size: Gauge,
}

impl Process {
    pub fn new(make: &Maker<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            resident: make.single("memory_resident_bytes", "Memory that the process has in use.")?,
            resident_peak: make.single("memory_resident_peak_bytes", "Most memory that it had in use.")?,
            limit: make.single(
                "memory_limit_bytes",
                "Memory limit of its control group; 0 without one.",
            )?,
            budget: make.single("memory_budget_bytes", "Memory budget for state and buffers.")?,
            threads: make.single("threads", "Threads of the process, those of its libraries included.")?,
            disk_free: make.single("volume_free_bytes", "Free on the volume of the data directory.")?,
            disk_size: make.single("volume_size_bytes", "Size of the volume of the data directory.")?,
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "Prometheus' numbers are doubles")]
    pub fn show(&self, usage: &Usage) {
        for (gauge, value) in [
            (&self.resident, usage.resident_bytes),
            (&self.resident_peak, usage.resident_peak_bytes),
            (&self.limit, Some(usage.limit_bytes.unwrap_or(0))),
            (&self.budget, usage.budget_bytes),
            (&self.threads, usage.threads),
            (&self.disk_free, usage.disk_free_bytes),
            (&self.disk_size, usage.disk_size_bytes),
        ] {
            if let Some(value) = value {
                gauge.set(value as f64);
            }
        }
    }
}
