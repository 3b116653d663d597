//! What happens to processors: killed, run into a failpoint, left without an answer, frozen and let go on. Must not judge
//! what comes out.

use std::time::Duration;

use streamagg_e2e::process::{ABORTED, Home};
use streamagg_e2e::wait::{Seen, await_condition, pause};

use super::{Harness, PROGRESS_MAX};

/// Commits of which a processor did not learn what became of them.
const UNKNOWN: &str = "streamagg_transactions_total{outcome=\"unknown\"";

impl Harness {
    /// Kills a processor at a random time: while it starts or replays, or while it works.
    pub(super) fn kill_at_random(&mut self) -> Result<(), String> {
        let mut processor = self.start(None)?;
        if self.random.one_in(2) {
            self.await_progress(&mut processor)?;
        }
        pause(Duration::from_millis(self.random.below(1_500)));
        processor.kill()?;
        self.counts.kills += 1;
        Ok(())
    }

    /// Kills a processor that has rows on the volume only.
    pub(super) fn kill_beyond_memory(&mut self) -> Result<(), String> {
        let processor = self.start(None)?;
        let home = &self.home;
        await_condition("rows on the volume only", PROGRESS_MAX, || {
            match home.metric("streamagg_state_rows_on_volume") {
                Some(rows) if rows > 0.0 => Seen::Done(()),
                other => Seen::NotYet(format!("{other:?}")),
            }
        })?;
        processor.kill()?;
        self.counts.kills += 1;
        Ok(())
    }

    /// Lets a processor run into a failpoint.
    pub(super) fn abort_at(&mut self, name: &'static str) -> Result<(), String> {
        if name == "after-claim" {
            // A position is claimed once a generation.
            self.generation += 1;
            let assigned = self.home.assign(self.generation, self.tasks);
            assigned.map_err(|error| error.to_string())?;
        }
        let pass = 1 + self.random.below(3);
        // A claim and a replay come once a start.
        let setting = if matches!(name, "after-claim" | "mid-replay") {
            name.to_owned()
        } else {
            format!("{name}:{pass}")
        };
        let mut processor = self.start(Some(&setting))?;
        let (code, signal) = processor.ended(&format!("failpoint {setting}"), PROGRESS_MAX)?;
        if signal != Some(ABORTED) {
            return Err(format!(
                "failpoint {setting}: the processor ended with code {code:?}, signal {signal:?}"
            ));
        }
        self.counts.aborts.push(name);
        self.say(&format!("failpoint {setting}"));
        Ok(())
    }

    /// An epoch, or the answer to it, gets lost on the way: the processor finds out which, and goes on until it is killed.
    pub(super) fn lose_outcome(&mut self, name: &'static str) -> Result<(), String> {
        let setting = format!("{name}:{}", 1 + self.random.below(3));
        let mut processor = self.start(Some(&setting))?;
        let home = &self.home;
        await_condition("an outcome that is not known", PROGRESS_MAX, || {
            match home.metric(UNKNOWN) {
                Some(count) if count > 0.0 => Seen::Done(()),
                other => Seen::NotYet(format!("{other:?}")),
            }
        })?;
        self.await_progress(&mut processor)?;
        processor.kill()?;
        self.counts.kills += 1;
        self.counts.outcomes_lost.push(name);
        self.say(&format!("failpoint {setting}"));
        Ok(())
    }

    /// Freezes a processor, starts its successor elsewhere in the next generation, and lets the first go on.
    pub(super) fn zombie(&mut self) -> Result<(), String> {
        let mut zombie = self.start(None)?;
        self.await_progress(&mut zombie)?;
        zombie.signal("STOP")?;
        self.generation += 1;
        let directory = self.directory.join(format!("home-{}", self.generation));
        let mut next = Home::create(&directory, &self.home.checkpoints).map_err(|error| error.to_string())?;
        next.order.clone_from(&self.home.order);
        next.assign(self.generation, self.tasks)
            .map_err(|error| error.to_string())?;
        let old = std::mem::replace(&mut self.home, next);
        let mut successor = self.start(None)?;
        self.await_progress(&mut successor)?;
        zombie.signal("CONT")?;
        // Both run now; only the successor may commit, and it must not be held up.
        for _ in 0..3 {
            self.await_progress(&mut successor)?;
        }
        if !zombie.is_running() {
            return Err(format!("the zombie ended by itself; see {}", old.log().display()));
        }
        zombie.kill()?;
        successor.kill()?;
        self.counts.kills += 2;
        self.counts.zombies += 1;
        Ok(())
    }
}
