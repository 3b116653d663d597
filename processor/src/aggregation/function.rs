//! Functions of the manifest: which accumulators they need, and how a result is computed and printed from them.
//! Must not hold: state.

use num_bigint::BigInt;

use super::accumulator::{Cell, Kind, read_sum, read_value};
use super::distinct;
use super::extra::Extra;
use super::moments::{Moments, big, write_quotient};
use super::percentile::{Quantiles, Resolution};
use super::top_k::TopCounts;
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
    /// Value of the earliest event.
    First,
    /// Value of the latest event.
    Last,
    /// First input of the event whose second input is least.
    ArgMin,
    /// First input of the event whose second input is greatest.
    ArgMax,
    /// Variance.
    Variance {
        /// Divide by n rather than n − 1.
        population: bool,
    },
    /// Root of the variance.
    Stddev {
        /// Divide by n rather than n − 1.
        population: bool,
    },
    /// The smallest value that is not below a share of the values, by share.
    Percentile {
        /// Shares, each between 0 and 1 in units of 10^-12.
        quantiles: Vec<i128>,
        /// Relative error in millionths once there are too many values to keep.
        relative_error_ppm: u32,
    },
    /// Number of distinct values.
    Distinct {
        /// Standard error in millionths once there are too many values to keep.
        relative_error_ppm: u32,
    },
    /// Most frequent values.
    TopK {
        /// How many.
        k: usize,
    },
    /// Counts by range.
    Histogram {
        /// Upper limits, ascending, in units of 10^-12.
        bounds: Vec<i128>,
    },
    /// Events by length of the window.
    EventRate {
        /// The span to which the rate refers, ms.
        per_ms: i64,
    },
    /// Sum by length of the window.
    SumRate {
        /// The span to which the rate refers, ms.
        per_ms: i64,
    },
    /// Sum of the first input ÷ sum of the second.
    Ratio,
    /// Average of the first input weighted by the second.
    WeightedAverage,
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
        use InputType::{Number, Scalar};
        match self {
            Self::Count | Self::EventRate { .. } => &[],
            Self::Sum | Self::Average | Self::Min | Self::Max | Self::SumRate { .. } => &[Number],
            Self::Variance { .. } | Self::Stddev { .. } | Self::Percentile { .. } | Self::Histogram { .. } => &[Number],
            Self::First | Self::Last | Self::Distinct { .. } | Self::TopK { .. } => &[Scalar],
            Self::ArgMin | Self::ArgMax => &[Scalar, Number],
            Self::Ratio | Self::WeightedAverage => &[Number, Number],
        }
    }

    /// Accumulators from which it is computed, each with the inputs it takes.
    pub(super) fn accumulators(&self) -> Vec<(Kind, &'static [usize])> {
        match self {
            Self::Count | Self::EventRate { .. } => vec![(Kind::Count, &[])],
            Self::Sum | Self::Average | Self::SumRate { .. } => vec![(Kind::Sum, &[0])],
            Self::Min => vec![(Kind::Min, &[0])],
            Self::Max => vec![(Kind::Max, &[0])],
            Self::First => vec![(Kind::First, &[0])],
            Self::Last => vec![(Kind::Last, &[0])],
            Self::ArgMin => vec![(Kind::ArgMin, &[0, 1])],
            Self::ArgMax => vec![(Kind::ArgMax, &[0, 1])],
            Self::Variance { .. } | Self::Stddev { .. } => vec![(Kind::Moments, &[0])],
            Self::Percentile { relative_error_ppm, .. } => {
                let relative_error_ppm = *relative_error_ppm;
                vec![(Kind::Percentile { relative_error_ppm }, &[0])]
            }
            Self::Distinct { relative_error_ppm } => {
                let precision = distinct::precision(*relative_error_ppm);
                vec![(Kind::Distinct { precision }, &[0])]
            }
            Self::TopK { .. } => vec![(Kind::TopCounts, &[0])],
            Self::Histogram { bounds } => vec![(Kind::Histogram { bounds: bounds.clone() }, &[0])],
            Self::Ratio => vec![(Kind::Sum, &[0]), (Kind::Sum, &[1])],
            Self::WeightedAverage => vec![(Kind::Weighted, &[0, 1])],
        }
    }

    /// Appends the result as JSON. Where no value was seen a count is 0, a percentile an object of nulls and
    /// everything else `null`. `cells` are those of its accumulators, in order; `length_ms` is the window's.
    pub(super) fn write(&self, cells: &[Cell<'_>], length_ms: i64, out: &mut Vec<u8>) {
        let words = cells[0].words;
        match (self, cells[0].extra) {
            (Self::Count, _) => decimal::write_integer(words[0], out),
            (
                Self::Percentile {
                    quantiles,
                    relative_error_ppm,
                },
                Some(Extra::Quantiles(values)),
            ) => write_percentile(values, quantiles, Resolution::new(*relative_error_ppm), out),
            (Self::Distinct { .. }, Some(Extra::Distinct(distinct))) => decimal::write_integer(distinct.count(), out),
            (Self::TopK { k }, Some(Extra::Counts(counts))) => write_top(counts, *k, out),
            (Self::Histogram { bounds }, _) => write_histogram(words, bounds, out),
            _ if words.first().is_none_or(|count| *count == 0) => out.extend_from_slice(b"null"),
            (Self::Sum, _) => read_sum(words).write(out),
            (Self::Average, _) => read_sum(words).write_average(words[0], out),
            (Self::Min | Self::Max, _) => decimal::write(read_value(words), out),
            (Self::First | Self::Last | Self::ArgMin | Self::ArgMax, Some(Extra::Text(text))) if !text.is_empty() => {
                out.extend_from_slice(text);
            }
            (Self::Variance { population }, _) => moments(words).write_variance(*population, out),
            (Self::Stddev { population }, _) => moments(words).write_stddev(*population, out),
            (Self::EventRate { per_ms }, _) => write_rate(BigInt::from(words[0]) * ONE, *per_ms, length_ms, out),
            (Self::SumRate { per_ms }, _) => write_rate(big(&words[1..4]), *per_ms, length_ms, out),
            (Self::Ratio, _) if cells[1].words[0] > 0 => {
                write_quotient(&(big(&words[1..4]) * ONE), &big(&cells[1].words[1..4]), out);
            }
            (Self::WeightedAverage, _) => write_quotient(&big(&words[4..8]), &big(&words[1..4]), out),
            (_, _) => out.extend_from_slice(b"null"),
        }
    }
}

