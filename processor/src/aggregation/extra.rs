//! State of an accumulator that does not fit in words: sketches and texts. One a row for each accumulator that needs it.
//! Must not hold: which accumulator it belongs to.

use super::distinct::Distinct;
use super::percentile::Quantiles;
use super::top_k::TopCounts;

/// Variable state.
#[derive(Clone, Debug)]
pub enum Extra {
    /// Of a percentile.
    Quantiles(Quantiles),
    /// A value as canonical JSON; empty when there is none.
    Text(Vec<u8>),
    /// Of a count of distinct values.
    Distinct(Distinct),
    /// Of the most frequent values.
    Counts(TopCounts),
}

impl Extra {
    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Quantiles(quantiles) => quantiles.heap_bytes(),
            Self::Text(text) => text.capacity(),
            Self::Distinct(distinct) => distinct.heap_bytes(),
            Self::Counts(counts) => counts.heap_bytes(),
        }
    }

    /// Appends its canonical form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Quantiles(quantiles) => quantiles.encode(out),
            Self::Text(text) => out.extend_from_slice(text),
            Self::Distinct(distinct) => distinct.encode(out),
            Self::Counts(counts) => counts.encode(out),
        }
    }
}

/// Whether bytes are one JSON text, number or boolean.
pub fn is_scalar(bytes: &[u8]) -> bool {
    use serde_json::Value;
    match serde_json::from_slice(bytes) {
        Ok(Value::Bool(_) | Value::Number(_) | Value::String(_)) => true,
        Ok(Value::Null | Value::Array(_) | Value::Object(_)) | Err(_) => false,
    }
}
