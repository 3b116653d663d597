//! The conditions of a checkpoint, by kstatus' contract: `Reconciling` and `Stalled` are present only while True, and never
//! both. Must not hold what is done.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use streamagg_crds::v1alpha1::StreamCheckpointStatus;

use super::Facts;

/// Longest message.
const MESSAGE_LENGTH_MAX: usize = 2_000;

/// Where it stands, for people.
pub(super) enum Why {
    /// It is there.
    Complete(String),
    /// It will not be.
    Failed {
        /// Stable reason.
        reason: String,
        /// What to do next.
        message: String,
    },
    /// Not yet.
    Waiting {
        /// Stable reason.
        reason: &'static str,
        /// What is waited for.
        message: String,
    },
    /// The object goes.
    Deleting(String),
}

/// The reason a failed checkpoint was given; it stays.
pub(super) fn reason_of_failure(status: &StreamCheckpointStatus) -> String {
    let stalled = status.conditions.iter().find(|condition| condition.type_ == "Stalled");
    stalled.map_or_else(|| "CheckpointFailed".to_owned(), |condition| condition.reason.clone())
}

/// Writes conditions and message.
pub(super) fn write(status: &mut StreamCheckpointStatus, facts: &Facts, why: Why) {
    let (reason, message, further) = match why {
        Why::Complete(message) => ("Complete".to_owned(), message, None),
        Why::Failed { reason, message } => (reason, message, Some("Stalled")),
        Why::Waiting { reason, message } => (reason.to_owned(), message, Some("Reconciling")),
        Why::Deleting(message) => ("Deleting".to_owned(), message, None),
    };
    let message: String = message.chars().take(MESSAGE_LENGTH_MAX).collect();
    let ready = reason == "Complete";
    let old = &facts.status.conditions;
    // `lastTransitionTime` moves only when the status flips.
    let condition = |type_: &str, held: bool| {
        let status = if held { "True" } else { "False" };
        let before = old
            .iter()
            .find(|before| before.type_ == type_ && before.status == status);
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            observed_generation: Some(facts.generation),
            last_transition_time: before.map_or(Time(facts.now), |before| before.last_transition_time.clone()),
            reason: reason.clone(),
            message: message.clone(),
        }
    };
    status.conditions = [("Ready", ready)]
        .into_iter()
        .chain(further.map(|type_| (type_, true)))
        .map(|(type_, held)| condition(type_, held))
        .collect();
    status.observed_generation = facts.generation;
    status.message = Some(message);
}

/// Bytes for people: three digits and a unit.
pub(super) fn size(bytes: i64) -> String {
    const UNITS: [&str; 6] = ["", "Ki", "Mi", "Gi", "Ti", "Pi"];
    let (mut whole, mut unit) = (bytes.max(0), 0);
    while whole >= 1024 && unit + 1 < UNITS.len() {
        whole = (whole + 512) / 1024;
        unit += 1;
    }
    format!("{whole}{}", UNITS[unit])
}
