//! Lines of a file, a pipe or a terminal, in batches that borrow one buffer: no allocation and no copy per line.
//! Must not look into a line, except to see that it is blank.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use streamagg_processor::pipeline::output::Record;

use super::source::Filled;

/// Lines of a batch at most.
pub(super) const BATCH_LINES_MAX: usize = 4096;
const BUFFER_BYTES: usize = 1024 * 1024;
/// A line longer than this is not an event: the run ends, naming it.
const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Why lines cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinesError {
    /// The system refused.
    #[error("cannot be read: {0}")]
    Read(std::io::Error),
    /// A line without end.
    #[error("line {line} is longer than {} MiB; the input must be JSON lines", LINE_BYTES_MAX / 1024 / 1024)]
    TooLong {
        /// Its number.
        line: i64,
    },
}

/// A reader of lines with the batch it found last.
#[derive(Debug)]
pub(super) struct LineReader {
    file: File,
    buffer: Vec<u8>,
    /// What was read and not yet given out.
    unread: Range<usize>,
    /// No newline before this position of `unread`.
    searched: usize,
    ended: bool,
    lines_seen: i64,
    /// Bytes of the file before the end of `unread`.
    bytes_read: u64,
    batch: Vec<(i64, Range<usize>)>,
}

impl LineReader {
    pub(super) fn new(file: File) -> Self {
        Self::at(file, 0, 0)
    }

    /// A reader that goes on behind `lines` lines of `bytes` bytes, where the file stands.
    pub(super) fn at(file: File, lines: i64, bytes: u64) -> Self {
        Self {
            file,
            buffer: vec![0; BUFFER_BYTES],
            unread: 0..0,
            searched: 0,
            ended: false,
            lines_seen: lines,
            bytes_read: bytes,
            batch: Vec::with_capacity(BATCH_LINES_MAX),
        }
    }

    /// Lines and bytes up to the end of the batch that [`Self::fill`] found.
    pub(super) fn place(&self) -> (i64, u64) {
        (self.lines_seen, self.bytes_read - self.unread.len() as u64)
    }

    /// The file that is read.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// The batch that [`Self::fill`] found: line number − 1 is the offset, blank lines are left out.
    pub(super) fn records(&self) -> Vec<Record<'_>> {
        let record = |(offset, range): &(i64, Range<usize>)| Record::new(*offset, &self.buffer[range.clone()]);
        self.batch.iter().map(record).collect()
    }

    /// Finds the next batch: lines at hand, otherwise what arrives within `wait`. Each call reads once at most, so that
    /// a slow input is never waited for while there are results to show.
    pub(super) fn fill(&mut self, wait: Duration) -> Result<Filled, LinesError> {
        self.batch.clear();
        self.cut();
        if !self.batch.is_empty() {
            return Ok(Filled::Records);
        }
        if self.ended {
            return Ok(Filled::End);
        }
        if !self.is_ready(wait)? {
            return Ok(Filled::Idle);
        }
        self.read()?;
        self.cut();
        // Part of a line, or blank lines only: nothing to show yet, but there may be more at once.
        Ok(Filled::Records)
    }

    /// Cuts complete lines from what was read; after the end of the input also the last one without a newline.
    fn cut(&mut self) {
        let end = self.unread.end;
        for newline in memchr::memchr_iter(b'\n', &self.buffer[self.searched..end]) {
            let line = self.unread.start..self.searched + newline;
            self.unread.start = line.end + 1;
            push(&self.buffer, &mut self.batch, &mut self.lines_seen, line);
            if self.batch.len() == BATCH_LINES_MAX {
                self.searched = self.unread.start;
                return;
            }
        }
        self.searched = end;
        if self.ended && self.unread.start < end {
            let line = self.unread.start..end;
            self.unread.start = end;
            push(&self.buffer, &mut self.batch, &mut self.lines_seen, line);
        }
    }

    fn is_ready(&self, wait: Duration) -> Result<bool, LinesError> {
        let wait = rustix::time::Timespec::try_from(wait).ok();
        let mut interest = [PollFd::from_borrowed_fd(self.file.as_fd(), PollFlags::IN)];
        match poll(&mut interest, wait.as_ref()) {
            Ok(ready) => Ok(ready > 0),
            // A signal: the caller looks at the stop flag and comes back.
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(errno) => Err(LinesError::Read(errno.into())),
        }
    }

    fn read(&mut self) -> Result<(), LinesError> {
        // Only a part of a line is left: move it to the front.
        self.buffer.copy_within(self.unread.clone(), 0);
        self.searched -= self.unread.start;
        self.unread = 0..self.unread.len();
        if self.unread.end == self.buffer.len() {
            if self.buffer.len() >= LINE_BYTES_MAX {
                return Err(LinesError::TooLong {
                    line: self.lines_seen + 1,
                });
            }
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        match self.file.read(&mut self.buffer[self.unread.end..]) {
            Ok(0) => self.ended = true,
            Ok(count) => {
                self.unread.end += count;
                self.bytes_read += count as u64;
            }
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(error) => return Err(LinesError::Read(error)),
        }
        Ok(())
    }
}

