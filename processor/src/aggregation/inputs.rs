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
    /// Forgets the values of the event before.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ranges.clear();
    }

    /// Appends the next input; `write` appends its canonical JSON and answers whether there is a value.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn push<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<bool, E>) -> Result<(), E> {
        let start = self.bytes.len();
        let is_there = write(&mut self.bytes)?;
        self.ranges.push(is_there.then_some(start..self.bytes.len()));
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
    /// Inputs that may be text, boolean or number.
    pub scalars: &'a Scalars,
}
