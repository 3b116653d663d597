//! Rules about windows and their triggers that compare fields. Must not hold rules about anything else.

use serde_json::Value;

use super::Rule;
use super::across::{rule, text};
use crate::v1alpha1::Panes;
use crate::value::{Duration, time_zone};

/// Panes that one event's windows may be cut into: size / gcd(size, slide), and steps of a cumulative window.
pub const PANES_MAX: u64 = 10_000;
/// Windows of one spec entry that may hold one event, where each of them keeps results of its own.
pub const OVERLAP_MAX: u64 = 1_000;

pub(super) fn rules() -> Vec<Rule> {
    let mut rules = offsets();
    rules.extend(kinds());
    rules.extend(bounds());
    rules
}

fn duration_ms(node: &Value, pointer: &str) -> Option<u64> {
    Some(text(node, pointer)?.parse::<Duration>().ok()?.ms())
}

/// CEL for a duration in ms: `duration()` of CEL knows no days.
fn cel_ms(expression: &str) -> String {
    format!(
        "int({expression}.find('^[0-9]+')) * ({expression}.endsWith('ms') ? 1 : {expression}.endsWith('s') ? 1000 : \
         {expression}.endsWith('m') ? 60000 : {expression}.endsWith('h') ? 3600000 : 86400000)"
    )
}

fn offsets() -> Vec<Rule> {
    fn below(window: &Value, limit: &str) -> bool {
        match (duration_ms(window, "/offset"), duration_ms(window, limit)) {
            // A length of 0 has an error of its own.
            (Some(offset), Some(limit)) => offset < limit || limit == 0,
            (_, _) => true,
        }
    }
    let cel = |limit: &str| {
        format!(
            "{} < {} || {limit}.matches('^0+[a-z]+$')",
            cel_ms("self.offset"),
            cel_ms(limit)
        )
    };
    vec![
        rule(
            "spec.windows[].tumbling",
            ".offset",
            "must be shorter than size",
            &cel("self.size"),
            |window| below(window, "/size"),
        ),
        rule(
            "spec.windows[].sliding",
            ".offset",
            "must be shorter than slide",
            &cel("self.slide"),
            |window| below(window, "/slide"),
        ),
        rule(
            "spec.windows[].cumulative",
            ".offset",
            "must be shorter than size",
            &cel("self.size"),
            |window| below(window, "/size"),
        ),
    ]
}

fn kinds() -> Vec<Rule> {
    let steps = format!(
        "self.step.matches('^0+[a-z]+$') || ({}) % ({}) == 0",
        cel_ms("self.size"),
        cel_ms("self.step")
    );
    let duration = format!(
        "!has(self.gap) || !has(self.maxDuration) || {} >= {}",
        cel_ms("self.maxDuration"),
        cel_ms("self.gap")
    );
    vec![
        rule(
            "spec.windows[].cumulative",
            ".size",
            "must be a multiple of step",
            &steps,
            |window| match (duration_ms(window, "/size"), duration_ms(window, "/step")) {
                (Some(size), Some(step)) => step == 0 || size % step == 0,
                (_, _) => true,
            },
        ),
        rule(
            "spec.windows[].session",
            ".maxDuration",
            "must not be shorter than gap",
            &duration,
            |window| match (duration_ms(window, "/gap"), duration_ms(window, "/maxDuration")) {
                (Some(gap), Some(most)) => most >= gap,
                (_, _) => true,
            },
        ),
        rule(
            "spec.windows[].session",
            ".maxDuration",
            "gapField needs maxDuration: no gap of an event may be longer",
            "!has(self.gapField) || has(self.maxDuration)",
            |session| session.get("gapField").is_none() || session.get("maxDuration").is_some(),
        ),
        rule(
            "spec.windows[]",
            ".count",
            "a count window is written when it is full: it has no allowedLateness, no trigger and no panes; leave them out",
            &format!("!has(self.count) || ({CEL_ALONE})"),
            |window| {
                window.get("count").is_none()
                    || (duration_ms(window, "/allowedLateness").unwrap_or(0) == 0
                        && default_trigger(window)
                        && accumulates(window))
            },
        ),
        rule(
            "spec.windows[]",
            ".allowedLateness",
            "a global window does not close by event time, so no event is late for it; leave it out",
            "!has(self.global) || self.allowedLateness.matches('^0+[a-z]+$')",
            |window| window.get("global").is_none() || duration_ms(window, "/allowedLateness").unwrap_or(0) == 0,
        ),
    ]
}

