//! Spans over OTLP for those who ask for them: sampled, queued, sent in batches to a collector. What it does not take is
//! lost and counted; no task ever waits for it. Must not hold: what an epoch is.
//!
//! By hand and as JSON, not by OpenTelemetry's SDK as in the operator: its protobuf code changes the features of a crate
//! below bindgen, and RocksDB would be compiled for it once more; ids, a queue and a request are all that is needed here.

pub mod otlp;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use uuid::Uuid;

use self::otlp::{Attribute, Span};
use crate::metrics::Metrics;

/// Longest wait for the collector.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// Epochs whose spans wait at most; those of more are lost.
const QUEUE_MAX: usize = 4_096;
/// Spans in one request at most.
const BATCH_MAX: usize = 512;
/// How long a batch is gathered.
const GATHER: Duration = Duration::from_millis(500);
/// Where traces go below a collector's base address.
const TRACES_PATH: &str = "/v1/traces";
/// Name of the service, and of the instrumentation.
const SERVICE: &str = "streamagg-processor";

/// Where spans go.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Base address of an OTLP collector that speaks HTTP, such as `http://collector:4318`.
    pub endpoint: String,
    /// Share of the epochs that are exported, 0 to 1.
    pub sample: f64,
    /// Name of this pod.
    pub pod: String,
    /// The job.
    pub job_id: String,
}

/// What takes the spans of a process.
pub struct Spans {
    sample: f64,
    queue: Mutex<Option<mpsc::Sender<Vec<Span>>>>,
    worker: Mutex<Option<JoinHandle<()>>>,
    metrics: Arc<Metrics>,
}

impl Spans {
    /// Begins to send.
    ///
    /// # Errors
    /// When the endpoint or the share is not usable, naming the flag.
    pub fn open(to: &Destination, runtime: &Handle, metrics: Arc<Metrics>) -> Result<Self, String> {
        let bad = |message: &str| format!("--otlp-endpoint {}: {message}", to.endpoint);
        if !to.endpoint.starts_with("http://") {
            return Err(bad(
                "say the base address of a collector in the cluster, such as http://collector:4318; TLS is not supported",
            ));
        }
        if !(0.0..=1.0).contains(&to.sample) {
            return Err(format!("--otlp-sample {}: say a share between 0 and 1", to.sample));
        }
        let client = reqwest::Client::builder()
            .timeout(EXPORT_TIMEOUT)
            .build()
            .map_err(|error| bad(&error.to_string()))?;
        let text = |text: &str| Attribute::Text(text.to_owned());
        let exporter = Exporter {
            client,
            url: format!("{}{TRACES_PATH}", to.endpoint.trim_end_matches('/')),
            resource: vec![
                ("service.name", text(SERVICE)),
                ("service.version", text(env!("CARGO_PKG_VERSION"))),
                ("service.instance.id", text(&to.pod)),
                ("streamagg.job", text(&to.job_id)),
            ],
            metrics: Arc::clone(&metrics),
            refused: false,
        };
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let worker = runtime.spawn(exporter.run(waiting));
        Ok(Self {
            sample: to.sample,
            queue: Mutex::new(Some(queue)),
            worker: Mutex::new(Some(worker)),
            metrics,
        })
    }

    /// Id of a new trace, if it is one of those that are exported.
    pub fn sampled(&self) -> Option<u128> {
        let trace_id = Uuid::new_v4().as_u128();
        // Random throughout, other than the upper half.
        let lowest = u32::try_from(trace_id & u128::from(u32::MAX)).unwrap_or(0);
        let chance = f64::from(lowest) / f64::from(u32::MAX);
        (chance < self.sample || self.sample >= 1.0).then_some(trace_id)
    }

    /// Id of a new span.
    pub fn new_id() -> u64 {
        Uuid::new_v4().as_u64_pair().1
    }

    /// Takes the spans of one trace. They are lost when too many wait.
    pub fn send(&self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = queue.as_ref().is_some_and(|queue| queue.try_send(spans).is_ok());
        if !taken {
            self.metrics.spans(false, count);
        }
    }

    /// Sends what is left, within the time limit of an export. It blocks: call it when nothing else is to be done.
    pub fn shutdown(&self, runtime: &Handle) {
        // Without a sender the worker ends once it has sent what waits.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(worker) = worker else { return };
        // The time limit begins within the runtime.
        let ended = runtime.block_on(async { tokio::time::timeout(EXPORT_TIMEOUT, worker).await });
        if ended.is_err() {
            tracing::warn!("the last spans were not exported");
        }
    }
}

/// The worker.
struct Exporter {
    client: reqwest::Client,
    url: String,
    resource: Vec<(&'static str, Attribute)>,
    metrics: Arc<Metrics>,
    /// The last batch was not taken.
    refused: bool,
}

impl Exporter {
    async fn run(mut self, mut waiting: mpsc::Receiver<Vec<Span>>) {
        while let Some(first) = waiting.recv().await {
            let mut batch = first;
            let gathered = tokio::time::timeout(GATHER, async {
                while batch.len() < BATCH_MAX {
                    match waiting.recv().await {
                        Some(more) => batch.extend(more),
                        None => return,
                    }
                }
            });
            // Enough, or long enough.
            gathered.await.ok();
            self.export(&batch).await;
        }
    }

    /// Sends a batch once: the next ones are worth more than a second try.
    async fn export(&mut self, batch: &[Span]) {
        let body = otlp::request(&self.resource, SERVICE, batch);
        let request = self.client.post(&self.url).json(&body);
        let answer = request.send().await.and_then(reqwest::Response::error_for_status);
        self.metrics.spans(answer.is_ok(), batch.len() as u64);
        match &answer {
            // Said once until it works again.
            Err(error) if !self.refused => tracing::warn!(%error, "the collector takes no spans; they are lost"),
            Ok(_) if self.refused => tracing::info!("the collector takes spans again"),
            Err(_) | Ok(_) => {}
        }
        self.refused = answer.is_err();
    }
}
