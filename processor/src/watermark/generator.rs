//! The watermark strategies behind one enum: what one event lets the watermark of its partition be.
//! Must not hold: the watermark itself (the task keeps the maximum, so it never falls), or a clock.

use streamagg_crds::resolved::Watermark;

use super::bounded::BoundedOutOfOrderness;
use super::periodic::Periodic;
use crate::pipeline::position::NO_WATERMARK;

/// A watermark generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generator {
    /// The event time less a bound.
    Bounded(BoundedOutOfOrderness),
    /// The event time.
    Monotonic,
    /// The event's mark, if it carries one.
    Punctuated,
    /// The event time less a bound, floored to a step.
    Periodic(Periodic),
}

impl Generator {
    /// The generator of a strategy.
    pub fn new(strategy: &Watermark) -> Self {
        match strategy {
            Watermark::BoundedOutOfOrderness { bound_ms } => Self::Bounded(BoundedOutOfOrderness::new(*bound_ms)),
            Watermark::Monotonic => Self::Monotonic,
            Watermark::Punctuated { .. } => Self::Punctuated,
            Watermark::Periodic { bound_ms, step_ms } => Self::Periodic(Periodic::new(*bound_ms, *step_ms)),
        }
    }

    /// The watermark, in ms, that an event at `event_time_ms` with this `mark_ms` allows; [`NO_WATERMARK`] when it says
    /// nothing about it. Only punctuated marks are looked at.
    pub fn candidate(&self, event_time_ms: i64, mark_ms: Option<i64>) -> i64 {
        match self {
            Self::Bounded(bounded) => bounded.candidate(event_time_ms),
            Self::Monotonic => event_time_ms,
            Self::Punctuated => mark_ms.unwrap_or(NO_WATERMARK),
            Self::Periodic(periodic) => periodic.candidate(event_time_ms),
        }
    }

    /// The time of the earliest event that lets the watermark come to `watermark_ms`; absent where a mark has to say so.
    pub fn reached_by(&self, watermark_ms: i64) -> Option<i64> {
        match self {
            Self::Bounded(bounded) => Some(bounded.reached_by(watermark_ms)),
            Self::Monotonic => Some(watermark_ms),
            Self::Punctuated => None,
            Self::Periodic(periodic) => Some(periodic.reached_by(watermark_ms)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::timestamp::{EVENT_TIME_MAX_MS, EVENT_TIME_MIN_MS};

    const BOUND_MAX_MS: i64 = 999_999_999 * 86_400_000;

    #[test]
    fn each_strategy_allows_what_its_name_says() {
        let bounded = Generator::new(&Watermark::BoundedOutOfOrderness { bound_ms: 5 });
        let monotonic = Generator::new(&Watermark::Monotonic);
        let periodic = Generator::new(&Watermark::Periodic {
            bound_ms: 5,
            step_ms: 10,
        });
        let punctuated = Generator::Punctuated;
        for (generator, time, mark, expected) in [
            (bounded, 100, Some(7), 95),
            (bounded, -100, None, -105),
            (monotonic, 100, Some(7), 100),
            (monotonic, -1, None, -1),
            (periodic, 114, Some(7), 100),
            (periodic, 115, None, 110),
            (periodic, 5, None, 0),
            (periodic, 4, None, -10),
            (periodic, -6, None, -20),
            (punctuated, 100, Some(7), 7),
            (punctuated, 100, Some(700), 700),
            (punctuated, 100, None, NO_WATERMARK),
        ] {
            assert_eq!(generator.candidate(time, mark), expected, "{generator:?} at {time}");
        }
    }

    #[test]
    fn the_event_that_is_waited_for_is_the_first_that_suffices() {
        for generator in [
            Generator::new(&Watermark::BoundedOutOfOrderness { bound_ms: 5 }),
            Generator::new(&Watermark::Monotonic),
            Generator::new(&Watermark::Periodic {
                bound_ms: 5,
                step_ms: 10,
            }),
        ] {
            for watermark in -25..25 {
                let time = generator.reached_by(watermark).unwrap();
                assert!(
                    generator.candidate(time, None) >= watermark,
                    "{generator:?} {watermark}"
                );
                assert!(
                    generator.candidate(time - 1, None) < watermark,
                    "{generator:?} {watermark}"
                );
            }
        }
        assert_eq!(Generator::Punctuated.reached_by(5), None);
    }

    #[test]
    fn the_ends_of_time_and_the_longest_bound_fit() {
        for time in [EVENT_TIME_MIN_MS, EVENT_TIME_MAX_MS] {
            for bound_ms in [0, BOUND_MAX_MS] {
                let bounded = Generator::new(&Watermark::BoundedOutOfOrderness { bound_ms });
                assert_eq!(bounded.candidate(time, None), time - bound_ms);
                let periodic = Generator::new(&Watermark::Periodic {
                    bound_ms,
                    step_ms: BOUND_MAX_MS,
                });
                assert!(periodic.candidate(time, None) <= time - bound_ms);
            }
        }
    }
}
