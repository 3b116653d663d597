//! Sessions: how far an event reaches and what it joins. Must not hold: which sessions there are.

/// The rule of a session window: events at most a gap apart are one session; nothing joins across a multiple of
/// `max_duration_ms` since the epoch. Where each event has a gap of its own, it reaches as far as that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRule {
    /// Where gaps come from.
    pub gap: GapSource,
    /// Not below any gap.
    pub max_duration_ms: Option<i64>,
}

/// Where the gap of an event comes from; gaps are above 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapSource {
    /// All have this one, ms.
    Fixed(i64),
    /// From a field of the event, by its slot.
    Field {
        /// The slot.
        slot: usize,
        /// The longest gap that is taken, ms.
        most_ms: i64,
    },
}

impl SessionRule {
    /// The longest gap that an event can have, ms.
    pub fn longest_gap_ms(&self) -> i64 {
        match self.gap {
            GapSource::Fixed(gap_ms) | GapSource::Field { most_ms: gap_ms, .. } => gap_ms,
        }
    }

    /// The session of an event alone: from its time to its time and the gap, or to the next multiple of the maximum.
    pub fn span_of(&self, time_ms: i64, gap_ms: i64) -> (i64, i64) {
        let end = time_ms.saturating_add(gap_ms);
        let end = match self.max_duration_ms {
            Some(most) => end.min((time_ms - time_ms.rem_euclid(most)).saturating_add(most)),
            None => end,
        };
        (time_ms, end)
    }

    /// Whether two sessions, `[start, end)` in ms, are one: each begins before the other has ended, or at its end.
    pub fn joins(&self, one: (i64, i64), other: (i64, i64)) -> bool {
        let same_stretch = self
            .max_duration_ms
            .is_none_or(|most| one.0.div_euclid(most) == other.0.div_euclid(most));
        same_stretch && one.0 <= other.1 && one.1 >= other.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_exactly_a_gap_apart_are_one_session_and_one_ms_more_are_two() {
        let rule = SessionRule {
            gap: GapSource::Fixed(10),
            max_duration_ms: None,
        };
        assert_eq!((rule.span_of(5, 10), rule.longest_gap_ms()), ((5, 15), 10));
        let joins = |time_ms| rule.joins(rule.span_of(time_ms, 10), (5, 15));
        assert!(joins(15) && !joins(16));
        assert!(joins(-5) && !joins(-6));
    }

    #[test]
    fn nothing_joins_across_a_multiple_of_the_maximum() {
        let rule = SessionRule {
            gap: GapSource::Field { slot: 0, most_ms: 100 },
            max_duration_ms: Some(100),
        };
        assert_eq!(rule.longest_gap_ms(), 100);
        assert_eq!(rule.span_of(95, 10), (95, 100));
        assert_eq!(rule.span_of(-5, 100), (-5, 0));
        let joins = |time_ms, other| rule.joins(rule.span_of(time_ms, 10), other);
        assert!(!joins(100, (95, 100)));
        assert!(joins(99, (95, 100)));
        assert!(!joins(99, (100, 110)));
    }
}
