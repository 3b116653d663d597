//! A job of the benchmark: its manifest, its topics, and a process whose CPU and memory are read from the kernel.
//! Must not decide what is measured.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use streamagg_crds::parse_manifest;
use streamagg_crds::resolved::Resolved;
use streamagg_crds::validate::resolve;
use streamagg_e2e::broker::Broker;

/// Partitions of every topic.
pub const PARTITIONS: i32 = 4;
/// Eight aggregates of five fields.
pub const EIGHT: &str = "
    - {name: requests, count: {}}
    - {name: prompt, sum: {field: /usage/prompt}}
    - {name: completion, sum: {field: /usage/completion}}
    - {name: cost, sum: {field: /cost_usd}}
    - {name: latency, average: {field: /latency_ms}}
    - {name: ttft, average: {field: /ttft_ms}}
    - {name: fastest, min: {field: /latency_ms}}
    - {name: slowest, max: {field: /latency_ms}}";

/// What differs between the jobs.
pub struct Shape<'a> {
    /// Of the job and its topics.
    pub name: &'a str,
    /// Topic it reads.
    pub input: &'a str,
    /// Bound of out-of-orderness.
    pub bound: &'a str,
    /// The one window.
    pub window: &'a str,
    /// The aggregates, as a list.
    pub aggregates: &'a str,
    /// Further members of the sink's topic.
    pub sink: &'a str,
    /// Further members of the spec.
    pub more: &'a str,
}

/// A job with its topics.
pub struct Job {
    /// The manifest, on disk.
    pub manifest: PathBuf,
    /// What it means.
    pub resolved: Resolved,
    /// The volume.
    pub data: PathBuf,
    /// Checkpoints.
    pub store: PathBuf,
    /// Where results go.
    pub output: String,
    /// Where what is no event goes.
    pub dead: String,
    /// Committed positions.
    pub control: String,
}

impl Job {
    /// Writes the manifest and creates the topics.
    pub fn create(broker: &Broker, directory: &Path, shape: &Shape<'_>) -> Result<Self, String> {
        let text = manifest(&broker.bootstrap, shape);
        let parsed = parse_manifest(&text).map_err(|errors| format!("{errors:?}"))?;
        let name = shape.name;
        let resolved = resolve(&parsed.spec, "bench", name).map_err(|errors| format!("{errors:?}"))?;
        let topics = [
            shape.input.to_owned(),
            format!("{name}-out"),
            format!("{name}-late"),
            format!("{name}-dead"),
        ];
        broker.create_topics(&topics.each_ref().map(|topic| (topic.as_str(), PARTITIONS)))?;
        let manifest = directory.join(format!("{name}.yaml"));
        std::fs::write(&manifest, text).map_err(|error| error.to_string())?;
        let store = directory.join(format!("{name}-checkpoints"));
        std::fs::create_dir_all(&store).map_err(|error| error.to_string())?;
        let [_, output, _, dead] = topics;
        Ok(Self {
            manifest,
            control: format!("{}-control", resolved.job_id),
            resolved,
            data: directory.join(name),
            store,
            output,
            dead,
        })
    }

    /// Starts the processor with all tasks; its metrics are served on the loopback port `admin` (0: nobody asks).
    pub fn start(&self, admin: u16) -> Result<Process, String> {
        let mut command = Command::new(binary("streamagg-processor")?);
        command
            .args(["serve", "--assign-all", "--listen"])
            .arg(format!("127.0.0.1:{admin}"))
            .arg("--data-dir")
            .arg(&self.data)
            .arg("--checkpoint-volume")
            .arg(&self.store)
            .arg("--job")
            .arg(&self.manifest);
        Process::start(command, &self.manifest.with_extension("log"))
    }
}

fn manifest(bootstrap: &str, shape: &Shape<'_>) -> String {
    let Shape {
        name,
        input,
        bound,
        window,
        aggregates,
        sink,
        more,
    } = shape;
    format!(
        r#"
apiVersion: streamagg.io/v1alpha1
kind: StreamAggregation
metadata: {{name: {name}, namespace: bench}}
spec:
  source: {{kafka: {{bootstrapServers: ["{bootstrap}"], topics: [{input}]}}, partitioning: {{byKey: {{}}}}}}
  event: {{timestamp: {{field: /ts}}, watermark: {{boundedOutOfOrderness: {{bound: {bound}}}}}}}
  groupBy: [{{name: user, field: /user}}]
  windows: [{{name: w, {window}}}]
  aggregates: {aggregates}
  sink: {{kafka: {{topic: {name}-out{sink}}}}}
  lateEvents: {{kafka: {{topic: {name}-late}}}}
  deadLetters: {{kafka: {{topic: {name}-dead}}}}
{more}"#
    )
}

/// The release binary beside this program's own.
pub fn binary(name: &str) -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let path = own.with_file_name(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(format!("{} is not there; build it: make binaries", path.display()))
    }
}

/// A measured child; it does not outlive the benchmark.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts it, with everything it says at the end of `log`.
    pub fn start(mut command: Command, log: &Path) -> Result<Self, String> {
        let open = || std::fs::File::options().create(true).append(true).open(log);
        let (out, err) = (
            open().map_err(|error| error.to_string())?,
            open().map_err(|error| error.to_string())?,
        );
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        Ok(Self { child })
    }

    fn proc_file(&self, name: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).unwrap_or_default()
    }

    /// User and system seconds so far, all threads.
    pub fn cpu_seconds(&self) -> f64 {
        /// Linux reports in hundredths of a second to user space, whatever its own tick.
        const TICKS: f64 = 100.0;
        let stat = self.proc_file("stat");
        let after_name = stat.rsplit(") ").next().unwrap_or_default();
        let ticks = after_name
            .split(' ')
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<f64>().ok());
        ticks.sum::<f64>() / TICKS
    }

    /// A figure of `/proc/PID/status` in MiB: `VmHWM` is the peak of what was resident, `VmRSS` what is.
    pub fn mebibytes(&self, name: &str) -> f64 {
        let status = self.proc_file("status");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .unwrap_or_default();
        let kib = line.trim().trim_end_matches(" kB").trim().parse::<f64>();
        kib.unwrap_or(f64::NAN) / 1024.0
    }

    /// Whether it has ended, and well.
    pub fn ended(&mut self) -> Option<bool> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(status.success())
    }

    /// SIGKILL.
    pub fn kill(mut self) -> Result<(), String> {
        self.signal_kill()
    }

    /// The same for one that is replaced afterwards.
    pub fn signal_kill(&mut self) -> Result<(), String> {
        self.child
            .kill()
            .and_then(|()| self.child.wait())
            .map(drop)
            .map_err(|error| error.to_string())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended answers with an error, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
