//! Points in time as RFC 3339 text. Must not read a clock.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ValueError;

/// A point in time in RFC 3339 with a zone, such as `2026-01-01T00:00:00Z`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Instant {
    text: String,
    ms: i64,
}

impl Instant {
    /// Pattern in the schema; [`FromStr`] also checks that the day exists.
    pub const PATTERN: &'static str =
        "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$";
    /// What an instant looks like, for error messages.
    pub const EXPECTED: &'static str = "an RFC 3339 time with a zone such as 2026-01-01T00:00:00Z";

    /// Milliseconds since the Unix epoch, floored.
    pub fn ms(&self) -> i64 {
        self.ms
    }
}

impl FromStr for Instant {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = || ValueError {
            found: text.to_owned(),
            expected: Self::EXPECTED,
        };
        if text.as_bytes().get(10) != Some(&b'T') {
            return Err(error());
        }
        let timestamp: jiff::Timestamp = text.parse().map_err(|_| error())?;
        let ms = timestamp.as_nanosecond().div_euclid(1_000_000);
        Ok(Self {
            text: text.to_owned(),
            ms: i64::try_from(ms).map_err(|_| error())?,
        })
    }
}

impl TryFrom<String> for Instant {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

impl From<Instant> for String {
    fn from(instant: Instant) -> Self {
        instant.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_with_a_zone_is_milliseconds_since_the_epoch() {
        assert_eq!(
            "2026-01-01T00:00:00Z".parse::<Instant>().unwrap().ms(),
            1_767_225_600_000
        );
        assert_eq!(
            "2026-01-01T01:00:00.0019+01:00".parse::<Instant>().unwrap().ms(),
            1_767_225_600_001
        );
        assert_eq!("1969-12-31T23:59:59.9999Z".parse::<Instant>().unwrap().ms(), -1);
    }

    #[test]
    fn a_time_without_zone_or_that_does_not_exist_is_refused() {
        for text in [
            "2026-01-01T00:00:00",
            "2026-02-30T00:00:00Z",
            "2026-01-01",
            "2026-01-01 00:00:00Z",
            "now",
        ] {
            assert!(text.parse::<Instant>().is_err(), "{text}");
        }
    }
}
