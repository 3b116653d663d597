//! Sessions: how far an event reaches and what it joins. Must not hold: which sessions there are.

/// The rule of a session window: events at most `gap_ms` apart are one session; nothing joins across a multiple of
/// `max_duration_ms` since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRule {
    /// Above 0.
    pub gap_ms: i64,
    /// Not below the gap.
    pub max_duration_ms: Option<i64>,
}

impl SessionRule {
    /// The session of an event alone: from its time to its time and the gap, or to the next multiple of the maximum.
    pub fn span_of(&self, time_ms: i64) -> (i64, i64) {
        let end = time_ms.saturating_add(self.gap_ms);
        let end = match self.max_duration_ms {
            Some(most) => end.min((time_ms - time_ms.rem_euclid(most)).saturating_add(most)),
            None => end,
        };
        (time_ms, end)
    }

    /// Whether an event at `time_ms` belongs to the session `[start_ms, end_ms)`.
    pub fn joins(&self, time_ms: i64, (start_ms, end_ms): (i64, i64)) -> bool {
        let same_stretch = self
            .max_duration_ms
            .is_none_or(|most| time_ms.div_euclid(most) == start_ms.div_euclid(most));
        same_stretch && time_ms <= end_ms && time_ms.saturating_add(self.gap_ms) >= start_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_exactly_a_gap_apart_are_one_session_and_one_ms_more_are_two() {
        let rule = SessionRule {
            gap_ms: 10,
            max_duration_ms: None,
        };
        assert_eq!(rule.span_of(5), (5, 15));
        assert!(rule.joins(15, (5, 15)) && !rule.joins(16, (5, 15)));
        assert!(rule.joins(-5, (5, 15)) && !rule.joins(-6, (5, 15)));
    }

    #[test]
    fn nothing_joins_across_a_multiple_of_the_maximum() {
        let rule = SessionRule {
            gap_ms: 10,
            max_duration_ms: Some(100),
        };
        assert_eq!(rule.span_of(95), (95, 100));
        assert_eq!(rule.span_of(-5), (-5, 0));
        assert!(!rule.joins(100, (95, 100)));
        assert!(rule.joins(99, (95, 100)));
        assert!(!rule.joins(99, (100, 110)));
    }
}
