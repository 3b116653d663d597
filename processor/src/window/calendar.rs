//! Windows of the calendar: days, weeks (from Monday) and months of a time zone, daylight saving included.
//! Must not look at the system's time zones: the database is compiled in.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use streamagg_crds::v1alpha1::CalendarUnit;

/// Days, weeks or months of a time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    unit: CalendarUnit,
    zone: TimeZone,
}

impl Calendar {
    /// In this time zone.
    pub fn new(unit: CalendarUnit, zone: TimeZone) -> Self {
        Self { unit, zone }
    }

    /// Start and end of the window that covers `time_ms`. Beyond the years that a calendar knows (−9999 to 9999) it is
    /// what is left of time.
    pub fn span_of(&self, time_ms: i64) -> (i64, i64) {
        let Ok(timestamp) = Timestamp::from_millisecond(time_ms) else {
            return if time_ms < 0 {
                (i64::MIN + 1, first_ms())
            } else {
                (last_ms() + 1, i64::MAX - 1)
            };
        };
        let day = self.zone.to_datetime(timestamp).date();
        let first = match self.unit {
            CalendarUnit::Day => Some(day),
            CalendarUnit::Week => day
                .checked_sub(i64::from(day.weekday().to_monday_zero_offset()).days())
                .ok(),
            CalendarUnit::Month => Some(day.first_of_month()),
        };
        let step = match self.unit {
            CalendarUnit::Day => 1.day(),
            CalendarUnit::Week => 1.week(),
            CalendarUnit::Month => 1.month(),
        };
        let start = first.and_then(|first| self.start_of_day(first));
        let next = first.and_then(|first| first.checked_add(step).ok());
        let end = next.and_then(|next| self.start_of_day(next));
        (start.unwrap_or(first_ms()), end.unwrap_or(last_ms() + 1))
    }

    /// Unit and zone, for the layout document of the state.
    pub fn description(&self) -> String {
        format!("{:?} {}", self.unit, self.zone.iana_name().unwrap_or("UTC"))
    }

    /// The first moment of a day: behind the gap where midnight is skipped, the first where it comes twice.
    fn start_of_day(&self, day: Date) -> Option<i64> {
        let zoned = day.to_zoned(self.zone.clone()).ok()?;
        Some(zoned.start_of_day().ok()?.timestamp().as_millisecond())
    }
}

/// First time that the calendar knows, in whole seconds.
fn first_ms() -> i64 {
    Timestamp::MIN.as_second() * 1000
}

/// Last time that the calendar knows, in whole seconds.
fn last_ms() -> i64 {
    Timestamp::MAX.as_second() * 1000
}

#[cfg(test)]
mod tests {
    use streamagg_crds::value::time_zone;

    use super::*;

    fn span(unit: CalendarUnit, zone: &str, time: &str) -> (String, String, i64) {
        let calendar = Calendar::new(unit, time_zone(zone).unwrap());
        let time: Timestamp = time.parse().unwrap();
        let (start, end) = calendar.span_of(time.as_millisecond());
        let text = |ms| Timestamp::from_millisecond(ms).unwrap().to_string();
        (text(start), text(end), (end - start) / 3_600_000)
    }

    fn expected(start: &str, end: &str, hours: i64) -> (String, String, i64) {
        (start.to_owned(), end.to_owned(), hours)
    }

    #[test]
    fn days_have_23_and_25_hours_where_the_clock_is_changed() {
        let day = |time| span(CalendarUnit::Day, "Europe/Berlin", time);
        let spring = expected("2024-03-30T23:00:00Z", "2024-03-31T22:00:00Z", 23);
        assert_eq!(day("2024-03-30T23:00:00Z"), spring);
        assert_eq!(day("2024-03-31T21:59:59.999Z"), spring);
        assert_eq!(
            day("2024-10-27T12:00:00Z"),
            expected("2024-10-26T22:00:00Z", "2024-10-27T23:00:00Z", 25)
        );
        assert_eq!(
            day("1969-12-31T22:59:59.999Z"),
            expected("1969-12-30T23:00:00Z", "1969-12-31T23:00:00Z", 24)
        );
    }

    #[test]
    fn a_day_whose_midnight_is_skipped_begins_behind_the_gap() {
        // In Beirut the clock goes from 00:00 to 01:00 at the end of March.
        assert_eq!(
            span(CalendarUnit::Day, "Asia/Beirut", "2022-03-27T05:00:00Z"),
            expected("2022-03-26T22:00:00Z", "2022-03-27T21:00:00Z", 23)
        );
    }

    #[test]
    fn weeks_begin_on_monday_and_months_on_the_first() {
        assert_eq!(
            span(CalendarUnit::Week, "UTC", "2024-03-03T23:00:00Z"),
            expected("2024-02-26T00:00:00Z", "2024-03-04T00:00:00Z", 168)
        );
        assert_eq!(
            span(CalendarUnit::Month, "America/New_York", "2024-03-01T04:59:59Z"),
            expected("2024-02-01T05:00:00Z", "2024-03-01T05:00:00Z", 29 * 24)
        );
    }

    #[test]
    fn every_time_is_covered_by_its_window_at_the_ends_of_the_calendar_too() {
        for unit in [CalendarUnit::Day, CalendarUnit::Week, CalendarUnit::Month] {
            let calendar = Calendar::new(unit, time_zone("Pacific/Apia").unwrap());
            for time in [
                -400_000_000_000_000,
                Timestamp::MIN.as_millisecond(),
                -62_167_219_200_000,
                0,
                253_402_300_799_999,
                Timestamp::MAX.as_millisecond(),
                400_000_000_000_000,
            ] {
                let (start, end) = calendar.span_of(time);
                assert!(start <= time && time < end, "{unit:?} {time}: {start} {end}");
            }
        }
    }
}
