//! State in a file: changes are appended as frames, each with its length and checksum, and read back when it is opened.
//! A frame that a kill cut short is not there: atomic and durable as `Backend` demands (of the process, not the machine).
//! Must not know what keys mean.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use streamagg_processor::state::backend::{Backend, Change, Changes, Error, Visit};
use streamagg_processor::state::memory::MemoryBackend;
use xxhash_rust::xxh3::xxh3_64;

/// First bytes of the file: what it is, and its format.
const MAGIC: &[u8; 8] = b"saggjnl1";
/// Length and checksum before the payload of a frame.
const HEAD_BYTES: usize = 12;
/// The file is written anew when it is larger than this and than three times what it holds.
const REWRITE_BYTES_MIN: u64 = 16 << 20;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const DELETE_RANGE: u8 = 3;

/// A backend in a file, held in memory.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    entries: MemoryBackend,
    bytes: u64,
    /// Length after it was last written anew.
    rewritten_bytes: u64,
}

impl Journal {
    /// Opens the file, or makes an empty one. A torn frame at its end is cut off.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |error: std::io::Error| store_error(path, &error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let mut entries = MemoryBackend::default();
        let valid = if MAGIC.starts_with(&bytes) && bytes.len() < MAGIC.len() {
            file.set_len(0).map_err(failed)?;
            rewind(&mut file).map_err(failed)?;
            file.write_all(MAGIC).map_err(failed)?;
            MAGIC.len()
        } else if bytes.starts_with(MAGIC) {
            let valid = read_frames(&bytes, &mut entries)?;
            file.set_len(valid as u64).map_err(failed)?;
            valid
        } else {
            let what = format!("{} is not a state file of this version", path.display());
            return Err(Error::Corrupt { what });
        };
        seek(&mut file, valid as u64).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            entries,
            bytes: valid as u64,
            rewritten_bytes: valid as u64,
        })
    }

    /// Writes what is held into a new file and puts it in the place of the old one.
    fn rewrite(&mut self) -> Result<(), Error> {
        let failed = |error: std::io::Error| store_error(&self.path, &error);
        let mut all = Changes::default();
        self.entries.scan(&[], &mut |key, value| {
            all.put(key, value);
            Ok(())
        })?;
        let beside = self.path.with_extension("new");
        let mut file = File::create(&beside).map_err(failed)?;
        let frame = frame(&all);
        file.write_all(MAGIC)
            .and_then(|()| file.write_all(&frame))
            .and_then(|()| std::fs::rename(&beside, &self.path))
            .map_err(failed)?;
        self.bytes = (MAGIC.len() + frame.len()) as u64;
        (self.file, self.rewritten_bytes) = (file, self.bytes);
        Ok(())
    }
}

impl Backend for Journal {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.entries.get(key)
    }

    fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), Error> {
        self.entries.scan(prefix, visit)
    }

    fn apply(&mut self, changes: &Changes) -> Result<(), Error> {
        let frame = frame(changes);
        self.file
            .write_all(&frame)
            .map_err(|error| store_error(&self.path, &error))?;
        self.bytes += frame.len() as u64;
        self.entries.apply(changes)?;
        if self.bytes > REWRITE_BYTES_MIN.max(self.rewritten_bytes.saturating_mul(3)) {
            self.rewrite()?;
        }
        Ok(())
    }
}

fn store_error(path: &Path, error: &std::io::Error) -> Error {
    Error::Store {
        message: format!("{}: {error}", path.display()),
    }
}

fn rewind(file: &mut File) -> std::io::Result<()> {
    seek(file, 0)
}

fn seek(file: &mut File, to: u64) -> std::io::Result<()> {
    std::io::Seek::seek(file, std::io::SeekFrom::Start(to)).map(drop)
}

fn frame(changes: &Changes) -> Vec<u8> {
    let mut frame = vec![0; HEAD_BYTES];
    let mut part = |bytes: &[u8]| {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(bytes);
    };
    for change in changes.iter() {
        let (tag, first, second): (u8, &[u8], &[u8]) = match change {
            Change::Put { key, value } => (PUT, key, value),
            Change::Delete { key } => (DELETE, key, &[]),
            Change::DeleteRange { from, to } => (DELETE_RANGE, from, to),
        };
        part(&[tag]);
        part(first);
        part(second);
    }
    let length = u32::try_from(frame.len() - HEAD_BYTES).unwrap_or(u32::MAX);
    let checksum = xxh3_64(&frame[HEAD_BYTES..]);
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame[4..HEAD_BYTES].copy_from_slice(&checksum.to_le_bytes());
    frame
}

