//! Both stages of `partitioning: any` against the batch oracle: whatever the interleaving of the source partitions, the
//! epochs, the crashes and the restores, every window's last values are the batch answer, byte for byte.

mod cases;
pub mod judged;
mod lateness;
mod own_windows;
pub mod scene;
mod specs;

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;
use streamagg_processor::pipeline::builder::Plan;
use streamagg_processor::pipeline::operator::combine::{Combine, CombineState, Source};
use streamagg_processor::pipeline::operator::merge::{Cut, ShuffleError, WindowTask};
use streamagg_processor::pipeline::output::{Outputs, Record};
use streamagg_processor::pipeline::shuffle::Shuffle;
use streamagg_processor::state::backend::{Backend, Changes};
use streamagg_tests::oracle::{self, Expected, Shape};

use self::judged::{answer, assert_panes_are_in_order, pane_of, results, take_share, window_of, without_counts};
use self::scene::{Scene, combine_entries, is_session, scene, source};
use super::engine::{cases, expected_form, plan};
use super::paging::Store;

/// What happens to a combine task next.
#[derive(Clone, Debug)]
struct Turn {
    /// Modulo their number.
    source: usize,
    /// Entries that it consumes.
    entries: usize,
    batch: usize,
    /// Ends the epoch, or dies (false).
    ends: Option<bool>,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let ends = prop_oneof![2 => Just(None), 4 => Just(Some(true)), 1 => Just(Some(false))];
    let turn = (any::<usize>(), 1..40usize, 1..20usize, ends).prop_map(|(source, entries, batch, ends)| Turn {
        source,
        entries,
        batch,
        ends,
    });
    prop::collection::vec(turn, 0..60)
}

/// A source partition with its combine task.
struct Stage {
    task: Combine,
    source: Source,
    at: usize,
    shuffle: Shuffle,
    refused: Vec<Expected>,
    /// What was committed last: state, place in the log.
    committed: (CombineState, usize),
    published: Vec<Expected>,
}

/// The first stage: every source partition, and what is on the shuffle topic.
struct FirstStage<'a> {
    scene: &'a Scene,
    plan: Arc<Plan>,
    stages: Vec<Stage>,
    partitions: Vec<Vec<Vec<u8>>>,
}

impl<'a> FirstStage<'a> {
    fn new(scene: &'a Scene) -> Self {
        let plan = plan(&scene.spec);
        let stage = |index: usize| {
            let mut task = Combine::new(Arc::clone(&plan), source(scene, index), 0);
            let state = task.close_epoch(&mut Shuffle::default());
            Stage {
                task,
                source: source(scene, index),
                at: 0,
                shuffle: Shuffle::default(),
                refused: Vec::new(),
                committed: (state, 0),
                published: Vec::new(),
            }
        };
        Self {
            stages: (0..scene.logs.len()).map(stage).collect(),
            partitions: vec![Vec::new(); scene.shuffle_partitions as usize],
            scene,
            plan,
        }
    }

    /// Runs the combine tasks; an epoch's records come to the shuffle topic together or not at all.
    fn run(&mut self, turns: &[Turn]) {
        for turn in turns {
            let index = turn.source % self.stages.len();
            let stage = &mut self.stages[index];
            let to = (stage.at + turn.entries).min(self.scene.logs[index].len());
            advance(self.scene, index, stage, to, turn.batch);
            match turn.ends {
                None => {}
                Some(true) => commit(stage, &mut self.partitions),
                Some(false) => {
                    let committed = stage.committed.clone();
                    self.restore(index, &committed, None);
                }
            }
        }
    }

    fn finish(&mut self) {
        for (index, stage) in self.stages.iter_mut().enumerate() {
            advance(self.scene, index, stage, self.scene.logs[index].len(), 1000);
            commit(stage, &mut self.partitions);
            assert_eq!(
                stage.task.rows(),
                0,
                "a combine task keeps nothing behind the end of an epoch"
            );
        }
    }

    /// Starts a task from what was committed, in a history of its own where one is named.
    fn restore(&mut self, index: usize, committed: &(CombineState, usize), lineage: Option<String>) {
        let stage = &mut self.stages[index];
        stage.source.lineage = lineage.unwrap_or_else(|| stage.source.lineage.clone());
        let restored = Combine::restore(Arc::clone(&self.plan), stage.source.clone(), &committed.0);
        stage.task = restored;
        stage.at = committed.1;
        stage.committed = committed.clone();
        stage.shuffle.clear();
        stage.refused.clear();
    }
}

