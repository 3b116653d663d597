//! Errors of a reconcile: one enum, each with a static kind for metrics. Must not hold: problems of the user's
//! spec or of the pods; those are conditions, not errors.

use std::time::Duration;

use thiserror::Error;

/// Why a reconcile could not be finished; all are retried with back-off.
#[derive(Debug, Error)]
pub enum Error {
    /// The API server refused or did not answer.
    #[error("cannot {verb} {resource}: {source}")]
    Api {
        /// Verb as RBAC names it.
        verb: &'static str,
        /// Resource and name.
        resource: String,
        /// What the client saw.
        #[source]
        source: Box<kube::Error>,
    },
    /// Somebody else wrote first; the next reconcile looks again.
    #[error("{resource} changed meanwhile, looking again")]
    Conflict {
        /// Resource and name.
        resource: String,
    },
    /// An object in the cluster lacks what every such object has.
    #[error("{object} has no {field}")]
    Incomplete {
        /// The object.
        object: String,
        /// What it lacks.
        field: &'static str,
    },
    /// A document the operator wrote itself does not parse.
    #[error("{object} does not parse: {source}")]
    Document {
        /// Where it was found.
        object: String,
        /// The parser's words.
        #[source]
        source: serde_json::Error,
    },
}

impl Error {
    /// Wraps a client error, telling conflicts from the rest.
    pub fn api(verb: &'static str, resource: impl Into<String>, source: kube::Error) -> Self {
        let resource = resource.into();
        match &source {
            kube::Error::Api(status) if status.code == 409 => Self::Conflict { resource },
            _ => Self::Api {
                verb,
                resource,
                source: Box::new(source),
            },
        }
    }

    /// What the API server said, in its own word (`Forbidden`, `TooManyRequests` …), for metrics.
    pub fn reason(&self) -> String {
        let Self::Api { source, .. } = self else {
            return self.kind().to_owned();
        };
        match source.as_ref() {
            kube::Error::Api(status) if status.reason.is_empty() => status.code.to_string(),
            kube::Error::Api(status) => status.reason.clone(),
            _ => "unreachable".to_owned(),
        }
    }

    /// How long the API server asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        let Self::Api { source, .. } = self else {
            return None;
        };
        let kube::Error::Api(status) = source.as_ref() else {
            return None;
        };
        let seconds = status.details.as_ref()?.retry_after_seconds;
        (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)))
    }

    /// Static name for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Api { .. } => "api",
            Self::Conflict { .. } => "conflict",
            Self::Incomplete { .. } => "incomplete",
            Self::Document { .. } => "document",
        }
    }
}
