//! The broker itself dies or stands still, under a job that crashes. Must not judge what comes out.

use std::time::Duration;

use streamagg_e2e::broker::Broker;
use streamagg_e2e::wait::pause;

use super::{Harness, KILLS_DEFAULT, SHAPE, alone, number, phase};

/// A broker of its own: what others have written is not to be looked through after a kill.
const BROKER: &str = "crash-outage";
/// So many kills of the other phases come with one fault here.
const KILLS_PER_FAULT: u64 = 15;
/// Both faults, each with the processor that it found and with one that starts meanwhile.
const FAULTS_LEAST: u64 = 4;
/// A broker that stood still has lost its session, and every client with it the only broker there was.
const SOON_DEAD: [&str; 2] = ["--session-ms", "3000"];
/// How long the broker is gone, ms: longer than its session and than clients wait before they try again.
const GONE_MS: std::ops::Range<u64> = 3_000..5_000;

#[test]
fn a_broker_that_dies_and_stands_still_costs_nothing() {
    let _alone = alone();
    let (kills, seed) = (number("STREAMAGG_KILLS", KILLS_DEFAULT), number("STREAMAGG_SEED", 1));
    let faults = (kills / KILLS_PER_FAULT).max(FAULTS_LEAST);
    let broker = Broker::start_with(BROKER, &SOON_DEAD).expect("the broker starts");
    let counts = phase(&broker, "outage", seed, SHAPE, |harness| in_turn(harness, faults));
    assert!(counts.broker_restarts > 0 && counts.broker_pauses > 0, "{counts:?}");
    assert_eq!(counts.broker_restarts + counts.broker_pauses, faults, "{counts:?}");
    Broker::delete(BROKER).expect("the broker can be removed");
}

/// Takes the broker away so many times.
fn in_turn(harness: &mut Harness, faults: u64) -> Result<(), String> {
    harness.start_load()?;
    let mut processor = harness.start(None)?;
    let first = harness.random.below(FAULTS_LEAST);
    for fault in (first..).take(usize::try_from(faults).unwrap_or_default()) {
        harness.await_progress(&mut processor)?;
        harness.rest(0..1_000);
        let dies = fault % 2 == 0;
        match dies {
            true => Broker::kill(BROKER)?,
            false => Broker::pause(BROKER)?,
        }
        if fault % FAULTS_LEAST < 2 {
            harness.rest(0..1_500);
            processor.kill()?;
            harness.counts.kills += 1;
            processor = harness.start(None)?;
        }
        harness.rest(GONE_MS);
        if dies {
            Broker::start(BROKER)?;
            harness.counts.broker_restarts += 1;
        } else {
            Broker::resume(BROKER)?;
            harness.counts.broker_pauses += 1;
        }
        // Whoever runs goes on by itself.
        harness.await_progress(&mut processor)?;
        harness.check()?;
    }
    processor.kill()?;
    harness.counts.kills += 1;
    harness.finish()
}

impl Harness {
    /// A random time before the next fault.
    fn rest(&mut self, range_ms: std::ops::Range<u64>) {
        let time_ms = range_ms.start + self.random.below(range_ms.end - range_ms.start);
        pause(Duration::from_millis(time_ms));
    }
}
