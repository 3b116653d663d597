//! Aligned windows (tumbling, sliding, cumulative): window arithmetic on an endless grid, before 1970 too.
//! Must not hold: state; which windows are open is the task's business.

/// Windows `[k · slide + offset, k · slide + offset + size)`, a tumbling one sliding by its size; or cumulative ones,
/// `[k · size + offset, k · size + offset + n · slide)` for every `n · slide ≤ size`. A window is known by its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aligned {
    size_ms: i64,
    slide_ms: i64,
    offset_ms: i64,
    is_cumulative: bool,
}

impl Aligned {
    /// A tumbling window. `size_ms` is above 0.
    pub fn tumbling(size_ms: i64, offset_ms: i64) -> Self {
        Self::sliding(size_ms, size_ms, offset_ms)
    }

    /// A sliding window; with `slide_ms` above `size_ms` there are gaps that no window covers. Both are above 0.
    pub fn sliding(size_ms: i64, slide_ms: i64, offset_ms: i64) -> Self {
        debug_assert!(size_ms > 0 && slide_ms > 0, "window sizes are validated");
        Self {
            size_ms,
            slide_ms,
            offset_ms: offset_ms.rem_euclid(slide_ms),
            is_cumulative: false,
        }
    }

    /// Windows that grow by `step_ms` up to `size_ms`, a multiple of it. Both are above 0.
    pub fn cumulative(size_ms: i64, step_ms: i64, offset_ms: i64) -> Self {
        debug_assert!(step_ms > 0 && size_ms % step_ms == 0, "window sizes are validated");
        Self {
            size_ms,
            slide_ms: step_ms,
            offset_ms: offset_ms.rem_euclid(size_ms),
            is_cumulative: true,
        }
    }

    /// Length of the longest window.
    pub fn size_ms(&self) -> i64 {
        self.size_ms
    }

    /// Distance from one window's end to the next.
    pub fn slide_ms(&self) -> i64 {
        self.slide_ms
    }

    /// Shift of the starts from the epoch, below their distance.
    pub fn offset_ms(&self) -> i64 {
        self.offset_ms
    }

    /// Whether windows share their start.
    pub fn is_cumulative(&self) -> bool {
        self.is_cumulative
    }

    /// Whether some times lie in no window.
    pub fn has_gaps(&self) -> bool {
        self.slide_ms > self.size_ms
    }

    /// Width and offset of the widest panes such that every window is a whole number of panes.
    pub fn pane_grid(&self) -> (i64, i64) {
        let width = greatest_common_divisor(self.size_ms, self.slide_ms);
        (width, self.offset_ms.rem_euclid(width))
    }

    /// Start of the latest window that starts at or before `time_ms`.
    fn last_start(&self, time_ms: i64) -> i64 {
        let distance = if self.is_cumulative {
            self.size_ms
        } else {
            self.slide_ms
        };
        time_ms - (time_ms - self.offset_ms).rem_euclid(distance)
    }

    /// Start of the window that ends at `end_ms`.
    pub fn start_of(&self, end_ms: i64) -> i64 {
        if self.is_cumulative {
            self.last_start(end_ms - 1)
        } else {
            end_ms - self.size_ms
        }
    }

    /// Ends of the windows that contain the pane `[start_ms, start_ms + width_ms)`, descending.
    pub fn ends_of_pane(&self, start_ms: i64, width_ms: i64) -> impl Iterator<Item = i64> + use<> {
        let slide = self.slide_ms;
        let last = self.last_start(start_ms) + self.size_ms;
        std::iter::successors(Some(last), move |end| Some(end - slide))
            .take_while(move |end| *end >= start_ms + width_ms)
    }

    /// Latest end of a window that contains the pane.
    pub fn last_end_of_pane(&self, start_ms: i64, width_ms: i64) -> Option<i64> {
        let end = self.last_start(start_ms) + self.size_ms;
        (end >= start_ms + width_ms).then_some(end)
    }

