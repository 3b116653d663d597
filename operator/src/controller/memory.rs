//! What the operator remembers between reconciles and may lose at any moment: answers of pods, when figures were
//! last written, back-off. Must not hold anything a decision needs after a restart; that is in the status.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use streamagg_crds::admin::OperationStatus;

use super::plan::health::LAG_SAMPLES;
use crate::error::Error;

/// First delay after an error.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest delay after errors in a row.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Delay after somebody else wrote first.
const CONFLICT_DELAY: Duration = Duration::from_millis(200);
/// Time between two samples of the lag.
const LAG_INTERVAL: SignedDuration = SignedDuration::from_secs(60);

/// Memory of all aggregations, by namespace and name; forgotten when the object is gone.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    entries: Arc<Mutex<HashMap<(String, String), Entry>>>,
    /// Versions of what specs refer to, by namespace and object.
    versions: Arc<Mutex<HashMap<(String, String), Version>>>,
}

/// What was seen of an object that specs refer to.
#[derive(Debug)]
struct Version {
    at: Instant,
    /// `None` when it was not there.
    version: Option<String>,
}

#[derive(Debug, Default)]
struct Entry {
    answers: HashMap<(String, Asked), OperationStatus>,
    figures_written: Option<Instant>,
    failures: u32,
    running_since: Option<Timestamp>,
    lag: Vec<(Timestamp, i64)>,
    token: Option<Kept>,
    references: Option<Kept>,
    written_version: Option<u64>,
    looked: Option<Instant>,
}

/// What a pod was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asked {
    /// To drain tasks.
    Drain,
    /// For a checkpoint.
    Checkpoint,
    /// To keep checkpoints, or to let go of them.
    Pins,
}

/// Something read by name, and what it was read for. Shown to nobody: it may be a token.
struct Kept {
    of: String,
    value: String,
    at: Instant,
}

impl Kept {
    fn new(of: &str, value: String) -> Self {
        Self {
            of: of.to_owned(),
            value,
            at: Instant::now(),
        }
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Kept").field("of", &self.of).finish_non_exhaustive()
    }
}

