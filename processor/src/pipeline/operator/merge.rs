//! The second stage of `partitioning: any`: one task a shuffle partition. It merges the partials of the combine tasks
//! and fires windows by the smallest of their in-band watermarks. Lateness was judged where the event came in: what a
//! window adds up to is a function of the source partitions alone, however their records are interleaved here.
//!
//! Must not hold: a judgement of events, I/O.

mod cells;
mod earlier;
mod error;
mod fire;
mod paging;
mod persist;
mod sources;

use std::collections::BTreeMap;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::closing::Closing;
use super::fire::Due;
use super::pane::{Maker, PaneSet};
use super::query::{Answer, Question};
use super::{END_OF_INPUT, Stats, Task};
use crate::aggregation::rows::RowStore;
use crate::core::decimal;
use crate::core::timestamp::{EVENT_TIME_MAX_MS, EVENT_TIME_MIN_MS};
use crate::pipeline::builder::{PaneSetPlan, Plan};
use crate::pipeline::output::{Outputs, Record};
use crate::pipeline::position::{Decision, DecisionKind, TaskPosition};
use crate::pipeline::shuffle::{self, Message, Partial};
use crate::window::types::Window;

use self::earlier::Earlier;
pub use self::error::{CutRefused, ShuffleError, Unreadable};
pub(super) use self::fire::barred_panes;
pub use self::sources::Cut;
use self::sources::Sources;

/// A partial all of whose windows were purged when it came: its source partition is younger than the watermark. It
/// belongs to the late output, with reason `AfterPurge`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgedPartial {
    /// Names of the windows it missed, with commas between.
    pub windows: String,
    /// Watermark that they were purged by, ms.
    pub watermark_ms: i64,
    /// Start, end, key and values as one line of JSON.
    pub value: Vec<u8>,
}

/// By (pane set, barred): rows that windows purged at `barred` or below do not take.
pub(super) type Barred = BTreeMap<(usize, i64), PaneSet>;

/// One window task.
#[derive(Clone, Debug)]
pub struct WindowTask {
    /// Rows that every window takes, keys, late firings, position.
    task: Task,
    /// Rows that some windows do not take.
    barred: Barred,
    sources: Sources,
    layout: u64,
    /// Layouts of earlier specs by fingerprint.
    earlier: BTreeMap<u64, Earlier>,
    /// One row to decode into.
    row: RowStore,
    /// Windows to fire for a key because of the record in hand.
    firing: Vec<(Window, u32)>,
    /// Barred panes purged that the store holds: (set, barred, start).
    purged: Vec<(usize, i64, i64)>,
    purged_partials: u64,
}

impl WindowTask {
    /// A task without state that begins at `start_offset`.
    pub fn new(plan: Arc<Plan>, start_offset: i64) -> Self {
        Self::around(Task::new(plan, start_offset))
    }

    fn around(task: Task) -> Self {
        let mut row = RowStore::new(&task.plan.layout, 0);
        row.push();
        Self {
            layout: task.plan.fingerprint(),
            barred: Barred::new(),
            sources: Sources::default(),
            earlier: BTreeMap::new(),
            row,
            firing: Vec::new(),
            purged: Vec::new(),
            purged_partials: 0,
            task,
        }
    }

