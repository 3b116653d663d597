//! The share of a partition's records that a task keeps while it sheds load, and which records these are. Which they are
//! is for ever: a replay under another version of the engine has to keep the same ones.
//! Must not hold: when the share changes, or what becomes of a record that is kept.

use serde::{Deserialize, Serialize};

use super::decimal;
use super::split_mix::split_mix;

/// The smallest share that decimals can say exactly; tasks keep more than that.
const HALVINGS_SHOWN_MAX: u8 = 12;

/// Halvings of which it is remembered until when they were in force.
pub const HALVINGS_REMEMBERED: usize = 9;
/// No event came while so little was kept.
const NEVER: i64 = i64::MIN;

/// A share of records: one half, so many times. Part of stored formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Share {
    /// How often all records were halved; 0: every record is kept.
    pub halvings: u8,
}

impl Share {
    /// Every record.
    pub const ALL: Self = Self { halvings: 0 };

    /// Whether nothing is shed.
    pub fn is_all(&self) -> bool {
        *self == Self::ALL
    }

    /// Whether it keeps the record at `offset` of `partition`. A smaller share keeps some of what a larger one keeps.
    #[inline]
    pub fn keeps(self, partition: u32, offset: i64) -> bool {
        self.is_all() || hash(partition, offset).leading_zeros() >= u32::from(self.halvings)
    }

    /// Half as much.
    pub fn halved(self) -> Self {
        Self {
            halvings: self.halvings.saturating_add(1),
        }
    }

    /// Twice as much, all at most.
    pub fn doubled(self) -> Self {
        Self {
            halvings: self.halvings.saturating_sub(1),
        }
    }

    /// The smaller of both.
    pub fn least(self, other: Self) -> Self {
        Self {
            halvings: self.halvings.max(other.halvings),
        }
    }

    /// Appends a comma and the member of a result that says it.
    pub fn write_member(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"keptShare\":");
        decimal::write(self.decimal(), out);
    }

    /// The share in units of 10^-12.
    pub fn decimal(self) -> i128 {
        decimal::ONE >> self.halvings.min(HALVINGS_SHOWN_MAX)
    }

    /// The share as a number, for people and gauges.
    pub fn as_f64(self) -> f64 {
        0.5f64.powi(i32::from(self.halvings))
    }
}

/// What a task has shed, as far as results have to say it. Nobody knows the times of records that were shed, so it goes by
/// those that were kept: what was shed before an event was not newer than it, by more than events are out of order. Part of
/// stored formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Shed {
    /// The share that is kept now.
    pub share: Share,
    /// The least that was kept since the last event that counted.
    before: Share,
    /// By number of halvings less one: how new what was shed may be where no more was kept, event time in ms.
    newest_ms: [i64; HALVINGS_REMEMBERED],
}

impl Default for Shed {
    fn default() -> Self {
        Self::NOTHING
    }
}

impl Shed {
    /// Nothing was ever shed.
    pub const NOTHING: Self = Self {
        share: Share::ALL,
        before: Share::ALL,
        newest_ms: [NEVER; HALVINGS_REMEMBERED],
    };

    /// Length of [`Self::to_bytes`].
    pub const BYTES: usize = 2 + 8 * HALVINGS_REMEMBERED;

    /// Whether nothing was ever shed.
    pub fn is_nothing(&self) -> bool {
        *self == Self::NOTHING
    }

    /// What two tasks have shed together.
    pub fn with(&self, other: &Self) -> Self {
        let mut both = *self;
        both.share = both.share.least(other.share);
        both.before = both.before.least(other.before);
        for (newest_ms, other_ms) in both.newest_ms.iter_mut().zip(other.newest_ms) {
            *newest_ms = other_ms.max(*newest_ms);
        }
        both
    }

    /// It in bytes: the halvings now and before, then the times, little-endian.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [self.share.halvings; Self::BYTES];
        bytes[1] = self.before.halvings;
        for (place, newest_ms) in bytes[2..].as_chunks_mut::<8>().0.iter_mut().zip(self.newest_ms) {
            *place = newest_ms.to_le_bytes();
        }
        bytes
    }

    /// What [`Self::to_bytes`] gave.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let mut shed = Self::NOTHING;
        (shed.share.halvings, shed.before.halvings) = (bytes[0], bytes[1]);
        for (newest_ms, place) in shed.newest_ms.iter_mut().zip(bytes[2..].as_chunks::<8>().0) {
            *newest_ms = i64::from_le_bytes(*place);
        }
        shed
    }

    /// From here on this share is kept.
    pub fn keep(&mut self, share: Share) {
        self.before = self.before.least(self.share);
        self.share = share;
    }

    /// An event counts; what came before it is not newer than this.
    #[inline]
    pub fn saw(&mut self, not_newer_ms: i64) {
        let least = self.share.least(self.before);
        if !least.is_all() {
            for newest_ms in self.newest_ms.iter_mut().take(usize::from(least.halvings)) {
                *newest_ms = not_newer_ms.max(*newest_ms);
            }
            self.before = self.share;
        }
    }

    /// The least share that was kept when there were events from `start_ms` on, and until now.
    pub fn least_since(&self, start_ms: i64) -> Share {
        let since = |newest_ms: &i64| *newest_ms != NEVER && *newest_ms >= start_ms;
        let halvings = self.newest_ms.iter().rposition(since).map_or(0, |index| index + 1);
        self.share.least(self.before).least(Share {
            halvings: u8::try_from(halvings).unwrap_or(u8::MAX),
        })
    }
}

