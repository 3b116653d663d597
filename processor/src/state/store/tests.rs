//! Tests of `store`. Must not test other modules.

use super::super::recovery::startup::tests::position;
use super::*;

struct Rig {
    _directory: tempfile::TempDir,
    store: Store,
    files: std::path::PathBuf,
    objects: std::path::PathBuf,
}

fn rig() -> Rig {
    let directory = tempfile::tempdir().expect("a directory");
    let (files, objects) = (directory.path().join("files"), directory.path().join("store"));
    std::fs::create_dir_all(&files).expect("a directory");
    let config = resolved::Store::Volume {
        claim_name: None,
        path: Some(objects.display().to_string()),
    };
    let store = Store::open(&config, "ns.job", None, &Credentials::default()).expect("opens");
    Rig {
        _directory: directory,
        store,
        files,
        objects,
    }
}

impl Rig {
    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.files.join(name), content).expect("writes");
    }

    async fn upload(&self, id: &str, count: u64, base: Option<&Manifest>) -> Result<Manifest, StoreError> {
        self.upload_while(id, count, base, || {}).await
    }

    /// `meanwhile` happens before the manifest is written.
    async fn upload_while(
        &self,
        id: &str,
        count: u64,
        base: Option<&Manifest>,
        meanwhile: impl Fn(),
    ) -> Result<Manifest, StoreError> {
        let mut at = position(count);
        (at.epoch, at.control_seq) = (count, count);
        let draft = Draft {
            id: id.into(),
            position: at,
            format: FileFormat::RocksDB,
        };
        let time = i64::try_from(count).expect("small");
        self.store.upload(0, &self.files, draft, base, || time, meanwhile).await
    }

    fn object(&self, relative: &str) -> std::path::PathBuf {
        self.objects.join("ns.job/tasks/0").join(relative)
    }
}

#[tokio::test]
async fn unchanged_files_are_shared_and_a_fetch_gives_back_every_byte() {
    let rig = rig();
    rig.write("1.sst", "one");
    rig.write("CURRENT", "a");
    let first = rig.upload("a", 1, None).await.expect("uploads");
    rig.write("2.sst", "two");
    rig.write("CURRENT", "b");
    let second = rig.upload("b", 2, Some(&first)).await.expect("uploads");
    let objects: Vec<&str> = second.files.iter().map(|file| file.object.as_str()).collect();
    assert_eq!(objects, ["files/a/1.sst", "files/b/2.sst", "files/b/CURRENT"]);

    let listing = rig.store.list(0).await.expect("lists");
    assert_eq!(listing.manifests.len(), 2);
    assert!(listing.unreadable.is_empty(), "{listing:?}");
    let into = rig.files.with_file_name("fetched");
    rig.store.fetch(0, &second, &into, |_| {}).await.expect("fetches");
    assert_eq!(std::fs::read_to_string(into.join("1.sst")).expect("reads"), "one");
    assert_eq!(std::fs::read_to_string(into.join("CURRENT")).expect("reads"), "b");
}

#[tokio::test]
async fn a_stored_file_that_is_gone_or_cut_short_is_uploaded_again_instead_of_named() {
    let rig = rig();
    for name in ["1.sst", "2.sst", "3.sst"] {
        rig.write(name, "content");
    }
    let first = rig.upload("a", 1, None).await.expect("uploads");
    std::fs::write(rig.object("files/a/1.sst"), "cont").expect("writes");
    std::fs::remove_file(rig.object("files/a/2.sst")).expect("removes");
    let second = rig.upload("b", 2, Some(&first)).await.expect("uploads");
    let objects: Vec<&str> = second.files.iter().map(|file| file.object.as_str()).collect();
    assert_eq!(objects, ["files/b/1.sst", "files/b/2.sst", "files/a/3.sst"]);
    let into = rig.files.with_file_name("fetched");
    rig.store.fetch(0, &second, &into, |_| {}).await.expect("fetches");
}

#[tokio::test]
async fn a_checkpoint_deleted_while_it_is_fetched_is_not_called_damaged() {
    let rig = rig();
    rig.write("1.sst", "one");
    let manifest = rig.upload("a", 1, None).await.expect("uploads");
    std::fs::remove_file(rig.object("manifests/a.json")).expect("removes");
    std::fs::remove_file(rig.object("files/a/1.sst")).expect("removes");
    let into = rig.files.with_file_name("fetched");
    let error = rig.store.fetch(0, &manifest, &into, |_| {}).await.expect_err("gone");
    assert!(matches!(&error, FetchError::Retired { id } if id == "a"), "{error}");
}

#[tokio::test]
async fn a_release_takes_every_pin_of_its_holder_and_no_other() {
    let rig = rig();
    rig.write("1.sst", "one");
    rig.upload("a", 1, None).await.expect("uploads");
    rig.upload("b", 2, None).await.expect("uploads");
    for (id, holder) in [("a", "x"), ("b", "x"), ("b", "xx")] {
        assert!(rig.store.pin(0, id, holder).await.expect("pins"));
    }
    rig.store.release(0, "x").await.expect("releases");
    rig.store.release(0, "x").await.expect("again");
    let pinned = rig.store.list(0).await.expect("lists").pinned;
    assert_eq!(pinned, BTreeSet::from(["b".to_owned()]));
    assert!(rig.object("pins/b/xx").exists());
}

