//! The birth of a task: where it begins, and whether it may.
//! Must not hold: what is done with a task that was born before (`startup`).

use streamagg_crds::resolved::Start;
use uuid::Uuid;

use super::commit::{Committer, Epoch};
use super::replay::save;
use super::startup::Found;
use super::topology::shuffle_has_records;
use super::{End, Executor};
use crate::kafka::consumer::PartitionReader;
use crate::pipeline::stage::Stage;
use crate::pipeline::worker::Worker;
use crate::state::checkpoint::Manifest;
use crate::state::local::LocalState;
use crate::state::recovery::position::POSITION_VERSION;
use crate::state::recovery::{Birth, Position, Reason, Stop};

impl Executor {
    /// The birth record and the first position, in one transaction.
    pub(super) fn give_birth(
        &self,
        found: &Found,
        committer: &mut Committer<'_>,
        reader: &PartitionReader,
        mut state: LocalState,
    ) -> Result<(Worker, LocalState, Position, i64, Option<Manifest>), End> {
        let start_offset = self.start_offset(found, committer, reader)?;
        let birth = Birth {
            version: POSITION_VERSION,
            uid: found.owner.uid.clone(),
            job_id: found.owner.job_id.clone(),
            task: self.task,
            start_offset,
            partitions: found.log.partitions,
        };
        let restored = self.context.restore.as_ref();
        let born = Position {
            // What comes into being behind a restore has nothing to be taken back.
            restore_nonce: restored.map_or(0, |restore| restore.nonce),
            ..Position::born(&birth, &found.owner, Uuid::new_v4().to_string())
        };
        committer.commit(Epoch {
            outputs: None,
            birth: Some(&birth),
            decisions: &[],
            tombstones: &[],
            built_on: None,
            sent: &born,
        })?;
        let mut task = found.setup.begin(&born.lineage, start_offset);
        self.page(&mut task, &state);
        save(&mut task, &mut state, &self.directory, &born, self.state_budget())?;
        Ok((task, state, born, start_offset, None))
    }

    /// Where the task begins. What the first stage has written is all for the second, and partitions that were added to
    /// a source are read from their beginning.
    fn start_offset(&self, found: &Found, committer: &Committer<'_>, reader: &PartitionReader) -> Result<i64, End> {
        let start = self.context.job.source.start;
        let reads_all = match self.role.stage {
            Stage::Whole => false,
            Stage::Window => {
                self.refuse_second_birth(found, committer)?;
                true
            }
            Stage::Combine => {
                self.refuse_second_birth(found, committer)?;
                start != Start::Earliest && self.was_added(found, committer)?
            }
        };
        match start {
            _ if reads_all => Ok(found.log.start),
            Start::Earliest => Ok(found.log.start),
            Start::Latest => Ok(found.log.end),
            Start::TimestampMs(timestamp_ms) => Ok(reader.offset_at(timestamp_ms)?),
        }
    }

    /// Stops where there are partials and no task was ever born: the first stage has no state of its own that would tell
    /// that the control topic was emptied.
    fn refuse_second_birth(&self, found: &Found, committer: &Committer<'_>) -> Result<(), End> {
        if !shuffle_has_records(&self.context)? {
            return Ok(());
        }
        let mut damaged = None;
        for task in self.others(found) {
            let other = committer.read_control_of(task)?;
            damaged = damaged.or(other.damage.map(|damage| (task, damage)));
            // Where the control topic was emptied and a user restored the job there are no births any more. Whose state is
            // the truth writes a position by itself.
            let was_restored = other.position.is_some_and(|position| position.restore_nonce > 0);
            if other.birth.is_some() || was_restored && !self.context.role(task).state_is_truth(self.context.delivery) {
                return Ok(());
            }
        }
        if let Some((task, damage)) = damaged {
            // A restore mends it, and then it says whether this one may be born.
            return Err(End::Again(format!("the birth waits for task {task}: {damage}")));
        }
        Err(Stop::new(
            Reason::CommittedPositionBehindState,
            "the topic between the stages holds partials of this job but the control topic holds no position: it was \
             deleted or emptied, and going on would count events twice; restore the control topic, or start a job with \
             another jobId",
        )
        .into())
    }

    /// Whether the source partition was added after the job began.
    fn was_added(&self, found: &Found, committer: &Committer<'_>) -> Result<bool, End> {
        if self.context.restore.is_some() {
            // The checkpoint that the job went back to has nothing of it.
            return Ok(true);
        }
        for task in self.others(found) {
            if self.context.role(task).stage != Stage::Combine {
                continue;
            }
            let other = committer.read_control_of(task)?;
            let added = match (other.birth, other.position) {
                (Some(birth), _) => birth.partitions <= self.role.partition,
                (None, _) if other.damage.is_some() => {
                    return Err(End::Again(format!(
                        "the birth waits for task {task}, whose position is damaged"
                    )));
                }
                // The control topic was emptied and the job restored: births are gone, and this one is no first.
                (None, position) => position.is_some(),
            };
            if added {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn others(&self, found: &Found) -> impl Iterator<Item = u32> + use<> {
        let own = self.task;
        (0..found.tasks).filter(move |task| *task != own)
    }
}
