//! Windows, in the manifest's words. Must not assign events to them.

use std::time::Duration;

use serde_json::{Value, json};
use streamagg_crds::v1alpha1::{CalendarUnit, Panes};

use super::declared::duration;

/// How event time is cut, when results are written, and how a later one relates to the earlier.
#[derive(Clone, Debug)]
pub struct Window {
    kind: &'static str,
    pub(super) body: Value,
}

impl Window {
    fn new(kind: &'static str, sizes: Value) -> Self {
        Self {
            kind,
            body: json!({kind: sizes}),
        }
    }

    /// Windows of one size, side by side.
    pub fn tumbling(size: Duration) -> Self {
        Self::new("tumbling", json!({"size": duration(size)}))
    }

    /// Windows of one size that begin every `slide`.
    pub fn sliding(size: Duration, slide: Duration) -> Self {
        Self::new("sliding", json!({"size": duration(size), "slide": duration(slide)}))
    }

    /// Windows that grow by steps up to a size, then begin anew.
    pub fn cumulative(step: Duration, size: Duration) -> Self {
        Self::new("cumulative", json!({"step": duration(step), "size": duration(size)}))
    }

    /// Windows that end after a gap without events of their key.
    pub fn session(gap: Duration) -> Self {
        Self::new("session", json!({"gap": duration(gap)}))
    }

    /// Sessions whose gap is each event's own: a field, by JSON pointer, with a number of ms, at most `max_duration`.
    pub fn session_by(gap_field: &str, max_duration: Duration) -> Self {
        let sizes = json!({"gapField": gap_field, "maxDuration": duration(max_duration)});
        Self::new("session", sizes)
    }

    /// The last `size` events of a key, after every `slide` of them.
    pub fn count(size: u32, slide: u32) -> Self {
        Self::new("count", json!({"size": size, "slide": slide}))
    }

    /// Days, weeks or months in a time zone of the IANA database, such as `Europe/Berlin`.
    pub fn calendar(unit: CalendarUnit, time_zone: &str) -> Self {
        Self::new("calendar", json!({"unit": unit, "timeZone": time_zone}))
    }

    /// One window for all time; it fires by its triggers and at the end of the input.
    pub fn global() -> Self {
        Self::new("global", json!({}))
    }

    fn set(mut self, path: &[&str], value: Value) -> Self {
        let mut node = &mut self.body;
        for name in path {
            node = &mut node[*name];
        }
        *node = value;
        self
    }

    /// Shifts the starts of tumbling, sliding or cumulative windows from the epoch.
    pub fn offset(self, offset: Duration) -> Self {
        let kind = self.kind;
        self.set(&[kind, "offset"], duration(offset))
    }

    /// Nothing joins a session across a multiple of this since the epoch.
    pub fn max_duration(self, limit: Duration) -> Self {
        let kind = self.kind;
        self.set(&[kind, "maxDuration"], duration(limit))
    }

    /// How long after its end a window still takes events, in event time.
    pub fn allowed_lateness(self, lateness: Duration) -> Self {
        self.set(&["allowedLateness"], duration(lateness))
    }

    /// How a later result relates to the earlier ones.
    pub fn panes(self, panes: Panes) -> Self {
        self.set(&["panes"], json!(panes))
    }

    /// Writes no result when the watermark passes the end.
    pub fn not_on_time(self) -> Self {
        self.set(&["trigger", "onTime"], json!(false))
    }

    /// Writes a result before the end after every so many events of a key.
    pub fn early_every_events(self, events: u32) -> Self {
        self.set(&["trigger", "early"], json!({"everyEvents": events}))
    }

    /// Writes a result before the end after so much processing time; see [`super::Run::tick`].
    pub fn early_every(self, time: Duration) -> Self {
        self.set(&["trigger", "early"], json!({"every": duration(time)}))
    }

    /// Writes a result after the end after every so many events of a key (default: 1).
    pub fn late_every_events(self, events: u32) -> Self {
        self.set(&["trigger", "late"], json!({"everyEvents": events}))
    }

    /// Writes a result after the end after so much processing time; see [`super::Run::tick`].
    pub fn late_every(self, time: Duration) -> Self {
        self.set(&["trigger", "late"], json!({"every": duration(time)}))
    }

    /// Writes a last result, of timing `Final`, when the window closes.
    pub fn closing(self) -> Self {
        self.set(&["trigger", "final"], json!(true))
    }
}
