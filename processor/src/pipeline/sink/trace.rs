//! Which trace each output of a step belongs to. Pure.
//! Must not hold: what a trace is (`core::trace_context`).

use super::Headers;
use crate::pipeline::output::Cause;

/// The traces of a step's outputs: each belongs to that of the record that put it out, if it came with one.
pub(super) struct Tracing<'a> {
    pub causes: &'a [Cause],
    /// The trace of the first cause, once looked for.
    pub first: Option<Option<usize>>,
}

impl Tracing<'_> {
    /// The trace of an output, asked for in order. `trace` gives that of a record of the step's batch.
    pub fn of(&mut self, output: usize, traces: &mut Vec<Headers>, trace: &dyn Fn(usize) -> Headers) -> Option<usize> {
        while let [cause, rest @ ..] = self.causes
            && cause.until <= output
        {
            (self.causes, self.first) = (rest, None);
        }
        let cause = self.causes.first().filter(|cause| cause.from <= output)?;
        *self.first.get_or_insert_with(|| keep(trace(cause.record), traces))
    }
}

/// Where a trace is kept, if these are the headers of one.
pub(super) fn keep(headers: Headers, traces: &mut Vec<Headers>) -> Option<usize> {
    (!headers.is_empty()).then(|| {
        traces.push(headers);
        traces.len() - 1
    })
}
