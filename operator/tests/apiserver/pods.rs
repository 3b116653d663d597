//! Plays the processors: their admin API, on loopback. Must not know what the operator decides.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use streamagg_crds::admin::{
    CHECKPOINT_MISSING, CheckpointInfo, OperationPhase, OperationStatus, PinRequest, PodStatus, Problem, Stage,
    TaskOperation, TaskState, TaskStatus,
};
use streamagg_crds::assignment::Assignment;
use streamagg_crds::job_file::JobFile;

use super::positions::{Positions, missing};

/// Partitions of the topic that the pods pretend to read.
pub const SOURCE_PARTITIONS: u32 = 4;

/// One pod's processor.
#[derive(Clone, Debug, Default)]
struct Processor {
    /// UID of the pod it lives in.
    uid: String,
    /// Job file that the pod mounts.
    file: Option<JobFile>,
    generation: u64,
    tasks: BTreeMap<u32, TaskState>,
    /// Tasks asked for, by the id of the operation, so that asking again answers the same.
    operations: BTreeMap<String, BTreeSet<u32>>,
}

/// All processors of a namespace, by pod name, and what they were asked.
#[derive(Clone, Debug, Default)]
pub struct Processors {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    pods: HashMap<String, Processor>,
    drained: Vec<(String, Vec<u32>)>,
    /// How often a pod was asked for a checkpoint.
    checkpoints_asked: u64,
    seen: BTreeSet<String>,
    tokens: Vec<String>,
    /// Holder, task and checkpoint, as in the store.
    pins: BTreeSet<(String, u32, String)>,
    /// Checkpoints that retention took before anybody pinned them.
    retired: BTreeSet<String>,
    /// Everything that is put or released fails.
    store_broken: bool,
    /// No pod answers.
    silent: bool,
    /// Tasks tell of lag, watermark and checkpoints.
    figures: bool,
    positions: Positions,
    /// Tasks of the second stage, which have the first numbers; none with one stage.
    window_tasks: u32,
}

impl Inner {
    fn stage(&self, task: u32) -> Stage {
        match self.window_tasks {
            0 => Stage::Whole,
            count if task < count => Stage::Window,
            _ => Stage::Combine,
        }
    }

    fn take(&mut self, name: &str, assignment: &Assignment) -> Option<()> {
        let pod = self.pods.get_mut(name)?;
        if assignment.generation <= pod.generation {
            return Some(());
        }
        let (_, ordinal) = name.rsplit_once('-')?;
        pod.generation = assignment.generation;
        let is_kept = |task, id: &str| self.pins.iter().any(|(_, of, pinned)| *of == task && pinned == id);
        let mut state = |task| match &pod.file {
            Some(file) => self.positions.start(file, task, is_kept),
            None => TaskState::Running,
        };
        let tasks = assignment.tasks_of(ordinal.parse().ok()?);
        pod.tasks = tasks.map(|task| (task, state(task))).collect();
        Some(())
    }
}

impl Processors {
    /// From here on the job has so many tasks of a second stage.
    pub fn have_window_tasks(&self, count: u32) {
        self.inner.lock().unwrap().window_tasks = count;
    }

    /// Tasks each pod runs now.
    pub fn running(&self) -> BTreeMap<String, Vec<u32>> {
        let inner = self.inner.lock().unwrap();
        let runs = |pod: &Processor| {
            pod.tasks
                .iter()
                .filter(|(_, state)| **state == TaskState::Running)
                .map(|(task, _)| *task)
                .collect()
        };
        inner.pods.iter().map(|(name, pod)| (name.clone(), runs(pod))).collect()
    }

    /// Tasks drained so far, as asked.
    pub fn drained(&self) -> Vec<(String, Vec<u32>)> {
        self.inner.lock().unwrap().drained.clone()
    }

    /// How many different pods there have been.
    pub fn pods_seen(&self) -> usize {
        self.inner.lock().unwrap().seen.len()
    }

    /// Tokens that requests carried.
    pub fn tokens(&self) -> Vec<String> {
        self.inner.lock().unwrap().tokens.clone()
    }

    /// Pins in the store: holder, task, checkpoint.
    pub fn pins(&self) -> BTreeSet<(String, u32, String)> {
        self.inner.lock().unwrap().pins.clone()
    }

    /// The store takes and gives nothing, or does again.
    pub fn break_store(&self, broken: bool) {
        self.inner.lock().unwrap().store_broken = broken;
    }

    /// The pods answer nothing any more, or do again.
    pub fn silence(&self, silent: bool) {
        self.inner.lock().unwrap().silent = silent;
    }

