//! Durations such as `500ms`, `5s`, `1m`, `2h`, `7d`. Must not read a clock.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ValueError;

/// A span of time: a whole number and one unit of `ms`, `s`, `m`, `h`, `d`. Written back in its largest whole unit,
/// so that `60s` and `1m` are the same value and the same text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Duration {
    ms: u64,
}

impl Duration {
    /// Pattern in the schema; what it accepts is exactly what [`FromStr`] accepts.
    pub const PATTERN: &'static str = "^[0-9]{1,9}(ms|s|m|h|d)$";
    /// What a duration looks like, for error messages.
    pub const EXPECTED: &'static str = "a duration such as 500ms, 5s, 1m, 2h or 7d";
    const UNITS: [(&'static str, u64); 5] = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];

    /// From milliseconds.
    pub const fn from_ms(ms: u64) -> Self {
        Self { ms }
    }

    /// Length in milliseconds; at most 10^9 days, so it fits an `i64`.
    pub const fn ms(self) -> u64 {
        self.ms
    }
}

impl FromStr for Duration {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = || ValueError {
            found: text.to_owned(),
            expected: Self::EXPECTED,
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        if number.is_empty() || number.len() > 9 {
            return Err(error());
        }
        let number: u64 = number.parse().map_err(|_| error())?;
        let factor = Self::UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(error)?.1;
        Ok(Self { ms: number * factor })
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ms == 0 {
            return out.write_str("0s");
        }
        let (unit, factor) = Self::UNITS
            .into_iter()
            .find(|(_, factor)| self.ms.is_multiple_of(*factor))
            .unwrap_or(("ms", 1));
        write!(out, "{}{unit}", self.ms / factor)
    }
}

impl TryFrom<String> for Duration {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

impl From<Duration> for String {
    fn from(duration: Duration) -> Self {
        duration.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read_and_written_in_its_largest_whole_unit() {
        for (text, ms, canonical) in [
            ("500ms", 500, "500ms"),
            ("5s", 5_000, "5s"),
            ("60s", 60_000, "1m"),
            ("90m", 5_400_000, "90m"),
            ("2h", 7_200_000, "2h"),
            ("7d", 604_800_000, "7d"),
            ("0ms", 0, "0s"),
            ("999999999d", 86_399_999_913_600_000, "999999999d"),
        ] {
            let duration: Duration = text.parse().unwrap();
            assert_eq!(
                (duration.ms(), duration.to_string().as_str()),
                (ms, canonical),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "5", "s", "-5s", "1.5s", "5 s", "1h30m", "5S", "1234567890s", "5us"] {
            assert!(text.parse::<Duration>().is_err(), "{text}");
        }
    }
}
