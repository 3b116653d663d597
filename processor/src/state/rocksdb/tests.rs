//! Tests of `rocksdb`. Must not test other modules.

use super::super::backend::{Backend, Changes};
use super::super::memory::MemoryBackend;
use super::*;

fn pairs(backend: &dyn Backend, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    backend
        .scan(prefix, &mut |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            Ok(())
        })
        .expect("scans");
    found
}

/// The contract of `backend::Backend`, run against both implementations.
fn keeps_the_contract(backend: &mut dyn Backend) {
    let mut changes = Changes::default();
    for key in [&b"\x02b"[..], b"\x01z", b"\x02a", b"\x03"] {
        changes.put(key, &[key[0]]);
    }
    backend.apply(&changes).expect("applies");
    assert_eq!(backend.get(b"\x02b").expect("reads"), Some(vec![2]));
    assert_eq!(backend.get(b"\x09").expect("reads"), None);
    let keys: Vec<Vec<u8>> = pairs(backend, b"\x02").into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [b"\x02a".to_vec(), b"\x02b".to_vec()], "ascending, prefix only");

    // In order: what is deleted first and put again stays, the end of a range is not part of it.
    changes.clear();
    changes.delete_range(b"\x02", b"\x03");
    changes.put(b"\x02b", b"again");
    changes.delete(b"\x01z");
    backend.apply(&changes).expect("applies");
    let keys: Vec<Vec<u8>> = pairs(backend, b"").into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [b"\x02b".to_vec(), b"\x03".to_vec()]);
    assert_eq!(backend.get(b"\x02b").expect("reads"), Some(b"again".to_vec()));
}

#[test]
fn both_backends_keep_the_contract() {
    keeps_the_contract(&mut MemoryBackend::default());
    let directory = tempfile::tempdir().expect("a directory");
    let mut backend = RocksBackend::open(directory.path(), &Shared::new(8 << 20, 1)).expect("opens");
    keeps_the_contract(&mut backend);
}

#[test]
fn what_was_applied_is_there_after_opening_again_and_in_a_snapshot() {
    let directory = tempfile::tempdir().expect("a directory");
    let (database, copy) = (directory.path().join("db"), directory.path().join("copy"));
    let shared = Shared::new(8 << 20, 1);
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
        let backend = RocksBackend::open(path, &shared).expect("opens again");
        assert_eq!(backend.get(b"key").expect("reads").as_deref(), Some(&expected[..]));
    }
}

#[test]
fn a_second_owner_of_the_directory_is_kept_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let shared = Shared::new(8 << 20, 1);
    let first = RocksBackend::open(directory.path(), &shared).expect("opens");
    let second = RocksBackend::open(directory.path(), &shared);
    assert!(matches!(second, Err(Error::Store { message }) if message.to_lowercase().contains("lock")));
    drop(first);
    RocksBackend::open(directory.path(), &shared).expect("opens once the first is gone");
}
