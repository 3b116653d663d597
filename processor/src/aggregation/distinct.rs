//! Numbers of distinct values: 64-bit hashes while they are few, then HyperLogLog registers.
//!
//! Which of the two it is, and every byte in it, depends on the set of values only. The estimate is Ertl's (O. Ertl, "New
//! cardinality estimation algorithms for HyperLogLog sketches", 2017): sums, products and square roots only, so it is
//! the same on every machine.
//! Must not hold: the values.

use std::collections::BTreeSet;

use xxhash_rust::xxh3::xxh3_64;

/// Least and greatest number of bits that choose a register.
const PRECISION: std::ops::RangeInclusive<u8> = 7..=16;
/// 1 / (2 ln 2).
const ALPHA: f64 = 0.721_347_520_444_481_7;

/// Bits that choose a register, for a standard error in millionths: error = 1.04 / √registers.
pub fn precision(relative_error_ppm: u32) -> u8 {
    let enough = |bits: &u8| {
        let error_ppm = u64::from(relative_error_ppm);
        (error_ppm * error_ppm) << bits >= 1_040_000 * 1_040_000
    };
    PRECISION.clone().find(enough).unwrap_or(*PRECISION.end())
}

/// Hashes that are kept one by one: as many as take the place of the registers.
fn exact_max(precision: u8) -> usize {
    (1 << precision) / size_of::<u64>()
}

/// The values seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Distinct {
    /// Few: their hashes.
    Hashes(BTreeSet<u64>),
    /// Many: for each register the longest run of zeros, plus one.
    Registers(Box<[u8]>),
}

impl Default for Distinct {
    fn default() -> Self {
        Self::Hashes(BTreeSet::new())
    }
}

impl Distinct {
    /// Adds a value by its canonical bytes.
    pub fn add(&mut self, value: &[u8], precision: u8) {
        self.add_hash(xxh3_64(value), precision);
    }

    fn add_hash(&mut self, hash: u64, precision: u8) {
        match self {
            Self::Hashes(hashes) => {
                hashes.insert(hash);
                if hashes.len() > exact_max(precision) {
                    self.spill(precision);
                }
            }
            Self::Registers(registers) => observe(registers, hash, precision),
        }
    }

    /// Adds what another one of the same precision has seen.
    pub fn merge(&mut self, other: &Self, precision: u8) {
        match (&mut *self, other) {
            (_, Self::Hashes(hashes)) => hashes.iter().for_each(|hash| self.add_hash(*hash, precision)),
            (Self::Hashes(hashes), Self::Registers(theirs)) => {
                let mut registers = theirs.clone();
                hashes.iter().for_each(|hash| observe(&mut registers, *hash, precision));
                *self = Self::Registers(registers);
            }
            (Self::Registers(ours), Self::Registers(theirs)) => {
                for (our, their) in ours.iter_mut().zip(theirs) {
                    *our = (*our).max(*their);
                }
            }
        }
    }

    /// Turns hashes into registers.
    fn spill(&mut self, precision: u8) {
        if let Self::Hashes(hashes) = self {
            let mut registers = vec![0; 1 << precision].into_boxed_slice();
            hashes.iter().for_each(|hash| observe(&mut registers, *hash, precision));
            *self = Self::Registers(registers);
        }
    }

    /// Number of distinct values, exact or estimated.
    pub fn count(&self) -> u64 {
        match self {
            Self::Hashes(hashes) => hashes.len() as u64,
            Self::Registers(registers) => estimate(registers),
        }
    }

    /// Bytes on the heap, about.
    pub fn heap_bytes(&self) -> usize {
        match self {
            // A node of the standard library's tree is at least half full.
            Self::Hashes(hashes) => hashes.len() * 2 * size_of::<u64>(),
            Self::Registers(registers) => registers.len(),
        }
    }

    /// Appends the canonical form: 0 and the hashes, ascending, or 1 and the registers.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hashes(hashes) => {
                out.push(0);
                hashes
                    .iter()
                    .for_each(|hash| out.extend_from_slice(&hash.to_le_bytes()));
            }
            Self::Registers(registers) => {
                out.push(1);
                out.extend_from_slice(registers);
            }
        }
    }

    /// Reads what [`Self::encode`] wrote; `None` for anything else.
    pub fn decode(bytes: &[u8], precision: u8) -> Option<Self> {
        match bytes.split_first()? {
            (0, rest) => {
                let (chunks, tail) = rest.as_chunks::<8>();
                let words: Vec<u64> = chunks.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect();
                let ascends = words.is_sorted_by(|left, right| left < right);
                let fits = tail.is_empty() && words.len() <= exact_max(precision);
                (ascends && fits).then(|| Self::Hashes(words.into_iter().collect()))
            }
            (1, rest) => {
                let fits = rest.len() == 1 << precision && rest.iter().all(|run| *run <= longest_run(precision));
                fits.then(|| Self::Registers(rest.into()))
            }
            (_, _) => None,
        }
    }
}

/// Greatest value of a register.
fn longest_run(precision: u8) -> u8 {
    64 - precision + 1
}

