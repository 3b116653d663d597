//! Opens and loads a base: local state, a checkpoint fetched from the store, or nothing at the start offset.
//! Must not hold: which base is taken (`state::recovery`).

use streamagg_crds::admin::TaskState;

use super::startup::Found;
use super::{End, Executor, state_budget};
use crate::kafka::control::ControlCopy;
use crate::pipeline::worker::Worker;
use crate::state::backend::Error;
use crate::state::checkpoint::Manifest;
use crate::state::local::{self, LocalState, Opened};
use crate::state::recovery::{Base, Local, Position, Reason, Stop};
use crate::state::store::{FetchError, Listing, Store};

/// Times that the store is listed in one start-up.
const LISTINGS_MAX: u32 = 8;

impl Executor {
    /// Local state. A task without any has the committed position for it: it goes on there and never replays. But where K
    /// was further when this executor had it last, that is its state: brokers have lost what they had acknowledged.
    pub(super) fn open_state(&self, control: &ControlCopy) -> Result<Opened, Stop> {
        if self.role.stage.keeps_state() {
            return self.directory.open();
        }
        let left_at = self.left_at.borrow();
        let held = match (&control.position, left_at.as_ref()) {
            (Some(committed), Some(left)) if left.is_ahead_of(committed) => Some(left),
            (Some(committed), _) => Some(committed),
            (None, left) => left,
        };
        Ok(Opened {
            state: Some(LocalState::none()),
            local: held.map_or(Local::Absent, |position| Local::Held(Box::new(position.clone()))),
        })
    }

    /// A life ended at this position. What has a volume needs no memory of it.
    pub(super) fn leaves_at(&self, committed: Position) {
        if !self.role.stage.keeps_state() {
            *self.left_at.borrow_mut() = Some(committed);
        }
    }

    /// The task of a base; `Err` says why the base is refused.
    pub(super) fn load(
        &self,
        found: &mut Found,
        base: &Base,
        state: &mut Option<LocalState>,
    ) -> Result<Result<Worker, String>, End> {
        let Some(committed) = found.control.position.clone() else {
            return Err(End::Again("no committed position".to_owned()));
        };
        match base {
            Base::Local => {}
            Base::Birth => {
                let start_offset = found.control.birth.as_ref().map_or(0, |birth| birth.start_offset);
                drop(state.take());
                let empty = self.directory.discard()?;
                found.local = Local::Absent;
                let mut task = found.setup.begin(&committed.lineage, start_offset);
                self.page(&mut task, &empty);
                *state = Some(empty);
                return Ok(Ok(task));
            }
            Base::Checkpoint(id) => {
                if let Err(why) = self.fetch(found, id, state)? {
                    return Ok(Err(why));
                }
            }
        }
        let Some(open) = state.as_ref() else {
            return Ok(Err("local state is closed".to_owned()));
        };
        let paging = open.reader().zip(self.state_budget());
        match found.setup.restore(&committed, open, paging) {
            Ok(Some(task)) => Ok(Ok(task)),
            Ok(None) => Ok(Err("it holds no task".to_owned())),
            Err(Error::Corrupt { what }) => Ok(Err(what)),
            Err(error @ (Error::Store { .. } | Error::Format { .. } | Error::Incompatible { .. })) => {
                Err(local::stop_of(&error, self.directory.root()).into())
            }
        }
    }

    pub(super) fn state_budget(&self) -> Option<usize> {
        state_budget(&self.context, &self.board)
    }

    /// Lets rows of a new task leave memory for this state, where its memory is bounded.
    pub(super) fn page(&self, task: &mut Worker, state: &LocalState) {
        if let (Some(reader), Some(_)) = (state.reader(), self.state_budget()) {
            task.page(reader);
        }
    }

    /// A task that had to hold more rows than its memory allows, to write them anew, is read once more from what it
    /// saved: its tables keep the size that they have had.
    pub(super) fn read_within_memory(
        &self,
        found: &Found,
        reached: &Position,
        state: &LocalState,
        task: &mut Worker,
    ) -> Result<(), End> {
        let Some((reader, budget)) = state.reader().zip(self.state_budget()) else {
            return Ok(());
        };
        if task.rows_left_in_store() == 0 || task.state_bytes() <= budget {
            return Ok(());
        }
        let again = found.setup.restore(reached, state, Some((reader, budget)));
        match again.map_err(|error| local::stop_of(&error, self.directory.root()))? {
            Some(smaller) => *task = smaller,
            None => return Err(End::Again("what was saved holds no task".to_owned())),
        }
        Ok(())
    }