#[tokio::test]
async fn retention_deletes_what_is_too_many_and_only_files_that_nobody_names() {
    let rig = rig();
    rig.write("1.sst", "one");
    let first = rig.upload("a", 1, None).await.expect("uploads");
    rig.write("2.sst", "two");
    let second = rig.upload("b", 2, Some(&first)).await.expect("uploads");
    std::fs::remove_file(rig.files.join("2.sst")).expect("removes");
    rig.write("3.sst", "three");
    rig.upload("c", 3, Some(&second)).await.expect("uploads");
    let rule = RetentionRule { count: 1, age_ms: None };
    assert!(rig.store.pin(0, "a", "rollout").await.expect("pins"));
    let retired = rig.store.retire(0, &position(9), rule, 0).await.expect("retires");
    assert_eq!(retired.deleted, ["b"]);
    assert_eq!(retired.decision_floor, 1, "a needs decisions from the first on");
    let offset = |place| Some(position(place).engine_position.input_offset);
    assert_eq!(retired.input_floor, offset(1), "and input from there on");
    assert!(rig.object("files/a/1.sst").exists(), "still named by a and c");
    assert!(!rig.object("files/b/2.sst").exists(), "named by nobody");
    assert!(rig.object("doomed/b").exists());
    assert!(
        !rig.store.pin(0, "b", "late").await.expect("answers"),
        "what is doomed cannot be pinned"
    );

    rig.store.unpin(0, "a", "rollout").await.expect("unpins");
    let retired = rig.store.retire(0, &position(9), rule, 0).await.expect("retires");
    assert_eq!((retired.deleted, retired.decision_floor), (vec!["a".to_owned()], 3));
    assert_eq!(retired.input_floor, offset(3));
    assert!(rig.object("files/a/1.sst").exists(), "still named by c");
}

#[tokio::test]
async fn a_sweep_takes_old_files_that_no_manifest_names() {
    let rig = rig();
    rig.write("1.sst", "one");
    rig.upload("a", 1, None).await.expect("uploads");
    let orphan = rig.object("files/cut-short/2.sst");
    std::fs::create_dir_all(orphan.parent().expect("a parent")).expect("a directory");
    std::fs::write(&orphan, "two").expect("writes");
    let now_ms = i64::MAX;
    std::fs::write(rig.object("manifests/odd.json"), "{").expect("writes");
    assert_eq!(
        rig.store.sweep(0, now_ms, 1).await.expect("sweeps"),
        0,
        "any may be named there"
    );
    std::fs::remove_file(rig.object("manifests/odd.json")).expect("removes");
    assert_eq!(rig.store.sweep(0, 0, 1).await.expect("sweeps"), 0, "it is young");
    assert_eq!(rig.store.sweep(0, now_ms, 1).await.expect("sweeps"), 1);
    assert!(!orphan.exists() && rig.object("files/a/1.sst").exists());
}

#[tokio::test]
async fn a_checkpoint_whose_base_was_deleted_meanwhile_is_withdrawn() {
    let rig = rig();
    rig.write("1.sst", "one");
    let first = rig.upload("a", 1, None).await.expect("uploads");
    std::fs::remove_file(rig.object("manifests/a.json")).expect("removes");
    assert!(matches!(
        rig.upload("b", 2, Some(&first)).await,
        Err(StoreError::BaseGone { .. })
    ));
    assert!(rig.store.list(0).await.expect("lists").manifests.is_empty());
}

#[tokio::test]
async fn what_loses_files_while_it_is_uploaded_becomes_no_checkpoint() {
    let rig = rig();
    rig.write("1.sst", "one");
    rig.write("CURRENT", "MANIFEST-1");
    let deleted = || std::fs::remove_file(rig.files.join("CURRENT")).expect("removes");
    let uploaded = rig.upload_while("a", 1, None, deleted).await;
    assert!(matches!(uploaded, Err(StoreError::SnapshotGone { .. })), "{uploaded:?}");
    let deleted = || std::fs::remove_dir_all(&rig.files).expect("removes");
    let uploaded = rig.upload_while("b", 1, None, deleted).await;
    assert!(matches!(uploaded, Err(StoreError::File { .. })), "{uploaded:?}");
    assert!(rig.store.list(0).await.expect("lists").manifests.is_empty());
}

#[tokio::test]
async fn a_manifest_is_never_overwritten() {
    let rig = rig();
    rig.write("1.sst", "one");
    rig.upload("a", 1, None).await.expect("uploads");
    assert!(matches!(rig.upload("a", 2, None).await, Err(StoreError::Store { .. })));
}

#[tokio::test]
async fn damaged_or_missing_files_and_manifests_are_refused_by_name() {
    let rig = rig();
    rig.write("1.sst", "one");
    let manifest = rig.upload("a", 1, None).await.expect("uploads");
    let into = rig.files.with_file_name("fetched");
    std::fs::write(rig.object("files/a/1.sst"), "0ne").expect("writes");
    let error = rig
        .store
        .fetch(0, &manifest, &into, |_| {})
        .await
        .expect_err("must be refused");
    assert!(
        matches!(&error, FetchError::Damaged { what, .. } if what.contains("1.sst")),
        "{error}"
    );
    std::fs::remove_file(rig.object("files/a/1.sst")).expect("removes");
    assert!(!rig.store.is_complete(0, &manifest).await.expect("answers"));
    let error = rig
        .store
        .fetch(0, &manifest, &into, |_| {})
        .await
        .expect_err("must be refused");
    assert!(error.to_string().contains("missing"), "{error}");
    std::fs::write(rig.object("manifests/a.json"), "{").expect("writes");
    let listing = rig.store.list(0).await.expect("lists");
    assert_eq!((listing.manifests.len(), listing.unreadable.len()), (0, 1));
}
