//! Carries out a user's rewind: the checkpoint is fetched and verified beside local state, then one commit makes it K, then
//! it takes the place of local state. A crash before the commit leaves everything as it was.
//! Must not hold: whether there is a rewind, or the position it begins with (`state::recovery::rewind`).

use streamagg_crds::job_file::Restore;
use uuid::Uuid;

use super::commit::{Committer, Epoch};
use super::failpoint::Place;
use super::startup::Found;
use super::{End, Executor};
use crate::kafka::consumer::PartitionReader;
use crate::kafka::control::ControlCopy;
use crate::pipeline::operator::merge::Cut;
use crate::pipeline::position::{Decision, DecisionKind};
use crate::pipeline::stage::Stage;
use crate::pipeline::worker::Worker;
use crate::state::backend::Error;
use crate::state::checkpoint::Manifest;
use crate::state::local::{self, LocalState};
use crate::state::recovery::{LastInputCheck, Local, Order, Owner, Position, Reason, Stop, rewind};
use crate::state::store::{FetchError, Store, StoreError};

const HOLDER_PREFIX: &str = "task-restore-";

/// Holder of the pin that keeps a checkpoint from when it is fetched until there is another one behind it.
fn pin_holder(nonce: u64) -> String {
    format!("{HOLDER_PREFIX}{nonce}")
}

/// Whether a pin is of a rewind that is over where `nonce` was carried out and has a checkpoint behind it.
pub(super) fn is_over(holder: &str, nonce: u64) -> bool {
    let of = holder.strip_prefix(HOLDER_PREFIX).and_then(|of| of.parse::<u64>().ok());
    of.is_some_and(|of| of <= nonce)
}

impl Executor {
    /// The user's order, unless the committed position says that it was carried out.
    pub(super) fn ordered(&self, control: &ControlCopy) -> Option<&Restore> {
        let done = control.position.as_ref().map_or(0, |position| position.restore_nonce);
        self.context.restore.as_ref().filter(|restore| restore.nonce > done)
    }

