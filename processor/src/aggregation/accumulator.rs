//! Accumulators: a fixed run of 64-bit words in a row of state, and for some a piece of variable state. `add` and
//! `merge` are exact, so neither the order of events nor the cut into panes changes a bit of the result. Aggregates
//! that need the same accumulator share it.
//! Must not hold: how results are computed and printed (`function`).

mod decimals;

use serde::{Deserialize, Serialize};

use super::distinct::Distinct;
use super::extra::Extra;
use super::inputs::{Inputs, Place};
use super::moments::{add_product, add_wide, deduct_wide};
use super::percentile::{Quantiles, Resolution};
use super::top_k::TopCounts;
use crate::core::decimal::ExactSum;

/// What an accumulator keeps. Names and parameters are part of the state format (the layout document): extend, never
/// rename.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Kind {
    /// Number of events: 1 word.
    Count,
    /// Number of values and their exact sum: 4 words.
    Sum,
    /// Number of values (0 or more) and the smallest: 3 words.
    Min,
    /// Number of values and the largest: 3 words.
    Max,
    /// Number of values, their sum and the sum of their squares: 8 words.
    Moments,
    /// Number of (value, weight), the sum of weights and the sum of products: 8 words.
    Weighted,
    /// Number of values and the place of the earliest: 4 words and the value.
    First,
    /// Number of values and the place of the latest: 4 words and the value.
    Last,
    /// Number of values, the place of the event whose second input is least, and that: 6 words and the first input.
    ArgMin,
    /// Number of values, the place of the event whose second input is greatest, and that: 6 words and the first input.
    ArgMax,
    /// Counts of values by range: a word each.
    Histogram {
        /// Upper limits, ascending, in units of 10^-12; each belongs to its range.
        #[serde(with = "decimals")]
        bounds: Vec<i128>,
    },
    /// Values, or buckets of them: variable.
    Percentile {
        /// Relative error in millionths.
        relative_error_ppm: u32,
    },
    /// Distinct values: variable.
    Distinct {
        /// Bits that choose a register.
        precision: u8,
    },
    /// Values with their counts: variable.
    TopCounts,
}

/// An accumulator's part of a row, to read.
#[derive(Clone, Copy, Debug)]
pub struct Cell<'a> {
    /// Its words.
    pub words: &'a [u64],
    /// Its variable state, when its kind has some.
    pub extra: Option<&'a Extra>,
}

/// An accumulator's part of a row, to change.
#[derive(Debug)]
pub struct CellMut<'a> {
    /// Its words.
    pub words: &'a mut [u64],
    /// Its variable state, when its kind has some.
    pub extra: Option<&'a mut Extra>,
}

impl Kind {
    /// Words it occupies.
    pub fn words(&self) -> usize {
        match self {
            Self::Count => 1,
            Self::Sum | Self::First | Self::Last => 4,
            Self::Min | Self::Max => 3,
            Self::ArgMin | Self::ArgMax => 6,
            Self::Moments | Self::Weighted => 8,
            Self::Histogram { bounds } => bounds.len() + 1,
            Self::Percentile { .. } | Self::Distinct { .. } | Self::TopCounts => 0,
        }
    }

    /// Its variable state before anything was added, when it has some.
    pub fn blank_extra(&self) -> Option<Extra> {
        match self {
            Self::Count | Self::Sum | Self::Min | Self::Max => None,
            Self::Moments | Self::Weighted | Self::Histogram { .. } => None,
            Self::First | Self::Last | Self::ArgMin | Self::ArgMax => Some(Extra::Text(Vec::new())),
            Self::Percentile { .. } => Some(Extra::Quantiles(Quantiles::default())),
            Self::Distinct { .. } => Some(Extra::Distinct(Distinct::default())),
            Self::TopCounts => Some(Extra::Counts(TopCounts::default())),
        }
    }

    /// Adds an event; `sources` are the numbers of its inputs. Words are all zero when nothing was added yet.
    #[inline]
    pub fn add(&self, cell: CellMut<'_>, inputs: &Inputs<'_>, sources: [usize; 2]) {
        let words = cell.words;
        match self {
            Self::Count => words[0] += 1,
            Self::Sum => {
                if let Some(value) = inputs.numbers[sources[0]] {
                    add_to_sum(words, value);
                }
            }
            Self::Min => {
                if let Some(value) = inputs.numbers[sources[0]] {
                    extreme(words, value, 1, |new, old| new < old);
                }
            }
            Self::Max => {
                if let Some(value) = inputs.numbers[sources[0]] {
                    extreme(words, value, 1, |new, old| new > old);
                }
            }
            Self::Moments
            | Self::Weighted
            | Self::Histogram { .. }
            | Self::First
            | Self::Last
            | Self::ArgMin
            | Self::ArgMax
            | Self::Percentile { .. }
            | Self::Distinct { .. }
            | Self::TopCounts => self.add_more(words, cell.extra, inputs, sources),
        }
    }

