//! The built binary as a user sees it: exit codes, messages, files, signals. Must not reach into the engine.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail the test that calls them"
)]

mod cli {
    mod configuration;
    mod docs;
    mod problems;
    pub mod process;
    mod replay;
    mod samples;
    pub mod scene;
    mod state;
    mod terminal;
}

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use cli::process::{Running, end_of, interrupt, run, run_with_input};
use cli::scene::{Scene, event, exact};

#[test]
fn results_are_lines_on_standard_output_and_the_summary_is_on_standard_error() {
    let scene = Scene::new();
    let input = [
        event(1, "a", "0.1"),
        "\n".to_owned(),
        event(2, "a", "0.2"),
        event(12, "b", "5"),
    ]
    .concat();
    let ended = run_with_input(&scene.arguments(&[]), input.as_bytes());
    let stdout = exact(&ended, 0);
    let first = r#"{"op":"Upsert","window":"ten-seconds","start":1767225600000,"end":1767225610000,"key":{"tenant":"a"},"pane":{"index":0,"timing":"OnTime","final":true,"revision":0},"values":{"requests":2,"cost":0.3}}"#;
    let second = r#"{"op":"Upsert","window":"ten-seconds","start":1767225610000,"end":1767225620000,"key":{"tenant":"b"},"pane":{"index":0,"timing":"OnTime","final":true,"revision":0},"values":{"requests":1,"cost":5}}"#;
    assert_eq!(stdout.lines().collect::<Vec<_>>(), [first, second]);
    assert!(
        ended.stderr.starts_with("3 events, 2 results, 0 late, 0 dead in "),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("s of CPU"), "{}", ended.stderr);
    let quiet = run_with_input(&scene.arguments(&["--quiet"]), input.as_bytes());
    assert_eq!((exact(&quiet, 0), quiet.stderr.as_str()), (stdout, ""));
}

#[test]
fn late_and_dead_records_go_to_their_files_with_line_and_reason() {
    let scene = Scene::new();
    let late = event(1, "a", "7");
    let input = [
        event(30, "a", "1"),
        "\n".to_owned(),
        late.clone(),
        "{broken\n".to_owned(),
        event(31, "a", "true"),
    ];
    let (late_file, dead_file) = (scene.text("late.jsonl"), scene.text("dead.jsonl"));
    let arguments = scene.arguments(&["--late", &late_file, "--dead", &dead_file]);
    let ended = run_with_input(&arguments, input.concat().as_bytes());
    exact(&ended, 0);
    let late_lines = fs::read_to_string(late_file).unwrap();
    let expected = format!(
        "{{\"reason\":\"Late\",\"window\":\"ten-seconds\",\"watermark\":1767225629000,\"latenessMs\":28000,\"line\":3,\"record\":{}}}\n",
        late.trim_end()
    );
    assert_eq!(late_lines, expected);
    let dead_lines = fs::read_to_string(dead_file).unwrap();
    let dead: Vec<serde_json::Value> = dead_lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(dead.len(), 2, "{dead_lines}");
    assert_eq!(
        (&dead[0]["reason"], &dead[0]["line"]),
        (&"JsonInvalid".into(), &4.into())
    );
    assert_eq!(
        (&dead[0]["record"], &dead[0]["window"]),
        (&"{broken".into(), &serde_json::Value::Null)
    );
    assert_eq!(
        (&dead[1]["reason"], &dead[1]["line"]),
        (&"FieldTypeInvalid".into(), &5.into())
    );
    assert_eq!(
        (&dead[1]["record"]["cost_usd"], &dead[1]["watermark"]),
        (&true.into(), &1_767_225_629_000_i64.into())
    );
    let summary = "4 events, 1 results, 1 late, 2 dead (JsonInvalid 1, FieldTypeInvalid 1)";
    assert!(ended.stderr.contains(summary), "{}", ended.stderr);
}

#[test]
fn the_same_input_gives_the_same_bytes_however_it_arrives() {
    let scene = Scene::new();
    let generated = run(&[
        "generate",
        "events=20000,disorder=3000,late=0.01,bad=0.01,seed=5,rate=500",
    ]);
    let lines = exact(&generated, 0);
    fs::write(scene.path("events.jsonl"), lines).unwrap();
    let from_file = run(&scene.arguments(&["--input", &scene.text("events.jsonl")]));
    let expected = exact(&from_file, 0);
    assert!(expected.lines().count() > 40, "{}", expected.lines().count());
    let direct = run(&scene.arguments(&[
        "--input",
        "generate:events=20000,disorder=3000,late=0.01,bad=0.01,seed=5,rate=500",
    ]));
    assert_eq!(exact(&direct, 0), expected);
    for piece in [100, 7_001, 65_536] {
        let mut child = Running::start(&scene.arguments(&[]), Stdio::piped());
        let mut stdin = child.0.stdin.take().unwrap();
        let bytes = lines.as_bytes().to_vec();
        let writer = std::thread::spawn(move || {
            for piece in bytes.chunks(piece).take(2_000) {
                stdin.write_all(piece).unwrap();
            }
            let written = bytes.chunks(piece).take(2_000).map(<[u8]>::len).sum::<usize>();
            stdin.write_all(&bytes[written..]).unwrap();
        });
        let ended = end_of(child);
        writer.join().unwrap();
        assert_eq!(exact(&ended, 0), expected, "pieces of {piece} bytes");
    }
}

