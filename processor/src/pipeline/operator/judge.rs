//! Judging one event: bytes → JSON → time and mark → future skew → `let` → `where` → key and gaps → lateness → aggregates'
//! filters and fields; the first that fails decides, and an event that fails anywhere touches no aggregate.

mod ahead;
mod look;

pub(super) use self::ahead::{AHEAD, Outcome, Seen};
use super::Task;
use super::pane::Maker;
use crate::aggregation::inputs::{Inputs, Place};
use crate::aggregation::rows::RowMut;
use crate::core::json::elements::ElementSlots;
use crate::core::json::{Kind, Slot};
use crate::core::timestamp;
use crate::error::RejectReason;
use crate::pipeline::builder::{Plan, TimeSource};
use crate::pipeline::output::Record;
use crate::pipeline::position::{Decision, NO_WATERMARK};
use crate::window::types::Window;

/// What becomes of an event that is readable.
pub(super) enum Verdict {
    /// It was added to panes and instances; `Scratch::sessions` and `Scratch::firing` say what is left to do.
    Counted { event_time_ms: i64, key: u32 },
    /// `where` does not hold for it.
    Filtered,
    /// No window covers its time.
    Outside,
    /// It was taken apart, and its elements are good: [`Task::count_elements`] does the rest.
    Elements,
    /// All its windows are purged; `Scratch::missed` names them.
    Late { event_time_ms: i64 },
}

/// Why a record is no event.
#[derive(Debug)]
pub(super) struct Rejection {
    pub reason: RejectReason,
    pub detail: String,
}

/// Buffers used again for every event.
#[derive(Clone, Debug, Default)]
pub(super) struct Scratch {
    pub slots: Vec<Slot>,
    /// Fields of the record in hand, where records are taken apart.
    pub elements: ElementSlots,
    /// Records read and not judged yet, by their place among them.
    pub ahead: Vec<Seen>,
    /// The record in hand.
    pub seen: Seen,
    /// (pane set, pane start) that the event updates.
    targets: Vec<(usize, i64)>,
    /// (instance set, instance) that the event updates.
    instances: Vec<(usize, (i64, i64))>,
    spans: Vec<(i64, i64)>,
    /// Windows missed that are closed by an earlier spec only.
    closed_before: Vec<usize>,
    /// Session sets that take the event.
    pub sessions: Vec<usize>,
    /// Windows that fire because of the event, for its key.
    pub firing: Vec<Window>,
    /// Instances missed, by window of the spec.
    pub missed: Vec<u64>,
    /// The watermark that the event in hand allows.
    pub candidate_ms: i64,
    /// Source partition of the events; 0 where a task has but one.
    pub partition: u32,
    /// Where the event in hand stands in its partition: what breaks ties of time.
    pub offset: i64,
    /// Whether some window takes every event, whatever its time.
    takes_all: bool,
}

impl Scratch {
    /// Whether the event in hand counts somewhere.
    pub fn has_target(&self) -> bool {
        self.takes_all || !(self.targets.is_empty() && self.instances.is_empty() && self.sessions.is_empty())
    }

    /// The inputs of the event in hand.
    pub fn inputs(&self, time_ms: i64) -> Inputs<'_> {
        Inputs {
            place: Place {
                time_ms,
                partition: self.partition,
                offset: self.offset,
            },
            numbers: &self.seen.numbers,
            scalars: &self.seen.scalars,
            filters: &self.seen.filters,
        }
    }

    /// The gap of the event in hand in a set of sessions, ms.
    pub fn gap_ms(&self, sessions: usize) -> i64 {
        self.seen.gaps_ms[sessions]
    }

    fn clear_targets(&mut self) {
        self.targets.clear();
        self.instances.clear();
        self.sessions.clear();
        self.firing.clear();
        self.missed.fill(0);
    }

    pub fn new(plan: &Plan) -> Self {
        Self {
            slots: vec![Slot::MISSING; plan.fields.len()],
            elements: ElementSlots::default(),
            ahead: Vec::new(),
            seen: Seen::new(plan),
            targets: Vec::with_capacity(plan.pane_sets.len()),
            instances: Vec::new(),
            spans: Vec::new(),
            closed_before: Vec::new(),
            sessions: Vec::new(),
            firing: Vec::new(),
            missed: vec![0; plan.windows.len()],
            candidate_ms: NO_WATERMARK,
            partition: 0,
            offset: 0,
            takes_all: !plan.own_windows.counts.is_empty(),
        }
    }
}

