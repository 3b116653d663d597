//! The committed position K as a document, and the only ways in which one K follows another.
//! Must not hold: when a position is committed.

use serde::{Deserialize, Serialize};

use crate::pipeline::operator::combine::Carried;
use crate::pipeline::position::TaskPosition;

/// Version of the position document that this engine writes and reads.
pub const POSITION_VERSION: u32 = 1;

/// Where on a lineage a position stands. Ordered: cuts into epochs differ between owners, these counts do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// Records consumed since birth.
    pub input_count: u64,
    /// Decision records made since birth.
    pub control_seq: u64,
    /// Next input offset.
    pub input_offset: i64,
}

/// A lineage that this one descends from, and where it left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ancestor {
    /// Id of the ancestor.
    pub lineage: String,
    /// Positions of the ancestor at or below this place belong to the descendant's past.
    pub fork: Place,
    /// The ancestor's decisions up to this one were obeyed when the descendant began; up to the fork's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decisions: Option<u64>,
}

/// The last record consumed, so that a re-created topic is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastInput {
    /// Its offset.
    pub offset: i64,
    /// Digest of its timestamp, key and value.
    pub digest: u64,
}

/// What a task starts with for the first time; one transaction with its first [`Position`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Birth {
    /// [`POSITION_VERSION`].
    pub version: u32,
    /// `metadata.uid` of the StreamAggregation.
    pub uid: String,
    /// Job the control topic belongs to.
    pub job_id: String,
    /// Task number.
    pub task: u32,
    /// `startFrom`, resolved once.
    pub start_offset: i64,
    /// Partitions of the source topic at that time.
    pub partitions: u32,
}

/// Who asks: constant for the life of a process, but for the generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// `metadata.uid` of the StreamAggregation, or `local`.
    pub uid: String,
    /// Job id.
    pub job_id: String,
    /// Task number.
    pub task: u32,
    /// Revision of the job file.
    pub revision: String,
    /// Engine version.
    pub engine: String,
    /// Generation of the assignment that names this pod.
    pub generation: u64,
}

/// The committed position of a task, as a checkpoint or local state also carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Position {
    /// [`POSITION_VERSION`].
    pub version: u32,
    /// Incarnation of the job.
    pub uid: String,
    /// Job id.
    pub job_id: String,
    /// Task number.
    pub task: u32,
    /// Unique id of this line of history; never a counter.
    pub lineage: String,
    /// Lineages it descends from, nearest first; `[0]` is the parent and its fork position.
    pub ancestors: Vec<Ancestor>,
    /// Highest nonce of a user's restore that was carried out.
    pub restore_nonce: u64,
    /// Revision of the job that wrote it.
    pub revision: String,
    /// Engine that wrote it.
    pub engine: String,
    /// Input count from which on `revision` and `engine` alone have written.
    pub revision_since: u64,
    /// Number of the decision from which on they alone have: a quiet partition is moved by decisions only. 0 in documents of
    /// engines that did not note it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub decisions_since: u64,
    /// Generation in which its owner was named.
    pub generation: u64,
    /// Commits of this task since birth, claims included. For people and file names: never compared alone.
    pub epoch: u64,
    /// Where the engine stands.
    pub engine_position: TaskPosition,
    /// Decision records made since birth.
    pub control_seq: u64,
    /// Decision records up to this one may be gone from the control topic.
    pub decision_floor: u64,
    /// The last record consumed; absent before the first.
    pub last_input: Option<LastInput>,
    /// The input below this offset was seen: between the last record consumed and here are only markers of transactions
    /// and aborted records. Absent in documents of engines that did not note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_offset: Option<i64>,
    /// Uids of earlier objects whose history this one goes on with, by a user's restore.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adopted: Vec<String>,
    /// Of a combine task, which has no other state: what it carries from epoch to epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub combine: Option<Carried>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Ancestor {
    /// The last of the ancestor's decisions that the descendant obeys.
    pub fn decisions_limit(&self) -> u64 {
        self.decisions.unwrap_or(self.fork.control_seq)
    }
}

impl Position {
    /// The first position of a task.
    pub fn born(birth: &Birth, owner: &Owner, lineage: String) -> Self {
        Self {
            version: POSITION_VERSION,
            uid: birth.uid.clone(),
            job_id: birth.job_id.clone(),
            task: birth.task,
            lineage,
            ancestors: Vec::new(),
            restore_nonce: 0,
            revision: owner.revision.clone(),
            engine: owner.engine.clone(),
            revision_since: 0,
            decisions_since: 0,
            generation: owner.generation,
            epoch: 0,
            engine_position: TaskPosition::start(birth.start_offset),
            control_seq: 0,
            decision_floor: 0,
            last_input: None,
            seen_offset: None,
            adopted: Vec::new(),
            combine: None,
        }
    }

    /// Where it stands on its lineage.
    pub fn place(&self) -> Place {
        Place {
            input_count: self.engine_position.input_count,
            control_seq: self.control_seq,
            input_offset: self.engine_position.input_offset,
        }
    }

