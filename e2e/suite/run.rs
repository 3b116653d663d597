//! One run of the suite: its namespace, topics, load and checker. Must not know what a step expects.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use streamagg_crds::admin::ADMIN_PORT;
use streamagg_crds::manifest::{parse_manifest, read_yaml};
use streamagg_crds::resolved::Resolved;
use streamagg_crds::validate::resolve;
use streamagg_crds::value::Quantity;
use streamagg_e2e::broker::{Broker, Loader};
use streamagg_e2e::checker::{Added, Report};
use streamagg_e2e::cluster::Cluster;
use streamagg_e2e::load::Load;
use streamagg_e2e::pod_process::Ending;
use streamagg_e2e::random::Random;
use streamagg_e2e::trace;
use streamagg_e2e::traffic::Traffic;
use streamagg_e2e::verify::Verifier;
use streamagg_e2e::wait::{Seen, await_condition, or_not_yet};

/// Name of the aggregation under test.
pub const JOB: &str = "llm-by-model";
/// Partitions of the source topic.
pub const PARTITIONS: i32 = 3;
/// Longest wait for the operator to reach a state.
pub const READY_MAX: Duration = Duration::from_secs(180);
const VERIFY_MAX: Duration = Duration::from_secs(120);
const OPERATOR_NAMESPACE: &str = "streamagg-system";
const RELEASE: &str = "streamagg";
/// Above window, lateness and bound of the sample together, in event time.
const CLOSING_MS: i64 = 400_000;
const KAFKA_IN_CLUSTER: &str = "kafka.kafka.svc:9092";
const KAFKA_DEFAULT: &str = "127.0.0.1:19092";

/// What is produced by.
enum Source {
    /// Nothing yet.
    None,
    /// At rest.
    Idle(Box<(Loader, Traffic)>),
    /// Under load.
    Load(Load),
}

/// A run.
pub struct Run {
    pub cluster: Cluster,
    pub operator: Cluster,
    pub manifest: Value,
    pub random: Random,
    pub seed: u64,
    pub endings: Vec<(&'static str, Ending)>,
    broker: Broker,
    verifier: Option<Verifier>,
    source: Source,
    step: (String, Instant),
    started: Instant,
    installed_here: bool,
}

impl Run {
    pub fn new() -> Result<Self, String> {
        let bootstrap = std::env::var("E2E_KAFKA").unwrap_or_else(|_| KAFKA_DEFAULT.to_owned());
        let seed = std::env::var("STREAMAGG_SEED")
            .map_or(Ok(1), |text| text.parse())
            .map_err(|_| "STREAMAGG_SEED")?;
        let cluster = Cluster::new(&format!("e2e-{}", std::process::id()));
        let operator = Cluster::new(OPERATOR_NAMESPACE);
        Ok(Self {
            operator,
            cluster,
            manifest: Value::Null,
            random: Random::new(seed),
            seed,
            endings: Vec::new(),
            broker: Broker { bootstrap },
            verifier: None,
            source: Source::None,
            step: (String::new(), Instant::now()),
            started: Instant::now(),
            installed_here: false,
        })
    }

    pub fn begin(&mut self, step: &str) {
        println!("{:6.1} s  {step}", self.started.elapsed().as_secs_f64());
        self.step = (step.to_owned(), Instant::now());
    }

    pub fn done(&self) {
        println!(
            "        ok, {:.1} s: {}",
            self.step.1.elapsed().as_secs_f64(),
            self.step.0
        );
    }

    /// Namespace, secret and chart.
    pub fn install(&mut self) -> Result<(), String> {
        let namespace = self.cluster.namespace.clone();
        self.cluster.kubectl(&["create", "namespace", &namespace])?;
        self.cluster.kubectl(&[
            "create",
            "secret",
            "generic",
            "checkpoint-store",
            "--from-literal=accessKeyId=streamagg",
            "--from-literal=secretAccessKey=streamagg-secret",
        ])?;
        self.installed_here = self
            .cluster
            .helm(&["status", RELEASE, "-n", OPERATOR_NAMESPACE])
            .is_err();
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/streamagg");
        let place = [
            "-n",
            OPERATOR_NAMESPACE,
            "--create-namespace",
            "--wait",
            "--timeout",
            "120s",
        ];
        let arguments = [&["upgrade", "--install", RELEASE, chart], &place[..]].concat();
        self.cluster.helm(&arguments).map(drop)
    }

