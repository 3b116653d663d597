//! The builder against the manifest: same bytes; each misuse is named; closures; state; endings.

use std::cell::RefCell;
use std::time::Duration;

use super::*;
use crate::error::RejectReason;
use crate::generator::{Generator, Options};
use crate::state::backend::{Backend, Changes};
use crate::state::memory::MemoryBackend;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// LLM traffic with disorder, late events and broken records.
fn traffic(events: u64) -> Vec<Vec<u8>> {
    let options = format!("events={events},rate=20,disorder=2000,late=0.02,bad=0.02,seed=7");
    let mut generator = Generator::new(options.parse::<Options>().unwrap());
    let mut lines = Vec::new();
    let mut line = Vec::new();
    while generator.next_into(&mut line) {
        line.pop();
        lines.push(std::mem::take(&mut line));
    }
    lines
}

fn records(lines: &[Vec<u8>]) -> Vec<Record<'_>> {
    (0..)
        .zip(lines)
        .map(|(offset, line)| Record::new(offset, line))
        .collect()
}

const MANIFEST: &str = r#"
apiVersion: streamagg.io/v1alpha1
kind: StreamAggregation
metadata: {name: by-model}
spec:
  source: {kafka: {bootstrapServers: ["b:9092"], topics: [t]}, partitioning: {byKey: {}}}
  event:
    timestamp: {field: /ts}
    watermark: {boundedOutOfOrderness: {bound: 5s}}
  let: [{name: total, value: "event.usage.prompt + event.usage.completion"}]
  where: "event.status != 429"
  groupBy:
    - {name: tenant, field: /tenant}
    - {name: model, field: /model, whenMissing: {default: unknown}}
  windows:
    - {name: minute, tumbling: {size: 1m, offset: 10s}, allowedLateness: 30s, trigger: {early: {everyEvents: 10}, final: true}}
    - {name: hop, sliding: {size: 2m, slide: 30s}, panes: Retracting, allowedLateness: 5m}
    - {name: visit, session: {gap: 20s, maxDuration: 10m}}
    - {name: growing, cumulative: {step: 1m, size: 5m}}
    - {name: day, calendar: {unit: Day, timeZone: Europe/Berlin}}
    - {name: all, global: {}, trigger: {onTime: false, late: {everyEvents: 2}}, panes: Discarding}
  aggregates:
    - {name: requests, count: {}}
    - {name: errors, count: {}, where: "event.status >= 400"}
    - {name: tokens, sum: {value: total}}
    - {name: mean, average: {field: /latency_ms}}
    - {name: least, min: {field: /latency_ms}}
    - {name: most, max: {field: /latency_ms}}
    - {name: first, first: {field: /user}}
    - {name: last, last: {field: /user}}
    - {name: cheapest, argMin: {field: /user, by: {field: /cost_usd}}}
    - {name: dearest, argMax: {field: /user, by: {field: /cost_usd}}}
    - {name: variance, variance: {field: /latency_ms, population: true}}
    - {name: stddev, stddev: {field: /latency_ms}}
    - {name: latency, percentile: {field: /latency_ms, quantiles: [0.5, 0.99], relativeError: 0.02}}
    - {name: users, distinct: {field: /user}}
    - {name: top, topK: {field: /user, k: 3}}
    - {name: spread, histogram: {field: /latency_ms, bounds: [100, 1000]}}
    - {name: rate, rate: {per: 1m}}
    - {name: token_rate, rate: {value: total, per: 1s}}
    - {name: price, ratio: {numerator: {field: /cost_usd}, denominator: {value: total}}}
    - {name: weighted, weightedAverage: {field: /latency_ms, weight: {value: total}}}
    - name: failed
      where: "event.status >= 400"
      composite:
        - {name: least, min: {field: /latency_ms}}
        - {name: dear, count: {}, where: "has(event.cost_usd)"}
  sink: {kafka: {topic: r}}
"#;