/// No lateness, and the default trigger and panes.
const CEL_ALONE: &str = "self.allowedLateness.matches('^0+[a-z]+$') && self.panes == 'Accumulating' && \
     self.trigger.onTime && !self.trigger.final && !has(self.trigger.early) && \
     has(self.trigger.late.everyEvents) && self.trigger.late.everyEvents == 1";

fn default_trigger(window: &Value) -> bool {
    window.pointer("/trigger/onTime") != Some(&Value::Bool(false))
        && window.pointer("/trigger/final") != Some(&Value::Bool(true))
        && window.pointer("/trigger/early").is_none()
        && window.pointer("/trigger/late/every").is_none()
        && window
            .pointer("/trigger/late/everyEvents")
            .is_none_or(|events| events.as_i64() == Some(1))
}

fn accumulates(window: &Value) -> bool {
    window
        .get("panes")
        .is_none_or(|panes| serde_json::from_value::<Panes>(panes.clone()).ok() == Some(Panes::Accumulating))
}

/// What CEL cannot say. An object that breaks one of these is accepted by the API server and gets `SpecValid=False`.
fn bounds() -> Vec<Rule> {
    vec![
        rule(
            "spec.windows[].sliding",
            "",
            "is cut into more than 10000 panes; choose size and slide with a larger common divisor",
            "",
            |window| match (duration_ms(window, "/size"), duration_ms(window, "/slide")) {
                (Some(size), Some(slide)) if size > 0 && slide > 0 => size / gcd(size, slide) <= PANES_MAX,
                (_, _) => true,
            },
        ),
        rule(
            "spec.windows[].cumulative",
            "",
            "is cut into more than 10000 steps; choose a longer step",
            "",
            |window| match (duration_ms(window, "/size"), duration_ms(window, "/step")) {
                (Some(size), Some(step)) if step > 0 => size / step <= PANES_MAX,
                (_, _) => true,
            },
        ),
        rule(
            "spec.windows[]",
            "",
            "one event is in more than 1000 of these windows, and with this trigger or these panes each of them keeps \
             values of its own; choose a longer slide or step",
            "",
            |window| {
                let length = |name| duration_ms(window, name).filter(|ms| *ms > 0);
                let overlap = match (length("/sliding/size"), length("/sliding/slide")) {
                    (Some(size), Some(slide)) => size / slide,
                    (_, _) => match (length("/cumulative/size"), length("/cumulative/step")) {
                        (Some(size), Some(step)) => size / step,
                        (_, _) => 1,
                    },
                };
                overlap <= OVERLAP_MAX || (default_trigger(window) && accumulates(window))
            },
        ),
        rule(
            "spec.windows[].calendar",
            ".timeZone",
            "is no name in the IANA time zone database; write one such as Europe/Berlin or UTC",
            "",
            |calendar| text(calendar, "/timeZone").is_none_or(|name| !is_name(name) || time_zone(name).is_some()),
        ),
    ]
}

/// What has not even the form of a name is the schema's to refuse.
fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_+/-".contains(&byte))
}

fn gcd(left: u64, right: u64) -> u64 {
    // Euclid: the right side at least halves every second round, so it ends after some 130 rounds at most.
    let (mut left, mut right) = (left, right);
    while right != 0 {
        (left, right) = (right, left % right);
    }
    left
}
