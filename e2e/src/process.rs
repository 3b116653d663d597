//! The processor as a child process: started, killed, stopped and let go on. Must not know results.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use streamagg_crds::assignment::{ASSIGNMENT_VERSION, Assignment};

use crate::wait::{Seen, await_condition};

/// `SIGKILL`, `SIGABRT`.
pub const KILLED: i32 = 9;
/// What a failpoint ends the process with.
pub const ABORTED: i32 = 6;

/// A directory with everything one processor needs.
#[derive(Clone, Debug)]
pub struct Home {
    /// Job file, assignment, logs.
    pub directory: PathBuf,
    /// The volume.
    pub data: PathBuf,
    /// What a checkpoint store of kind `volume` is in; shared by all homes of a job.
    pub checkpoints: PathBuf,
    /// The order to go back to a checkpoint that processors are started with.
    pub order: Option<PathBuf>,
}

/// What the admin server asks for.
const TOKEN: &str = "of-the-crash-test";

impl Home {
    /// Makes the directories.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn create(directory: &Path, checkpoints: &Path) -> std::io::Result<Self> {
        let data = directory.join("data");
        std::fs::create_dir_all(&data)?;
        std::fs::create_dir_all(checkpoints)?;
        std::fs::write(directory.join("token"), TOKEN)?;
        Ok(Self {
            directory: directory.to_owned(),
            data,
            checkpoints: checkpoints.to_owned(),
            order: None,
        })
    }

    /// Writes the assignment: all tasks to ordinal 0, in this generation.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn assign(&self, generation: u64, tasks: u32) -> std::io::Result<()> {
        let tasks = (0..tasks).map(|task| (task, 0)).collect();
        let assignment = Assignment {
            version: ASSIGNMENT_VERSION,
            generation,
            tasks,
        };
        let text = serde_json::to_string(&assignment)?;
        // Renamed, as a mounted ConfigMap changes at once.
        let written = self.directory.join("assignment.new");
        std::fs::write(&written, text)?;
        std::fs::rename(written, self.directory.join("assignment.json"))
    }

    /// The log of all processors started here.
    pub fn log(&self) -> PathBuf {
        self.directory.join("processor.log")
    }

    /// Its last lines.
    pub fn end_of_log(&self, lines: usize) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_else(|error| error.to_string());
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// A metric of the processor that was started here last, all tasks together; nothing while it does not answer.
    pub fn metric(&self, name: &str) -> Option<f64> {
        Some(sum_of(&metrics(self.port()?).ok()?, name))
    }

    /// Where the processor that was started here last listens.
    fn port(&self) -> Option<u16> {
        let log = std::fs::read_to_string(self.log()).ok()?;
        let (_, listen) = log.rsplit_once("listen")?;
        let (_, port) = listen.split_once("127.0.0.1:")?;
        let digits = port.find(|c: char| !c.is_ascii_digit()).unwrap_or(port.len());
        port[..digits].parse().ok()
    }

    /// Asks the processor that was started here last, under `/v1`.
    ///
    /// # Errors
    /// When it does not answer, or not with what was asked for.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Result<Value, String> {
        let port = self.port().ok_or("it does not listen yet")?;
        let head = format!("{method} {path} HTTP/1.1\r\nAuthorization: Bearer {TOKEN}");
        let answer = exchange(port, &head, body).map_err(|error| error.to_string())?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        match head.split(' ').nth(1) {
            Some("200") => serde_json::from_str(body).map_err(|error| format!("{error}: {body}")),
            _ => Err(answer),
        }
    }

    /// Starts a processor on the job file at `job`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, job: &Path, failpoint: Option<&str>) -> Result<Processor, String> {
        let program = program()?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .map_err(|error| error.to_string())?;
        let mut command = Command::new(&program);
        command
            .arg("serve")
            .args(["--listen", "127.0.0.1:0", "--ordinal", "0"])
            .arg("--job")
            .arg(job)
            .arg("--assignment")
            .arg(self.directory.join("assignment.json"))
            .arg("--data-dir")
            .arg(&self.data)
            .arg("--checkpoint-volume")
            .arg(&self.checkpoints)
            .arg("--token-file")
            .arg(self.directory.join("token"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if let Some(order) = &self.order {
            command.arg("--restore").arg(order);
        }
        if let Some(failpoint) = failpoint {
            command.env("STREAMAGG_FAILPOINT", failpoint);
        }
        let child = command
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        Ok(Processor { child })
    }
}

/// What a processor that listens on this port of this machine says of itself.
///
/// # Errors
/// When it does not answer.
pub fn metrics(port: u16) -> std::io::Result<String> {
    exchange(port, "GET /metrics HTTP/1.1", "")
}

fn exchange(port: u16, head: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let length = body.len();
    let request = format!("{head}\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// The values of all series whose lines begin so, together.
pub fn sum_of(metrics: &str, name: &str) -> f64 {
    let values = metrics.lines().filter(|line| line.starts_with(name));
    values
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// The release binary beside this test's own.
fn program() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let directory = own
        .parent()
        .and_then(Path::parent)
        .ok_or("the test binary has no directory")?;
    let program = directory.join("streamagg-processor");
    if program.is_file() {
        Ok(program)
    } else {
        Err(format!("{} is not there; build it: make binaries", program.display()))
    }
}

/// A running processor; killed when dropped.
#[derive(Debug)]
pub struct Processor {
    child: Child,
}

impl Processor {
    /// Sends a signal such as `KILL`, `STOP`, `CONT` or `TERM`.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, name: &str) -> Result<(), String> {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status();
        match status {
            Ok(status) if status.success() => Ok(()),
            other => Err(format!("kill -{name}: {other:?}")),
        }
    }

    /// Kills it and answers the signal it died of; fails when it had ended by itself.
    ///
    /// # Errors
    /// When it had ended before, or cannot be killed.
    pub fn kill(mut self) -> Result<(), String> {
        if let Some(status) = self.child.try_wait().map_err(|error| error.to_string())? {
            return Err(format!("the processor had ended by itself: {status}"));
        }
        self.child.kill().map_err(|error| error.to_string())?;
        let status = self.child.wait().map_err(|error| error.to_string())?;
        match status.signal() {
            Some(KILLED) => Ok(()),
            _ => Err(format!("killed, but it ended with {status}")),
        }
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end; answers exit code and signal.
    ///
    /// # Errors
    /// When it has not ended by the deadline.
    pub fn ended(&mut self, what: &str, deadline: Duration) -> Result<(Option<i32>, Option<i32>), String> {
        let status = await_condition(what, deadline, || match self.child.try_wait() {
            Ok(Some(status)) => Seen::Done(status),
            Ok(None) => Seen::NotYet("the processor runs".to_owned()),
            Err(error) => Seen::NotYet(error.to_string()),
        })?;
        Ok((status.code(), status.signal()))
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        // A test that failed leaves nothing running; a process that has ended answers with an error, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
