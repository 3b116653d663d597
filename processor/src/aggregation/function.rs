//! Functions of the manifest: which accumulators they need, and how a result is computed and printed from them.
//! Must not hold: state.

use super::accumulator::{Cell, Kind, read_sum, read_value};
use super::extra::Extra;
use super::percentile::{Quantiles, Resolution};
use crate::core::decimal;

/// Units of 10^-12 in one.
const ONE: i128 = 1_000_000_000_000;

/// A function with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Function {
    /// Number of events.
    Count,
    /// Exact sum.
    Sum,
    /// Sum ÷ count, half-even at 12 fractional digits.
    Average,
    /// Smallest value.
    Min,
    /// Largest value.
    Max,
    /// The smallest value that is not below a share of the values, by share.
    Percentile {
        /// Shares, each between 0 and 1 in units of 10^-12.
        quantiles: Vec<i128>,
        /// Relative error in millionths once there are too many values to keep.
        relative_error_ppm: u32,
    },
}

/// What an input of a function may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputType {
    /// A number; anything else is refused.
    Number,
    /// Text, boolean or number; an object or array is refused.
    Scalar,
}

impl Function {
    /// Types of its inputs, in order.
    pub fn inputs(&self) -> &'static [InputType] {
        match self {
            Self::Count => &[],
            Self::Sum | Self::Average | Self::Min | Self::Max | Self::Percentile { .. } => &[InputType::Number],
        }
    }

    /// Accumulators from which it is computed, each with the inputs it takes.
    pub(super) fn accumulators(&self) -> Vec<(Kind, &'static [usize])> {
        match self {
            Self::Count => vec![(Kind::Count, &[])],
            Self::Sum | Self::Average => vec![(Kind::Sum, &[0])],
            Self::Min => vec![(Kind::Min, &[0])],
            Self::Max => vec![(Kind::Max, &[0])],
            Self::Percentile { relative_error_ppm, .. } => {
                let relative_error_ppm = *relative_error_ppm;
                vec![(Kind::Percentile { relative_error_ppm }, &[0])]
            }
        }
    }

    /// Appends the result as JSON. Where no value was seen a count is 0, a percentile an object of nulls and
    /// everything else `null`. `cells` are those of its accumulators, in order.
    pub(super) fn write(&self, cells: &[Cell<'_>], out: &mut Vec<u8>) {
        let words = cells[0].words;
        match self {
            Self::Count => decimal::write_integer(words[0], out),
            Self::Percentile {
                quantiles,
                relative_error_ppm,
            } => {
                if let Some(Extra::Quantiles(values)) = cells[0].extra {
                    write_percentile(values, quantiles, Resolution::new(*relative_error_ppm), out);
                }
            }
            Self::Sum | Self::Average | Self::Min | Self::Max if words[0] == 0 => out.extend_from_slice(b"null"),
            Self::Sum => read_sum(words).write(out),
            Self::Average => read_sum(words).write_average(words[0], out),
            Self::Min | Self::Max => decimal::write(read_value(words), out),
        }
    }
}

/// `{"p50":1,"p99.9":2}`.
fn write_percentile(values: &Quantiles, quantiles: &[i128], resolution: Resolution, out: &mut Vec<u8>) {
    let count = values.count();
    // The nearest rank: the least one that is not below quantile · count.
    let rank = |quantile: &i128| (quantile * i128::from(count) + ONE - 1) / ONE;
    let ranks: Vec<u64> = quantiles.iter().map(|quantile| rank(quantile) as u64).collect();
    let found = if count == 0 {
        Vec::new()
    } else {
        values.at_ranks(&ranks, resolution)
    };
    for (index, quantile) in quantiles.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"{\"p" } else { b",\"p" });
        decimal::write(quantile * 100, out);
        out.extend_from_slice(b"\":");
        match found.get(index) {
            Some(value) => decimal::write(*value, out),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.push(b'}');
}
