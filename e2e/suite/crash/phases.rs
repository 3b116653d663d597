//! What happens in each phase of the crash harness. Must not judge what comes out.

use std::time::Duration;

use super::{FAILPOINTS, Harness, OUTCOMES_LOST};

/// A replay is saved on the way after 200,000 records.
const LONG_RECORDS: u64 = 230_000;

/// A crash within a replay that is long enough to be saved on the way: the next one goes on from there.
pub(super) fn long_replay(harness: &mut Harness) -> Result<(), String> {
    harness.produce_and_close(LONG_RECORDS)?;
    let processor = harness.start(None)?;
    harness.verifier.await_clean(Duration::from_secs(180))?;
    processor.kill()?;
    harness.counts.kills += 1;
    // Without volume and store everything is read again from the birth.
    harness.lose_volume()?;
    std::fs::remove_dir_all(&harness.home.checkpoints).map_err(|error| error.to_string())?;
    std::fs::create_dir_all(&harness.home.checkpoints).map_err(|error| error.to_string())?;
    harness.abort_at("mid-replay")?;
    harness.produce_and_close(1_000)?;
    harness.finish()
}

/// The same promise without transactions: nothing lost, nothing wrong, but some of it twice.
pub(super) fn at_least_once(harness: &mut Harness, kills: u64) -> Result<(), String> {
    harness.start_load()?;
    for name in ["before-commit", "after-commit-before-state", "mid-checkpoint-upload"] {
        harness.abort_at(name)?;
    }
    for name in OUTCOMES_LOST {
        harness.lose_outcome(name)?;
    }
    kills_and_volumes(harness, kills)
}

/// Sessions, which join and take back, and rows whose size depends on what came: all of it is read back as it was.
pub(super) fn other_shapes(harness: &mut Harness, kills: u64) -> Result<(), String> {
    harness.start_load()?;
    kills_and_volumes(harness, kills)
}

/// Kills at random times; in between the volume is kept, lost and set back.
fn kills_and_volumes(harness: &mut Harness, kills: u64) -> Result<(), String> {
    harness.kill_beyond_memory()?;
    while harness.counts.kills < kills {
        harness.kill_at_random()?;
        match harness.counts.kills % 4 {
            1 => harness.copy_volume()?,
            2 => harness.lose_volume()?,
            3 if harness.copy_of_volume().exists() => harness.set_volume_back()?,
            _ => {}
        }
    }
    harness.finish()
}

/// Kills at random times, with a fault of the volume or of ownership in between, and every failpoint.
pub(super) fn every_fault_in_turn(harness: &mut Harness, kills: u64) -> Result<(), String> {
    harness.start_load()?;
    for name in FAILPOINTS {
        harness.abort_at(name)?;
    }
    for name in OUTCOMES_LOST {
        harness.lose_outcome(name)?;
    }
    harness.kill_beyond_memory()?;
    harness.check()?;
    while harness.counts.kills < kills {
        harness.kill_at_random()?;
        match harness.counts.kills % 8 {
            1 => harness.copy_volume()?,
            3 => harness.lose_volume()?,
            5 if harness.copy_of_volume().exists() => harness.set_volume_back()?,
            6 => harness.zombie()?,
            _ => {}
        }
        if harness.counts.kills.is_multiple_of(5) {
            harness.check()?;
        }
        if harness.random.one_in(5) {
            let chosen = usize::try_from(harness.random.below(FAILPOINTS.len() as u64)).unwrap_or_default();
            harness.abort_at(FAILPOINTS[chosen])?;
        }
        if harness.random.one_in(10) {
            let chosen = usize::from(harness.random.one_in(2));
            harness.lose_outcome(OUTCOMES_LOST[chosen])?;
        }
    }
    harness.finish()
}
