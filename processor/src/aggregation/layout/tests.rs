//! Rows of every kind of accumulator: merging, bytes, damage.

use proptest::prelude::*;

use super::*;
use crate::aggregation::inputs::{Place, Scalars};
use crate::aggregation::rows::RowStore;

/// One of every function, all over one input.
fn functions() -> Vec<Function> {
    vec![
        Function::Count,
        Function::Sum,
        Function::Average,
        Function::Min,
        Function::Max,
        Function::Percentile {
            quantiles: vec![500_000_000_000, 990_000_000_000],
            relative_error_ppm: 10_000,
        },
        Function::First,
        Function::Last,
        Function::ArgMin,
        Function::ArgMax,
        Function::Variance { population: false },
        Function::Stddev { population: true },
        Function::Distinct {
            relative_error_ppm: 100_000,
        },
        Function::TopK { k: 2 },
        Function::Histogram {
            bounds: vec![-5_000_000_000_000, 0, 1 << 60],
        },
        Function::EventRate { per_ms: 1000 },
        Function::SumRate { per_ms: 60_000 },
        Function::Ratio,
        Function::WeightedAverage,
    ]
}

fn layout() -> Layout {
    let mut layout = Layout::default();
    for (index, function) in functions().iter().enumerate() {
        let source = |_| Source {
            identity: "/v".to_owned(),
            index: 0,
        };
        let sources: Vec<Source> = function.inputs().iter().map(source).collect();
        layout.push(&format!("a{index}"), function, &sources);
    }
    layout
}

/// An event: its time and its value.
type Event = (i64, Option<i64>);

fn fold(layout: &Layout, store: &mut RowStore, events: &[(usize, Event)]) -> u32 {
    let row = store.push();
    for (offset, (time_ms, value)) in events {
        let mut scalars = Scalars::default();
        scalars.reset(1);
        if let Some(value) = value {
            let write = |out: &mut Vec<u8>| {
                out.extend((value % 5).to_string().into_bytes());
                Ok::<(), ()>(())
            };
            scalars.set(0, write).unwrap();
        }
        let inputs = Inputs {
            place: Place {
                time_ms: *time_ms,
                partition: 0,
                offset: *offset as i64,
            },
            numbers: &[value.map(|value| i128::from(value) << 20)],
            scalars: &scalars,
            filters: &[],
        };
        layout.add(store.get_mut(row), &inputs);
    }
    row
}

fn encoded(layout: &Layout, store: &RowStore, row: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    layout.encode(store.get(row), &mut bytes);
    bytes
}

fn merged(layout: &Layout, store: &mut RowStore, rows: &[u32]) -> u32 {
    let mut others = RowStore::new(layout, 3);
    let target = others.push();
    for row in rows {
        layout.merge(others.get_mut(target), store.get(*row));
    }
    store.push_copy(others.get(target))
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec((0..20i64, prop::option::weighted(0.9, any::<i64>())), 0..12)
}

proptest! {
    #[test]
    fn merging_is_associative_commutative_and_equals_adding(a in events(), b in events(), c in events()) {
        let layout = layout();
        let mut store = RowStore::new(&layout, 2);
        let all: Vec<(usize, Event)> = a.iter().chain(&b).chain(&c).copied().enumerate().collect();
        let (first, rest) = all.split_at(a.len());
        let (second, third) = rest.split_at(b.len());
        let whole = fold(&layout, &mut store, &all);
        let parts = [first, second, third].map(|part| fold(&layout, &mut store, part));
        let forward = merged(&layout, &mut store, &parts);
        let backward = merged(&layout, &mut store, &[parts[2], parts[0], parts[1]]);
        let tail = merged(&layout, &mut store, &parts[1..]);
        let right = merged(&layout, &mut store, &[parts[0], tail]);
        let expected = encoded(&layout, &store, whole);
        for row in [forward, backward, right] {
            prop_assert_eq!(&encoded(&layout, &store, row), &expected);
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            layout.write_values(store.get(row), 1000, &mut ours);
            layout.write_values(store.get(whole), 1000, &mut theirs);
            prop_assert_eq!(ours, theirs);
        }
        let copy = store.push();
        prop_assert!(layout.decode(&expected, store.get_mut(copy)));
        prop_assert_eq!(encoded(&layout, &store, copy), expected);
    }

    #[test]
    fn damaged_rows_are_refused_or_readable_but_never_panic(
        events in events(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let layout = layout();
        let mut store = RowStore::new(&layout, 0);
        let events: Vec<(usize, Event)> = events.into_iter().enumerate().collect();
        let row = fold(&layout, &mut store, &events);
        let mut bytes = encoded(&layout, &store, row);
        let target = store.push();
        let at = at.index(bytes.len());
        prop_assert!(!layout.decode(&bytes[..at], store.get_mut(target)), "a row cut short");
        bytes[at] = byte;
        if layout.decode(&bytes, store.get_mut(target)) {
            layout.write_values(store.get(target), 1000, &mut Vec::new());
            layout.merge(store.get_mut(target), RowRef { words: &vec![0; layout.words()], extras: &layout.blank_extras() });
        }
        bytes.push(0);
        prop_assert!(!layout.decode(&bytes, store.get_mut(target)), "a byte too many");
    }
}

#[test]
fn aggregates_that_need_the_same_accumulator_share_it() {
    let mut layout = Layout::default();
    let source = |identity: &str, index| Source {
        identity: identity.to_owned(),
        index,
    };
    layout.push("a", &Function::Sum, &[source("/v", 0)]);
    layout.push("b", &Function::Average, &[source("/v", 0)]);
    layout.push("c", &Function::Sum, &[source("/w", 1)]);
    assert_eq!((layout.accumulators().len(), layout.words()), (2, 8));
    let stored = Layout::of_stored(&layout.accumulators());
    assert_eq!(stored.accumulators(), layout.accumulators());
    let mut other = Layout::default();
    other.push("c", &Function::Average, &[source("/w", 0)]);
    assert_eq!(other.shared_with(&stored), [(1, 0)]);
}
