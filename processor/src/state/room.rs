//! Whether a volume has room for a task's state: what is kept free, so that RocksDB never meets a full disk. Pure.
//! Must not hold: reading the volume, or what follows.

/// Share of a volume that is kept free.
const RESERVE_SHARE: u64 = 20;
/// Bounds of what is kept free: what write buffers, the log between two flushes and a compaction may take at once, but
/// never more than a tenth of a small volume.
const RESERVE_BYTES: (u64, u64) = (64 << 20, 512 << 20);
const SMALL_SHARE: u64 = 10;

/// A volume as the system reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Bytes that this process may still write.
    pub free: u64,
    /// Bytes of the volume.
    pub size: u64,
}

/// What is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Bytes free.
    pub free: u64,
    /// Bytes that have to be free.
    pub needed: u64,
}

impl Volume {
    /// Bytes that are kept free.
    pub fn reserve(&self) -> u64 {
        (self.size / RESERVE_SHARE)
            .clamp(RESERVE_BYTES.0, RESERVE_BYTES.1)
            .min(self.size / SMALL_SHARE)
    }

    /// Whether `more` bytes can be written and the reserve is still free. After a stop for lack of room half as much
    /// again is wanted, so that a task does not go back and forth.
    pub fn judge(&self, more: u64, was_full: bool) -> Result<(), Shortage> {
        let reserve = self.reserve();
        let needed = more.saturating_add(if was_full { reserve / 2 * 3 } else { reserve });
        if self.free >= needed {
            Ok(())
        } else {
            Err(Shortage {
                free: self.free,
                needed,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_kept_free_suits_the_volume() {
        for (size, reserve) in [
            (100 * MIB, 10 * MIB),
            (1_000 * MIB, 64 * MIB),
            (10_000 * MIB, 500 * MIB),
            (1_000_000 * MIB, 512 * MIB),
            (0, 0),
        ] {
            assert_eq!(Volume { free: 0, size }.reserve(), reserve, "{size}");
        }
    }

    #[test]
    fn a_task_stops_below_the_reserve_and_goes_on_well_above_it() {
        let volume = |free: u64| Volume {
            free: free * MIB,
            size: 1_000 * MIB,
        };
        assert_eq!(volume(64).judge(0, false), Ok(()));
        let missing = |free: u64, needed: u64| {
            Err(Shortage {
                free: free * MIB,
                needed: needed * MIB,
            })
        };
        assert_eq!(volume(63).judge(0, false), missing(63, 64));
        assert_eq!(volume(95).judge(0, true), missing(95, 96));
        assert_eq!(volume(96).judge(0, true), Ok(()));
        assert_eq!(volume(163).judge(100 * MIB, false), missing(163, 164));
        assert_eq!(volume(164).judge(100 * MIB, false), Ok(()));
    }
}
