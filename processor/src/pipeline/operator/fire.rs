//! Firing windows as the watermark advances, and writing results.
//! Outputs of one moment go in order of (end, start, window name, key bytes).

use xxhash_rust::xxh3::xxh3_64;

use super::pane::Pane;
use super::{END_OF_INPUT, Task};
use crate::aggregation::rows::{RowRef, RowStore};
use crate::core::{decimal, key};
use crate::pipeline::output::{Output, Outputs, ResultRecord};
use crate::window::types::Window;

/// When a pane of results is produced relative to the watermark.
#[derive(Clone, Copy)]
enum Timing {
    OnTime,
    Late,
}

/// What identifies one firing of one key.
struct Firing<'a> {
    window: Window,
    key: u32,
    index: u64,
    timing: Timing,
    is_final: bool,
    values: RowRef<'a>,
}

impl Task {
    /// Moves the watermark up (never down), fires what has ended and purges what cannot change any more.
    pub(super) fn advance_watermark(&mut self, to_ms: i64, outputs: &mut Outputs) {
        let from_ms = self.position.watermark_ms;
        if to_ms <= from_ms {
            return;
        }
        self.position.watermark_ms = to_ms;
        if to_ms < self.next_due_ms {
            return;
        }
        for window in self.ended_between(from_ms, to_ms) {
            self.fire_on_time(window, outputs);
        }
        self.purge(to_ms);
        self.next_due_ms = self
            .sets
            .iter()
            .map(|set| set.next_due(&self.plan, to_ms))
            .min()
            .unwrap_or(i64::MAX);
    }

    /// Windows with state whose end lies in `(from, to]`, in firing order.
    fn ended_between(&self, from_ms: i64, to_ms: i64) -> Vec<Window> {
        let mut ended = Vec::new();
        for set in &self.sets {
            for (start, index) in set.pane_windows() {
                let window = &self.plan.windows[index];
                let assigner = &window.plan.assigner;
                let (Some(first), Some(last)) = (
                    assigner.first_end_of_pane_above(start, set.width_ms(), from_ms),
                    assigner.last_end_of_pane(start, set.width_ms()),
                ) else {
                    continue;
                };
                let mut end_ms = first;
                while end_ms <= to_ms.min(last) {
                    let start_ms = end_ms - assigner.size_ms();
                    ended.push(Window {
                        end_ms,
                        start_ms,
                        rank: window.rank,
                        index,
                    });
                    end_ms += assigner.slide_ms();
                }
            }
        }
        ended.sort_unstable();
        ended.dedup();
        ended
    }

    fn fire_on_time(&mut self, window: Window, outputs: &mut Outputs) {
        let is_final =
            self.plan.windows[window.index].plan.allowed_lateness_ms == 0 || self.position.watermark_ms == END_OF_INPUT;
        let (keys, rows) = self.merged_rows(&window);
        for (key, row) in keys {
            let values = rows.get(row);
            self.emit(
                &Firing {
                    window,
                    key,
                    index: 0,
                    timing: Timing::OnTime,
                    is_final,
                    values,
                },
                outputs,
            );
        }
    }

    /// All keys of a window in byte order, with the index of each one's merged row.
    fn merged_rows(&self, window: &Window) -> (Vec<(u32, u32)>, RowStore) {
        const NONE: u32 = u32::MAX;
        let panes = self.panes_of(window);
        let mut row_of = vec![NONE; self.keys.capacity()];
        let mut keys: Vec<(u32, u32)> = Vec::with_capacity(panes.iter().map(|pane| pane.keys.len()).max().unwrap_or(0));
        let mut rows = RowStore::new(&self.plan.layout, 0);
        rows.reserve(keys.capacity());
        for pane in panes {
            for (row, key) in pane.keys.iter().enumerate() {
                let values = pane.values(row as u32);
                let merged = &mut row_of[*key as usize];
                if *merged == NONE {
                    *merged = rows.push_copy(values);
                    keys.push((*key, *merged));
                } else {
                    self.plan.layout.merge(rows.get_mut(*merged), values);
                }
            }
        }
        keys.sort_unstable_by(|a, b| self.keys.bytes(a.0).cmp(self.keys.bytes(b.0)));
        (keys, rows)
    }

    fn panes_of(&self, window: &Window) -> &[Pane] {
        let set = self
            .plan
            .pane_sets
            .iter()
            .position(|set| set.windows.contains(&window.index));
        set.map_or(&[], |set| self.sets[set].range(window.start_ms, window.end_ms))
    }

