//! The subcommand `serve`: a processor pod, or the same on a laptop with `--assign-all`.
//!
//! Reads its documents, starts the admin server and the pod, waits for the signal to end. Must not hold: rules of the
//! protocol or of the admin API.

pub mod answers;
mod group;
mod machine;
mod partitions;
pub mod pins;
pub mod pod;
mod supervise;
mod why;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use streamagg_crds::job_file::{JobFile, LOCAL_UID, Restore};
use streamagg_crds::resolved;
use streamagg_crds::rules::Place;
use streamagg_crds::v1alpha1;
use streamagg_crds::validate;
use tokio::signal::unix::{SignalKind, signal};

use self::pod::Pod;
use self::supervise::AssignedBy;
pub use self::supervise::parse_assignment;
use crate::admin;
use crate::kafka::secrets::Secrets;
use crate::metrics::Metrics;
use crate::pipeline::builder::Plan;
use crate::pipeline::epoch::EpochLimits;
use crate::pipeline::executor::board::STUCK_AFTER;
use crate::pipeline::executor::clock::Clock;
use crate::pipeline::executor::failpoint::Failpoints;
use crate::pipeline::executor::{CheckpointRule, JobContext, Partitions};
use crate::spans::{Destination, Spans};
use crate::state::budget::Budget;
use crate::state::checkpoint::{RetentionRule, is_name};
use crate::state::recovery::startup::OnTruncated;
use crate::state::rocksdb::Shared;
use crate::state::store::{Credentials, Store};

/// Exit code for a bad job file, manifest or flag.
const EXIT_BAD_INPUT: u8 = 2;
/// Databases that share the write buffers in a usual pod.
const TASKS_USUAL: usize = 4;
/// What the end of the process itself takes of the time to end: the last spans are waited for 5 s.
const LEAVING: Duration = Duration::from_secs(8);

/// Flags of `serve`.
#[derive(Clone, Debug, clap::Args)]
pub struct ServeArgs {
    /// Job file written by the operator, or a StreamAggregation manifest
    #[arg(long, value_name = "FILE")]
    pub job: PathBuf,
    /// Assignment written by the operator; read again whenever it changes
    #[arg(long, value_name = "FILE", required_unless_present_any = ["assign_all", "assign_group"])]
    pub assignment: Option<PathBuf>,
    /// File with the token that /v1 asks for; without it /v1 refuses every request
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Directory for state
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Address of the admin server
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Where the volume of a checkpoint store of kind `volume` is mounted
    #[arg(long, value_name = "DIR")]
    pub checkpoint_volume: Option<PathBuf>,
    /// Directory of the Secrets that the job refers to, each a directory with a file for each key
    #[arg(long, env = "STREAMAGG_SECRETS_DIR", value_name = "DIR")]
    pub secrets_dir: Option<PathBuf>,
    /// Ordinal of this pod; default: the number at the end of the pod's name
    #[arg(long, value_name = "N")]
    pub ordinal: Option<u32>,
    /// Name of this pod
    #[arg(long, env = "POD_NAME", value_name = "NAME", default_value = "local-0")]
    pub pod_name: String,
    /// Go back to a checkpoint, once: a JSON file {"nonce": N, "checkpoint": NAME, "tasks": {TASK: ID}}, with a nonce
    /// higher than any before and the ids that POST /v1/checkpoint gave; results behind it are published again with a
    /// higher pane.revision
    #[arg(long, value_name = "FILE")]
    pub restore: Option<PathBuf>,
    /// Run every task here, without an operator
    #[arg(long)]
    pub assign_all: bool,
    /// Share the tasks, without an operator, with every process that has this flag: a Kafka consumer group says who runs
    /// which. Each has a --data-dir of its own and reaches the same checkpoint store
    #[arg(long, conflicts_with_all = ["assign_all", "assignment"])]
    pub assign_group: bool,
    /// Identity of the job when --job is a manifest
    #[arg(long, value_name = "UID", default_value = LOCAL_UID)]
    pub uid: String,
    /// Time to end after the signal, before the process is killed; the last checkpoint is not waited for any longer
    #[arg(long, value_name = "SECONDS", env = "STREAMAGG_GRACE_SECONDS", default_value_t = 600)]
    pub grace_seconds: u64,
    /// What is logged, such as `info` or `streamagg_processor=debug`
    #[arg(
        long,
        env = "STREAMAGG_LOG",
        default_value = "info,librdkafka=error,rdkafka::client=off"
    )]
    pub log: String,
    /// How log lines look
    #[arg(long, env = "STREAMAGG_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// Base address of an OTLP collector that takes spans of epochs by HTTP, such as http://collector:4318; default: none
    /// are made
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Share of the epochs whose spans are sent, 0 to 1
    #[arg(long, env = "OTLP_SAMPLE", value_name = "SHARE", default_value_t = 1.0)]
    pub otlp_sample: f64,
    /// Where a test ends the process: `name` or `name:n`
    #[arg(long, env = "STREAMAGG_FAILPOINT", hide = true)]
    pub failpoint: Option<String>,
    /// File with the ms by which a test moves the clock ahead; read again whenever the time matters
    #[arg(long, env = "STREAMAGG_CLOCK_AHEAD", value_name = "FILE", hide = true)]
    pub clock_ahead: Option<PathBuf>,
    /// Time without a turn of its loop after which a task is stuck, where a test does not wait for the usual
    #[arg(long, env = "STREAMAGG_STUCK_AFTER", value_name = "MS", hide = true)]
    pub stuck_after_ms: Option<u64>,
    /// Time between two looks at the source while it is read, where a test does not wait for the usual
    #[arg(long, env = "STREAMAGG_LOOK_EVERY", value_name = "MS", hide = true)]
    pub look_every_ms: Option<u64>,
    /// Access key id of an S3 checkpoint store
    #[arg(long, env = "AWS_ACCESS_KEY_ID", hide = true, hide_env_values = true)]
    pub s3_access_key_id: Option<String>,
    /// Secret access key of an S3 checkpoint store
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", hide = true, hide_env_values = true)]
    pub s3_secret_access_key: Option<String>,
    /// Key of the service account for a checkpoint store on Google Cloud, the JSON document
    #[arg(long, env = "GOOGLE_SERVICE_ACCOUNT_KEY", hide = true, hide_env_values = true)]
    pub gcs_service_account_key: Option<String>,
    /// Key of the account for a checkpoint store on Azure
    #[arg(long, env = "AZURE_STORAGE_ACCOUNT_KEY", hide = true, hide_env_values = true)]
    pub azure_account_key: Option<String>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why `serve` does not start.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    /// A flag or a document is wrong.
    #[error("{0}")]
    Input(String),
    /// The system refuses.
    #[error("{0}")]
    System(String),
}