    /// The functions that are used less, apart from the hot loop.
    fn add_more(&self, words: &mut [u64], extra: Option<&mut Extra>, inputs: &Inputs<'_>, sources: [usize; 2]) {
        let number = |source: usize| inputs.numbers[sources[source]];
        let scalar = || inputs.scalars.get(sources[0]);
        match (self, extra) {
            (Self::Moments, _) => {
                if let Some(value) = number(0) {
                    add_to_sum(words, value);
                    add_product(&mut words[4..], value, value);
                }
            }
            (Self::Weighted, _) => {
                if let (Some(value), Some(weight)) = (number(0), number(1)) {
                    add_to_sum(words, weight);
                    add_product(&mut words[4..], value, weight);
                }
            }
            (Self::Histogram { bounds }, _) => {
                if let Some(value) = number(0) {
                    words[bounds.partition_point(|bound| *bound < value)] += 1;
                }
            }
            (Self::First | Self::Last, Some(Extra::Text(text))) => {
                if let Some(value) = scalar() {
                    self.choose(words, text, &placed_words(inputs.place, None), value);
                }
            }
            (Self::ArgMin | Self::ArgMax, Some(Extra::Text(text))) => {
                if let (Some(value), Some(by)) = (scalar(), number(1)) {
                    self.choose(words, text, &placed_words(inputs.place, Some(by)), value);
                }
            }
            (Self::Percentile { relative_error_ppm }, Some(Extra::Quantiles(quantiles))) => {
                if let Some(value) = number(0) {
                    quantiles.add(value, Resolution::new(*relative_error_ppm));
                }
            }
            (Self::Distinct { precision }, Some(Extra::Distinct(distinct))) => {
                if let Some(value) = scalar() {
                    distinct.add(value, *precision);
                }
            }
            (Self::TopCounts, Some(Extra::Counts(counts))) => {
                if let Some(value) = scalar() {
                    counts.add(value);
                }
            }
            (_, _) => debug_assert!(false, "{self:?} has the variable state of another kind"),
        }
    }

    /// Merges another accumulator of this kind.
    pub fn merge(&self, cell: CellMut<'_>, other: Cell<'_>) {
        let (words, others) = (cell.words, other.words);
        match (self, cell.extra, other.extra) {
            (Self::Count, _, _) => words[0] += others[0],
            (Self::Sum, _, _) => merge_sum(words, others),
            (Self::Min, _, _) if others[0] > 0 => {
                extreme(words, read_value(others), others[0], |new, old| new < old);
            }
            (Self::Max, _, _) if others[0] > 0 => {
                extreme(words, read_value(others), others[0], |new, old| new > old);
            }
            (Self::Min | Self::Max, _, _) => {}
            (Self::Moments | Self::Weighted, _, _) => {
                merge_sum(words, others);
                add_wide(&mut words[4..], &others[4..]);
            }
            (Self::Histogram { .. }, _, _) => {
                for (count, other) in words.iter_mut().zip(others) {
                    *count += other;
                }
            }
            (
                Self::First | Self::Last | Self::ArgMin | Self::ArgMax,
                Some(Extra::Text(text)),
                Some(Extra::Text(value)),
            ) => {
                if others[0] > 0 {
                    self.choose(words, text, others, value);
                }
            }
            (Self::Percentile { relative_error_ppm }, Some(Extra::Quantiles(ours)), Some(Extra::Quantiles(theirs))) => {
                ours.merge(theirs, Resolution::new(*relative_error_ppm))
            }
            (Self::Distinct { precision }, Some(Extra::Distinct(ours)), Some(Extra::Distinct(theirs))) => {
                ours.merge(theirs, *precision);
            }
            (Self::TopCounts, Some(Extra::Counts(ours)), Some(Extra::Counts(theirs))) => ours.merge(theirs),
            (_, _, _) => debug_assert!(false, "{self:?} has the variable state of another kind"),
        }
    }

    /// Whether [`Self::deduct`] can take a merged accumulator away again.
    pub fn is_deductible(&self) -> bool {
        match self {
            Self::Count | Self::Sum | Self::Min | Self::Max => true,
            Self::Moments | Self::Weighted | Self::Histogram { .. } => true,
            Self::First | Self::Last | Self::ArgMin | Self::ArgMax => false,
            Self::Percentile { .. } | Self::Distinct { .. } | Self::TopCounts => false,
        }
    }

