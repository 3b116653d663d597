//! What a run shows on a terminal: a pseudo-terminal that the test reads. Must not judge what is computed.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::process::{Running, end_of, interrupt, wait_until};
use super::scene::{Scene, event};

const WIDTH: u16 = 70;

/// A terminal, and what was written to it so far.
struct Terminal {
    seen: Arc<Mutex<Vec<u8>>>,
    /// What a process writes to.
    side: File,
    reader: JoinHandle<()>,
}

impl Terminal {
    fn new() -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let path = ptsname(&ours, Vec::new()).unwrap();
        let side = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::NOCTTY.bits().cast_signed())
            .open(path.to_str().unwrap())
            .unwrap();
        let size = Winsize {
            ws_row: 24,
            ws_col: WIDTH,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&side, size).unwrap();
        let seen = Arc::<Mutex<Vec<u8>>>::default();
        let kept = Arc::clone(&seen);
        let reader = std::thread::spawn(move || {
            let (mut ours, mut buffer) = (File::from(ours), [0; 4096]);
            // It fails once nobody can write any more.
            while let Ok(count @ 1..) = ours.read(&mut buffer) {
                kept.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Self { seen, side, reader }
    }

    fn stdio(&self) -> Stdio {
        Stdio::from(self.side.try_clone().unwrap())
    }

    fn bytes(&self) -> Vec<u8> {
        self.seen.lock().unwrap().clone()
    }

    fn await_lines(&self, what: &str, hold: impl Fn(&[String]) -> bool) {
        let seen = wait_until(what, || hold(&screen(&self.bytes())));
        assert!(seen, "{what}: {:?}", String::from_utf8_lossy(&self.bytes()));
    }

    /// All that was written, when those who wrote have ended.
    fn end(self) -> Vec<u8> {
        drop(self.side);
        self.reader.join().unwrap();
        self.seen.lock().unwrap().clone()
    }
}

/// The lines that stand on a terminal after these bytes, the cursor's the last.
fn screen(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let (mut lines, mut row, mut column) = (vec![Vec::new()], 0, 0);
    let mut characters = text.chars();
    'text: while let Some(character) = characters.next() {
        match character {
            '\r' => column = 0,
            '\n' => {
                row += 1;
                lines.resize(lines.len().max(row + 1), Vec::new());
            }
            '\u{1b}' => {
                let mut count = String::new();
                let end = loop {
                    match characters.next() {
                        Some('[') => {}
                        Some(digit @ '0'..='9') => count.push(digit),
                        Some(end) => break end,
                        // Only a part of it has been read so far.
                        None => break 'text,
                    }
                };
                match end {
                    'F' => {
                        row -= count.parse::<usize>().unwrap();
                        column = 0;
                    }
                    'J' => {
                        lines.truncate(row + 1);
                        lines[row].truncate(column);
                    }
                    'K' => lines[row].clear(),
                    other => panic!("{other:?} ends a sequence: {text:?}"),
                }
            }
            other => {
                let line = &mut lines[row];
                assert!(line.len() == column, "it writes over what stands there: {text:?}");
                line.push(other);
                column += 1;
            }
        }
    }
    lines.into_iter().map(String::from_iter).collect()
}

fn start(arguments: &[String], stdin: Stdio, stdout: Stdio, stderr: Stdio) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamagg-processor"));
    command.args(arguments).stdin(stdin).stdout(stdout).stderr(stderr);
    Running(command.spawn().unwrap())
}

#[test]
fn the_table_is_drawn_on_a_terminal_and_drawn_again_where_it_stands() {
    let (scene, terminal) = (Scene::new(), Terminal::new());
    let arguments = scene.arguments(&["--table"]);
    let mut child = start(&arguments, Stdio::piped(), terminal.stdio(), Stdio::piped());
    let mut stdin = child.0.stdin.take().unwrap();
    let rows = |lines: &[String]| lines.iter().filter(|line| line.starts_with("ten-seconds ")).count();
    for (second, tenant, windows) in [(1, "a", 0), (12, "b", 1), (25, "a", 2)] {
        stdin.write_all(event(second, tenant, "5").as_bytes()).unwrap();
        terminal.await_lines("the table", |lines| {
            rows(lines) == windows && lines.len() == windows + 3
        });
    }
    interrupt(&child);
    let ended = end_of(child);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let interrupted = ended.stderr.contains("interrupted: 1 windows were open");
    assert!(interrupted && !ended.stderr.contains('\u{1b}'), "{}", ended.stderr);
    let bytes = terminal.end();
    let lines = screen(&bytes);
    // Header, two windows, the totals, and the cursor below them: each drawing has taken the place of the one before.
    assert_eq!((lines.len(), rows(&lines)), (5, 2), "{lines:#?}");
    assert!(lines[0].starts_with("window "), "{lines:#?}");
    assert!(lines[1].contains("00:00:10  00:00:20  b"), "{lines:#?}");
    assert!(lines[3].starts_with("3 events, "), "{lines:#?}");
    assert_eq!(lines[4], "");
    let widest = lines.iter().map(|line| line.chars().count()).max();
    assert_eq!(
        widest,
        Some(usize::from(WIDTH)),
        "the totals are cut, not wrapped: {lines:#?}"
    );
    drop(stdin);
}

#[test]
fn progress_is_one_line_on_a_terminal_and_the_summary_takes_its_place() {
    let (scene, terminal) = (Scene::new(), Terminal::new());
    let arguments = scene.arguments(&["--input", "generate:events=0,rate=1000"]);
    let child = start(&arguments, Stdio::null(), Stdio::null(), terminal.stdio());
    let redraws = |bytes: &[u8]| bytes.windows(5).filter(|window| window == b"\r\x1b[2K").count();
    terminal.await_lines("progress", |lines| {
        let [line] = lines else {
            panic!("more than a line: {lines:?}");
        };
        line.contains(" open windows, ") && redraws(&terminal.bytes()) > 1
    });
    interrupt(&child);
    let ended = end_of(child);
    assert_eq!(ended.code, Some(0));
    let lines = screen(&terminal.end());
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert!(
        lines[0].contains(" results, ") && lines[0].ends_with("s of CPU"),
        "{lines:#?}"
    );
    assert!(lines[1].starts_with("interrupted: "), "{lines:#?}");
    assert_eq!(lines[2], "");
}
