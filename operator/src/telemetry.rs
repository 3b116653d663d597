//! Log output, and spans over OTLP for those who ask for them. Must not hold: metrics, or any decision.

use std::io::IsTerminal;
use std::time::Duration;

use clap::ValueEnum;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::{Level, Span, field};
use tracing_subscriber::filter::{FilterExt, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::error::Error;

/// Target of every span that is exported; a library's spans are not.
pub const SPANS: &str = "streamagg_operator::spans";
/// Longest wait for the collector; what it does not take by then is lost.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// Where traces go below a collector's base address.
const TRACES_PATH: &str = "/v1/traces";
const SERVICE: &str = "streamagg-operator";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Where spans go.
#[derive(Clone, Debug)]
pub struct Spans {
    /// Base address of an OTLP collector that speaks HTTP, such as `http://collector:4318`.
    pub endpoint: String,
    /// Share of the reconciles that are exported, 0 to 1.
    pub sample: f64,
    /// Name of this replica.
    pub identity: String,
}

/// What sends spans until it is shut down.
#[derive(Debug, Default)]
pub struct Telemetry {
    spans: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Sends what is left, within the time limit of an export. It blocks: call it when nothing else is to be done.
    pub fn shutdown(self) {
        if let Some(spans) = self.spans
            && let Err(error) = spans.shutdown_with_timeout(EXPORT_TIMEOUT)
        {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

/// Installs the global subscriber once; `filter` follows `RUST_LOG`'s syntax.
///
/// # Errors
/// When the filter or the endpoint is not usable, naming the flag.
pub fn install(format: LogFormat, filter: &str, spans: Option<&Spans>) -> Result<Telemetry, String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("--log-filter {filter:?}: {error}"))?;
    let provider = spans.map(provider).transpose()?;
    // A span is no log line: with or without an exporter the log is the same.
    let events = filter.and(filter_fn(|metadata| metadata.is_event()));
    let lines = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_writer(std::io::stderr);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let export = provider.as_ref().map(|provider| {
        let layer = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(SERVICE))
            .with_location(false);
        layer.with_filter(Targets::new().with_target(SPANS, Level::INFO))
    });
    tracing_subscriber::registry()
        .with(lines.with_filter(events))
        .with(export)
        .init();
    Ok(Telemetry { spans: provider })
}

fn provider(spans: &Spans) -> Result<SdkTracerProvider, String> {
    let bad = |message: &str| format!("--otlp-endpoint {}: {message}", spans.endpoint);
    if !spans.endpoint.starts_with("http://") {
        return Err(bad(
            "say the base address of a collector in the cluster, such as http://collector:4318; TLS is not supported",
        ));
    }
    if !(0.0..=1.0).contains(&spans.sample) {
        return Err(format!("--otlp-sample {}: say a share between 0 and 1", spans.sample));
    }
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(format!("{}{TRACES_PATH}", spans.endpoint.trim_end_matches('/')))
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .map_err(|error| bad(&error.to_string()))?;
    let resource = Resource::builder()
        .with_service_name(SERVICE)
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", spans.identity.clone()))
        .build();
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(spans.sample)));
    let builder = SdkTracerProvider::builder().with_batch_exporter(exporter);
    Ok(builder.with_sampler(sampler).with_resource(resource).build())
}

/// The span of one reconcile; [`end`] adds what it came to.
pub fn reconcile_span(kind: &'static str, namespace: &str, name: &str) -> Span {
    tracing::info_span!(
        target: SPANS,
        "reconcile",
        streamagg.kind = kind,
        k8s.namespace.name = namespace,
        streamagg.name = name,
        streamagg.outcome = field::Empty,
        otel.status_code = field::Empty,
        otel.status_description = field::Empty,
    )
}

/// What a reconcile came to.
pub fn end(span: &Span, error: Option<&Error>) {
    span.record("streamagg.outcome", error.map_or("ok", Error::kind));
    if let Some(error) = error {
        span.record("otel.status_code", "ERROR");
        span.record("otel.status_description", error.to_string());
    }
}

/// The span of a step within it.
pub fn step(name: &'static str, detail: &str) -> Span {
    tracing::info_span!(target: SPANS, "step", otel.name = name, streamagg.detail = detail)
}
