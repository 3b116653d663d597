//! Percentiles: every value while there are few, then counts in log-linear buckets.
//!
//! Which of the two it is, and every number in it, depends on the multiset of values only, so neither the order of
//! events nor the cut into panes changes a byte. Buckets cut each octave `[2^e, 2^(e+1))` (in units of 10^-12) into
//! equal parts, as HdrHistogram does; all arithmetic is in integers.
//! Must not hold: names of quantiles or JSON.

use super::bytes::{Reader, write_varint, zigzag};

/// Values that are kept one by one; with one more they become buckets.
pub const EXACT_VALUES_MAX: usize = 256;
/// A decimal's magnitude is below 10^31, so below 2^103.
const OCTAVES: u32 = 103;
/// Below this magnitude the bucket is found in 64 bits: parts of an octave are fewer than 2^10.
const NARROW_OCTAVES: u32 = 53;

/// How finely octaves are cut for a relative error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// Buckets an octave.
    parts: u32,
    /// Significant digits to which a bucket's middle is rounded: readable, and a twentieth of the error at most.
    digits: u32,
}

impl Resolution {
    /// For a relative error in millionths, from 1,000 (0.1 %) to 100,000 (10 %).
    pub fn new(relative_error_ppm: u32) -> Self {
        let (digits, rounding_ppm) = match relative_error_ppm {
            100_000.. => (3, 5_000),
            10_000.. => (4, 500),
            _ => (5, 50),
        };
        let left_ppm = relative_error_ppm.saturating_sub(rounding_ppm).max(500);
        Self {
            // Half a bucket's width over its lower end, at the start of an octave: 1 / (2 · parts).
            parts: 1_000_000 / (2 * left_ppm) + 1,
            digits,
        }
    }

    /// Index of the bucket of a value: ascending with the value, 0 for 0.
    fn bucket(self, value: i128) -> i32 {
        let magnitude = value.unsigned_abs();
        if magnitude == 0 {
            return 0;
        }
        let octave = magnitude.ilog2();
        let part = if octave < NARROW_OCTAVES {
            ((magnitude as u64 - (1 << octave)) * u64::from(self.parts)) >> octave
        } else {
            (((magnitude - (1 << octave)) * u128::from(self.parts)) >> octave) as u64
        };
        let index = (octave * self.parts + part as u32 + 1) as i32;
        if value < 0 { -index } else { index }
    }

    /// The value that stands for a bucket: its middle, rounded to few digits where that stays within the bucket.
    fn middle(self, bucket: i32) -> i128 {
        let Some(index) = bucket.unsigned_abs().checked_sub(1) else {
            return 0;
        };
        let (low, high) = self.bounds(index);
        let middle = low.midpoint(high);
        let unit = 10u128.pow((middle.ilog10() + 1).saturating_sub(self.digits));
        let magnitude = ((middle + unit / 2) / unit * unit).clamp(low, high) as i128;
        if bucket < 0 { -magnitude } else { magnitude }
    }

    /// Smallest and largest magnitude in a bucket. In the lowest octaves, which have fewer numbers than parts, many
    /// buckets are empty: their smallest is above their largest.
    fn bounds(self, index: u32) -> (u128, u128) {
        let (octave, part) = (index / self.parts, u128::from(index % self.parts));
        let (base, parts) = (1u128 << octave, u128::from(self.parts));
        let low = base + (part * base).div_ceil(parts);
        (low, base + ((part + 1) * base).div_ceil(parts) - 1)
    }

    /// Whether some value is in the bucket.
    fn is_bucket(self, bucket: i32) -> bool {
        let Some(index) = bucket.unsigned_abs().checked_sub(1) else {
            return true;
        };
        let is_within = index < OCTAVES * self.parts;
        is_within && {
            let (low, high) = self.bounds(index);
            low <= high
        }
    }
}

