//! Group keys and windows. Must not hold aggregates.

#[cfg(feature = "k8s")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Empty;
#[cfg(feature = "k8s")]
use super::schema;
use crate::value::{Duration, JsonPointer};

/// One part of the group key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct GroupKey {
    /// Its name in the result's `key`.
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::identifier"))]
    pub name: String,
    /// Field of the event: a string, a number or a boolean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<JsonPointer>,
    /// A value of `let`, by name: a text, a number or a boolean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::identifier"))]
    pub value: Option<String>,
    /// A header of the record, by name; of several the last. Its value is a text. Lines on a laptop have no headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::header"))]
    pub header: Option<String>,
    /// A property of the record. Lines on a laptop have a partition only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<RecordProperty>,
    /// What happens when the part is missing or null. Default: `{reject: {}}`.
    #[serde(default)]
    pub when_missing: WhenMissing,
}

/// A property of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
pub enum RecordProperty {
    /// The topic that it is in.
    Topic,
    /// The partition that it is in, a number.
    Partition,
    /// Its key, a text.
    Key,
    /// Its timestamp, ms since the Unix epoch.
    Timestamp,
}

/// What happens when a part of the key is missing or null; exactly one member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct WhenMissing {
    /// The event is a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reject: Option<Empty>,
    /// The part is null (write the member's name in quotes: `{"null": {}}`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub null: Option<Empty>,
    /// The part is this text or integer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<KeyDefault>,
}

impl Default for WhenMissing {
    fn default() -> Self {
        Self {
            reject: Some(Empty {}),
            null: None,
            default: None,
        }
    }
}

/// The value that stands for a missing part of the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum KeyDefault {
    /// An integer.
    Integer(i64),
    /// A text.
    Text(String),
}

/// One way to cut event time; exactly one kind of window a member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct WindowSpec {
    /// Its name in results.
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::window_name"))]
    pub name: String,
    /// Windows of one size, side by side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tumbling: Option<Tumbling>,
    /// Windows of one size that begin every `slide`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sliding: Option<Sliding>,
    /// Windows that end after a gap without events of their key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
    /// Windows that grow by steps up to a size, then begin anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cumulative: Option<Cumulative>,
    /// Windows of a number of events of their key, in the order in which they are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<CountWindow>,
    /// Days, weeks or months in a time zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calendar: Option<Calendar>,
    /// One window for all time; it fires by its triggers and at the end of input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global: Option<Empty>,
    /// How long after its end a window still takes events (in event time).
    #[serde(default)]
    pub allowed_lateness: Duration,
    /// When results are written.
    #[serde(default)]
    pub trigger: TriggerSpec,
    /// How a later result of a window relates to the earlier ones.
    #[serde(default)]
    pub panes: Panes,
}

/// Windows of one size, side by side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Tumbling {
    /// Length of a window.
    pub size: Duration,
    /// Shift of the windows' starts from the Unix epoch; shorter than `size`.
    #[serde(default)]
    pub offset: Duration,
}

/// Windows of one size that begin every `slide`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Sliding {
    /// Length of a window.
    pub size: Duration,
    /// Distance from the start of a window to the start of the next. Above `size`, events between windows count in none.
    pub slide: Duration,
    /// Shift of the windows' starts from the Unix epoch; shorter than `slide`.
    #[serde(default)]
    pub offset: Duration,
}

/// Windows that end after a gap without events of their key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Events at most this far apart are one session; a session ends so long after its last event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Duration>,
    /// Field that holds the gap of each event: a number of milliseconds above 0, at most `maxDuration`. An event without
    /// such a gap is a dead letter. A session ends where the gap of none of its events reaches further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap_field: Option<JsonPointer>,
    /// Nothing joins across a multiple of this since the Unix epoch; not shorter than `gap`. With `gapField` it is
    /// required: sessions are kept so much longer than their end, for an event of the longest gap. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<Duration>,
}

/// Windows that grow by steps up to a size, then begin anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Cumulative {
    /// How much longer each window is than the one before.
    pub step: Duration,
    /// Length of the longest window; a multiple of `step`.
    pub size: Duration,
    /// Shift of the windows' starts from the Unix epoch; shorter than `size`.
    #[serde(default)]
    pub offset: Duration,
}

/// Windows of a number of events of their key. Each is written once, when it is full; what came since is written at the
/// end of the input. No event is late for one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct CountWindow {
    /// Events of a window at most. Each of them is a row in the state of its key.
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::window_events"))]
    pub size: i64,
    /// A window is written after every so many events of a key. Default: `size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::events"))]
    pub slide: Option<i64>,
}

/// Days, weeks or months in a time zone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Calendar {
    /// What a window is.
    pub unit: CalendarUnit,
    /// Name in the IANA time zone database, such as `Europe/Berlin`. A day may have 23 or 25 hours in it.
    #[serde(default = "utc")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::time_zone"))]
    pub time_zone: String,
}

/// What a window of the calendar is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
pub enum CalendarUnit {
    /// From midnight to midnight.
    Day,
    /// From Monday to Sunday (ISO 8601).
    Week,
    /// From the first to the last day.
    Month,
}

/// When results of a window are written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TriggerSpec {
    /// When the watermark passes the end of the window.
    #[serde(default = "yes")]
    pub on_time: bool,
    /// Before the end of the window. Default: not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early: Option<RepeatSpec>,
    /// After the end of the window, while it takes events. What is left is written when the window closes.
    #[serde(default = "every_event")]
    pub late: RepeatSpec,
    /// A last result, of timing `Final`, when the window closes, where the one on time was not final.
    #[serde(rename = "final", default)]
    pub final_: bool,
}

impl Default for TriggerSpec {
    fn default() -> Self {
        Self {
            on_time: true,
            early: None,
            late: every_event(),
            final_: false,
        }
    }
}

/// When a window that has changed is written again; exactly one member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct RepeatSpec {
    /// After so many events of a key since its last result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::events"))]
    pub every_events: Option<i64>,
    /// After so much processing time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Duration>,
}

/// How a later result of a window relates to the earlier ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
pub enum Panes {
    /// It replaces them: values are of all events so far.
    #[default]
    Accumulating,
    /// It adds to them: values are of the events since.
    Discarding,
    /// It takes the one before back first, by a record with `op: Retract`; then it is of all events so far.
    Retracting,
}

fn yes() -> bool {
    true
}

fn utc() -> String {
    "UTC".to_owned()
}

fn every_event() -> RepeatSpec {
    RepeatSpec {
        every_events: Some(1),
        every: None,
    }
}