/// The same as [`MANIFEST`].
fn declared() -> Stream {
    Stream::new()
        .event_time("/ts", TimeUnit::Rfc3339)
        .watermark(Watermark::bounded_out_of_orderness(seconds(5)))
        .derive("total", "event.usage.prompt + event.usage.completion")
        .condition("event.status != 429")
        .key_by("tenant", "/tenant")
        .key_by("model", Key::new("/model").or_text("unknown"))
        .window(
            "minute",
            Window::tumbling(seconds(60))
                .offset(seconds(10))
                .allowed_lateness(seconds(30))
                .early_every_events(10)
                .closing(),
        )
        .window(
            "hop",
            Window::sliding(seconds(120), seconds(30))
                .panes(Panes::Retracting)
                .allowed_lateness(seconds(300)),
        )
        .window("visit", Window::session(seconds(20)).max_duration(seconds(600)))
        .window("growing", Window::cumulative(seconds(60), seconds(300)))
        .window("day", Window::calendar(CalendarUnit::Day, "Europe/Berlin"))
        .window(
            "all",
            Window::global()
                .not_on_time()
                .late_every_events(2)
                .panes(Panes::Discarding),
        )
        .aggregate("requests", Aggregate::count())
        .aggregate("errors", Aggregate::count().filter("event.status >= 400"))
        .aggregate("tokens", Aggregate::sum("total"))
        .aggregate("mean", Aggregate::average("/latency_ms"))
        .aggregate("least", Aggregate::min("/latency_ms"))
        .aggregate("most", Aggregate::max("/latency_ms"))
        .aggregate("first", Aggregate::first("/user"))
        .aggregate("last", Aggregate::last("/user"))
        .aggregate("cheapest", Aggregate::arg_min("/user", "/cost_usd"))
        .aggregate("dearest", Aggregate::arg_max("/user", "/cost_usd"))
        .aggregate("variance", Aggregate::variance("/latency_ms").population())
        .aggregate("stddev", Aggregate::stddev("/latency_ms"))
        .aggregate(
            "latency",
            Aggregate::percentile("/latency_ms", &[0.5, 0.99]).relative_error(0.02),
        )
        .aggregate("users", Aggregate::distinct("/user"))
        .aggregate("top", Aggregate::top_k("/user", 3))
        .aggregate("spread", Aggregate::histogram("/latency_ms", &[100.0, 1000.0]))
        .aggregate("rate", Aggregate::rate(seconds(60)))
        .aggregate("token_rate", Aggregate::sum_rate("total", seconds(1)))
        .aggregate("price", Aggregate::ratio("/cost_usd", "total"))
        .aggregate("weighted", Aggregate::weighted_average("/latency_ms", "total"))
        .aggregate(
            "failed",
            Aggregate::composite([
                ("least", Aggregate::min("/latency_ms")),
                ("dear", Aggregate::count().filter("has(event.cost_usd)")),
            ])
            .filter("event.status >= 400"),
        )
}

/// Everything that a pipeline puts out over `lines`, pushed in cuts of `cut`; state goes through a backend after each
/// cut, and with `crash` every run is dropped after its first cut and a new one is restored from there.
fn outputs(stream: &dyn Fn() -> Stream, lines: &[Vec<u8>], cut: usize, crash: bool) -> Vec<String> {
    let seen = RefCell::new(Vec::new());
    let pipeline = stream()
        .sink(|result| {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            seen.borrow_mut()
                .push(format!("{} {} {}", result.window, text(result.key), text(result.value)));
            Ok(())
        })
        .late_events(|late| {
            seen.borrow_mut()
                .push(format!("late {} {} {}", late.offset, late.windows, late.lateness_ms));
            Ok(())
        })
        .dead_letters(|dead| {
            seen.borrow_mut()
                .push(format!("dead {} {:?} {}", dead.offset, dead.reason, dead.detail));
            Ok(())
        })
        .build()
        .unwrap_or_else(|errors| panic!("{errors}"));
    let records = records(lines);
    let mut backend = MemoryBackend::default();
    let mut run = pipeline.clone().start(0);
    for cut in records.chunks(cut) {
        if crash {
            run = pipeline
                .clone()
                .restore(&backend)
                .unwrap()
                .unwrap_or_else(|| pipeline.clone().start(0));
        }
        // From the beginning: a run passes over what it has consumed.
        run.push(&records[..usize::try_from(cut[0].offset).unwrap()]).unwrap();
        run.push(cut).unwrap();
        let mut changes = Changes::default();
        run.take_changes(&mut changes);
        backend.apply(&changes).unwrap();
    }
    run.finish().unwrap();
    drop(run);
    seen.into_inner()
}

