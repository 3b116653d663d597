//! Checkpoints, drains and the end of the process: snapshots on the task's thread, uploads beside it.
//! Must not hold: the format of a checkpoint (`state::checkpoint`) or the store.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use streamagg_crds::admin::{CheckpointInfo, Problem, TaskState};

use super::board::{Request, RequestKind, View};
use super::failpoint::Place;
use super::{CheckpointRule, End, Executor, JobContext, now_ms, random};
use crate::state::checkpoint::{Manifest, checkpoint_id};
use crate::state::local::{self, LocalState};
use crate::state::recovery::{Position, Reason, Stop};
use crate::state::store::{Draft, Store, StoreError};

/// Uploads tried for one drain or request.
const UPLOADS_MAX: u32 = 3;
/// How long a turn waits while an upload is under way and nothing may be read.
const UPLOAD_WAIT: Duration = Duration::from_millis(50);

struct Upload {
    result: Receiver<Result<Manifest, StoreError>>,
    began: Instant,
}

/// The checkpoint side of a running task.
pub(super) struct Saving<'a> {
    executor: &'a Executor,
    newest: Option<Manifest>,
    upload: Option<Upload>,
    last_begun: Instant,
    requests: VecDeque<Request>,
    failures: u32,
    last_failure: Option<Problem>,
}

impl<'a> Saving<'a> {
    pub fn new(executor: &'a Executor, newest: Option<Manifest>) -> Self {
        let info = newest.as_ref().map(Manifest::info);
        executor.board.update(|status| status.checkpoint = info);
        Self {
            executor,
            newest,
            upload: None,
            last_begun: Instant::now(),
            requests: VecDeque::new(),
            failures: 0,
            last_failure: None,
        }
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
        metrics.checkpoint(task, upload.began.elapsed(), result.as_ref().ok());
        self.upload = None;
        match result {
            Ok(manifest) => {
                let info = manifest.info();
                tracing::info!(task, id = info.id, bytes = info.bytes, "checkpoint complete");
                self.executor.board.update(|status| {
                    status.checkpoint = Some(info);
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
                // The task goes on, and says so with the problem until a checkpoint succeeds.
                self.executor
                    .board
                    .update(|status| status.problem = Some(problem.clone()));
                self.last_failure = Some(problem);
            }
        }
    }

    /// Whether the clock says that a checkpoint is due.
    pub fn is_due(&self, committed: &Position) -> bool {
        self.rule()
            .is_some_and(|rule| self.upload.is_none() && self.last_begun.elapsed() >= rule.interval)
            && !self.covers(committed)
    }

    fn rule(&self) -> Option<CheckpointRule> {
        self.executor.checkpoints().map(|(_, rule)| *rule)
    }

    /// Whether the newest checkpoint holds K.
    fn covers(&self, committed: &Position) -> bool {
        self.newest.as_ref().is_some_and(|manifest| {
            manifest.position.lineage == committed.lineage && manifest.position.place() == committed.place()
        })
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
        if self.executor.checkpoints().is_none() || self.covers(committed) {
            return self.complete(view);
        }
        if self.failures >= UPLOADS_MAX {
            return self.fail(view);
        }
        if self.upload.is_none() {
            self.begin(state, committed)?;
        }
        std::thread::sleep(UPLOAD_WAIT);
        Ok(())
    }

    fn complete(&mut self, view: View) -> Result<(), End> {
        let info: Option<CheckpointInfo> = self.newest.as_ref().map(Manifest::info);
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

    /// Makes the snapshot and starts its upload. `state` stands at `committed`.
    pub fn begin(&mut self, state: &LocalState, committed: &Position) -> Result<(), End> {
        self.last_begun = Instant::now();
        let Some((store, rule)) = self.executor.checkpoints().cloned() else {
            return Ok(());
        };
        if self.upload.is_some() || self.covers(committed) {
            return Ok(());
        }
        let began = Instant::now();
        let id = checkpoint_id(committed.epoch, u32::try_from(random() >> 32).unwrap_or_default());
        let directory = self.executor.directory.snapshot(&id);
        let parent = directory.parent().map_or(Ok(()), std::fs::create_dir_all);
        let snapshot = parent
            .map_err(|error| crate::state::backend::Error::Store {
                message: format!("{}: {error}", directory.display()),
            })
            .and_then(|()| state.snapshot(&directory));
        let format = snapshot.map_err(|error| End::from(local::stop_of(&error, self.executor.directory.root())))?;
        let (task, context) = (self.executor.task, Arc::clone(&self.executor.context));
        context.metrics.snapshot(task, began.elapsed());
        let draft = Draft {
            id,
            position: committed.clone(),
            format,
        };
        let (sender, result) = sync_channel(1);
        let base = self.newest.clone();
        let job = UploadJob {
            context: Arc::clone(&context),
            store,
            rule,
            task,
            directory,
        };
        context.runtime.spawn(async move {
            let outcome = job.upload(draft, base).await;
            // A task that has gone on to another life does not ask any more.
            sender.send(outcome).ok();
        });
        self.upload = Some(Upload { result, began });
        Ok(())
    }
}

struct UploadJob {
    context: Arc<JobContext>,
    store: Store,
    rule: CheckpointRule,
    task: u32,
    directory: std::path::PathBuf,
}

impl UploadJob {
    async fn upload(self, draft: Draft, base: Option<Manifest>) -> Result<Manifest, StoreError> {
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
        // Retention failing is no failure of the checkpoint: it is tried again with the next one.
        match self
            .store
            .retire(self.task, &committed, self.rule.retention, now_ms())
            .await
        {
            Ok(deleted) if !deleted.is_empty() => tracing::info!(task = self.task, ?deleted, "checkpoints expired"),
            Ok(_) => {}
            Err(error) => tracing::warn!(task = self.task, %error, "retention"),
        }
        Ok(manifest)
    }
}
