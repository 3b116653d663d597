//! What of a manifest cannot change, and what to do instead. Must not hold rules about a single manifest.

use serde_json::Value;

use super::{Check, Place, Rule};

pub(super) fn rules() -> Vec<Rule> {
    vec![
        rule(
            "spec",
            ".jobId",
            "cannot change: it names the job's topics and transactions; create another StreamAggregation instead",
            "has(self.jobId) == has(oldSelf.jobId) && (!has(self.jobId) || self.jobId == oldSelf.jobId)",
            |new, old| new.get("jobId") == old.get("jobId"),
        ),
        rule(
            "spec.source.kafka.topics",
            "",
            "cannot change: positions and state belong to the topic; create another StreamAggregation instead",
            "self == oldSelf",
            |new, old| new == old,
        ),
        rule(
            "spec.source.partitioning",
            "",
            "cannot change: tasks, their positions and their state belong to it; create another StreamAggregation instead",
            "self == oldSelf",
            |new, old| new == old,
        ),
        rule(
            "spec.source.kafka.startFrom",
            "",
            "cannot change: it counts once, when the job is born; create another StreamAggregation to read from elsewhere",
            "self == oldSelf",
            |new, old| new == old,
        ),
        rule(
            "spec.state",
            ".backend",
            "cannot change; create another StreamAggregation with the other backend instead",
            "self.backend == oldSelf.backend",
            |new, old| new.get("backend") == old.get("backend"),
        ),
        rule(
            "spec.state.volume",
            ".storageClassName",
            "cannot change: volumes keep their class; create another StreamAggregation instead",
            "has(self.storageClassName) == has(oldSelf.storageClassName) && \
             (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)",
            |new, old| new.get("storageClassName") == old.get("storageClassName"),
        ),
        rule(
            "spec.restoreFrom",
            ".nonce",
            "cannot fall: each number goes back once; give a higher one to go back again",
            "self.nonce >= oldSelf.nonce",
            |new, old| nonce(new) >= nonce(old),
        ),
        rule(
            "spec.restoreFrom",
            ".checkpoint",
            "changes with a higher nonce only: raise spec.restoreFrom.nonce to go back to another checkpoint",
            "self.checkpoint == oldSelf.checkpoint || self.nonce > oldSelf.nonce",
            |new, old| new.get("checkpoint") == old.get("checkpoint") || nonce(new) > nonce(old),
        ),
    ]
}

fn nonce(restore: &Value) -> Option<i64> {
    restore.get("nonce").and_then(Value::as_i64)
}

fn rule(path: &'static str, field: &'static str, message: &str, cel: &str, check: fn(&Value, &Value) -> bool) -> Rule {
    Rule {
        path: path.into(),
        field,
        message: message.to_owned(),
        cel: Some(cel.to_owned()),
        check: Check::Change(check),
        from: Place::Laptop,
    }
}
