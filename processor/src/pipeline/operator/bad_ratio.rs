//! `maxBadRatio`: the share of dead letters among the last records of a task. Part of the state, so that a restart
//! does not forgive.

/// Records looked back upon.
const WINDOW: u64 = 10_000;
/// Records from which on the ratio is judged.
const JUDGED_FROM: u64 = 1_000;
const WORDS: usize = WINDOW.div_ceil(64) as usize;

/// One bit per record of the last [`WINDOW`].
#[derive(Clone, Debug)]
pub(super) struct BadRatio {
    ratio_max: f64,
    bits: Vec<u64>,
    bad: u64,
    dirty: bool,
}

impl BadRatio {
    pub fn new(ratio_max: f64) -> Self {
        Self {
            ratio_max,
            bits: vec![0; WORDS],
            bad: 0,
            dirty: false,
        }
    }

    /// Takes in record number `count` (from 1); answers (bad, seen) when the ratio is exceeded.
    pub fn observe(&mut self, count: u64, bad: bool) -> Option<(u64, u64)> {
        if self.bad == 0 && !bad {
            return None;
        }
        let slot = (count % WINDOW) as usize;
        let (word, bit) = (&mut self.bits[slot / 64], 1u64 << (slot % 64));
        let was_bad = *word & bit != 0;
        if was_bad != bad {
            *word ^= bit;
            self.bad = if bad { self.bad + 1 } else { self.bad - 1 };
            self.dirty = true;
        }
        let seen = count.min(WINDOW);
        // Judged where the ratio can rise above the bound: a restart of a repaired job is not stopped by its past.
        let judged = self.ratio_max < 1.0 && seen >= JUDGED_FROM && (bad || count == JUDGED_FROM);
        (judged && self.bad as f64 > self.ratio_max * seen as f64).then_some((self.bad, seen))
    }

    /// Bytes to store, when they have changed since the last call.
    pub fn take_changed(&mut self) -> Option<Vec<u8>> {
        std::mem::take(&mut self.dirty).then(|| self.bits.iter().flat_map(|word| word.to_le_bytes()).collect())
    }

    /// Takes back what [`Self::take_changed`] gave; false when the length is wrong.
    pub fn load(&mut self, bytes: &[u8]) -> bool {
        let (words, rest) = bytes.as_chunks::<8>();
        if words.len() != WORDS || !rest.is_empty() {
            return false;
        }
        self.bits = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        self.bad = self.bits.iter().map(|word| u64::from(word.count_ones())).sum();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_judged_from_a_thousand_records_on_over_the_last_ten_thousand() {
        let mut ratio = BadRatio::new(0.1);
        for count in 1..=999 {
            assert_eq!(ratio.observe(count, true), None, "{count}");
        }
        assert_eq!(ratio.observe(1000, false), Some((999, 1000)));
        let mut ratio = BadRatio::new(0.1);
        for count in 1..=10_000 {
            assert_eq!(
                ratio.observe(count, count > 9_000),
                None,
                "exactly a tenth is not above it"
            );
        }
        assert_eq!(ratio.observe(10_001, true), Some((1001, 10_000)));
        let mut restored = BadRatio::new(0.1);
        assert!(restored.load(&ratio.take_changed().unwrap()));
        assert_eq!(
            restored.clone().observe(10_002, false),
            None,
            "good records go on after a restart"
        );
        assert_eq!(restored.clone().observe(10_002, true), Some((1002, 10_000)));
        assert_eq!(ratio.take_changed(), None);
        for count in 10_002..=20_000 {
            restored.observe(count, false);
        }
        assert_eq!(restored.bad, 1);
        assert_eq!(BadRatio::new(1.0).observe(5_000, true), None);
    }
}
