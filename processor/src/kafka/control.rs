//! The control topic: birth, position and decision records of each task, read whole and written in transactions.
//! Must not hold: what follows from them (`state::recovery`).

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::message::Message;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::consumer::{PartitionReader, ReadError};
use super::settings::Settings;
use crate::pipeline::position::Decision;
use crate::state::recovery::position::POSITION_VERSION;
use crate::state::recovery::{Birth, Position, Reason, Stop};

/// Without a record or an end for this long, a read is given up.
const READ_LIMIT: Duration = Duration::from_secs(30);

/// Key of a record in the control topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ControlKey {
    /// Start of a task.
    Birth {
        /// Task number.
        task: u32,
    },
    /// Committed position of a task.
    Position {
        /// Task number.
        task: u32,
    },
    /// A decision record.
    #[serde(rename_all = "camelCase")]
    Decision {
        /// Task number.
        task: u32,
        /// Lineage in which it was made.
        lineage: String,
        /// Its number within the task.
        control_seq: u64,
    },
}

/// What the control partition of one task holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControlCopy {
    /// Start of the task.
    pub birth: Option<Birth>,
    /// K.
    pub position: Option<Position>,
    /// Decision records by number within the task and the lineage in which they were made; tombstoned ones left out.
    pub decisions: BTreeMap<(u64, String), Decision>,
    /// A position is there and cannot be read.
    pub damage: Option<Stop>,
}

impl ControlCopy {
    /// Decisions that replay up to K obeys, in order: those of K's lineage chain, none beyond K, none at or below
    /// `after`.
    pub fn decisions_of(&self, committed: &Position, after: u64) -> Vec<Decision> {
        let behind = self.decisions.range((after.saturating_add(1), String::new())..);
        behind
            .filter(|((control_seq, lineage), _)| *control_seq <= committed.decisions_limit(lineage))
            .map(|(_, decision)| decision.clone())
            .collect()
    }

    /// Whether every decision between `after` and K is there: each has a number, so that one which is gone is missed.
    pub fn has_all_decisions(&self, committed: &Position, after: u64) -> bool {
        self.decisions_of(committed, after).len() as u64 == committed.control_seq.saturating_sub(after)
    }

    /// A rewind was committed, with these decisions.
    pub fn rewound(&mut self, position: Position, decisions: Vec<Decision>) {
        let first = (position.control_seq + 1).saturating_sub(decisions.len() as u64);
        let numbered = (first..).zip(decisions);
        self.decisions
            .extend(numbered.map(|(number, decision)| ((number, position.lineage.clone()), decision)));
        (self.position, self.damage) = (Some(position), None);
    }

    fn take(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Stop> {
        let key: ControlKey = serde_json::from_slice(key).map_err(|error| unreadable("key", &error))?;
        match key {
            ControlKey::Birth { .. } => self.birth = value.map(|bytes| document("birth", bytes)).transpose()?,
            ControlKey::Position { .. } => {
                self.position = value.map(|bytes| document("position", bytes)).transpose()?;
            }
            ControlKey::Decision {
                lineage, control_seq, ..
            } => {
                let key = (control_seq, lineage);
                match value {
                    Some(bytes) => {
                        let decision = serde_json::from_slice(bytes).map_err(|error| unreadable("decision", &error))?;
                        self.decisions.insert(key, decision);
                    }
                    None => drop(self.decisions.remove(&key)),
                }
            }
        }
        Ok(())
    }
}

fn unreadable(what: &str, error: &dyn std::fmt::Display) -> Stop {
    Stop::new(
        Reason::CommittedPositionBehindState,
        format!("control topic: a {what} cannot be read ({error}); something else writes there: restore the topic"),
    )
}

/// Parses a document after a look at its version: a newer one may have another shape.
fn document<T: for<'de> Deserialize<'de>>(what: &str, bytes: &[u8]) -> Result<T, Stop> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let found: Versioned = serde_json::from_slice(bytes).map_err(|error| unreadable(what, &error))?;
    if found.version != POSITION_VERSION {
        return Err(Stop::new(
            Reason::IncompatibleState,
            format!(
                "control topic: the {what} has version {}, this engine reads {POSITION_VERSION}; run the image that \
                 wrote it",
                found.version
            ),
        ));
    }
    serde_json::from_slice(bytes).map_err(|error| unreadable(what, &error))
}

/// Reads the control partition of `task` to its end, and takes nothing for a position that cannot be read.
pub fn read(settings: &Settings, topic: &str, task: u32) -> Result<ControlCopy, ReadError> {
    let copy = look(settings, topic, task, None)?;
    match copy.damage {
        Some(stop) => Err(stop.into()),
        None => Ok(copy),
    }
}

