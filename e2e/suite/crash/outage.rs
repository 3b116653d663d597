//! The broker itself dies or stands still, under jobs that crash. Must not judge what comes out.

use std::ops::Range;
use std::time::Duration;

use streamagg_e2e::broker::Broker;
use streamagg_e2e::process::Processor;
use streamagg_e2e::random::Random;
use streamagg_e2e::wait::pause;

use super::{AT_LEAST_ONCE, Harness, KILLS_DEFAULT, SCATTERED, SHAPE, alone, judge, number, set_up};

/// A broker of its own: what others have written is not to be looked through after a kill.
const BROKER: &str = "crash-outage";
/// So many kills of the other phases come with one fault here.
const KILLS_PER_FAULT: u64 = 15;
/// Both faults, each with the processors that it found and with some that start meanwhile.
const FAULTS_LEAST: u64 = 4;
/// A broker that stood still has lost its session, and every client with it the only broker there was.
const SOON_DEAD: [&str; 2] = ["--session-ms", "3000"];
/// How long the broker is gone, ms: longer than its session and than clients wait before they try again.
const GONE_MS: Range<u64> = 3_000..5_000;

/// Each fault hits one stage and two stages that deliver exactly once, and one that delivers at least once: two that do
/// so are made of the same.
#[test]
fn a_broker_that_dies_and_stands_still_costs_nothing() {
    let _alone = alone();
    let (kills, seed) = (number("STREAMAGG_KILLS", KILLS_DEFAULT), number("STREAMAGG_SEED", 1));
    let faults = (kills / KILLS_PER_FAULT).max(FAULTS_LEAST);
    let broker = Broker::start_with(BROKER, &SOON_DEAD).expect("the broker starts");
    let repeating = format!("{AT_LEAST_ONCE}-outage");
    let phases = [
        ("outage", SHAPE),
        ("outage-two-stages", SCATTERED),
        (repeating.as_str(), SHAPE),
    ];
    let mut phases = phases.map(|(name, shape)| set_up(&broker, name, seed, shape));
    let outcome = in_turn(phases.each_mut().map(|(harness, _)| harness), Random::new(seed), faults);
    for counts in judge(phases, outcome) {
        assert!(counts.broker_restarts > 0 && counts.broker_pauses > 0, "{counts:?}");
        assert_eq!(counts.broker_restarts + counts.broker_pauses, faults, "{counts:?}");
    }
    Broker::delete(BROKER).expect("the broker can be removed");
}

/// A harness under load, with the processor that runs.
struct Running<'h> {
    harness: &'h mut Harness,
    processor: Option<Processor>,
}

/// Takes the broker away from all of them so many times.
fn in_turn<const N: usize>(harnesses: [&mut Harness; N], mut random: Random, faults: u64) -> Result<(), String> {
    let mut all = harnesses.map(|harness| Running {
        harness,
        processor: None,
    });
    side_by_side(&mut all, |one| {
        one.harness.start_load()?;
        one.start()
    })?;
    let first = random.below(FAULTS_LEAST);
    for fault in (first..).take(usize::try_from(faults).unwrap_or_default()) {
        side_by_side(&mut all, |one| one.await_progress())?;
        rest(&mut random, 0..1_000);
        let dies = fault % 2 == 0;
        match dies {
            true => Broker::kill(BROKER)?,
            false => Broker::pause(BROKER)?,
        }
        let started = match fault % FAULTS_LEAST < 2 {
            true => side_by_side(&mut all, |one| {
                rest(&mut one.harness.random, 0..1_500);
                one.kill()?;
                one.start()
            }),
            false => Ok(()),
        };
        rest(&mut random, GONE_MS);
        match dies {
            true => Broker::start(BROKER).map(drop)?,
            false => Broker::resume(BROKER)?,
        }
        // Not before: a broker that stands still is in the way of whoever comes next.
        started?;
        side_by_side(&mut all, |one| {
            let counts = &mut one.harness.counts;
            counts.broker_restarts += u64::from(dies);
            counts.broker_pauses += u64::from(!dies);
            // Whoever runs goes on by itself.
            one.await_progress()?;
            one.harness.check()
        })?;
    }
    side_by_side(&mut all, |one| {
        one.kill()?;
        one.harness.finish()
    })
}

impl Running<'_> {
    fn start(&mut self) -> Result<(), String> {
        self.processor = Some(self.harness.start(None)?);
        Ok(())
    }

    fn await_progress(&mut self) -> Result<(), String> {
        let processor = self.processor.as_mut().ok_or("no processor runs")?;
        self.harness.await_progress(processor)
    }

    fn kill(&mut self) -> Result<(), String> {
        self.processor.take().ok_or("no processor runs")?.kill()?;
        self.harness.counts.kills += 1;
        Ok(())
    }
}

/// Has all of them do the same at once, and waits for the last: so waiting for three takes no longer than for one. What
/// failed first in their order is told.
fn side_by_side(
    all: &mut [Running<'_>],
    act: impl Fn(&mut Running<'_>) -> Result<(), String> + Sync,
) -> Result<(), String> {
    let act = &act;
    std::thread::scope(|scope| {
        let threads: Vec<_> = all
            .iter_mut()
            .map(|one| {
                scope.spawn(move || {
                    let outcome = act(one);
                    outcome.map_err(|problem| format!("{}: {problem}", one.harness.name))
                })
            })
            .collect();
        let outcomes = threads.into_iter().map(|thread| thread.join().expect("no step panics"));
        outcomes.collect()
    })
}

/// A random time.
fn rest(random: &mut Random, range_ms: Range<u64>) {
    let time_ms = range_ms.start + random.below(range_ms.end - range_ms.start);
    pause(Duration::from_millis(time_ms));
}
