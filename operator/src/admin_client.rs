//! Client of the pods' admin API. Must not hold: decisions about what to ask, or which pods exist.

use std::time::Duration;

use serde::de::DeserializeOwned;
use streamagg_crds::admin::{OperationStatus, PinRequest, PodStatus};
use streamagg_crds::assignment::Assignment;
use thiserror::Error;

/// Longest wait for a connection to a pod.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait for a whole answer; the pods answer from memory.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a pod gave no usable answer.
#[derive(Debug, Error)]
pub enum Error {
    /// No connection, or no answer in time.
    #[error("pod does not answer: {0}")]
    Unreachable(#[from] reqwest::Error),
    /// The pod refused.
    #[error("pod answered {status}: {body}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it said, cut short.
        body: String,
    },
    /// The answer is not the document we know.
    #[error("pod's answer does not parse: {0}")]
    Document(#[from] serde_json::Error),
}

/// One pod's admin server and the token that opens it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Such as `http://10.1.2.3:8080`.
    pub base: String,
    /// Bearer token.
    pub token: String,
}

/// Shared HTTP client with short timeouts.
#[derive(Clone, Debug)]
pub struct AdminClient {
    http: reqwest::Client,
}

impl AdminClient {
    /// Builds the client.
    ///
    /// # Errors
    /// When the HTTP client cannot be set up.
    pub fn new() -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .no_proxy()
            .build()?;
        Ok(Self { http })
    }

    /// `GET /v1/status`.
    ///
    /// # Errors
    /// See [`enum@Error`].
    pub async fn status(&self, endpoint: &Endpoint) -> Result<PodStatus, Error> {
        answer(
            self.http
                .get(format!("{}/v1/status", endpoint.base))
                .bearer_auth(&endpoint.token),
        )
        .await
    }

    /// `POST /v1/assignment`; answers the assignment in force in the pod.
    ///
    /// # Errors
    /// See [`enum@Error`].
    pub async fn push(&self, endpoint: &Endpoint, assignment: &Assignment) -> Result<Assignment, Error> {
        let request = self.http.post(format!("{}/v1/assignment", endpoint.base));
        answer(request.bearer_auth(&endpoint.token).json(assignment)).await
    }

    /// `POST /v1/drain?id=…&tasks=…`; asking again with the same id polls.
    ///
    /// # Errors
    /// See [`enum@Error`].
    pub async fn drain(&self, endpoint: &Endpoint, id: &str, tasks: &[u32]) -> Result<OperationStatus, Error> {
        let url = format!("{}/v1/drain?id={id}&tasks={}", endpoint.base, list(tasks));
        answer(self.http.post(url).bearer_auth(&endpoint.token)).await
    }

    /// `POST /v1/checkpoint?id=…&tasks=…`; asking again with the same id polls. The answer has every task of the pod that
    /// was asked under this id.
    ///
    /// # Errors
    /// See [`enum@Error`].
    pub async fn checkpoint(&self, endpoint: &Endpoint, id: &str, tasks: &[u32]) -> Result<OperationStatus, Error> {
        let url = format!("{}/v1/checkpoint?id={id}&tasks={}", endpoint.base, list(tasks));
        answer(self.http.post(url).bearer_auth(&endpoint.token)).await
    }

    /// `POST /v1/pins?holder=…`: checkpoints that are kept, by task; asking again polls.
    ///
    /// # Errors
    /// See [`enum@Error`].
    pub async fn pin(&self, endpoint: &Endpoint, holder: &str, pins: &PinRequest) -> Result<OperationStatus, Error> {
        let url = format!("{}/v1/pins?holder={holder}", endpoint.base);
        answer(self.http.post(url).bearer_auth(&endpoint.token).json(pins)).await
    }

    /// `DELETE /v1/pins?holder=…&tasks=…`: what the holder keeps of these tasks may go; asking again polls.
    ///
    /// # Errors
    /// See [`enum@Error`].
    pub async fn release(&self, endpoint: &Endpoint, holder: &str, tasks: &[u32]) -> Result<OperationStatus, Error> {
        let url = format!("{}/v1/pins?holder={holder}&tasks={}", endpoint.base, list(tasks));
        answer(self.http.delete(url).bearer_auth(&endpoint.token)).await
    }
}

fn list(tasks: &[u32]) -> String {
    tasks.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

async fn answer<T: DeserializeOwned>(request: reqwest::RequestBuilder) -> Result<T, Error> {
    let response = request.send().await?;
    let status = response.status();
    let body = response.bytes().await?;
    if status.is_success() {
        return Ok(serde_json::from_slice(&body)?);
    }
    let body = String::from_utf8_lossy(&body).chars().take(300).collect();
    Err(Error::Refused {
        status: status.as_u16(),
        body,
    })
}
