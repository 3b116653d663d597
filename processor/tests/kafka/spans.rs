//! Spans of epochs at an OTLP receiver on loopback. Must not judge results, except that none is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Json, State};
use axum::routing::post;
use rdkafka::message::{Headers, Message};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::rig::{Job, eventually};
use super::stages;

type Received = Arc<Mutex<Vec<Value>>>;

/// The address of a receiver, and what it gets.
fn collector(runtime: &Runtime) -> (String, Received) {
    let received = Received::default();
    let take = |State(received): State<Received>, Json(request): Json<Value>| async move {
        received.lock().unwrap_or_else(PoisonError::into_inner).push(request);
    };
    let router = axum::Router::new()
        .route("/v1/traces", post(take))
        .with_state(Arc::clone(&received));
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = listener.local_addr().expect("an address");
    runtime.spawn(async move { axum::serve(listener, router).await });
    (format!("http://{address}"), received)
}

fn elements<'a>(value: &'a Value, member: &str) -> impl Iterator<Item = &'a Value> {
    value[member].as_array().into_iter().flatten()
}

fn spans(received: &Received) -> Vec<Value> {
    let received = received.lock().unwrap_or_else(PoisonError::into_inner);
    let resources = received.iter().flat_map(|request| elements(request, "resourceSpans"));
    let scopes = resources.flat_map(|resource| elements(resource, "scopeSpans"));
    scopes.flat_map(|scope| elements(scope, "spans")).cloned().collect()
}

fn whole(value: &Value) -> u64 {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is no text"));
    text.parse().expect("a number")
}

/// The traces of results, by the start of their window.
pub(super) fn traces(job: &Job) -> BTreeMap<i64, BTreeSet<Option<String>>> {
    let mut traces = BTreeMap::<i64, BTreeSet<Option<String>>>::new();
    job.read(&format!("{}-out", job.name), &mut |message| {
        let value: Value = serde_json::from_slice(message.payload().expect("a value")).expect("JSON");
        let mut headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        let trace = headers.find(|header| header.key == "traceparent");
        let trace = trace.map(|header| String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned());
        let start = value["start"].as_i64().expect("a number");
        traces.entry(start).or_default().insert(trace);
    });
    traces
}

/// An attribute that is a number.
fn number(span: &Value, key: &str) -> u64 {
    let found = elements(span, "attributes").find(|attribute| attribute["key"] == key);
    whole(&found.unwrap_or_else(|| panic!("{key} is not in {span}"))["value"]["intValue"])
}

#[test]
fn epochs_arrive_as_spans_linked_to_the_traces_that_fired_results() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let runtime = Runtime::new().expect("threads");
    let (endpoint, received) = collector(&runtime);
    let job = Job::new("spans", 1);
    job.produce(1_000);
    let setting = format!("OTEL_EXPORTER_OTLP_ENDPOINT={endpoint}");
    let processor = job.start_within("data", &["env", &setting]);
    job.assert_exact();
    // Ends the window from 5,004,000, which was open.
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    job.produce_with(r#"{"ts":5005500,"k":"k0","v":1}"#, ("traceparent", &parent));
    eventually("a span with a link", || {
        let spans = spans(&received);
        let linked = |span: &Value| elements(span, "links").any(|link| link["traceId"] == TRACE);
        if spans.iter().any(linked) {
            Ok(())
        } else {
            Err(format!("{spans:?}"))
        }
    });
    // What waits is sent before the end.
    processor.terminate();

    let spans = spans(&received);
    let epochs: Vec<&Value> = spans.iter().filter(|span| span["name"] == "epoch").collect();
    let read: u64 = epochs.iter().map(|epoch| number(epoch, "streamagg.records")).sum();
    assert_eq!(read, 1_001, "every epoch is there");
    let numbers: BTreeSet<u64> = epochs.iter().map(|epoch| number(epoch, "streamagg.epoch")).collect();
    assert_eq!(numbers.len(), epochs.len(), "each once");
    for epoch in epochs {
        let inside: Vec<&Value> = spans
            .iter()
            .filter(|span| span["parentSpanId"] == epoch["spanId"])
            .collect();
        let names: Vec<&Value> = inside.iter().map(|span| &span["name"]).collect();
        assert_eq!(names, ["transaction", "save"], "{epoch}");
        for span in inside {
            assert_eq!(span["traceId"], epoch["traceId"]);
            let [start, end] = ["startTimeUnixNano", "endTimeUnixNano"].map(|time| whole(&span[time]));
            assert!(
                start <= end && start >= whole(&epoch["startTimeUnixNano"]),
                "{span} {epoch}"
            );
            assert!(end <= whole(&epoch["endTimeUnixNano"]), "{span} {epoch}");
        }
    }
}

#[test]
fn with_two_stages_a_result_belongs_to_the_trace_of_the_event_that_moved_the_slowest_partition_on() {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let job = stages::job("spanstages");
    job.produce(1_000);
    // The second source partition waits for the first.
    job.produce_apart(5_000_000, 5, 1..2, 1_000);
    let processor = job.start("data");
    job.assert_exact();
    job.produce_with(r#"{"ts":5005500,"k":"k0","v":1}"#, ("traceparent", PARENT));
    let found = eventually("results of the window that this ends", || {
        let mut traces = traces(&job);
        traces.remove(&5_004_000).ok_or_else(|| format!("{traces:?}"))
    });
    assert_eq!(found, BTreeSet::from([Some(PARENT.to_owned())]));
    processor.terminate();
}
