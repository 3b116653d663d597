//! Checkpoints, drains and the end of the process: snapshots on the task's thread, uploads beside it.
//! Must not hold: the format of a checkpoint (`state::checkpoint`) or the store.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use streamagg_crds::admin::{CheckpointInfo, Problem, TaskState};

use super::board::{Request, RequestKind, View};
use super::failpoint::Place;
use super::rewind::is_over;
use super::topology::trim;
use super::{CheckpointRule, End, Executor, JobContext, now_ms, random};
use crate::state;
use crate::state::checkpoint::due::{Pace, is_due};
use crate::state::checkpoint::{Manifest, checkpoint_id};
use crate::state::local::{self, LocalState};
use crate::state::recovery::{Position, Reason, Stop};
use crate::state::store::{Draft, Retired, Store, StoreError};

/// Uploads tried for one drain or request.
const UPLOADS_MAX: u32 = 3;
/// How often a task's files in the store are looked through, with the first checkpoint of its life and then.
const SWEEP_EVERY: Duration = Duration::from_secs(24 * 3_600);
/// A file that no checkpoint names is an orphan at this age: no upload takes so long.
const ORPHAN_AGE_MS: i64 = 24 * 3_600_000;
/// How long a turn waits while an upload is under way and nothing may be read.
const UPLOAD_WAIT: Duration = Duration::from_millis(50);
/// Longest wait for state to be ready for a snapshot, which holds everything in any case.
const PREPARES_FOR: Duration = Duration::from_secs(10);

struct Upload {
    result: Receiver<Result<Uploaded, StoreError>>,
    began: Instant,
}

/// The checkpoint side of a running task.
pub(super) struct Saving<'a> {
    executor: &'a Executor,
    newest: Option<Manifest>,
    upload: Option<Upload>,
    /// Since when state is being made ready for the next snapshot.
    prepares: Option<Instant>,
    last_begun: Instant,
    requests: VecDeque<Request>,
    failures: u32,
    last_failure: Option<Problem>,
    needless_decisions: u64,
    /// What the newest checkpoint holds does not reach to where input can be read again.
    hurries: bool,
    swept: Option<Instant>,
}

/// An upload that is done, and the decision from which on the checkpoints left need decisions.
struct Uploaded {
    manifest: Manifest,
    needless_decisions: u64,
}

impl<'a> Saving<'a> {
    pub fn new(executor: &'a Executor, newest: Option<Manifest>) -> Self {
        let info = newest.as_ref().map(Manifest::info);
        executor.board.update(|status| status.checkpoint = info);
        Self {
            executor,
            newest,
            upload: None,
            prepares: None,
            last_begun: Instant::now(),
            requests: VecDeque::new(),
            failures: 0,
            last_failure: None,
            needless_decisions: 0,
            hurries: false,
            swept: None,
        }
    }

    /// The decision up to which no checkpoint needs any.
    pub fn needless_decisions(&self) -> u64 {
        self.needless_decisions
    }

    /// A checkpoint is due now, whatever the newest one holds.
    pub fn hurry(&mut self) {
        self.hurries = true;
    }

    /// Notices requests and the end of an upload.
    pub fn look(&mut self) {
        while let Some(request) = self.executor.board.next_request() {
            self.requests.push_back(request);
            self.failures = 0;
        }
        let Some(upload) = &self.upload else { return };
        let result = match upload.result.try_recv() {
            Err(TryRecvError::Empty) => return,
            Err(TryRecvError::Disconnected) => Err("the upload was given up".to_owned()),
            Ok(result) => result.map_err(|error| error.to_string()),
        };
        let (task, metrics) = (self.executor.task, &self.executor.context.metrics);
        // One that is made on demand only has no age that anybody should look at.
        let keeps_state = self.executor.role.stage.keeps_state();
        let manifest = result.as_ref().ok().map(|uploaded| &uploaded.manifest);
        if keeps_state || manifest.is_none() {
            metrics.checkpoint(task, upload.began.elapsed(), manifest);
        }
        self.upload = None;
        match result {
            Ok(Uploaded {
                manifest,
                needless_decisions,
            }) => {
                self.needless_decisions = self.needless_decisions.max(needless_decisions);
                let info = manifest.info();
                tracing::info!(task, id = info.id, bytes = info.bytes, "checkpoint complete");
                self.executor.board.update(|status| {
                    status.checkpoint = Some(info).filter(|_| keeps_state);
                    status.problem = None;
                });
                self.newest = Some(manifest);
                (self.failures, self.last_failure) = (0, None);
            }
            Err(message) => {
                tracing::error!(task, message, "checkpoint failed");
                self.failures += 1;
                // What the base shares may be gone: the next upload is whole.
                self.newest = None;
                let problem = Stop::new(Reason::CheckpointFailed, message).problem();
                // The task goes on, and says so with the problem until a checkpoint succeeds. One that makes them on demand
                // only has told whoever asked.
                if keeps_state {
                    let shown = Some(problem.clone());
                    self.executor.board.update(|status| status.problem = shown);
                }
                self.last_failure = Some(problem);
            }
        }
    }

