//! What is in a task's database, by RocksDB itself: what is over leaves it, and what it should not hold is found out.
//! Must not test files that are damaged (`damage`, `checkpoints`).

use std::collections::BTreeMap;

use rocksdb::{DB, IteratorMode, Options, WriteBatch};
use streamagg_processor::state::codec;

use super::memory::await_rows_on_volume;
use super::rewind::ids;
use super::rig::{Job, More, eventually};

/// The database of task 0, which no processor has open.
fn database(job: &Job, data: &str) -> DB {
    let path = job.directory(data).join("tasks/0/db");
    DB::open(&Options::default(), path).expect("a database that is closed")
}

/// Key and value.
type Entry = (Vec<u8>, Vec<u8>);

/// Every entry of windows, by its kind.
fn entries(database: &DB) -> BTreeMap<u8, Vec<Entry>> {
    let mut found = BTreeMap::<u8, Vec<Entry>>::new();
    for pair in database.iterator(IteratorMode::Start) {
        let (key, value) = pair.expect("it can be read");
        let of_windows = [
            codec::PANE_ROW,
            codec::LATE_FIRINGS,
            codec::INSTANCE_CELL,
            codec::SESSION_CELL,
        ];
        if let Some(kind) = of_windows.into_iter().find(|kind| key.starts_with(&[*kind])) {
            found.entry(kind).or_default().push((key.into_vec(), value.into_vec()));
        }
    }
    found
}

/// How many entries there are of each kind.
fn counts(job: &Job) -> BTreeMap<u8, usize> {
    let found = entries(&database(job, "data")).into_iter();
    found.map(|(kind, entries)| (kind, entries.len())).collect()
}

/// Behind the end of the one that is open, and a member short: windows on panes, that count late firings; sessions;
/// days.
const WINDOWS: &str = ", allowedLateness: 1h}, {name: visit, session: {gap: 1s}}, \
                       {name: day, calendar: {unit: Day, timeZone: UTC}";
/// Ten days after the first events.
const LATER_MS: i64 = 5_000_000 + 10 * 24 * 3_600_000;

/// Windows of every kind that keeps entries of its own are purged, after so many events: nothing of them stays.
fn leaves_nothing_of_what_is_over(test: &str, state: &'static str, events: u32, rows_on_volume: Option<u64>) {
    let mut job = Job::new(test, 1);
    job.more = More {
        window: WINDOWS,
        state,
        ..More::default()
    };
    job.produce(events);
    job.produce_raw(r#"{"ts":5000500,"k":"k0","v":1}"#);
    let processor = job.start("data");
    eventually("a late firing", || {
        let late = job.published_when(|timing| timing == "Late");
        late.first().map(drop).ok_or_else(|| processor.log_text())
    });
    if let Some(rows) = rows_on_volume {
        await_rows_on_volume(&processor, rows);
    }
    processor.terminate();
    let before = counts(&job);
    let panes = usize::try_from(events).expect("few") / 200 * 37;
    assert!(before[&codec::PANE_ROW] >= panes, "{before:?}");
    assert_eq!(before[&codec::LATE_FIRINGS], 1, "{before:?}");
    assert_eq!(before[&codec::INSTANCE_CELL], 37, "{before:?}");
    assert_eq!(before[&codec::SESSION_CELL], 37, "{before:?}");
    let processor = job.start("data");
    job.produce_raw(&format!(r#"{{"ts":{LATER_MS},"k":"later","v":1}}"#));
    // Windows of one end fire together, and those of the day are the last to end.
    eventually("the day is over", || {
        let days = job.published().into_iter().filter(|line| line.starts_with("0 "));
        (days.count() == 37).then_some(()).ok_or_else(|| processor.log_text())
    });
    processor.terminate();
    let only_of_the_later = [codec::PANE_ROW, codec::INSTANCE_CELL, codec::SESSION_CELL].map(|kind| (kind, 1));
    assert_eq!(counts(&job), BTreeMap::from(only_of_the_later), "before: {before:?}");
}

#[test]
fn nothing_of_windows_that_are_over_stays_on_the_volume() {
    leaves_nothing_of_what_is_over("expired", "", 2_000, None);
}

#[test]
fn nothing_stays_of_those_whose_rows_had_left_memory() {
    leaves_nothing_of_what_is_over("expiredrows", ", memoryBudget: 256Ki", 20_000, Some(1_000));
}

/// Every row of a database counts an event more than there were; no digest and no hash knows.
fn count_one_more(job: &Job, data: &str) {
    let database = database(job, data);
    let rows = entries(&database).remove(&codec::PANE_ROW).expect("open windows");
    let mut batch = WriteBatch::default();
    for (key, mut value) in rows {
        // Behind the watermark at its birth.
        value[8] = value[8].wrapping_add(1);
        batch.put(key, value);
    }
    database.write(batch).expect("writes");
}

#[test]
fn bases_whose_replay_diverges_give_way_to_an_older_checkpoint_that_is_exact() {
    let job = Job::new("divergent", 1);
    job.produce(1_000);
    let mut processor = job.start("data");
    job.assert_exact();
    let exact = ids(&processor.operate("/v1/checkpoint?id=exact"));
    processor.kill();
    count_one_more(&job, "data");
    // Nothing fires by a dead letter, so that what is committed is right, and the checkpoint behind it wrong.
    let mut processor = job.start("data");
    job.produce_raw("{}");
    eventually("the dead letter is committed", || {
        let status = processor.status()?;
        let is_read = status["tasks"][0]["inputOffset"] == 1_001;
        is_read.then_some(()).ok_or_else(|| status.to_string())
    });
    let wrong = ids(&processor.operate("/v1/checkpoint?id=wrong"));
    processor.kill();
    // One that knows neither that volume nor that checkpoint publishes what is right.
    let manifest = job.task_store().join(format!("manifests/{}.json", wrong["0"]));
    let aside = job.directory("aside.json");
    std::fs::rename(&manifest, &aside).expect("moves");
    let mut processor = job.start("other");
    job.produce(1_000);
    job.assert_exact();
    processor.kill();
    std::fs::rename(&aside, &manifest).expect("moves");
    let mut processor = job.start("data");
    processor.await_ready();
    let status = processor.status().expect("answers");
    assert_eq!(status["tasks"][0]["restoredFrom"], exact["0"].as_str());
    assert!(status["tasks"][0]["problem"].is_null(), "{status}");
    let log = std::fs::read_to_string(&processor.log).expect("a log");
    let diverged = log
        .lines()
        .filter(|line| line.contains("replay from this base diverged"));
    let diverged: Vec<&str> = diverged.collect();
    let names_both = diverged.len() == 2 && diverged[0].contains("Local") && diverged[1].contains(&wrong["0"]);
    assert!(names_both, "{diverged:?}");
    job.produce(1_000);
    job.assert_exact();
    // Nothing of what was refused is in the next one.
    let mended = ids(&processor.operate("/v1/checkpoint?id=mended"));
    processor.kill();
    job.lose("data");
    let processor = job.start("data");
    job.produce(1_000);
    job.assert_exact();
    let status = processor.status().expect("answers");
    assert_eq!(status["tasks"][0]["restoredFrom"], mended["0"].as_str());
}