    /// Latest end at or before `until_ms` of a window that contains the pane.
    pub fn last_end_of_pane_until(&self, start_ms: i64, width_ms: i64, until_ms: i64) -> Option<i64> {
        let last = self.last_end_of_pane(start_ms, width_ms)?;
        let first = self.first_end_of_pane_above(start_ms, width_ms, i64::MIN)?;
        if until_ms < first {
            return None;
        }
        Some(first + (until_ms.min(last) - first) / self.slide_ms * self.slide_ms)
    }

    /// Earliest end above `above_ms` of a window that contains the pane.
    pub fn first_end_of_pane_above(&self, start_ms: i64, width_ms: i64, above_ms: i64) -> Option<i64> {
        let last = self.last_end_of_pane(start_ms, width_ms)?;
        let floor = above_ms.saturating_add(1).max(start_ms + width_ms);
        if last < floor {
            return None;
        }
        Some(last - (last - floor) / self.slide_ms * self.slide_ms)
    }
}

/// Greatest common divisor of two numbers that are not both 0 (Euclid).
pub fn greatest_common_divisor(mut a: i64, mut b: i64) -> i64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a.abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tumbling_windows_partition_time() {
        let minute = Aligned::tumbling(60_000, 0);
        assert_eq!(minute.pane_grid(), (60_000, 0));
        assert_eq!(minute.ends_of_pane(-60_000, 60_000).collect::<Vec<_>>(), [0]);
        assert_eq!(Aligned::tumbling(10, -3).pane_grid(), (10, 7));
    }

    proptest! {
        #[test]
        fn the_ends_of_a_pane_are_those_of_the_windows_that_cover_it(
            size in 1i64..200, slide in 1i64..200, offset in -300i64..300, time in -5_000i64..5_000, above in -5_000i64..5_000,
        ) {
            let window = Aligned::sliding(size, slide, offset);
            let (width, origin) = window.pane_grid();
            let pane = time - (time - origin).rem_euclid(width);
            let mut naive: Vec<i64> = (-6_000..6_000)
                .filter(|start| (start - offset).rem_euclid(slide) == 0)
                .filter(|start| *start <= time && time < start + size)
                .map(|start| start + size)
                .collect();
            naive.reverse();
            prop_assert_eq!(window.ends_of_pane(pane, width).collect::<Vec<_>>(), naive.clone());
            prop_assert_eq!(window.last_end_of_pane(pane, width), naive.first().copied());
            let first = naive.iter().rev().copied().find(|end| *end > above);
            prop_assert_eq!(window.first_end_of_pane_above(pane, width, above), first);
            let last = naive.iter().copied().find(|end| *end <= above);
            prop_assert_eq!(window.last_end_of_pane_until(pane, width, above), last);
        }

        #[test]
        fn cumulative_windows_of_a_pane_begin_with_its_size_and_end_at_every_step_behind_it(
            steps in 1i64..30, step in 1i64..50, offset in -300i64..300, time in -5_000i64..5_000, above in -5_000i64..5_000,
        ) {
            let size = steps * step;
            let window = Aligned::cumulative(size, step, offset);
            let (width, origin) = window.pane_grid();
            let pane = time - (time - origin).rem_euclid(width);
            let base = (-8_000..8_000).filter(|start| (start - offset).rem_euclid(size) == 0).filter(|start| *start <= time).max().unwrap();
            let mut naive: Vec<i64> = (1..=steps).map(|n| base + n * step).filter(|end| *end > time).collect();
            naive.reverse();
            prop_assert_eq!(window.ends_of_pane(pane, width).collect::<Vec<_>>(), naive.clone());
            prop_assert_eq!(window.last_end_of_pane(pane, width), naive.first().copied());
            let first = naive.iter().rev().copied().find(|end| *end > above);
            prop_assert_eq!(window.first_end_of_pane_above(pane, width, above), first);
            let last = naive.iter().copied().find(|end| *end <= above);
            prop_assert_eq!(window.last_end_of_pane_until(pane, width, above), last);
            prop_assert!(naive.iter().all(|end| window.start_of(*end) == base));
        }
    }
}
