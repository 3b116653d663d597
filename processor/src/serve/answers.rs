//! Answers to live questions: asks the tasks held here, puts what they say into a document.
//! Must not hold: what a window is (`pipeline::operator::query`), or HTTP.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use streamagg_crds::admin::{Problem, Stage};
use streamagg_crds::v1alpha1::IdleAdvance;

use super::pod::{self, Asking, Pod};
use super::why::{Facts, Verdict, judge};
use crate::pipeline::executor::now_ms;
use crate::pipeline::operator::query::{Answer, Found, OpenWindow, Question, Standing};

/// Longest wait for a task: a batch and a commit take less.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// `GET /v1/windows`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WindowsDocument {
    /// The key, as results write it.
    key: Box<RawValue>,
    /// A row for each task of this pod.
    tasks: Vec<WindowsRow>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WindowsRow {
    task: u32,
    watermark: Option<i64>,
    windows: Vec<OpenWindow>,
    /// There are more than are shown.
    more: bool,
    problem: Option<Problem>,
}

/// `GET /v1/why`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WhyDocument {
    window: String,
    start: i64,
    /// A row for each task of this pod and each instance that begins there.
    tasks: Vec<WhyRow>,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct WhyRow {
    task: u32,
    watermark: Option<i64>,
    end: Option<i64>,
    closes: Option<i64>,
    keys: u64,
    lag: Option<i64>,
    verdict: Option<Verdict>,
    because: String,
    problem: Option<Problem>,
}

/// A question that makes no sense, in words.
pub struct BadQuestion(pub String);

/// The open windows of a key in every task of this pod.
pub async fn windows(pod: &Pod, key: &str) -> Result<WindowsDocument, BadQuestion> {
    let bytes = pod
        .context()
        .plan
        .key_of(key)
        .map_err(|why| BadQuestion(format!("key: {why}")))?;
    let text = format!("{{{}}}", String::from_utf8_lossy(&bytes));
    let mut tasks = Vec::new();
    for asking in pod.ask_all(&Question::Windows { key: bytes }) {
        let mut row = WindowsRow {
            task: asking.task,
            watermark: None,
            windows: Vec::new(),
            more: false,
            problem: None,
        };
        match answer(asking).await {
            Ok(Answer::Windows {
                watermark_ms,
                windows,
                more,
            }) => (row.watermark, row.windows, row.more) = (watermark_ms, windows, more),
            // Not the answer to this question.
            Ok(Answer::Standing { .. }) => {}
            Err(problem) => row.problem = Some(problem),
        }
        tasks.push(row);
    }
    Ok(WindowsDocument {
        key: RawValue::from_string(text).map_err(|error| BadQuestion(format!("key: {error}")))?,
        tasks,
    })
}

/// Why a window that begins at `start` has not fired, in every task of this pod.
pub async fn why(pod: &Pod, window: &str, start: &str) -> Result<WhyDocument, BadQuestion> {
    let plan = &pod.context().plan;
    let index = plan.window_index(window).ok_or_else(|| {
        let known = plan.window_names().join(", ");
        BadQuestion(format!("window: {window:?} is none of this job; there are {known}"))
    })?;
    if plan.counts_events(index) {
        return Err(BadQuestion(format!(
            "window: {window} counts events of a key, whatever their times, and fires with the last that it needs; \
             GET /v1/windows shows what a key has in it"
        )));
    }
    let start_ms = parse_time(start)?;
    let mut tasks = Vec::new();
    let question = Question::Standing {
        window: index,
        start_ms,
    };
    for asking in pod.ask_all(&question) {
        let known = Known {
            task: asking.task,
            stage: asking.stage,
            lag: asking.lag,
            silent_ms: asking.appended_ms.map(|appended_ms| (now_ms() - appended_ms).max(0)),
            idle_after_ms: idle_after_ms(pod),
        };
        match answer(asking).await {
            Ok(Answer::Standing {
                watermark_ms,
                found,
                reached_by_ms,
                slowest,
            }) => {
                let partition = known.partition(slowest);
                tasks.extend(known.rows(partition, watermark_ms, start_ms, found, &reached_by_ms));
            }
            // Not the answer to this question.
            Ok(Answer::Windows { .. }) => {}
            Err(problem) => tasks.push(WhyRow {
                because: format!("the task does not answer: {}", problem.message),
                problem: Some(problem),
                ..known.row()
            }),
        }
    }
    Ok(WhyDocument {
        window: window.to_owned(),
        start: start_ms,
        tasks,
    })
}

