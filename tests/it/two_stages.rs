//! Both stages of `partitioning: any` against the batch oracle: whatever the interleaving of the source partitions, the
//! epochs, the crashes and the restores, every window's last values are the batch answer, byte for byte.

mod cases;
pub mod scene;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;
use streamagg_processor::pipeline::operator::combine::{Combine, CombineState};
use streamagg_processor::pipeline::operator::merge::WindowTask;
use streamagg_processor::pipeline::output::{Outputs, Record};
use streamagg_processor::pipeline::shuffle::Shuffle;
use streamagg_processor::state::backend::{Backend, Changes};
use streamagg_processor::state::memory::MemoryBackend;
use streamagg_tests::oracle::{self, Expected};

use self::scene::{Scene, combine_entries, scene, source};
use super::engine::{cases, expected_form, plan};

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
    at: usize,
    shuffle: Shuffle,
    refused: Vec<Expected>,
    /// What was committed last: state, place in the log.
    committed: (CombineState, usize),
    published: Vec<Expected>,
}

/// What the first stage leaves behind: the shuffle partitions, and late and dead records by source partition.
struct Shuffled {
    partitions: Vec<Vec<Vec<u8>>>,
    refused: Vec<Vec<Expected>>,
}

/// Runs the combine tasks; an epoch's records come to the shuffle topic together or not at all.
fn shuffle(scene: &Scene, turns: &[Turn]) -> Shuffled {
    let plan = plan(&scene.spec);
    let mut stages: Vec<Stage> = (0..scene.logs.len())
        .map(|index| {
            let mut task = Combine::new(Arc::clone(&plan), source(scene, index), 0).expect("windows for two stages");
            let state = task.close_epoch(&mut Shuffle::default());
            Stage {
                task,
                at: 0,
                shuffle: Shuffle::default(),
                refused: Vec::new(),
                committed: (state, 0),
                published: Vec::new(),
            }
        })
        .collect();
    let mut partitions = vec![Vec::new(); scene.shuffle_partitions as usize];
    for turn in turns {
        let index = turn.source % stages.len();
        let stage = &mut stages[index];
        let to = (stage.at + turn.entries).min(scene.logs[index].len());
        advance(scene, index, stage, to, turn.batch);
        match turn.ends {
            None => {}
            Some(true) => commit(stage, &mut partitions),
            Some(false) => {
                let state = &stage.committed.0;
                stage.task =
                    Combine::restore(Arc::clone(&plan), source(scene, index), state).expect("the same windows");
                stage.at = stage.committed.1;
                stage.shuffle.clear();
                stage.refused.clear();
            }
        }
    }
    for (index, stage) in stages.iter_mut().enumerate() {
        advance(scene, index, stage, scene.logs[index].len(), 1000);
        commit(stage, &mut partitions);
        assert_eq!(
            stage.task.rows(),
            0,
            "a combine task keeps nothing behind the end of an epoch"
        );
    }
    Shuffled {
        partitions,
        refused: stages.into_iter().map(|stage| stage.published).collect(),
    }
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

/// A restart of a window task after so many records: with what was committed (true), or with what was committed before.
fn consume(scene: &Scene, log: &[Vec<u8>], restarts: &[(Index, bool)], batch: usize) -> Vec<Expected> {
    let plan = plan(&scene.spec);
    let mut stops: Vec<(usize, bool)> = restarts
        .iter()
        .map(|(at, kept)| (at.index(log.len() + 1), *kept))
        .collect();
    stops.sort();
    stops.push((log.len(), true));
    let mut backend = MemoryBackend::default();
    let mut task = WindowTask::new(Arc::clone(&plan), 0).expect("windows for two stages");
    let (mut published, mut pending) = (Vec::new(), Vec::new());
    let (mut at, mut committed) = (0, 0);
    for (stop, kept) in stops {
        let records: Vec<Record<'_>> = (at..stop.max(at))
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
        at = stop.max(at);
        if kept {
            let mut changes = Changes::default();
            task.take_changes(&mut changes);
            backend.apply(&changes).expect("memory takes everything");
            published.append(&mut pending);
            committed = at;
        }
        let before = kept.then(|| (task.position(), task.rows(), task.keys(), task.next_due_ms()));
        task = match WindowTask::restore(Arc::clone(&plan), &backend).expect("readable") {
            Some(task) => task,
            None => WindowTask::new(Arc::clone(&plan), 0).expect("windows for two stages"),
        };
        if let Some(before) = before {
            assert_eq!((task.position(), task.rows(), task.keys(), task.next_due_ms()), before);
        }
        pending.clear();
        at = committed;
    }
    if log.is_empty() {
        return published;
    }
    assert_eq!((task.rows(), task.keys()), (0, 0), "every source partition has ended");
    let mut left = 0;
    backend
        .scan(&[], &mut |key, _| {
            left += usize::from((0x02..0x40).contains(&key[0]));
            Ok(())
        })
        .expect("memory can be read");
    assert_eq!(left, 0, "state of purged windows is left in the store");
    published
}

/// Key and value of each result.
pub fn results(published: &[Expected]) -> Vec<(String, String)> {
    let result = |output: &Expected| match output {
        Expected::Result { key, value, .. } => (key.clone(), value.clone()),
        other => panic!("a window task puts out results only: {other:?}"),
    };
    published.iter().map(result).collect()
}

fn pane_of(value: &str) -> (u64, String, bool) {
    let value: serde_json::Value = serde_json::from_str(value).expect("results are JSON");
    let pane = &value["pane"];
    let timing = pane["timing"].as_str().expect("text").to_owned();
    (
        pane["index"].as_u64().expect("a number"),
        timing,
        pane["final"].as_bool().expect("a bool"),
    )
}

/// Panes of a window and key are counted without a gap, and behind a final one there is none.
pub fn assert_panes_are_in_order(results: &[(String, String)]) {
    let mut panes: BTreeMap<&str, (u64, bool)> = BTreeMap::new();
    for (key, value) in results {
        let (index, _, is_final) = pane_of(value);
        if let Some((last, ended)) = panes.get(key.as_str()) {
            assert!(
                !ended && index == last + 1,
                "{key}: {value} after pane {last} (final: {ended})"
            );
        } else {
            assert_eq!(index, 0, "{key}: {value}");
        }
        panes.insert(key, (index, is_final));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(150), failure_persistence: None, ..ProptestConfig::default() })]

    /// Lateness is judged where an event comes in: the last pane of each window is the batch answer.
    #[test]
    fn the_last_panes_are_the_batch_answer_whatever_the_interleaving_the_epochs_and_the_crashes(
        scene in scene(1..=4, 160), turns in turns(), restarts in prop::collection::vec((any::<Index>(), any::<bool>()), 0..6), batch in 1..20usize,
    ) {
        let shuffled = shuffle(&scene, &turns);
        let mut published = Vec::new();
        for log in &shuffled.partitions {
            let seen = results(&consume(&scene, log, &restarts, batch));
            let straight = results(&consume(&scene, log, &[], 1000));
            prop_assert_eq!(&seen, &straight, "the results are a function of the shuffle partition");
            assert_panes_are_in_order(&seen);
            published.push(seen);
        }
        for (index, log) in scene.logs.iter().enumerate() {
            prop_assert_eq!(&shuffled.refused[index], &oracle::refused(&scene.spec, log), "source {}", index);
        }
        let all: Vec<Expected> = published
            .concat()
            .into_iter()
            .map(|(key, value)| Expected::Result { entry: 0, key, value })
            .collect();
        prop_assert_eq!(oracle::batch_answer(&all), oracle::answer_of_sources(&scene.spec, &scene.logs), "{:?}", scene);
        for (key, _) in published.concat() {
            let partitions = published.iter().filter(|list| list.iter().any(|(other, _)| *other == key)).count();
            prop_assert_eq!(partitions, 1, "{}", key);
        }
    }

    /// With one source partition a window fires over the same events as in one task, wherever epochs end.
    #[test]
    fn with_one_source_partition_every_on_time_pane_is_the_one_of_a_single_task(
        scene in scene(1..=1, 160), turns in turns(), batch in 1..20usize,
    ) {
        let shuffled = shuffle(&scene, &turns);
        let on_time = |list: Vec<(String, String)>| -> Vec<(String, String)> {
            list.into_iter().filter(|(_, value)| pane_of(value).1 == "OnTime").collect()
        };
        let single: Vec<Expected> = oracle::outputs(&scene.spec, &scene.logs[0])
            .into_iter()
            .filter(|output| matches!(output, Expected::Result { .. }))
            .collect();
        let mut expected = on_time(results(&single));
        let mut seen = Vec::new();
        for log in &shuffled.partitions {
            seen.extend(on_time(results(&consume(&scene, log, &[], batch))));
        }
        if scene.shuffle_partitions > 1 {
            // Order is promised within a partition only.
            seen.sort();
            expected.sort();
        }
        prop_assert_eq!(seen, expected, "{:?}", scene);
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
    let shuffled = shuffle(&scene, &turns);
    let bytes: usize = shuffled.partitions.concat().iter().map(Vec::len).sum();
    let records = shuffled.partitions.iter().map(Vec::len).collect::<Vec<_>>();
    // The first event and its watermark, all others and the watermark of the end; the key lies in partition 1.
    assert_eq!(records, [2, 4], "{bytes} bytes");
    assert!(bytes < 1000, "{bytes} bytes for 10,000 events");
    let results = results(&consume(&scene, &shuffled.partitions[1], &[], 1));
    assert_eq!(results.len(), 1);
    assert!(results[0].1.ends_with(r#""values":{"n":10000}}"#), "{}", results[0].1);
}
