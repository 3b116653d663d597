//! The most frequent values: exact counts while there are few distinct values; beyond that every count loses the same
//! amount and the values that reach zero go (Misra–Gries; merging as in P. Agarwal et al., "Mergeable summaries", 2012).
//! How much was lost at most is kept, so a result can say whether it is exact.
//! Must not hold: how many values a result shows.

use std::collections::BTreeMap;

use super::bytes::{Reader, write_varint};

/// Distinct values that are kept.
pub const VALUES_MAX: usize = 1_000;

/// Values with their counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopCounts {
    counts: BTreeMap<Vec<u8>, u64>,
    /// No count is more than this below the truth; 0 means that all are exact.
    undercount: u64,
}

impl TopCounts {
    /// Adds a value by its canonical bytes.
    pub fn add(&mut self, value: &[u8]) {
        match self.counts.get_mut(value) {
            Some(count) => *count += 1,
            None => {
                self.counts.insert(value.to_vec(), 1);
                self.shrink();
            }
        }
    }

    /// Adds what another one has seen.
    pub fn merge(&mut self, other: &Self) {
        for (value, count) in &other.counts {
            match self.counts.get_mut(value) {
                Some(ours) => *ours += count,
                None => {
                    self.counts.insert(value.clone(), *count);
                }
            }
        }
        self.undercount += other.undercount;
        self.shrink();
    }

    /// Subtracts the largest count that has no place any more from all.
    fn shrink(&mut self) {
        if self.counts.len() <= VALUES_MAX {
            return;
        }
        let mut counts: Vec<u64> = self.counts.values().copied().collect();
        let (_, lost, _) = counts.select_nth_unstable_by(VALUES_MAX, |left, right| right.cmp(left));
        let lost = *lost;
        self.counts.retain(|_, count| {
            *count = count.saturating_sub(lost);
            *count > 0
        });
        self.undercount += lost;
    }

    /// Whether no value was seen.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty() && self.undercount == 0
    }

    /// By how much a count can be too low; 0 when all are exact.
    pub fn undercount(&self) -> u64 {
        self.undercount
    }

    /// The `k` largest counts, then by value bytes.
    pub fn top(&self, k: usize) -> Vec<(&[u8], u64)> {
        let mut all: Vec<(&[u8], u64)> = self
            .counts
            .iter()
            .map(|(value, count)| (value.as_slice(), *count))
            .collect();
        all.sort_by(|left, right| right.1.cmp(&left.1).then_with(|| left.0.cmp(right.0)));
        all.truncate(k);
        all
    }

    /// Bytes on the heap, about.
    pub fn heap_bytes(&self) -> usize {
        let entry = 2 * size_of::<(Vec<u8>, u64)>();
        self.counts.keys().map(|value| entry + value.capacity()).sum()
    }

    /// Appends the canonical form: undercount, then values ascending, each with length, bytes and count.
    pub fn encode(&self, out: &mut Vec<u8>) {
        write_varint(u128::from(self.undercount), out);
        for (value, count) in &self.counts {
            write_varint(value.len() as u128, out);
            out.extend_from_slice(value);
            write_varint(u128::from(*count), out);
        }
    }

    /// Reads what [`Self::encode`] wrote; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let mut read = Self {
            undercount: reader.word()?,
            ..Self::default()
        };
        while !reader.is_at_end() {
            let length = usize::try_from(reader.word()?).ok()?;
            let value = reader.take(length).filter(|value| super::extra::is_scalar(value))?;
            let count = reader.word().filter(|count| *count > 0)?;
            let ascends = read
                .counts
                .last_key_value()
                .is_none_or(|(last, _)| last.as_slice() < value);
            if !ascends || read.counts.len() == VALUES_MAX {
                return None;
            }
            read.counts.insert(value.to_vec(), count);
        }
        Some(read)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fold(values: impl Iterator<Item = u64>) -> TopCounts {
        let mut counts = TopCounts::default();
        values.for_each(|value| counts.add(value.to_string().as_bytes()));
        counts
    }

    /// Values at least n come about n^(-2/3) of the time.
    fn zipf(len: u64) -> impl Iterator<Item = u64> {
        (0..len).map(move |n| {
            let share = (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) as f64 / (1u64 << 53) as f64;
            (1.0 / (1.0 - share)).powf(1.5) as u64
        })
    }

    #[test]
    fn beyond_the_bound_counts_are_low_by_no_more_than_is_said() {
        let mut truth = BTreeMap::new();
        zipf(200_000).for_each(|value| *truth.entry(value.to_string().into_bytes()).or_insert(0u64) += 1);
        assert!(truth.len() > 2 * VALUES_MAX);
        let direct = fold(zipf(200_000));
        let mut merged = TopCounts::default();
        let values: Vec<u64> = zipf(200_000).collect();
        values
            .chunks(7_000)
            .for_each(|part| merged.merge(&fold(part.iter().copied())));
        for counts in [direct, merged] {
            assert!(counts.counts.len() <= VALUES_MAX);
            assert!(
                counts.undercount() > 0 && counts.undercount() <= 200_000 / VALUES_MAX as u64,
                "{}",
                counts.undercount()
            );
            for (value, count) in &truth {
                let found = counts.counts.get(value).copied().unwrap_or(0);
                assert!(found <= *count && found + counts.undercount() >= *count);
            }
            let top: Vec<&[u8]> = counts.top(3).iter().map(|(value, _)| *value).collect();
            assert_eq!(top, [&b"1"[..], b"2", b"3"]);
        }
    }

    proptest! {
        #[test]
        fn exact_counts_do_not_depend_on_order_and_survive_bytes(
            a in prop::collection::vec(0..50u64, 0..80), b in prop::collection::vec(0..50u64, 0..80),
            at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let whole = fold(a.iter().chain(&b).copied());
            let (mut forward, mut backward) = (fold(a.iter().copied()), fold(b.iter().copied()));
            let first = forward.clone();
            forward.merge(&backward);
            backward.merge(&first);
            prop_assert_eq!(&forward, &whole);
            prop_assert_eq!(&backward, &whole);
            let mut bytes = Vec::new();
            whole.encode(&mut bytes);
            prop_assert_eq!(TopCounts::decode(&bytes), Some(whole));
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Some(read) = TopCounts::decode(&bytes) {
                let mut again = Vec::new();
                read.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
