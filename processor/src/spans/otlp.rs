//! Spans as OTLP's JSON (opentelemetry-proto 1.x, `ExportTraceServiceRequest`). Pure. Must not hold: sending them, or what
//! they are about.

use serde_json::{Value, json};

use crate::core::trace_context::TraceContext;

/// What is said of a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// A text.
    Text(String),
    /// A whole number.
    Whole(i64),
}

/// A span that has ended. Times are ns since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Id of its trace.
    pub trace_id: u128,
    /// Its id.
    pub span_id: u64,
    /// The span around it.
    pub parent_id: Option<u64>,
    /// Its name.
    pub name: &'static str,
    /// When it began.
    pub start_ns: u64,
    /// When it ended.
    pub end_ns: u64,
    /// What is said of it.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// Spans of other traces that led to it.
    pub links: Vec<TraceContext>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// `STATUS_CODE_ERROR`.
const ERROR: u32 = 2;
/// `SPAN_KIND_INTERNAL`.
const INTERNAL: u32 = 1;

/// The request that hands spans over, all of one resource.
pub fn request(resource: &[(&'static str, Attribute)], scope: &str, spans: &[Span]) -> Value {
    let spans: Vec<Value> = spans.iter().map(span).collect();
    json!({"resourceSpans": [{
        "resource": {"attributes": attributes(resource)},
        "scopeSpans": [{"scope": {"name": scope}, "spans": spans}],
    }]})
}

fn span(span: &Span) -> Value {
    let links: Vec<Value> = span
        .links
        .iter()
        .map(|link| json!({"traceId": trace_id(link.trace_id), "spanId": span_id(link.span_id)}))
        .collect();
    let mut object = json!({
        "traceId": trace_id(span.trace_id),
        "spanId": span_id(span.span_id),
        "name": span.name,
        "kind": INTERNAL,
        "startTimeUnixNano": span.start_ns.to_string(),
        "endTimeUnixNano": span.end_ns.to_string(),
        "attributes": attributes(&span.attributes),
        "links": links,
    });
    if let Some(parent_id) = span.parent_id {
        object["parentSpanId"] = span_id(parent_id).into();
    }
    if let Some(error) = &span.error {
        object["status"] = json!({"code": ERROR, "message": error});
    }
    object
}

/// Ids are hexadecimal in OTLP's JSON, 64-bit numbers are texts.
fn trace_id(id: u128) -> String {
    format!("{id:032x}")
}

fn span_id(id: u64) -> String {
    format!("{id:016x}")
}

fn attributes(attributes: &[(&'static str, Attribute)]) -> Vec<Value> {
    let attribute = |(key, value): &(&str, Attribute)| match value {
        Attribute::Text(text) => json!({"key": key, "value": {"stringValue": text}}),
        Attribute::Whole(number) => json!({"key": key, "value": {"intValue": number.to_string()}}),
    };
    attributes.iter().map(attribute).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beside the example of the specification: ids in hexadecimal, numbers of 64 bits as texts, kinds as numbers.
    #[test]
    fn spans_are_written_as_the_protocol_wants_them() {
        let span = Span {
            trace_id: 0x5b8e_fff7_9803_8103_d269_b633_813f_c60c,
            span_id: 0x0ee1_9b7e_c3c1_b174,
            parent_id: Some(0x0ee1_9b7e_c3c1_b173),
            name: "epoch",
            start_ns: 1_544_712_660_000_000_000,
            end_ns: 1_544_712_661_000_000_000,
            attributes: vec![("streamagg.task", Attribute::Whole(7))],
            links: vec![TraceContext {
                trace_id: 1,
                span_id: 2,
                sampled: true,
            }],
            error: Some("aborted".to_owned()),
        };
        let resource = [("service.name", Attribute::Text("my.service".to_owned()))];
        assert_eq!(
            request(&resource, "my.library", &[span]),
            json!({"resourceSpans": [{
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "my.service"}}]},
                "scopeSpans": [{
                    "scope": {"name": "my.library"},
                    "spans": [{
                        "traceId": "5b8efff798038103d269b633813fc60c",
                        "spanId": "0ee19b7ec3c1b174",
                        "parentSpanId": "0ee19b7ec3c1b173",
                        "name": "epoch",
                        "kind": 1,
                        "startTimeUnixNano": "1544712660000000000",
                        "endTimeUnixNano": "1544712661000000000",
                        "attributes": [{"key": "streamagg.task", "value": {"intValue": "7"}}],
                        "links": [{"traceId": "00000000000000000000000000000001", "spanId": "0000000000000002"}],
                        "status": {"code": 2, "message": "aborted"},
                    }],
                }],
            }]})
        );
    }
}
