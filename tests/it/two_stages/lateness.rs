//! `allowedLateness` raised under two stages: a window that was purged takes no event any more, from whichever stage.
//! Must not repeat what `lateness` shows of one stage.

use std::sync::Arc;

use streamagg_processor::pipeline::builder::Plan;
use streamagg_processor::pipeline::operator::combine::{Carried, Combine, CombineState};
use streamagg_processor::pipeline::operator::merge::WindowTask;
use streamagg_processor::pipeline::shuffle::Shuffle;
use streamagg_processor::state::backend::{Backend, Changes};
use streamagg_processor::state::memory::MemoryBackend;

use super::cases::{merged, minutes, plan_of, restored, shuffled, source};

/// Both stages under `before`, with three events of a key in the first minute and a final result of it.
fn fired(before: &Arc<Plan>) -> (Combine, WindowTask) {
    let mut combine = Combine::new(Arc::clone(before), source(0, 1), 0);
    let mut windows = WindowTask::new(Arc::clone(before), 0);
    let events = [("a", 1_000), ("a", 2_000), ("a", 3_000), ("a", 130_000)];
    let (results, _) = merged(&mut windows, &shuffled(&mut combine, &events)).unwrap();
    assert!(
        results[0].contains(r#""final":true"#) && results[0].contains(r#""n":3"#),
        "{results:?}"
    );
    (combine, windows)
}

/// The combine task that goes on from its committed position under another spec.
fn changed(plan: &Arc<Plan>, combine: &mut Combine, knows: bool) -> Combine {
    let mut state = combine.close_epoch(&mut Shuffle::default());
    if !knows {
        // As positions were before they said what windows allow.
        state.carried = Carried {
            latenesses: Default::default(),
            ..state.carried
        };
    }
    let text = serde_json::to_string(&state).unwrap();
    assert_eq!(text.contains("latenesses"), knows, "{text}");
    let state: CombineState = serde_json::from_str(&text).unwrap();
    Combine::restore(Arc::clone(plan), source(0, 1), &state)
}

#[test]
fn an_event_of_a_window_that_an_earlier_spec_closed_is_late_in_the_first_stage() {
    let (none, hour) = (minutes("0s"), minutes("1h"));
    let (mut combine, mut windows) = fired(&none);
    let mut windows = restored(&hour, &mut windows, &mut MemoryBackend::default());
    // Restored once more, they still know.
    let mut once = changed(&hour, &mut combine, true);
    let mut combine = changed(&hour, &mut once, true);
    let carried = serde_json::to_value(combine.close_epoch(&mut Shuffle::default()).carried).unwrap();
    let known = serde_json::json!({"m": {"allowedMs": 3_600_000, "closedMs": 130_000}});
    assert_eq!(carried["latenesses"], known);
    let records = shuffled(&mut combine, &[("a", 4_000)]);
    assert_eq!(
        (records.len(), combine.stats().late, &combine.stats().losses[..]),
        (0, 1, &[1][..])
    );
    // The minute that was open takes late events for an hour.
    let (results, purged) = merged(&mut windows, &shuffled(&mut combine, &[("a", 190_000), ("a", 140_000)])).unwrap();
    assert_eq!(purged, []);
    let panes: Vec<bool> = results
        .iter()
        .map(|value| value.contains(r#""index":1,"timing":"Late""#))
        .collect();
    assert_eq!(panes, [false, true], "{results:?}");
    assert!(results[1].contains(r#""n":2"#), "{results:?}");
}

/// A combine task whose position is from before it said what windows allow does not know: the window task does, and
/// nothing is lost in silence.
#[test]
fn a_partial_for_a_window_that_an_earlier_spec_closed_goes_to_the_late_output() {
    let (none, hour) = (minutes("0s"), minutes("1h"));
    let (mut combine, mut windows) = fired(&none);
    let mut backend = MemoryBackend::default();
    let mut once = restored(&hour, &mut windows, &mut backend);
    let mut windows = restored(&hour, &mut once, &mut backend);
    let mut combine = changed(&hour, &mut combine, false);
    let (results, purged) = merged(&mut windows, &shuffled(&mut combine, &[("a", 4_000)])).unwrap();
    assert_eq!(results, Vec::<String>::new());
    let lost: Vec<&str> = purged
        .iter()
        .map(|partial| std::str::from_utf8(&partial.value).unwrap())
        .collect();
    assert!(
        lost.len() == 1 && lost[0].contains(r#""reason":"AfterPurge","start":0"#),
        "{lost:?}"
    );
    assert_eq!(windows.stats().losses, [1]);
}

/// A longer window still takes the event; that the shorter one missed it is counted once, where it is certain.
#[test]
fn a_closed_window_beside_an_open_one_misses_the_partial_and_is_counted_once() {
    let both = |lateness: &str| {
        plan_of(serde_json::json!([
            {"name": "m", "tumbling": {"size": "60s"}, "allowedLateness": lateness},
            {"name": "ten", "tumbling": {"size": "600s"}},
        ]))
    };
    let (mut combine, mut windows) = fired(&both("0s"));
    let mut windows = restored(&both("1h"), &mut windows, &mut MemoryBackend::default());
    let mut combine = changed(&both("1h"), &mut combine, true);
    let records = shuffled(&mut combine, &[("a", 4_000), ("a", 600_000)]);
    assert_eq!((combine.stats().late, &combine.stats().losses[..]), (0, &[0, 0][..]));
    let (results, purged) = merged(&mut windows, &records).unwrap();
    assert_eq!((purged, &windows.stats().losses[..]), (Vec::new(), &[1, 0][..]));
    let ten = results
        .iter()
        .find(|value| value.contains(r#""window":"ten""#))
        .unwrap();
    assert!(ten.contains(r#""n":5"#), "{results:?}");
    assert_eq!(results.len(), 2, "the minute at 2:00 and the ten minutes: {results:?}");
}

/// State without what windows allow is from before: it goes on under the present spec and says it from then on.
#[test]
fn state_that_does_not_say_what_windows_allow_goes_on_under_the_present_spec() {
    let hour = minutes("1h");
    let mut windows = WindowTask::new(Arc::clone(&hour), 0);
    let mut changes = Changes::default();
    windows.take_changes(&mut changes);
    let mut whole = MemoryBackend::default();
    whole.apply(&changes).unwrap();
    let mut old = Changes::default();
    whole
        .scan(&[], &mut |key, value| {
            if key != b"\x01C" {
                old.put(key, value);
            }
            Ok(())
        })
        .unwrap();
    let mut backend = MemoryBackend::default();
    backend.apply(&old).unwrap();
    assert_eq!(backend.get(b"\x01C").unwrap(), None);
    let mut windows = WindowTask::restore(Arc::clone(&hour), &backend).unwrap().unwrap();
    restored(&hour, &mut windows, &mut backend);
    assert_eq!(backend.get(b"\x01C").unwrap(), whole.get(b"\x01C").unwrap());
}