    /// What the task has in the store.
    pub(super) fn list_store(&self, control: &ControlCopy, local: &Local) -> Result<Listing, End> {
        let is_ordered = self.ordered(control).is_some();
        // A combine task has no use for its own but to go back to them, and to know that it was born.
        let is_of_use = is_ordered || control.position.is_none();
        let of_use = self.context.checkpoints.as_ref().filter(|_| is_of_use);
        let Some((store, _)) = self.checkpoints().or(of_use) else {
            return Ok(Listing::default());
        };
        self.board.beat();
        match self.context.runtime.block_on(store.list(self.task)) {
            Ok(listing) => {
                for (id, why) in &listing.unreadable {
                    tracing::warn!(task = self.task, id, why, "checkpoint manifest unreadable, passed over");
                }
                Ok(listing)
            }
            Err(error) => match (control.position.as_ref(), local) {
                // Local state at K needs no checkpoint: a store that is down does not stop a restart.
                (Some(committed), Local::Held(position))
                    if position.lineage == committed.lineage
                        && position.place() == committed.place()
                        && !is_ordered =>
                {
                    tracing::warn!(task = self.task, %error, "checkpoint store not readable, local state is enough");
                    Ok(Listing {
                        unlisted: Some(error.to_string()),
                        ..Listing::default()
                    })
                }
                _ => Err(Stop::new(Reason::CheckpointFailed, error.to_string()).into()),
            },
        }
    }

    /// Lists the store once more: K has been read and every earlier owner is fenced, so nothing listed now is ahead of K.
    fn list_again(&self, found: &mut Found) -> Result<(), End> {
        if found.listings >= LISTINGS_MAX {
            return Err(End::Again(format!(
                "checkpoints vanished {LISTINGS_MAX} times while they were fetched"
            )));
        }
        found.listings += 1;
        found.listing = self.list_store(&found.control, &found.local)?;
        Ok(())
    }

    /// Fetches the files of a checkpoint beside local state.
    pub(super) fn download(&self, store: &Store, manifest: &Manifest) -> Result<Result<(), FetchError>, Stop> {
        self.directory.check_room(manifest.info().bytes, self.was_full.get())?;
        self.board.enter(TaskState::Restoring);
        let progress = |share: f64| {
            self.board.beat();
            self.board.update(|status| status.progress = Some(share));
        };
        let staging = self.directory.staging();
        let fetch = store.fetch(self.task, manifest, &staging, progress);
        Ok(self.context.runtime.block_on(fetch))
    }

    /// Fetches a checkpoint and puts it in the place of local state.
    fn fetch(&self, found: &mut Found, id: &str, state: &mut Option<LocalState>) -> Result<Result<(), String>, End> {
        let manifest = found
            .listing
            .manifests
            .iter()
            .find(|manifest| manifest.id == id)
            .cloned();
        let (Some((store, _)), Some(manifest)) = (self.checkpoints(), manifest) else {
            return Ok(Err("it is not in the store".to_owned()));
        };
        match self.download(store, &manifest)? {
            Ok(()) => {}
            Err(error @ FetchError::Damaged { .. }) => return Ok(Err(error.to_string())),
            Err(error @ FetchError::Retired { .. }) => {
                self.list_again(found)?;
                return Ok(Err(error.to_string()));
            }
            Err(FetchError::Store(error)) => {
                return Err(Stop::new(Reason::CheckpointFailed, error.to_string()).into());
            }
        }
        drop(state.take());
        found.local = Local::Absent;
        match self.directory.install(manifest.format) {
            Ok(installed) => {
                *state = Some(installed);
                self.board.update(|status| status.restored_from = Some(id.to_owned()));
                Ok(Ok(()))
            }
            Err(Error::Corrupt { what }) => {
                *state = Some(self.directory.discard()?);
                Ok(Err(what))
            }
            Err(error) => Err(local::stop_of(&error, self.directory.root()).into()),
        }
    }
}
