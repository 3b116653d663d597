//! Strategies for windows of every kind with triggers and panes. Must not know the rest of a spec.

use proptest::prelude::*;
use proptest::sample::select;

use crate::oracle::{NO_WATERMARK, Panes, Repeat, Shape, Trigger, Window};

/// Offsets of zones without daylight saving, as `window` of a day may have: UTC, Asia/Kolkata, America/Phoenix.
pub const ZONES: [(&str, i64); 3] = [
    ("UTC", 0),
    ("Asia/Kolkata", 19_800_000),
    ("America/Phoenix", -25_200_000),
];

fn repeat() -> impl Strategy<Value = Repeat> {
    prop_oneof![
        3 => Just(Repeat::Events(1)),
        3 => (1..6usize).prop_map(Repeat::Events),
        1 => (1..400i64).prop_map(Repeat::Time),
    ]
}

fn trigger() -> impl Strategy<Value = (Trigger, Panes)> {
    let any = (
        prop::bool::weighted(0.8),
        prop::option::of(repeat()),
        repeat(),
        any::<bool>(),
        select(vec![Panes::Accumulating, Panes::Discarding, Panes::Retracting]),
    );
    let any = any.prop_map(|(on_time, early, late, closing, panes)| {
        let trigger = Trigger {
            on_time,
            early,
            late,
            closing,
        };
        (trigger, panes)
    });
    prop_oneof![Just((Trigger::default(), Panes::Accumulating)), any]
}

/// Any window, without a name.
pub(super) fn window() -> impl Strategy<Value = Window> {
    let size = prop_oneof![1..=60i64, 50..=400i64];
    let slide = prop_oneof![2 => Just(None), 2 => (1..=100i64).prop_map(Some)];
    let shape = prop_oneof![
        6 => Just(Shape::Sliding),
        2 => Just(Shape::Cumulative),
        5 => Just(Shape::Session),
        3 => Just(Shape::SessionByField),
        1 => Just(Shape::Day),
        1 => Just(Shape::Global),
        3 => Just(Shape::Count),
    ];
    let lateness = prop_oneof![Just(0), 0..200i64];
    (shape, size, slide, 0..1000i64, lateness, trigger()).prop_map(
        |(shape, size, slide, offset, lateness, (trigger, panes))| {
            let (size_ms, slide_ms, offset_ms) = match shape {
                Shape::Sliding => {
                    let slide = slide.unwrap_or(size).max(size / 20).max(1);
                    (size, slide, offset % slide)
                }
                Shape::Cumulative => {
                    let (step, steps) = (size, 1 + offset % 7);
                    (step * steps, step, offset % (step * steps))
                }
                // A gap, and at times a maximum that is not shorter.
                Shape::Session => {
                    let gap = size.min(90);
                    (slide.map_or(0, |more| gap + 3 * more), gap, 0)
                }
                Shape::SessionByField => (30 + size, 0, 0),
                Shape::Day => (0, 0, ZONES[offset as usize % ZONES.len()].1),
                Shape::Global => (0, 0, 0),
                // Numbers of events, small enough for several firings of a key.
                Shape::Count => (1 + size % 13, slide.map_or(1 + size % 13, |slide| 1 + slide % 9), 0),
            };
            let (trigger, panes) = match shape {
                Shape::Count => (Trigger::default(), Panes::Accumulating),
                _ => (trigger, panes),
            };
            Window {
                name: String::new(),
                shape,
                size_ms,
                slide_ms,
                offset_ms,
                lateness_ms: if matches!(shape, Shape::Global | Shape::Count) {
                    0
                } else {
                    lateness
                },
                closed_ms: NO_WATERMARK,
                trigger,
                panes,
            }
        },
    )
}
