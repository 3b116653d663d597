//! State of one spec read under another: aggregates added or dropped between two epochs.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;
use streamagg_crds::manifest::parse_manifest;
use streamagg_crds::validate::resolve;
use streamagg_processor::pipeline::builder::Plan;
use streamagg_processor::pipeline::operator::Task;
use streamagg_processor::pipeline::output::{Outputs, Record};
use streamagg_processor::state::backend::Error;
use streamagg_processor::state::memory::MemoryBackend;
use streamagg_tests::generator::{self, Case};
use streamagg_tests::oracle::{self, Expected, Function, Spec};

use super::engine::{START_OFFSET, cases, commit, expected_form, plan, run};

/// The same with more aggregates of the fields that are looked at already, so that no other event is rejected.
pub fn widened(spec: &Spec) -> Spec {
    let mut wide = spec.clone();
    for (n, (_, function, path)) in spec.aggregates.iter().enumerate() {
        let other = match function.clone() {
            Function::Count => Function::Count,
            Function::Sum => Function::Min,
            Function::Average => Function::Percentile(vec!["0.5"]),
            Function::Min => Function::Average,
            Function::Max => Function::Sum,
            Function::First => Function::Distinct,
            Function::Last => Function::TopK(3),
            Function::ArgMin(by) => Function::ArgMax(by),
            Function::ArgMax(by) => Function::ArgMin(by),
            Function::Variance(_) => Function::Sum,
            Function::Stddev(_) => Function::Max,
            Function::Percentile(_) => Function::Variance(false),
            Function::Distinct => Function::First,
            Function::TopK(_) => Function::Last,
            // Other limits are another accumulator.
            Function::Histogram(_) => Function::Histogram(vec!["7"]),
            Function::EventRate(_) => Function::Count,
            Function::SumRate(_) => Function::Stddev(true),
            Function::Ratio(divisor) => Function::WeightedAverage(divisor),
            Function::WeightedAverage(weight) => Function::Ratio(weight),
        };
        wide.aggregates.push((format!("y{n}"), other, path.clone()));
    }
    wide
}

/// Runs `case` under `before`, and from entry `at` on under `after`, with a restart between them.
pub fn run_across(case: &Case, at: usize, cuts: &[usize], before: &Spec, after: &Spec) -> Vec<Expected> {
    let mut seen = Vec::new();
    let mut backend = MemoryBackend::default();
    let mut task = Task::new(plan(before), START_OFFSET);
    run(&mut task, case, 0, at, cuts, &mut seen);
    commit(&mut task, &mut backend);
    let mut task = Task::restore(plan(after), &backend)
        .expect("the state is readable")
        .expect("there is a task");
    // The new revision's first epoch writes the state in its own layout; it must be readable again.
    commit(&mut task, &mut backend);
    let mut task = Task::restore(Arc::clone(&plan(after)), &backend)
        .expect("readable")
        .expect("there is a task");
    run(&mut task, case, at, case.log.len(), cuts, &mut seen);
    seen
}

