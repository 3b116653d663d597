//! The task: a sequential state machine over the records of one partition. Same records and decisions, same bytes out,
//! however they are cut into steps, epochs, restarts and owners (invariant I1).
//!
//! Must not hold: a clock, randomness, I/O, or anything that depends on how records are batched.

mod bad_ratio;
mod cell;
mod clock;
pub mod closing;
pub mod combine;
mod count;
mod emit;
mod explode;
mod fire;
mod instance;
mod judge;
pub mod merge;
mod merged;
mod paging;
mod pane;
mod persist;
mod persist_cells;
mod persist_counts;
pub mod query;
mod running;
mod session;
mod single;
mod size;
mod stats;
mod tick;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use self::bad_ratio::BadRatio;
use self::clock::Clock;
use self::closing::Closing;
use self::count::CountSet;
use self::instance::InstanceSet;
use self::judge::{AHEAD, Rejection, Scratch, Verdict};
use self::paging::Paging;
use self::pane::PaneSet;
use self::session::SessionSet;
use self::single::Singles;
pub use self::stats::Stats;
use self::tick::Ticks;
use super::builder::Plan;
use super::output::{DeadRecord, LateRecord, Output, Outputs, Record};
use super::position::{Decision, DecisionKind, TaskPosition};
use crate::core::key::KeyTable;

/// Watermark behind the end of the input.
const END_OF_INPUT: i64 = i64::MAX;

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepStatus {
    /// Every record was consumed.
    Continue,
    /// `maxBadRatio` was exceeded: the first `consumed` records were, and what they put out is valid.
    TooManyBadRecords {
        /// Records of the batch consumed.
        consumed: usize,
        /// Dead letters among the last `seen` records.
        bad: u64,
        /// Records looked at.
        seen: u64,
    },
}

/// One task: all state of one input partition.
#[derive(Clone, Debug)]
pub struct Task {
    plan: Arc<Plan>,
    /// Source partition, by which records to shed are chosen.
    partition: u32,
    position: TaskPosition,
    keys: KeyTable,
    /// When windows close, by index in the spec.
    closing: Vec<Closing>,
    /// It combines for window tasks ([`combine`]).
    is_first_stage: bool,
    sets: Vec<PaneSet>,
    instances: Vec<InstanceSet>,
    sessions: Vec<SessionSet>,
    counts: Vec<CountSet>,
    singles: Singles,
    ticks: Ticks,
    late: LateFirings,
    bad_ratio: BadRatio,
    /// Watermark at which something fires or is purged next; one compare per record.
    next_due_ms: i64,
    stats: Stats,
    clock: Clock,
    scratch: Scratch,
    unsaved: Unsaved,
    paging: Paging,
}

/// How often windows fired late, by (end, window, key). On-time firings need no entry: rows remember their birth.
#[derive(Clone, Debug, Default)]
struct LateFirings {
    counts: BTreeMap<(i64, usize, u32), u64>,
    dirty: BTreeSet<(i64, usize, u32)>,
}

impl LateFirings {
    /// The count of a window and key, and a reference to the key while there is one.
    fn count(&mut self, id: (i64, usize, u32), keys: &mut KeyTable) -> &mut u64 {
        self.counts.entry(id).or_insert_with(|| {
            keys.retain(id.2);
            0
        })
    }
}

/// Changes other than dirty rows that the store has not seen.
#[derive(Clone, Debug, Default)]
struct Unsaved {
    /// The layout document was never written (or everything has to be written anew).
    layout: bool,
    /// What the store has of lateness is not of this spec.
    latenesses: bool,
    /// Panes purged that the store holds: (set, start).
    purged_panes: Vec<(usize, i64)>,
    /// Windows whose late firings the store holds and that were purged: (window, end).
    purged_late: BTreeSet<(usize, i64)>,
    /// Instances purged that the store holds: (window, end).
    purged_instances: Vec<(usize, i64)>,
}

impl Task {
    /// A task without state that begins at `start_offset`.
    pub fn new(plan: Arc<Plan>, start_offset: i64) -> Task {
        Self::at(plan, TaskPosition::start(start_offset))
    }

    /// The same task, which reads this source partition: it decides which records are kept when load is shed.
    pub fn of_partition(self, partition: u32) -> Task {
        Task { partition, ..self }
    }

