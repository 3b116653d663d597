//! Input in memory: the generator's events, some at a time, so that a long run needs no more memory than a short one.
//! Must not be timed.

use streamagg_processor::generator::{Generator, Options};
use streamagg_processor::pipeline::output::Record;

/// Events made at a time.
const CHUNK: usize = 100_000;

/// Events with their offsets.
pub struct Feed {
    generator: Generator,
    bytes: Vec<u8>,
    ends: Vec<usize>,
    offset: i64,
}

impl Feed {
    pub fn new(options: &str) -> Result<Self, String> {
        let options: Options = options.parse().map_err(|error| format!("{options}: {error}"))?;
        Ok(Self {
            generator: Generator::new(options),
            bytes: Vec::new(),
            ends: Vec::new(),
            offset: 0,
        })
    }

    /// Makes the next events; none when there are no more.
    pub fn next_chunk(&mut self) -> Vec<Record<'_>> {
        self.offset += self.ends.len() as i64;
        self.bytes.clear();
        self.ends.clear();
        while self.ends.len() < CHUNK && self.generator.next_into(&mut self.bytes) {
            self.ends.push(self.bytes.len());
        }
        let mut start = 0;
        let record = |(index, end): (usize, &usize)| {
            // Without the line's end.
            let value = &self.bytes[start..*end - 1];
            start = *end;
            Record::new(self.offset + index as i64, value)
        };
        self.ends.iter().enumerate().map(record).collect()
    }
}
