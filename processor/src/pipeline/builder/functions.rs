//! Functions of a manifest as functions of the engine: numbers become decimals. Must not hold inputs.

use streamagg_crds::resolved;

use crate::aggregation::function::Function;
use crate::core::decimal;

pub(super) fn compile(function: &resolved::Function) -> Function {
    match function {
        resolved::Function::Count => Function::Count,
        resolved::Function::Sum(_) => Function::Sum,
        resolved::Function::Average(_) => Function::Average,
        resolved::Function::Min(_) => Function::Min,
        resolved::Function::Max(_) => Function::Max,
        resolved::Function::First(_) => Function::First,
        resolved::Function::Last(_) => Function::Last,
        resolved::Function::ArgMin(..) => Function::ArgMin,
        resolved::Function::ArgMax(..) => Function::ArgMax,
        resolved::Function::Variance { population, .. } => Function::Variance {
            population: *population,
        },
        resolved::Function::Stddev { population, .. } => Function::Stddev {
            population: *population,
        },
        resolved::Function::Percentile {
            quantiles,
            relative_error_ppm,
            ..
        } => Function::Percentile {
            quantiles: decimals(quantiles),
            relative_error_ppm: *relative_error_ppm,
        },
        resolved::Function::Distinct { relative_error_ppm, .. } => Function::Distinct {
            relative_error_ppm: *relative_error_ppm,
        },
        resolved::Function::TopK { k, .. } => Function::TopK { k: *k as usize },
        resolved::Function::Histogram { bounds, .. } => {
            let mut bounds = decimals(bounds);
            bounds.dedup();
            Function::Histogram { bounds }
        }
        resolved::Function::Rate { of: None, per_ms } => Function::EventRate { per_ms: *per_ms },
        resolved::Function::Rate { of: Some(_), per_ms } => Function::SumRate { per_ms: *per_ms },
        resolved::Function::Ratio(..) => Function::Ratio,
        resolved::Function::WeightedAverage(..) => Function::WeightedAverage,
    }
}

/// The shortest decimal form of each number; validation keeps them within the range of decimals.
fn decimals(numbers: &[f64]) -> Vec<i128> {
    numbers
        .iter()
        .map(|number| decimal::parse(number.to_string().as_bytes()).unwrap_or_default())
        .collect()
}
