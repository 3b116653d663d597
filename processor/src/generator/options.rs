//! What traffic to make, read from `events=N,rate=R,…`. Must not draw anything.

use std::str::FromStr;

use streamagg_crds::value::Instant;

/// 2026-01-01T00:00:00Z, so that a run without options is the same on every day.
const START_MS_DEFAULT: i64 = 1_767_225_600_000;
/// Users behind a tenant when `keys` is not given.
const KEYS_PER_TENANT: u64 = 20;

/// Options of the generator. `Display` of an error names the option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Number of events; 0 = without end.
    pub events: u64,
    /// Events a second of event time.
    pub rate: u64,
    /// Seed of every random draw.
    pub seed: u64,
    /// Distinct values of `/tenant`.
    pub tenants: u64,
    /// Distinct values of `/model`.
    pub models: u64,
    /// Distinct values of `/user`; `None` = 20 a tenant.
    pub keys: Option<u64>,
    /// Events arrive up to this many milliseconds after their event time.
    pub disorder_ms: u64,
    /// Share of events that arrive 5 to 10 minutes late, in millionths.
    pub late_per_million: u64,
    /// Share of events that are broken, in millionths.
    pub bad_per_million: u64,
    /// Share of all events that have the first user (and tenant) as their key, in millionths.
    pub hot_per_million: u64,
    /// Event time of the first event, ms since the epoch.
    pub start_ms: i64,
    /// Whether `start` was given; a live run without it starts now.
    pub start_given: bool,
    /// Whether the runner holds events back until their time has come.
    pub live: bool,
}

impl Options {
    /// Every option, for help and error messages.
    pub const HELP: &'static str = "events=N (0: without end), rate=N events a second of event time, seed=N, \
        tenants=N, models=N, keys=N (users), disorder=MS, late=SHARE, bad=SHARE, hot=SHARE, start=RFC3339, live=true";

    /// Number of distinct users.
    pub fn keys(&self) -> u64 {
        self.keys.unwrap_or(self.tenants * KEYS_PER_TENANT)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), OptionsError> {
        match name {
            "events" => self.events = number(name, value, 0, u64::MAX)?,
            "rate" => self.rate = number(name, value, 1, 1_000_000_000)?,
            "seed" => self.seed = number(name, value, 0, u64::MAX)?,
            "tenants" => self.tenants = number(name, value, 1, 10_000_000)?,
            "models" => self.models = number(name, value, 1, 10_000)?,
            "keys" => self.keys = Some(number(name, value, 1, 1_000_000_000)?),
            "disorder" => self.disorder_ms = number(name, value, 0, 86_400_000)?,
            "late" => self.late_per_million = share(name, value)?,
            "bad" => self.bad_per_million = share(name, value)?,
            "hot" => self.hot_per_million = share(name, value)?,
            "start" => {
                let instant: Instant = value
                    .parse()
                    .map_err(|_| OptionsError::value(name, value, Instant::EXPECTED))?;
                (self.start_ms, self.start_given) = (instant.ms(), true);
            }
            "live" => {
                self.live = value
                    .parse()
                    .map_err(|_| OptionsError::value(name, value, "true or false"))?;
            }
            _ => return Err(OptionsError::Unknown { name: name.to_owned() }),
        }
        Ok(())
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            events: 200_000,
            rate: 1_000,
            seed: 1,
            tenants: 12,
            models: 6,
            keys: None,
            disorder_ms: 0,
            late_per_million: 0,
            bad_per_million: 0,
            hot_per_million: 0,
            start_ms: START_MS_DEFAULT,
            start_given: false,
            live: false,
        }
    }
}

impl FromStr for Options {
    type Err = OptionsError;

    /// Reads `name=value,…`; the empty text is the default.
    fn from_str(text: &str) -> Result<Self, OptionsError> {
        let mut options = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, value) = part
                .split_once('=')
                .ok_or_else(|| OptionsError::value(part, "nothing", "name=value"))?;
            options.set(name.trim(), value.trim())?;
        }
        if options.keys() < options.tenants {
            return Err(OptionsError::KeysBelowTenants {
                keys: options.keys(),
                tenants: options.tenants,
            });
        }
        Ok(options)
    }
}