/// All of the first stage: the shuffle partitions, and late and dead records by source partition.
fn shuffle(scene: &Scene, turns: &[Turn]) -> (Vec<Vec<Vec<u8>>>, Vec<Vec<Expected>>) {
    let mut first = FirstStage::new(scene);
    first.run(turns);
    first.finish();
    let refused = first.stages.into_iter().map(|stage| stage.published);
    (first.partitions, refused.collect())
}

fn advance(scene: &Scene, index: usize, stage: &mut Stage, to: usize, batch: usize) {
    let Stage {
        task, shuffle, refused, ..
    } = stage;
    combine_entries(scene, index, task, stage.at..to, batch, shuffle, refused);
    stage.at = to;
}

fn commit(stage: &mut Stage, partitions: &mut [Vec<Vec<u8>>]) {
    let state = stage.task.close_epoch(&mut stage.shuffle);
    // As the shell keeps it.
    let text = serde_json::to_string(&state).expect("a plain document");
    stage.committed = (serde_json::from_str(&text).expect("it reads what it wrote"), stage.at);
    assert_eq!(stage.committed.0, state);
    for (partition, log) in (0..).zip(partitions) {
        log.extend(stage.shuffle.of_partition(partition).map(<[u8]>::to_vec));
    }
    stage.shuffle.clear();
    stage.published.append(&mut stage.refused);
}

/// What happens to a window task after some records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stop {
    /// A commit, behind which so many quarters of its state stay in memory.
    Commit { quarters: usize },
    /// A restart with what was committed just before, of which so many bytes may be read.
    Restart { bytes: usize },
    /// A crash: a restart with what was committed before.
    Crash { bytes: usize },
}

fn stops() -> impl Strategy<Value = Vec<(Index, Stop)>> {
    let bytes = (0..4usize).prop_map(|thousands| thousands * 1000);
    let stop = prop_oneof![
        2 => (0..5usize).prop_map(|quarters| Stop::Commit { quarters }),
        1 => bytes.clone().prop_map(|bytes| Stop::Restart { bytes }),
        1 => bytes.prop_map(|bytes| Stop::Crash { bytes }),
    ];
    prop::collection::vec((any::<Index>(), stop), 0..8)
}

/// The window task that a store holds, of which no more than these bytes are read, or one without state.
fn window_task(plan: &Arc<Plan>, store: &Store, bytes: usize) -> WindowTask {
    let reader = store.reader();
    let restored = WindowTask::restore_paged(Arc::clone(plan), &reader, bytes).expect("readable");
    restored.unwrap_or_else(|| {
        let mut task = WindowTask::new(Arc::clone(plan), 0);
        task.page(reader);
        task
    })
}