    /// The event just added belongs to windows that have ended and still take events: each fires again for its key.
    pub(super) fn fire_late(&mut self, key: u32, outputs: &mut Outputs) {
        let mut windows = std::mem::take(&mut self.scratch.late_windows);
        windows.sort_unstable();
        for window in &windows {
            let mut rows = RowStore::new(&self.plan.layout, 0);
            let merged = rows.push();
            let mut fired_on_time = false;
            for pane in self.panes_of(window) {
                if let Some(row) = pane.find(key) {
                    fired_on_time |= pane.born_ms(row) < window.end_ms;
                    self.plan.layout.merge(rows.get_mut(merged), pane.values(row));
                }
            }
            let id = (window.end_ms, window.index, key);
            let count = self.late.counts.entry(id).or_insert(0);
            let index = *count + u64::from(fired_on_time);
            *count += 1;
            self.late.dirty.insert(id);
            let firing = Firing {
                window: *window,
                key,
                index,
                timing: Timing::Late,
                is_final: false,
                values: rows.get(merged),
            };
            self.emit(&firing, outputs);
        }
        self.scratch.late_windows = windows;
    }

    /// Forgets what no event can reach any more. Late firings go first: they refer to keys of panes.
    fn purge(&mut self, watermark_ms: i64) {
        let (late, unsaved, windows) = (&mut self.late, &mut self.unsaved, &self.plan.windows);
        let purged =
            |id: &(i64, usize, u32)| id.0.saturating_add(windows[id.1].plan.allowed_lateness_ms) <= watermark_ms;
        for id in late
            .counts
            .range(..(watermark_ms, 0, 0))
            .map(|(id, _)| *id)
            .filter(purged)
            .collect::<Vec<_>>()
        {
            late.counts.remove(&id);
            late.dirty.remove(&id);
            unsaved.purged_late.insert((id.1, id.0));
        }
        for (index, set) in self.sets.iter_mut().enumerate() {
            set.purge(watermark_ms, &mut self.keys, |pane| {
                if pane.stored {
                    unsaved.purged_panes.push((index, pane.start_ms));
                }
            });
        }
    }

    fn emit(&mut self, firing: &Firing<'_>, outputs: &mut Outputs) {
        let window = &firing.window;
        let compiled = &self.plan.windows[window.index];
        let key_bytes = self.keys.bytes(firing.key);
        let out = &mut outputs.bytes;
        let key_start = out.len();
        out.extend_from_slice(b"{\"window\":");
        out.extend_from_slice(&compiled.name_json);
        out.extend_from_slice(b",\"start\":");
        decimal::write_signed(window.start_ms, out);
        out.extend_from_slice(b",\"key\":{");
        out.extend_from_slice(key_bytes);
        out.extend_from_slice(b"}}");
        let value_start = out.len();
        out.extend_from_slice(b"{\"op\":\"Upsert\",\"window\":");
        out.extend_from_slice(&compiled.name_json);
        out.extend_from_slice(b",\"start\":");
        decimal::write_signed(window.start_ms, out);
        out.extend_from_slice(b",\"end\":");
        decimal::write_signed(window.end_ms, out);
        out.extend_from_slice(b",\"key\":{");
        out.extend_from_slice(key_bytes);
        out.extend_from_slice(b"},\"pane\":{\"index\":");
        decimal::write_integer(firing.index, out);
        out.extend_from_slice(match firing.timing {
            Timing::OnTime => b",\"timing\":\"OnTime\",\"final\":".as_slice(),
            Timing::Late => b",\"timing\":\"Late\",\"final\":".as_slice(),
        });
        out.extend_from_slice(if firing.is_final {
            b"true".as_slice()
        } else {
            b"false".as_slice()
        });
        out.extend_from_slice(b",\"revision\":");
        decimal::write_integer(u64::from(self.position.result_revision), out);
        out.extend_from_slice(b"},\"values\":{");
        let length_ms = window.end_ms.saturating_sub(window.start_ms);
        self.plan.layout.write_values(firing.values, length_ms, out);
        out.extend_from_slice(b"}}");
        let value_end = out.len();
        let hash = xxh3_64(&out[value_start..]);
        outputs.list.push(Output::Result(ResultRecord {
            key: key_start..value_start,
            value: value_start..value_end,
            window: window.index,
            end_ms: window.end_ms,
            partition_hash: key::murmur2(key_bytes),
        }));
        self.stats.results += 1;
        self.count_output(hash);
    }
}