fn start_of(key: &str) -> i64 {
    let text = key.split("\"start\":").nth(1).unwrap_or_default();
    let start = text.split(',').next().unwrap_or_default();
    // A window of all time has no start.
    if start == "null" {
        i64::MIN
    } else {
        start.parse().expect("a start")
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(150), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_added_aggregate_changes_no_digit_of_the_others(
        case in generator::case(120), at in any::<Index>(), cuts in generator::cuts(),
    ) {
        let at = at.index(case.log.len() + 1);
        let wide = widened(&case.spec);
        let seen = run_across(&case, at, &cuts, &case.spec, &wide);
        let (narrow_answer, wide_answer) = (oracle::outputs(&case.spec, &case.log), oracle::outputs(&wide, &case.log));
        prop_assert_eq!(seen.len(), narrow_answer.len());
        // Windows that begin behind every event before the change have the new aggregates for all their events.
        let newest = oracle::newest_event_ms(&case.spec, &case.log[..at]);
        for ((seen, narrow), wide) in seen.iter().zip(&narrow_answer).zip(&wide_answer) {
            match (seen, narrow, wide) {
                (
                    Expected::Result { key, value, .. },
                    Expected::Result { entry, value: narrow, .. },
                    Expected::Result { key: wide_key, value: wide, .. },
                ) => {
                    prop_assert_eq!(key, wide_key);
                    let old_values = narrow.strip_suffix("}}").expect("an object ends so");
                    prop_assert!(value.starts_with(old_values), "{value} is not {narrow} and more");
                    if *entry >= at && start_of(key) > newest {
                        prop_assert_eq!(value, wide);
                    }
                }
                (seen, narrow, _) => prop_assert_eq!(seen, narrow),
            }
        }
    }

    #[test]
    fn aggregates_go_on_in_a_composite_and_out_of_it(
        case in generator::case(120), at in any::<Index>(), cuts in generator::cuts(), into in any::<bool>(),
    ) {
        let at = at.index(case.log.len() + 1);
        let renamed = |within: &str| {
            let mut spec = case.spec.clone();
            for (n, (name, ..)) in spec.aggregates.iter_mut().enumerate() {
                *name = format!("{within}m{n}");
            }
            spec
        };
        let (plain, composite) = (renamed(""), renamed("all."));
        let (before, after) = if into { (plain, composite) } else { (composite, plain) };
        let seen = run_across(&case, at, &cuts, &before, &after);
        let answers = oracle::outputs(&before, &case.log).into_iter().zip(oracle::outputs(&after, &case.log));
        let expected = answers.map(|pair| match pair {
            (Expected::Result { entry, key, value }, Expected::Result { value: later, .. }) => Expected::Result {
                entry: 0,
                key,
                value: if entry < at { value } else { later },
            },
            (other, _) => other,
        });
        prop_assert_eq!(seen, expected.collect::<Vec<_>>());
    }

    #[test]
    fn a_dropped_aggregate_changes_no_digit_of_the_others(
        case in generator::case(120), at in any::<Index>(), cuts in generator::cuts(),
    ) {
        let at = at.index(case.log.len() + 1);
        let seen = run_across(&case, at, &cuts, &widened(&case.spec), &case.spec);
        let answer = oracle::outputs(&case.spec, &case.log);
        prop_assert_eq!(seen.len(), answer.len());
        for (seen, expected) in seen.iter().zip(&answer) {
            match (seen, expected) {
                (Expected::Result { value, .. }, Expected::Result { entry, value: expected, .. }) => {
                    let old_values = expected.strip_suffix("}}").expect("an object ends so");
                    prop_assert!(value.starts_with(old_values), "{value} is not {expected}");
                    prop_assert!(*entry < at || value == expected, "{value} is not {expected}");
                }
                (seen, expected) => prop_assert_eq!(seen, expected),
            }
        }
    }
}

/// A job over these windows.
fn with_windows(windows: &[&str]) -> Arc<Plan> {
    let manifest = format!(
        r#"
apiVersion: streamagg.io/v1alpha1
kind: StreamAggregation
metadata: {{name: panes}}
spec:
  source: {{kafka: {{bootstrapServers: ["b:1"], topics: [t]}}, partitioning: {{byKey: {{}}}}}}
  event: {{timestamp: {{field: /ts, unit: Milliseconds}}, watermark: {{boundedOutOfOrderness: {{bound: 0s}}}}}}
  groupBy: [{{name: k, field: /k}}]
  windows: [{}]
  aggregates: [{{name: n, count: {{}}}}]
  sink: {{kafka: {{topic: r}}}}
"#,
        windows.join(", ")
    );
    let manifest = parse_manifest(&manifest).unwrap();
    Arc::new(Plan::compile(&resolve(&manifest.spec, "tests", "panes").unwrap()))
}

const MINUTE: &str = "{name: minute, tumbling: {size: 60s}}";
const HOP: &str = "{name: hop, sliding: {size: 1200s, slide: 60s}}";
const PART: &str = "{name: part, tumbling: {size: 20s}}";

/// Which windows share panes depends on their order: none may leave the panes that have its events.
#[test]
fn windows_are_found_on_the_panes_that_have_their_events_or_refused() {
    for (before, after, goes_on) in [
        (&[MINUTE, HOP, PART][..], &[PART, MINUTE, HOP][..], false),
        (&[MINUTE, HOP], &[PART, MINUTE, HOP], false),
        (&[MINUTE, HOP], &[MINUTE, HOP, PART], true),
        (&[MINUTE, HOP], &[HOP, MINUTE], true),
    ] {
        let mut task = Task::new(with_windows(before), 0);
        let lines = [0, 30_000].map(|ts| format!(r#"{{"ts":{ts},"k":"a"}}"#));
        let records = lines
            .iter()
            .zip(0..)
            .map(|(line, offset)| Record::new(offset, line.as_bytes()));
        task.step(&records.collect::<Vec<_>>(), &mut Outputs::default());
        let mut backend = MemoryBackend::default();
        commit(&mut task, &mut backend);
        let restored = Task::restore(with_windows(after), &backend);
        match restored {
            Err(Error::Incompatible { what }) => {
                assert!(!goes_on && what.contains("\"minute\""), "{before:?} {after:?}: {what}")
            }
            Err(error) => panic!("{error}"),
            Ok(task) => {
                assert!(goes_on, "{before:?} {after:?}");
                let mut outputs = Outputs::default();
                let line = br#"{"ts":60000,"k":"a"}"#;
                task.expect("there is a task")
                    .step(&[Record::new(2, line)], &mut outputs);
                let results = expected_form(&outputs, &[], 0);
                let is_whole = |output: &Expected| match output {
                    Expected::Result { key, value, .. } => key.contains("minute") && value.contains("\"n\":2"),
                    _ => false,
                };
                assert!(results.iter().any(is_whole), "{before:?} {after:?}: {results:?}");
            }
        }
    }
}
