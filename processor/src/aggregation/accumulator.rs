//! Accumulators: a fixed run of 64-bit words in a row of state, and for some a piece of variable state. `add` and
//! `merge` are exact, so neither the order of events nor the cut into panes changes a bit of the result. Aggregates
//! that need the same accumulator share it.
//! Must not hold: how results are computed and printed (`function`).

use serde::{Deserialize, Serialize};

use super::extra::Extra;
use super::inputs::Inputs;
use super::percentile::{Quantiles, Resolution};
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
    /// Values, or buckets of them: variable.
    Percentile {
        /// Relative error in millionths.
        relative_error_ppm: u32,
    },
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
            Self::Sum => 4,
            Self::Min | Self::Max => 3,
            Self::Percentile { .. } => 0,
        }
    }

    /// Its variable state before anything was added, when it has some.
    pub fn blank_extra(&self) -> Option<Extra> {
        match self {
            Self::Count | Self::Sum | Self::Min | Self::Max => None,
            Self::Percentile { .. } => Some(Extra::Quantiles(Quantiles::default())),
        }
    }

    /// Adds an event; `sources` are the numbers of its inputs. Words are all zero when nothing was added yet.
    pub fn add(&self, cell: CellMut<'_>, inputs: &Inputs<'_>, sources: [usize; 2]) {
        let words = cell.words;
        let number = || inputs.numbers[sources[0]];
        match self {
            Self::Count => words[0] += 1,
            Self::Sum => {
                if let Some(value) = number() {
                    let mut sum = read_sum(words);
                    sum.add(value);
                    words[0] += 1;
                    write_sum(words, sum);
                }
            }
            Self::Min => {
                if let Some(value) = number() {
                    extreme(words, value, 1, |new, old| new < old);
                }
            }
            Self::Max => {
                if let Some(value) = number() {
                    extreme(words, value, 1, |new, old| new > old);
                }
            }
            Self::Percentile { relative_error_ppm } => {
                if let (Some(value), Some(Extra::Quantiles(quantiles))) = (number(), cell.extra) {
                    quantiles.add(value, Resolution::new(*relative_error_ppm));
                }
            }
        }
    }

    /// Merges another accumulator of this kind.
    pub fn merge(&self, cell: CellMut<'_>, other: Cell<'_>) {
        let (words, others) = (cell.words, other.words);
        match self {
            Self::Count => words[0] += others[0],
            Self::Sum => {
                let mut sum = read_sum(words);
                sum.merge(read_sum(others));
                words[0] += others[0];
                write_sum(words, sum);
            }
            Self::Min if others[0] > 0 => extreme(words, read_value(others), others[0], |new, old| new < old),
            Self::Max if others[0] > 0 => extreme(words, read_value(others), others[0], |new, old| new > old),
            Self::Min | Self::Max => {}
            Self::Percentile { relative_error_ppm } => {
                if let (Some(Extra::Quantiles(ours)), Some(Extra::Quantiles(theirs))) = (cell.extra, other.extra) {
                    ours.merge(theirs, Resolution::new(*relative_error_ppm));
                }
            }
        }
    }

    /// Reads the variable state that [`Extra::encode`] wrote for this kind; `None` for bytes it did not write.
    pub fn decode_extra(&self, bytes: &[u8]) -> Option<Extra> {
        match self {
            Self::Count | Self::Sum | Self::Min | Self::Max => None,
            Self::Percentile { relative_error_ppm } => {
                Quantiles::decode(bytes, Resolution::new(*relative_error_ppm)).map(Extra::Quantiles)
            }
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
