//! How the aggregates of a spec lie in a row, and how a row becomes the `values` of a result or bytes of the store.
//! Must not hold: what a row belongs to.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::accumulator::{Cell, CellMut, Kind};
use super::extra::Extra;
use super::function::Function;
use super::inputs::Inputs;
use super::rows::{RowMut, RowRef};

/// Longest encoding of one piece of variable state; larger ones would not fit in a record of the store.
const EXTRA_BYTES_MAX: usize = 64 << 20;

/// An accumulator as the layout document names it: equal ones mean the same state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accumulator {
    /// What it keeps.
    pub kind: Kind,
    /// What its inputs are (a JSON pointer for a field); none for [`Kind::Count`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<String>,
    /// Which events it looks at, as canonical text; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
}

/// An accumulator and where it lies.
#[derive(Clone, Debug)]
struct Placed {
    accumulator: Accumulator,
    /// From the first to behind the last of its words within the row's accumulators.
    words: Range<usize>,
    /// Index of its variable state, when its kind has some.
    extra: Option<usize>,
    /// Indices of its inputs among those of the plan.
    sources: [usize; 2],
    /// Index of its filter.
    filter: Option<usize>,
}

/// An input of an aggregate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// What it is, as the layout document says it: equal text, equal values.
    pub identity: String,
    /// Index among the inputs of the plan.
    pub index: usize,
}

#[derive(Clone, Debug)]
struct Column {
    /// `"name":`, with what ends the column before it.
    prefix: Vec<u8>,
    function: Function,
    accumulators: SmallVec<[usize; 2]>,
}

/// The row layout of a spec.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    placed: Vec<Placed>,
    columns: Vec<Column>,
    /// The object that the last column is in.
    within: Option<String>,
    words: usize,
    extras: usize,
}

impl Layout {
    /// Adds an aggregate with its inputs in the order that its function wants; an accumulator already there is shared.
    pub fn push(&mut self, name: &str, function: &Function, sources: &[Source]) {
        self.push_filtered(None, name, function, sources, None);
    }

    /// As [`Self::push`], over the events that meet `filter`, and in the object `within` where one is named.
    pub fn push_filtered(
        &mut self,
        within: Option<&str>,
        name: &str,
        function: &Function,
        sources: &[Source],
        filter: Option<&Source>,
    ) {
        debug_assert_eq!(sources.len(), function.inputs().len(), "one source an input");
        let accumulators = function
            .accumulators()
            .into_iter()
            .map(|(kind, taken)| {
                let inputs: Vec<String> = taken.iter().map(|input| sources[*input].identity.clone()).collect();
                let mut indices = [0; 2];
                for (index, input) in indices.iter_mut().zip(taken) {
                    *index = sources[*input].index;
                }
                let accumulator = Accumulator {
                    kind,
                    inputs,
                    filter: filter.map(|filter| filter.identity.clone()),
                };
                self.find(&accumulator)
                    .unwrap_or_else(|| self.push_accumulator(accumulator, indices, filter.map(|filter| filter.index)))
            })
            .collect();
        let prefix = self.prefix(within, name);
        self.columns.push(Column {
            prefix,
            function: function.clone(),
            accumulators,
        });
    }

    /// What stands before the value of the next column: its name, and where objects end and begin.
    fn prefix(&mut self, within: Option<&str>, name: &str) -> Vec<u8> {
        let stays = self.within.as_deref() == within;
        let mut prefix = String::new();
        if self.within.is_some() && !stays {
            prefix.push('}');
        }
        if !self.columns.is_empty() {
            prefix.push(',');
        }
        if let Some(within) = within.filter(|_| !stays) {
            prefix.push_str(&format!("{}:{{", serde_json::Value::from(within)));
        }
        prefix.push_str(&format!("{}:", serde_json::Value::from(name)));
        self.within = within.map(str::to_owned);
        prefix.into_bytes()
    }

    /// The layout of stored rows; it has no aggregates to print.
    pub fn of_stored(accumulators: &[Accumulator]) -> Self {
        let mut layout = Self::default();
        for stored in accumulators {
            layout.push_accumulator(stored.clone(), [0; 2], None);
        }
        layout
    }

    fn find(&self, accumulator: &Accumulator) -> Option<usize> {
        self.placed.iter().position(|known| known.accumulator == *accumulator)
    }

    fn push_accumulator(&mut self, accumulator: Accumulator, sources: [usize; 2], filter: Option<usize>) -> usize {
        let extra = accumulator.kind.blank_extra().map(|_| self.extras);
        let words = self.words..self.words + accumulator.kind.words();
        self.words = words.end;
        self.extras += usize::from(extra.is_some());
        self.placed.push(Placed {
            accumulator,
            words,
            extra,
            sources,
            filter,
        });
        self.placed.len() - 1
    }

    /// Accumulators in the order of their words.
    pub fn accumulators(&self) -> Vec<Accumulator> {
        self.placed.iter().map(|placed| placed.accumulator.clone()).collect()
    }

