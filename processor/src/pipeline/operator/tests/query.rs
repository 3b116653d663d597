//! Questions to a task: what is answered is what the results say a moment later.

use super::*;
use crate::pipeline::operator::merge::Barred;
use crate::pipeline::operator::query::{Found, Standing};

/// `window start-end[+] {values}`, with `+` for one that has ended.
fn open(task: &mut Task, key: &str) -> Vec<String> {
    let key = task.plan.derivation.key_of(key).unwrap();
    let (windows, more) = task.windows_of(&key, &Barred::new());
    assert!(!more);
    let line = |open: &crate::pipeline::operator::query::OpenWindow| {
        let time = |time: Option<i64>| time.map_or("*".to_owned(), |ms| ms.to_string());
        let (start, end, ended) = (time(open.start), time(open.end), if open.ended { "+" } else { "" });
        format!("{} {start}-{end}{ended} {}", open.window, open.values)
    };
    windows.iter().map(line).collect()
}

#[test]
fn the_open_windows_of_a_key_are_shown_with_their_values() {
    let windows = "[{name: hop, sliding: {size: 20ms, slide: 10ms}, allowedLateness: 100ms}, {name: all, global: {}, trigger: {early: {everyEvents: 100}}}, {name: s, session: {gap: 6ms}}]";
    let mut run = Run::new(&plan(windows, COUNT_SUM));
    run.feed(&[
        r#"{"ts":11,"k":"a","v":1}"#,
        r#"{"ts":14,"k":"a","v":2}"#,
        r#"{"ts":12,"k":"b","v":9}"#,
        r#"{"ts":26,"k":"a","v":4}"#,
    ]);
    assert_eq!(
        open(&mut run.task, r#"{"k":"a"}"#),
        [
            r#"hop 0-20+ {"n":2,"s":3}"#,
            r#"s 11-20+ {"n":2,"s":3}"#,
            r#"hop 10-30 {"n":3,"s":7}"#,
            r#"s 26-32 {"n":1,"s":4}"#,
            r#"hop 20-40 {"n":1,"s":4}"#,
            r#"all *-* {"n":3,"s":7}"#,
        ]
    );
    assert_eq!(open(&mut run.task, r#"{"k":"nobody"}"#), [""; 0]);
}

#[test]
fn a_count_window_shows_the_last_events_of_a_key() {
    let mut run = Run::new(&plan("[{name: c, count: {size: 3, slide: 2}}]", COUNT_SUM));
    for (index, shown) in [
        r#"c 11-12 {"n":1,"s":1}"#,
        r#"c 11-15 {"n":2,"s":3}"#,
        r#"c 11-18 {"n":3,"s":7}"#,
        r#"c 14-18 {"n":3,"s":14}"#,
    ]
    .into_iter()
    .enumerate()
    {
        let (time, value) = ([11, 14, 17, 15][index], 1 << index);
        run.feed(&[&format!(r#"{{"ts":{time},"k":"a","v":{value}}}"#)]);
        assert_eq!(open(&mut run.task, r#"{"k":"a"}"#), [shown]);
    }
    assert_eq!(run.task.standing(0, 11, &Barred::new()), Found::NoSuchStart(None));
}

#[test]
fn a_key_is_found_however_it_is_written() {
    let plan = plan("[{name: w, tumbling: {size: 10ms}}]", COUNT_SUM);
    let key = |text: &str| {
        plan.derivation
            .key_of(text)
            .map(|bytes| String::from_utf8(bytes).unwrap())
    };
    assert_eq!(key(r#" { "k" : "a" } "#).unwrap(), r#""k":"a""#);
    assert_eq!(key(r#"{"k":"\u0061"}"#).unwrap(), r#""k":"a""#);
    assert_eq!(key(r#"{"k":1.50e1}"#).unwrap(), r#""k":15"#);
    for (text, part) in [
        ("a", "no JSON object"),
        ("{}", "\"k\" is missing"),
        (r#"{"k":null}"#, "\"k\" is missing"),
        (r#"{"k":[1]}"#, "\"k\": KeyInvalid"),
        (r#"{"k":1,"z":2}"#, "\"z\" is no part of the key"),
    ] {
        let problem = key(text).unwrap_err();
        assert!(problem.contains(part), "{text}: {problem}");
    }
}

#[test]
fn a_window_says_how_far_it_is() {
    let windows = "[{name: w, tumbling: {size: 10ms}, allowedLateness: 7ms}, {name: hop, sliding: {size: 20ms, slide: 10ms}}, {name: s, session: {gap: 6ms}}]";
    let mut run = Run::new(&plan(windows, COUNT_SUM));
    run.feed(&[r#"{"ts":11,"k":"a"}"#, r#"{"ts":13,"k":"b"}"#]);
    let mut standing = |name: &str, start_ms| {
        let index = run.task.plan.window_index(name).unwrap();
        run.task.standing(index, start_ms, &Barred::new())
    };
    let one = |end_ms, closes_ms, keys| {
        Found::Instances(vec![Standing {
            end_ms,
            closes_ms,
            keys,
        }])
    };
    assert_eq!(standing("w", 10), one(20, 27, 2));
    assert_eq!(standing("w", 20), one(30, 37, 0));
    assert_eq!(standing("w", 15), Found::NoSuchStart(Some(10)));
    assert_eq!(standing("hop", 0), one(20, 20, 2));
    assert_eq!(standing("hop", 10), one(30, 30, 2));
    assert_eq!(standing("s", 13), one(19, 25, 1));
    assert_eq!(standing("s", 1), Found::NoSuchStart(None));
    assert_eq!(run.task.watermark_ms(), Some(8));
    assert_eq!(run.task.plan.window_index("nobody"), None);
}

#[test]
fn a_window_that_an_earlier_spec_closed_is_not_shown_as_open() {
    let windows = |lateness: &str| {
        let both = "[{name: w, tumbling: {size: 10ms}, allowedLateness: @}, {name: x, tumbling: {size: 40ms}}]";
        plan(&both.replace('@', lateness), COUNT_SUM)
    };
    let mut run = Run::new(&windows("0s"));
    run.feed(&[r#"{"ts":3,"k":"a","v":1}"#, r#"{"ts":20,"k":"a","v":2}"#]);
    let mut backend = MemoryBackend::default();
    save(&mut run.task, &mut backend);
    run.task = Task::restore(windows("1s"), &backend).unwrap().unwrap();
    let shown = [r#"w 20-30 {"n":1,"s":2}"#, r#"x 0-40 {"n":2,"s":3}"#];
    assert_eq!(open(&mut run.task, r#"{"k":"a"}"#), shown);
    assert_eq!(run.task.open_windows(), 2);
    let closed = Standing {
        end_ms: 10,
        closes_ms: 10,
        keys: 1,
    };
    assert_eq!(run.task.standing(0, 0, &Barred::new()), Found::Instances(vec![closed]));
}
