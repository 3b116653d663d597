//! A user's rewind to a checkpoint: whether one is ordered and not carried out, whether it can be, and the position that a
//! task goes on from. Pure.
//! Must not hold: how a checkpoint is fetched, or what start-up does without an order (`startup`).

use super::input::{LastInputCheck, recreated};
use super::position::{Ancestor, Position};
use super::problem::{Reason, Stop};
use super::startup::{Facts, Local, Startup, is_own, stop};
use crate::pipeline::operator::merge::Cut;
use crate::pipeline::position::TaskPosition;

/// What a user can do about a rewind that cannot be. Tasks go back one by one: this one knows nothing of the others.
pub const WAY_OUT: &str = "Nothing of this task was changed, other tasks may have gone back already: order a checkpoint that \
                           all can go back to under a higher nonce or, if none has gone back, take the order back";

/// A user's order to go back to a checkpoint, as far as it is about one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order<'a> {
    /// Carried out by a task that has seen only lower ones.
    pub nonce: u64,
    /// What people call the checkpoint.
    pub name: &'a str,
    /// Its id in the task's store; absent where the order has nothing of this task.
    pub id: Option<&'a str>,
    /// Digest check of the last record that the checkpoint consumed.
    pub last_input: LastInputCheck,
}

/// What is known of a job's task, wherever it was found, also under earlier objects with the same `jobId`.
fn known<'a>(facts: &Facts<'a>) -> impl Iterator<Item = &'a Position> {
    let local = match facts.local {
        Local::Held(position) => Some(position.as_ref()),
        Local::Absent | Local::Damaged(_) => None,
    };
    let stored = facts.checkpoints.iter().map(|checkpoint| &checkpoint.position);
    let owner = facts.owner;
    let all = facts.committed.into_iter().chain(local).chain(stored);
    all.filter(move |position| position.job_id == owner.job_id && position.task == owner.task)
}

/// The order that is not carried out yet. A task that the order has nothing of and that never was is none of its business.
pub fn pending<'a>(facts: &Facts<'a>) -> Option<Order<'a>> {
    let order = facts.order?;
    // An earlier object is none of its business, unless it holds the control topic.
    let concerned = known(facts)
        .filter(|position| is_own(facts, position))
        .chain(facts.committed);
    let newest = concerned.map(|position| position.restore_nonce).max();
    match (newest, order.id) {
        (Some(nonce), _) => (order.nonce > nonce).then_some(order),
        (None, Some(_)) => Some(order),
        (None, None) => None,
    }
}

/// The row of the table: everything is looked at that could be in the way, for after the commit there is no way back.
pub(super) fn decide(facts: &Facts<'_>, order: &Order<'_>) -> Startup {
    let Order { nonce, name, .. } = order;
    let task = facts.owner.task;
    let failed = |what: String| {
        stop(
            Reason::RestoreFailed,
            format!("restore {nonce} to checkpoint {name:?}: {what}. {WAY_OUT}"),
        )
    };
    let Some(id) = order.id else {
        return failed(format!("it has nothing of task {task}, which came later"));
    };
    let Some(stored) = stored(facts, id) else {
        let there: Vec<&str> = facts.checkpoints.iter().map(|found| found.id.as_str()).collect();
        return failed(format!(
            "{id} of task {task} is not in the store, or its manifest cannot be read (retention takes what nobody pins); there \
             are {there:?}"
        ));
    };
    if stored.job_id != facts.owner.job_id || stored.task != task {
        return failed(format!("{id} is of task {} of job {}", stored.task, stored.job_id));
    }
    // Of an earlier object: the nonces of a history rise, and what it left is the task's own from here on.
    let its_own = known(facts).filter(|position| position.uid == stored.uid || stored.adopted.contains(&position.uid));
    let before = its_own.map(|position| position.restore_nonce).max().unwrap_or(0);
    if before >= *nonce {
        return failed(format!(
            "the history of {id} has had restore {before}, so the nonce has to be above that"
        ));
    }
    if let Some(stop) = recreated(facts.log, order.last_input, stored) {
        return Startup::Stop(stop);
    }
    if facts.log.start > stored.unread_from() {
        return stop(
            Reason::InputTruncated,
            format!(
                "restore {nonce} to checkpoint {name:?}: the input log starts at offset {}, the checkpoint of task {task} \
                 ends at {}, and windows would be published again without the records between. {WAY_OUT}",
                facts.log.start,
                stored.unread_from()
            ),
        );
    }
    let generation = facts.committed.map(|committed| committed.generation);
    Startup::Rewind {
        claim: generation.is_some_and(|generation| generation < facts.owner.generation),
        checkpoint: id.to_owned(),
    }
}

