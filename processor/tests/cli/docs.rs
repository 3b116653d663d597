//! The commands of README and docs, as they stand there. What needs a broker, a cluster or a compiler is run elsewhere.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::run;
use super::scene::{Scene, exact};

/// Events a second and their number: five minutes of event time.
const EVENTS: &str = "events=30000,rate=100,disorder=2000,late=0.001";
/// A command with one of these is not for this machine alone.
const ELSEWHERE: [&str; 5] = ["kcat", "kubectl", "cargo run", "serve", "…"];

fn root() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).to_owned()
}

/// Commands of the processor in the indented blocks of a page; a line that ends in a bar or a backslash goes on.
fn commands(page: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in page.lines() {
        let Some(line) = line.strip_prefix("    ") else {
            goes_on = false;
            continue;
        };
        let line = line.trim_start_matches("$ ");
        if goes_on && let Some(command) = found.last_mut() {
            command.push('\n');
            command.push_str(line);
        } else if line.contains("streamagg-processor ") && !line.starts_with('#') {
            found.push(line.to_owned());
        } else {
            continue;
        }
        goes_on = line.ends_with(['|', '\\']);
    }
    found
}

/// A directory with what the commands name.
fn scene() -> Scene {
    let scene = Scene::new();
    symlink(root().join("config"), scene.path("config")).unwrap();
    for name in ["a.yaml", "b.yaml"] {
        fs::copy(root().join("config/samples/quickstart.yaml"), scene.path(name)).unwrap();
    }
    exact(&run(&["generate", EVENTS, "--output", &scene.text("events.jsonl")]), 0);
    scene
}

fn run_as_shown(command: &str, scene: &Scene) -> Result<(), String> {
    let binary = Path::new(env!("CARGO_BIN_EXE_streamagg-processor"));
    let path = std::env::var("PATH").unwrap();
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c"])
        // Without end is too long here.
        .arg(command.replace("events=0", "events=500"))
        .current_dir(scene.path("."))
        .env("PATH", format!("{}:{path}", binary.parent().unwrap().display()))
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn every_command_of_the_documentation_does_what_it_says() {
    let mut pages: Vec<PathBuf> = fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    pages.push(root().join("README.md"));
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    let mut ran = Vec::new();
    for page in pages {
        let commands = commands(&fs::read_to_string(&page).unwrap());
        let here = commands
            .iter()
            .filter(|command| !ELSEWHERE.iter().any(|word| command.contains(word)));
        let mut scene_of_page = None;
        for command in here {
            let scene = scene_of_page.get_or_insert_with(scene);
            if let Err(problem) = run_as_shown(command, scene) {
                panic!("{}: {command}\n{problem}", page.display());
            }
            ran.push(command.clone());
        }
    }
    for subcommand in ["run", "replay", "validate", "explain", "schema", "generate"] {
        let shown = ran
            .iter()
            .any(|command| command.contains(&format!("streamagg-processor {subcommand}")));
        assert!(shown, "no page shows {subcommand}: {ran:#?}");
    }
}
