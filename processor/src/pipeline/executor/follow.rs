//! Two stages: what a combine task looks at before it goes back, for the window tasks can only follow, and what it has left
//! is in no checkpoint.
//! Must not hold: what a window task is told (`rewind`), or what takes a fetch of the other tasks' files to find out.

use streamagg_crds::job_file::Restore;

use super::commit::Committer;
use super::rewind::{came_before, has_followed, unreachable};
use super::startup::Found;
use super::topology::Inputs;
use super::{End, Executor};
use crate::kafka::control::ControlCopy;
use crate::pipeline::stage::Stage;
use crate::state::checkpoint::Manifest;
use crate::state::recovery::{Position, Reason, Stop, rewind};

impl Executor {
    /// Whether the other tasks can follow where this one goes back to `stored`, as far as can be said without their files.
    pub(super) fn check_followers(
        &self,
        found: &Found,
        committer: &Committer<'_>,
        stored: &Position,
    ) -> Result<(), End> {
        let ordered = self.context.restore.as_ref();
        let Some(restore) = ordered.filter(|_| self.role.stage == Stage::Combine) else {
            return Ok(());
        };
        let inputs = Inputs::open(&self.context)?;
        for task in (0..found.tasks).filter(|task| *task != self.task) {
            self.board.beat();
            let role = self.context.role(task);
            let control = committer.read_control_of(task)?;
            let at = match (restore.tasks.get(&task), role.stage) {
                (Some(id), Stage::Whole | Stage::Combine) => {
                    let at = self.manifest_of(found, task, id)?.position;
                    if self.begun_by(found, task, &control, restore.nonce)?.is_some() {
                        // It has gone back and read on: its log may have been cut off there since.
                        continue;
                    }
                    at
                }
                (Some(id), Stage::Window) => {
                    self.refuse_second_time(found, task, &control, restore.nonce)?;
                    self.check_window(found, restore, (task, id), stored)?
                }
                (None, Stage::Whole | Stage::Combine) => {
                    self.check_left_out(found, task, &control, (restore.nonce, stored))?;
                    continue;
                }
                (None, Stage::Window) => return Err(self.failed(format!("it has nothing of task {task}")).into()),
            };
            let start = inputs.start_of(role)?;
            if start > at.unread_from() {
                return Err(self
                    .failed(format!(
                        "the input of task {task} starts at offset {start}, its checkpoint ends at {}",
                        at.unread_from()
                    ))
                    .into());
            }
        }
        Ok(())
    }

    /// A combine task has no other witness than the committed position: where that was lost, it would go back once more by
    /// the same order, and number anew what was merged.
    fn refuse_second_time(&self, found: &Found, task: u32, control: &ControlCopy, nonce: u64) -> Result<(), Stop> {
        let followed = |position: &Position| has_followed(position, &found.owner, nonce);
        let witness = match &control.position {
            Some(position) if followed(position) => Some("the committed position".to_owned()),
            Some(_) | None => {
                let manifests = self.manifests_of(task)?;
                let witness = manifests.iter().find(|manifest| followed(&manifest.position));
                witness.map(|witness| format!("checkpoint {}", witness.id))
            }
        };
        let Some(witness) = witness else {
            return Ok(());
        };
        Err(Stop::new(
            Reason::CommittedPositionBehindState,
            format!(
                "{witness} of task {task} comes from behind restore {nonce}, the committed position of this task from before \
                 it: the control topic has lost commits, and going back again by the same order would count events twice; \
                 restore the control topic, or order a checkpoint under a higher nonce"
            ),
        ))
    }

    /// Whether a window task's checkpoint is whole, and of one checkpoint of the job with this task's.
    fn check_window(
        &self,
        found: &Found,
        restore: &Restore,
        (task, id): (u32, &str),
        stored: &Position,
    ) -> Result<Position, End> {
        let manifest = self.manifest_of(found, task, id)?;
        let complete = self
            .context
            .runtime
            .block_on(self.store()?.is_complete(task, &manifest));
        if !complete.map_err(unreachable)? {
            let what = format!("files of checkpoint {id} of task {task} are missing or cut short");
            return Err(self.failed(what).into());
        }
        let own = restore.tasks.get(&self.task).map_or("", String::as_str);
        rewind::check_together((restore.nonce, own), stored, &manifest.position)?;
        Ok(manifest.position)
    }

    /// A source partition that the order has nothing of may have been born behind it or be yet to be born.
    fn check_left_out(
        &self,
        found: &Found,
        task: u32,
        control: &ControlCopy,
        (nonce, stored): (u64, &Position),
    ) -> Result<(), End> {
        // Whoever had the jobId before is of interest only where the order goes on with that.
        let is_known = |uid: &String| *uid == found.owner.uid || *uid == stored.uid || stored.adopted.contains(uid);
        let has_checkpoints = control.position.is_none()
            && (self.manifests_of(task)?.iter()).any(|manifest| is_known(&manifest.position.uid));
        if has_checkpoints || came_before(control, found, nonce) {
            let what = format!("it has nothing of task {task}, which exists");
            return Err(self.failed(what).into());
        }
        Ok(())
    }

    /// The lineage that a combine task began by this order, if it has gone back.
    pub(super) fn begun_by<'a>(
        &self,
        found: &Found,
        task: u32,
        control: &'a ControlCopy,
        nonce: u64,
    ) -> Result<Option<&'a str>, Stop> {
        let own = control
            .position
            .as_ref()
            .filter(|position| position.uid == found.owner.uid);
        let Some(position) = own else {
            return Ok(None);
        };
        match rewind::begun_by(nonce, position) {
            // Born behind an order that was refused, or further: it is not going to go back by this one.
            None if position.restore_nonce >= nonce => {
                let what = format!(
                    "task {task} has had restore {}: the nonce has to be above that",
                    position.restore_nonce
                );
                Err(self.failed(what))
            }
            begun => Ok(begun),
        }
    }

    fn manifests_of(&self, task: u32) -> Result<Vec<Manifest>, Stop> {
        let listing = self.context.runtime.block_on(self.store()?.list(task));
        Ok(listing.map_err(unreachable)?.manifests)
    }

    /// The manifest of a checkpoint of any task.
    pub(super) fn manifest_of(&self, found: &Found, task: u32, id: &str) -> Result<Manifest, Stop> {
        let manifest = self.context.runtime.block_on(self.store()?.manifest(task, id));
        let manifest = match manifest.map_err(unreachable)? {
            Some(Ok(manifest)) => manifest,
            Some(Err(why)) => return Err(self.failed(format!("manifest {id} of task {task}: {why}"))),
            None => return Err(self.failed(format!("{id} of task {task} is not in the store"))),
        };
        let at = &manifest.position;
        if at.job_id != found.owner.job_id || at.task != task {
            return Err(self.failed(format!("{id} is of task {} of job {}", at.task, at.job_id)));
        }
        Ok(manifest)
    }
}
