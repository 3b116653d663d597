//! The first stage of `partitioning: any`: one task a source partition. It judges events, lateness by the watermark of
//! its own partition, and pre-aggregates them into partials for the window tasks (`merge`).
//!
//! It has no state but what it says of itself at the end of an epoch, and never replays. How epochs are cut decides how
//! events are divided into partials, never what the partials of a window add up to.
//! Must not hold: windows that fire, transactions.

mod cells;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::closing::Latenesses;
use super::judge::{AHEAD, Verdict};
use super::{END_OF_INPUT, Stats, StepStatus, Task};
use crate::core::key;
use crate::core::share::Shed;
use crate::pipeline::builder::{PaneSetPlan, Plan};
use crate::pipeline::output::{Outputs, Record};
use crate::pipeline::position::{Decision, DecisionKind, NO_WATERMARK, TaskPosition};
use crate::pipeline::shuffle::{self, Destination, Header, RECORD_BYTES_MAX, Shuffle};
use crate::window::types::{Assigner, WindowPlan};

/// Watermarks go out at the multiples of this, ms, where windows have no ends that are known before; for sessions of a
/// shorter gap at the multiples of that. Sessions fire on time when one is passed.
const GRID_MS: i64 = 1000;

/// Where a combine task stands among others. All of it goes into its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Number of its source partition; it also breaks ties of `first`, `last` and extremes.
    pub index: u32,
    /// How many source partitions there are.
    pub count: u32,
    /// The history that it writes; at most [`shuffle::LINEAGE_BYTES_MAX`] bytes.
    pub lineage: String,
    /// Partitions of the shuffle topic; never changes in the life of a job. At least 1.
    pub shuffle_partitions: u32,
}

/// Everything that a combine task is, between two epochs: it belongs into the committed position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CombineState {
    /// Where it stands.
    pub position: TaskPosition,
    /// The rest.
    pub carried: Carried,
}

/// What a combine task carries from epoch to epoch beside its position.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Carried {
    /// Which of the last records were dead letters, in hexadecimal; absent when none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bad_records: Option<String>,
    /// Fingerprint of the layout that was told of last, in the history that it writes; absent before the first record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<u64>,
    /// What the windows allow, and what of them earlier specs have closed; absent where nobody knew.
    #[serde(default, skip_serializing_if = "Latenesses::is_empty")]
    pub latenesses: Latenesses,
}