/// Applies every whole frame; where they end. A frame whose checksum holds and whose content does not is damage.
fn read_frames(bytes: &[u8], entries: &mut MemoryBackend) -> Result<usize, Error> {
    let mut at = MAGIC.len();
    while let Some((head, rest)) = bytes.get(at..).and_then(|rest| rest.split_first_chunk::<HEAD_BYTES>()) {
        let (length, checksum) = head.split_at(4);
        let length = length.try_into().map(u32::from_le_bytes).unwrap_or(u32::MAX) as usize;
        let Some(payload) = rest.get(..length) else {
            break;
        };
        if xxh3_64(payload).to_le_bytes() != checksum {
            break;
        }
        let changes = read_changes(payload).ok_or_else(|| Error::Corrupt {
            what: format!("the frame at byte {at} of the state file"),
        })?;
        entries.apply(&changes)?;
        at += HEAD_BYTES + length;
    }
    Ok(at)
}

fn read_changes(mut payload: &[u8]) -> Option<Changes> {
    let mut changes = Changes::default();
    let mut part = || {
        let (length, rest) = payload.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        payload = rest;
        Some((part, rest.is_empty()))
    };
    let mut ended = false;
    while !ended {
        let Some((tag, _)) = part() else {
            break;
        };
        let ((first, _), (second, last)) = (part()?, part()?);
        match tag {
            [PUT] => changes.put(first, second),
            [DELETE] => changes.delete(first),
            [DELETE_RANGE] => changes.delete_range(first, second),
            _ => return None,
        }
        ended = last;
    }
    Some(changes)
}

#[cfg(test)]
#[path = "../../state/backend/contract.rs"]
mod contract;

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(journal: &mut Journal, pairs: &[(&[u8], &[u8])]) {
        let mut changes = Changes::default();
        for (key, value) in pairs {
            changes.put(key, value);
        }
        journal.apply(&changes).unwrap();
    }

    #[test]
    fn the_journal_keeps_the_contract_and_so_does_what_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let mut journal = Journal::open(&path).unwrap();
        contract::keeps_the_contract(&mut journal);
        let again = Journal::open(&path).unwrap();
        assert_eq!(again.entries, journal.entries);
        journal.rewrite().unwrap();
        apply(&mut journal, &[(b"after", b"the rewrite")]);
        assert_eq!(Journal::open(&path).unwrap().entries, journal.entries);
    }

    #[test]
    fn a_file_cut_anywhere_holds_the_whole_frames_before_the_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let mut journal = Journal::open(&path).unwrap();
        let mut states = vec![(journal.bytes, journal.entries.clone())];
        for value in [&b"one"[..], b"", b"three"] {
            apply(&mut journal, &[(b"key", value), (value, b"x")]);
            states.push((journal.bytes, journal.entries.clone()));
        }
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut read = Journal::open(&path).unwrap();
            let expected = states.iter().rev().find(|(bytes, _)| *bytes <= cut as u64);
            let expected = expected.map(|(_, entries)| entries.clone()).unwrap_or_default();
            assert_eq!(read.entries, expected, "cut at {cut}");
            apply(&mut read, &[(b"next", b"frame")]);
            assert_eq!(Journal::open(&path).unwrap().entries, read.entries, "cut at {cut}");
        }
    }

    #[test]
    fn a_flipped_byte_ends_what_is_read_and_another_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let mut journal = Journal::open(&path).unwrap();
        apply(&mut journal, &[(b"key", b"value")]);
        let whole = std::fs::read(&path).unwrap();
        for at in MAGIC.len()..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            std::fs::write(&path, &damaged).unwrap();
            assert_eq!(
                Journal::open(&path).unwrap().entries,
                MemoryBackend::default(),
                "byte {at}"
            );
        }
        std::fs::write(&path, "another file").unwrap();
        assert!(matches!(Journal::open(&path), Err(Error::Corrupt { .. })));
    }
}
