//! Faults between the operator and the real API server: each request passes, or is answered, cut or delayed here.
//! Must not know what the operator does with that.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body as Answer;
use axum::http::{Method, Request, Response};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use serde_json::json;
use tokio::sync::Notify;
use tower::{BoxError, Layer, Service};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing out of the ordinary.
    None,
    /// Answered with this code and reason, not forwarded; with the seconds after which to ask again.
    Answer(u16, &'static str, Option<u32>),
    /// The connection breaks before anything is sent.
    Cut,
    /// It is carried out, and the connection breaks before the answer.
    Lost,
    /// It is carried out, and whoever asked never lives to see the answer.
    Crash,
    /// It takes this long.
    Slow(Duration),
}

/// A request as a rule sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub method: Method,
    pub path: String,
    pub watch: bool,
    /// How many of its kind (watch, read, write) were made before.
    pub number: usize,
}

impl Call {
    pub fn writes(&self) -> bool {
        self.method != Method::GET
    }
}

type Rule = Arc<dyn Fn(&Call) -> Fault + Send + Sync>;

/// The rule in force and the requests made.
#[derive(Clone)]
pub struct Faults {
    rule: Rule,
    calls: Arc<Mutex<Vec<(Call, Fault)>>>,
    crashed: Arc<Notify>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Faults").finish_non_exhaustive()
    }
}

impl Faults {
    pub fn new(rule: impl Fn(&Call) -> Fault + Send + Sync + 'static) -> Self {
        Self {
            rule: Arc::new(rule),
            calls: Arc::default(),
            crashed: Arc::default(),
        }
    }

    /// A client that meets them.
    pub fn client(&self, config: &Config) -> Client {
        let builder = ClientBuilder::try_from(config.clone()).unwrap();
        builder.with_layer(self).build()
    }

    /// Requests so far and what became of them.
    pub fn calls(&self) -> Vec<(Call, Fault)> {
        self.calls.lock().unwrap().clone()
    }

    /// Resolves when a request met [`Fault::Crash`].
    pub async fn crashed(&self) {
        self.crashed.notified().await;
    }

    fn meet(&self, request: &Request<Body>) -> Fault {
        let watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let mut calls = self.calls.lock().unwrap();
        let kind = (watch, request.method() != Method::GET);
        let alike = calls.iter().filter(|(call, _)| (call.watch, call.writes()) == kind);
        let call = Call {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            watch,
            number: alike.count(),
        };
        let fault = (self.rule)(&call);
        calls.push((call, fault));
        fault
    }
}

impl<S> Layer<S> for Faults {
    type Service = Faulty<S>;

    fn layer(&self, inner: S) -> Faulty<S> {
        Faulty {
            inner,
            faults: self.clone(),
        }
    }
}

pub struct Faulty<S> {
    inner: S,
    faults: Faults,
}

impl<S, B> Service<Request<Body>> for Faulty<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: axum::body::HttpBody<Data = axum::body::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Answer>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answer>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let fault = self.faults.meet(&request);
        let crashed = Arc::clone(&self.faults.crashed);
        let real = self.inner.call(request);
        Box::pin(async move {
            match fault {
                Fault::None => {}
                Fault::Answer(code, reason, retry_after) => return Ok(answer(code, reason, retry_after)),
                Fault::Cut => return Err("connection reset by peer".into()),
                Fault::Lost => {
                    drop(real.await?);
                    return Err("connection reset by peer".into());
                }
                Fault::Crash => {
                    drop(real.await?);
                    crashed.notify_one();
                    return std::future::pending().await;
                }
                Fault::Slow(delay) => tokio::time::sleep(delay).await,
            }
            Ok(real.await?.map(Answer::new))
        })
    }
}

fn answer(code: u16, reason: &str, retry_after: Option<u32>) -> Response<Answer> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "injected",
        "reason": reason, "code": code, "details": {"retryAfterSeconds": retry_after.unwrap_or(0)},
    });
    let body = Answer::from(serde_json::to_vec(&status).unwrap());
    Response::builder().status(code).body(body).unwrap()
}