    /// Consumes records of the shuffle topic in offset order.
    ///
    /// # Errors
    /// [`ShuffleError`]; the task is then of no use any more.
    pub fn step(
        &mut self,
        records: &[Record<'_>],
        outputs: &mut Outputs,
        purged: &mut Vec<PurgedPartial>,
    ) -> Result<(), ShuffleError> {
        for (index, record) in records.iter().enumerate() {
            let (offset, before) = (record.offset, outputs.list.len());
            let damaged = |what| ShuffleError::Damaged { offset, what };
            self.task.advance_position(record);
            let Some((header, message)) = shuffle::read(record.value) else {
                return Err(match shuffle::format_of(record.value) {
                    Some(found) if found != shuffle::FORMAT => ShuffleError::Format { offset, found },
                    Some(_) | None => damaged("the record"),
                });
            };
            if !self.sources.hear(offset, &header)? {
                continue;
            }
            match message {
                Message::Layout(document) => self.told(offset, &header, document)?,
                _ if !self.reads(header.layout) => {
                    let why = Unreadable::Untold;
                    return Err(ShuffleError::Layout { offset, why });
                }
                Message::Watermark(watermark_ms) => {
                    self.sources.advance(header.source, watermark_ms);
                    self.advance_watermark(self.sources.watermark_ms(), outputs);
                }
                Message::Shed(shed) => self.task.position.shed = self.sources.tell_shed(header.source, shed),
                Message::Partials(partials) => {
                    for partial in partials {
                        let partial = partial.ok_or_else(|| damaged("a partial"))?;
                        self.read(header.layout, partial, purged).map_err(damaged)?;
                    }
                    self.fire_late(outputs);
                }
                Message::Cells(cells) => {
                    for cell in cells {
                        let cell = cell.ok_or_else(|| damaged("a partial"))?;
                        self.read_cell(header.layout, cell, outputs, purged).map_err(damaged)?;
                    }
                }
            }
            outputs.caused_by(index, before);
        }
        Ok(())
    }

    /// Tells of a rewind of a source partition, before a record of the history that begins with it is consumed; once told
    /// it is part of the state.
    ///
    /// # Errors
    /// [`CutRefused`]: the task is further than that, or of another history, and has to be restored to the same checkpoint
    /// first.
    pub fn rewound(&mut self, cut: &Cut) -> Result<(), CutRefused> {
        self.sources.cut(cut)
    }

    /// Whether anything came of a source partition, or a rewind of it was told.
    pub fn has_heard(&self, source: u32) -> bool {
        self.sources.have_heard(source)
    }

    /// Where the task stands; its input is the shuffle partition.
    pub fn position(&self) -> TaskPosition {
        self.task.position
    }

    /// Results from here on carry this `pane.revision`.
    pub fn set_result_revision(&mut self, revision: u32) {
        self.task.set_result_revision(revision);
    }

    /// The watermark at which something fires or is purged next.
    pub fn next_due_ms(&self) -> i64 {
        self.task.next_due_ms
    }

    /// Counters since this object was made: records of the shuffle topic, results, and as losses the partials that a
    /// window missed for being purged.
    pub fn stats(&self) -> &Stats {
        &self.task.stats
    }

    /// Partials that missed every window, since this object was made.
    pub fn purged_partials(&self) -> u64 {
        self.purged_partials
    }

    /// Keys with state.
    pub fn keys(&self) -> usize {
        self.task.keys()
    }

    /// Window instances that have state and have not been purged, those of barred rows alone left out.
    pub fn open_windows(&self) -> u64 {
        self.task.open_windows()
    }

    /// Answers a question about its windows.
    pub fn answer(&mut self, question: &Question) -> Answer {
        let mut answer = self.task.answer_with(question, &self.barred);
        if let Answer::Standing { slowest, .. } = &mut answer {
            *slowest = self.sources.slowest();
        }
        answer
    }

    /// Rows of state.
    pub fn rows(&self) -> usize {
        self.task.rows() + self.barred.values().map(PaneSet::rows).sum::<usize>()
    }

    /// Reads one partial and merges it; answers what is damaged where it cannot be one.
    fn read(
        &mut self,
        layout: u64,
        mut partial: Partial<'_>,
        purged: &mut Vec<PurgedPartial>,
    ) -> Result<(), &'static str> {
        if let Some(earlier) = self.earlier.get(&layout).filter(|_| layout != self.layout) {
            partial.set = earlier.set(partial.set).ok_or("a pane set")?;
        }
        self.read_row(layout, partial.row)?;
        self.take(&partial, purged)
    }