/// What a window task gives of its log, whatever happens to it.
fn consume(scene: &Scene, log: &[Vec<u8>], stops: &[(Index, Stop)], batch: usize) -> Vec<Expected> {
    let plan = plan(&scene.spec);
    let mut stops: Vec<(usize, Stop)> = stops
        .iter()
        .map(|(at, stop)| (at.index(log.len() + 1), *stop))
        .collect();
    stops.sort();
    stops.push((log.len(), Stop::Restart { bytes: usize::MAX }));
    let mut store = Store::default();
    let mut task = window_task(&plan, &store, 0);
    let (mut published, mut pending) = (Vec::new(), Vec::new());
    let (mut at, mut committed) = (0, 0);
    for (place, stop) in stops {
        let records: Vec<Record<'_>> = (at..place)
            .map(|offset| Record::new(offset as i64, &log[offset]))
            .collect();
        for records in records.chunks(batch) {
            let (mut outputs, mut purged) = (Outputs::default(), Vec::new());
            task.step(records, &mut outputs, &mut purged)
                .expect("what combine tasks wrote");
            assert_eq!(
                purged,
                [],
                "only a partition that is added can come behind the watermark"
            );
            pending.extend(expected_form(&outputs, &[], 0));
        }
        at = place;
        assert!(task.take_failure().is_none(), "what has left memory is in the store");
        if let Stop::Crash { bytes } = stop {
            task = window_task(&plan, &store, bytes);
            pending.clear();
            at = committed;
            continue;
        }
        let mut changes = Changes::default();
        task.take_changes(&mut changes);
        store.apply(&changes).expect("memory takes everything");
        published.append(&mut pending);
        committed = at;
        // Sessions are looked at before they are due.
        let due_ms = |task: &WindowTask| if scene.has_sessions() { 0 } else { task.next_due_ms() };
        let before = (task.position(), task.rows(), task.open_windows(), due_ms(&task));
        match stop {
            Stop::Commit { quarters } => task.evict_to(task.state_bytes() / 4 * quarters),
            Stop::Restart { bytes } | Stop::Crash { bytes } => task = window_task(&plan, &store, bytes),
        }
        let after = (task.position(), task.rows(), task.open_windows(), due_ms(&task));
        assert_eq!(after, before, "wherever the rows are");
    }
    if log.is_empty() {
        return published;
    }
    assert_eq!((task.rows(), task.keys()), (0, 0), "every source partition has ended");
    let mut left = 0;
    store
        .scan(&[], &mut |key, _| {
            left += usize::from((0x02..0x40).contains(&key[0]));
            Ok(())
        })
        .expect("memory can be read");
    assert_eq!(left, 0, "state of purged windows is left in the store");
    published
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(80), failure_persistence: None, ..ProptestConfig::default() })]

    /// Lateness is judged where an event comes in: the last pane of each window is the batch answer.
    #[test]
    fn the_last_panes_are_the_batch_answer_whatever_the_interleaving_the_epochs_and_the_crashes(
        scene in scene(1..=4, 160), turns in turns(), stops in stops(), batch in 1..20usize,
    ) {
        let (partitions, refused) = shuffle(&scene, &turns);
        let mut published = Vec::new();
        for log in &partitions {
            let seen = results(&consume(&scene, log, &stops, batch));
            let straight = results(&consume(&scene, log, &[], 1000));
            prop_assert_eq!(&seen, &straight, "the results are a function of the shuffle partition");
            assert_panes_are_in_order(&without_counts(&scene, &seen));
            published.push(seen);
        }
        for (index, log) in scene.logs.iter().enumerate() {
            prop_assert_eq!(&refused[index], &oracle::refused(&scene.spec, log), "source {}", index);
        }
        prop_assert_eq!(answer(&scene, &published.concat()), oracle::answer_of_sources(&scene.spec, &scene.logs), "{:?}", scene);
        for (key, _) in published.concat() {
            let partitions = published.iter().filter(|list| list.iter().any(|(other, _)| *other == key)).count();
            prop_assert_eq!(partitions, 1, "{}", key);
        }
    }

    /// With one source partition a window fires over the same events as in one task, wherever epochs end; sessions do when a
    /// watermark passes their grid. How many panes came before is for triggers a matter of partials.
    #[test]
    fn with_one_source_partition_every_on_time_pane_is_the_one_of_a_single_task(
        scene in scene(1..=1, 160), turns in turns(), batch in 1..20usize,
    ) {
        let (partitions, _) = shuffle(&scene, &turns);
        let on_time = |list: Vec<(String, String)>| -> Vec<(String, String)> {
            let is_known = |value: &str| {
                let window = window_of(&scene, value);
                !is_session(window) && !value.starts_with(r#"{"op":"Retract""#)
            };
            let known = list.into_iter().filter(|(_, value)| pane_of(value).1 == "OnTime" && is_known(value));
            known.map(|(key, value)| {
                let numbered = format!(r#""index":{},"#, pane_of(&value).0);
                let is_early = window_of(&scene, &value).trigger.early.is_some();
                (key, if is_early { value.replace(&numbered, "") } else { value })
            }).collect()
        };
        let single: Vec<Expected> = oracle::outputs(&scene.spec, &scene.logs[0])
            .into_iter()
            .filter(|output| matches!(output, Expected::Result { .. }))
            .collect();
        let mut expected = on_time(results(&single));
        let mut seen = Vec::new();
        for log in &partitions {
            seen.extend(on_time(results(&consume(&scene, log, &[], batch))));
        }
        let counts = scene.spec.windows.iter().any(|window| window.shape == Shape::Count);
        if scene.shuffle_partitions > 1 || counts {
            // Order is promised within a partition only, and count windows are for the order of a key.
            seen.sort();
            expected.sort();
        }
        let shares = |list: &mut Vec<(String, String)>| -> Vec<Option<f64>> {
            list.iter_mut().map(|(_, value)| take_share(&scene, value)).collect()
        };
        for (seen, expected) in shares(&mut seen).iter().zip(shares(&mut expected)) {
            prop_assert!(*seen <= expected, "{:?} after {:?}: {:?}", seen, expected, scene);
        }
        prop_assert_eq!(seen, expected, "{:?}", scene);
    }
}

/// Consumes the rest of a log.
fn merge(task: &mut WindowTask, log: &[Vec<u8>], to: usize) -> Result<Vec<Expected>, ShuffleError> {
    let at = usize::try_from(task.position().input_offset).expect("offsets begin at 0");
    let records = (at..)
        .zip(&log[at..to])
        .map(|(offset, value)| Record::new(offset as i64, value));
    let mut outputs = Outputs::default();
    task.step(&records.collect::<Vec<_>>(), &mut outputs, &mut Vec::new())?;
    Ok(expected_form(&outputs, &[], 0))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(60), failure_persistence: None, ..ProptestConfig::default() })]

    /// A job's checkpoint takes the window tasks first and then the combine tasks. Rewound to it, as often as one likes,
    /// the last panes are the batch answer; a window task that was not told of it goes no further.
    #[test]
    fn rewound_to_a_checkpoint_of_both_stages_the_last_panes_are_the_batch_answer(
        scene in scene(1..=3, 120), before in turns(), between in turns(), after in prop::collection::vec(turns(), 1..3),
        taken in prop::collection::vec(any::<Index>(), 3),
    ) {
        let mut first = FirstStage::new(&scene);
        first.run(&before);
        let mut windows = Vec::new();
        for (log, taken) in first.partitions.iter().zip(&taken) {
            let mut task = WindowTask::new(Arc::clone(&first.plan), 0);
            let published = merge(&mut task, log, taken.index(log.len() + 1)).expect("what combine tasks wrote");
            windows.push((task, published));
        }
        first.run(&between);
        let checkpoint: Vec<_> = first.stages.iter().map(|stage| stage.committed.clone()).collect();
        let mut cuts = Vec::new();
        for (round, turns) in (1..).zip(&after) {
            first.run(turns);
            // The last rewind is all that a window task has to know of.
            cuts.clear();
            for (index, committed) in checkpoint.iter().enumerate() {
                let lineage = format!("rewind-{round}-{index}");
                cuts.push(Cut {
                    source: index as u32,
                    lineage: lineage.clone(),
                    // The checkpoint was made in the first history.
                    parent: format!("lineage-{index}"),
                    sequence: committed.0.position.output_seq,
                });
                first.restore(index, committed, Some(lineage));
            }
        }
        first.finish();
        let mut all = Vec::new();
        for (log, (mut task, mut published)) in first.partitions.iter().zip(windows) {
            let mut untold = task.clone();
            for cut in &cuts {
                task.rewound(cut).expect("it is no further than the combine tasks");
            }
            let mut rest = merge(&mut task, log, log.len()).expect("every history was told");
            prop_assert_eq!((task.rows(), task.keys()), (0, 0));
            match merge(&mut untold, log, log.len()) {
                // It heard of one history only: nothing was taken back.
                Ok(same) => prop_assert_eq!(same, rest.clone()),
                Err(error) => prop_assert!(matches!(error, ShuffleError::Lineage { .. }), "{}", error),
            }
            all.append(&mut published);
            all.append(&mut rest);
        }
        prop_assert_eq!(answer(&scene, &results(&all)), oracle::answer_of_sources(&scene.spec, &scene.logs), "{:?}", scene);
    }
}

/// Partials, not events, go over the shuffle topic: a hot key costs a row for each pane and epoch.
#[test]
fn a_hot_key_costs_one_partial_an_epoch() {
    let scene = Scene::hot_key(10_000);
    let turns = [Turn {
        source: 0,
        entries: 10_000,
        batch: 256,
        ends: Some(true),
    }];
    let (partitions, _) = shuffle(&scene, &turns);
    let bytes: usize = partitions.concat().iter().map(Vec::len).sum();
    let records = partitions.iter().map(Vec::len).collect::<Vec<_>>();
    // The layout, the first event and its watermark, all others and the watermark of the end; the key lies in partition 1.
    assert_eq!(records, [3, 5], "{bytes} bytes");
    assert!(bytes < 2000, "{bytes} bytes for 10,000 events");
    let results = results(&consume(&scene, &partitions[1], &[], 1));
    assert_eq!(results.len(), 1);
    assert!(results[0].1.ends_with(r#""values":{"n":10000}}"#), "{}", results[0].1);
}
