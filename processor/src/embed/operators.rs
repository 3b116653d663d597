//! Closures over records, chained by type: no allocation per record, no dynamic dispatch. Must not know windows.

use crate::pipeline::output::Record;

/// A chain of closures that a record goes through before it is judged. Closed: made by the builder's methods.
pub trait Operators: sealed::Sealed {
    /// Records pass as they are, so nothing needs to be copied.
    const PASSES: bool;
    /// A record may become several, so what the engine sees is numbered anew.
    const FANS_OUT: bool;

    /// Hands what becomes of a record to `next`.
    fn apply<N: FnMut(&Record<'_>)>(&mut self, record: &Record<'_>, next: &mut N);
}

mod sealed {
    /// Nobody else implements operators: what they promise is not checked.
    pub trait Sealed {}
    impl Sealed for super::Unchanged {}
    impl<P, F> Sealed for super::Filter<P, F> {}
    impl<P, F> Sealed for super::Map<P, F> {}
    impl<P, F> Sealed for super::FlatMap<P, F> {}
}

/// No closure.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unchanged;

impl Operators for Unchanged {
    const PASSES: bool = true;
    const FANS_OUT: bool = false;

    fn apply<N: FnMut(&Record<'_>)>(&mut self, record: &Record<'_>, next: &mut N) {
        next(record);
    }
}

/// Keeps what a closure answers true for.
#[derive(Clone, Debug)]
pub struct Filter<P, F> {
    pub(super) before: P,
    pub(super) predicate: F,
}

impl<P: Operators, F: FnMut(&Record<'_>) -> bool> Operators for Filter<P, F> {
    const PASSES: bool = false;
    const FANS_OUT: bool = P::FANS_OUT;

    fn apply<N: FnMut(&Record<'_>)>(&mut self, record: &Record<'_>, next: &mut N) {
        let predicate = &mut self.predicate;
        self.before.apply(record, &mut |record| {
            if predicate(record) {
                next(record);
            }
        });
    }
}

/// Writes each record anew.
#[derive(Clone, Debug)]
pub struct Map<P, F> {
    pub(super) before: P,
    pub(super) function: F,
    pub(super) buffer: Vec<u8>,
}

impl<P: Operators, F: FnMut(&Record<'_>, &mut Vec<u8>)> Operators for Map<P, F> {
    const PASSES: bool = false;
    const FANS_OUT: bool = P::FANS_OUT;

    fn apply<N: FnMut(&Record<'_>)>(&mut self, record: &Record<'_>, next: &mut N) {
        let (function, buffer) = (&mut self.function, &mut self.buffer);
        self.before.apply(record, &mut |record| {
            buffer.clear();
            function(record, buffer);
            next(&Record {
                value: buffer,
                ..*record
            });
        });
    }
}

/// Makes any number of records of each.
#[derive(Clone, Debug)]
pub struct FlatMap<P, F> {
    pub(super) before: P,
    pub(super) function: F,
    pub(super) elements: Elements,
}

impl<P: Operators, F: FnMut(&Record<'_>, &mut Elements)> Operators for FlatMap<P, F> {
    const PASSES: bool = false;
    const FANS_OUT: bool = true;

    fn apply<N: FnMut(&Record<'_>)>(&mut self, record: &Record<'_>, next: &mut N) {
        let (function, elements) = (&mut self.function, &mut self.elements);
        self.before.apply(record, &mut |record| {
            elements.clear();
            function(record, elements);
            let mut start = 0;
            for end in &elements.ends {
                let value = &elements.bytes[start..*end];
                start = *end;
                next(&Record { value, ..*record });
            }
        });
    }
}

/// What a closure of `flat_map` makes of a record.
#[derive(Clone, Debug, Default)]
pub struct Elements {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Elements {
    /// Adds a record with these bytes.
    pub fn push(&mut self, value: &[u8]) {
        self.write(|out| out.extend_from_slice(value));
    }

    /// Adds a record whose bytes are appended in place. What the buffer held before is not the closure's to change.
    pub fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        debug_assert!(self.bytes.len() >= start, "a record is appended, nothing is taken away");
        self.ends.push(self.bytes.len());
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}
