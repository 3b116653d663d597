//! The processor as a child process, and its admin server as a client sees it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command};

use serde_json::Value;

use super::rig::{TOKEN, eventually};

/// A request to every route below `/v1`, that does something for the holder of the token.
const GUARDED: [(&str, &str, &str); 9] = [
    ("GET", "/v1/status", ""),
    ("GET", "/v1/assignment", ""),
    ("POST", "/v1/assignment", r#"{"version":1,"generation":9,"tasks":{}}"#),
    ("GET", "/v1/windows?key=%7B%22k%22%3A%22k0%22%7D", ""),
    ("GET", "/v1/why?window=w&start=0", ""),
    ("POST", "/v1/checkpoint?id=a", ""),
    ("POST", "/v1/drain?id=a", ""),
    ("POST", "/v1/pins?holder=a", r#"{"checkpoints":{}}"#),
    ("DELETE", "/v1/pins?holder=a&tasks=0", ""),
];

/// A processor as a child process; killed when dropped.
pub struct Processor {
    pub(super) child: Child,
    pub(super) port: u16,
    pub log: PathBuf,
}

impl Drop for Processor {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Processor {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `-STOP`, `-CONT`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// SIGTERM; the process must end by itself with 0.
    pub fn terminate(mut self) {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
        let status = eventually("the processor ends", || {
            self.child
                .try_wait()
                .map_err(|error| error.to_string())?
                .ok_or_else(|| self.log_text())
        });
        assert!(status.success(), "{status}: {}", self.log_text());
    }

    /// Whether the process is gone.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// Waits for a crash; anything but a signal is a failure of the test.
    pub fn wait_for_crash(&mut self) {
        use std::os::unix::process::ExitStatusExt;
        let status = eventually("the failpoint is reached", || {
            self.child
                .try_wait()
                .map_err(|error| error.to_string())?
                .ok_or_else(|| self.log_text())
        });
        assert_eq!(status.signal(), Some(6), "{status}: {}", self.log_text());
    }

    pub fn log_text(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.chars()
            .rev()
            .take(6_000)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect()
    }

    /// One request to the admin server: status code and body.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Result<(u16, String), String> {
        self.ask_as(Some(&format!("Bearer {TOKEN}")), (method, path, body))
    }

    /// The same by whoever says this in the header `Authorization`, or has none.
    pub fn ask_as(
        &self,
        authorization: Option<&str>,
        (method, path, body): (&str, &str, &str),
    ) -> Result<(u16, String), String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(|error| error.to_string())?;
        let authorization = authorization.map_or_else(String::new, |words| format!("Authorization: {words}\r\n"));
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n{authorization}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream
            .write_all(request.as_bytes())
            .map_err(|error| error.to_string())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
        let code = answer
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .ok_or("no status line")?;
        let body = answer
            .split_once("\r\n\r\n")
            .map(|(_, body)| body.to_owned())
            .unwrap_or_default();
        Ok((code, body))
    }

    /// No route below `/v1` is for whoever says this of himself, or nothing.
    pub fn assert_refuses(&self, authorization: Option<&str>) {
        for request in GUARDED {
            let (code, words) = self.ask_as(authorization, request).expect("answers");
            assert_eq!(code, 401, "{request:?} by {authorization:?}: {words}");
        }
    }

    pub fn status(&self) -> Result<Value, String> {
        let (code, body) = self.ask("GET", "/v1/status", "")?;
        if code == 200 {
            serde_json::from_str(&body).map_err(|e| e.to_string())
        } else {
            Err(format!("{code} {body}"))
        }
    }

    pub fn await_ready(&self) {
        eventually("ready", || match self.ask("GET", "/readyz", "") {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?} {}", self.log_text())),
        });
    }

    /// Waits until some task, or the pod, has a problem with this reason.
    pub fn await_problem(&self, reason: &str) -> String {
        eventually(reason, || {
            let status = self.status()?;
            let tasks = status["tasks"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|task| &task["problem"]);
            tasks
                .chain([&status["problem"]])
                .find(|problem| problem["reason"] == reason)
                .map(|problem| problem["message"].to_string())
                .ok_or_else(|| format!("{status} {}", self.log_text()))
        })
    }

    /// Repeats an operation until every task's row is settled; all must be complete.
    pub fn operate(&self, operation: &str) -> Value {
        eventually(operation, || {
            let (code, body) = self.ask("POST", operation, "")?;
            let status: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
            let complete = status["tasks"]
                .as_array()
                .is_some_and(|rows| rows.iter().all(|row| row["phase"] == "Complete"));
            if code == 200 && complete {
                Ok(status)
            } else {
                Err(format!("{code} {body} {}", self.log_text()))
            }
        })
    }

    /// Task 0, which is running, was replayed once, with the results that were published.
    pub fn assert_replayed_exactly(&self) {
        let metrics = self.metrics();
        let replayed = metrics.contains(r#"streamagg_replays_total{kind="exact",task="0"} 1"#);
        assert!(replayed, "{metrics}");
    }

    /// Value of a counter, by its name with the labels; 0 until it has counted.
    pub fn counted(&self, series: &str) -> u64 {
        let metrics = self.metrics();
        let mut lines = metrics.lines();
        let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().expect("a number"))
    }

    pub fn metrics(&self) -> String {
        eventually("metrics", || self.ask("GET", "/metrics", "")).1
    }
}
