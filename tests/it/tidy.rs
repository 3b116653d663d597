//! Checks of the repository itself: headers, purity, size, and words that must not be there.

use std::path::{Path, PathBuf};

/// Lines of a file above its tests.
const LINES_MAX: usize = 450;
/// Modules of the processor that must hold no clock, thread, socket or file. `state/rocksdb`, `pipeline/executor`,
/// `kafka/{consumer,producer}` and the like are the shell.
const PURE: [&str; 26] = [
    "processor/src/embed",
    "processor/src/core",
    "processor/src/error",
    "processor/src/config",
    "processor/src/window",
    "processor/src/watermark",
    "processor/src/aggregation",
    "processor/src/state/backend",
    "processor/src/state/memory",
    "processor/src/state/manager",
    "processor/src/state/checkpoint",
    "processor/src/state/recovery",
    "processor/src/state/budget",
    "processor/src/state/room",
    "processor/src/kafka/config",
    "processor/src/pipeline/operator",
    "processor/src/pipeline/builder",
    "processor/src/pipeline/derive",
    "processor/src/pipeline/by_clock",
    "processor/src/expression",
    "processor/src/pipeline/output",
    "processor/src/pipeline/arrivals",
    "processor/src/pipeline/rate",
    "processor/src/pipeline/alignment",
    "processor/src/pipeline/stage",
    "processor/src/pipeline/worker",
];
const IMPURE: [&str; 10] = [
    "tokio::",
    "rdkafka::",
    "rocksdb::",
    "Instant",
    "SystemTime",
    "std::fs",
    "std::thread",
    "std::net",
    "std::env",
    "std::process",
];

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Every Rust file of the workspace with its text, paths relative to the root.
fn rust_files() -> Vec<(String, String)> {
    let mut open: Vec<PathBuf> = ["crds", "operator", "processor", "tests", "e2e"]
        .map(|part| root().join(part))
        .into();
    let mut files = Vec::new();
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                files.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    files.sort();
    assert!(
        files.len() > 20,
        "only {} Rust files found: looked in the wrong place",
        files.len()
    );
    files
}

fn above_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]").next().unwrap_or_default()
}

/// Source without comments and without this file's own words in quotes.
fn code(text: &str) -> String {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn assert_none(problems: Vec<String>) {
    assert!(
        problems.is_empty(),
        "{} problems:\n{}",
        problems.len(),
        problems.join("\n")
    );
}

#[test]
fn every_file_says_what_it_is() {
    let silent = rust_files()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(name, _)| name);
    assert_none(silent.collect());
}

#[test]
fn pure_modules_touch_no_clock_thread_socket_or_file() {
    let files = rust_files();
    let is_pure = |name: &str| {
        PURE.iter()
            .any(|part| name.starts_with(&format!("{part}.rs")) || name.starts_with(&format!("{part}/")))
    };
    let pure: Vec<_> = files.iter().filter(|(name, _)| is_pure(name)).collect();
    assert!(pure.len() > 8, "only {} pure files found", pure.len());
    let impure = |(name, text): &&(String, String)| {
        let code = code(above_tests(text));
        let found: Vec<&str> = IMPURE.into_iter().filter(|word| code.contains(word)).collect();
        (!found.is_empty()).then(|| format!("{name} is pure and uses {}", found.join(", ")))
    };
    assert_none(pure.iter().filter_map(impure).collect());
}

#[test]
fn one_module_alone_calls_what_is_not_checked() {
    let files = rust_files();
    // Put together here, so that this file does not find itself.
    let words = [["un", "safe {"], ["un", "safe_code"]].map(|parts| parts.concat());
    let calls = |text: &str| words.iter().any(|word| code(text).contains(word));
    let calling: Vec<&String> = files
        .iter()
        .filter(|(_, text)| calls(text))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(calling, ["processor/src/kafka/brokers.rs"]);
}

#[test]
fn nothing_is_left_undone_or_ignored() {
    // Put together here, so that this file does not find itself.
    let words = [["to", "do!("], ["unimple", "mented!("], ["#[ig", "nore"]].map(|parts| parts.concat());
    let mut problems = Vec::new();
    for (name, text) in rust_files() {
        let code = code(&text);
        problems.extend(
            words
                .iter()
                .filter(|word| code.contains(*word))
                .map(|word| format!("{name} has {word}")),
        );
    }
    assert_none(problems);
}

/// A wait in a test is a poll of a condition with a deadline; the one place that may pause between two looks is the
/// helper that does that.
#[test]
fn tests_await_conditions_and_never_doze() {
    let pause = ["sle", "ep("].concat();
    let is_test = |name: &str| name.starts_with("tests/") || name.starts_with("e2e/");
    let problem = |(name, text): (String, String)| {
        let here = code(&text).matches(&pause).count();
        let allowed = usize::from(name == "e2e/src/wait.rs");
        (is_test(&name) && here > allowed).then(|| format!("{name} dozes {here} times"))
    };
    assert_none(rust_files().into_iter().filter_map(problem).collect());
}

#[test]
fn files_stay_on_a_few_screens() {
    let long = |(name, text): (String, String)| {
        let lines = above_tests(&text).lines().count();
        (lines > LINES_MAX && !name.ends_with("/tests.rs")).then(|| format!("{name} has {lines} lines above its tests"))
    };
    assert_none(rust_files().into_iter().filter_map(long).collect());
}

/// Recipes end at a variable that is not set: whoever types the README's commands has set none.
#[test]
fn recipes_take_a_variable_for_set_only_where_it_has_a_default() {
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    assert!(makefile.contains(".SHELLFLAGS := -euo pipefail -c"));
    let of_a_recipe = |(_, line): &(usize, &str)| line.starts_with('\t');
    let bare = |line: &str| {
        line.split("$$").skip(1).any(|rest| {
            let rest = rest.strip_prefix('{').unwrap_or(rest);
            let end = rest.find(|letter: char| !(letter.is_ascii_uppercase() || letter == '_'));
            let (name, then) = rest.split_at(end.unwrap_or(rest.len()));
            // Those in capitals come from outside; every shell has these two.
            !name.is_empty() && !["HOME", "PATH"].contains(&name) && !then.starts_with(":-")
        })
    };
    let lines = makefile.lines().enumerate().filter(of_a_recipe);
    let problems = lines.filter(|(_, line)| bare(line));
    assert_none(
        problems
            .map(|(index, line)| format!("Makefile:{}: {line}", index + 1))
            .collect(),
    );
}
