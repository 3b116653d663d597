//! Cases for two stages: one spec, several source partitions. Must not run anything but combine tasks.

use std::ops::{Range, RangeInclusive};

use proptest::prelude::*;
use proptest::sample::Index;
use streamagg_processor::pipeline::operator::StepStatus;
use streamagg_processor::pipeline::operator::combine::{Combine, Source};
use streamagg_processor::pipeline::output::{Outputs, Record};
use streamagg_processor::pipeline::shuffle::Shuffle;
use streamagg_tests::generator;
use streamagg_tests::oracle::{self, Entry, Expected, Panes, Shape, Spec, Trigger, Window};

use crate::around::envelope;
use crate::engine::{decision, expected_form};

/// A spec, and the log of each source partition; every one ends.
#[derive(Clone, Debug)]
pub struct Scene {
    pub spec: Spec,
    pub logs: Vec<Vec<Entry>>,
    pub shuffle_partitions: u32,
}

impl Scene {
    /// Whether some windows are sessions.
    pub fn has_sessions(&self) -> bool {
        self.spec.windows.iter().any(is_session)
    }

    /// Events of one key in one window.
    pub fn hot_key(events: usize) -> Self {
        let spec = Spec {
            timestamp: vec!["ts".to_owned()],
            unit: oracle::Unit::Milliseconds,
            bound_ms: 0,
            watermark: oracle::Watermark::Bounded,
            skew_ms: None,
            sheds: false,
            explode: None,
            group_by: Vec::new(),
            windows: vec![Window {
                name: "m".to_owned(),
                shape: Shape::Sliding,
                size_ms: 60_000,
                slide_ms: 60_000,
                offset_ms: 0,
                lateness_ms: 0,
                closed_ms: oracle::NO_WATERMARK,
                trigger: Trigger::default(),
                panes: Panes::default(),
            }],
            aggregates: vec![("n".to_owned(), oracle::Function::Count, Vec::new())],
        };
        let mut log = vec![Entry::Record(b"{\"ts\":1000}".to_vec()); events];
        log.push(Entry::EndOfInput);
        Self {
            spec,
            logs: vec![log],
            shuffle_partitions: 2,
        }
    }
}

/// Whether the events of a key decide which instances there are.
pub fn is_session(window: &Window) -> bool {
    matches!(window.shape, Shape::Session | Shape::SessionByField)
}

/// How events are divided into partials decides what a pane has that shows the new ones only: they accumulate.
fn for_two_stages(window: Window) -> Window {
    let panes = match window.panes {
        Panes::Discarding => Panes::Accumulating,
        Panes::Accumulating | Panes::Retracting => window.panes,
    };
    Window { panes, ..window }
}

/// Any scene with so many source partitions.
pub fn scene(sources: RangeInclusive<usize>, records_max: usize) -> impl Strategy<Value = Scene> {
    let places = prop::collection::vec(any::<Index>(), records_max + 1);
    (generator::case(records_max), sources, places, 1..4u32).prop_map(|(case, sources, places, shuffle_partitions)| {
        let mut logs = vec![Vec::new(); sources];
        for (entry, place) in case.log.into_iter().zip(&places) {
            match entry {
                Entry::Tick(_) | Entry::EndOfInput => {}
                Entry::Record(_) | Entry::Stamped(..) | Entry::Shed(_) => logs[place.index(sources)].push(entry),
                Entry::Clock(_) | Entry::IdleAdvance(_) | Entry::Share(_) => {
                    logs[place.index(sources)].push(entry);
                }
            }
        }
        for (partition, log) in (0..).zip(&mut logs) {
            log.push(Entry::EndOfInput);
            mark_shed(log, partition);
        }
        let mut spec = case.spec;
        spec.windows = spec.windows.into_iter().map(for_two_stages).collect();
        Scene {
            spec,
            logs,
            shuffle_partitions,
        }
    })
}

/// Marks the records that are shed; they stand at twice the place of their entry.
pub fn mark_shed(log: &mut [Entry], partition: u32) {
    generator::mark_shed(log, partition, |entry| 2 * entry as i64);
}

/// Where a combine task of the scene stands.
pub fn source(scene: &Scene, index: usize) -> Source {
    Source {
        index: index as u32,
        count: scene.logs.len() as u32,
        lineage: format!("lineage-{index}"),
        shuffle_partitions: scene.shuffle_partitions,
    }
}

/// A combine task consumes entries of its log; records stand at twice the place of their entry.
pub fn combine_entries(
    scene: &Scene,
    index: usize,
    task: &mut Combine,
    entries: Range<usize>,
    batch: usize,
    shuffle: &mut Shuffle,
    refused: &mut Vec<Expected>,
) {
    let log = &scene.logs[index];
    let clock = log[..entries.start].iter().rev().find_map(|entry| match entry {
        Entry::Clock(now_ms) => Some(*now_ms),
        _ => None,
    });
    task.set_clock(clock);
    let mut at = entries.start;
    while at < entries.end {
        let mut outputs = Outputs::default();
        match &log[at] {
            Entry::Clock(now_ms) => task.set_clock(Some(*now_ms)),
            entry @ (Entry::IdleAdvance(_) | Entry::Share(_)) => {
                let decision = decision(entry, task.position().input_offset).expect("it is one");
                task.decide(&decision, shuffle);
            }
            Entry::EndOfInput => task.end_of_input(shuffle),
            Entry::Tick(_) => panic!("the scene has no ticks"),
            Entry::Record(_) | Entry::Stamped(..) | Entry::Shed(_) => {
                let places: Vec<usize> = (at..entries.end)
                    .take(batch)
                    .take_while(|place| log[*place].record().is_some())
                    .collect();
                let record = |place: &usize| {
                    let (value, timestamp_ms) = log[*place].record().expect("it is one");
                    Record {
                        timestamp_ms,
                        envelope: Some(envelope(*place)),
                        ..Record::new(2 * *place as i64, value)
                    }
                };
                let records: Vec<Record<'_>> = places.iter().map(record).collect();
                assert_eq!(task.step(&records, &mut outputs, shuffle), StepStatus::Continue);
                refused.extend(expected_form(&outputs, &places, 0));
                at += places.len() - 1;
            }
        }
        at += 1;
    }
}
