//! Judging one event: bytes → JSON → time and mark → future skew → `let` → `where` → key → lateness → aggregates'
//! filters and fields; the first that fails decides, and an event that fails anywhere touches no aggregate.

mod look;

use super::Task;
use crate::aggregation::inputs::{Inputs, Place, Scalars};
use crate::core::json::{Kind, Slot};
use crate::core::timestamp;
use crate::error::RejectReason;
use crate::pipeline::builder::{Plan, TimeSource};
use crate::pipeline::output::Record;
use crate::pipeline::position::{Decision, NO_WATERMARK};
use crate::window::types::Window;

/// What becomes of an event that is readable.
pub(super) enum Verdict {
    /// It was added; windows that had already ended fire at once.
    Counted { key: u32, has_late_firings: bool },
    /// `where` does not hold for it.
    Filtered,
    /// No window covers its time.
    Outside,
    /// All its windows are purged; `Scratch::missed` names them.
    Late { event_time_ms: i64 },
}

/// Why a record is no event.
pub(super) struct Rejection {
    pub reason: RejectReason,
    pub detail: String,
}

/// Buffers used again for every event.
#[derive(Clone, Debug)]
pub(super) struct Scratch {
    slots: Vec<Slot>,
    key: Vec<u8>,
    numbers: Vec<Option<i128>>,
    scalars: Scalars,
    filters: Vec<bool>,
    /// (pane set, pane start) that the event updates.
    targets: Vec<(usize, i64)>,
    /// Windows that ended before the event came and still take it.
    pub late_windows: Vec<Window>,
    /// Instances missed, by window of the spec.
    pub missed: Vec<u64>,
    /// The watermark that the event in hand allows.
    pub candidate_ms: i64,
}

impl Scratch {
    pub fn new(plan: &Plan) -> Self {
        Self {
            slots: vec![Slot::MISSING; plan.fields.len()],
            key: Vec::new(),
            numbers: vec![None; plan.inputs.list.len()],
            scalars: Scalars::default(),
            filters: vec![false; plan.inputs.filters.len()],
            targets: Vec::with_capacity(plan.pane_sets.len()),
            late_windows: Vec::new(),
            missed: vec![0; plan.windows.len()],
            candidate_ms: NO_WATERMARK,
        }
    }
}

impl Task {
    pub(super) fn judge(&mut self, record: &Record<'_>, decisions: &mut Vec<Decision>) -> Result<Verdict, Rejection> {
        let plan = &*self.plan;
        let value = record.value;
        let scratch = &mut self.scratch;
        plan.fields
            .extract(value, &mut scratch.slots)
            .map_err(|error| Rejection {
                reason: RejectReason::JsonInvalid,
                detail: error.to_string(),
            })?;
        let event_time_ms = event_time(plan, scratch, record)?;
        scratch.candidate_ms = plan.watermark.candidate(event_time_ms, mark(plan, scratch, value)?);
        self.clock.judge(plan, event_time_ms, decisions)?;
        let Some(inputs) = look::look(plan, scratch, value)? else {
            return Ok(Verdict::Filtered);
        };
        if !self.find_targets(event_time_ms) {
            return Ok(Verdict::Late { event_time_ms });
        }
        inputs?;
        if self.scratch.targets.is_empty() {
            return Ok(Verdict::Outside);
        }
        Ok(self.add(event_time_ms))
    }

