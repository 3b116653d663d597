//! An aggregate of a valid manifest as one function with its parameters. Must not check anything.

use super::{Input, Let, expression, input};
use crate::expression::{Expression, Kind, Node};
use crate::v1alpha1::{AggregateSpec, FieldOf, Spread};

/// A value of a result.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// Name in the result.
    pub name: String,
    /// Name of the composite that holds it in the result.
    pub within: Option<String>,
    /// Which events it looks at; absent: all.
    pub filter: Option<Expression>,
    /// Where the manifest says that.
    pub filter_path: String,
    /// What is computed.
    pub function: Function,
}

/// What an aggregate computes.
#[derive(Clone, Debug, PartialEq)]
pub enum Function {
    /// Number of events.
    Count,
    /// Sum.
    Sum(Input),
    /// Average.
    Average(Input),
    /// Least value.
    Min(Input),
    /// Greatest value.
    Max(Input),
    /// Value of the earliest event.
    First(Input),
    /// Value of the latest event.
    Last(Input),
    /// Value of the event where another is least.
    ArgMin(Input, Input),
    /// Value of the event where another is greatest.
    ArgMax(Input, Input),
    /// Variance; `population` divides by n.
    Variance {
        /// Of what.
        of: Input,
        /// Whether to divide by n rather than n − 1.
        population: bool,
    },
    /// Standard deviation; `population` divides by n.
    Stddev {
        /// Of what.
        of: Input,
        /// Whether to divide by n rather than n − 1.
        population: bool,
    },
    /// Quantiles.
    Percentile {
        /// Of what.
        of: Input,
        /// Shares between 0 and 1.
        quantiles: Vec<f64>,
        /// Relative error in millionths.
        relative_error_ppm: u32,
    },
    /// Number of distinct values.
    Distinct {
        /// Of what.
        of: Input,
        /// Standard error in millionths.
        relative_error_ppm: u32,
    },
    /// Most frequent values.
    TopK {
        /// Of what.
        of: Input,
        /// How many.
        k: u32,
    },
    /// Counts by range.
    Histogram {
        /// Of what.
        of: Input,
        /// Upper limits, ascending.
        bounds: Vec<f64>,
    },
    /// Events or sum by length of the window.
    Rate {
        /// Of what; absent: events.
        of: Option<Input>,
        /// The span to which the rate refers, ms.
        per_ms: i64,
    },
    /// Quotient of two sums.
    Ratio(Input, Input),
    /// Average of the first weighted by the second.
    WeightedAverage(Input, Input),
}

impl Function {
    /// What it looks at, in the order of the variant.
    pub fn inputs(&self) -> Vec<&Input> {
        match self {
            Self::Count | Self::Rate { of: None, .. } => Vec::new(),
            Self::Sum(of)
            | Self::Average(of)
            | Self::Min(of)
            | Self::Max(of)
            | Self::First(of)
            | Self::Last(of)
            | Self::Variance { of, .. }
            | Self::Stddev { of, .. }
            | Self::Percentile { of, .. }
            | Self::Distinct { of, .. }
            | Self::TopK { of, .. }
            | Self::Histogram { of, .. }
            | Self::Rate { of: Some(of), .. } => vec![of],
            Self::ArgMin(first, second)
            | Self::ArgMax(first, second)
            | Self::Ratio(first, second)
            | Self::WeightedAverage(first, second) => vec![first, second],
        }
    }
}

/// All aggregates in the order of the result; a composite is its members.
pub(super) fn aggregates(specs: &[AggregateSpec], lets: &[Let]) -> Option<Vec<Aggregate>> {
    let mut aggregates = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let path = format!("spec.aggregates[{index}]");
        let Some(members) = &spec.composite else {
            aggregates.push(aggregate(spec, None, &path, lets)?);
            continue;
        };
        let shared = expression(spec.where_.as_deref(), lets)?;
        for (place, member) in members.iter().enumerate() {
            let member = aggregate(member, Some(&spec.name), &format!("{path}.composite[{place}]"), lets)?;
            aggregates.push(narrowed(member, shared.as_ref(), &path));
        }
    }
    Some(aggregates)
}

/// A member of a composite looks at events that meet both conditions.
fn narrowed(member: Aggregate, shared: Option<&Expression>, path: &str) -> Aggregate {
    match (shared, member.filter) {
        (None, filter) => Aggregate { filter, ..member },
        (Some(shared), None) => Aggregate {
            filter: Some(shared.clone()),
            filter_path: format!("{path}.where"),
            ..member
        },
        (Some(shared), Some(own)) => Aggregate {
            filter: Some(Expression {
                root: Node::And(vec![shared.root.clone(), own.root]),
                kind: Kind::Bool,
            }),
            ..member
        },
    }
}

