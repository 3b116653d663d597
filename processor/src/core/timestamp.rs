//! Event time: milliseconds since the Unix epoch, read from a field of an event.
//! Must not hold: a clock. Processing time comes in as an argument where it is needed.

use super::decimal::{self, NumberError};
use super::json::{Kind, Slot};
use crate::error::RejectReason;

/// 0000-01-01T00:00:00Z.
pub const EVENT_TIME_MIN_MS: i64 = -62_167_219_200_000;
/// 9999-12-31T23:59:59.999Z.
pub const EVENT_TIME_MAX_MS: i64 = 253_402_300_799_999;

/// How a timestamp field is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Text as of RFC 3339, any zone.
    Rfc3339,
    /// Number of seconds since the epoch.
    Seconds,
    /// Number of milliseconds since the epoch.
    Milliseconds,
    /// Number of microseconds since the epoch.
    Microseconds,
    /// Number of nanoseconds since the epoch.
    Nanoseconds,
}

/// Reads an event time; a fraction of a millisecond is floored, also before 1970.
///
/// # Errors
/// The reason for which the event is rejected.
pub fn read(unit: Unit, slot: Slot, document: &[u8]) -> Result<i64, RejectReason> {
    let text = slot.text(document);
    let power = match (unit, slot.kind) {
        (_, Kind::Missing | Kind::Null) => return Err(RejectReason::TimestampMissing),
        (Unit::Rfc3339, Kind::String) => {
            return in_range(i128::from(parse_rfc3339(text).ok_or(RejectReason::TimestampInvalid)?));
        }
        (Unit::Rfc3339, _) => return Err(RejectReason::TimestampInvalid),
        (Unit::Seconds, Kind::Number) => 3,
        (Unit::Milliseconds, Kind::Number) => 0,
        (Unit::Microseconds, Kind::Number) => -3,
        (Unit::Nanoseconds, Kind::Number) => -6,
        (Unit::Seconds | Unit::Milliseconds | Unit::Microseconds | Unit::Nanoseconds, _) => {
            return Err(RejectReason::TimestampInvalid);
        }
    };
    match decimal::parse_floor(text, power) {
        Ok(value) => in_range(value),
        Err(NumberError::Malformed) => Err(RejectReason::JsonInvalid),
        Err(NumberError::OutOfRange) => Err(RejectReason::TimestampOutOfRange),
    }
}

/// The event time of a record's own timestamp.
///
/// # Errors
/// The reason for which the event is rejected.
pub fn of_record(timestamp_ms: Option<i64>) -> Result<i64, RejectReason> {
    in_range(i128::from(timestamp_ms.ok_or(RejectReason::TimestampMissing)?))
}

fn in_range(ms: i128) -> Result<i64, RejectReason> {
    i64::try_from(ms)
        .ok()
        .filter(|ms| (EVENT_TIME_MIN_MS..=EVENT_TIME_MAX_MS).contains(ms))
        .ok_or(RejectReason::TimestampOutOfRange)
}

/// Parses `YYYY-MM-DDThh:mm:ss[.fraction](Z|±hh:mm)` (RFC 3339) to milliseconds; a leap second counts as the first
/// moment of the next minute.
pub fn parse_rfc3339(text: &[u8]) -> Option<i64> {
    let separators = text.len() >= 20
        && text[4] == b'-'
        && text[7] == b'-'
        && matches!(text[10], b'T' | b't' | b' ')
        && text[13] == b':'
        && text[16] == b':';
    if !separators {
        return None;
    }
    let (year, month, day) = (number(&text[0..4])?, number(&text[5..7])?, number(&text[8..10])?);
    let (hour, minute, second) = (number(&text[11..13])?, number(&text[14..16])?, number(&text[17..19])?);
    let valid = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && (second < 60 || (second == 60 && minute == 59));
    if !valid {
        return None;
    }
    let (millis, zone) = fraction(&text[19..])?;
    let offset_minutes = zone_offset_minutes(zone)?;
    let minutes = (days_from_civil(year, month, day) * 24 + hour) * 60 + minute - offset_minutes;
    Some((minutes * 60 + second) * 1000 + millis)
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0i64, |sum, digit| {
        digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0'))
    })
}

