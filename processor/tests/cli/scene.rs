//! A directory with a manifest, and what tests put in. Must not run anything.

use std::fs;
use std::path::PathBuf;

use super::process::Ended;

pub const MANIFEST: &str = r#"
apiVersion: streamagg.io/v1alpha1
kind: StreamAggregation
metadata: {name: cli-test}
spec:
  source:
    kafka: {bootstrapServers: ["127.0.0.1:9092"], topics: [events]}
    partitioning: {byKey: {}}
  event:
    timestamp: {field: /ts}
    watermark: {boundedOutOfOrderness: {bound: 1s}}
  groupBy:
    - {name: tenant, field: /tenant}
  windows:
    - name: ten-seconds
      tumbling: {size: 10s}
  aggregates:
    - {name: requests, count: {}}
    - {name: cost, sum: {field: /cost_usd}}
  sink: {kafka: {topic: results}}
"#;

/// A directory with the manifest in it.
pub struct Scene {
    directory: tempfile::TempDir,
}

impl Scene {
    pub fn new() -> Self {
        let scene = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        fs::write(scene.path("job.yaml"), MANIFEST).unwrap();
        scene
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// `run -f job.yaml` with more arguments.
    pub fn arguments(&self, more: &[&str]) -> Vec<String> {
        let mut arguments = vec!["run".to_owned(), "-f".to_owned(), self.text("job.yaml")];
        arguments.extend(more.iter().map(ToString::to_string));
        arguments
    }
}

/// One event of 2026-01-01 as a line.
pub fn event(second: u32, tenant: &str, cost: &str) -> String {
    format!("{{\"ts\":\"2026-01-01T00:00:{second:02}Z\",\"tenant\":\"{tenant}\",\"cost_usd\":{cost}}}\n")
}

/// Standard output of a process that ended with this code.
pub fn exact(ended: &Ended, code: i32) -> &str {
    assert_eq!(ended.code, Some(code), "standard error:\n{}", ended.stderr);
    &ended.stdout
}