/// Values or buckets of values.
#[derive(Clone, Debug)]
pub enum Quantiles {
    /// Few values that fit in 64 bits, in no order.
    Narrow(Vec<i64>),
    /// Few values, in no order.
    Wide(Vec<i128>),
    /// Many values.
    Buckets(Box<Buckets>),
}

/// Counts by bucket, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buckets {
    total: u64,
    indexes: Vec<i32>,
    counts: Vec<u64>,
}

impl Default for Quantiles {
    fn default() -> Self {
        Self::Narrow(Vec::new())
    }
}

impl Buckets {
    fn add(&mut self, index: i32) {
        self.total += 1;
        match self.indexes.binary_search(&index) {
            Ok(at) => self.counts[at] += 1,
            Err(at) => {
                self.indexes.insert(at, index);
                self.counts.insert(at, 1);
            }
        }
    }

    fn merge(&mut self, other: &Self) {
        let mut merged = Self {
            total: self.total + other.total,
            indexes: Vec::with_capacity(self.indexes.len().max(other.indexes.len())),
            counts: Vec::with_capacity(self.indexes.len().max(other.indexes.len())),
        };
        let (mut left, mut right) = (0, 0);
        while left < self.indexes.len() || right < other.indexes.len() {
            let ours = self.indexes.get(left).copied().unwrap_or(i32::MAX);
            let theirs = other.indexes.get(right).copied().unwrap_or(i32::MAX);
            let mut count = 0;
            if ours <= theirs {
                count += self.counts[left];
                left += 1;
            }
            if theirs <= ours {
                count += other.counts[right];
                right += 1;
            }
            merged.indexes.push(ours.min(theirs));
            merged.counts.push(count);
        }
        *self = merged;
    }
}

impl Quantiles {
    /// Values seen.
    pub fn count(&self) -> u64 {
        match self {
            Self::Narrow(values) => values.len() as u64,
            Self::Wide(values) => values.len() as u64,
            Self::Buckets(buckets) => buckets.total,
        }
    }

    /// Adds a value (units of 10^-12).
    pub fn add(&mut self, value: i128, resolution: Resolution) {
        match (&mut *self, i64::try_from(value)) {
            (Self::Narrow(values), Ok(narrow)) if values.len() < EXACT_VALUES_MAX => values.push(narrow),
            (Self::Wide(values), _) if values.len() < EXACT_VALUES_MAX => values.push(value),
            (Self::Buckets(buckets), _) => buckets.add(resolution.bucket(value)),
            (Self::Narrow(values), _) if values.len() < EXACT_VALUES_MAX => {
                let mut wide: Vec<i128> = values.iter().map(|value| i128::from(*value)).collect();
                wide.push(value);
                *self = Self::Wide(wide);
            }
            (Self::Narrow(_) | Self::Wide(_), _) => {
                self.change_buckets(resolution, |buckets| buckets.add(resolution.bucket(value)))
            }
        }
    }

    /// Adds what another one has seen.
    pub fn merge(&mut self, other: &Self, resolution: Resolution) {
        match other {
            Self::Narrow(values) => values.iter().for_each(|value| self.add(i128::from(*value), resolution)),
            Self::Wide(values) => values.iter().for_each(|value| self.add(*value, resolution)),
            Self::Buckets(other) => self.change_buckets(resolution, |buckets| buckets.merge(other)),
        }
    }

    /// Turns values into buckets, and changes those.
    fn change_buckets(&mut self, resolution: Resolution, change: impl FnOnce(&mut Buckets)) {
        if let Self::Buckets(buckets) = self {
            return change(buckets);
        }
        let mut buckets = Buckets::default();
        self.sorted()
            .iter()
            .for_each(|value| buckets.add(resolution.bucket(*value)));
        change(&mut buckets);
        *self = Self::Buckets(Box::new(buckets));
    }

    /// Exact values, ascending; nothing for buckets.
    fn sorted(&self) -> Vec<i128> {
        let mut values: Vec<i128> = match self {
            Self::Narrow(values) => {
                let mut values = values.clone();
                values.sort_unstable();
                return values.into_iter().map(i128::from).collect();
            }
            Self::Wide(values) => values.clone(),
            Self::Buckets(_) => Vec::new(),
        };
        values.sort_unstable();
        values
    }

