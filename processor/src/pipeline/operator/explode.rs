//! Records whose elements are events. The elements of a record are judged together, stage by stage, against the watermark
//! before it: all of them are good, or the record is one dead letter and none counts. Then they count one after the
//! other, and the watermark moves by the newest.
//! Must not know how an array is taken apart (`core::json::elements`).

use std::sync::Arc;

use super::Task;
use super::judge::{Outcome, Rejection, Seen};
use crate::core::json::elements::{Array, ELEMENTS_MAX};
use crate::error::RejectReason;
use crate::pipeline::output::{Outputs, Record};
use crate::pipeline::position::{Decision, NO_WATERMARK};

/// Elements that one offset has room for where ties are broken.
const PLACES_OF_AN_OFFSET: i64 = 1 << 14;
const _: () = assert!(ELEMENTS_MAX as i64 <= PLACES_OF_AN_OFFSET, "every element has a place");

impl Task {
    /// Reads the elements of a record and judges them; the good ones wait in [`super::judge::Scratch::ahead`].
    pub(super) fn judge_elements(
        &mut self,
        record: &Record<'_>,
        decisions: &mut Vec<Decision>,
    ) -> Result<(), Rejection> {
        self.see_elements(record)?;
        let count = self.scratch.elements.elements.len();
        let mut newest_ms = NO_WATERMARK;
        for (number, seen) in self.scratch.ahead[..count].iter_mut().enumerate() {
            match std::mem::take(&mut seen.outcome) {
                Outcome::Refused(rejection) => return Err(of_element(number, rejection)),
                outcome => seen.outcome = outcome,
            }
            newest_ms = newest_ms.max(seen.event_time_ms);
        }
        if count > 0 {
            self.clock.judge(&self.plan, newest_ms, decisions)?;
        }
        for number in 0..count {
            let seen = &mut self.scratch.ahead[number];
            match std::mem::take(&mut seen.outcome) {
                Outcome::Failed(rejection) => return Err(of_element(number, rejection)),
                Outcome::Keyed(Err(rejection)) => {
                    // What is wrong with the fields of a late event does not matter.
                    if !self.is_late_element(number) {
                        return Err(of_element(number, rejection));
                    }
                    self.scratch.ahead[number].outcome = Outcome::Keyed(Ok(()));
                }
                outcome => seen.outcome = outcome,
            }
        }
        Ok(())
    }

    /// Takes a record apart and reads its elements.
    fn see_elements(&mut self, record: &Record<'_>) -> Result<(), Rejection> {
        let plan = Arc::clone(&self.plan);
        let Some(explode) = &plan.explode else {
            return Ok(());
        };
        let scratch = &mut self.scratch;
        let array = explode.read(record.value, &mut scratch.elements);
        match array.map_err(|error| rejection(RejectReason::JsonInvalid, error.to_string()))? {
            Array::Found | Array::Missing => {}
            Array::Other(_) => {
                let detail = format!("{}: expected an array", explode.pointer());
                return Err(rejection(RejectReason::FieldTypeInvalid, detail));
            }
            Array::TooLong => {
                let detail = format!("{}: more than {ELEMENTS_MAX} elements", explode.pointer());
                return Err(rejection(RejectReason::TooManyElements, detail));
            }
        }
        for number in 0..scratch.elements.elements.len() {
            if scratch.ahead.len() == number {
                scratch.ahead.push(Seen::new(&plan));
            }
            let filled = explode.fill(record.value, number, &mut scratch.elements, &mut scratch.slots);
            scratch.ahead[number].see(&plan, &scratch.slots, record, filled);
        }
        Ok(())
    }

    fn is_late_element(&mut self, number: usize) -> bool {
        let scratch = &mut self.scratch;
        std::mem::swap(&mut scratch.seen, &mut scratch.ahead[number]);
        let event_time_ms = self.scratch.seen.event_time_ms;
        let is_late = self.find_targets(event_time_ms) && !self.scratch.has_target();
        let scratch = &mut self.scratch;
        std::mem::swap(&mut scratch.seen, &mut scratch.ahead[number]);
        is_late
    }

    /// Counts the elements that [`Self::judge_elements`] found good. The late ones go out together, behind the results.
    pub(super) fn count_elements(&mut self, index: usize, record: &Record<'_>, outputs: &mut Outputs) {
        let count = self.scratch.elements.elements.len();
        self.stats.empty += u64::from(count == 0);
        let mut candidate_ms = NO_WATERMARK;
        let (mut late, mut earliest_ms, mut missed) = (Vec::new(), i64::MAX, Vec::new());
        for number in 0..count {
            let scratch = &mut self.scratch;
            std::mem::swap(&mut scratch.seen, &mut scratch.ahead[number]);
            candidate_ms = candidate_ms.max(scratch.seen.candidate_ms);
            if !matches!(std::mem::take(&mut scratch.seen.outcome), Outcome::Keyed(_)) {
                self.stats.filtered += 1;
                continue;
            }
            let event_time_ms = scratch.seen.event_time_ms;
            let missed_any = self.find_targets(event_time_ms);
            if missed_any {
                self.count_losses();
            }
            if self.scratch.has_target() {
                let offset = record.offset.saturating_mul(PLACES_OF_AN_OFFSET);
                self.scratch.offset = offset.saturating_add(number as i64);
                let key = self.add(event_time_ms);
                self.counted(event_time_ms, key, outputs);
            } else if missed_any {
                late.push(number as u32);
                earliest_ms = earliest_ms.min(event_time_ms);
                missed.resize(self.scratch.missed.len(), 0);
                for (all, one) in missed.iter_mut().zip(&self.scratch.missed) {
                    *all += one;
                }
            } else {
                self.stats.outside += 1;
            }
        }
        self.scratch.candidate_ms = candidate_ms;
        if !late.is_empty() {
            self.stats.late += late.len() as u64;
            let windows = self.missed_names(&missed);
            self.put_late_record(earliest_ms, windows, late, (index, record), outputs);
        }
    }
}

fn rejection(reason: RejectReason, detail: String) -> Rejection {
    Rejection { reason, detail }
}

fn of_element(number: usize, rejection: Rejection) -> Rejection {
    Rejection {
        detail: format!("element {number}: {}", rejection.detail),
        ..rejection
    }
}