fn push(buffer: &[u8], batch: &mut Vec<(i64, Range<usize>)>, lines_seen: &mut i64, mut line: Range<usize>) {
    if *lines_seen == 0 && buffer[line.clone()].starts_with(BYTE_ORDER_MARK) {
        line.start += BYTE_ORDER_MARK.len();
    }
    if buffer[line.clone()].ends_with(b"\r") {
        line.end -= 1;
    }
    let offset = *lines_seen;
    *lines_seen += 1;
    if !buffer[line.clone()].iter().all(u8::is_ascii_whitespace) {
        batch.push((offset, line));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    fn reader(bytes: &[u8]) -> LineReader {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        LineReader::new(file)
    }

    fn all(mut reader: LineReader) -> Vec<(i64, Vec<u8>)> {
        let mut found = Vec::new();
        while reader.fill(Duration::ZERO).unwrap() != Filled::End {
            assert!(reader.batch.len() <= BATCH_LINES_MAX);
            found.extend(
                reader
                    .records()
                    .iter()
                    .map(|record| (record.offset, record.value.to_vec())),
            );
        }
        found
    }

    #[test]
    fn lines_keep_their_numbers_and_blank_ones_are_skipped() {
        let found = all(reader(b"\xef\xbb\xbf{1}\r\n\n  \t\n{2}\n\r\n{3}"));
        assert_eq!(
            found,
            [(0, b"{1}".to_vec()), (3, b"{2}".to_vec()), (5, b"{3}".to_vec())]
        );
        assert_eq!(all(reader(b"")), []);
        assert_eq!(all(reader(b"\n\n")), []);
    }

    #[test]
    fn lines_longer_than_the_buffer_and_many_lines_come_whole() {
        let long = vec![b'x'; 3 * BUFFER_BYTES];
        let mut bytes = b"first\n".to_vec();
        bytes.extend_from_slice(&long);
        bytes.push(b'\n');
        for index in 0..3 * BATCH_LINES_MAX {
            bytes.extend_from_slice(format!("line {index} {}\n", "y".repeat(index % 300)).as_bytes());
        }
        let found = all(reader(&bytes));
        assert_eq!(found.len(), 2 + 3 * BATCH_LINES_MAX);
        assert_eq!(found[1], (1, long));
        let last = 3 * BATCH_LINES_MAX - 1;
        assert_eq!(
            found[2 + last].1,
            format!("line {last} {}", "y".repeat(last % 300)).into_bytes()
        );
    }

    #[test]
    fn a_pipe_without_data_is_idle_not_waited_for() {
        let (read, mut write) = std::io::pipe().unwrap();
        let mut reader = LineReader::new(File::from(std::os::fd::OwnedFd::from(read)));
        assert_eq!(reader.fill(Duration::ZERO).unwrap(), Filled::Idle);
        write.write_all(b"{\"a\":1}\n{\"b\"").unwrap();
        assert_eq!(reader.fill(Duration::from_secs(10)).unwrap(), Filled::Records);
        assert_eq!(reader.records().len(), 1);
        assert_eq!(reader.fill(Duration::ZERO).unwrap(), Filled::Idle);
        write.write_all(b":2}\n").unwrap();
        assert_eq!(reader.fill(Duration::from_secs(10)).unwrap(), Filled::Records);
        assert_eq!(reader.records()[0].value, b"{\"b\":2}");
        drop(write);
        assert_eq!(reader.fill(Duration::from_secs(10)).unwrap(), Filled::Records);
        assert_eq!(reader.fill(Duration::ZERO).unwrap(), Filled::End);
    }
}
