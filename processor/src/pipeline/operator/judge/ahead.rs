//! Looking ahead: what a record says does not depend on what was before it, so it is read for several records before
//! the first of them is judged. Then the places in memory that they will need are asked for together; one after the
//! other, each event would wait for its own key and row to come from afar.
//! Must not change state or decide anything: a record looked at may never be judged.

use super::{Rejection, event_time, look, mark};
use crate::aggregation::inputs::Scalars;
use crate::core::json::{JsonError, Slot};
use crate::core::key::{self, KeyTable, Known};
use crate::error::RejectReason;
use crate::pipeline::builder::Plan;
use crate::pipeline::operator::Task;
use crate::pipeline::output::Record;
use crate::pipeline::position::NO_WATERMARK;

/// Records looked at together: enough for the answers of the memory to overlap, few enough to stay in the nearest cache.
pub(in crate::pipeline::operator) const AHEAD: usize = 32;

/// What is wrong with a record, or what can be done with it.
#[derive(Debug, Default)]
pub(in crate::pipeline::operator) enum Outcome {
    /// Nothing was read, or its place in the batch was judged already.
    #[default]
    Nothing,
    /// It is no event or has no time.
    Refused(Rejection),
    /// It has a time; an expression or its key has no value.
    Failed(Rejection),
    /// `where` does not hold for it.
    Filtered,
    /// It has a key. What is wrong with its inputs is a value, because lateness is judged before it counts.
    Keyed(Result<(), Rejection>),
}

/// What one record says.
#[derive(Debug, Default)]
pub(in crate::pipeline::operator) struct Seen {
    pub outcome: Outcome,
    pub event_time_ms: i64,
    /// The watermark that it allows.
    pub candidate_ms: i64,
    pub key: Vec<u8>,
    pub key_hash: u64,
    /// Where the table had the key.
    pub known: Option<Known>,
    pub numbers: Vec<Option<i128>>,
    pub scalars: Scalars,
    pub filters: Vec<bool>,
    /// Gap in each set of sessions, ms; those that are no field's stay as they are.
    pub gaps_ms: Vec<i64>,
}

/// Buffers that are filled anew for every batch: a copy of a task needs none of it.
impl Clone for Seen {
    fn clone(&self) -> Self {
        Self {
            numbers: self.numbers.clone(),
            filters: self.filters.clone(),
            gaps_ms: self.gaps_ms.clone(),
            candidate_ms: self.candidate_ms,
            ..Self::default()
        }
    }
}

impl Seen {
    pub fn new(plan: &Plan) -> Self {
        Self {
            candidate_ms: NO_WATERMARK,
            numbers: vec![None; plan.inputs.list.len()],
            filters: vec![false; plan.inputs.filters.len()],
            gaps_ms: (plan.own_windows.sessions.iter())
                .map(|(_, rule)| rule.longest_gap_ms())
                .collect(),
            ..Self::default()
        }
    }

    /// The record is shed: nothing is read of it.
    fn pass_over(&mut self) {
        (self.outcome, self.known) = (Outcome::Nothing, None);
    }

    fn read(&mut self, plan: &Plan, slots: &mut [Slot], record: &Record<'_>) {
        let extracted = plan.fields.extract(record.value, slots);
        self.see(plan, slots, record, extracted);
    }

    /// What the record says by fields that were extracted.
    pub fn see(&mut self, plan: &Plan, slots: &[Slot], record: &Record<'_>, extracted: Result<(), JsonError>) {
        self.known = None;
        let timed = extracted.map_err(|error| Rejection {
            reason: RejectReason::JsonInvalid,
            detail: error.to_string(),
        });
        self.outcome = match timed.and_then(|()| self.read_time(plan, slots, record)) {
            Err(rejection) => Outcome::Refused(rejection),
            Ok(()) => match look::look(plan, slots, self, record) {
                Err(rejection) => Outcome::Failed(rejection),
                Ok(None) => Outcome::Filtered,
                Ok(Some(inputs)) => {
                    self.key_hash = key::hash(&self.key);
                    Outcome::Keyed(inputs)
                }
            },
        };
    }

    fn read_time(&mut self, plan: &Plan, slots: &[Slot], record: &Record<'_>) -> Result<(), Rejection> {
        self.event_time_ms = event_time(plan, slots, record)?;
        let mark_ms = mark(plan, slots, record.value)?;
        self.candidate_ms = plan.watermark.candidate(self.event_time_ms, mark_ms);
        Ok(())
    }

    fn find(&mut self, keys: &KeyTable) {
        if matches!(self.outcome, Outcome::Keyed(_)) {
            self.known = keys.find(self.key_hash, &self.key);
        }
    }
}

impl Task {
    /// Reads up to [`AHEAD`] records that are judged next, by their places here.
    pub(in crate::pipeline::operator) fn look_ahead(&mut self, records: &[Record<'_>]) {
        let (share, partition) = (self.position.shed.share, self.partition);
        let (plan, scratch) = (&*self.plan, &mut self.scratch);
        if plan.explode.is_some() {
            // One record is as many events as it has elements.
            return;
        }
        while scratch.ahead.len() < records.len() {
            scratch.ahead.push(Seen::new(plan));
        }
        for (seen, record) in scratch.ahead.iter_mut().zip(records) {
            if share.keeps(partition, record.offset) {
                seen.read(plan, &mut scratch.slots, record);
            } else {
                seen.pass_over();
            }
        }
        let ahead = &mut scratch.ahead[..records.len()];
        ahead.iter_mut().for_each(|seen| seen.find(&self.keys));
        let mut touched = 0u64;
        for seen in ahead {
            if let Some(known) = seen.known {
                for (plan, set) in plan.pane_sets.iter().zip(&self.sets) {
                    let start_ms = seen.event_time_ms - (seen.event_time_ms - plan.offset_ms).rem_euclid(plan.width_ms);
                    touched ^= set.touch(start_ms, known.id());
                }
            }
        }
        // So that the loads stay, though nothing needs what they bring.
        std::hint::black_box(touched);
    }
}
