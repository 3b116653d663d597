//! The lines of `--late` and `--dead`: `{"reason":…,"window":…,"watermark":…,"line":N,"record":…}`.
//! Must not know where they are written.

use serde::Serialize;
use serde_json::value::RawValue;
use streamagg_processor::pipeline::output::{DeadRecord, LateRecord, Record};
use streamagg_processor::pipeline::position::NO_WATERMARK;

const REASON_LATE: &str = "Late";

#[derive(Serialize)]
struct Line<'a> {
    reason: &'a str,
    /// Names of the windows a late event missed, with commas between; null for a dead record.
    window: Option<&'a str>,
    /// ms since the epoch; null before the first event.
    watermark: Option<i64>,
    #[serde(rename = "latenessMs", skip_serializing_if = "Option::is_none")]
    lateness_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    /// Where records are taken apart: which of this one's elements are late, from 0.
    #[serde(skip_serializing_if = "<[u32]>::is_empty")]
    elements: &'a [u32],
    line: i64,
    record: RecordText<'a>,
}

/// The record as it came when it is JSON, otherwise as text.
#[derive(Serialize)]
#[serde(untagged)]
enum RecordText<'a> {
    Json(&'a RawValue),
    Text(std::borrow::Cow<'a, str>),
}

impl<'a> RecordText<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        match serde_json::from_slice(bytes) {
            Ok(raw) => Self::Json(raw),
            Err(_) => Self::Text(String::from_utf8_lossy(bytes)),
        }
    }
}

/// Line of the input that a record was; lines count from 1.
pub(super) fn line_number(record: &Record<'_>) -> i64 {
    record.offset + 1
}

/// The line for a late event.
pub(super) fn late_line(late: &LateRecord, record: &Record<'_>) -> Vec<u8> {
    write(&Line {
        reason: REASON_LATE,
        window: Some(&late.windows),
        watermark: watermark(late.watermark_ms),
        lateness_ms: Some(late.lateness_ms),
        detail: None,
        elements: &late.elements,
        line: line_number(record),
        record: RecordText::new(record.value),
    })
}

/// The line for a record that is no usable event.
pub(super) fn dead_line(dead: &DeadRecord, record: &Record<'_>) -> Vec<u8> {
    write(&Line {
        reason: dead.reason.as_str(),
        window: None,
        watermark: watermark(dead.watermark_ms),
        lateness_ms: None,
        detail: Some(&dead.detail),
        elements: &[],
        line: line_number(record),
        record: RecordText::new(record.value),
    })
}

fn watermark(watermark_ms: i64) -> Option<i64> {
    (watermark_ms != NO_WATERMARK).then_some(watermark_ms)
}

fn write(line: &Line<'_>) -> Vec<u8> {
    // Text and numbers only: writing them to memory cannot fail.
    serde_json::to_vec(line).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use streamagg_processor::error::RejectReason;

    use super::*;

    fn dead(value: &[u8]) -> String {
        let dead = DeadRecord {
            record: 0,
            reason: RejectReason::JsonInvalid,
            detail: "byte 1".to_owned(),
            watermark_ms: NO_WATERMARK,
        };
        String::from_utf8(dead_line(&dead, &Record::new(6, value))).unwrap()
    }

    #[test]
    fn a_late_event_keeps_its_bytes() {
        let mut late = LateRecord {
            record: 0,
            elements: Vec::new(),
            windows: "a,b".to_owned(),
            watermark_ms: 70,
            lateness_ms: 60,
        };
        let value = br#"{"ts": 10, "cost":0.10}"#;
        let line = String::from_utf8(late_line(&late, &Record::new(0, value))).unwrap();
        let expected = r#"{"reason":"Late","window":"a,b","watermark":70,"latenessMs":60,"line":1,"record":{"ts": 10, "cost":0.10}}"#;
        assert_eq!(line, expected);
        late.elements = vec![0, 3];
        let line = String::from_utf8(late_line(&late, &Record::new(0, value))).unwrap();
        assert!(line.contains(r#""latenessMs":60,"elements":[0,3],"line":1"#), "{line}");
    }

    #[test]
    fn a_dead_record_is_text_when_it_is_no_json() {
        let head = r#"{"reason":"JsonInvalid","window":null,"watermark":null,"detail":"byte 1","line":7,"record":"#;
        assert_eq!(dead(b"{\"a\":"), format!("{head}\"{{\\\"a\\\":\"}}"));
        assert_eq!(dead(b"\xff"), format!("{head}\"\u{fffd}\"}}"));
        assert_eq!(dead(b"[1]"), format!("{head}[1]}}"));
        let deep = "[".repeat(100_000);
        assert_eq!(dead(deep.as_bytes()), format!("{head}\"{deep}\"}}"));
    }
}