/// SplitMix64 of the offset, mixed with that of the partition, so that partitions keep records at different offsets.
fn hash(partition: u32, offset: i64) -> u64 {
    split_mix(split_mix(u64::from(partition)) ^ offset as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_records_are_kept_is_for_ever() {
        // The reference implementation's first outputs for these seeds.
        assert_eq!(split_mix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(split_mix(1), 0x910a_2dec_8902_5cc1);
        let kept = |partition, halvings| -> Vec<i64> {
            let keeps = |offset: &i64| Share { halvings }.keeps(partition, *offset);
            (0..64).filter(keeps).collect()
        };
        assert_eq!(kept(0, 0).len(), 64);
        assert_eq!(kept(0, 3), [1, 4, 18, 25, 27, 43, 47, 54, 58]);
        assert_eq!(kept(7, 3), [12, 19, 30, 36, 41, 51, 63]);
    }

    #[test]
    fn a_smaller_share_keeps_some_of_what_a_larger_one_keeps_about_half() {
        for partition in [0, 1, 1_000] {
            let mut before: Vec<i64> = (0..100_000).collect();
            for halvings in 1..=9u8 {
                let share = Share { halvings };
                let kept: Vec<i64> = (0..100_000).filter(|offset| share.keeps(partition, *offset)).collect();
                assert!(kept.iter().all(|offset| before.binary_search(offset).is_ok()));
                let expected = 100_000.0 * share.as_f64();
                let off = (kept.len() as f64 - expected).abs();
                assert!(off < 5.0 * expected.sqrt(), "{partition} {halvings}: {}", kept.len());
                before = kept;
            }
        }
    }

    #[test]
    fn what_was_shed_is_remembered_until_windows_begin_behind_it() {
        let mut shed = Shed::NOTHING;
        shed.saw(1_000);
        assert!(shed.is_nothing() && shed.least_since(i64::MIN).is_all());
        shed.keep(Share { halvings: 2 });
        assert_eq!(shed.least_since(5_000).halvings, 2, "in force now");
        shed.saw(1_100);
        shed.keep(Share { halvings: 1 });
        assert_eq!(
            shed.least_since(5_000).halvings,
            2,
            "no event says how new what was shed is"
        );
        shed.saw(1_150);
        shed.saw(1_200);
        shed.keep(Share::ALL);
        shed.saw(1_250);
        shed.saw(9_000);
        for (start_ms, halvings) in [
            (i64::MIN, 2),
            (1_000, 2),
            (1_150, 2),
            (1_151, 1),
            (1_250, 1),
            (1_251, 0),
        ] {
            assert_eq!(shed.least_since(start_ms).halvings, halvings, "{start_ms}");
        }
        let text = serde_json::to_string(&shed).unwrap();
        assert_eq!(serde_json::from_str::<Shed>(&text).unwrap(), shed);
        assert_eq!(Shed::from_bytes(&shed.to_bytes()), shed);
        assert_eq!(Shed::NOTHING.with(&shed), shed);
        let mut other = Shed {
            share: Share { halvings: 1 },
            ..Shed::NOTHING
        };
        other.saw(1_500);
        let both = shed.with(&other);
        assert_eq!(
            (both.least_since(1_150).halvings, both.least_since(1_151).halvings),
            (2, 1)
        );
        assert_eq!(both.least_since(9_000).halvings, 1, "in force in one of them");
    }

    #[test]
    fn a_share_is_written_exactly() {
        let text = |halvings| {
            let mut out = Vec::new();
            decimal::write(Share { halvings }.decimal(), &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(0), "1");
        assert_eq!(text(2), "0.25");
        assert_eq!(text(9), "0.001953125");
        // What was damaged in a way that nobody noticed is still a number.
        assert_eq!(text(255), text(12));
        assert_eq!(Share::ALL.doubled(), Share::ALL);
        assert_eq!(Share { halvings: 255 }.halved(), Share { halvings: 255 });
        assert_eq!(Share { halvings: 3 }.as_f64(), 0.125);
    }
}
