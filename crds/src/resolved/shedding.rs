//! Load shedding: the share as halvings. Must not say when it changes.

use crate::v1alpha1::LoadSheddingSpec;

/// When a task that is behind reads records without looking at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadShedding {
    /// How far behind, in ms, is too far.
    pub when_behind_ms: i64,
    /// How often the share of records kept is halved at most; at least 1.
    pub halvings_max: u8,
}

impl LoadShedding {
    /// Most halvings that a manifest can ask for: `keepAtLeast` is 0.001 or more.
    pub const HALVINGS_MAX: u8 = 9;
}

pub(super) fn load_shedding(spec: &LoadSheddingSpec) -> Option<LoadShedding> {
    Some(LoadShedding {
        when_behind_ms: super::ms(spec.when_behind)?,
        halvings_max: halvings(spec.keep_at_least),
    })
}

/// How often one can be halved without coming below `at_least`.
fn halvings(at_least: f64) -> u8 {
    let fits = |halvings: &u8| 0.5f64.powi(i32::from(*halvings)) >= at_least;
    (1..=LoadShedding::HALVINGS_MAX).take_while(fits).last().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::halvings;

    #[test]
    fn a_share_is_halved_as_long_as_it_does_not_come_below_the_least() {
        for (at_least, expected) in [(0.5, 1), (0.3, 1), (0.25, 2), (0.1, 3), (0.002, 8), (0.001, 9)] {
            assert_eq!(halvings(at_least), expected, "{at_least}");
        }
    }
}