/// Runs a pod until it is told to end. 0 after SIGTERM or SIGINT, 2 for bad input, 1 otherwise.
pub fn serve(args: ServeArgs) -> ExitCode {
    if let Err(error) = log_to_stderr(args.log_format, &args.log) {
        eprintln!("--log: {error}");
        return ExitCode::from(EXIT_BAD_INPUT);
    }
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ ServeError::Input(_)) => {
            eprintln!("{error}");
            ExitCode::from(EXIT_BAD_INPUT)
        }
        Err(error @ ServeError::System(_)) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Lines for people or JSON objects, with the names the operator's log has. A subscriber that is there (tests) stays.
fn log_to_stderr(format: LogFormat, filter: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_new(filter)?)
        .with_target(false)
        .with_ansi(false)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => drop(builder.try_init()),
        LogFormat::Json => drop(builder.json().flatten_event(true).try_init()),
    }
    Ok(())
}

fn run(args: &ServeArgs) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| ServeError::System(format!("starting threads: {error}")))?;
    let job_file = load_job(&args.job, &args.uid)?;
    let token = args.token_file.as_deref().map(read_token).transpose()?;
    let context = Arc::new(context(args, &job_file, runtime.handle().clone())?);
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind(args.listen))
        .map_err(|error| ServeError::System(format!("--listen {}: {error}", args.listen)))?;
    let listen = listener.local_addr().unwrap_or(args.listen);
    let pod = Arc::new(Pod::new(Arc::clone(&context), args.pod_name.clone()));
    let by = match (args.assign_group, args.assign_all) {
        (true, _) => AssignedBy::Group,
        (false, true) => AssignedBy::Nobody,
        (false, false) => AssignedBy::Operator(args.assignment.clone()),
    };
    let supervisor = supervise::start(Arc::clone(&pod), by)
        .map_err(|error| ServeError::System(format!("starting threads: {error}")))?;
    runtime.spawn(admin::run(listener, admin::router(Arc::clone(&pod), token)));
    tracing::info!(job = context.job.job_id, uid = context.uid, %listen, "processor started");
    log_budget(&context.budget);
    runtime
        .block_on(ended())
        .map_err(|error| ServeError::System(format!("waiting for signals: {error}")))?;
    tracing::info!("ending: each task finishes its epoch, commits and checkpoints");
    pod.stop();
    let limit = Duration::from_secs(args.grace_seconds).saturating_sub(LEAVING);
    if !supervisor.join(limit) {
        tracing::warn!(
            waited_s = limit.as_secs(),
            "leaving before the last checkpoint is complete: nothing is lost, but a start without this volume has more to \
             replay; raise spec.podTemplate.spec.terminationGracePeriodSeconds, or --grace-seconds"
        );
    }
    if let Some(spans) = &context.spans {
        spans.shutdown(runtime.handle());
    }
    // Uploads have been waited for by their tasks; what else runs must not hold the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}

