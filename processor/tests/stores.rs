//! The checkpoint store on what people run it on: MinIO for S3, Microsoft's Azurite for Azure, fake-gcs-server for Google
//! Cloud, each a server of its own on loopback. One contract for all. Needs `--release` (RocksDB is linked).

#![expect(clippy::panic, reason = "a test that cannot go on says so")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use streamagg_crds::resolved;
use streamagg_crds::v1alpha1::{AzureStore, GcsStore, S3Store};
use streamagg_processor::state::checkpoint::{ABANDONED_AFTER_MS, FileFormat, Manifest, RetentionRule};
use streamagg_processor::state::recovery::{Birth, Owner, Position};
use streamagg_processor::state::store::{Credentials, Draft, FetchError, Store};

const PATIENCE: Duration = Duration::from_secs(60);
/// Of Azurite's documentation: the account that every one of its servers has.
const AZURITE_ACCOUNT: &str = "devstoreaccount1";
const AZURITE_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

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
}

/// What every store has to do: share files, never overwrite a manifest, keep what is pinned, delete what nobody names,
/// refuse what is damaged, give back every byte.
async fn keeps_the_contract(rig: &Rig) {
    // More than one part of a multipart upload.
    let large: Vec<u8> = (0..23_u32 << 20)
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

    let into = rig.files.path().with_extension("fetched");
    rig.store.fetch(0, &second, &into, |_| {}).await.expect("fetches");
    assert!(std::fs::read(into.join("1.sst")).expect("reads") == large);
    assert_eq!(std::fs::read(into.join("CURRENT")).expect("reads"), b"b");
    std::fs::remove_dir_all(&into).expect("removes");

    assert!(rig.store.pin(0, "a", "rollout").await.expect("pins"));
    let rule = RetentionRule { count: 1, age_ms: None };
    assert_eq!(
        rig.store.retire(0, &position(9), rule, 0).await.expect("retires"),
        [""; 0],
        "pinned"
    );
    rig.store.unpin(0, "a", "rollout").await.expect("unpins");
    assert_eq!(
        rig.store.retire(0, &position(9), rule, 0).await.expect("retires"),
        ["a"]
    );
    assert!(
        !rig.store.pin(0, "a", "late").await.expect("answers"),
        "what is doomed cannot be pinned"
    );
    assert!(
        rig.store.is_complete(0, &second).await.expect("answers"),
        "a file of a is named by b"
    );

    // Nothing is abandoned yet; with the clock of next week what nobody names is: the refused upload's files.
    assert_eq!(rig.store.sweep(0, 0).await.expect("sweeps"), 0);
    let far = i64::MAX / 2;
    assert!(far > ABANDONED_AFTER_MS);
    rig.store.sweep(0, far).await.expect("sweeps");
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
    keeps_the_contract(&Rig::new(&config, &credentials)).await;
}

#[tokio::test]
async fn azurite_keeps_the_contract() {
    let server = Server::start("azurite", &|port, directory| {
        let port = port.to_string();
        [
            "--blobHost",
            "127.0.0.1",
            "--blobPort",
            &port,
            "--location",
            &directory.display().to_string(),
            "--silent",
        ]
        .map(str::to_owned)
        .into()
    });
    let endpoint = format!("{}/{AZURITE_ACCOUNT}", server.url());
    let credentials = Credentials {
        account_key: Some(AZURITE_KEY.into()),
        ..Credentials::default()
    };
    create_container(server.port);
    let config = resolved::Store::Azure(AzureStore {
        account: AZURITE_ACCOUNT.into(),
        container: "checkpoints".into(),
        prefix: Some("some/where".into()),
        endpoint: Some(endpoint),
        secret_ref: None,
    });
    keeps_the_contract(&Rig::new(&config, &credentials)).await;
}

#[tokio::test]
async fn fake_gcs_server_keeps_the_contract() {
    let server = Server::start("fake-gcs-server", &|port, _| {
        let port = port.to_string();
        let public = format!("127.0.0.1:{port}");
        [
            "-scheme",
            "http",
            "-host",
            "127.0.0.1",
            "-port",
            &port,
            "-public-host",
            &public,
            "-backend",
            "memory",
        ]
        .map(str::to_owned)
        .into()
    });
    let (code, body) = request(
        server.port,
        "POST /storage/v1/b HTTP/1.1\r\nContent-Type: application/json",
        r#"{"name":"bucket"}"#,
    );
    assert_eq!(code, 200, "{body}");
    let config = resolved::Store::Gcs(GcsStore {
        bucket: "bucket".into(),
        prefix: Some("some/where".into()),
        endpoint: Some(server.url()),
        secret_ref: None,
    });
    // A key as Google's client libraries take it for servers without users.
    let key = r#"{"private_key": "private_key", "private_key_id": "id", "client_email": "a@b", "disable_oauth": true}"#;
    let credentials = Credentials {
        service_account_key: Some(key.into()),
        ..Credentials::default()
    };
    keeps_the_contract(&Rig::new(&config, &credentials)).await;
}

/// One request, by hand: status code and body.
fn request(port: u16, head: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    let length = body.len();
    let text =
        format!("{head}\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("reads");
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    (code.unwrap_or_else(|| panic!("no status line: {answer}")), answer)
}

/// Creates the container `checkpoints`, which a store expects to be there, as Azure's documentation signs a request.
fn create_container(port: u16) {
    const PROGRAM: &str = "
import base64, datetime, hashlib, hmac, sys, urllib.request
port, account, key = sys.argv[1:]
date = datetime.datetime.now(datetime.timezone.utc).strftime('%a, %d %b %Y %H:%M:%S GMT')
path = f'/{account}/checkpoints'
text = 'PUT' + 12 * '\\n' + f'x-ms-date:{date}\\nx-ms-version:2021-08-06\\n/{account}{path}\\nrestype:container'
sign = base64.b64encode(hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()).decode()
headers = {'x-ms-date': date, 'x-ms-version': '2021-08-06', 'Authorization': f'SharedKey {account}:{sign}', 'Content-Length': '0'}
request = urllib.request.Request(f'http://127.0.0.1:{port}{path}?restype=container', method='PUT', headers=headers)
assert urllib.request.urlopen(request).status == 201
";
    let output = Command::new("python3")
        .args(["-c", PROGRAM, &port.to_string(), AZURITE_ACCOUNT, AZURITE_KEY])
        .output()
        .expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