/// Milliseconds of an optional `.fraction` (floored) and what follows it.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some((b'.', rest)) = text.split_first() else {
        return Some((0, text));
    };
    let len = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if len == 0 {
        return None;
    }
    let millis = (0..3).fold(0, |sum, place| {
        sum * 10 + rest[..len].get(place).map_or(0, |digit| i64::from(digit - b'0'))
    });
    Some((millis, &rest[len..]))
}

fn zone_offset_minutes(zone: &[u8]) -> Option<i64> {
    match zone {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
            let offset = hours * 60 + minutes;
            (hours < 24 && minutes < 60).then_some(if *sign == b'-' { -offset } else { offset })
        }
        _ => None,
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar (Howard Hinnant, "chrono-compatible date algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::json::FieldTree;

    fn read_value(unit: Unit, value: &str) -> Result<i64, RejectReason> {
        let document = format!("{{\"ts\":{value}}}");
        let mut tree = FieldTree::new(false);
        let slot = tree.add("/ts");
        let mut slots = vec![Slot::MISSING; 1];
        tree.extract(document.as_bytes(), &mut slots).unwrap();
        read(unit, slots[slot], document.as_bytes())
    }

    #[test]
    fn rfc_3339_is_read_with_zones_fractions_and_before_1970() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2023-11-16T18:15:46.6805900Z", 1_700_158_546_680),
            ("2023-11-16T19:15:46.68+01:00", 1_700_158_546_680),
            ("2023-11-16T13:45:46-04:30", 1_700_158_546_000),
            ("1969-12-31T23:59:59.999Z", -1),
            ("1969-12-31T23:59:59.9999Z", -1),
            ("2024-02-29T00:00:00z", 1_709_164_800_000),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000),
            ("0000-01-01T00:00:00Z", EVENT_TIME_MIN_MS),
            ("9999-12-31T23:59:59.999999Z", EVENT_TIME_MAX_MS),
            ("2000-03-01 00:00:00Z", 951_868_800_000),
        ] {
            assert_eq!(
                read_value(Unit::Rfc3339, &format!("\"{text}\"")),
                Ok(expected),
                "{text}"
            );
        }
        for text in [
            "",
            "2023-11-16",
            "2023-11-16T18:15:46",
            "2023-13-16T18:15:46Z",
            "2023-02-29T00:00:00Z",
            "2023-11-16T24:00:00Z",
            "2023-11-16T18:60:00Z",
            "2023-11-16T18:15:60Z",
            "2023-11-16T18:15:46.Z",
            "2023-11-16T18:15:46+0100",
            "2023-11-16T18:15:46ZZ",
            "2023-11-16T18:15:46+24:00",
            "20231116T181546Z0000",
            "x023-11-16T18:15:46Z",
        ] {
            assert_eq!(
                read_value(Unit::Rfc3339, &format!("\"{text}\"")),
                Err(RejectReason::TimestampInvalid),
                "{text}"
            );
        }
    }

    #[test]
    fn numeric_units_take_numbers_only_and_floor() {
        for (unit, value, expected) in [
            (Unit::Seconds, "1700000000.9999", 1_700_000_000_999),
            (Unit::Seconds, "-0.0001", -1),
            (Unit::Milliseconds, "1700000000123", 1_700_000_000_123),
            (Unit::Milliseconds, "1.5", 1),
            (Unit::Milliseconds, "1e3", 1000),
            (Unit::Microseconds, "1700000000123456", 1_700_000_000_123),
            (Unit::Nanoseconds, "-1", -1),
            (Unit::Nanoseconds, "1700000000123456789", 1_700_000_000_123),
        ] {
            assert_eq!(read_value(unit, value), Ok(expected), "{value}");
        }
        for (unit, value, reason) in [
            (Unit::Seconds, "\"1\"", RejectReason::TimestampInvalid),
            (Unit::Seconds, "true", RejectReason::TimestampInvalid),
            (Unit::Rfc3339, "1", RejectReason::TimestampInvalid),
            (Unit::Seconds, "null", RejectReason::TimestampMissing),
            (Unit::Seconds, "1e12", RejectReason::TimestampOutOfRange),
            (Unit::Seconds, "1e400", RejectReason::TimestampOutOfRange),
            (Unit::Milliseconds, "253402300800000", RejectReason::TimestampOutOfRange),
            (Unit::Seconds, "1-2", RejectReason::JsonInvalid),
        ] {
            assert_eq!(read_value(unit, value), Err(reason), "{value}");
        }
    }
}
