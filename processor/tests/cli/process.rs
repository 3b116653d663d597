//! Runs the binary as a child process, with a deadline. Must not judge what came out.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(120);

/// How a process ended and what it wrote.
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A child that is killed when a test forgets it, as a failed one does.
pub struct Running(pub Child);

impl Running {
    /// The binary with its arguments; outputs piped.
    pub fn start(arguments: &[impl AsRef<OsStr>], stdin: Stdio) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_streamagg-processor"));
        command
            .args(arguments)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self(command.spawn().unwrap())
    }
}

/// Runs with variables in the environment.
pub fn run_in(environment: &[(&str, &str)], arguments: &[impl AsRef<OsStr>]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamagg-processor"));
    command
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    end_of(Running(command.spawn().unwrap()))
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended: that is the usual case.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn run(arguments: &[impl AsRef<OsStr>]) -> Ended {
    end_of(Running::start(arguments, Stdio::null()))
}

pub fn run_with_input(arguments: &[impl AsRef<OsStr>], input: &[u8]) -> Ended {
    let mut child = Running::start(arguments, Stdio::piped());
    let mut stdin = child.0.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let ended = end_of(child);
    writer.join().unwrap().unwrap();
    ended
}

/// As Ctrl-C does.
pub fn interrupt(child: &Running) {
    let sent = Command::new("kill")
        .args(["-INT", &child.0.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

/// Looks until something holds; false when it does not within the deadline.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        if Instant::now() > deadline {
            eprintln!("not seen within {DEADLINE:?}: {what}");
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Waits for the end; a process that does not end is killed and told.
pub fn end_of(mut child: Running) -> Ended {
    let stdout = child.0.stdout.take().map(read_all);
    let stderr = child.0.stderr.take().map(read_all);
    let deadline = Instant::now() + DEADLINE;
    let code = loop {
        if let Some(status) = child.0.try_wait().unwrap() {
            break status.code();
        }
        if Instant::now() > deadline {
            child.0.kill().unwrap();
            let stderr = stderr.map(|reader| reader.join().unwrap());
            panic!("the process did not end within {DEADLINE:?}; standard error:\n{stderr:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = |reader: Option<std::thread::JoinHandle<String>>| reader.map(|reader| reader.join().unwrap());
    Ended {
        code,
        stdout: text(stdout).unwrap_or_default(),
        stderr: text(stderr).unwrap_or_default(),
    }
}

fn read_all(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
