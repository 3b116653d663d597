//! A file or standard output that takes lines through one buffer. Must not know what the lines mean.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Seek as _, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::RunError;

const BUFFER_BYTES: usize = 256 * 1024;

/// Lines to one place.
pub(super) struct LineSink {
    flag: &'static str,
    path: PathBuf,
    writer: BufWriter<File>,
    /// Bytes of the file, those in the buffer included.
    length: u64,
}

impl LineSink {
    /// `-` is standard output, everything else a file that is created or emptied.
    pub(super) fn create(output: &str) -> Result<Self, RunError> {
        if output != "-" {
            return Self::file("--output", Path::new(output));
        }
        let path = PathBuf::from("-");
        // A descriptor of our own: std's handle has a line buffer that would add a copy and a write per line.
        let owned = std::io::stdout().as_fd().try_clone_to_owned();
        let file = owned
            .map(File::from)
            .map_err(|source| failed("--output", &path, source))?;
        Ok(Self {
            flag: "--output",
            path,
            writer: BufWriter::with_capacity(BUFFER_BYTES, file),
            length: 0,
        })
    }

    /// A file named by a flag.
    pub(super) fn file(flag: &'static str, path: &Path) -> Result<Self, RunError> {
        let file = File::create(path).map_err(|source| failed(flag, path, source))?;
        Ok(Self {
            flag,
            path: path.to_owned(),
            writer: BufWriter::with_capacity(BUFFER_BYTES, file),
            length: 0,
        })
    }

    /// Goes on behind the first `length` bytes of a file; what a killed run wrote behind them is cut off.
    pub(super) fn resume(flag: &'static str, path: &Path, length: u64) -> Result<Self, RunError> {
        let open = || {
            let mut file = File::options().write(true).open(path)?;
            if file.metadata()?.len() < length {
                let message = format!("it is shorter than the {length} bytes that --state knows of");
                return Err(std::io::Error::other(message));
            }
            file.set_len(length)?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        let file = open().map_err(|source| failed(flag, path, source))?;
        Ok(Self {
            flag,
            path: path.to_owned(),
            writer: BufWriter::with_capacity(BUFFER_BYTES, file),
            length,
        })
    }

    /// Bytes of the file once it is flushed.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Writes bytes and a newline.
    pub(super) fn write_line(&mut self, line: &[u8]) -> Result<(), RunError> {
        self.length += line.len() as u64 + 1;
        let written = self.writer.write_all(line).and_then(|()| self.writer.write_all(b"\n"));
        written.map_err(|source| failed(self.flag, &self.path, source))
    }

    /// Hands everything to the system.
    pub(super) fn flush(&mut self) -> Result<(), RunError> {
        self.writer
            .flush()
            .map_err(|source| failed(self.flag, &self.path, source))
    }
}

fn failed(flag: &'static str, path: &Path, source: std::io::Error) -> RunError {
    if source.kind() == ErrorKind::BrokenPipe {
        return RunError::OutputClosed;
    }
    RunError::Output {
        flag,
        path: path.to_owned(),
        source,
    }
}
