//! What one event brings to the accumulators: read and checked in full before any row is touched.
//! Must not hold: where a value comes from (a field, an expression).

use std::ops::Range;

/// Where an event stands: the order in which `first` and `last` see events, and in which ties are broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Event time, ms since the epoch.
    pub time_ms: i64,
    /// Source partition; a task of one partition says 0.
    pub partition: u32,
    /// Offset in that partition.
    pub offset: i64,
}

/// Texts, booleans and numbers as canonical JSON: equal values have equal bytes.
#[derive(Clone, Debug, Default)]
pub struct Scalars {
    bytes: Vec<u8>,
    ranges: Vec<Option<Range<usize>>>,
}

impl Scalars {
    /// Forgets the values of the event before; there are `len` inputs, none with a value.
    pub fn reset(&mut self, len: usize) {
        self.bytes.clear();
        self.ranges.clear();
        self.ranges.resize(len, None);
    }

    /// Sets input `index` to the canonical JSON that `write` appends.
    ///
    /// # Errors
    /// Those of `write`; the input then has no value.
    pub fn set<E>(&mut self, index: usize, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        let start = self.bytes.len();
        write(&mut self.bytes)?;
        self.ranges[index] = Some(start..self.bytes.len());
        Ok(())
    }

    /// The canonical JSON of input `index`; `None` where it is missing or null.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.ranges[index].clone().map(|range| &self.bytes[range])
    }
}

/// The inputs of one event.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Where the event stands.
    pub place: Place,
    /// Numeric inputs in units of 10^-12, absent where missing or null.
    pub numbers: &'a [Option<i128>],
    /// Inputs that may be text, boolean or number. Both lists go by the plan's index of inputs.
    pub scalars: &'a Scalars,
    /// Verdicts of the aggregates' filters.
    pub filters: &'a [bool],
}