fn aggregate(spec: &AggregateSpec, within: Option<&str>, path: &str, lets: &[Let]) -> Option<Aggregate> {
    let function = plain(spec, lets)
        .or_else(|| of_any_value(spec, lets))
        .or_else(|| with_parameters(spec, lets))?;
    Some(Aggregate {
        name: spec.name.clone(),
        within: within.map(str::to_owned),
        filter: expression(spec.where_.as_deref(), lets)?,
        filter_path: format!("{path}.where"),
        function,
    })
}

fn of(of: &FieldOf, lets: &[Let]) -> Option<Input> {
    input(of.field.as_ref(), of.value.as_deref(), lets)
}

/// Functions of numbers without parameters.
fn plain(spec: &AggregateSpec, lets: &[Let]) -> Option<Function> {
    if spec.count.is_some() {
        Some(Function::Count)
    } else if let Some(sum) = &spec.sum {
        Some(Function::Sum(of(sum, lets)?))
    } else if let Some(average) = &spec.average {
        Some(Function::Average(of(average, lets)?))
    } else if let Some(min) = &spec.min {
        Some(Function::Min(of(min, lets)?))
    } else if let Some(max) = &spec.max {
        Some(Function::Max(of(max, lets)?))
    } else if let Some(ratio) = &spec.ratio {
        Some(Function::Ratio(
            of(&ratio.numerator, lets)?,
            of(&ratio.denominator, lets)?,
        ))
    } else {
        let average = spec.weighted_average.as_ref()?;
        let value = input(average.field.as_ref(), average.value.as_deref(), lets)?;
        Some(Function::WeightedAverage(value, of(&average.weight, lets)?))
    }
}

/// Functions of texts, numbers or booleans.
fn of_any_value(spec: &AggregateSpec, lets: &[Let]) -> Option<Function> {
    if let Some(first) = &spec.first {
        Some(Function::First(input(
            first.field.as_ref(),
            first.value.as_deref(),
            lets,
        )?))
    } else if let Some(last) = &spec.last {
        Some(Function::Last(input(last.field.as_ref(), last.value.as_deref(), lets)?))
    } else if let Some(arg) = &spec.arg_min {
        Some(Function::ArgMin(
            input(arg.field.as_ref(), arg.value.as_deref(), lets)?,
            of(&arg.by, lets)?,
        ))
    } else if let Some(arg) = &spec.arg_max {
        Some(Function::ArgMax(
            input(arg.field.as_ref(), arg.value.as_deref(), lets)?,
            of(&arg.by, lets)?,
        ))
    } else if let Some(distinct) = &spec.distinct {
        Some(Function::Distinct {
            of: input(distinct.field.as_ref(), distinct.value.as_deref(), lets)?,
            relative_error_ppm: ppm(distinct.relative_error),
        })
    } else {
        let top = spec.top_k.as_ref()?;
        Some(Function::TopK {
            of: input(top.field.as_ref(), top.value.as_deref(), lets)?,
            k: top.k,
        })
    }
}

/// Functions of numbers with parameters.
fn with_parameters(spec: &AggregateSpec, lets: &[Let]) -> Option<Function> {
    let spread = |spread: &Spread| {
        Some((
            input(spread.field.as_ref(), spread.value.as_deref(), lets)?,
            spread.population,
        ))
    };
    if let Some(variance) = &spec.variance {
        let (of, population) = spread(variance)?;
        Some(Function::Variance { of, population })
    } else if let Some(stddev) = &spec.stddev {
        let (of, population) = spread(stddev)?;
        Some(Function::Stddev { of, population })
    } else if let Some(percentile) = &spec.percentile {
        Some(Function::Percentile {
            of: input(percentile.field.as_ref(), percentile.value.as_deref(), lets)?,
            quantiles: percentile.quantiles.clone(),
            relative_error_ppm: ppm(percentile.relative_error),
        })
    } else if let Some(histogram) = &spec.histogram {
        let mut bounds = histogram.bounds.clone();
        bounds.sort_by(f64::total_cmp);
        let of = input(histogram.field.as_ref(), histogram.value.as_deref(), lets)?;
        Some(Function::Histogram { of, bounds })
    } else {
        let rate = spec.rate.as_ref()?;
        Some(Function::Rate {
            of: input(rate.field.as_ref(), rate.value.as_deref(), lets),
            per_ms: i64::try_from(rate.per.ms()).ok()?,
        })
    }
}

fn ppm(share: f64) -> u32 {
    (share * 1e6).round() as u32
}
