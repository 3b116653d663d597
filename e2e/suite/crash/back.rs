//! A user goes back to checkpoints of a job that crashes. Must not judge what comes out.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use streamagg_e2e::process::{ABORTED, Processor};
use streamagg_e2e::wait::{Seen, await_condition};

use super::{Harness, PROGRESS_MAX};

/// Where a process dies that goes back: at a failpoint, or behind it.
pub(super) const PLACES: [&str; 3] = ["before-rewind", "after-rewind", "nowhere"];
/// Checkpoints to choose from; each keeps what it needs.
const KEPT_MAX: usize = 3;

/// Goes back so many times, to the newest checkpoint or an older one, with kills and lost volumes between.
pub(super) fn and_forth(harness: &mut Harness, restores: u64) -> Result<(), String> {
    harness.start_load()?;
    harness.verifier.went_back = true;
    for restore in 0..restores {
        if harness.kept.len() < KEPT_MAX {
            harness.keep_checkpoint()?;
        }
        harness.kill_at_random()?;
        let place = PLACES[usize::try_from(restore).unwrap_or_default() % PLACES.len()];
        harness.go_back(place)?;
        match restore % 4 {
            1 => harness.lose_volume()?,
            2 => harness.zombie()?,
            _ => harness.kill_at_random()?,
        }
        harness.check()?;
    }
    harness.finish()
}

impl Harness {
    /// A checkpoint of the job that stays: of two stages the window tasks first.
    fn keep_checkpoint(&mut self) -> Result<(), String> {
        let mut processor = self.start(None)?;
        self.await_progress(&mut processor)?;
        let number = self.kept.len();
        let mut ids = BTreeMap::new();
        for (stage, tasks) in [(1, 0..self.window_tasks), (2, self.window_tasks..self.tasks)] {
            if tasks.is_empty() {
                continue;
            }
            let tasks: Vec<String> = tasks.map(|task| task.to_string()).collect();
            let path = format!("/v1/checkpoint?id=kept-{number}-{stage}&tasks={}", tasks.join(","));
            ids.extend(self.complete(&path, "")?);
        }
        let pins = json!({"checkpoints": ids}).to_string();
        self.complete(&format!("/v1/pins?holder=kept-{number}"), &pins)?;
        self.say(&format!("checkpoint {number}: {ids:?}"));
        self.kept.push(ids);
        processor.kill()?;
        self.counts.kills += 1;
        Ok(())
    }

    /// Repeats an operation until it is complete for every task; answers their checkpoints.
    fn complete(&self, path: &str, body: &str) -> Result<BTreeMap<String, String>, String> {
        await_condition(path, PROGRESS_MAX, || match self.home.ask("POST", path, body) {
            Ok(answer) => match completed(&answer) {
                Some(ids) => Seen::Done(ids),
                None => Seen::NotYet(answer.to_string()),
            },
            Err(error) => Seen::NotYet(error),
        })
    }

    /// Orders one of the checkpoints kept; the process that carries it out dies at `place`, and so does the next, later.
    fn go_back(&mut self, place: &'static str) -> Result<(), String> {
        let chosen = usize::try_from(self.random.below(self.kept.len() as u64)).unwrap_or_default();
        self.nonce += 1;
        let order = json!({"nonce": self.nonce, "checkpoint": format!("kept-{chosen}"), "tasks": self.kept[chosen]});
        let path = self.directory.join(format!("restore-{}.json", self.nonce));
        std::fs::write(&path, order.to_string()).map_err(|error| error.to_string())?;
        self.home.order = Some(path);
        if place != "nowhere" {
            let setting = format!("{place}:{}", 1 + self.random.below(u64::from(self.tasks)));
            let mut processor = self.start(Some(&setting))?;
            let (code, signal) = processor.ended(&format!("failpoint {setting}"), PROGRESS_MAX)?;
            if signal != Some(ABORTED) {
                return Err(format!(
                    "failpoint {setting}: ended with code {code:?}, signal {signal:?}"
                ));
            }
        }
        let mut processor = self.start(None)?;
        self.await_restored(&mut processor)?;
        self.await_progress(&mut processor)?;
        processor.kill()?;
        self.counts.kills += 1;
        self.counts.restores.push(place);
        self.say(&format!(
            "back to checkpoint {chosen} by order {}, died at {place}",
            self.nonce
        ));
        Ok(())
    }

    fn await_restored(&self, processor: &mut Processor) -> Result<(), String> {
        await_condition("every task is back", Duration::from_secs(120), || {
            if !processor.is_running() {
                return Seen::Done(Err("the processor ended by itself".to_owned()));
            }
            let status = match self.home.ask("GET", "/v1/status", "") {
                Ok(status) => status,
                Err(error) => return Seen::NotYet(error),
            };
            let tasks = status["tasks"].as_array().map_or(&[][..], Vec::as_slice);
            let is_back = |task: &Value| task["restoreNonce"] == self.nonce && task["state"] == "Running";
            if tasks.len() == self.tasks as usize && tasks.iter().all(is_back) {
                return Seen::Done(Ok(()));
            }
            Seen::NotYet(status.to_string())
        })?
    }
}

/// Ids by task, when every row is complete.
fn completed(answer: &Value) -> Option<BTreeMap<String, String>> {
    let rows = answer["tasks"].as_array().filter(|rows| !rows.is_empty())?;
    let id = |row: &Value| {
        let id = row["checkpoint"]["id"].as_str().unwrap_or_default().to_owned();
        (row["phase"] == "Complete").then(|| (row["task"].to_string(), id))
    };
    rows.iter().map(id).collect()
}
