//! How the aggregates of a spec lie in a row of words, and how a row becomes the `values` of a result.
//! Must not hold: what a row belongs to.

use serde::{Deserialize, Serialize};

use super::accumulator::{Kind, read_sum, read_value};
use crate::core::decimal;

/// An accumulator of a row: what it keeps, of which field, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accumulator {
    /// What it keeps.
    pub kind: Kind,
    /// JSON pointer of the field it takes; absent for [`Kind::Count`].
    pub field: Option<String>,
    /// First word within the row's accumulators.
    #[serde(skip)]
    pub offset: usize,
    /// Index of its input among the plan's numeric inputs.
    #[serde(skip)]
    pub input: usize,
}

/// Functions of the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

impl Function {
    /// Accumulator from which it is computed.
    pub fn kind(self) -> Kind {
        match self {
            Self::Count => Kind::Count,
            Self::Sum | Self::Average => Kind::Sum,
            Self::Min => Kind::Min,
            Self::Max => Kind::Max,
        }
    }

    /// Appends the result as JSON; `null` where no value was seen (a count is 0).
    fn write(self, words: &[u64], out: &mut Vec<u8>) {
        if self == Self::Count {
            return decimal::write_integer(words[0], out);
        }
        if words[0] == 0 {
            return out.extend_from_slice(b"null");
        }
        match self {
            Self::Count => {}
            Self::Sum => read_sum(words).write(out),
            Self::Average => read_sum(words).write_average(words[0], out),
            Self::Min | Self::Max => decimal::write(read_value(words), out),
        }
    }
}

#[derive(Clone, Debug)]
struct Column {
    /// `"name":`, with a comma before it from the second on.
    prefix: Vec<u8>,
    function: Function,
    accumulator: usize,
}

/// The row layout of a spec.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    accumulators: Vec<Accumulator>,
    columns: Vec<Column>,
    words: usize,
}

impl Layout {
    /// Adds an aggregate; one that needs an accumulator already there shares it.
    pub fn push(&mut self, name: &str, function: Function, field: Option<&str>, input: usize) {
        let kind = function.kind();
        let known = self
            .accumulators
            .iter()
            .position(|known| known.kind == kind && known.field.as_deref() == field);
        let accumulator = known.unwrap_or_else(|| {
            let field = field.map(str::to_owned);
            self.accumulators.push(Accumulator {
                kind,
                field,
                offset: self.words,
                input,
            });
            self.words += kind.words();
            self.accumulators.len() - 1
        });
        let comma = if self.columns.is_empty() { "" } else { "," };
        let prefix = format!("{comma}{}:", serde_json::Value::from(name)).into_bytes();
        self.columns.push(Column {
            prefix,
            function,
            accumulator,
        });
    }

    /// Accumulators in the order of their words.
    pub fn accumulators(&self) -> &[Accumulator] {
        &self.accumulators
    }

    /// Words of a row.
    pub fn words(&self) -> usize {
        self.words
    }

    /// Adds one event: `inputs` holds the numeric inputs, absent where the field is missing or null.
    pub fn add(&self, words: &mut [u64], inputs: &[Option<i128>]) {
        for accumulator in &self.accumulators {
            let words = &mut words[accumulator.offset..accumulator.offset + accumulator.kind.words()];
            if accumulator.kind == Kind::Count {
                words[0] += 1;
            } else if let Some(value) = inputs[accumulator.input] {
                accumulator.kind.add(words, value);
            }
        }
    }

    /// Merges another row.
    pub fn merge(&self, words: &mut [u64], other: &[u64]) {
        for accumulator in &self.accumulators {
            let range = accumulator.offset..accumulator.offset + accumulator.kind.words();
            accumulator.kind.merge(&mut words[range.clone()], &other[range]);
        }
    }

    /// Appends the members of `values`, in the order of the spec.
    pub fn write_values(&self, words: &[u64], out: &mut Vec<u8>) {
        for column in &self.columns {
            out.extend_from_slice(&column.prefix);
            let accumulator = &self.accumulators[column.accumulator];
            column.function.write(
                &words[accumulator.offset..accumulator.offset + accumulator.kind.words()],
                out,
            );
        }
    }
}