    /// Whether whoever holds `other` has lost commits: this is later in the same history, or behind a rewind or a rebuild
    /// that `other` does not know.
    pub fn is_ahead_of(&self, other: &Self) -> bool {
        let further = self.lineage == other.lineage && self.place() > other.place();
        let mut left = self.ancestors.iter().map(|ancestor| &ancestor.lineage);
        further || self.restore_nonce > other.restore_nonce || left.any(|lineage| *lineage == other.lineage)
    }

    /// First offset that may hold a record not consumed: what is deleted below it was never unread.
    pub fn unread_from(&self) -> i64 {
        self.seen_offset.map_or(self.engine_position.input_offset, |seen| {
            seen.max(self.engine_position.input_offset)
        })
    }

    /// The same position, with the input seen up to `offset`.
    pub fn having_seen(self, offset: Option<i64>) -> Self {
        Self {
            seen_offset: self.seen_offset.max(offset),
            ..self
        }
    }

    /// The same position; decisions up to `floor` may be gone from the control topic from here on.
    pub fn with_decision_floor(self, floor: u64) -> Self {
        Self {
            decision_floor: self.decision_floor.max(floor.min(self.control_seq)),
            ..self
        }
    }

    /// The same position with what a combine task carries; absent for tasks of other stages.
    pub fn carrying(self, combine: Option<Carried>) -> Self {
        Self { combine, ..self }
    }

    /// The same position under a new owner's generation: an owner's first commit.
    pub fn claimed(&self, generation: u64) -> Self {
        Self {
            generation,
            epoch: self.epoch + 1,
            ..self.clone()
        }
    }

    /// The position after an epoch of `owner` that began here.
    pub fn advanced(
        &self,
        owner: &Owner,
        engine_position: TaskPosition,
        last_input: Option<LastInput>,
        decisions: u64,
    ) -> Self {
        let same_writer = self.revision == owner.revision && self.engine == owner.engine;
        let (revision_since, decisions_since) = if same_writer {
            (self.revision_since, self.decisions_since)
        } else {
            (self.engine_position.input_count, self.control_seq)
        };
        Self {
            revision: owner.revision.clone(),
            engine: owner.engine.clone(),
            revision_since,
            decisions_since,
            generation: owner.generation,
            epoch: self.epoch + 1,
            engine_position,
            control_seq: self.control_seq + decisions,
            last_input: last_input.or(self.last_input),
            ..self.clone()
        }
    }

    /// The position after state was rebuilt up to here from `base` by another revision or engine: a new lineage.
    pub fn forked(&self, owner: &Owner, lineage: String, base: Place, rebuilt: TaskPosition) -> Self {
        let mut ancestors = vec![Ancestor {
            lineage: self.lineage.clone(),
            fork: base,
            decisions: Some(self.control_seq),
        }];
        ancestors.extend(self.ancestors.iter().cloned());
        Self {
            lineage,
            ancestors,
            revision: owner.revision.clone(),
            engine: owner.engine.clone(),
            revision_since: base.input_count,
            decisions_since: base.control_seq,
            generation: owner.generation,
            epoch: self.epoch + 1,
            engine_position: rebuilt,
            ..self.clone()
        }
    }

    /// Whether a state at `place` of `lineage` belongs to this position's past.
    pub fn descends_from(&self, lineage: &str, place: Place) -> bool {
        if lineage == self.lineage {
            return place <= self.place();
        }
        let mut limit = self.place();
        for ancestor in &self.ancestors {
            limit = limit.min(ancestor.fork);
            if ancestor.lineage == lineage {
                return place <= limit;
            }
        }
        false
    }

    /// The last of a history's decisions that lead here; 0 where it is not in this position's past.
    pub fn decisions_limit(&self, lineage: &str) -> u64 {
        let mut limit = self.control_seq;
        if lineage == self.lineage {
            return limit;
        }
        for ancestor in &self.ancestors {
            limit = limit.min(ancestor.decisions_limit());
            if ancestor.lineage == lineage {
                return limit;
            }
        }
        0
    }

    /// Whether a checkpoint here is one of `committed`: of a history, at a place, and the same there. A clock moves a combine
    /// task, or one that delivers at least once, without moving its place.
    pub fn holds_what(&self, committed: &Position) -> bool {
        self.lineage == committed.lineage
            && committed.same_state(&self.engine_position, self.control_seq)
            && self.combine == committed.combine
    }

    /// Whether both describe the same state: same place and same hashes. Owner and epoch may differ, and what the next
    /// results carry for their revision: that is the committed position's to say.
    pub fn same_state(&self, other: &TaskPosition, control_seq: u64) -> bool {
        let with_my_revision = TaskPosition {
            result_revision: self.engine_position.result_revision,
            ..*other
        };
        self.engine_position == with_my_revision && self.control_seq == control_seq
    }
}