/// An option that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// There is no such option.
    #[error("generator option `{name}` does not exist; there are: {}", Options::HELP)]
    Unknown {
        /// The name given.
        name: String,
    },
    /// The value does not fit.
    #[error("generator option `{name}`: {found} is not {expected}")]
    Value {
        /// The option.
        name: String,
        /// What was given, quoted.
        found: String,
        /// What it should have been.
        expected: String,
    },
    /// Every tenant has at least one user.
    #[error("generator option `keys`: {keys} users cannot belong to {tenants} tenants; give at least as many")]
    KeysBelowTenants {
        /// Users asked for.
        keys: u64,
        /// Tenants asked for.
        tenants: u64,
    },
}

impl OptionsError {
    fn value(name: &str, found: &str, expected: &str) -> Self {
        Self::Value {
            name: name.to_owned(),
            found: format!("{found:?}"),
            expected: expected.to_owned(),
        }
    }
}

fn number(name: &str, value: &str, least: u64, most: u64) -> Result<u64, OptionsError> {
    let error = || {
        let range = if most == u64::MAX {
            format!("of at least {least}")
        } else {
            format!("from {least} to {most}")
        };
        OptionsError::value(name, value, &format!("a whole number {range}"))
    };
    let number: u64 = value.replace('_', "").parse().map_err(|_| error())?;
    if (least..=most).contains(&number) {
        Ok(number)
    } else {
        Err(error())
    }
}

/// A share such as `0.02`, in millionths.
fn share(name: &str, value: &str) -> Result<u64, OptionsError> {
    let error = || OptionsError::value(name, value, "a share from 0 to 1 with at most 6 decimals, such as 0.02");
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 6 || !digits(whole) || !digits(fraction) {
        return Err(error());
    }
    let whole: u64 = whole.parse().map_err(|_| error())?;
    let millionths: u64 = format!("{fraction:0<6}").parse().map_err(|_| error())?;
    match whole {
        0 => Ok(millionths),
        1 if millionths == 0 => Ok(1_000_000),
        _ => Err(error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_read() {
        let text = "events=5,rate=2,seed=3,tenants=4,models=5,keys=6,disorder=7,late=0.02,bad=0.000001,hot=1,\
                    start=1970-01-01T00:00:01Z,live=true";
        let expected = Options {
            events: 5,
            rate: 2,
            seed: 3,
            tenants: 4,
            models: 5,
            keys: Some(6),
            disorder_ms: 7,
            late_per_million: 20_000,
            bad_per_million: 1,
            hot_per_million: 1_000_000,
            start_ms: 1_000,
            start_given: true,
            live: true,
        };
        assert_eq!(text.parse(), Ok(expected));
        assert_eq!("".parse(), Ok(Options::default()));
        assert_eq!("events=1_000".parse::<Options>().unwrap().events, 1_000);
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        for (text, named) in [
            ("speed=3", "`speed` does not exist"),
            ("events", "`events`: \"nothing\" is not name=value"),
            ("events=-1", "`events`: \"-1\" is not a whole number of at least 0"),
            ("rate=0", "`rate`: \"0\" is not a whole number from 1 to"),
            ("late=1.5", "`late`: \"1.5\" is not a share"),
            ("late=.5", "`late`"),
            ("bad=0.0000001", "`bad`"),
            ("hot=x", "`hot`"),
            ("start=yesterday", "`start`: \"yesterday\" is not an RFC 3339"),
            ("live=1", "`live`: \"1\" is not true or false"),
            ("keys=3,tenants=4", "`keys`: 3 users cannot belong to 4 tenants"),
        ] {
            let message = text.parse::<Options>().unwrap_err().to_string();
            assert!(message.contains(named), "{text}: {message}");
        }
    }
}
