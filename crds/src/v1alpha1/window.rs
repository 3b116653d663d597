//! Group keys and windows. Must not hold aggregates.

#[cfg(feature = "k8s")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(feature = "k8s")]
use super::schema;
use super::{Empty, NotYet};
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
    /// A header of the record by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::text"))]
    pub header: Option<NotYet>,
    /// A property of the record, such as its topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::text"))]
    pub metadata: Option<NotYet>,
    /// What happens when the field is missing or null. Default: `{reject: {}}`.
    #[serde(default)]
    pub when_missing: WhenMissing,
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
    /// Windows that end after a gap without events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::object"))]
    pub session: Option<NotYet>,
    /// Windows that grow by steps up to a size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::object"))]
    pub cumulative: Option<NotYet>,
    /// Windows of a number of events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::object"))]
    pub count: Option<NotYet>,
    /// Days, weeks or months in a time zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::object"))]
    pub calendar: Option<NotYet>,
    /// One window for all time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::object"))]
    pub global: Option<NotYet>,
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

/// When results of a window are written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TriggerSpec {
    /// When the watermark passes the end of the window. In this version always true.
    #[serde(default = "yes")]
    pub on_time: bool,
    /// Before the end of the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::object"))]
    pub early: Option<NotYet>,
    /// After the end of the window, while `allowedLateness` lasts.
    #[serde(default)]
    pub late: LateTrigger,
    /// A last result when the window is purged. In this version always false.
    #[serde(rename = "final", default, skip_serializing_if = "Option::is_none")]
    pub final_: Option<bool>,
}

impl Default for TriggerSpec {
    fn default() -> Self {
        Self {
            on_time: true,
            early: None,
            late: LateTrigger::default(),
            final_: None,
        }
    }
}

/// When results are written for events that come after the end of their window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "k8s", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct LateTrigger {
    /// After so many events. In this version always 1.
    #[serde(default = "one_event")]
    pub every_events: i64,
    /// After so much processing time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "k8s", schemars(schema_with = "schema::text"))]
    pub every: Option<NotYet>,
}

impl Default for LateTrigger {
    fn default() -> Self {
        Self {
            every_events: 1,
            every: None,
        }
    }
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
    /// It takes them back first.
    Retracting,
}

fn yes() -> bool {
    true
}

fn one_event() -> i64 {
    1
}