    /// The values of these ranks, which ascend or not; rank 1 is the smallest value, ranks above the count the
    /// largest. There must be a value.
    pub fn at_ranks(&self, ranks: &[u64], resolution: Resolution) -> Vec<i128> {
        match self {
            Self::Narrow(_) | Self::Wide(_) => {
                let values = self.sorted();
                let at = |rank: &u64| values[(*rank).clamp(1, values.len() as u64) as usize - 1];
                ranks.iter().map(at).collect()
            }
            Self::Buckets(buckets) => {
                let at = |rank: &u64| {
                    let mut below = 0;
                    let found = buckets.counts.iter().position(|count| {
                        below += count;
                        below >= *rank
                    });
                    let last = buckets.indexes.len() - 1;
                    resolution.middle(buckets.indexes[found.unwrap_or(last)])
                };
                ranks.iter().map(at).collect()
            }
        }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Narrow(values) => values.capacity() * size_of::<i64>(),
            Self::Wide(values) => values.capacity() * size_of::<i128>(),
            Self::Buckets(buckets) => {
                size_of::<Buckets>()
                    + buckets.indexes.capacity() * size_of::<i32>()
                    + buckets.counts.capacity() * size_of::<u64>()
            }
        }
    }

    /// Appends the canonical form: 0, values ascending by differences; or 1, buckets by differences, their counts.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Narrow(_) | Self::Wide(_) => {
                out.push(0);
                let mut before = 0;
                for value in self.sorted() {
                    write_varint(zigzag(value - before), out);
                    before = value;
                }
            }
            Self::Buckets(buckets) => {
                out.push(1);
                let mut before = 0;
                for (index, count) in buckets.indexes.iter().zip(&buckets.counts) {
                    write_varint(zigzag(i128::from(index - before)), out);
                    write_varint(u128::from(*count), out);
                    before = *index;
                }
            }
        }
    }

    /// Reads what [`Self::encode`] wrote; `None` for anything else.
    pub fn decode(bytes: &[u8], resolution: Resolution) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        match reader.byte()? {
            0 => Self::decode_values(&mut reader),
            1 => Self::decode_buckets(&mut reader, resolution),
            _ => None,
        }
    }

    fn decode_values(reader: &mut Reader<'_>) -> Option<Self> {
        const MAGNITUDE_MAX: u128 = 10u128.pow(31);
        let mut values: Vec<i128> = Vec::new();
        while !reader.is_at_end() {
            let value = values.last().copied().unwrap_or(0).checked_add(reader.signed()?)?;
            let ascends = values.last().is_none_or(|last| *last <= value);
            if !ascends || value.unsigned_abs() >= MAGNITUDE_MAX || values.len() == EXACT_VALUES_MAX {
                return None;
            }
            values.push(value);
        }
        let narrow: Option<Vec<i64>> = values.iter().map(|value| i64::try_from(*value).ok()).collect();
        Some(narrow.map_or(Self::Wide(values), Self::Narrow))
    }

    fn decode_buckets(reader: &mut Reader<'_>, resolution: Resolution) -> Option<Self> {
        let mut buckets = Buckets::default();
        while !reader.is_at_end() {
            let before = buckets.indexes.last().copied();
            let index = i128::from(before.unwrap_or(0)).checked_add(reader.signed()?)?;
            let index = i32::try_from(index).ok().filter(|index| resolution.is_bucket(*index))?;
            let count = reader.word().filter(|count| *count > 0)?;
            if before.is_some_and(|before| before >= index) {
                return None;
            }
            buckets.total = buckets.total.checked_add(count)?;
            buckets.indexes.push(index);
            buckets.counts.push(count);
        }
        (buckets.total > EXACT_VALUES_MAX as u64).then(|| Self::Buckets(Box::new(buckets)))
    }
}

#[cfg(test)]
mod tests;
