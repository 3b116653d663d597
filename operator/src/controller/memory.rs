//! What the operator remembers between reconciles and may lose at any moment: answers of drains, when figures were
//! last written, back-off. Must not hold anything a decision needs after a restart; that is in the status.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use streamagg_crds::admin::OperationStatus;

use super::plan::health::LAG_SAMPLES;

/// First delay after an error.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest delay after errors in a row.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Time between two samples of the lag.
const LAG_INTERVAL: SignedDuration = SignedDuration::from_secs(60);

/// Memory of all aggregations, by namespace and name; forgotten when the object is gone.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    entries: Arc<Mutex<HashMap<(String, String), Entry>>>,
}

#[derive(Debug, Default)]
struct Entry {
    drains: HashMap<String, OperationStatus>,
    figures_written: Option<Instant>,
    failures: u32,
    running_since: Option<Timestamp>,
    lag: Vec<(Timestamp, i64)>,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, namespace: &str, name: &str, change: impl FnOnce(&mut Entry) -> T) -> T {
        let mut entries = self.lock();
        change(entries.entry((namespace.to_owned(), name.to_owned())).or_default())
    }

    /// Forgets the object.
    pub fn forget(&self, namespace: &str, name: &str) {
        self.lock().remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// Keeps the last answer of a pod (by UID) to a drain.
    pub fn remember_drain(&self, namespace: &str, name: &str, pod_uid: &str, answer: OperationStatus) {
        self.with(namespace, name, |entry| entry.drains.insert(pod_uid.to_owned(), answer));
    }

    /// The last answer of a pod to a drain.
    pub fn drain(&self, namespace: &str, name: &str, pod_uid: &str) -> Option<OperationStatus> {
        self.with(namespace, name, |entry| entry.drains.get(pod_uid).cloned())
    }

    /// Drops answers of pods that are gone.
    pub fn keep_drains(&self, namespace: &str, name: &str, keep: impl Fn(&str) -> bool) {
        self.with(namespace, name, |entry| entry.drains.retain(|uid, _| keep(uid)));
    }

    /// Notes whether all tasks run and how far they lag; answers since when they run without a break, and the lag of
    /// the last minutes.
    pub fn sample(
        &self,
        namespace: &str,
        name: &str,
        now: Timestamp,
        runs: bool,
        lag: Option<i64>,
    ) -> (Option<Timestamp>, Vec<i64>) {
        self.with(namespace, name, |entry| {
            entry.running_since = runs.then(|| entry.running_since.unwrap_or(now));
            let due = entry
                .lag
                .last()
                .is_none_or(|(at, _)| now.duration_since(*at) >= LAG_INTERVAL);
            match lag.filter(|_| runs) {
                None => entry.lag.clear(),
                Some(lag) if due => {
                    entry.lag.push((now, lag));
                    let surplus = entry.lag.len().saturating_sub(LAG_SAMPLES);
                    entry.lag.drain(..surplus);
                }
                Some(_) => {}
            }
            (entry.running_since, entry.lag.iter().map(|(_, lag)| *lag).collect())
        })
    }

    /// Whether figures may be written again, `interval` after the last time.
    pub fn figures_due(&self, namespace: &str, name: &str, interval: Duration) -> bool {
        self.with(namespace, name, |entry| {
            entry.figures_written.is_none_or(|at| at.elapsed() >= interval)
        })
    }

    /// The status was written now.
    pub fn status_written(&self, namespace: &str, name: &str) {
        self.with(namespace, name, |entry| entry.figures_written = Some(Instant::now()));
    }

    /// A reconcile went well.
    pub fn succeeded(&self, namespace: &str, name: &str) {
        self.with(namespace, name, |entry| entry.failures = 0);
    }

    /// Delay before the next try: doubled each time, capped.
    pub fn next_backoff(&self, namespace: &str, name: &str) -> Duration {
        self.with(namespace, name, |entry| {
            entry.failures = entry.failures.saturating_add(1);
            let doublings = (entry.failures - 1).min(10);
            // A name's own spread, so that many failing objects do not come back together.
            let jitter_ms = u64::from(name.bytes().fold(0u8, u8::wrapping_add)) * 4;
            (BACKOFF_FIRST * 2u32.pow(doublings)).min(BACKOFF_MAX) + Duration::from_millis(jitter_ms)
        })
    }
}