#[test]
fn builder_and_manifest_give_the_same_bytes_however_the_input_is_cut() {
    let lines = traffic(3_000);
    let by_builder = outputs(&declared, &lines, 3_000, false);
    for kind in ["minute ", "hop ", "visit ", "growing ", "day ", "all ", "dead "] {
        assert!(
            by_builder.iter().any(|line| line.starts_with(kind)),
            "no output of kind {kind}"
        );
    }
    let of_manifest = || Stream::from_manifest(MANIFEST).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(by_builder, outputs(&of_manifest, &lines, 3_000, false));
    assert_eq!(by_builder, outputs(&declared, &lines, 7, false));
    assert_eq!(by_builder, outputs(&declared, &lines, 101, true));
}

fn closures(lines: &[Vec<u8>], cut: usize, crash: bool) -> Vec<String> {
    let seen = RefCell::new(Vec::new());
    let pipeline = Stream::new()
        .filter(|record| !record.value.is_empty())
        .flat_map(|record, elements| {
            for part in record.value.split(|byte| *byte == b';') {
                elements.push(part);
            }
        })
        .map(|record, out| {
            out.extend_from_slice(b"{\"v\":");
            out.extend_from_slice(record.value);
            out.extend_from_slice(b"}");
        })
        .record_time()
        .watermark(Watermark::monotonic())
        .window("second", Window::tumbling(seconds(1)))
        .aggregate("n", Aggregate::count())
        .aggregate("sum", Aggregate::sum("/v"))
        .aggregate("last", Aggregate::last("/v"))
        .sink(|result| {
            seen.borrow_mut()
                .push(String::from_utf8_lossy(result.value).into_owned());
            Ok(())
        })
        .late_events(|late| {
            seen.borrow_mut()
                .push(format!("late {} {}", late.offset, String::from_utf8_lossy(late.value)));
            Ok(())
        })
        .dead_letters(|dead| {
            seen.borrow_mut()
                .push(format!("dead {} {}", dead.offset, String::from_utf8_lossy(dead.value)));
            Ok(())
        })
        .build()
        .unwrap_or_else(|errors| panic!("{errors}"));
    let records: Vec<Record<'_>> = (0..)
        .zip(lines)
        .map(|(at, line)| Record {
            timestamp_ms: Some(if at == 3 { 0 } else { at * 600 }),
            ..Record::new(at * 10, line)
        })
        .collect();
    let mut backend = MemoryBackend::default();
    let mut run = pipeline.clone().start(0);
    for cut in records.chunks(cut) {
        if crash && let Some(restored) = pipeline.clone().restore(&backend).unwrap() {
            assert!(restored.next_offset() <= cut[0].offset);
            run = restored;
        }
        run.push(cut).unwrap();
        assert_eq!(run.next_offset(), cut[cut.len() - 1].offset + 1);
        let mut changes = Changes::default();
        run.take_changes(&mut changes);
        backend.apply(&changes).unwrap();
    }
    run.finish().unwrap();
    drop(run);
    seen.into_inner()
}

#[test]
fn closures_filter_write_and_multiply_records() {
    let lines: Vec<Vec<u8>> = ["1;2", "", "3", "4", "5;x;6"]
        .map(|line| line.as_bytes().to_vec())
        .into();
    let found = closures(&lines, 5, false);
    let value = |start: i64, n: u32, sum: &str, last: &str| {
        let end = start + 1000;
        let timing = r#""pane":{"index":0,"timing":"OnTime","final":true,"revision":0}"#;
        format!(
            r#"{{"op":"Upsert","window":"second","start":{start},"end":{end},"key":{{}},{timing},"values":{{"n":{n},"sum":{sum},"last":{last}}}}}"#
        )
    };
    let expected = [
        value(0, 2, "3", "2"),
        r#"late 30 {"v":4}"#.to_owned(),
        value(1000, 1, "3", "3"),
        r#"dead 40 {"v":x}"#.to_owned(),
        value(2000, 2, "11", "6"),
    ];
    assert_eq!(found, expected);
    assert_eq!(closures(&lines, 1, false), expected);
    assert_eq!(closures(&lines, 1, true), expected);
}