    /// Whether a checkpoint is due: by the clock, or by how long a replay from the newest would take.
    pub fn is_due(&self, committed: &Position, pace: Pace) -> bool {
        let stored = self.newest.as_ref().map(|manifest| manifest.position.engine_position);
        let from = stored.map_or(0, |position| position.input_count);
        let replay = pace.time_for(committed.engine_position.input_count.saturating_sub(from));
        let since = self.last_begun.elapsed();
        let due = |rule: CheckpointRule| self.hurries || is_due(rule.interval, since, replay);
        self.upload.is_none() && self.rule().is_some_and(due) && !self.covers(committed)
    }

    fn rule(&self) -> Option<CheckpointRule> {
        self.executor.checkpoints().map(|(_, rule)| *rule)
    }

    /// Where checkpoints go. A task that is its committed position makes one only where it is asked to: it never starts
    /// from that, which tells where the first stage stood when the second had its checkpoints.
    fn store(&self) -> Option<&'a (Store, CheckpointRule)> {
        let executor = self.executor;
        let mut requests = self.requests.iter();
        let asked = requests.any(|request| request.kind == RequestKind::Checkpoint);
        executor
            .checkpoints()
            .or(executor.context.checkpoints.as_ref().filter(|_| asked))
    }

    /// Whether the newest checkpoint holds K.
    fn covers(&self, committed: &Position) -> bool {
        let newest = self.newest.as_ref().map(|manifest| &manifest.position);
        !self.hurries && newest.is_some_and(|position| position.holds_what(committed))
    }

    /// Whether the task finishes for good: a drain or the end of the process.
    pub fn drains(&self, view: View) -> bool {
        view.stop || self.requests.iter().any(|request| request.kind == RequestKind::Drain)
    }

    /// Whether reading pauses for a request.
    pub fn wants_pause(&self, view: View) -> bool {
        view.stop || !self.requests.is_empty()
    }

    /// A turn with a request or the end of the process at hand. `committed` is where `state` stands.
    pub fn advance(&mut self, state: &LocalState, committed: &Position, view: View) -> Result<(), End> {
        if self.store().is_none() || self.covers(committed) {
            return self.complete(view);
        }
        if self.failures >= UPLOADS_MAX {
            return self.fail(view);
        }
        if self.upload.is_none() && self.is_prepared(state)? {
            self.begin(state, committed)?;
        }
        std::thread::sleep(UPLOAD_WAIT);
        Ok(())
    }

    fn complete(&mut self, view: View) -> Result<(), End> {
        let info: Option<CheckpointInfo> = self.store().and(self.newest.as_ref()).map(Manifest::info);
        let drains = self.drains(view);
        if drains && !view.stop {
            self.executor.board.enter(TaskState::Drained);
        }
        for request in self.requests.drain(..) {
            self.executor.board.finish(&request, Ok(info.clone()));
        }
        match (view.stop, drains) {
            (true, _) => Err(End::Left),
            (false, true) => Err(End::Drained {
                generation: view.generation,
            }),
            (false, false) => Ok(()),
        }
    }

    fn fail(&mut self, view: View) -> Result<(), End> {
        let problem = self.last_failure.take().unwrap_or_default();
        for request in self.requests.drain(..) {
            self.executor.board.finish(&request, Err(problem.clone()));
        }
        self.failures = 0;
        if view.stop {
            return Err(End::Left);
        }
        // A drain that failed is no drain: the task goes on, whoever asked decides.
        self.executor.board.update(|status| {
            status.state = TaskState::Running;
            status.problem = Some(problem);
        });
        Ok(())
    }

    /// Whether a snapshot of `state` would be quick now. The first question after a snapshot makes it so, beside the task
    /// that goes on meanwhile.
    pub fn is_prepared(&mut self, state: &LocalState) -> Result<bool, End> {
        let prepared = match self.prepares {
            None => state.prepare_snapshot().and_then(|()| {
                self.prepares = Some(Instant::now());
                state.is_prepared()
            }),
            Some(since) if since.elapsed() >= PREPARES_FOR => Ok(true),
            Some(_) => state.is_prepared(),
        };
        prepared.map_err(|error| self.unusable(&error))
    }

    fn unusable(&self, error: &state::backend::Error) -> End {
        local::stop_of(error, self.executor.directory.root()).into()
    }

    /// Makes the snapshot and starts its upload. `state` stands at `committed`.
    pub fn begin(&mut self, state: &LocalState, committed: &Position) -> Result<(), End> {
        self.last_begun = Instant::now();
        self.prepares = None;
        let Some((store, rule)) = self.store().cloned() else {
            return Ok(());
        };
        if self.upload.is_some() || self.covers(committed) {
            return Ok(());
        }
        self.hurries = false;
        let began = Instant::now();
        let id = checkpoint_id(committed.epoch, u32::try_from(random() >> 32).unwrap_or_default());
        let directory = self.executor.directory.snapshot(&id);
        let parent = directory.parent().map_or(Ok(()), std::fs::create_dir_all);
        let snapshot = parent
            .map_err(|error| state::backend::Error::Store {
                message: format!("{}: {error}", directory.display()),
            })
            .and_then(|()| state.snapshot(&directory));
        let format = snapshot.map_err(|error| self.unusable(&error))?;
        let (task, context) = (self.executor.task, Arc::clone(&self.executor.context));
        context.metrics.snapshot(task, began.elapsed());
        let draft = Draft {
            id,
            position: committed.clone(),
            format,
        };
        let (sender, result) = sync_channel(1);
        let base = self.newest.clone();
        let sweeps = self.swept.is_none_or(|swept| swept.elapsed() >= SWEEP_EVERY);
        // The first checkpoint behind a rewind: what the rewind went back to may go.
        let behind_rewind = (sweeps && committed.restore_nonce > 0).then_some(committed.restore_nonce);
        if sweeps {
            self.swept = Some(Instant::now());
        }
        let job = UploadJob {
            context: Arc::clone(&context),
            store,
            rule,
            task,
            directory,
            behind_rewind,
        };
        context.runtime.spawn(async move {
            let store = job.store.clone();
            let outcome = job.upload(draft, base).await;
            // A task that has gone on to another life does not ask any more.
            sender.send(outcome).ok();
            if sweeps {
                sweep(&store, task).await;
            }
        });
        self.upload = Some(Upload { result, began });
        Ok(())
    }
}