/// Makes a record of parts of one kind.
type WriteParts = fn(&Header<'_>, &[u8], &mut Vec<u8>);

/// One combine task.
#[derive(Clone, Debug)]
pub struct Combine {
    /// Judges events and holds the rows of the open epoch; it never fires.
    task: Task,
    source: Source,
    layout: u64,
    /// The watermark at which the partials so far must be out, for a window ends or is purged there.
    due_ms: i64,
    carried: Carried,
    /// What the window tasks know of load shedding.
    told: Option<Shed>,
    /// Partials by shuffle partition; empty between calls.
    buffers: Vec<Vec<u8>>,
}

impl Combine {
    /// A task that begins at `start_offset`.
    pub fn new(plan: Arc<Plan>, source: Source, start_offset: i64) -> Self {
        let state = CombineState {
            position: TaskPosition::start(start_offset),
            carried: Carried::default(),
        };
        Self::restore(plan, source, &state)
    }

    /// The task that said `state` of itself.
    pub fn restore(plan: Arc<Plan>, source: Source, state: &CombineState) -> Self {
        let mut task = Task::at(plan, state.position);
        task.scratch.partition = source.index;
        task.partition = source.index;
        task.is_first_stage = true;
        task.close_again(&state.carried.latenesses);
        // What is no such text was no dead letter: the guard may then be late, and nothing else depends on it.
        if let Some(bits) = (state.carried.bad_records.as_ref()).and_then(|text| hex::decode(text).ok()) {
            task.bad_ratio.load(&bits);
        }
        let mut combine = Self {
            layout: task.plan.fingerprint(),
            due_ms: 0,
            carried: Carried {
                latenesses: task.latenesses(),
                ..state.carried.clone()
            },
            told: None,
            buffers: vec![Vec::new(); source.shuffle_partitions as usize],
            task,
            source,
        };
        combine.due_ms = combine.next_due();
        combine
    }

    /// Consumes records in offset order. Late and dead records go to `outputs`, partials that must not wait for the end
    /// of the epoch and in-band watermarks to `shuffle`. As for a [`Task`], `outputs` is drained before the next step.
    pub fn step(&mut self, records: &[Record<'_>], outputs: &mut Outputs, shuffle: &mut Shuffle) -> StepStatus {
        let mut consumed = 0;
        for batch in records.chunks(AHEAD) {
            self.task.look_ahead(batch);
            for (place, record) in batch.iter().enumerate() {
                let before = outputs.list.len();
                let too_many = self.step_one(place, consumed, record, outputs, shuffle);
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

    /// As [`Task::step`] does with one record.
    fn step_one(
        &mut self,
        place: usize,
        index: usize,
        record: &Record<'_>,
        outputs: &mut Outputs,
        shuffle: &mut Shuffle,
    ) -> Option<(u64, u64)> {
        let task = &mut self.task;
        task.clock.begin(task.position.input_offset);
        task.advance_position(record);
        if task.sheds(record) {
            return None;
        }
        let verdict = task.judge(place, record, &mut outputs.decisions);
        let bad = verdict.is_err();
        match verdict {
            Ok(verdict) => self.obey(verdict, index, record, outputs, shuffle),
            Err(rejection) => task.reject(rejection, index, record, outputs),
        }
        let task = &mut self.task;
        task.bad_ratio.observe(task.position.input_count, bad)
    }

    /// Obeys a decision record, which stands at the next input offset.
    pub fn decide(&mut self, decision: &Decision, shuffle: &mut Shuffle) {
        match decision.kind {
            DecisionKind::IdleAdvance { watermark_ms } => self.advance_watermark(watermark_ms, None, shuffle),
            DecisionKind::FutureSkew { now_ms } => self.task.clock.obey(now_ms),
            // For window tasks only.
            DecisionKind::Tick { .. } | DecisionKind::Cut(_) => {}
            DecisionKind::Share(share) => {
                let sheds_more = share.halvings > self.task.position.shed.share.halvings;
                if sheds_more {
                    self.flush(shuffle);
                }
                self.task.position.shed.keep(share);
                // Late panes are written without a watermark before them: what is in them knows already.
                if sheds_more {
                    self.tell_shed(shuffle);
                }
            }
        }
    }

    /// The clock as the shell read it before the records that follow.
    pub fn set_clock(&mut self, now_ms: Option<i64>) {
        self.task.set_clock(now_ms);
    }

    /// The source partition has ended: the window tasks need not wait for it any more.
    pub fn end_of_input(&mut self, shuffle: &mut Shuffle) {
        self.advance_watermark(END_OF_INPUT, None, shuffle);
    }

    /// Ends an epoch: every partial goes out, and what is left of the task is what this answers.
    pub fn close_epoch(&mut self, shuffle: &mut Shuffle) -> CombineState {
        self.flush(shuffle);
        if let Some(bits) = self.task.bad_ratio.take_changed() {
            self.carried.bad_records = bits.iter().any(|byte| *byte != 0).then(|| hex::encode(bits));
        }
        CombineState {
            position: self.task.position,
            carried: self.carried.clone(),
        }
    }

    /// Where the task stands. Its state is this only when an epoch has just been closed.
    pub fn position(&self) -> TaskPosition {
        self.task.position
    }

    /// The watermark at which something must go out next.
    pub fn next_due_ms(&self) -> i64 {
        self.due_ms
    }

    /// Rows that wait for the end of the epoch.
    pub fn rows(&self) -> usize {
        self.task.rows()
    }

    /// Bytes of memory that they take on the heap.
    pub fn state_bytes(&self) -> usize {
        self.task.state_bytes()
    }

    /// Counters since this object was made.
    pub fn stats(&self) -> &Stats {
        &self.task.stats
    }

    fn obey(
        &mut self,
        verdict: Verdict,
        index: usize,
        record: &Record<'_>,
        outputs: &mut Outputs,
        shuffle: &mut Shuffle,
    ) {
        match verdict {
            Verdict::Counted { event_time_ms, key } => self.task.counted(event_time_ms, key, outputs),
            Verdict::Elements => self.task.count_elements(index, record, outputs),
            Verdict::Filtered => self.task.stats.filtered += 1,
            Verdict::Outside => self.task.stats.outside += 1,
            Verdict::Late { event_time_ms } => self.task.put_late(event_time_ms, index, record, outputs),
        }
        self.advance_watermark(self.task.scratch.candidate_ms, Some(index), shuffle);
    }

    /// Moves the watermark up. Where it passes the end or the purge of a window, what was counted before goes out before
    /// it and what is counted after goes out after it: so the window fires over the same events wherever epochs end. `cause`
    /// is the record of the step's batch that does it.
    fn advance_watermark(&mut self, to_ms: i64, cause: Option<usize>, shuffle: &mut Shuffle) {
        if to_ms <= self.task.position.watermark_ms {
            return;
        }
        if to_ms < self.due_ms {
            self.task.position.watermark_ms = to_ms;
            return;
        }
        self.flush(shuffle);
        self.task.position.watermark_ms = to_ms;
        self.due_ms = self.next_due();
        self.tell_shed(shuffle);
        self.push(Destination::Every, shuffle, |header, out| {
            shuffle::write_watermark(header, to_ms, out);
        });
        if let Some(watermark) = shuffle.list.last_mut() {
            watermark.cause = cause;
        }
    }

    /// Tells the window tasks what was shed, where results say it, before what lets windows fire.
    fn tell_shed(&mut self, shuffle: &mut Shuffle) {
        let shed = self.task.position.shed;
        if self.task.plan.says_share && self.told.replace(shed) != Some(shed) {
            self.push(Destination::Every, shuffle, |header, out| {
                shuffle::write_shed(header, &shed, out);
            });
        }
    }

    /// Puts out every partial.
    fn flush(&mut self, shuffle: &mut Shuffle) {
        self.flush_panes(shuffle);
        self.flush_cells(shuffle);
        self.task.next_due_ms = i64::MAX;
    }

    fn flush_panes(&mut self, shuffle: &mut Shuffle) {
        let watermark_ms = self.task.position.watermark_ms;
        let plan = Arc::clone(&self.task.plan);
        let mut partial = Vec::new();
        let mut sets = std::mem::take(&mut self.task.sets);
        for (index, set) in sets.iter_mut().enumerate() {
            for pane in set.panes_mut() {
                let barred_ms = barred(&plan.pane_sets[index], pane.start_ms, watermark_ms);
                for (row, key) in pane.keys.iter().enumerate() {
                    let key = self.task.keys.bytes(*key);
                    let encode = |out: &mut Vec<u8>| plan.layout.encode(pane.values(row as u32), out);
                    partial.clear();
                    shuffle::write_partial(index, pane.start_ms, barred_ms, key, encode, &mut partial);
                    let partition = self.partition_of(key);
                    self.keep(partition, &partial, shuffle::write_partials, shuffle);
                }
            }
            set.purge(END_OF_INPUT, &mut self.task.keys, |_| {});
        }
        self.task.sets = sets;
        self.push_buffers(shuffle::write_partials, shuffle);
    }

    /// The partition that has a key.
    fn partition_of(&self, key: &[u8]) -> u32 {
        (key::murmur2(key) & 0x7fff_ffff) % self.source.shuffle_partitions
    }

    /// Keeps a part for a shuffle partition; those before it go out when a record is full.
    fn keep(&mut self, partition: u32, part: &[u8], write: WriteParts, shuffle: &mut Shuffle) {
        let full = self.buffers[partition as usize].len() + part.len() > RECORD_BYTES_MAX;
        if full {
            self.push_buffer(partition, write, shuffle);
        }
        self.buffers[partition as usize].extend_from_slice(part);
    }

    /// Makes a record of the parts that wait for each shuffle partition, if any do.
    fn push_buffers(&mut self, write: WriteParts, shuffle: &mut Shuffle) {
        for partition in 0..self.source.shuffle_partitions {
            self.push_buffer(partition, write, shuffle);
        }
    }

    fn push_buffer(&mut self, partition: u32, write: WriteParts, shuffle: &mut Shuffle) {
        let mut parts = std::mem::take(&mut self.buffers[partition as usize]);
        if !parts.is_empty() {
            self.push(Destination::One(partition), shuffle, |header, out| {
                write(header, &parts, out);
            });
        }
        parts.clear();
        self.buffers[partition as usize] = parts;
    }

    /// Appends a record. The first of a layout comes behind the layout itself: whoever reads it may never have had this spec.
    fn push(&mut self, destination: Destination, shuffle: &mut Shuffle, write: impl FnOnce(&Header<'_>, &mut Vec<u8>)) {
        if self.carried.layout != Some(self.layout) {
            self.carried.layout = Some(self.layout);
            let document = self.task.plan.state_layout.document();
            self.push_record(Destination::Every, shuffle, |header, out| {
                shuffle::write_layout(header, &document, out);
            });
        }
        self.push_record(destination, shuffle, write);
    }

    fn push_record(
        &mut self,
        destination: Destination,
        shuffle: &mut Shuffle,
        write: impl FnOnce(&Header<'_>, &mut Vec<u8>),
    ) {
        let header = Header {
            layout: self.layout,
            source: self.source.index,
            sources: self.source.count,
            sequence: self.task.position.output_seq + 1,
            lineage: &self.source.lineage,
        };
        let hash = xxh3_64(shuffle.push(destination, |out| write(&header, out)));
        self.task.count_output(hash);
    }

    /// The next watermark, above the present one, at which a window may end or be purged.
    fn next_due(&self) -> i64 {
        let watermark_ms = self.task.position.watermark_ms;
        if watermark_ms == NO_WATERMARK {
            // Window tasks wait for every source partition: the first watermark is always news.
            return NO_WATERMARK + 1;
        }
        let windows = self.task.plan.windows.iter();
        windows
            .map(|window| next_due_of(&window.plan, watermark_ms))
            .min()
            .unwrap_or(i64::MAX)
    }
}

/// The first watermark above `above_ms` at which an instance of the window ends or is purged, or on the grid.
fn next_due_of(window: &WindowPlan, above_ms: i64) -> i64 {
    let lateness_ms = window.allowed_lateness_ms;
    match &window.assigner {
        Assigner::Aligned(aligned) => {
            // Ends of cumulative windows lie at every step, and their size is a multiple of it.
            let origin = i128::from(aligned.offset_ms()) + i128::from(aligned.size_ms());
            let next = |shift_ms| next_multiple(aligned.slide_ms(), origin + i128::from(shift_ms), above_ms);
            next(0).min(next(lateness_ms))
        }
        Assigner::Calendar(_) if above_ms == END_OF_INPUT => END_OF_INPUT,
        Assigner::Calendar(calendar) => {
            let next = |shift_ms: i64| {
                let (_, end_ms) = calendar.span_of(above_ms.saturating_sub(shift_ms));
                end_ms.saturating_add(shift_ms)
            };
            next(0).min(next(lateness_ms))
        }
        Assigner::Session(rule) => next_multiple(rule.longest_gap_ms().clamp(1, GRID_MS), 0, above_ms),
        Assigner::Global | Assigner::Count(_) => next_multiple(GRID_MS, 0, above_ms),
    }
}

/// The first time above `above_ms` that is a multiple of `step_ms` away from `origin`; the end of time at most.
fn next_multiple(step_ms: i64, origin: i128, above_ms: i64) -> i64 {
    let (step, above) = (i128::from(step_ms), i128::from(above_ms));
    let next = above - (above - origin).rem_euclid(step) + step;
    i64::try_from(next).unwrap_or(i64::MAX)
}

/// The last purge at or before the watermark of a window that covers the pane; events that come now are barred from
/// those purged until then, and the window task may not have come so far.
fn barred(set: &PaneSetPlan, start_ms: i64, watermark_ms: i64) -> i64 {
    let purges = set.windows.iter().filter_map(|window| {
        let until_ms = watermark_ms.saturating_sub(window.allowed_lateness_ms);
        let end_ms = (window.aligned).last_end_of_pane_until(start_ms, set.width_ms, until_ms)?;
        Some(end_ms.saturating_add(window.allowed_lateness_ms))
    });
    purges.max().unwrap_or(NO_WATERMARK)
}

impl Plan {
    /// Tells layouts of partials apart: equal ones have equal windows, panes, keys and accumulators.
    pub fn fingerprint(&self) -> u64 {
        self.state_layout.fingerprint()
    }
}