impl Task {
    /// Judges the record that [`Task::look_ahead`] read at this place.
    pub(super) fn judge(
        &mut self,
        place: usize,
        record: &Record<'_>,
        decisions: &mut Vec<Decision>,
    ) -> Result<Verdict, Rejection> {
        if self.plan.explode.is_some() {
            return self.judge_elements(record, decisions).map(|()| Verdict::Elements);
        }
        let scratch = &mut self.scratch;
        std::mem::swap(&mut scratch.seen, &mut scratch.ahead[place]);
        let outcome = std::mem::take(&mut scratch.seen.outcome);
        debug_assert!(
            !matches!(outcome, Outcome::Nothing),
            "a record is read once and judged once"
        );
        let event_time_ms = scratch.seen.event_time_ms;
        if !matches!(outcome, Outcome::Refused(_)) {
            scratch.candidate_ms = scratch.seen.candidate_ms;
            self.clock.judge(&self.plan, event_time_ms, decisions)?;
        }
        let inputs = match outcome {
            Outcome::Refused(rejection) | Outcome::Failed(rejection) => return Err(rejection),
            Outcome::Filtered | Outcome::Nothing => return Ok(Verdict::Filtered),
            Outcome::Keyed(inputs) => inputs,
        };
        if self.find_targets(event_time_ms) {
            self.count_losses();
            if !self.scratch.has_target() {
                return Ok(Verdict::Late { event_time_ms });
            }
        }
        inputs?;
        if !self.scratch.has_target() {
            return Ok(Verdict::Outside);
        }
        self.scratch.offset = record.offset;
        let key = self.add(event_time_ms);
        Ok(Verdict::Counted { event_time_ms, key })
    }

    /// Finds the panes, instances and sessions that the event updates, the ended windows it makes fire and those it
    /// misses; answers whether there are such. One that misses windows and has no target is late.
    pub(super) fn find_targets(&mut self, event_time_ms: i64) -> bool {
        self.scratch.clear_targets();
        let missed_in_panes = self.find_panes(event_time_ms);
        self.find_instances(event_time_ms) || missed_in_panes
    }

    /// Counts the windows that the event in hand missed.
    pub(super) fn count_losses(&mut self) {
        for (loss, missed) in self.stats.losses.iter_mut().zip(&self.scratch.missed) {
            *loss += missed;
        }
    }

    /// Answers whether the event missed a window.
    fn find_panes(&mut self, event_time_ms: i64) -> bool {
        let watermark = self.position.watermark_ms;
        let scratch = &mut self.scratch;
        let mut missed_any = false;
        for (set_index, set) in self.plan.pane_sets.iter().enumerate() {
            let start = event_time_ms - (event_time_ms - set.offset_ms).rem_euclid(set.width_ms);
            // Every window that contains the pane ends at or behind the pane's end: the common case needs no look at them.
            if start + set.width_ms > watermark && !self.sets[set_index].has_gaps() {
                scratch.targets.push((set_index, start));
                continue;
            }
            let mut open = false;
            for window in &set.windows {
                let closing = self.closing[window.index];
                for end_ms in window.aligned.ends_of_pane(start, set.width_ms) {
                    if closing.by_lateness(end_ms) <= watermark {
                        missed_any = true;
                        scratch.missed[window.index] += 1;
                        continue;
                    }
                    if closing.at(end_ms) <= watermark {
                        scratch.closed_before.push(window.index);
                        continue;
                    }
                    open = true;
                    if end_ms <= watermark {
                        scratch.firing.push(Window {
                            end_ms,
                            start_ms: window.aligned.start_of(end_ms),
                            rank: window.rank,
                            index: window.index,
                        });
                    }
                }
            }
            if open {
                scratch.targets.push((set_index, start));
            }
            // A partial cannot say that such a window does not take it: the window task, which knows, counts the loss.
            let counts = !(open && self.is_first_stage);
            for index in scratch.closed_before.drain(..).filter(|_| counts) {
                missed_any = true;
                scratch.missed[index] += 1;
            }
        }
        missed_any
    }

