//! Writing results: one firing of one key as the bytes of a record. Must not decide when something fires.

use xxhash_rust::xxh3::xxh3_64;

use super::merged::Merged;
use super::stats::Stats;
use super::{Task, chain};
use crate::aggregation::rows::RowRef;
use crate::core::decimal;
use crate::core::key::{self, KeyTable};
use crate::pipeline::builder::Plan;
use crate::pipeline::output::{Output, Outputs, ResultRecord};
use crate::pipeline::position::TaskPosition;
use crate::window::types::{Assigner, Window};

/// When a pane of results is produced relative to the end of its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timing {
    /// Before the watermark is there.
    Early = 1,
    /// When it comes there.
    OnTime = 2,
    /// Afterwards.
    Late = 3,
    /// When the window closes.
    Final = 4,
}

impl Timing {
    const ALL: [Self; 4] = [Self::Early, Self::OnTime, Self::Late, Self::Final];

    /// The timing that is stored as this number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|timing| *timing as u8 == code)
    }

    fn name(self) -> &'static [u8] {
        match self {
            Self::Early => b"Early",
            Self::OnTime => b"OnTime",
            Self::Late => b"Late",
            Self::Final => b"Final",
        }
    }
}

/// Which firing of a window and key a pane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PaneLabel {
    pub index: u64,
    pub timing: Timing,
    pub is_final: bool,
}

/// What is done with a pane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Upsert,
    Retract,
}

/// What identifies one firing of one key, and its values.
pub(super) struct Firing<'a> {
    pub operation: Operation,
    pub window: Window,
    /// Its canonical bytes.
    pub key: &'a [u8],
    pub pane: PaneLabel,
    pub values: RowRef<'a>,
}

/// The parts of a task that writing a result needs, apart from its rows.
pub(super) struct Emitter<'a> {
    pub plan: &'a Plan,
    pub keys: &'a KeyTable,
    pub position: &'a mut TaskPosition,
    pub stats: &'a mut Stats,
    pub outputs: &'a mut Outputs,
}

impl Task {
    /// Writes the result of one key.
    pub(super) fn emit(
        &mut self,
        window: Window,
        key: u32,
        pane: PaneLabel,
        values: RowRef<'_>,
        outputs: &mut Outputs,
    ) {
        let (_, mut emitter) = self.own_sets(outputs);
        emitter.emit(&Firing {
            operation: Operation::Upsert,
            window,
            key: emitter.keys.bytes(key),
            pane,
            values,
        });
    }

    /// Writes the results of all keys of a window.
    pub(super) fn emit_merged(&mut self, merged: Merged, window: Window, pane: PaneLabel, outputs: &mut Outputs) {
        let (_, mut emitter) = self.own_sets(outputs);
        merged.for_each(emitter.keys, |key, values| {
            emitter.emit(&Firing {
                operation: Operation::Upsert,
                window,
                key,
                pane,
                values,
            });
        });
    }
}

impl Emitter<'_> {
    pub fn emit(&mut self, firing: &Firing<'_>) {
        let window = &firing.window;
        let compiled = &self.plan.windows[window.index];
        let key_bytes = firing.key;
        let out = &mut self.outputs.bytes;
        let key_start = out.len();
        out.extend_from_slice(b"{\"window\":");
        out.extend_from_slice(&compiled.name_json);
        out.extend_from_slice(b",\"start\":");
        write_time(window.start_ms, out);
        // Where results share their start, a compacted topic would keep one of them only.
        match &compiled.plan.assigner {
            Assigner::Aligned(aligned) if aligned.is_cumulative() => {
                out.extend_from_slice(b",\"end\":");
                write_time(window.end_ms, out);
            }
            Assigner::Count(_) => {
                out.extend_from_slice(b",\"index\":");
                decimal::write_integer(firing.pane.index, out);
            }
            Assigner::Aligned(_) | Assigner::Calendar(_) | Assigner::Global | Assigner::Session(_) => {}
        }
        out.extend_from_slice(b",\"key\":{");
        out.extend_from_slice(key_bytes);
        out.extend_from_slice(b"}}");
        let value_start = out.len();
        out.extend_from_slice(match firing.operation {
            Operation::Upsert => b"{\"op\":\"Upsert\",\"window\":".as_slice(),
            Operation::Retract => b"{\"op\":\"Retract\",\"window\":".as_slice(),
        });
        out.extend_from_slice(&compiled.name_json);
        out.extend_from_slice(b",\"start\":");
        write_time(window.start_ms, out);
        out.extend_from_slice(b",\"end\":");
        write_time(window.end_ms, out);
        out.extend_from_slice(b",\"key\":{");
        out.extend_from_slice(key_bytes);
        out.extend_from_slice(b"},\"pane\":{\"index\":");
        decimal::write_integer(firing.pane.index, out);
        out.extend_from_slice(b",\"timing\":\"");
        out.extend_from_slice(firing.pane.timing.name());
        out.extend_from_slice(if firing.pane.is_final {
            b"\",\"final\":true,\"revision\":".as_slice()
        } else {
            b"\",\"final\":false,\"revision\":".as_slice()
        });
        decimal::write_integer(u64::from(self.position.result_revision), out);
        out.push(b'}');
        if let Some(share) = self.plan.kept_since(&self.position.shed, window.start_ms) {
            share.write_member(out);
        }
        out.extend_from_slice(b",\"values\":{");
        self.plan.layout.write_values(firing.values, window.length_ms(), out);
        out.extend_from_slice(b"}}");
        let value_end = out.len();
        let hash = xxh3_64(&out[value_start..]);
        self.outputs.list.push(Output::Result(ResultRecord {
            key: key_start..value_start,
            value: value_start..value_end,
            window: window.index,
            end_ms: window.end_ms,
            partition_hash: key::murmur2(key_bytes),
        }));
        self.stats.results += 1;
        self.position.output_seq += 1;
        self.position.output_hash = chain(self.position.output_hash, hash);
    }
}

/// A window of all time has no start and no end.
fn write_time(time_ms: i64, out: &mut Vec<u8>) {
    if (time_ms == Window::ALL_TIME.0) || (time_ms == Window::ALL_TIME.1) {
        out.extend_from_slice(b"null");
    } else {
        decimal::write_signed(time_ms, out);
    }
}
