//! The operator binary: flags, log, client, lease, health server, controller. Must not hold decisions.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use streamagg_operator::admin_client::AdminClient;
use streamagg_operator::controller::memory::Memory;
use streamagg_operator::controller::{Context, run};
use streamagg_operator::http::{self, Health};
use streamagg_operator::lease::Candidate;
use streamagg_operator::metrics::Metrics;
use streamagg_operator::telemetry::{self, LogFormat, Spans};
use streamagg_operator::{names, preflight, resolver};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Turns StreamAggregations into processor pods and looks after them.
#[derive(Debug, Parser)]
#[command(name = "streamagg-operator", version)]
struct Arguments {
    /// Image of the processor for specs that name none.
    #[arg(long, env = "PROCESSOR_IMAGE")]
    processor_image: Option<String>,
    /// Look after this namespace only (a Role then suffices); default: all.
    #[arg(long, env = "WATCH_NAMESPACE")]
    namespace: Option<String>,
    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:8081")]
    listen: String,
    /// Namespace of the lease that keeps all replicas but one waiting; without it there is no election.
    #[arg(long, env = "LEASE_NAMESPACE")]
    lease_namespace: Option<String>,
    /// Name of this replica in the lease and in events.
    #[arg(long, env = "POD_NAME", default_value = "streamagg-operator")]
    identity: String,
    /// How log lines look.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
    /// What is logged, in RUST_LOG's syntax.
    #[arg(long, env = "RUST_LOG", default_value = "info,kube_runtime=warn,kube_client=warn")]
    log_filter: String,
    /// Base address of an OTLP collector (HTTP) that spans of reconciles are sent to, such as http://collector:4318;
    /// default: none are made.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    otlp_endpoint: Option<String>,
    /// Share of the reconciles whose spans are sent, 0 to 1.
    #[arg(long, env = "OTLP_SAMPLE", default_value_t = 1.0)]
    otlp_sample: f64,
}

impl Arguments {
    /// Where spans go, if anywhere.
    fn spans(&self) -> Option<Spans> {
        let endpoint = self.otlp_endpoint.clone().filter(|endpoint| !endpoint.is_empty())?;
        Some(Spans {
            endpoint,
            sample: self.otlp_sample,
            identity: self.identity.clone(),
        })
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let installed = telemetry::install(arguments.log_format, &arguments.log_filter, arguments.spans().as_ref());
    let telemetry = match installed {
        Ok(telemetry) => telemetry,
        Err(message) => {
            eprintln!("error: {message}");
            return ExitCode::from(2);
        }
    };
    let outcome = operate(arguments);
    telemetry.shutdown();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn operate(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let metrics = Metrics::new()?;
    let health = Health::new(metrics.clone());
    let listener = TcpListener::bind(&arguments.listen)
        .await
        .map_err(|error| format!("--listen {}: {error}; choose another address", arguments.listen))?;
    let stop = stop_signal();
    let server = tokio::spawn(http::serve(listener, health.clone(), stopped(stop.clone())));
    let client = Client::try_default()
        .await
        .map_err(|error| format!("no way to the API server: {error}; run in a cluster or set KUBECONFIG"))?;
    preflight::check(&client, arguments.namespace.as_deref()).await?;
    health.set_ready();
    let reporter = Reporter {
        controller: names::FIELD_MANAGER.to_owned(),
        instance: Some(arguments.identity.clone()),
    };
    let context = Arc::new(Context {
        admin: AdminClient::new()?,
        resolver: resolver::by_pod_address(),
        recorder: Recorder::new(client.clone(), reporter),
        metrics,
        caches: None,
        default_image: arguments.processor_image,
        memory: Memory::default(),
        checkpoints: Memory::default(),
        client: client.clone(),
    });
    let lost = match &arguments.lease_namespace {
        Some(namespace) => {
            let mut candidate = Candidate::new(client, namespace, arguments.identity.clone());
            lead(&mut candidate, context, arguments.namespace, stop).await
        }
        None => {
            context.metrics.leader.set(1);
            run::run(context, arguments.namespace, stopped(stop)).await;
            None
        }
    };
    server.abort();
    lost.map_or(Ok(()), |lost| Err(lost.into()))
}

/// Reconciles while the lease is held; gives it back at the end.
async fn lead(
    candidate: &mut Candidate,
    context: Arc<Context>,
    namespace: Option<String>,
    stop: watch::Receiver<bool>,
) -> Option<streamagg_operator::lease::Lost> {
    tracing::info!("waiting for the lease");
    tokio::select! {
        () = candidate.acquire() => {
            tracing::info!("leading");
            context.metrics.leader.set(1);
        }
        () = stopped(stop.clone()) => return None,
    }
    let lost = tokio::select! {
        // Leaving at once is the safe answer: every write is conditional, but two writers would quarrel.
        lost = candidate.keep() => Some(lost),
        () = run::run(context, namespace, stopped(stop)) => None,
    };
    if lost.is_none()
        && let Err(error) = candidate.release().await
    {
        tracing::warn!(%error, "lease not given back, it expires by itself");
    }
    lost
}

/// Turns true at SIGTERM or SIGINT.
fn stop_signal() -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            },
            Err(error) => {
                tracing::warn!(%error, "no SIGTERM handler");
                let _ = tokio::signal::ctrl_c().await;
            }
        }
        tracing::info!("stopping: reconciles under way are finished");
        sender.send_replace(true);
    });
    receiver
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        // The signal task cannot end without sending.
        std::future::pending::<()>().await;
    }
}
