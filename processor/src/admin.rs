//! The admin server of a pod: probes and metrics for everybody, `/v1` for the holder of the token.
//! Must not hold: what a pod does; every answer comes from [`Pod`].

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use streamagg_crds::admin::{OperationPhase, OperationStatus, PinRequest, TaskStatus};

use crate::pipeline::executor::board::RequestKind;
use crate::serve::answers::{self, BadQuestion};
use crate::serve::parse_assignment;
use crate::serve::pins::Question;
use crate::serve::pod::Pod;
use crate::state::checkpoint::is_name;

/// Most tasks that one request about pins names.
const PINS_MAX: usize = 10_000;

#[derive(Clone)]
struct Token(Option<Arc<str>>);

/// Routes of the admin API. Without a token every request to `/v1` is refused.
pub fn router(pod: Arc<Pod>, token: Option<String>) -> Router {
    let protected = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/assignment", get(assignment).post(take_assignment))
        .route("/v1/checkpoint", post(checkpoint))
        .route("/v1/windows", get(windows))
        .route("/v1/why", get(why))
        .route("/v1/drain", post(drain))
        .route("/v1/pins", post(pin).delete(release))
        .layer(middleware::from_fn_with_state(Token(token.map(Arc::from)), authorize));
    Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/startupz", get(started))
        .route("/metrics", get(metrics))
        .merge(protected)
        .with_state(pod)
}

/// Serves until the process ends.
pub async fn run(listener: tokio::net::TcpListener, router: Router) {
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the admin server ended");
    }
}

async fn authorize(State(Token(expected)): State<Token>, request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    let good = match (given, expected.as_deref()) {
        (Some(given), Some(expected)) => equal_in_constant_time(given.as_bytes(), expected.as_bytes()),
        (_, _) => false,
    };
    if good {
        next.run(request).await
    } else {
        (
            StatusCode::UNAUTHORIZED,
            "the token of the aggregation is needed: Authorization: Bearer …\n",
        )
            .into_response()
    }
}

/// Compares without telling by the time taken where the first difference is.
fn equal_in_constant_time(left: &[u8], right: &[u8]) -> bool {
    let differing = left
        .iter()
        .zip(right)
        .fold(0_u8, |differing, (left, right)| differing | (left ^ right));
    left.len() == right.len() && std::hint::black_box(differing) == 0
}

async fn live(State(pod): State<Arc<Pod>>) -> Response {
    liveness(&pod.stuck())
}

fn liveness(stuck: &[u32]) -> Response {
    if stuck.is_empty() {
        "live\n".into_response()
    } else {
        (
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the loops of tasks {stuck:?} do not turn\n"),
        )
            .into_response()
    }
}

/// That it answers is what the probe asks for: a long restore is no failure. The words are for people who wait for it.
async fn started(State(pod): State<Arc<Pod>>) -> String {
    pod.status()
        .tasks
        .iter()
        .fold("started\n".to_owned(), |text, row| text + &line_of(row))
}

/// What a task does and, while it is restored or replayed, how much of that is done.
fn line_of(row: &TaskStatus) -> String {
    let percent = row.progress.map(|share| format!(" {:.0} %", share * 100.0));
    format!("task {}: {:?}{}\n", row.task, row.state, percent.unwrap_or_default())
}

async fn ready(State(pod): State<Arc<Pod>>) -> Response {
    if pod.is_ready() {
        "ready\n".into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "not every assigned task runs; see /v1/status\n",
        )
            .into_response()
    }
}

async fn metrics(State(pod): State<Arc<Pod>>) -> Response {
    pod.is_ready();
    pod.refresh_metrics();
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (content_type, pod.context().metrics.text()).into_response()
}

async fn status(State(pod): State<Arc<Pod>>) -> Response {
    Json(pod.status()).into_response()
}

async fn assignment(State(pod): State<Arc<Pod>>) -> Response {
    Json(pod.assignment()).into_response()
}

async fn take_assignment(State(pod): State<Arc<Pod>>, body: Bytes) -> Response {
    match parse_assignment(&body) {
        Ok(offered) => Json(pod.take(offered)).into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("assignment: {error}\n")).into_response(),
    }
}

#[derive(Deserialize)]
struct KeyQuery {
    key: String,
}

async fn windows(State(pod): State<Arc<Pod>>, Query(query): Query<KeyQuery>) -> Response {
    answered(answers::windows(&pod, &query.key).await)
}

#[derive(Deserialize)]
struct WindowQuery {
    window: String,
    start: String,
}

async fn why(State(pod): State<Arc<Pod>>, Query(query): Query<WindowQuery>) -> Response {
    answered(answers::why(&pod, &query.window, &query.start).await)
}