    /// Tasks tell of lag, watermark and checkpoints as if they had work; their status then changes all the time.
    pub fn show_figures(&self) {
        self.inner.lock().unwrap().figures = true;
    }

    /// Retention takes the checkpoints of this operation before they are pinned.
    pub fn retire(&self, operation: &str) {
        self.inner.lock().unwrap().retired.insert(operation.to_owned());
    }

    /// Those of other pods than these (name and UID) are gone.
    pub fn keep(&self, living: &[(String, String)]) {
        let mut inner = self.inner.lock().unwrap();
        inner
            .pods
            .retain(|name, pod| living.iter().any(|(live, uid)| live == name && *uid == pod.uid));
        inner.seen.extend(living.iter().map(|(_, uid)| uid.clone()));
    }

    /// Whether one lives in this pod.
    pub fn lives(&self, name: &str) -> bool {
        self.inner.lock().unwrap().pods.contains_key(name)
    }

    /// Starts one with what is mounted.
    pub fn start(&self, name: &str, uid: String, file: JobFile, mounted: &Assignment) {
        let processor = Processor {
            uid,
            file: Some(file),
            ..Processor::default()
        };
        let mut inner = self.inner.lock().unwrap();
        inner.pods.insert(name.to_owned(), processor);
        inner.take(name, mounted);
    }

    /// Tasks that went back, in order: task, checkpoint, and whether it was kept then.
    pub fn went_back(&self) -> Vec<(u32, String, bool)> {
        self.inner.lock().unwrap().positions.went_back.clone()
    }

    /// The store has lost this checkpoint.
    pub fn lose(&self, checkpoint: &str) {
        self.inner.lock().unwrap().positions.lost.insert(checkpoint.to_owned());
    }

    /// The admin servers of all pods.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/{pod}/v1/status", get(status))
            .route("/{pod}/v1/assignment", post(assign))
            .route("/{pod}/v1/drain", post(drain))
            .route("/{pod}/v1/checkpoint", post(checkpoint))
            .route("/{pod}/v1/pins", post(pin).delete(release))
            .with_state(self.clone())
    }

    fn answer<T>(
        &self,
        name: &str,
        headers: &HeaderMap,
        with: impl FnOnce(&mut Inner) -> Option<T>,
    ) -> Result<Json<T>, StatusCode> {
        let header = headers.get("authorization").and_then(|value| value.to_str().ok());
        let token = header
            .and_then(|header| header.strip_prefix("Bearer "))
            .ok_or(StatusCode::UNAUTHORIZED)?;
        let mut inner = self.inner.lock().unwrap();
        if !inner.tokens.iter().any(|seen| seen == token) {
            inner.tokens.push(token.to_owned());
        }
        if inner.silent || !inner.pods.contains_key(name) {
            return Err(StatusCode::SERVICE_UNAVAILABLE);
        }
        with(&mut inner).map(Json).ok_or(StatusCode::BAD_REQUEST)
    }
}