    /// Finds the panes that the event updates, the ended windows it makes fire and those it misses.
    /// Answers false when it is late: it missed windows and counts in none.
    fn find_targets(&mut self, event_time_ms: i64) -> bool {
        let watermark = self.position.watermark_ms;
        let scratch = &mut self.scratch;
        scratch.targets.clear();
        scratch.late_windows.clear();
        let mut missed_any = false;
        for (set_index, set) in self.plan.pane_sets.iter().enumerate() {
            let start = event_time_ms - (event_time_ms - set.offset_ms).rem_euclid(set.width_ms);
            // Every window that contains the pane ends at or behind the pane's end: the common case needs no look at them.
            if start + set.width_ms > watermark && !self.sets[set_index].has_gaps() {
                scratch.targets.push((set_index, start));
                continue;
            }
            let mut open = false;
            for index in &set.windows {
                let window = &self.plan.windows[*index];
                for end_ms in window.plan.assigner.ends_of_pane(start, set.width_ms) {
                    if end_ms.saturating_add(window.plan.allowed_lateness_ms) <= watermark {
                        if !missed_any {
                            scratch.missed.fill(0);
                            missed_any = true;
                        }
                        scratch.missed[*index] += 1;
                        continue;
                    }
                    open = true;
                    if end_ms <= watermark {
                        let start_ms = end_ms - window.plan.assigner.size_ms();
                        scratch.late_windows.push(Window {
                            end_ms,
                            start_ms,
                            rank: window.rank,
                            index: *index,
                        });
                    }
                }
            }
            if open {
                scratch.targets.push((set_index, start));
            }
        }
        if missed_any {
            for (loss, missed) in self.stats.losses.iter_mut().zip(&scratch.missed) {
                *loss += missed;
            }
        }
        !missed_any || !scratch.targets.is_empty()
    }

    fn add(&mut self, event_time_ms: i64) -> Verdict {
        let scratch = &mut self.scratch;
        let key = self.keys.intern(&scratch.key);
        let watermark = self.position.watermark_ms;
        let inputs = Inputs {
            place: Place {
                time_ms: event_time_ms,
                partition: 0,
                offset: self.position.input_offset - 1,
            },
            numbers: &scratch.numbers,
            scalars: &scratch.scalars,
            filters: &scratch.filters,
        };
        for (set_index, start) in &scratch.targets {
            let set = &mut self.sets[*set_index];
            let (row, due_ms) = set.row(&self.plan, *start, key, watermark, &mut self.keys);
            self.next_due_ms = self.next_due_ms.min(due_ms);
            self.plan.layout.add(row, &inputs);
        }
        Verdict::Counted {
            key,
            has_late_firings: !scratch.late_windows.is_empty(),
        }
    }
}

fn event_time(plan: &Plan, scratch: &Scratch, record: &Record<'_>) -> Result<i64, Rejection> {
    match plan.timestamp {
        TimeSource::Field { slot, unit } => timestamp::read(unit, scratch.slots[slot], record.value)
            .map_err(|reason| rejection(plan, &scratch.slots, slot, record.value, reason)),
        TimeSource::Record => timestamp::of_record(record.timestamp_ms).map_err(|reason| Rejection {
            reason,
            detail: match record.timestamp_ms {
                Some(found) => format!("record timestamp: found {found}"),
                None => "record timestamp: found nothing".to_owned(),
            },
        }),
    }
}

/// The mark of a punctuated watermark, if the event carries one.
fn mark(plan: &Plan, scratch: &Scratch, value: &[u8]) -> Result<Option<i64>, Rejection> {
    let Some((slot, unit)) = plan.mark else {
        return Ok(None);
    };
    match timestamp::read(unit, scratch.slots[slot], value) {
        Ok(mark_ms) => Ok(Some(mark_ms)),
        Err(RejectReason::TimestampMissing) => Ok(None),
        Err(reason) => Err(rejection(plan, &scratch.slots, slot, value, reason)),
    }
}

/// Names the field and what was found there, at most so many bytes of it.
fn rejection(plan: &Plan, slots: &[Slot], slot: usize, value: &[u8], reason: RejectReason) -> Rejection {
    const EXCERPT_MAX: usize = 64;
    let found = slots[slot];
    let text = match found.kind {
        Kind::Missing => "nothing".to_owned(),
        Kind::Container => "an object or array".to_owned(),
        Kind::Null | Kind::True | Kind::False | Kind::Number | Kind::String | Kind::EscapedString => {
            let text = String::from_utf8_lossy(found.text(value));
            let quote = if matches!(found.kind, Kind::String | Kind::EscapedString) {
                "\""
            } else {
                ""
            };
            format!("{quote}{}{quote}", text.chars().take(EXCERPT_MAX).collect::<String>())
        }
    };
    Rejection {
        reason,
        detail: format!("{}: found {text}", plan.fields.pointer(slot)),
    }
}
