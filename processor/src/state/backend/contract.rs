//! The contract of `Backend`, run against every implementation. Must not know any of them.

use super::{Backend, Changes};

/// All pairs below a prefix.
pub fn pairs(backend: &dyn Backend, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    backend
        .scan(prefix, &mut |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            Ok(())
        })
        .expect("scans");
    found
}

/// Order, atomic order of changes, and what a range covers.
pub fn keeps_the_contract(backend: &mut dyn Backend) {
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