async fn status(
    State(all): State<Processors>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Json<PodStatus>, StatusCode> {
    all.answer(&name, &headers, |inner| {
        let figures = inner.figures;
        let pod = inner.pods.get(&name)?;
        let job_id = pod.file.as_ref().map_or("job", |file| &file.job_id);
        let rows = pod.tasks.iter().map(|(task, state)| TaskStatus {
            restore_nonce: inner.positions.nonce(job_id, *task),
            problem: (*state == TaskState::Stopped).then(missing),
            ..task_status(*task, inner.stage(*task), *state, figures)
        });
        Some(PodStatus {
            pod: name.clone(),
            job_id: job_id.to_owned(),
            task_count: Some(SOURCE_PARTITIONS + inner.window_tasks),
            generation: pod.generation,
            generation_seen: pod.generation,
            revision: "pipeline".to_owned(),
            tasks: rows.collect(),
            ..PodStatus::default()
        })
    })
}

fn task_status(task: u32, stage: Stage, state: TaskState, figures: bool) -> TaskStatus {
    let still = TaskStatus {
        task,
        stage,
        state,
        lag: Some(0),
        ..TaskStatus::default()
    };
    if !figures {
        return still;
    }
    let now_ms = k8s_openapi::jiff::Timestamp::now().as_millisecond();
    TaskStatus {
        epoch: 7,
        input_offset: 100,
        lag: Some(1_204),
        watermark_ms: Some(now_ms - 7_000),
        checkpoint: stage.keeps_state().then(|| CheckpointInfo {
            id: format!("000007.{task}"),
            epoch: 7,
            input_offset: 100,
            completed_at_ms: now_ms - 20_000,
            bytes: 1 << 20,
        }),
        ..still
    }
}

async fn assign(
    State(all): State<Processors>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Json(assignment): Json<Assignment>,
) -> Result<Json<Assignment>, StatusCode> {
    all.answer(&name, &headers, |inner| {
        inner.take(&name, &assignment)?;
        Some(assignment)
    })
}

async fn drain(
    State(all): State<Processors>,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Result<Json<OperationStatus>, StatusCode> {
    all.answer(&name, &headers, |inner| {
        let tasks: Vec<u32> = query
            .get("tasks")?
            .split(',')
            .filter_map(|task| task.parse().ok())
            .collect();
        let id = query.get("id")?.clone();
        let pod = inner.pods.get_mut(&name)?;
        for task in &tasks {
            pod.tasks.insert(*task, TaskState::Drained);
        }
        inner.drained.push((name.clone(), tasks.clone()));
        let done = |task| TaskOperation {
            task,
            phase: OperationPhase::Complete,
            ..TaskOperation::default()
        };
        Some(OperationStatus {
            id,
            tasks: tasks.into_iter().map(done).collect(),
        })
    })
}

/// Under way at the first question, complete at the second; the tasks run on.
async fn checkpoint(
    State(all): State<Processors>,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Result<Json<OperationStatus>, StatusCode> {
    all.answer(&name, &headers, |inner| {
        let (broken, epoch) = (inner.store_broken, inner.checkpoints_asked);
        inner.checkpoints_asked += 1;
        let pod = inner.pods.get_mut(&name)?;
        let id = query.get("id")?.clone();
        let tasks: BTreeSet<u32> = query
            .get("tasks")?
            .split(',')
            .filter_map(|task| task.parse().ok())
            .collect();
        let known = pod.operations.entry(id.clone()).or_default();
        let row = |task: &u32| {
            let phase = match (broken, known.contains(task)) {
                (true, _) => OperationPhase::Failed,
                (false, true) => OperationPhase::Complete,
                (false, false) => OperationPhase::InProgress,
            };
            TaskOperation {
                task: *task,
                phase,
                checkpoint: (phase == OperationPhase::Complete).then(|| CheckpointInfo {
                    id: format!("{id}.{task}"),
                    epoch,
                    input_offset: 100,
                    completed_at_ms: 1,
                    bytes: 1 << 20,
                }),
                problem: broken.then(|| problem("CheckpointFailed")),
            }
        };
        let rows = known.union(&tasks).map(row).collect();
        known.extend(tasks);
        Some(OperationStatus { tasks: rows, id })
    })
}

fn problem(reason: &str) -> Problem {
    Problem {
        reason: reason.to_owned(),
        message: "as the test wants it".to_owned(),
    }
}

async fn pin(
    State(all): State<Processors>,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    Json(request): Json<PinRequest>,
) -> Result<Json<OperationStatus>, StatusCode> {
    all.answer(&name, &headers, |inner| {
        let holder = query.get("holder")?.clone();
        let mut rows = Vec::new();
        for (task, id) in request.checkpoints {
            let operation = id.rsplit_once('.').map(|(operation, _)| operation).unwrap_or_default();
            let reason = match (inner.store_broken, inner.retired.contains(operation)) {
                (true, _) => Some("CheckpointFailed"),
                (false, true) => Some(CHECKPOINT_MISSING),
                (false, false) => None,
            };
            if reason.is_none() {
                inner.pins.insert((holder.clone(), task, id));
            }
            rows.push(settled(task, reason));
        }
        Some(OperationStatus {
            id: holder,
            tasks: rows,
        })
    })
}

async fn release(
    State(all): State<Processors>,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Result<Json<OperationStatus>, StatusCode> {
    all.answer(&name, &headers, |inner| {
        let holder = query.get("holder")?.clone();
        let tasks: Vec<u32> = query
            .get("tasks")?
            .split(',')
            .filter_map(|task| task.parse().ok())
            .collect();
        let reason = inner.store_broken.then_some("CheckpointFailed");
        if reason.is_none() {
            inner
                .pins
                .retain(|(by, task, _)| *by != holder || !tasks.contains(task));
        }
        Some(OperationStatus {
            id: holder,
            tasks: tasks.into_iter().map(|task| settled(task, reason)).collect(),
        })
    })
}

fn settled(task: u32, reason: Option<&str>) -> TaskOperation {
    TaskOperation {
        task,
        phase: reason.map_or(OperationPhase::Complete, |_| OperationPhase::Failed),
        checkpoint: None,
        problem: reason.map(problem),
    }
}
