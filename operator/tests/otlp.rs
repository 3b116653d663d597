//! Spans of reconciles arrive at a real OTLP receiver: HTTP on loopback, decoded by OpenTelemetry's own definitions.
//! In a process of its own, since the subscriber is global.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, like the tests themselves"
)]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Request, Response, StatusCode};
use axum::routing::post;
use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use streamagg_crds::v1alpha1::StreamAggregation;
use streamagg_operator::admin_client::AdminClient;
use streamagg_operator::controller::memory::Memory;
use streamagg_operator::controller::{Context, reconcile};
use streamagg_operator::metrics::Metrics;
use streamagg_operator::telemetry::{LogFormat, Spans, install};
use streamagg_operator::{checkpoint, resolver};

type Received = Arc<Mutex<Vec<ExportTraceServiceRequest>>>;

async fn receive(State(received): State<Received>, body: Bytes) -> StatusCode {
    received
        .lock()
        .unwrap()
        .push(ExportTraceServiceRequest::decode(body).unwrap());
    StatusCode::OK
}

/// An API server that has `gone` never heard of, and refuses everything else.
async fn api_server(request: Request<kube::client::Body>) -> Result<Response<Body>, Infallible> {
    let (code, reason) = if request.uri().path().ends_with("/gone") {
        (404, "NotFound")
    } else {
        (500, "InternalError")
    };
    let status = serde_json::json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "as the test wants it",
    });
    let response = Response::builder()
        .status(code)
        .header("content-type", "application/json");
    Ok(response.body(Body::from(status.to_string())).unwrap())
}

fn context() -> Arc<Context> {
    let client = Client::new(tower::service_fn(api_server), "default");
    let reporter = Reporter {
        controller: "test".to_owned(),
        instance: None,
    };
    Arc::new(Context {
        admin: AdminClient::new().unwrap(),
        resolver: resolver::by_pod_address(),
        recorder: Recorder::new(client.clone(), reporter),
        metrics: Metrics::new().unwrap(),
        caches: None,
        default_image: None,
        memory: Memory::default(),
        checkpoints: Memory::default(),
        client,
    })
}

fn object(name: &str) -> Arc<StreamAggregation> {
    let text = include_str!("../../config/samples/quickstart.yaml");
    let manifest = streamagg_crds::parse_manifest(text).unwrap();
    let mut object = StreamAggregation::new(name, manifest.spec);
    object.metadata.namespace = Some("team-a".to_owned());
    Arc::new(object)
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        other => Some(format!("{other:?}")),
    }
}

/// An OTLP receiver on loopback, and what it gets.
fn collector(runtime: &tokio::runtime::Runtime) -> (std::net::SocketAddr, Received) {
    let received = Received::default();
    let router = Router::new()
        .route("/v1/traces", post(receive))
        .with_state(Arc::clone(&received));
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, received)
}

/// Kind, namespace, name and outcome of a reconcile, and the code of its status.
fn told(span: &Span) -> ([String; 4], i32) {
    let keys = [
        "streamagg.kind",
        "k8s.namespace.name",
        "streamagg.name",
        "streamagg.outcome",
    ];
    let words = keys.map(|key| text(&span.attributes, key).unwrap_or_default());
    (words, span.status.as_ref().map_or(0, |status| status.code))
}

#[test]
fn reconciles_arrive_as_spans_with_aggregation_and_outcome() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (address, received) = collector(&runtime);
    for (endpoint, sample, named) in [
        ("https://collector", 1.0, "TLS"),
        ("collector:4318", 1.0, "http://"),
        ("http://a", 1.5, "--otlp-sample"),
    ] {
        let spans = Spans {
            endpoint: endpoint.to_owned(),
            sample,
            identity: String::new(),
        };
        let refused = install(LogFormat::Text, "warn", Some(&spans)).unwrap_err();
        assert!(refused.contains(named), "{refused}");
    }
    let spans = Spans {
        endpoint: format!("http://{address}/"),
        sample: 1.0,
        identity: "replica-1".to_owned(),
    };
    let telemetry = install(LogFormat::Json, "off", Some(&spans)).unwrap();
    runtime.block_on(async {
        let context = context();
        reconcile(object("gone"), Arc::clone(&context)).await.unwrap();
        reconcile(object("refused"), Arc::clone(&context)).await.unwrap_err();
        checkpoint::reconcile(object("gone"), context).await.unwrap();
    });
    telemetry.shutdown();

    let received = received.lock().unwrap();
    let resources: Vec<_> = received.iter().flat_map(|request| &request.resource_spans).collect();
    let resource = &resources[0].resource.as_ref().unwrap().attributes;
    assert_eq!(text(resource, "service.name").as_deref(), Some("streamagg-operator"));
    assert_eq!(text(resource, "service.instance.id").as_deref(), Some("replica-1"));
    let spans: Vec<&Span> = resources
        .iter()
        .flat_map(|resource| &resource.scope_spans)
        .flat_map(|scope| &scope.spans)
        .collect();
    let reconciles: Vec<_> = spans.iter().filter(|span| span.name == "reconcile").collect();
    let seen: Vec<_> = reconciles.iter().map(|span| told(span)).collect();
    let expected = [
        ("StreamAggregation", "gone", "ok", 0),
        ("StreamAggregation", "refused", "api", 2),
        ("StreamCheckpoint", "gone", "ok", 0),
    ];
    let expected = expected.map(|(kind, name, outcome, code)| {
        let words = [kind, "team-a", name, outcome].map(ToOwned::to_owned);
        (words, code)
    });
    assert_eq!(seen, expected);
    let steps: Vec<_> = spans.iter().filter(|span| span.name == "observe").collect();
    assert!(!steps.is_empty());
    for step in steps {
        assert!(
            reconciles
                .iter()
                .any(|reconcile| reconcile.span_id == step.parent_span_id),
            "a step without its reconcile"
        );
    }
}
