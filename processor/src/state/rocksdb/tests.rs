//! Tests of `rocksdb`. Must not test other modules.

use std::time::{Duration, Instant};

use super::super::backend::{Backend, Changes};
use super::super::memory::MemoryBackend;
use super::*;

#[path = "../backend/contract.rs"]
mod contract;

use contract::keeps_the_contract;

#[test]
fn both_backends_keep_the_contract() {
    keeps_the_contract(&mut MemoryBackend::default());
    let directory = tempfile::tempdir().expect("a directory");
    let mut backend = RocksBackend::open(directory.path(), &Shared::new(4 << 20, 4 << 20, 1)).expect("opens");
    keeps_the_contract(&mut backend);
}

#[test]
fn what_was_applied_is_there_after_opening_again_and_in_a_snapshot() {
    let directory = tempfile::tempdir().expect("a directory");
    let (database, copy) = (directory.path().join("db"), directory.path().join("copy"));
    let shared = Shared::new(4 << 20, 4 << 20, 1);
    let mut backend = RocksBackend::open(&database, &shared).expect("opens");
    let mut changes = Changes::default();
    changes.put(b"key", b"one");
    backend.apply(&changes).expect("applies");
    backend.snapshot(&copy).expect("copies");
    changes.clear();
    changes.put(b"key", b"two");
    backend.apply(&changes).expect("applies");
    drop(backend);
    for (path, expected) in [(&database, b"two"), (&copy, b"one")] {
        assert_eq!(held(path, &shared).as_deref(), Some(&expected[..]));
    }
}

fn held(directory: &Path, shared: &Shared) -> Option<Vec<u8>> {
    let backend = RocksBackend::open(directory, shared).expect("opens again");
    backend.get(b"key").expect("reads")
}

#[test]
fn a_snapshot_holds_what_was_flushed_before_it_and_what_was_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let (database, copy) = (directory.path().join("db"), directory.path().join("copy"));
    let shared = Shared::new(4 << 20, 4 << 20, 1);
    let mut backend = RocksBackend::open(&database, &shared).expect("opens");
    let mut changes = Changes::default();
    changes.put(b"key", b"flushed");
    changes.put(b"other", b"flushed");
    backend.apply(&changes).expect("applies");
    backend.begin_flush().expect("begins");
    changes.clear();
    changes.put(b"key", b"logged");
    backend.apply(&changes).expect("applies while it flushes");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !backend.is_flushed().expect("answers") {
        assert!(Instant::now() < deadline, "no flush ends in a minute");
        std::thread::yield_now();
    }
    backend.snapshot(&copy).expect("copies");
    let tables = |directory: &Path| {
        let files = std::fs::read_dir(directory).expect("lists");
        let names = files.map(|file| file.expect("a file").file_name().into_string().expect("a name"));
        names.filter(|name| name.ends_with(".sst")).count()
    };
    assert_eq!((tables(&database), tables(&copy)), (1, 1), "a snapshot flushes nothing");
    assert_eq!(held(&copy, &shared).as_deref(), Some(&b"logged"[..]));
    drop(backend);
    let backend = RocksBackend::open(&copy, &shared).expect("opens again");
    assert_eq!(backend.get(b"other").expect("reads").as_deref(), Some(&b"flushed"[..]));
}

#[test]
fn a_second_owner_of_the_directory_is_kept_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let shared = Shared::new(4 << 20, 4 << 20, 1);
    let first = RocksBackend::open(directory.path(), &shared).expect("opens");
    let second = RocksBackend::open(directory.path(), &shared);
    assert!(matches!(second, Err(Error::Store { message }) if message.to_lowercase().contains("lock")));
    drop(first);
    RocksBackend::open(directory.path(), &shared).expect("opens once the first is gone");
}

#[test]
fn another_handle_answers_what_was_applied_last_and_keeps_the_database_open() {
    let directory = tempfile::tempdir().expect("a directory");
    let shared = Shared::new(4 << 20, 4 << 20, 1);
    let mut backend = RocksBackend::open(directory.path(), &shared).expect("opens");
    let reader = backend.clone();
    for value in [b"one", b"two"] {
        let mut changes = Changes::default();
        changes.put(b"key", value);
        backend.apply(&changes).expect("applies");
        assert_eq!(reader.get(b"key").expect("reads").as_deref(), Some(&value[..]));
    }
    drop(backend);
    assert!(
        RocksBackend::open(directory.path(), &shared).is_err(),
        "a handle is left"
    );
    drop(reader);
    RocksBackend::open(directory.path(), &shared).expect("opens once no handle is left");
}