#[test]
fn many_elements_of_one_record_are_handed_over_in_bounded_steps() {
    let count = RefCell::new(0);
    let mut run = Stream::new()
        .flat_map(|_, elements| (0..3000).for_each(|_| elements.push(b"{\"t\":5}")))
        .event_time("/t", TimeUnit::Seconds)
        .watermark(Watermark::monotonic())
        .window("w", Window::tumbling(seconds(10)))
        .aggregate("n", Aggregate::count())
        .sink(|result| {
            assert!(String::from_utf8_lossy(result.value).contains(r#""n":6000"#));
            *count.borrow_mut() += 1;
            Ok(())
        })
        .build()
        .unwrap_or_else(|errors| panic!("{errors}"))
        .start(0);
    run.push(&[Record::new(0, b""), Record::new(1, b"")]).unwrap();
    assert_eq!(run.stats().records, 6000);
    assert_eq!(run.watermark_ms(), Some(5000));
    run.finish().unwrap();
    drop(run);
    assert_eq!(count.into_inner(), 1);
}

/// The least that a pipeline needs.
fn least() -> Stream {
    Stream::new()
        .event_time("/ts", TimeUnit::Milliseconds)
        .watermark(Watermark::monotonic())
        .window("w", Window::tumbling(seconds(1)))
        .aggregate("n", Aggregate::count())
}

fn problems(stream: Stream) -> Vec<BuildError> {
    stream.sink(|_| Ok(())).build().map(|_| ()).unwrap_err().0
}

/// Steps that are missing, twice, misplaced, and aggregates that are wrong.
fn misused_steps_and_aggregates() -> Vec<(Stream, &'static str)> {
    vec![
        (
            Stream::new(),
            "event_time: is missing; a pipeline needs one|watermark: is missing; a pipeline needs one|window: is \
             missing; a pipeline needs one|aggregate: is missing; a pipeline needs one",
        ),
        (
            least().key_by("k", "/k"),
            "key_by \"k\": stands behind aggregate \"n\"; put it before",
        ),
        (
            least().condition("true"),
            "condition: stands behind aggregate \"n\"; put it before",
        ),
        (
            least().window("v", Window::global()),
            "window \"v\": stands behind aggregate \"n\"; put it before",
        ),
        (
            Stream::new().record_time().event_time("/ts", TimeUnit::Seconds),
            "event_time: stands there twice; keep one",
        ),
        (
            declared().aggregate("n", Aggregate::sum("absent")),
            "aggregate \"n\": sum.value: ",
        ),
        (
            declared().aggregate("n", Aggregate::sum("/a~2")),
            "aggregate \"n\": sum.field: found \"/a~2\"",
        ),
        (
            declared().aggregate("n", Aggregate::count().filter("event.")),
            "aggregate \"n\": where: ",
        ),
        (
            declared().aggregate("tokens", Aggregate::count()),
            "aggregate \"tokens\": \"tokens\" is there twice",
        ),
        (
            declared().aggregate("n", Aggregate::count().relative_error(0.1)),
            "aggregate \"n\": count.relativeError: unknown",
        ),
        (
            declared().aggregate("n", Aggregate::composite([("m", Aggregate::sum("/a"))]).population()),
            "aggregate \"n\": population: unknown",
        ),
        (
            declared().aggregate("n", Aggregate::composite([("m", Aggregate::sum("absent"))])),
            "aggregate \"n\": composite[0].sum.value: ",
        ),
        (
            declared().aggregate("p", Aggregate::percentile("/a", &[1.5])),
            "aggregate \"p\": percentile.quantiles[0]: found 1.5",
        ),
    ]
}

/// Windows, keys and expressions that are wrong.
fn misused_windows_and_keys() -> Vec<(Stream, &'static str)> {
    vec![
        (
            base().window("w", Window::tumbling(Duration::ZERO)),
            "window \"w\": tumbling.size: ",
        ),
        (
            base().window("w", Window::tumbling(Duration::from_micros(1500))),
            "window \"w\": tumbling.size: found \"1500000ns\"",
        ),
        (
            base().window("w", Window::session(seconds(1)).offset(seconds(1))),
            "window \"w\": session.offset: unknown field",
        ),
        (
            base().window("w", Window::calendar(CalendarUnit::Day, "Mars/Base")),
            "window \"w\": calendar.timeZone: ",
        ),
        (
            base().window("W w", Window::global()),
            "window \"W w\": name: found \"W w\"",
        ),
        (base().condition("event.a +"), "condition: "),
        (base().derive("a", "b"), "derive \"a\": value: "),
        (base().key_by("k", "absent"), "key_by \"k\": value: "),
        (
            base().max_bad_ratio(2.0),
            "max_bad_ratio: found 2.0; expected at most 1",
        ),
        (
            Stream::new()
                .event_time("/ts", TimeUnit::Seconds)
                .watermark(Watermark::punctuated("mark")),
            "watermark: punctuated.field: found \"mark\"",
        ),
    ]
}

#[test]
fn every_misuse_is_named_with_its_step() {
    let cases = misused_steps_and_aggregates()
        .into_iter()
        .chain(misused_windows_and_keys());
    for (stream, expected) in cases {
        // What is missing is told first; here the step in hand is looked at.
        let is_whole = expected.contains("missing") || expected.contains("twice") || expected.contains("behind");
        let stream = if is_whole { stream } else { completed(stream) };
        let found: Vec<String> = problems(stream).iter().map(ToString::to_string).collect();
        for part in expected.split('|') {
            assert!(
                found.iter().any(|problem| problem.starts_with(part)),
                "{part}\n{found:#?}"
            );
        }
    }
}

/// Time and watermark.
fn base() -> Stream {
    Stream::new()
        .event_time("/ts", TimeUnit::Seconds)
        .watermark(Watermark::monotonic())
}

/// Adds what is missing, so that the rules of the manifest are looked at.
fn completed(stream: Stream) -> Stream {
    let text = format!("{stream:?}");
    let stream = if text.contains("\"windows\"") {
        stream
    } else {
        stream.window("x", Window::tumbling(seconds(1)))
    };
    if text.contains("\"aggregates\"") {
        stream
    } else {
        stream.aggregate("x", Aggregate::count())
    }
}

#[test]
fn sinks_are_needed_once_and_stand_last() {
    let errors = least().build().map(|_| ()).unwrap_err();
    assert_eq!(
        errors.0,
        [BuildError {
            step: Step::Sink,
            misuse: Misuse::Missing
        }]
    );
    let twice = least()
        .sink(|_| Ok(()))
        .sink(|_| Ok(()))
        .late_events(|_| Ok(()))
        .late_events(|_| Ok(()));
    let steps: Vec<Step> = twice
        .build()
        .map(|_| ())
        .unwrap_err()
        .0
        .into_iter()
        .map(|error| error.step)
        .collect();
    assert_eq!(steps, [Step::Sink, Step::LateEvents]);
    let behind = least().sink(|_| Ok(())).map(|_, _| ()).build().map(|_| ()).unwrap_err();
    let expected = Misuse::Misplaced { behind: Step::Sink };
    assert_eq!(
        behind.0,
        [BuildError {
            step: Step::Map(1),
            misuse: expected
        }]
    );
    assert_eq!(behind.to_string(), "map (closure 1): stands behind sink; put it before");
}

#[test]
fn a_wrong_manifest_is_refused_with_its_paths_and_a_right_one_can_be_added_to() {
    let wrong = MANIFEST.replace("gap: 20s", "gap: soon");
    let text = Stream::from_manifest(&wrong).map(|_| ()).unwrap_err().to_string();
    assert!(
        text.starts_with("manifest: spec.windows[2].session.gap: found \"soon\""),
        "{text}"
    );
    let twice = Stream::from_manifest(MANIFEST)
        .unwrap_or_else(|errors| panic!("{errors}"))
        .condition("true");
    assert_eq!(
        problems(twice),
        [BuildError {
            step: Step::Condition,
            misuse: Misuse::Repeated
        }]
    );
}

#[test]
fn a_run_ends_with_what_a_sink_answers_and_with_too_many_bad_records() {
    let mut failing = least()
        .sink(|_| Err("disk full".into()))
        .build()
        .map_err(|errors| errors.to_string())
        .unwrap()
        .start(0);
    failing.push(&[Record::new(0, br#"{"ts":1}"#)]).unwrap();
    let error = failing.push(&[Record::new(1, br#"{"ts":5000}"#)]).unwrap_err();
    assert_eq!(error.to_string(), "sink failed: disk full");

    let dead = RefCell::new(0);
    let pipeline = Stream::new()
        .event_time("/ts", TimeUnit::Milliseconds)
        .watermark(Watermark::periodic(seconds(1), seconds(1)))
        .strict_json()
        .max_bad_ratio(0.5)
        .window("w", Window::tumbling(seconds(1)))
        .aggregate("n", Aggregate::count())
        .sink(|_| Ok(()))
        .dead_letters(|letter| {
            assert_eq!(letter.reason, RejectReason::JsonInvalid);
            *dead.borrow_mut() += 1;
            Ok(())
        });
    let mut run = pipeline.build().map_err(|errors| errors.to_string()).unwrap().start(0);
    let bad: Vec<Record<'_>> = (0..1500)
        .map(|offset| Record::new(offset, br#"{"ts":1,"x":}"#))
        .collect();
    let error = run.push(&bad).unwrap_err();
    assert!(
        matches!(error, RunError::TooManyBadRecords { bad: 1000, seen: 1000 }),
        "{error}"
    );
    drop(run);
    assert_eq!(dead.into_inner(), 1000);
}

#[test]
fn ticks_the_clock_and_an_idle_input_are_part_of_the_input() {
    let seen = RefCell::new(Vec::new());
    let mut run = Stream::new()
        .event_time("/ts", TimeUnit::Milliseconds)
        .watermark(Watermark::monotonic())
        .max_future_skew(seconds(60))
        .window(
            "w",
            Window::tumbling(seconds(10))
                .early_every(seconds(1))
                .late_every(seconds(1))
                .allowed_lateness(seconds(5)),
        )
        .aggregate("n", Aggregate::count())
        .sink(|result| {
            let value: serde_json::Value = serde_json::from_slice(result.value)?;
            seen.borrow_mut()
                .push(format!("{} {}", value["pane"]["timing"], value["values"]["n"]));
            Ok(())
        })
        .dead_letters(|dead| {
            seen.borrow_mut().push(format!("{:?}", dead.reason));
            Ok(())
        })
        .build()
        .map_err(|errors| errors.to_string())
        .unwrap()
        .start(0);
    assert_eq!(run.watermark_ms(), None);
    run.set_clock(Some(2000));
    run.tick(2000).unwrap();
    run.push(&[Record::new(0, br#"{"ts":1000}"#), Record::new(1, br#"{"ts":900000}"#)])
        .unwrap();
    run.tick(4000).unwrap();
    run.advance_watermark(10_000).unwrap();
    assert_eq!(run.watermark_ms(), Some(10_000));
    run.push(&[Record::new(2, br#"{"ts":2000}"#)]).unwrap();
    run.tick(6000).unwrap();
    run.finish().unwrap();
    drop(run);
    assert_eq!(
        seen.into_inner(),
        ["TimestampInFuture", "\"Early\" 1", "\"OnTime\" 1", "\"Late\" 2"]
    );
}

#[test]
fn state_of_another_kind_is_refused() {
    let mut backend = MemoryBackend::default();
    let pipeline = || {
        least()
            .sink(|_| Ok(()))
            .build()
            .map_err(|errors| errors.to_string())
            .unwrap()
    };
    assert!(pipeline().restore(&backend).unwrap().is_none());
    let mut run = pipeline().start(0);
    run.push(&[Record::new(0, br#"{"ts":1}"#)]).unwrap();
    let mut changes = Changes::default();
    run.take_changes(&mut changes);
    backend.apply(&changes).unwrap();
    let mut damage = Changes::default();
    damage.put(b"\x40E", b"short");
    let mut damaged = backend.clone();
    damaged.apply(&damage).unwrap();
    let error = pipeline().restore(&damaged).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("next offset"), "{error}");
    let keyed = Stream::new()
        .event_time("/ts", TimeUnit::Milliseconds)
        .watermark(Watermark::monotonic())
        .key_by("k", Key::new("/k").or_null())
        .window("w", Window::tumbling(seconds(1)))
        .aggregate("n", Aggregate::count())
        .sink(|_| Ok(()));
    let keyed = keyed.build().map_err(|errors| errors.to_string()).unwrap();
    let error = keyed.restore(&backend).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("does not fit the changed spec"), "{error}");
}