fn observe(registers: &mut [u8], hash: u64, precision: u8) {
    let register = &mut registers[(hash >> (64 - precision)) as usize];
    let run = ((hash << precision).leading_zeros() as u8 + 1).min(longest_run(precision));
    *register = (*register).max(run);
}

fn estimate(registers: &[u8]) -> u64 {
    let longest = longest_run(registers.len().trailing_zeros() as u8);
    let mut histogram = [0u32; 65];
    registers.iter().for_each(|run| histogram[usize::from(*run)] += 1);
    let count = registers.len() as f64;
    let share = |run: u8| f64::from(histogram[usize::from(run)]) / count;
    let mut sum = count * tau(1.0 - share(longest));
    for run in (1..longest).rev() {
        sum = 0.5 * (sum + f64::from(histogram[usize::from(run)]));
    }
    sum += count * sigma(share(0));
    (ALPHA * count * count / sum).round() as u64
}

/// Σ x^(2^k) · 2^(k−1), of the share of empty registers.
fn sigma(share: f64) -> f64 {
    let (mut power, mut weight, mut sum) = (share, 1.0, share);
    if share >= 1.0 {
        return f64::INFINITY;
    }
    // The power at least squares every round: below the least double after some sixty.
    loop {
        power *= power;
        let before = sum;
        sum += power * weight;
        weight += weight;
        if sum == before {
            return sum;
        }
    }
}

/// (1 − x − Σ (1 − x^(2^−k))² · 2^(−k)) / 3, of the share of registers that are not full.
fn tau(share: f64) -> f64 {
    if share <= 0.0 || share >= 1.0 {
        return 0.0;
    }
    let (mut root, mut weight, mut sum) = (share, 1.0, 1.0 - share);
    // The weight halves every round: it is below the sum's last digit after some sixty.
    loop {
        root = root.sqrt();
        let before = sum;
        weight *= 0.5;
        sum -= (1.0 - root) * (1.0 - root) * weight;
        if sum == before {
            return sum / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fold(values: impl Iterator<Item = u64>, precision: u8) -> Distinct {
        let mut distinct = Distinct::default();
        values.for_each(|value| distinct.add(value.to_string().as_bytes(), precision));
        distinct
    }

    fn encoded(distinct: &Distinct) -> Vec<u8> {
        let mut bytes = Vec::new();
        distinct.encode(&mut bytes);
        bytes
    }

    #[test]
    fn a_stated_error_chooses_enough_registers() {
        let chosen = [5_000, 8_125, 10_000, 20_000, 100_000].map(precision);
        assert_eq!(chosen, [16, 14, 14, 12, 7]);
    }

    #[test]
    fn few_values_are_counted_exactly_and_many_within_the_stated_error() {
        for error_ppm in [10_000u32, 50_000, 100_000] {
            let precision = precision(error_ppm);
            let few = exact_max(precision) as u64;
            assert_eq!(fold((0..few).chain(0..few), precision).count(), few);
            let mut squares = 0.0;
            let sizes = [few + 1, 3_000, 10_000, 40_000, 100_000];
            for (start, size) in sizes.iter().enumerate() {
                let from = start as u64 * 10_000_000;
                let size = (*size).max(few + 1);
                let found = fold(from..from + size, precision).count() as f64;
                let error = (found - size as f64) / size as f64 * 1e6 / f64::from(error_ppm);
                assert!(error.abs() < 3.0, "{size} values at {error_ppm} ppm: {found}");
                squares += error * error;
            }
            assert!(
                squares / 5.0 < 2.25,
                "{error_ppm} ppm: standard error {}",
                (squares / 5.0).sqrt()
            );
        }
    }

    proptest! {
        #[test]
        fn merging_is_associative_commutative_and_equals_adding(
            a in 0..60u64, b in 0..60u64, c in 0..60u64, shift in 0..60u64,
        ) {
            let bits = 7;
            let parts = [fold(0..a, bits), fold(shift..shift + b, bits), fold(2 * shift..2 * shift + c, bits)];
            let whole = fold((0..a).chain(shift..shift + b).chain(2 * shift..2 * shift + c), bits);
            let merged = |order: [usize; 3]| {
                let mut merged = Distinct::default();
                order.iter().for_each(|index| merged.merge(&parts[*index], bits));
                encoded(&merged)
            };
            for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
                prop_assert_eq!(&merged(order), &encoded(&whole));
            }
            prop_assert_eq!(Distinct::decode(&encoded(&whole), bits), Some(whole));
        }

        #[test]
        fn damaged_bytes_are_refused_or_counted(
            size in 0..100u64, at in any::<prop::sample::Index>(), byte in any::<u8>(), noise in prop::collection::vec(any::<u8>(), 0..140),
        ) {
            let mut bytes = encoded(&fold(0..size, 7));
            let at = at.index(bytes.len());
            bytes[at] = byte;
            for bytes in [&bytes[..], &bytes[..at], &noise[..]] {
                if let Some(read) = Distinct::decode(bytes, 7) {
                    prop_assert_eq!(encoded(&read), bytes);
                    read.count();
                }
            }
        }
    }
}