fn rand_16() -> u16 {
    let bytes = uuid::Uuid::new_v4().into_bytes();
    u16::from_be_bytes([bytes[0], bytes[1]])
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

    /// Keeps the last answer of a pod (by UID) to what it was asked.
    pub fn remember(&self, namespace: &str, name: &str, asked: Asked, pod_uid: &str, answer: OperationStatus) {
        self.with(namespace, name, |entry| {
            entry.answers.insert((pod_uid.to_owned(), asked), answer)
        });
    }

    /// The last answer of a pod.
    pub fn answer(&self, namespace: &str, name: &str, asked: Asked, pod_uid: &str) -> Option<OperationStatus> {
        self.with(namespace, name, |entry| {
            entry.answers.get(&(pod_uid.to_owned(), asked)).cloned()
        })
    }

    /// Drops answers of pods that are gone.
    pub fn keep_answers(&self, namespace: &str, name: &str, keep: impl Fn(&str) -> bool) {
        self.with(namespace, name, |entry| entry.answers.retain(|(uid, _), _| keep(uid)));
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
    pub fn status_written(&self, namespace: &str, name: &str, resource_version: Option<&str>) {
        self.with(namespace, name, |entry| {
            entry.figures_written = Some(Instant::now());
            entry.written_version = resource_version.and_then(|version| version.parse().ok());
        });
    }

    /// A reconcile went well.
    pub fn succeeded(&self, namespace: &str, name: &str) {
        self.with(namespace, name, |entry| entry.failures = 0);
    }

    /// When to try again after an error; at once after a conflict.
    pub fn delay_after(&self, namespace: &str, name: &str, error: &Error) -> Duration {
        match error {
            Error::Conflict { .. } => CONFLICT_DELAY,
            Error::Api { .. } | Error::Incomplete { .. } | Error::Document { .. } => {
                self.next_backoff(namespace, name, error.retry_after())
            }
        }
    }

    /// Delay before the next try: doubled each time, capped, of which a random half, so that many failing objects do not
    /// come back together. Not before the API server wants to be asked again.
    pub fn next_backoff(&self, namespace: &str, name: &str, retry_after: Option<Duration>) -> Duration {
        self.with(namespace, name, |entry| {
            entry.failures = entry.failures.saturating_add(1);
            let doublings = (entry.failures - 1).min(10);
            let longest = (BACKOFF_FIRST * 2u32.pow(doublings)).min(BACKOFF_MAX);
            let share = f64::from(rand_16()) / f64::from(u16::MAX);
            let floor = retry_after.unwrap_or_default().min(BACKOFF_MAX);
            (longest / 2 + (longest / 2).mul_f64(share)).max(floor)
        })
    }

    /// The token as it was read within `age`.
    pub fn token(&self, namespace: &str, name: &str, uid: &str, age: Duration) -> Option<String> {
        self.with(namespace, name, |entry| {
            let kept = entry
                .token
                .as_ref()
                .filter(|kept| kept.of == uid && kept.at.elapsed() < age);
            kept.map(|kept| kept.value.clone())
        })
    }

    /// Keeps the token of the aggregation with `uid`.
    pub fn keep_token(&self, namespace: &str, name: &str, uid: &str, token: Option<&str>) {
        let kept = token.map(|token| Kept::new(uid, token.to_owned()));
        self.with(namespace, name, |entry| entry.token = kept);
    }

    /// The digest of what a spec refers to, as it was read for this very question.
    pub fn references(&self, namespace: &str, name: &str, of: &str) -> Option<String> {
        self.with(namespace, name, |entry| {
            let kept = entry.references.as_ref().filter(|kept| kept.of == of);
            kept.map(|kept| kept.value.clone())
        })
    }

    /// Keeps that digest.
    pub fn keep_references(&self, namespace: &str, name: &str, of: &str, digest: String) {
        self.with(namespace, name, |entry| entry.references = Some(Kept::new(of, digest)));
    }

    /// What was seen within `age` of an object that specs refer to: its version, or that it is not there.
    pub fn version(&self, namespace: &str, object: &str, age: Duration) -> Option<Option<String>> {
        let versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = versions.get(&(namespace.to_owned(), object.to_owned()))?;
        (seen.at.elapsed() < age).then(|| seen.version.clone())
    }

    /// Keeps that, and nothing of the same sort that is older than `age`.
    pub fn keep_version(&self, namespace: &str, object: &str, version: Option<String>, age: Duration) {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        versions.retain(|_, seen| seen.at.elapsed() < age);
        let seen = Version {
            at: Instant::now(),
            version,
        };
        versions.insert((namespace.to_owned(), object.to_owned()), seen);
    }

    /// The version of the aggregation that our last status write made.
    pub fn written_version(&self, namespace: &str, name: &str) -> Option<u64> {
        self.with(namespace, name, |entry| entry.written_version)
    }

    /// The API server was looked at now.
    pub fn looked(&self, namespace: &str, name: &str) {
        self.with(namespace, name, |entry| entry.looked = Some(Instant::now()));
    }

    /// The API server was looked at within `age`.
    pub fn looked_within(&self, namespace: &str, name: &str, age: Duration) -> bool {
        self.with(namespace, name, |entry| {
            entry.looked.is_some_and(|at| at.elapsed() < age)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_is_capped_spread_and_heeds_the_server() {
        let memory = Memory::default();
        let mut longest = BACKOFF_FIRST;
        for _ in 0..12 {
            let delay = memory.next_backoff("n", "a", None);
            assert!(delay >= longest / 2 && delay <= longest, "{delay:?} of {longest:?}");
            longest = (longest * 2).min(BACKOFF_MAX);
        }
        let many: std::collections::HashSet<_> = (0..32).map(|_| memory.next_backoff("n", "a", None)).collect();
        assert!(many.len() > 16, "no spread: {many:?}");
        memory.succeeded("n", "a");
        assert!(memory.next_backoff("n", "a", None) <= BACKOFF_FIRST);
        let asked = Duration::from_secs(7);
        assert_eq!(memory.next_backoff("n", "b", Some(asked)), asked);
        assert_eq!(memory.next_backoff("n", "c", Some(Duration::MAX)), BACKOFF_MAX);
    }

    #[test]
    fn what_specs_refer_to_is_seen_for_all_of_them_and_forgotten_with_time() {
        let (memory, age) = (Memory::default(), Duration::from_secs(60));
        assert_eq!(memory.version("n", "secret a", age), None, "nobody looked");
        memory.keep_version("n", "secret a", Some("1".to_owned()), age);
        memory.keep_version("n", "secret b", None, age);
        assert_eq!(memory.version("n", "secret a", age), Some(Some("1".to_owned())));
        assert_eq!(memory.version("n", "secret b", age), Some(None), "it is not there");
        assert_eq!(memory.version("m", "secret a", age), None, "another namespace");
        assert_eq!(memory.version("n", "secret a", Duration::ZERO), None);
        memory.keep_version("n", "secret c", None, Duration::ZERO);
        assert_eq!(memory.versions.lock().unwrap().len(), 1, "the others are too old");
    }

    #[test]
    fn a_token_is_kept_for_its_aggregation_only_and_never_shown() {
        let memory = Memory::default();
        memory.keep_token("n", "a", "uid-1", Some("opensesame"));
        let age = Duration::from_secs(60);
        assert_eq!(memory.token("n", "a", "uid-1", age).as_deref(), Some("opensesame"));
        assert_eq!(memory.token("n", "a", "uid-2", age), None);
        assert_eq!(memory.token("n", "a", "uid-1", Duration::ZERO), None);
        assert!(!format!("{memory:?}").contains("opensesame"));
    }
}
