//! A task whose memory does not hold its state. Must not test which rows leave it.

use super::rig::{Job, More, eventually};

#[test]
fn a_task_beyond_its_memory_reads_rows_back_across_crashes_and_loses_nothing() {
    let mut job = Job::new("memory", 1);
    job.more = More {
        // Windows stay open, and 128 KiB do not hold their rows.
        window: ", allowedLateness: 1h",
        state: ", memoryBudget: 256Ki",
        ..More::default()
    };
    for round in 0..3 {
        let mut processor = job.start("data");
        job.produce(20_000);
        job.assert_exact();
        let left = eventually("rows on the volume", || {
            let metrics = processor.metrics();
            let line = metrics
                .lines()
                .find(|line| line.starts_with("streamagg_state_rows_on_volume{"));
            let rows = line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
            rows.filter(|rows| *rows > 1_000).ok_or(metrics)
        });
        assert!(left > 1_000 * (round + 1), "{left} rows in round {round}");
        processor.kill();
    }
}