/// What is known of a task beside its answer.
struct Known {
    task: u32,
    stage: Stage,
    lag: Option<i64>,
    silent_ms: Option<i64>,
    idle_after_ms: Option<i64>,
}

impl Known {
    fn row(&self) -> WhyRow {
        WhyRow {
            task: self.task,
            lag: self.lag,
            ..WhyRow::default()
        }
    }

    /// The source partition that time waits for.
    fn partition(&self, slowest: Option<u32>) -> Option<u32> {
        match self.stage {
            Stage::Whole | Stage::Combine => Some(self.task),
            Stage::Window => slowest,
        }
    }

    fn rows(
        &self,
        partition: Option<u32>,
        watermark_ms: Option<i64>,
        start_ms: i64,
        found: Found,
        reached_by_ms: &[Option<i64>],
    ) -> Vec<WhyRow> {
        let instances = match found {
            Found::Instances(instances) => instances,
            Found::NoSuchStart(around_ms) => {
                let because = match around_ms {
                    Some(around_ms) => format!("no such window begins at {start_ms}; the one around it at {around_ms}"),
                    None => format!("no such window that begins at {start_ms} is open in this task"),
                };
                return vec![WhyRow {
                    watermark: watermark_ms,
                    because,
                    ..self.row()
                }];
            }
        };
        let row = |(standing, reached_by_ms): (&Standing, &Option<i64>)| {
            let (verdict, because) = judge(&Facts {
                partition,
                after_shuffle: self.stage == Stage::Window,
                end_ms: standing.end_ms,
                closes_ms: standing.closes_ms,
                keys: standing.keys,
                watermark_ms,
                reached_by_ms: *reached_by_ms,
                lag: self.lag,
                silent_ms: self.silent_ms,
                idle_after_ms: self.idle_after_ms,
            });
            WhyRow {
                watermark: watermark_ms,
                end: (standing.end_ms != i64::MAX).then_some(standing.end_ms),
                closes: (standing.closes_ms != i64::MAX).then_some(standing.closes_ms),
                keys: standing.keys,
                verdict: Some(verdict),
                because,
                ..self.row()
            }
        };
        instances.iter().zip(reached_by_ms).map(row).collect()
    }
}

fn idle_after_ms(pod: &Pod) -> Option<i64> {
    let idle = pod.context().job.idle.as_ref()?;
    (idle.advance != IdleAdvance::None).then_some(idle.after_ms)
}

/// Milliseconds since the epoch, or RFC 3339.
fn parse_time(text: &str) -> Result<i64, BadQuestion> {
    let ms = text.parse::<i64>().ok();
    let time = || text.parse::<jiff::Timestamp>().ok().map(|time| time.as_millisecond());
    ms.or_else(time).ok_or_else(|| {
        BadQuestion(format!(
            "start: {text:?} is neither milliseconds since 1970 nor a time such as 2026-01-01T00:00:00Z"
        ))
    })
}

async fn answer(asking: Asking) -> Result<Answer, Problem> {
    let problem = |reason: &str, message: String| Problem {
        reason: reason.to_owned(),
        message,
    };
    if !pod::answers(asking.state) {
        let why = asking.problem.map_or(String::new(), |problem| {
            format!(" ({}: {})", problem.reason, problem.message)
        });
        let message = format!(
            "task {} is {:?}{why}; ask again once it runs",
            asking.task, asking.state
        );
        return Err(problem("TaskNotRunning", message));
    }
    let Some(answer) = asking.answer else {
        let message = format!("too many questions wait for task {}; ask again", asking.task);
        return Err(problem("TooManyQuestions", message));
    };
    match tokio::time::timeout(ANSWER_MAX, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(problem(
            "TaskNotRunning",
            format!("task {} stopped meanwhile; see /v1/status", asking.task),
        )),
        Err(_) => Err(problem(
            "NoAnswer",
            format!(
                "task {} is busy for more than {} s: is its broker slow?",
                asking.task,
                ANSWER_MAX.as_secs()
            ),
        )),
    }
}