    /// Words of a row.
    pub fn words(&self) -> usize {
        self.words
    }

    /// Variable state of a row to which nothing was added.
    pub fn blank_extras(&self) -> Vec<Extra> {
        self.placed
            .iter()
            .filter_map(|placed| placed.accumulator.kind.blank_extra())
            .collect()
    }

    /// Adds one event.
    pub fn add(&self, row: RowMut<'_>, inputs: &Inputs<'_>) {
        for placed in &self.placed {
            if placed.filter.is_some_and(|filter| !inputs.filters[filter]) {
                continue;
            }
            let cell = CellMut {
                words: &mut row.words[placed.words.clone()],
                extra: placed.extra.map(|extra| &mut row.extras[extra]),
            };
            placed.accumulator.kind.add(cell, inputs, placed.sources);
        }
    }

    /// Merges another row.
    pub fn merge(&self, row: RowMut<'_>, other: RowRef<'_>) {
        for placed in &self.placed {
            let cell = CellMut {
                words: &mut row.words[placed.words.clone()],
                extra: placed.extra.map(|extra| &mut row.extras[extra]),
            };
            placed.accumulator.kind.merge(cell, placed.cell(other));
        }
    }

    /// Whether what was merged can be taken away again.
    pub fn is_deductible(&self) -> bool {
        self.placed.iter().all(|placed| placed.accumulator.kind.is_deductible())
    }

    /// Takes away a row that was merged. False when an extreme went with it: the row is then to be merged anew.
    #[must_use]
    pub fn deduct(&self, row: RowMut<'_>, other: RowRef<'_>) -> bool {
        let mut is_whole = true;
        for placed in &self.placed {
            let words = &mut row.words[placed.words.clone()];
            is_whole &= placed
                .accumulator
                .kind
                .deduct(words, &other.words[placed.words.clone()]);
        }
        is_whole
    }

    /// Appends the members of `values`, in the order of the spec. `length_ms` is the window's end less its start.
    pub fn write_values(&self, row: RowRef<'_>, length_ms: i64, out: &mut Vec<u8>) {
        for column in &self.columns {
            out.extend_from_slice(&column.prefix);
            let cells: SmallVec<[Cell<'_>; 2]> = column
                .accumulators
                .iter()
                .map(|index| self.placed[*index].cell(row))
                .collect();
            column.function.write(&cells, length_ms, out);
        }
        if self.within.is_some() {
            out.push(b'}');
        }
    }

    /// Appends a row's bytes: words little-endian, then each piece of variable state with its length (4 bytes) before.
    pub fn encode(&self, row: RowRef<'_>, out: &mut Vec<u8>) {
        for word in row.words {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for extra in row.extras {
            let length_at = out.len();
            out.extend_from_slice(&[0; 4]);
            extra.encode(out);
            let length = (out.len() - length_at - 4) as u32;
            out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
        }
    }

    /// Reads what [`Self::encode`] wrote into a row; false for anything else, which leaves the row undefined.
    pub fn decode(&self, bytes: &[u8], row: RowMut<'_>) -> bool {
        self.try_decode(bytes, row).is_some()
    }

    fn try_decode(&self, bytes: &[u8], row: RowMut<'_>) -> Option<()> {
        let (words, mut rest) = bytes.split_at_checked(self.words * 8)?;
        for (word, bytes) in row.words.iter_mut().zip(words.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        for placed in &self.placed {
            if let Some(index) = placed.extra {
                let (length, tail) = rest.split_first_chunk::<4>()?;
                let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
                let (encoded, tail) = tail.split_at_checked(length.min(EXTRA_BYTES_MAX))?;
                row.extras[index] = placed.accumulator.kind.decode_extra(encoded)?;
                rest = tail;
            }
        }
        rest.is_empty().then_some(())
    }

    /// For each accumulator of `stored` that is in this layout too: its index there and here.
    pub fn shared_with(&self, stored: &Self) -> Vec<(usize, usize)> {
        let pairs = stored.placed.iter().enumerate();
        pairs
            .filter_map(|(index, placed)| Some((index, self.find(&placed.accumulator)?)))
            .collect()
    }

    /// Copies into `row` those accumulators of a row of `stored` that `shared` names.
    pub fn adopt(&self, row: RowMut<'_>, stored: &Self, other: RowRef<'_>, shared: &[(usize, usize)]) {
        for (from, to) in shared {
            let (cell, placed) = (stored.placed[*from].cell(other), &self.placed[*to]);
            row.words[placed.words.clone()].copy_from_slice(cell.words);
            if let (Some(index), Some(extra)) = (placed.extra, cell.extra) {
                row.extras[index] = extra.clone();
            }
        }
    }
}

impl Placed {
    fn cell<'a>(&self, row: RowRef<'a>) -> Cell<'a> {
        Cell {
            words: &row.words[self.words.clone()],
            extra: self.extra.map(|extra| &row.extras[extra]),
        }
    }
}

#[cfg(test)]
mod tests;