    fn at(plan: Arc<Plan>, position: TaskPosition) -> Task {
        Task {
            partition: 0,
            closing: closing::of(&plan),
            is_first_stage: false,
            sets: (plan.pane_sets.iter().enumerate())
                .map(|(index, set)| PaneSet::new(index, set))
                .collect(),
            instances: (plan.own_windows.instances.iter())
                .map(|index| InstanceSet::new(&plan, *index))
                .collect(),
            sessions: (plan.own_windows.sessions.iter())
                .map(|(index, rule)| SessionSet::new(&plan, *index, *rule))
                .collect(),
            counts: (plan.own_windows.counts.iter())
                .map(|(index, rule)| CountSet::new(&plan, *index, *rule))
                .collect(),
            singles: Singles::new(&plan),
            ticks: Ticks::new(&plan),
            scratch: Scratch::new(&plan),
            stats: Stats::new(plan.windows.len()),
            bad_ratio: BadRatio::new(plan.max_bad_ratio),
            keys: KeyTable::default(),
            late: LateFirings::default(),
            next_due_ms: i64::MAX,
            clock: Clock::default(),
            paging: Paging::default(),
            unsaved: Unsaved {
                layout: true,
                latenesses: true,
                ..Unsaved::default()
            },
            position,
            plan,
        }
    }