fn answered<T: serde::Serialize>(answer: Result<T, BadQuestion>) -> Response {
    match answer {
        Ok(document) => Json(document).into_response(),
        Err(BadQuestion(why)) => (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response(),
    }
}

#[derive(Deserialize)]
struct Operation {
    id: String,
    tasks: Option<String>,
}

async fn checkpoint(State(pod): State<Arc<Pod>>, Query(query): Query<Operation>) -> Response {
    operate(&pod, RequestKind::Checkpoint, &query)
}

async fn drain(State(pod): State<Arc<Pod>>, Query(query): Query<Operation>) -> Response {
    operate(&pod, RequestKind::Drain, &query)
}

fn operate(pod: &Pod, kind: RequestKind, query: &Operation) -> Response {
    if query.id.is_empty() || query.id.len() > 253 {
        return (StatusCode::BAD_REQUEST, "id: 1 to 253 characters\n").into_response();
    }
    match query.tasks.as_deref().map(parse_tasks).transpose() {
        Ok(tasks) => answer(pod.operate(kind, &query.id, tasks.as_deref())),
        Err(message) => (StatusCode::BAD_REQUEST, message).into_response(),
    }
}

fn parse_tasks(text: &str) -> Result<Vec<u32>, String> {
    let tasks = text.split(',').map(str::parse).collect::<Result<_, _>>();
    tasks.map_err(|error| format!("tasks: {error}\n"))
}

#[derive(Deserialize)]
struct Holder {
    holder: String,
    tasks: Option<String>,
}

async fn pin(State(pod): State<Arc<Pod>>, Query(query): Query<Holder>, body: Bytes) -> Response {
    let question = serde_json::from_slice(&body)
        .map_err(|error| format!("body: {error}\n"))
        .and_then(
            |request: PinRequest| match request.checkpoints.values().find(|id| !is_name(id)) {
                Some(id) => Err(format!("checkpoints: {id:?} is no id of a checkpoint\n")),
                None => Ok(Question::Pin {
                    holder: query.holder,
                    checkpoints: request.checkpoints,
                }),
            },
        );
    about_pins(&pod, question)
}

async fn release(State(pod): State<Arc<Pod>>, Query(query): Query<Holder>) -> Response {
    let tasks = query
        .tasks
        .as_deref()
        .ok_or_else(|| "tasks: name them, such as 0,1\n".to_owned());
    let question = tasks.and_then(parse_tasks).map(|tasks| Question::Release {
        holder: query.holder,
        tasks: tasks.into_iter().collect(),
    });
    about_pins(&pod, question)
}

fn about_pins(pod: &Pod, question: Result<Question, String>) -> Response {
    let bad = |message: String| (StatusCode::BAD_REQUEST, message).into_response();
    let question = match question {
        Ok(question) => question,
        Err(message) => return bad(message),
    };
    if !is_name(question.holder()) {
        return bad("holder: 1 to 63 letters, digits, '-', '_' or '.', not beginning with '.'\n".to_owned());
    }
    if question.tasks().len() > PINS_MAX {
        return bad(format!("at most {PINS_MAX} tasks in a request\n"));
    }
    match pod.pins(&question) {
        Some(status) => answer(status),
        None => (
            StatusCode::CONFLICT,
            "there is no checkpoint store (spec.state.checkpoints.store)\n",
        )
            .into_response(),
    }
}

fn answer(status: OperationStatus) -> Response {
    let under_way = status.tasks.iter().any(|row| row.phase == OperationPhase::InProgress);
    let code = if under_way {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    };
    (code, Json(status)).into_response()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use streamagg_crds::admin::{Stage, TaskState};

    use super::*;
    use crate::pipeline::executor::board::{Board, STUCK_AFTER};

    #[test]
    fn a_loop_that_has_not_turned_for_long_fails_the_liveness_probe_until_it_turns_again() {
        let board = Board::new(3, Stage::Whole, 0, Arc::default());
        let code = |now| {
            let stuck: Vec<u32> = board.is_stuck(now, STUCK_AFTER).then_some(3).into_iter().collect();
            liveness(&stuck).status()
        };
        board.beat();
        let (soon, later) = (
            Instant::now() + Duration::from_secs(60),
            Instant::now() + Duration::from_secs(600),
        );
        assert_eq!(code(soon), StatusCode::OK, "a call into a library may take long");
        assert_eq!(code(later), StatusCode::INTERNAL_SERVER_ERROR);
        board.beat_at(later);
        assert_eq!(code(later), StatusCode::OK);
    }

    #[test]
    fn whoever_waits_for_a_start_reads_how_much_of_it_is_done() {
        let replaying = TaskStatus {
            state: TaskState::Replaying,
            progress: Some(0.42),
            ..TaskStatus::default()
        };
        assert_eq!(line_of(&replaying), "task 0: Replaying 42 %\n");
        let running = TaskStatus {
            task: 7,
            state: TaskState::Running,
            ..TaskStatus::default()
        };
        assert_eq!(line_of(&running), "task 7: Running\n");
    }

    #[test]
    fn a_token_is_equal_only_to_itself() {
        assert!(equal_in_constant_time(b"secret", b"secret"));
        for other in [&b"secreT"[..], b"secre", b"secrets", b""] {
            assert!(!equal_in_constant_time(other, b"secret"));
        }
    }
}
