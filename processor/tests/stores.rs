//! The checkpoint store in buckets, one contract for all: S3 on MinIO; Google Cloud Storage and Azure on a stand-in that
//! speaks their protocols on loopback. Needs `--release` (RocksDB is linked).

#[path = "stores/cloud.rs"]
mod cloud;

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use streamagg_crds::resolved;
use streamagg_crds::v1alpha1::{AzureStore, GcsStore, S3Store};
use streamagg_processor::state::checkpoint::{FileFormat, Manifest, RetentionRule};
use streamagg_processor::state::recovery::{Birth, Owner, Position};
use streamagg_processor::state::store::{Credentials, Draft, FetchError, Store};

use self::cloud::Cloud;

const PATIENCE: Duration = Duration::from_secs(60);
const DAY_MS: i64 = 86_400_000;

/// A server of the test's own; ended when dropped.
struct Server {
    child: Child,
    port: u16,
    directory: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn tool(name: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/cluster/tools.sh");
    let output = Command::new("bash")
        .arg(script)
        .arg(name)
        .output()
        .expect("tools.sh runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().last().expect("a path").into()
}

impl Server {
    /// Starts `name`, waits until it listens.
    fn start(name: &str, arguments: &dyn Fn(u16, &Path) -> Vec<String>) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|bound| bound.local_addr())
            .expect("a port")
            .port();
        let directory = tempfile::tempdir().expect("a directory");
        let log = std::fs::File::create(directory.path().join("log")).expect("a log");
        let child = Command::new(tool(name))
            .args(arguments(port, directory.path()))
            .env("MINIO_ROOT_USER", "user")
            .env("MINIO_ROOT_PASSWORD", "password")
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("the server starts");
        let server = Self { child, port, directory };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = || std::fs::read_to_string(server.directory.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "{name} does not listen: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

fn position(count: u64) -> Position {
    let birth = Birth {
        version: 1,
        uid: "u".into(),
        job_id: "ns.job".into(),
        task: 0,
        start_offset: 0,
        partitions: 1,
    };
    let owner = Owner {
        uid: "u".into(),
        job_id: "ns.job".into(),
        task: 0,
        revision: "r".into(),
        engine: "e".into(),
        generation: 1,
    };
    let mut position = Position::born(&birth, &owner, "lineage".into());
    position.epoch = count;
    position.engine_position.input_offset = i64::try_from(count).expect("small");
    position.engine_position.input_count = count;
    position
}

struct Rig {
    store: Store,
    files: tempfile::TempDir,
}

impl Rig {
    fn new(config: &resolved::Store, credentials: &Credentials) -> Self {
        Self {
            store: Store::open(config, "ns.job", None, credentials).expect("opens"),
            files: tempfile::tempdir().expect("a directory"),
        }
    }

    fn write(&self, name: &str, content: &[u8]) {
        std::fs::write(self.files.path().join(name), content).expect("writes");
    }

    async fn upload(&self, id: &str, count: u64, base: Option<&Manifest>) -> Manifest {
        self.try_upload(id, count, base).await.expect("uploads")
    }

    async fn try_upload(&self, id: &str, count: u64, base: Option<&Manifest>) -> Result<Manifest, String> {
        let draft = Draft {
            id: id.into(),
            position: position(count),
            format: FileFormat::RocksDB,
        };
        let uploaded = self.store.upload(0, self.files.path(), draft, base, || 0, || {}).await;
        uploaded.map_err(|error| error.to_string())
    }

    async fn retire(&self, rule: RetentionRule) -> Vec<String> {
        let retired = self.store.retire(0, &position(9), rule, 0).await;
        retired.expect("retires").deleted
    }
}

/// What every store has to do: share files, never overwrite a manifest, keep what is pinned, delete what nobody names,
/// refuse what is damaged, give back every byte.
async fn keeps_the_contract(rig: &Rig, bytes: u32) {
    let large: Vec<u8> = (0..bytes)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    rig.write("1.sst", &large);
    rig.write("CURRENT", b"a");
    let first = rig.upload("a", 1, None).await;
    rig.write("2.sst", b"two");
    rig.write("CURRENT", b"b");
    let second = rig.upload("b", 2, Some(&first)).await;
    let objects: Vec<&str> = second.files.iter().map(|file| file.object.as_str()).collect();
    assert_eq!(objects, ["files/a/1.sst", "files/b/2.sst", "files/b/CURRENT"]);
    let listing = rig.store.list(0).await.expect("lists");
    assert_eq!((listing.manifests.len(), listing.unreadable.len()), (2, 0));

    // Two owners that chose one id: the second is refused, and the first one's manifest stays as it was.
    let refused = rig.try_upload("b", 9, None).await.expect_err("a conditional put");
    assert!(refused.contains("manifests/b.json"), "{refused}");
    let listing = rig.store.list(0).await.expect("lists");
    assert!(listing.manifests.contains(&second), "overwritten");

    let fetched = tempfile::tempdir().expect("a directory");
    let into = fetched.path().join("files");
    rig.store.fetch(0, &second, &into, |_| {}).await.expect("fetches");
    assert!(std::fs::read(into.join("1.sst")).expect("reads") == large);
    assert_eq!(std::fs::read(into.join("CURRENT")).expect("reads"), b"b");
    std::fs::remove_dir_all(&into).expect("removes");

    assert!(rig.store.pin(0, "a", "rollout").await.expect("pins"));
    let rule = RetentionRule { count: 1, age_ms: None };
    assert_eq!(rig.retire(rule).await, [""; 0], "pinned");
    rig.store.unpin(0, "a", "rollout").await.expect("unpins");
    assert_eq!(rig.retire(rule).await, ["a"]);
    assert!(
        !rig.store.pin(0, "a", "late").await.expect("answers"),
        "what is doomed cannot be pinned"
    );
    assert!(
        rig.store.is_complete(0, &second).await.expect("answers"),
        "a file of a is named by b"
    );

    // What nobody names goes once it is old: nothing yet.
    assert_eq!(rig.store.sweep(0, 0, DAY_MS).await.expect("sweeps"), 0);
    rig.store.sweep(0, i64::MAX, DAY_MS).await.expect("sweeps");
    rig.store
        .fetch(0, &second, &into, |_| {})
        .await
        .expect("what is named stays");

    let mut gone = second.clone();
    gone.id = "gone".into();
    let error = rig.store.fetch(0, &gone, &into, |_| {}).await;
    assert!(matches!(error, Ok(()) | Err(FetchError::Retired { .. })), "{error:?}");
}

#[tokio::test]
async fn minio_keeps_the_contract() {
    let server = Server::start("minio", &|port, directory| {
        let data = directory.join("data");
        std::fs::create_dir_all(data.join("bucket")).expect("a directory is a bucket");
        let address = format!("127.0.0.1:{port}");
        vec!["server".into(), "--address".into(), address, data.display().to_string()]
    });
    let config = resolved::Store::S3(S3Store {
        bucket: "bucket".into(),
        prefix: Some("some/where".into()),
        endpoint: Some(server.url()),
        region: None,
        secret_ref: None,
    });
    let credentials = Credentials {
        access_key_id: Some("user".into()),
        secret_access_key: Some("password".into()),
        ..Credentials::default()
    };
    // More than one part of an upload in parts.
    keeps_the_contract(&Rig::new(&config, &credentials), 23 << 20).await;
}

#[tokio::test]
async fn google_cloud_storage_keeps_the_contract() {
    let cloud = Cloud::start("/bucket");
    let config = resolved::Store::Gcs(GcsStore {
        bucket: "bucket".into(),
        prefix: Some("some/where".into()),
        endpoint: Some(format!("http://127.0.0.1:{}/", cloud.port)),
        secret_ref: None,
    });
    // A key as Google's client libraries take it for servers without users: nothing is signed.
    let key = r#"{"private_key": "private_key", "private_key_id": "id", "client_email": "a@b", "disable_oauth": true}"#;
    let credentials = Credentials {
        service_account_key: Some(key.into()),
        ..Credentials::default()
    };
    keeps_the_contract(&Rig::new(&config, &credentials), 300_000).await;
    let manifest = "/bucket/some/where/ns.job/tasks/0/manifests/b.json";
    let conditions = cloud.put_headers(manifest, "x-goog-if-generation-match");
    assert_eq!(conditions, vec![Some("0".to_owned()); 2], "only where there is none");
}

#[tokio::test]
async fn azure_blob_storage_keeps_the_contract() {
    let cloud = Cloud::start("/llm/checkpoints");
    let config = resolved::Store::Azure(AzureStore {
        account: "llm".into(),
        container: "checkpoints".into(),
        prefix: Some("some/where".into()),
        endpoint: Some(format!("http://127.0.0.1:{}/llm/", cloud.port)),
        secret_ref: None,
    });
    let credentials = Credentials {
        account_key: Some("c2VjcmV0".into()),
        ..Credentials::default()
    };
    keeps_the_contract(&Rig::new(&config, &credentials), 300_000).await;
    let requests = cloud.requests();
    let unsigned = requests.iter().find(|request| {
        let authorization = request.headers.get("authorization");
        !authorization.is_some_and(|by| by.starts_with("SharedKey llm:"))
    });
    assert!(unsigned.is_none(), "{unsigned:?}");
    let manifest = "/llm/checkpoints/some/where/ns.job/tasks/0/manifests/b.json";
    let conditions = cloud.put_headers(manifest, "if-none-match");
    assert_eq!(conditions, vec![Some("*".to_owned()); 2], "only where there is none");
}

/// What cannot be used is refused before the first request, with the field, and never with the secret.
#[test]
fn a_store_that_cannot_be_opened_is_refused_by_name() {
    let gcs = resolved::Store::Gcs(GcsStore {
        bucket: "bucket".into(),
        prefix: None,
        endpoint: None,
        secret_ref: None,
    });
    let azure = resolved::Store::Azure(AzureStore {
        account: "llm".into(),
        container: "checkpoints".into(),
        prefix: None,
        endpoint: None,
        secret_ref: None,
    });
    let credentials = Credentials {
        service_account_key: Some("no JSON, hunter2".into()),
        account_key: Some("no base64, hunter2".into()),
        ..Credentials::default()
    };
    for config in [gcs, azure] {
        let refused = Store::open(&config, "ns.job", None, &credentials).map(|_| ());
        let message = refused.expect_err("not a key").message;
        assert!(
            message.starts_with("spec.state.checkpoints.store: ") && message.ends_with("; correct it"),
            "{message}"
        );
        assert!(!message.contains("hunter2"), "{message}");
    }
}
