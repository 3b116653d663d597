//! Load shedding by its definition: which records a share keeps, and what results say of it.
//! Must not import engine code.

use std::collections::BTreeMap;

use super::values::decimal;
use super::{Spec, Watermark};

/// What was shed so far.
#[derive(Default)]
pub(super) struct Shedding {
    /// How often the share of records kept was halved since the last event that counted; the last one holds now.
    halvings: Vec<u8>,
    /// For each number of halvings, the newest that a record can be that was passed over then.
    newest: BTreeMap<u8, i64>,
}

impl Shedding {
    /// A decision.
    pub fn decided(&mut self, halvings: u8) {
        self.halvings.push(halvings);
    }

    /// An event counts: what came before it is not newer than it by more than the watermark allows for.
    pub fn saw(&mut self, spec: &Spec, time: i64) {
        let most = match spec.watermark {
            Watermark::Bounded | Watermark::Periodic { .. } => time + spec.bound_ms,
            Watermark::Monotonic | Watermark::Punctuated { .. } => time,
        };
        for halvings in &self.halvings {
            let newest = self.newest.entry(*halvings).or_insert(most);
            *newest = most.max(*newest);
        }
        self.halvings = self.halvings.last().copied().into_iter().collect();
    }

    /// What a result of a window says that begins at `start`.
    pub fn kept_since(&self, start: i64) -> String {
        let since = self.newest.iter().filter(|(_, newest)| **newest >= start);
        let halvings = since.map(|(halvings, _)| halvings).chain(&self.halvings).max();
        let share = 10i128.pow(12) / 2i128.pow(u32::from(halvings.copied().unwrap_or(0)));
        format!(",\"keptShare\":{}", decimal(share))
    }
}

/// Whether the record at an offset of a partition is kept where the share of records kept was halved so often: as many
/// of the first bits of its number are 0.
pub fn is_kept(partition: u32, offset: i64, halvings: u8) -> bool {
    let number = split_mix(split_mix(u64::from(partition)) ^ offset as u64);
    format!("{number:064b}").starts_with(&"0".repeat(usize::from(halvings)))
}

/// The first output of SplitMix64 for this seed, in plain arithmetic.
fn split_mix(seed: u64) -> u64 {
    let whole = 1u128 << 64;
    let mut word = (u128::from(seed) + 0x9e37_79b9_7f4a_7c15) % whole;
    for (shift, factor) in [(30, 0xbf58_476d_1ce4_e5b9u128), (27, 0x94d0_49bb_1331_11eb)] {
        word = ((word ^ (word >> shift)) * factor) % whole;
    }
    (word ^ (word >> 31)) as u64
}