    /// The same for windows with values of their own.
    fn find_instances(&mut self, event_time_ms: i64) -> bool {
        let watermark = self.position.watermark_ms;
        let scratch = &mut self.scratch;
        let mut missed_any = false;
        for (number, set) in self.instances.iter_mut().enumerate() {
            scratch.spans.clear();
            set.spans_of(&self.plan, event_time_ms, &mut scratch.spans);
            for span in &scratch.spans {
                if set.is_closed(span.1, watermark) {
                    missed_any = true;
                    scratch.missed[set.index()] += 1;
                } else {
                    scratch.instances.push((number, *span));
                }
            }
        }
        for (number, set) in self.sessions.iter().enumerate() {
            if set.is_late(event_time_ms, scratch.seen.gaps_ms[number], watermark) {
                missed_any = true;
                scratch.missed[set.index()] += 1;
            } else {
                scratch.sessions.push(number);
            }
        }
        missed_any
    }

    /// Adds the event in hand to its panes, instances and last events; answers its key.
    pub(super) fn add(&mut self, event_time_ms: i64) -> u32 {
        let scratch = &mut self.scratch;
        let seen = &scratch.seen;
        self.position
            .shed
            .saw(event_time_ms.saturating_add(self.plan.disorder_ms));
        let key = self.keys.intern_found(seen.key_hash, &seen.key, seen.known);
        let watermark = self.position.watermark_ms;
        let mut firing = std::mem::take(&mut scratch.firing);
        let inputs = scratch.inputs(event_time_ms);
        let mut maker = Maker {
            plan: &self.plan,
            keys: &mut self.keys,
            paging: &mut self.paging,
        };
        for (set_index, start) in &scratch.targets {
            let set = &mut self.sets[*set_index];
            let (row, due_ms) = set.row(*start, key, watermark, &mut maker);
            self.next_due_ms = self.next_due_ms.min(due_ms);
            self.plan.layout.add(row, &inputs);
        }
        for (number, span) in &scratch.instances {
            let set = &mut self.instances[*number];
            let (slot, due_ms) = set.cell(*span, key, watermark, &mut maker);
            self.next_due_ms = self.next_due_ms.min(due_ms);
            set.cells.add(slot, &self.plan.layout, &inputs);
            if set.cells.is_due(slot, span.1 <= watermark) {
                firing.push(set.window(*span));
            }
        }
        if self.is_first_stage && !self.counts.is_empty() {
            self.singles.add(key, &self.plan.layout, &inputs, maker.keys);
        } else {
            for set in &mut self.counts {
                let count = |row: RowMut<'_>| self.plan.layout.add(row, &inputs);
                firing.extend(set.add((key, event_time_ms), &mut maker, count));
            }
        }
        self.scratch.firing = firing;
        key
    }
}

fn event_time(plan: &Plan, slots: &[Slot], record: &Record<'_>) -> Result<i64, Rejection> {
    match plan.timestamp {
        TimeSource::Field { slot, unit } => timestamp::read(unit, slots[slot], record.value)
            .map_err(|reason| rejection(plan, slots, slot, record.value, reason)),
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
fn mark(plan: &Plan, slots: &[Slot], value: &[u8]) -> Result<Option<i64>, Rejection> {
    let Some((slot, unit)) = plan.mark else {
        return Ok(None);
    };
    match timestamp::read(unit, slots[slot], value) {
        Ok(mark_ms) => Ok(Some(mark_ms)),
        Err(RejectReason::TimestampMissing) => Ok(None),
        Err(reason) => Err(rejection(plan, slots, slot, value, reason)),
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