#[test]
fn partitions_keep_keys_together_and_lose_nothing() {
    let scene = Scene::new();
    let input = "generate:events=20000,rate=500,tenants=30";
    let one = run(&scene.arguments(&["--input", input]));
    let four = run(&scene.arguments(&["--input", input, "--partitions", "4"]));
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(exact(&one, 0)), sorted(exact(&four, 0)));
}

#[test]
fn results_appear_while_the_input_is_still_open() {
    let scene = Scene::new();
    let mut child = Running::start(&scene.arguments(&[]), Stdio::piped());
    let mut stdin = child.0.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.0.stdout.take().unwrap());
    stdin
        .write_all([event(1, "a", "1"), event(12, "a", "1")].concat().as_bytes())
        .unwrap();
    let start = Instant::now();
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert!(line.contains("\"requests\":1"), "{line}");
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "the result took {:?}",
        start.elapsed()
    );
    drop(stdin);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest.lines().count(), 1);
    assert_eq!(end_of(child).code, Some(0));
}

#[test]
fn an_interrupt_ends_cleanly_and_fires_nothing_that_is_not_due() {
    let scene = Scene::new();
    let mut child = Running::start(&scene.arguments(&[]), Stdio::piped());
    let mut stdin = child.0.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.0.stdout.take().unwrap());
    stdin
        .write_all([event(1, "a", "1"), event(12, "a", "1")].concat().as_bytes())
        .unwrap();
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    interrupt(&child);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let ended = end_of(child);
    assert_eq!((ended.code, rest.as_str()), (Some(0), ""), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("interrupted: 1 windows were open"),
        "{}",
        ended.stderr
    );
    drop(stdin);
}

#[test]
fn an_endless_generator_stops_at_an_interrupt() {
    let scene = Scene::new();
    let arguments = scene.arguments(&[
        "--input",
        "generate:events=0,rate=1000",
        "--output",
        &scene.text("out.jsonl"),
    ]);
    let child = Running::start(&arguments, Stdio::null());
    let deadline = Instant::now() + Duration::from_secs(20);
    while fs::metadata(scene.path("out.jsonl")).map_or(0, |found| found.len()) == 0 {
        assert!(Instant::now() < deadline, "no result within 20 s");
        std::thread::sleep(Duration::from_millis(10));
    }
    interrupt(&child);
    let ended = end_of(child);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let written = fs::read_to_string(scene.path("out.jsonl")).unwrap();
    assert!(written.ends_with("}}\n"), "the last line is whole");
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let scene = Scene::new();
    for arguments in [
        scene.arguments(&["--input", "generate:events=0,rate=2,tenants=200,keys=200"]),
        vec!["generate".to_owned(), "events=0".to_owned()],
    ] {
        let mut child = Running::start(&arguments, Stdio::null());
        let mut stdout = BufReader::new(child.0.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        drop(stdout);
        let ended = end_of(child);
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.stderr);
        assert!(!ended.stderr.contains("pipe"), "{}", ended.stderr);
    }
}

#[test]
fn the_table_is_printed_once_when_there_is_no_terminal() {
    let scene = Scene::new();
    let ended = run(&scene.arguments(&["--table", "--input", "generate:events=30000,rate=1000,tenants=3"]));
    let stdout = exact(&ended, 0);
    assert!(stdout.starts_with("window       start (UTC)"), "{stdout}");
    assert!(stdout.contains("tenant-0001") && !stdout.contains('\u{1b}'), "{stdout}");
    assert_eq!(stdout.lines().count(), 1 + 9, "{stdout}");
}

#[test]
fn the_real_trace_is_read_and_a_broken_one_is_named_by_line() {
    let scene = Scene::new();
    let trace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/data/azure-llm-inference-2023/conv.csv");
    let lines = run(&["generate", &format!("trace:{}", trace.display())]);
    let stdout = exact(&lines, 0);
    assert_eq!(stdout.lines().count(), 19_366);
    let first = r#"{"ts":"2023-11-16T18:15:46.6805900Z","service":"conv","context_tokens":374,"generated_tokens":44}"#;
    assert_eq!(stdout.lines().next(), Some(first));
    fs::write(
        scene.path("bad.csv"),
        "TIMESTAMP,ContextTokens,GeneratedTokens\nnonsense\n",
    )
    .unwrap();
    let refused = run(&["generate", &format!("trace:{}", scene.text("bad.csv"))]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("bad.csv: line 2 is not a row of a trace"),
        "{}",
        refused.stderr
    );
}
