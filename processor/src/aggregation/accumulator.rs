//! Accumulators: fixed runs of 64-bit words in a row of state. `add` and `merge` are exact, so neither the order of
//! events nor the cut into panes changes a bit of the result. Aggregates that need the same accumulator share it.

use serde::{Deserialize, Serialize};

use crate::core::decimal::ExactSum;

/// What an accumulator keeps. Names are part of the state format (the layout document): extend, never rename.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Number of events: 1 word.
    Count,
    /// Number of values and their exact sum: 4 words.
    Sum,
    /// Number of values (0 or more) and the smallest: 3 words.
    Min,
    /// Number of values and the largest: 3 words.
    Max,
}

impl Kind {
    /// Words it occupies.
    pub fn words(self) -> usize {
        match self {
            Self::Count => 1,
            Self::Sum => 4,
            Self::Min | Self::Max => 3,
        }
    }

    /// Adds a value (units of 10^-12); `words` are this accumulator's, all zero when nothing was added yet.
    pub fn add(self, words: &mut [u64], value: i128) {
        match self {
            Self::Count => words[0] += 1,
            Self::Sum => {
                let mut sum = read_sum(words);
                sum.add(value);
                words[0] += 1;
                write_sum(words, sum);
            }
            Self::Min => extreme(words, value, 1, |new, old| new < old),
            Self::Max => extreme(words, value, 1, |new, old| new > old),
        }
    }

    /// Merges another accumulator of this kind.
    pub fn merge(self, words: &mut [u64], other: &[u64]) {
        match self {
            Self::Count => words[0] += other[0],
            Self::Sum => {
                let mut sum = read_sum(words);
                sum.merge(read_sum(other));
                words[0] += other[0];
                write_sum(words, sum);
            }
            Self::Min if other[0] > 0 => extreme(words, read_value(other), other[0], |new, old| new < old),
            Self::Max if other[0] > 0 => extreme(words, read_value(other), other[0], |new, old| new > old),
            Self::Min | Self::Max => {}
        }
    }
}

/// The exact sum held by a [`Kind::Sum`].
pub fn read_sum(words: &[u64]) -> ExactSum {
    ExactSum::from_words([words[1], words[2], words[3]])
}

fn write_sum(words: &mut [u64], sum: ExactSum) {
    words[1..4].copy_from_slice(&sum.to_words());
}

/// The value held by a [`Kind::Min`] or [`Kind::Max`] that has seen one.
pub fn read_value(words: &[u64]) -> i128 {
    (u128::from(words[1]) | u128::from(words[2]) << 64) as i128
}

fn extreme(words: &mut [u64], value: i128, count: u64, better: impl Fn(i128, i128) -> bool) {
    if words[0] == 0 || better(value, read_value(words)) {
        words[1] = value as u64;
        words[2] = ((value as u128) >> 64) as u64;
    }
    words[0] += count;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KINDS: [Kind; 4] = [Kind::Count, Kind::Sum, Kind::Min, Kind::Max];

    fn fold(kind: Kind, values: &[i128]) -> Vec<u64> {
        let mut words = vec![0; kind.words()];
        for value in values {
            kind.add(&mut words, *value);
        }
        words
    }

    proptest! {
        #[test]
        fn merging_is_associative_commutative_and_equals_adding(
            a in prop::collection::vec(any::<i64>(), 0..6), b in prop::collection::vec(any::<i64>(), 0..6), c in prop::collection::vec(any::<i64>(), 0..6),
        ) {
            let wide = |values: &[i64]| values.iter().map(|value| i128::from(*value) << 40).collect::<Vec<_>>();
            let (a, b, c) = (wide(&a), wide(&b), wide(&c));
            for kind in KINDS {
                let merged = |parts: &[&[i128]]| {
                    let mut words = vec![0; kind.words()];
                    for part in parts {
                        kind.merge(&mut words, &fold(kind, part));
                    }
                    words
                };
                let whole = fold(kind, &[a.clone(), b.clone(), c.clone()].concat());
                prop_assert_eq!(&merged(&[&a, &b, &c]), &whole);
                prop_assert_eq!(&merged(&[&c, &a, &b]), &whole);
                let mut right = fold(kind, &a);
                let mut tail = fold(kind, &b);
                kind.merge(&mut tail, &fold(kind, &c));
                kind.merge(&mut right, &tail);
                prop_assert_eq!(&right, &whole);
            }
        }
    }
}