    /// A sample as this run applies it: its own topics, the cluster's broker, late and dead letters kept.
    pub fn sample(&self, text: &str, name: &str) -> Result<Value, String> {
        let mut manifest = read_yaml(text).map_err(|errors| format!("{errors:?}"))?;
        let topic = |part: &str| format!("{}.{name}.{part}", self.cluster.namespace);
        manifest["metadata"] = json!({"name": name, "namespace": self.cluster.namespace});
        let spec = &mut manifest["spec"];
        spec["source"]["kafka"]["bootstrapServers"] = json!([KAFKA_IN_CLUSTER]);
        spec["source"]["kafka"]["topics"] = json!([topic("in")]);
        spec["sink"]["kafka"]["topic"] = json!(topic("out"));
        // The checker works these out by itself; what else can be computed the oracle's properties compare.
        let known = |aggregate: &Value| {
            let has = |name: &&str| aggregate.get(name).is_some();
            ["count", "sum", "average", "min", "max"].iter().any(has) && !has(&"where")
        };
        if let Some(aggregates) = spec["aggregates"].as_array_mut() {
            aggregates.retain(known);
        }
        spec["lateEvents"] = json!({"kafka": {"topic": topic("late")}});
        spec["deadLetters"] = json!({"kafka": {"topic": topic("dead")}});
        if let Some(checkpoints) = spec.pointer_mut("/state/checkpoints") {
            checkpoints["interval"] = json!("5s");
            checkpoints["store"]["s3"]["prefix"] = json!(self.cluster.namespace);
        }
        let topics: Vec<String> = ["in", "out", "late", "dead"].map(topic).into();
        self.broker.create_topics(
            &topics
                .iter()
                .map(|topic| (topic.as_str(), PARTITIONS))
                .collect::<Vec<_>>(),
        )?;
        Ok(manifest)
    }

    pub fn apply_job(&mut self, manifest: &Value) -> Result<(), String> {
        self.manifest = manifest.clone();
        self.cluster.apply(manifest).map(drop)
    }

    fn resolved(manifest: &Value) -> Result<Resolved, String> {
        // The laptop's reading does not ask for what only a cluster needs; what a result is, is the same.
        let manifest = parse_manifest(&manifest.to_string()).map_err(|errors| format!("{errors:?}"))?;
        resolve(&manifest.spec, &manifest.metadata.namespace, &manifest.metadata.name)
            .map_err(|errors| format!("{errors:?}"))
    }

    pub fn open_verifier(&mut self, traffic: Traffic) -> Result<(), String> {
        let job = Self::resolved(&self.manifest)?;
        self.verifier = Some(Verifier::open(&self.broker, &job)?);
        self.source = Source::Idle(Box::new((self.broker.loader(&job.source.topics[0])?, traffic)));
        Ok(())
    }

    /// Applies the trace's job, produces the trace and compares.
    pub fn trace(&self, manifest: &Value) -> Result<Report, String> {
        self.cluster.apply(manifest)?;
        let job = Self::resolved(manifest)?;
        let mut loader = self.broker.loader(&job.source.topics[0])?;
        for message in trace::messages(PARTITIONS)? {
            loader.send(&message)?;
        }
        loader.flush()?;
        Verifier::open(&self.broker, &job)?.await_clean(VERIFY_MAX)
    }

    pub fn start_load(&mut self, rate: u64) -> Result<(), String> {
        self.source = match std::mem::replace(&mut self.source, Source::None) {
            Source::Idle(idle) => Source::Load(Load::start(idle.0, idle.1, rate)),
            other => other,
        };
        match self.source {
            Source::Load(_) => Ok(()),
            Source::None | Source::Idle(_) => Err("there is nothing to produce with".to_owned()),
        }
    }

    fn rest(&mut self) -> Result<&mut (Loader, Traffic), String> {
        if let Source::Load(load) = std::mem::replace(&mut self.source, Source::None) {
            self.source = Source::Idle(Box::new(load.stop()?));
        } else {
            return Err("there is no load to stop".to_owned());
        }
        self.idle()
    }

    fn idle(&mut self) -> Result<&mut (Loader, Traffic), String> {
        match &mut self.source {
            Source::Idle(idle) => Ok(idle),
            Source::None | Source::Load(_) => Err("the source is not at rest".to_owned()),
        }
    }

    pub fn produce(&mut self, records: u64) -> Result<(), String> {
        let (loader, traffic) = self.idle()?;
        for _ in 0..records {
            loader.send(&traffic.next_message())?;
        }
        loader.flush()
    }

    pub fn clock_ms(&self) -> i64 {
        match &self.source {
            Source::None => 0,
            Source::Idle(idle) => idle.1.clock_ms(),
            Source::Load(load) => load.clock_ms(),
        }
    }

    fn verifier(&mut self) -> Result<&mut Verifier, String> {
        self.verifier.as_mut().ok_or_else(|| "no topics are open".to_owned())
    }

    pub fn results(&mut self) -> Result<usize, String> {
        self.verifier()?.results()
    }

    pub fn await_progress(&mut self) -> Result<(), String> {
        let verifier = self.verifier()?;
        let before = verifier.results()?;
        await_condition("new results", VERIFY_MAX, || match verifier.results() {
            Ok(now) if now > before => Seen::Done(()),
            Ok(now) => Seen::NotYet(format!("{now} results as before")),
            Err(error) => Seen::NotYet(error),
        })
    }