    /// Takes away what was merged. False when the rest does not say what is left: the extreme has gone.
    #[must_use]
    pub fn deduct(&self, words: &mut [u64], others: &[u64]) -> bool {
        match self {
            Self::Count => words[0] -= others[0],
            Self::Sum => deduct_sum(words, others),
            Self::Moments | Self::Weighted => {
                deduct_sum(words, others);
                deduct_wide(&mut words[4..], &others[4..]);
            }
            Self::Histogram { .. } => {
                for (count, other) in words.iter_mut().zip(others) {
                    *count -= other;
                }
            }
            Self::Min | Self::Max => {
                words[0] -= others[0];
                return others[0] == 0 || read_value(words) != read_value(others);
            }
            Self::First | Self::Last | Self::ArgMin | Self::ArgMax => return false,
            Self::Percentile { .. } | Self::Distinct { .. } | Self::TopCounts => return false,
        }
        true
    }

    /// Takes the other value when it goes before the one held. `other` are words as these: number of values, place,
    /// and for the arguments of extremes the number that decides.
    fn choose(&self, words: &mut [u64], text: &mut Vec<u8>, other: &[u64], value: &[u8]) {
        let (old, new) = (read_place(words), read_place(other));
        let by = |words: &[u64]| read_i128(&words[4..]);
        let better = words[0] == 0
            || match self {
                Self::Last => new > old,
                Self::ArgMin => (by(other), new) < (by(words), old),
                // Of equal extremes the earliest counts.
                Self::ArgMax => by(other) > by(words) || (by(other) == by(words) && new < old),
                Self::First
                | Self::Count
                | Self::Sum
                | Self::Min
                | Self::Max
                | Self::Moments
                | Self::Weighted
                | Self::Histogram { .. }
                | Self::Percentile { .. }
                | Self::Distinct { .. }
                | Self::TopCounts => new < old,
            };
        let count = words[0] + other[0];
        if better {
            let len = words.len();
            words.copy_from_slice(&other[..len]);
            text.clear();
            text.extend_from_slice(value);
        }
        words[0] = count;
    }

    /// Reads the variable state that [`Extra::encode`] wrote for this kind; `None` for bytes it did not write.
    pub fn decode_extra(&self, bytes: &[u8]) -> Option<Extra> {
        match self {
            Self::Count | Self::Sum | Self::Min | Self::Max => None,
            Self::Moments | Self::Weighted | Self::Histogram { .. } => None,
            Self::First | Self::Last | Self::ArgMin | Self::ArgMax => {
                let fits = bytes.is_empty() || super::extra::is_scalar(bytes);
                fits.then(|| Extra::Text(bytes.to_vec()))
            }
            Self::Percentile { relative_error_ppm } => {
                Quantiles::decode(bytes, Resolution::new(*relative_error_ppm)).map(Extra::Quantiles)
            }
            Self::Distinct { precision } => Distinct::decode(bytes, *precision).map(Extra::Distinct),
            Self::TopCounts => TopCounts::decode(bytes).map(Extra::Counts),
        }
    }
}

/// Words of one value: its number, time, partition and offset, and what decides about it.
fn placed_words(place: Place, by: Option<i128>) -> [u64; 6] {
    let by = by.unwrap_or(0) as u128;
    [
        1,
        place.time_ms as u64,
        u64::from(place.partition),
        place.offset as u64,
        by as u64,
        (by >> 64) as u64,
    ]
}

fn read_place(words: &[u64]) -> Place {
    Place {
        time_ms: words[1] as i64,
        partition: words[2] as u32,
        offset: words[3] as i64,
    }
}

fn add_to_sum(words: &mut [u64], value: i128) {
    let mut sum = read_sum(words);
    sum.add(value);
    words[0] += 1;
    write_sum(words, sum);
}

fn merge_sum(words: &mut [u64], others: &[u64]) {
    let mut sum = read_sum(words);
    sum.merge(read_sum(others));
    words[0] += others[0];
    write_sum(words, sum);
}

fn deduct_sum(words: &mut [u64], others: &[u64]) {
    let mut sum = read_sum(words);
    sum.deduct(read_sum(others));
    words[0] -= others[0];
    write_sum(words, sum);
}

/// The exact sum held by a [`Kind::Sum`], [`Kind::Moments`] or (of weights) [`Kind::Weighted`].
pub fn read_sum(words: &[u64]) -> ExactSum {
    ExactSum::from_words([words[1], words[2], words[3]])
}

fn write_sum(words: &mut [u64], sum: ExactSum) {
    words[1..4].copy_from_slice(&sum.to_words());
}

/// The value held by a [`Kind::Min`] or [`Kind::Max`] that has seen one.
pub fn read_value(words: &[u64]) -> i128 {
    read_i128(&words[1..])
}

fn read_i128(words: &[u64]) -> i128 {
    (u128::from(words[0]) | u128::from(words[1]) << 64) as i128
}

fn extreme(words: &mut [u64], value: i128, count: u64, better: impl Fn(i128, i128) -> bool) {
    if words[0] == 0 || better(value, read_value(words)) {
        words[1] = value as u64;
        words[2] = ((value as u128) >> 64) as u64;
    }
    words[0] += count;
}