    /// The order as the start-up table sees it.
    pub(super) fn order(&self, last_input: LastInputCheck) -> Option<Order<'_>> {
        let restore = self.context.restore.as_ref()?;
        Some(Order {
            nonce: restore.nonce,
            name: &restore.checkpoint,
            id: restore.tasks.get(&self.task).map(String::as_str),
            last_input,
        })
    }

    /// Looks whether the input is the one that the checkpoint ordered has consumed.
    pub(super) fn check_ordered_input(
        &self,
        control: &ControlCopy,
        manifests: &[Manifest],
        reader: &PartitionReader,
        (start, end): (i64, i64),
    ) -> Result<LastInputCheck, End> {
        let id = self.ordered(control).and_then(|restore| restore.tasks.get(&self.task));
        let manifest = id.and_then(|id| manifests.iter().find(|manifest| manifest.id == *id));
        Ok(match manifest.and_then(|manifest| manifest.position.last_input) {
            Some(last) => reader.check_last_input(last, start, end)?,
            None => LastInputCheck::Skipped,
        })
    }

    /// Goes back to a checkpoint of the listing.
    pub(super) fn rewind(
        &self,
        found: &mut Found,
        committer: &mut Committer<'_>,
        state: &mut Option<LocalState>,
        id: &str,
    ) -> Result<(), End> {
        let mut manifests = found.listing.manifests.iter();
        let manifest = manifests.find(|manifest| manifest.id == id).cloned();
        let (Some(order), Some(manifest)) = (self.order(found.ordered_input), manifest) else {
            return Err(self.failed(format!("{id} is not in the store")).into());
        };
        let stored = &manifest.position;
        self.check_followers(found, committer, stored)?;
        let cuts = self.cuts(found, committer, stored)?;
        self.verify(found, &manifest, &cuts)?;
        let decisions: Vec<Decision> = cuts
            .into_iter()
            .map(|cut| Decision {
                input_offset: stored.engine_position.input_offset,
                kind: DecisionKind::Cut(cut),
            })
            .collect();
        let known: Vec<_> = found.listing.manifests.iter().map(Manifest::fact).collect();
        let lineage = rewind::lineage(order.nonce, Uuid::new_v4().as_u128());
        let rewound = rewind::position(
            &self.facts(found, &known),
            &order,
            stored,
            lineage,
            decisions.len() as u64,
        );
        let failpoints = &self.context.failpoints;
        failpoints.pass(Place::BeforeRewind);
        committer.commit(Epoch {
            outputs: None,
            birth: None,
            decisions: &decisions,
            tombstones: &[],
            built_on: found.control.position.as_ref(),
            sent: &rewound,
        })?;
        failpoints.pass(Place::AfterRewind);
        self.tell_rewind(&order, stored, &rewound, &decisions);
        self.install(found, &manifest, &rewound, state)?;
        found.last_input = found.ordered_input;
        found.control.rewound(rewound, decisions);
        Ok(())
    }

    fn tell_rewind(&self, order: &Order<'_>, stored: &Position, rewound: &Position, decisions: &[Decision]) {
        tracing::warn!(
            task = self.task,
            nonce = order.nonce,
            checkpoint = order.name,
            id = order.id,
            offset = stored.engine_position.input_offset,
            lineage = rewound.lineage,
            result_revision = rewound.engine_position.result_revision,
            "RestoredByUser: gone back to a checkpoint; results behind it are published again with a higher pane.revision"
        );
        self.context.metrics.restored(self.task);
        for decision in decisions {
            self.context.metrics.decided(self.task, decision);
        }
    }

    pub(super) fn failed(&self, what: String) -> Stop {
        let (nonce, name) = match &self.context.restore {
            Some(restore) => (restore.nonce, restore.checkpoint.as_str()),
            None => (0, ""),
        };
        Stop::new(
            Reason::RestoreFailed,
            format!(
                "restore {nonce} to checkpoint {name:?}, task {}: {what}. {}",
                self.task,
                rewind::WAY_OUT
            ),
        )
    }

    pub(super) fn store(&self) -> Result<&Store, Stop> {
        match &self.context.checkpoints {
            Some((store, _)) => Ok(store),
            None => Err(self.failed("the job has no spec.state.checkpoints.store".to_owned())),
        }
    }

    /// What a window task has to know: where each source partition went back to. The first stage goes first: were a window
    /// task to pass over what a combine task has written that then does not go back, that would be lost.
    fn cuts(&self, found: &Found, committer: &Committer<'_>, stored: &Position) -> Result<Vec<Cut>, End> {
        let Some(restore) = self
            .context
            .restore
            .as_ref()
            .filter(|_| self.role.stage == Stage::Window)
        else {
            return Ok(Vec::new());
        };
        let mut cuts = Vec::new();
        for task in found.setup.shuffle_partitions..found.tasks {
            let source = self.context.role(task).partition;
            let control = committer.read_control_of(task)?;
            match restore.tasks.get(&task) {
                Some(id) => {
                    let Some(lineage) = self.begun_by(found, task, &control, restore.nonce)? else {
                        let nonce = restore.nonce;
                        return Err(End::Again(format!(
                            "restore {nonce} waits for task {task}, which goes back first"
                        )));
                    };
                    let at = self.manifest_of(found, task, id)?.position;
                    rewind::check_together((restore.nonce, id), &at, stored)?;
                    cuts.push(rewind::cut(source, lineage, &at));
                }
                None if came_before(&control, found, restore.nonce) => {
                    let what = format!("it has nothing of task {task}, source partition {source}, which came later");
                    return Err(self.failed(what).into());
                }
                // Born behind this restore, or not yet: nothing of it is taken back (`check_unheard`).
                None => {}
            }
        }
        Ok(cuts)
    }

    /// Source partitions that the order has nothing of must be none that the checkpoint has heard of.
    fn check_unheard(&self, found: &Found, task: &Worker) -> Result<(), Stop> {
        let Some(restore) = &self.context.restore else {
            return Ok(());
        };
        for other in (found.setup.shuffle_partitions..found.tasks).filter(|other| !restore.tasks.contains_key(other)) {
            let source = self.context.role(other).partition;
            if task.has_heard(source) {
                let what = format!(
                    "it has nothing of task {other}, source partition {source}, which the checkpoint has heard of"
                );
                return Err(self.failed(what));
            }
        }
        Ok(())
    }

    /// Fetches the checkpoint beside local state, and reads the whole task that it holds.
    fn verify(&self, found: &Found, manifest: &Manifest, cuts: &[Cut]) -> Result<(), End> {
        if !self.role.stage.keeps_state() {
            // It is what its position says.
            return Ok(());
        }
        let (store, id) = (self.store()?, &manifest.id);
        let holder = pin_holder(self.context.restore.as_ref().map_or(0, |restore| restore.nonce));
        let pinned = self.context.runtime.block_on(store.pin(self.task, id, &holder));
        if !pinned.map_err(unreachable)? {
            return Err(self.failed(format!("{id} is not in the store any more")).into());
        }
        match self.download(store, manifest)? {
            Ok(()) => {}
            Err(FetchError::Store(error)) => return Err(unreachable(error).into()),
            Err(error @ (FetchError::Damaged { .. } | FetchError::Retired { .. })) => {
                return Err(self.failed(error.to_string()).into());
            }
        }
        let unreadable = |error: Error| match error {
            Error::Corrupt { what } => self.failed(format!("{id} cannot be read: {what}")),
            Error::Store { .. } | Error::Format { .. } | Error::Incompatible { .. } => {
                local::stop_of(&error, &self.directory.staging())
            }
        };
        let staged = self.directory.open_staged(manifest.format).map_err(unreadable)?;
        let paging = staged.reader().zip(self.state_budget());
        let read = found.setup.restore(&manifest.position, &staged, paging);
        let Some(mut task) = read.map_err(unreadable)? else {
            return Err(self.failed(format!("{id} holds no task")).into());
        };
        if task.position() != manifest.position.engine_position {
            return Err(self
                .failed(format!("{id} does not stand where its manifest says"))
                .into());
        }
        self.check_unheard(found, &task)?;
        for cut in cuts {
            task.rewound(cut).map_err(|refused| self.failed(refused.to_string()))?;
        }
        Ok(())
    }

    /// What was fetched becomes local state. A combine task is its committed position.
    fn install(
        &self,
        found: &mut Found,
        manifest: &Manifest,
        rewound: &Position,
        state: &mut Option<LocalState>,
    ) -> Result<(), End> {
        if !self.role.stage.keeps_state() {
            found.local = Local::Held(Box::new(rewound.clone()));
            found.listing.manifests.clear();
            return Ok(());
        }
        drop(state.take());
        let installed = self.directory.install(manifest.format);
        *state = Some(installed.map_err(|error| local::stop_of(&error, self.directory.root()))?);
        found.local = Local::Held(Box::new(manifest.position.clone()));
        self.board
            .update(|status| status.restored_from = Some(manifest.id.clone()));
        Ok(())
    }
}

/// Whether a task that an order has nothing of was there before that, as far as its control partition tells.
pub(super) fn came_before(control: &ControlCopy, found: &Found, nonce: u64) -> bool {
    match &control.position {
        Some(position) => !has_followed(position, &found.owner, nonce),
        None => control.damage.is_some(),
    }
}

/// Whether a position comes from behind this object's restore.
pub(super) fn has_followed(position: &Position, owner: &Owner, nonce: u64) -> bool {
    position.uid == owner.uid && position.restore_nonce >= nonce
}

pub(super) fn unreachable(error: StoreError) -> Stop {
    Stop::new(Reason::CheckpointFailed, error.to_string())
}