    /// Reads a row as the present layout has it.
    fn read_row(&mut self, layout: u64, bytes: &[u8]) -> Result<(), &'static str> {
        let plan = &self.task.plan;
        match self.earlier.get(&layout).filter(|_| layout != self.layout) {
            Some(earlier) => self.row = earlier.read(bytes, plan).ok_or("a row")?,
            None if plan.layout.decode(bytes, self.row.get_mut(0)) => {}
            None => return Err("a row"),
        }
        Ok(())
    }

    /// Merges the partial whose row was read.
    fn take(&mut self, partial: &Partial<'_>, purged: &mut Vec<PurgedPartial>) -> Result<(), &'static str> {
        let task = &mut self.task;
        task.paging.count(1);
        let plan = Arc::clone(&task.plan);
        let set_plan = plan.pane_sets.get(partial.set).ok_or("a pane set")?;
        let covered = EVENT_TIME_MIN_MS.saturating_sub(set_plan.width_ms)..=EVENT_TIME_MAX_MS;
        if !covered.contains(&partial.start_ms)
            || (partial.start_ms - set_plan.offset_ms).rem_euclid(set_plan.width_ms) != 0
        {
            return Err("the start of a pane");
        }
        if std::str::from_utf8(partial.key).is_err() {
            return Err("a key");
        }
        let watermark_ms = task.position.watermark_ms;
        let mut ended = Vec::new();
        let losses = &mut task.stats.losses;
        let is_open = look(set_plan, partial, watermark_ms, &task.closing, losses, &mut ended);
        if !is_open {
            let names = (set_plan.windows.iter()).map(|window| plan.windows[window.index].plan.name.as_str());
            let names = names.collect::<Vec<_>>().join(",");
            let span_ms = (partial.start_ms, partial.start_ms.saturating_add(set_plan.width_ms));
            purged.push(self.purged_partial(names, span_ms, partial.key));
            return Ok(());
        }
        let key = task.keys.intern(partial.key);
        let start_ms = partial.start_ms;
        // What bars it is purged here too: then it is like any other.
        let (row, due_ms) = if partial.barred_ms <= watermark_ms {
            let mut maker = Maker {
                plan: &plan,
                keys: &mut task.keys,
                paging: &mut task.paging,
            };
            task.sets[partial.set].row(start_ms, key, watermark_ms, &mut maker)
        } else {
            let made = || PaneSet::new(partial.set, set_plan);
            let set = self.barred.entry((partial.set, partial.barred_ms)).or_insert_with(made);
            set.rare_row(&plan, start_ms, key, watermark_ms, &mut task.keys)
        };
        plan.layout.merge(row, self.row.get(0));
        task.next_due_ms = task.next_due_ms.min(due_ms);
        self.firing.extend(ended.into_iter().map(|window| (window, key)));
        Ok(())
    }

    /// The partial of these times and this key, whose row was read.
    fn purged_partial(&mut self, windows: String, (start_ms, end_ms): (i64, i64), key: &[u8]) -> PurgedPartial {
        self.purged_partials += 1;
        let plan = &self.task.plan;
        let mut value = b"{\"reason\":\"AfterPurge\",\"start\":".to_vec();
        decimal::write_signed(start_ms, &mut value);
        value.extend_from_slice(b",\"end\":");
        decimal::write_signed(end_ms, &mut value);
        value.extend_from_slice(b",\"key\":{");
        value.extend_from_slice(key);
        value.push(b'}');
        if let Some(share) = plan.kept_since(&self.task.position.shed, start_ms) {
            share.write_member(&mut value);
        }
        value.extend_from_slice(b",\"values\":{");
        let length_ms = end_ms.saturating_sub(start_ms);
        plan.layout.write_values(self.row.get(0), length_ms, &mut value);
        value.extend_from_slice(b"}}");
        let purged = PurgedPartial {
            windows,
            watermark_ms: self.task.position.watermark_ms,
            value,
        };
        self.task.count_output(xxh3_64(&purged.value));
        purged
    }

    /// Moves the watermark up (never down), fires what has ended and purges what cannot change any more.
    fn advance_watermark(&mut self, to_ms: i64, outputs: &mut Outputs) {
        let from_ms = self.task.position.watermark_ms;
        if to_ms <= from_ms {
            return;
        }
        self.task.position.watermark_ms = to_ms;
        if to_ms < self.task.next_due_ms {
            return;
        }
        let due = self.task.due_between(from_ms, to_ms, &self.barred);
        for due in &due {
            if !self.task.fire_own(*due, from_ms, outputs) {
                self.fire_on_time(due.0, outputs);
            }
        }
        let barred_due = |set: &PaneSet| set.next_due(from_ms) <= to_ms;
        if self.task.is_to_purge(from_ms, to_ms, &due) || self.barred.values().any(barred_due) {
            self.purge(to_ms, &due);
        }
        self.task.next_due_ms = self.next_due();
    }

    fn purge(&mut self, to_ms: i64, due: &[Due]) {
        self.task.purge(to_ms, due);
        let purged = &mut self.purged;
        for ((index, barred_ms), set) in &mut self.barred {
            set.purge(to_ms, &mut self.task.keys, |pane| {
                if pane.stored {
                    purged.push((*index, *barred_ms, pane.start_ms));
                }
            });
        }
        self.barred.retain(|_, set| set.rows() > 0);
    }

    /// Obeys a decision record, which stands at the next input offset. All by the clock but ticks is decided where events come
    /// in.
    pub fn decide(&mut self, decision: &Decision, outputs: &mut Outputs) {
        match decision.kind {
            DecisionKind::Tick { now_ms } => self.task.tick(now_ms, outputs),
            DecisionKind::IdleAdvance { .. }
            | DecisionKind::FutureSkew { .. }
            | DecisionKind::Share(_)
            | DecisionKind::Cut(_) => {}
        }
    }

    /// As [`Task::tick_fires`].
    pub fn tick_fires(&self, now_ms: i64) -> bool {
        self.task.tick_fires(now_ms)
    }

    fn next_due(&self) -> i64 {
        let watermark_ms = self.task.position.watermark_ms;
        let barred = self.barred.values().map(|set| set.next_due(watermark_ms));
        barred.min().unwrap_or(i64::MAX).min(self.task.next_due())
    }
}

/// Looks at the windows that cover the pane of a partial: whether one of them takes it, which of those have ended, and
/// which would take it if they were not purged.
fn look(
    set: &PaneSetPlan,
    partial: &Partial<'_>,
    watermark_ms: i64,
    closing: &[Closing],
    losses: &mut [u64],
    ended: &mut Vec<Window>,
) -> bool {
    let mut is_open = false;
    for window in &set.windows {
        for end_ms in window.aligned.ends_of_pane(partial.start_ms, set.width_ms) {
            let closing = closing[window.index];
            if closing.by_lateness(end_ms) <= partial.barred_ms {
                continue;
            }
            if closing.at(end_ms) <= watermark_ms {
                losses[window.index] += 1;
                continue;
            }
            is_open = true;
            if end_ms <= watermark_ms {
                ended.push(Window {
                    end_ms,
                    start_ms: window.aligned.start_of(end_ms),
                    rank: window.rank,
                    index: window.index,
                });
            }
        }
    }
    is_open
}