/// Once, so that a figure of memory can be compared with what was meant.
fn log_budget(budget: &Budget) {
    tracing::info!(
        bytes = budget.bytes,
        from = %budget.origin,
        state = budget.state_bytes(),
        cache = budget.cache_bytes(),
        write_buffers = budget.write_buffer_bytes(),
        fetched_ahead_by_one_task = budget.fetch_bytes(1),
        outputs_of_one_task = budget.output_bytes(1),
        "memory budget"
    );
}

async fn ended() -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn read(path: &Path, flag: &str) -> Result<String, ServeError> {
    std::fs::read_to_string(path).map_err(|error| ServeError::Input(format!("{flag} {}: {error}", path.display())))
}

fn read_token(path: &Path) -> Result<String, ServeError> {
    let token = read(path, "--token-file")?.trim().to_owned();
    if token.is_empty() {
        return Err(ServeError::Input(format!(
            "--token-file {}: it is empty",
            path.display()
        )));
    }
    Ok(token)
}

/// A job file, or a manifest with the identity given.
fn load_job(path: &Path, uid: &str) -> Result<JobFile, ServeError> {
    let text = read(path, "--job")?;
    let bad = |message: String| ServeError::Input(format!("--job {}: {message}", path.display()));
    let is_job_file = serde_json::from_str::<serde_json::Value>(&text).is_ok_and(|value| value.get("kind").is_none());
    if is_job_file {
        return JobFile::parse(&text).map_err(|error| bad(error.to_string()));
    }
    let manifest = streamagg_crds::parse_manifest(&text)
        .map_err(|errors| bad(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ")))?;
    let errors = validate::validate(&manifest.spec, Place::Kafka);
    if !errors.is_empty() {
        return Err(bad(errors
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n  ")));
    }
    Ok(JobFile::new(
        &manifest.metadata.namespace,
        &manifest.metadata.name,
        uid,
        manifest.spec,
    ))
}

fn context(args: &ServeArgs, job_file: &JobFile, runtime: tokio::runtime::Handle) -> Result<JobContext, ServeError> {
    let bad = |message: String| ServeError::Input(format!("--job {}: {message}", args.job.display()));
    let spec = &job_file.spec;
    let job = validate::resolve(spec, &job_file.namespace, &job_file.name)
        .map_err(|errors| bad(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ")))?;
    let failpoints = match args.failpoint.as_deref().filter(|setting| !setting.is_empty()) {
        Some(setting) => Failpoints::parse(setting).map_err(ServeError::Input)?,
        None => Failpoints::default(),
    };
    let secrets = Secrets::new(args.secrets_dir.clone());
    secrets.check(&job).map_err(|stop| ServeError::Input(stop.message))?;
    std::fs::create_dir_all(&args.data_dir)
        .map_err(|error| ServeError::System(format!("--data-dir {}: {error}", args.data_dir.display())))?;
    let declared = spec.state.memory_budget.as_ref().map(|budget| budget.units());
    let budget = Budget::derive(declared, machine::memory_limit());
    let metrics = Metrics::new().map_err(|error| ServeError::System(format!("metrics: {error}")))?;
    let metrics = Arc::new(metrics);
    let kafka = spec.source.kafka.as_ref();
    let on_truncated = match kafka.map(|kafka| kafka.on_truncated).unwrap_or_default() {
        v1alpha1::OnTruncated::Stop => OnTruncated::Stop,
        v1alpha1::OnTruncated::Skip => OnTruncated::Skip,
    };
    Ok(JobContext {
        plan: Arc::new(Plan::compile(&job)),
        checkpoints: checkpoints(args, job_file)?,
        ordinal: ordinal(args)?,
        uid: job_file.uid.clone(),
        revision: job_file.revision.clone(),
        engine: env!("CARGO_PKG_VERSION").to_owned(),
        restore: restore(args, job_file)?,
        delivery: spec.delivery,
        on_truncated,
        data_directory: args.data_dir.clone(),
        backend: spec.state.backend,
        shared: Shared::new(
            whole(budget.cache_bytes()),
            whole(budget.write_buffer_bytes()),
            TASKS_USUAL,
        ),
        budget,
        limits: EpochLimits::default(),
        partitions: job.source.max_drift_ms.map(Partitions::new),
        spans: spans(args, &job_file.job_id, &runtime, &metrics)?,
        metrics,
        clock: Clock::new(args.clock_ahead.clone()),
        failpoints,
        stuck_after: args.stuck_after_ms.map_or(STUCK_AFTER, Duration::from_millis),
        look_every: args.look_every_ms.map_or(partitions::LOOK_EVERY, Duration::from_millis),
        secrets,
        runtime,
        job,
    })
}

/// The user's order: of the job file, or of a file of its own.
fn restore(args: &ServeArgs, job_file: &JobFile) -> Result<Option<Restore>, ServeError> {
    let (found, file) = match (&args.restore, &job_file.restore) {
        (None, None) => return Ok(None),
        (None, Some(restore)) => (restore.clone(), format!("--job {}: restore", args.job.display())),
        (Some(path), None) => {
            let file = format!("--restore {}", path.display());
            let restore = serde_json::from_str(&read(path, "--restore")?)
                .map_err(|error| ServeError::Input(format!("{file}: {error}")))?;
            (restore, file)
        }
        (Some(path), Some(_)) => {
            let message = "the job file has a restore of its own; give one of the two";
            return Err(ServeError::Input(format!("--restore {}: {message}", path.display())));
        }
    };
    let bad = |message: String| Err(ServeError::Input(format!("{file}: {message}")));
    if found.nonce == 0 {
        return bad("nonce: it must be at least 1, and higher than that of any restore before".to_owned());
    }
    match found.tasks.iter().find(|(_, id)| !is_name(id)) {
        Some((task, id)) => bad(format!(
            "tasks.{task}: {id:?} is no id of a checkpoint; give one as POST /v1/checkpoint tells it"
        )),
        None => Ok(Some(found)),
    }
}

fn spans(
    args: &ServeArgs,
    job_id: &str,
    runtime: &tokio::runtime::Handle,
    metrics: &Arc<Metrics>,
) -> Result<Option<Spans>, ServeError> {
    // An empty variable is one that was not set.
    let Some(endpoint) = args.otlp_endpoint.clone().filter(|endpoint| !endpoint.is_empty()) else {
        return Ok(None);
    };
    let to = Destination {
        endpoint,
        sample: args.otlp_sample,
        pod: args.pod_name.clone(),
        job_id: job_id.to_owned(),
    };
    let spans = Spans::open(&to, runtime, Arc::clone(metrics)).map_err(ServeError::Input)?;
    Ok(Some(spans))
}

fn whole(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn checkpoints(args: &ServeArgs, job_file: &JobFile) -> Result<Option<(Store, CheckpointRule)>, ServeError> {
    let (Some(config), Some(checkpoints)) = (resolved::store(&job_file.spec), &job_file.spec.state.checkpoints) else {
        return Ok(None);
    };
    let credentials = Credentials {
        access_key_id: args.s3_access_key_id.clone(),
        secret_access_key: args.s3_secret_access_key.clone(),
        service_account_key: args.gcs_service_account_key.clone(),
        account_key: args.azure_account_key.clone(),
    };
    let volume = args.checkpoint_volume.as_deref();
    let store =
        Store::open(&config, &job_file.job_id, volume, &credentials).map_err(|stop| ServeError::Input(stop.message))?;
    let retain = &checkpoints.retain;
    let rule = CheckpointRule {
        interval: Duration::from_millis(checkpoints.interval.ms()),
        retention: RetentionRule {
            count: usize::try_from(retain.count).unwrap_or(1),
            age_ms: retain.age.and_then(|age| i64::try_from(age.ms()).ok()),
        },
    };
    Ok(Some((store, rule)))
}

fn ordinal(args: &ServeArgs) -> Result<u32, ServeError> {
    if let Some(ordinal) = args.ordinal {
        return Ok(ordinal);
    }
    let number = args.pod_name.rsplit('-').next().and_then(|text| text.parse().ok());
    number.ok_or_else(|| {
        ServeError::Input(format!(
            "POD_NAME {:?} does not end in a number; give --ordinal",
            args.pod_name
        ))
    })
}