fn moments(words: &[u64]) -> Moments {
    Moments {
        count: words[0],
        sum: big(&words[1..4]),
        squares: big(&words[4..8]),
    }
}

/// An amount (units of 10^-12) by time; `null` for a window without a length.
fn write_rate(amount: BigInt, per_ms: i64, length_ms: i64, out: &mut Vec<u8>) {
    write_quotient(&(amount * per_ms), &BigInt::from(length_ms.max(0)), out);
}

/// `{"values":[{"value":"a","count":2}],"exact":true}`; an inexact one says by how much counts can be too low.
fn write_top(counts: &TopCounts, k: usize, out: &mut Vec<u8>) {
    if counts.is_empty() {
        return out.extend_from_slice(b"null");
    }
    out.extend_from_slice(b"{\"values\":[");
    for (index, (value, count)) in counts.top(k).iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"{\"value\":" } else { b",{\"value\":" });
        out.extend_from_slice(value);
        out.extend_from_slice(b",\"count\":");
        decimal::write_integer(*count, out);
        out.push(b'}');
    }
    if counts.undercount() == 0 {
        out.extend_from_slice(b"],\"exact\":true}");
    } else {
        out.extend_from_slice(b"],\"exact\":false,\"undercount\":");
        decimal::write_integer(counts.undercount(), out);
        out.push(b'}');
    }
}

/// `{"100":2,"500":0,"+Inf":1}`: values up to each limit and above the one before it.
fn write_histogram(words: &[u64], bounds: &[i128], out: &mut Vec<u8>) {
    if words.iter().all(|count| *count == 0) {
        return out.extend_from_slice(b"null");
    }
    out.push(b'{');
    for (index, count) in words.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"\"" } else { b",\"" });
        match bounds.get(index) {
            Some(bound) => decimal::write(*bound, out),
            None => out.extend_from_slice(b"+Inf"),
        }
        out.extend_from_slice(b"\":");
        decimal::write_integer(*count, out);
    }
    out.push(b'}');
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