fn stored<'a>(facts: &Facts<'a>, id: &str) -> Option<&'a Position> {
    let mut checkpoints = facts.checkpoints.iter();
    let found = checkpoints.find(|checkpoint| checkpoint.id == id)?;
    Some(&found.position)
}

/// The position that the rewind begins with: the checkpoint's, in a `lineage` of its own, above everything known. `decisions`
/// are made with it.
pub fn position(facts: &Facts<'_>, order: &Order<'_>, stored: &Position, lineage: String, decisions: u64) -> Position {
    let most = |of: fn(&Position) -> u64| known(facts).map(of).max().unwrap_or(0);
    let revision = known(facts)
        .map(|position| position.engine_position.result_revision)
        .max();
    let mut ancestors = vec![Ancestor {
        lineage: stored.lineage.clone(),
        fork: stored.place(),
        decisions: Some(stored.control_seq),
    }];
    ancestors.extend(stored.ancestors.iter().cloned());
    let mut adopted = stored.adopted.clone();
    if stored.uid != facts.owner.uid && !adopted.contains(&stored.uid) {
        adopted.push(stored.uid.clone());
    }
    let floor = facts.committed.map_or(0, |committed| committed.decision_floor);
    Position {
        uid: facts.owner.uid.clone(),
        adopted,
        lineage,
        ancestors,
        restore_nonce: order.nonce,
        revision: facts.owner.revision.clone(),
        engine: facts.owner.engine.clone(),
        // Results from before carry another `pane.revision`: what is replayed from there on is no exact replay.
        revision_since: stored.engine_position.input_count,
        decisions_since: stored.control_seq,
        generation: facts.owner.generation,
        epoch: most(|position| position.epoch) + 1,
        engine_position: TaskPosition {
            result_revision: revision.unwrap_or(0).saturating_add(1),
            ..stored.engine_position
        },
        control_seq: stored.control_seq + decisions,
        // What is gone from the control topic stays gone, but the checkpoint itself needs none of it.
        decision_floor: stored.decision_floor.max(floor).min(stored.control_seq),
        ..stored.clone()
    }
}

const LINEAGE_PREFIX: &str = "rewind-";

/// The lineage that a rewind begins. `random` is drawn for it: were an order carried out twice, for the control topic lost
/// the first time, the second stage would see two histories. The nonce can be read from it.
pub fn lineage(nonce: u64, random: u128) -> String {
    format!("{LINEAGE_PREFIX}{nonce}-{random:032x}")
}

/// Nonce of the rewind that began a lineage; 0 for any other.
pub fn nonce_of(lineage: &str) -> u64 {
    let nonce = lineage
        .strip_prefix(LINEAGE_PREFIX)
        .and_then(|rest| rest.split('-').next());
    nonce.and_then(|nonce| nonce.parse().ok()).unwrap_or(0)
}

/// The lineage that the rewind of `nonce` began, in the history that a combine task stands in.
pub fn begun_by(nonce: u64, committed: &Position) -> Option<&str> {
    let ancestors = committed.ancestors.iter().map(|ancestor| ancestor.lineage.as_str());
    let mut chain = std::iter::once(committed.lineage.as_str()).chain(ancestors);
    chain.find(|lineage| nonce_of(lineage) == nonce)
}

/// What the rewind of a combine task to `position`, which began `lineage`, takes back of what window tasks read.
pub fn cut(source: u32, lineage: &str, position: &Position) -> Cut {
    Cut {
        source,
        lineage: lineage.to_owned(),
        parent: position.lineage.clone(),
        sequence: position.engine_position.output_seq,
    }
}

/// Whether what a combine task and a window task go back to, by an order with this nonce and these checkpoints, belongs
/// together.
///
/// # Errors
/// When the two are not of one checkpoint of the job: a rewind lies between them that the window task does not know of. A
/// birth behind an order carries its nonce and has gone back nowhere, so the history is asked.
pub fn check_together(order: (u64, &str), position: &Position, window: &Position) -> Result<(), Stop> {
    let (nonce, checkpoint) = order;
    let went_back = nonce_of(&position.lineage);
    if went_back > window.restore_nonce || position.uid != window.uid {
        let message = format!(
            "restore {nonce}: checkpoint {checkpoint} of task {} was made behind restore {} of uid {}, that of task {} behind \
             restore {} of uid {}: they are not of one checkpoint of the job. {WAY_OUT}",
            position.task, went_back, position.uid, window.task, window.restore_nonce, window.uid
        );
        return Err(Stop::new(Reason::RestoreFailed, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