    /// Waits for a checkpoint newer than what is there.
    pub fn await_checkpoint(&self) -> Result<(), String> {
        let id = |object: &Value| object["status"]["tasks"]["newestCheckpoint"]["id"].clone();
        let before = id(&self.cluster.get("sagg", JOB)?);
        await_condition("a new checkpoint", READY_MAX, || match self.cluster.get("sagg", JOB) {
            Ok(object) if id(&object) != before && !id(&object).is_null() => Seen::Done(()),
            Ok(object) => Seen::NotYet(format!("{}", object["status"]["tasks"])),
            Err(error) => Seen::NotYet(error),
        })
    }

    /// Every pod has the memory limit of its manifest for its own, and has stayed below it.
    fn check_memory(&self) -> Result<(), String> {
        let selector = format!("app.kubernetes.io/instance={JOB}");
        let listed = self.cluster.kubectl(&["get", "pods", "-l", &selector, "-o", "json"])?;
        let listed: Value = serde_json::from_str(&listed).map_err(|error| error.to_string())?;
        let pods = listed["items"].as_array().filter(|pods| !pods.is_empty());
        for pod in pods.ok_or("the job has no pod")? {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            let limit = pod["spec"]["containers"][0]["resources"]["limits"]["memory"].clone();
            let limit: Quantity = serde_json::from_value(limit).map_err(|error| format!("limit of {name}: {error}"))?;
            let path = format!(
                "/api/v1/namespaces/{}/pods/{name}:{ADMIN_PORT}/proxy/metrics",
                self.cluster.namespace
            );
            let metrics = self.cluster.kubectl(&["get", "--raw", &path])?;
            let told = bytes(&metrics, "streamagg_memory_limit_bytes")?;
            let peak = bytes(&metrics, "streamagg_memory_resident_peak_bytes")?;
            if told != limit.units() || peak == 0 || peak >= told {
                return Err(format!("{name} has {limit}, says {told} bytes, and used up to {peak}"));
            }
        }
        Ok(())
    }

    /// Stops the load, closes every window and waits until the checker is content.
    pub fn verify(&mut self) -> Result<(), String> {
        if matches!(self.source, Source::Load(_)) {
            self.rest()?;
        }
        if self.cluster.get("sagg", JOB).is_ok() {
            let (loader, traffic) = self.idle()?;
            for message in traffic.close(CLOSING_MS) {
                loader.send(&message)?;
            }
            loader.flush()?;
            let within = || or_not_yet(self.check_memory());
            await_condition("pods within their memory limits", READY_MAX, within)?;
        }
        let verifier = self.verifier()?;
        let report = verifier.await_clean(VERIFY_MAX)?;
        println!("  {} records in: {report}", verifier.source_len());
        Ok(())
    }

    pub fn job_changed(&mut self, added: Vec<Added>) -> Result<(), String> {
        let job = Self::resolved(&self.manifest)?;
        self.verifier()?.change_job(&job, added);
        Ok(())
    }

    /// From here on of a window's results those of the highest revision hold.
    pub fn went_back(&mut self) -> Result<(), String> {
        self.verifier()?.went_back = true;
        Ok(())
    }

    /// Waits until results come that replace others.
    pub fn await_replaced(&mut self) -> Result<(), String> {
        let verifier = self.verifier()?;
        await_condition("results of a higher revision", VERIFY_MAX, || {
            match verifier.results() {
                Ok(_) if verifier.revision() > 0 => Seen::Done(()),
                Ok(all) => Seen::NotYet(format!("{all} results, all of revision 0")),
                Err(error) => Seen::NotYet(error),
            }
        })
    }

    pub fn keep_diagnostics(&mut self) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("streamagg-{}", self.cluster.namespace));
        // The directory is printed in any case; a failure to make it shows as a missing file.
        let _ = std::fs::create_dir_all(&directory);
        self.cluster.diagnostics(&directory, OPERATOR_NAMESPACE);
        directory
    }

    pub fn clean_up(&mut self) -> Result<(), String> {
        let namespace = self.cluster.namespace.clone();
        self.cluster
            .kubectl(&["delete", "namespace", &namespace, "--wait=false"])?;
        if self.installed_here {
            self.cluster
                .helm(&["uninstall", RELEASE, "-n", OPERATOR_NAMESPACE, "--wait"])?;
        }
        Ok(())
    }
}

/// Value of a metric in bytes.
fn bytes(metrics: &str, name: &str) -> Result<u64, String> {
    let mut lines = metrics.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value
        .and_then(|value| value.parse().ok())
        .ok_or_else(|| format!("there is no {name}: {metrics}"))
}