/// The same for whoever has an answer to a damaged position. With `mark`, the key of a record that was just written, what is
/// read is all that came before it.
pub fn look(settings: &Settings, topic: &str, task: u32, mark: Option<&[u8]>) -> Result<ControlCopy, ReadError> {
    let reader = PartitionReader::open(settings, (topic.to_owned(), task))?;
    let mut copy = ControlCopy::default();
    // The control topic is compacted: K is the last of many positions, so only the last is parsed.
    let mut last_position: Option<(Vec<u8>, Option<Vec<u8>>)> = None;
    let position_key = key_bytes(&ControlKey::Position { task });
    reader.read_to_end(READ_LIMIT, mark, &mut |message| {
        let key = message.key().unwrap_or_default();
        if key == position_key.as_slice() {
            last_position = Some((key.to_vec(), message.payload().map(<[u8]>::to_vec)));
            return Ok(());
        }
        copy.take(key, message.payload())
    })?;
    if let Some((key, value)) = last_position {
        match copy.take(&key, value.as_deref()) {
            Err(stop) if stop.reason == Reason::CommittedPositionBehindState => copy.damage = Some(stop),
            taken => taken?,
        }
    }
    Ok(copy)
}

/// Key of a mark: a tombstone of a decision that nobody makes, for they are numbered from 1. Every engine passes over it,
/// and compaction takes it away.
pub fn mark_key(task: u32) -> Vec<u8> {
    key_bytes(&ControlKey::Decision {
        task,
        lineage: Uuid::new_v4().to_string(),
        control_seq: 0,
    })
}

/// Bytes of a key.
pub fn key_bytes(key: &ControlKey) -> Vec<u8> {
    // Serialising these plain types cannot fail.
    serde_json::to_vec(key).unwrap_or_default()
}

/// Bytes of a document.
pub fn value_bytes<T: Serialize>(document: &T) -> Vec<u8> {
    // Serialising these plain types cannot fail: their maps have text keys.
    serde_json::to_vec(document).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values have their fixtures in `tests/fixtures/documents-1`.
    #[test]
    fn keys_are_written_and_read_as_they_always_were() {
        let lineage = "018f2c6e".to_owned();
        for (key, text) in [
            (ControlKey::Birth { task: 3 }, r#"{"birth":{"task":3}}"#),
            (ControlKey::Position { task: 3 }, r#"{"position":{"task":3}}"#),
            (
                ControlKey::Decision {
                    task: 3,
                    lineage,
                    control_seq: 5,
                },
                r#"{"decision":{"task":3,"lineage":"018f2c6e","controlSeq":5}}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&key).unwrap(), text);
            assert_eq!(serde_json::from_str::<ControlKey>(text).unwrap(), key);
        }
    }

    #[test]
    fn a_fork_obeys_what_its_parent_had_decided_when_it_began_and_nothing_of_what_came_then() {
        use crate::pipeline::position::DecisionKind;
        use crate::state::recovery::startup::tests::{owner, position};

        let decision = |now_ms| Decision {
            input_offset: 5,
            kind: DecisionKind::Tick { now_ms },
        };
        let (mut parent, base) = (position(9), position(4));
        parent.control_seq = 3;
        let forked = parent.forked(&owner(), "fork".to_owned(), base.place(), parent.engine_position);
        let mut committed = forked.clone();
        committed.control_seq = 5;
        let (trunk, fork) = (parent.lineage.as_str(), "fork");
        let stored = [
            (1, trunk),
            (2, trunk),
            (3, trunk),
            (4, trunk),
            (4, fork),
            (5, fork),
            (6, fork),
            (2, "other"),
        ];
        let decisions = stored.iter().zip(0..);
        let copy = ControlCopy {
            decisions: decisions
                .map(|((control_seq, lineage), now_ms)| ((*control_seq, (*lineage).to_owned()), decision(now_ms)))
                .collect(),
            ..ControlCopy::default()
        };
        let obeyed = |after| copy.decisions_of(&committed, after);
        assert_eq!(obeyed(0), [0, 1, 2, 4, 5].map(decision));
        assert_eq!(obeyed(2), [2, 4, 5].map(decision));
        assert_eq!(copy.decisions_of(&forked, 1), [1, 2].map(decision));
        for after in 0..=5 {
            assert!(copy.has_all_decisions(&committed, after), "{after}");
        }
        // What went with the control topic is missed, in the parent and in the fork; what lies below the base is not.
        for (gone, lineage) in [(2, trunk), (4, fork)] {
            let mut emptied = copy.clone();
            emptied.decisions.remove(&(gone, lineage.to_owned()));
            for after in 0..=5 {
                assert_eq!(
                    emptied.has_all_decisions(&committed, after),
                    after >= gone,
                    "{after} without {gone}"
                );
            }
        }
    }
}