    /// Consumes records in offset order and appends what they put out. The caller drains `outputs` before the next
    /// step: late and dead records refer to this batch by index.
    pub fn step(&mut self, records: &[Record<'_>], outputs: &mut Outputs) -> StepStatus {
        let mut consumed = 0;
        for batch in records.chunks(AHEAD) {
            self.look_ahead(batch);
            for (place, record) in batch.iter().enumerate() {
                let before = outputs.list.len();
                let too_many = self.step_one(place, consumed, record, outputs);
                outputs.caused_by(consumed, before);
                if let Some((bad, seen)) = too_many {
                    return StepStatus::TooManyBadRecords {
                        consumed: consumed + 1,
                        bad,
                        seen,
                    };
                }
                consumed += 1;
            }
        }
        StepStatus::Continue
    }

    /// Judges the record read at `place`, the `index`th of the step. Answers bad records and records seen when there
    /// are too many bad ones.
    #[inline]
    fn step_one(
        &mut self,
        place: usize,
        index: usize,
        record: &Record<'_>,
        outputs: &mut Outputs,
    ) -> Option<(u64, u64)> {
        debug_assert!(record.offset >= self.position.input_offset, "offsets ascend");
        self.clock.begin(self.position.input_offset);
        self.advance_position(record);
        if self.sheds(record) {
            return None;
        }
        let bad = match self.judge(place, record, &mut outputs.decisions) {
            Ok(verdict) => {
                self.obey(verdict, index, record, outputs);
                false
            }
            Err(rejection) => {
                self.reject(rejection, index, record, outputs);
                true
            }
        };
        self.bad_ratio.observe(self.position.input_count, bad)
    }

    /// Obeys a decision record. It must stand at the task's next input offset.
    pub fn decide(&mut self, decision: &Decision, outputs: &mut Outputs) {
        debug_assert_eq!(
            decision.input_offset, self.position.input_offset,
            "decisions are pinned to an offset"
        );
        match decision.kind {
            DecisionKind::IdleAdvance { watermark_ms } => self.advance_watermark(watermark_ms, outputs),
            DecisionKind::FutureSkew { now_ms } => self.clock.obey(now_ms),
            DecisionKind::Tick { now_ms } => self.tick(now_ms, outputs),
            DecisionKind::Share(share) => self.position.shed.keep(share),
            // For window tasks only ([`merge::WindowTask::rewound`]).
            DecisionKind::Cut(_) => {}
        }
    }

    /// Whether the record in hand is passed over to shed load; nobody has looked at it, and it stands for nothing.
    #[inline]
    fn sheds(&mut self, record: &Record<'_>) -> bool {
        let sheds = !self.position.shed.share.keeps(self.partition, record.offset);
        self.stats.shed += u64::from(sheds);
        sheds
    }

    /// The clock as the shell read it before the records that follow; `None` (a replay) decides nothing anew.
    pub fn set_clock(&mut self, now_ms: Option<i64>) {
        self.clock.now_ms = now_ms;
    }

    /// The watermark at which something fires or is purged next; `i64::MAX` when nothing waits.
    pub fn next_due_ms(&self) -> i64 {
        self.next_due_ms
    }

    /// The input has ended: every window that has not fired does.
    pub fn end_of_input(&mut self, outputs: &mut Outputs) {
        self.advance_watermark(END_OF_INPUT, outputs);
    }

    /// Where the task stands.
    pub fn position(&self) -> TaskPosition {
        self.position
    }

    /// Names of the windows, in the order of the spec.
    pub fn window_names(&self) -> &[String] {
        self.plan.window_names()
    }

    /// Results from here on carry this `pane.revision`.
    pub fn set_result_revision(&mut self, revision: u32) {
        self.position.result_revision = revision;
    }

    /// Counters since this task object was made (they are not state).
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Keys with state in memory.
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Rows of state, in memory or not: (pane, key) pairs over all pane sets, keys of instances, sessions, rows of count windows.
    pub fn rows(&self) -> usize {
        let shared: usize = self.sets.iter().map(PaneSet::rows).sum();
        let own: usize = self.instances.iter().map(InstanceSet::len).sum();
        let sessions: usize = self.sessions.iter().map(SessionSet::len).sum();
        let counts: usize = self.counts.iter().map(CountSet::rows).sum();
        shared + own + sessions + counts + self.singles.len()
    }

    /// Window instances that have state and have not been purged.
    pub fn open_windows(&self) -> u64 {
        let watermark = self.position.watermark_ms;
        let mut open = BTreeSet::new();
        for set in &self.sets {
            for (start, window) in set.pane_windows() {
                open.extend(
                    window
                        .aligned
                        .ends_of_pane(start, set.width_ms())
                        .filter(|end| self.closing[window.index].at(*end) > watermark)
                        .map(|end| (end, window.index)),
                );
            }
        }
        let own: usize = self.instances.iter().map(|set| set.instances.len()).sum();
        let sessions: usize = self.sessions.iter().map(SessionSet::len).sum();
        let counts: usize = self.counts.iter().map(CountSet::len).sum();
        (open.len() + own + sessions + counts) as u64
    }

    fn advance_position(&mut self, record: &Record<'_>) {
        let position = &mut self.position;
        position.input_offset = record.offset + 1;
        position.input_count += 1;
        position.input_hash = chain(position.input_hash, record.offset as u64 ^ edge_hash(record.value));
        self.stats.records += 1;
    }

    fn obey(&mut self, verdict: Verdict, index: usize, record: &Record<'_>, outputs: &mut Outputs) {
        match verdict {
            Verdict::Counted { event_time_ms, key } => self.counted(event_time_ms, key, outputs),
            Verdict::Elements => self.count_elements(index, record, outputs),
            Verdict::Filtered => self.stats.filtered += 1,
            Verdict::Outside => self.stats.outside += 1,
            Verdict::Late { event_time_ms } => self.put_late(event_time_ms, index, record, outputs),
        }
        self.advance_watermark(self.scratch.candidate_ms, outputs);
    }

    /// What is left to do for an event that was added to panes and instances. What has ended fires in the window tasks
    /// where there are such, when the partial comes there.
    fn counted(&mut self, event_time_ms: i64, key: u32, outputs: &mut Outputs) {
        self.add_to_sessions(event_time_ms, key, outputs);
        if !self.is_first_stage && !self.scratch.firing.is_empty() {
            self.fire_for_event(key, outputs);
        }
    }

    fn put_late(&mut self, event_time_ms: i64, index: usize, record: &Record<'_>, outputs: &mut Outputs) {
        self.stats.late += 1;
        let windows = self.missed_names(&self.scratch.missed);
        self.put_late_record(event_time_ms, windows, Vec::new(), (index, record), outputs);
    }

    fn put_late_record(
        &mut self,
        event_time_ms: i64,
        windows: String,
        elements: Vec<u32>,
        (index, record): (usize, &Record<'_>),
        outputs: &mut Outputs,
    ) {
        let watermark_ms = self.position.watermark_ms;
        self.count_output(xxh3_64(&record.offset.to_le_bytes()));
        outputs.list.push(Output::Late(LateRecord {
            record: index,
            elements,
            windows,
            watermark_ms,
            lateness_ms: watermark_ms - event_time_ms,
        }));
    }

    fn reject(&mut self, rejection: Rejection, index: usize, record: &Record<'_>, outputs: &mut Outputs) {
        self.stats.rejected[rejection.reason as usize] += 1;
        self.count_output(xxh3_64(&record.offset.to_le_bytes()) ^ rejection.reason as u64);
        outputs.list.push(Output::Dead(DeadRecord {
            record: index,
            reason: rejection.reason,
            detail: rejection.detail,
            watermark_ms: self.position.watermark_ms,
        }));
    }

    /// Names of windows missed, in the order of the spec.
    fn missed_names(&self, missed: &[u64]) -> String {
        let names = self
            .plan
            .windows
            .iter()
            .enumerate()
            .filter(|(index, _)| missed[*index] > 0);
        names
            .map(|(_, window)| window.plan.name.as_str())
            .collect::<Vec<_>>()
            .join(",")
    }

    fn count_output(&mut self, hash: u64) {
        self.position.output_seq += 1;
        self.position.output_hash = chain(self.position.output_hash, hash);
    }
}

/// Order-dependent running hash; not cryptographic, it tells histories apart that went different ways by accident.
fn chain(hash: u64, value: u64) -> u64 {
    (hash.rotate_left(5) ^ value)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(23)
}

/// Length, first and last eight bytes of a value: enough to tell records apart at a fraction of a full hash's cost.
fn edge_hash(value: &[u8]) -> u64 {
    let word = |bytes: &[u8]| bytes.iter().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
    let head = &value[..value.len().min(8)];
    let tail = &value[value.len().saturating_sub(8)..];
    word(head).rotate_left(17) ^ word(tail) ^ (value.len() as u64) << 40
}

#[cfg(test)]
mod tests;
