//! State of an accumulator that does not fit in words: sketches and texts. One a row for each accumulator that needs it.
//! Must not hold: which accumulator it belongs to.

use super::percentile::Quantiles;

/// Variable state.
#[derive(Clone, Debug)]
pub enum Extra {
    /// Of a percentile.
    Quantiles(Quantiles),
}

impl Extra {
    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Quantiles(quantiles) => quantiles.heap_bytes(),
        }
    }

    /// Appends its canonical form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Quantiles(quantiles) => quantiles.encode(out),
        }
    }
}
