//! Tests of `checkpoint`. Must not test other modules.

use super::super::recovery::startup::tests::{owner, position};
use super::*;

fn manifest(id: &str, count: u64, objects: &[&str]) -> Manifest {
    let mut at = position(count);
    at.epoch = count;
    Manifest {
        version: MANIFEST_VERSION,
        id: id.into(),
        position: at,
        format: FileFormat::RocksDB,
        completed_at_ms: 1_000 * i64::try_from(count).expect("small"),
        base: None,
        files: objects
            .iter()
            .map(|object| FileEntry {
                name: (*object).into(),
                size: 1,
                sha256: "00".into(),
                object: (*object).into(),
            })
            .collect(),
    }
}

fn ids(kept: &[Kept<'_>], committed: &Position, count: usize, age_ms: Option<i64>, now_ms: i64) -> Vec<String> {
    expired(kept, committed, RetentionRule { count, age_ms }, now_ms)
}

#[test]
fn count_and_age_expire_all_but_the_newest_verified_and_the_pinned() {
    let manifests: Vec<Manifest> = (1..=4)
        .map(|count| manifest(&format!("c{count}"), count, &[]))
        .collect();
    let all = |verified: [bool; 4], pinned: [bool; 4]| -> Vec<Kept<'_>> {
        manifests
            .iter()
            .zip(verified.into_iter().zip(pinned))
            .map(|(manifest, (verified, pinned))| Kept {
                manifest,
                pinned,
                verified,
            })
            .collect()
    };
    let committed = position(9);
    assert_eq!(ids(&all([true; 4], [false; 4]), &committed, 2, None, 0), ["c2", "c1"]);
    assert_eq!(
        ids(&all([true; 4], [true, false, false, false]), &committed, 2, None, 0),
        ["c2"]
    );
    // The two newest are broken: what start-up would take is neither too many nor too old.
    let broken = all([true, true, false, false], [false; 4]);
    assert_eq!(ids(&broken, &committed, 1, None, 0), ["c3", "c1"]);
    assert_eq!(ids(&broken, &committed, 9, Some(10), 1_000_000), ["c4", "c3", "c1"]);
    // A job suspended for months keeps its base.
    assert_eq!(
        ids(&all([true; 4], [false; 4]), &committed, 9, Some(10), i64::MAX / 2),
        ["c3", "c2", "c1"]
    );
}

#[test]
fn a_checkpoint_of_an_abandoned_lineage_is_not_the_base_that_is_kept() {
    let mut abandoned = manifest("gone", 8, &[]);
    abandoned.position.lineage = "line-x".into();
    let good = manifest("good", 3, &[]);
    let kept = [
        Kept {
            manifest: &abandoned,
            pinned: false,
            verified: true,
        },
        Kept {
            manifest: &good,
            pinned: false,
            verified: true,
        },
    ];
    assert_eq!(ids(&kept, &position(9), 1, Some(0), 1_000_000), ["gone"]);
}

#[test]
fn a_fork_keeps_the_newest_below_it() {
    let (below, above) = (manifest("below", 3, &[]), manifest("above", 6, &[]));
    let forked = position(9).forked(
        &owner(),
        "line-b".into(),
        position(4).place(),
        position(9).engine_position,
    );
    let kept = [
        Kept {
            manifest: &above,
            pinned: false,
            verified: true,
        },
        Kept {
            manifest: &below,
            pinned: false,
            verified: true,
        },
    ];
    assert_eq!(ids(&kept, &forked, 1, Some(0), 1_000_000), ["above"]);
}

#[test]
fn only_objects_that_no_listed_manifest_names_are_orphans() {
    let deleted = manifest("a", 1, &["files/a/1", "files/a/2"]);
    let remaining = [manifest("b", 2, &["files/a/2", "files/b/3"])];
    assert_eq!(orphaned(&deleted, &remaining), ["files/a/1"]);
    assert_eq!(orphaned(&deleted, &[]), ["files/a/1", "files/a/2"]);
}

#[test]
fn a_file_is_shared_only_when_name_size_and_digest_agree() {
    let base = manifest("a", 1, &["x.sst"]);
    assert_eq!(base.object_of("x.sst", 1, "00"), Some("x.sst"));
    assert_eq!(base.object_of("x.sst", 2, "00"), None);
    assert_eq!(base.object_of("x.sst", 1, "01"), None);
    assert_eq!(base.object_of("y.sst", 1, "00"), None);
}

#[test]
fn the_manifest_survives_json() {
    let written = manifest("a", 1, &["x"]);
    let text = serde_json::to_string(&written).expect("serialises");
    assert_eq!(serde_json::from_str::<Manifest>(&text).expect("parses"), written);
}