async fn sweep(store: &Store, task: u32) {
    match store.sweep(task, now_ms(), ORPHAN_AGE_MS).await {
        Ok(0) => {}
        Ok(files) => tracing::info!(task, files, "files of uploads that never ended deleted"),
        Err(error) => tracing::warn!(task, %error, "sweep"),
    }
}

struct UploadJob {
    context: Arc<JobContext>,
    store: Store,
    rule: CheckpointRule,
    task: u32,
    directory: std::path::PathBuf,
    /// Nonce of the rewind behind which this may be the first.
    behind_rewind: Option<u64>,
}

impl UploadJob {
    async fn upload(self, draft: Draft, base: Option<Manifest>) -> Result<Uploaded, StoreError> {
        let committed = draft.position.clone();
        let failpoints = &self.context.failpoints;
        let before_manifest = || failpoints.pass(Place::MidCheckpointUpload);
        let uploaded = self
            .store
            .upload(
                self.task,
                &self.directory,
                draft,
                base.as_ref(),
                now_ms,
                before_manifest,
            )
            .await;
        if let Err(error) = local::remove(&self.directory) {
            tracing::warn!(task = self.task, %error, "snapshot directory not removed");
        }
        let manifest = uploaded?;
        failpoints.pass(Place::AfterManifest);
        if let Some(nonce) = self.behind_rewind
            && let Err(error) = self.store.release_of(self.task, |by| is_over(by, nonce)).await
        {
            tracing::warn!(task = self.task, nonce, %error, "pin of a restore not released");
        }
        // Retention failing is no failure of the checkpoint: it is tried again with the next one.
        let retired = self
            .store
            .retire(self.task, &committed, self.rule.retention, now_ms())
            .await;
        let needless_decisions = match retired {
            Ok(Retired {
                deleted,
                decision_floor,
                input_floor,
            }) => {
                if !deleted.is_empty() {
                    tracing::info!(task = self.task, ?deleted, "checkpoints expired");
                }
                if let Some(offset) = input_floor {
                    trim(&self.context, self.task, offset).await;
                }
                decision_floor
            }
            Err(error) => {
                tracing::warn!(task = self.task, %error, "retention");
                0
            }
        };
        Ok(Uploaded {
            manifest,
            needless_decisions,
        })
    }
}
