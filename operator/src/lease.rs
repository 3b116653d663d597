//! Leader election by a `coordination.k8s.io/v1` Lease: one replica reconciles, the others wait.
//! Must not hold: anything the leader does.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use thiserror::Error;

use crate::names::FIELD_MANAGER;

/// Name of the lease in the operator's namespace.
pub const LEASE_NAME: &str = "streamagg-operator";
/// How long a holder that fell silent keeps the lease.
const LEASE_DURATION: Duration = Duration::from_secs(15);
/// How often the holder renews and others look.
const RENEW_INTERVAL: Duration = Duration::from_secs(3);
/// A holder that could not renew for this long gives up, before anybody else may take over.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);

/// The lease was lost: this process must stop writing at once.
#[derive(Debug, Error)]
#[error("leadership lost: {0}")]
pub struct Lost(String);

/// One candidate for leadership.
pub struct Candidate {
    api: Api<Lease>,
    identity: String,
    /// What another holder's record looked like, and when it last changed by our own clock; clocks of two
    /// machines are never compared.
    seen: Option<(String, Instant)>,
}

impl Candidate {
    /// A candidate called `identity` (the pod's name) for the lease in `namespace`.
    pub fn new(client: Client, namespace: &str, identity: String) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            identity,
            seen: None,
        }
    }

    /// Waits until this candidate holds the lease.
    pub async fn acquire(&mut self) {
        loop {
            match self.try_hold().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, lease = LEASE_NAME, "cannot read or write the lease, trying again")
                }
            }
            tokio::time::sleep(RENEW_INTERVAL).await;
        }
    }

    /// Renews until the lease is lost; never returns while it is held.
    pub async fn keep(&mut self) -> Lost {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(RENEW_INTERVAL).await;
            match tokio::time::timeout(RENEW_DEADLINE, self.try_hold()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return Lost("another replica holds the lease".to_owned()),
                Ok(Err(error)) => tracing::warn!(%error, lease = LEASE_NAME, "cannot renew the lease"),
                Err(_) => tracing::warn!(lease = LEASE_NAME, "renewing the lease timed out"),
            }
            if renewed.elapsed() > RENEW_DEADLINE {
                return Lost(format!("not renewed for {} s", RENEW_DEADLINE.as_secs()));
            }
        }
    }

    /// Gives the lease up, so that the next replica need not wait for it to expire.
    ///
    /// # Errors
    /// When the API server does not answer; the lease then expires by itself.
    pub async fn release(&self) -> Result<(), kube::Error> {
        let Some(mut lease) = self.api.get_opt(LEASE_NAME).await? else {
            return Ok(());
        };
        let mine = holder(&lease) == Some(self.identity.as_str());
        if let (true, Some(spec)) = (mine, lease.spec.as_mut()) {
            spec.holder_identity = None;
            self.api.replace(LEASE_NAME, &post_params(), &lease).await?;
        }
        Ok(())
    }

    /// Takes or renews the lease if it is free, ours or expired. A lost race counts as not held.
    async fn try_hold(&mut self) -> Result<bool, kube::Error> {
        let Some(lease) = self.api.get_opt(LEASE_NAME).await? else {
            let lease = self.record(Lease::default());
            return won(self.api.create(&post_params(), &lease).await);
        };
        let free = match holder(&lease) {
            None | Some("") => true,
            Some(holder) if holder == self.identity => true,
            Some(_) => self.expired(&lease),
        };
        if !free {
            return Ok(false);
        }
        let lease = self.record(lease);
        won(self.api.replace(LEASE_NAME, &post_params(), &lease).await)
    }

    fn expired(&mut self, lease: &Lease) -> bool {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        match &self.seen {
            Some((seen, since)) if *seen == version => since.elapsed() > LEASE_DURATION,
            Some(_) | None => {
                self.seen = Some((version, Instant::now()));
                false
            }
        }
    }

    /// The lease as it looks once we hold it; keeps the resource version, which makes the write conditional.
    fn record(&self, lease: Lease) -> Lease {
        let now = MicroTime(Timestamp::now());
        let old = lease.spec.unwrap_or_default();
        let renewal = old.holder_identity.as_deref() == Some(self.identity.as_str());
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            acquire_time: if renewal { old.acquire_time } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(old.lease_transitions.unwrap_or(0) + i32::from(!renewal)),
            ..LeaseSpec::default()
        };
        let metadata = ObjectMeta {
            name: Some(LEASE_NAME.to_owned()),
            ..lease.metadata
        };
        Lease {
            metadata,
            spec: Some(spec),
        }
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref()
}

fn post_params() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

/// Conflict and AlreadyExists mean that somebody else was faster.
fn won(outcome: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match outcome {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}
