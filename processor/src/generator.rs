//! Deterministic LLM traffic, one JSON object a line: the same options give the same bytes on every machine and in
//! every release of the same major version (a test pins their hash). Integer arithmetic only, for that reason.
//! Must not: read a clock, sleep, or know where the lines go. Nothing in the engine knows these fields.

mod event;
mod options;
mod random;

pub use options::{Options, OptionsError};

use event::{Defect, Event};
use random::Random;

/// Late events lie this long behind the newest possible event time, at least.
const LATE_BY_MS_MIN: u64 = 300_000;
/// Spread of the lateness above its minimum.
const LATE_SPREAD_MS: u64 = 300_000;

/// A stream of events, in the order in which they arrive.
#[derive(Clone, Debug)]
pub struct Generator {
    options: Options,
    random: Random,
    produced: u64,
}

impl Generator {
    /// A generator at its first event.
    pub fn new(options: Options) -> Self {
        let random = Random::new(options.seed);
        Self {
            options,
            random,
            produced: 0,
        }
    }

    /// Events produced so far.
    pub fn produced(&self) -> u64 {
        self.produced
    }

    /// Appends the next event and a newline. False, with nothing appended, after the last event.
    pub fn next_into(&mut self, line: &mut Vec<u8>) -> bool {
        if self.options.events != 0 && self.produced >= self.options.events {
            return false;
        }
        let event = self.draw();
        event.write(line);
        line.push(b'\n');
        self.produced += 1;
        true
    }

    /// One event: who asks, when, and how it went. The order of the draws is part of the pinned format.
    fn draw(&mut self) -> Event {
        let options = &self.options;
        let random = &mut self.random;
        let keys = options.keys();
        let hot = random.chance(options.hot_per_million);
        let user = if hot { 0 } else { random.below(keys) };
        // The smaller of two draws: earlier models are asked more often, as in life.
        let model = random.below(options.models).min(random.below(options.models));
        let late = random.chance(options.late_per_million);
        let behind_ms = random.below(options.disorder_ms + 1)
            + if late {
                options.disorder_ms + LATE_BY_MS_MIN + random.below(LATE_SPREAD_MS)
            } else {
                0
            };
        let bad = random.chance(options.bad_per_million);
        let defect = if bad {
            Some(Defect::nth(random.below(Defect::COUNT)))
        } else {
            None
        };
        // u128: events × 10^3 passes 2^64 only after 5 × 10^8 years of this, but the options allow it.
        let elapsed_ms = u128::from(self.produced) * 1_000 / u128::from(options.rate);
        let elapsed_ms = i64::try_from(elapsed_ms).unwrap_or(i64::MAX / 4);
        let timestamp_ms = options
            .start_ms
            .saturating_add(elapsed_ms)
            .saturating_sub_unsigned(behind_ms);
        Event::draw(random, timestamp_ms, user, user % options.tenants, model, defect)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sha2::{Digest, Sha256};

    use super::*;

    fn lines(options: &str) -> Vec<u8> {
        let mut generator = Generator::new(options.parse().unwrap());
        let mut bytes = Vec::new();
        while generator.next_into(&mut bytes) {}
        bytes
    }

    fn parsed(options: &str) -> Vec<serde_json::Value> {
        lines(options)
            .split(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect()
    }

    #[test]
    fn the_same_options_give_the_same_bytes_for_ever() {
        let plain = hex::encode(Sha256::digest(lines("events=10000,seed=7")));
        assert_eq!(
            plain,
            "7cbfbd36b58ccda0723657dac4906be6e151073628b40d3eb3e9985bc5edb4c9"
        );
        let mixed = "events=10000,seed=7,rate=100000,disorder=2000,late=0.02,bad=0.01,hot=0.5,tenants=40,models=9";
        assert_eq!(
            hex::encode(Sha256::digest(lines(mixed))),
            "49c1af0dbe67826083f2032469942581935b4639ea7dcf99c4cb3923c162829c"
        );
    }

    #[test]
    fn another_seed_gives_other_events() {
        assert_ne!(lines("events=10,seed=1"), lines("events=10,seed=2"));
    }

    #[test]
    fn an_event_is_about_525_bytes_of_json() {
        let bytes = lines("events=5000");
        assert_eq!(parsed("events=5000").len(), 5000);
        assert!(
            (515..=535).contains(&(bytes.len() / 5000)),
            "{} bytes an event",
            bytes.len() / 5000
        );
    }

    #[test]
    fn event_time_follows_the_rate_within_the_disorder() {
        let events = parsed("events=3000,rate=1000,disorder=500,start=2026-01-01T00:00:10Z");
        let times: Vec<&str> = events.iter().map(|event| event["ts"].as_str().unwrap()).collect();
        assert!(
            times
                .iter()
                .all(|time| *time >= "2026-01-01T00:00:09.500Z" && *time < "2026-01-01T00:00:13.000Z")
        );
        assert!(times.windows(2).any(|pair| pair[0] > pair[1]), "disorder must show");
        let ordered = parsed("events=3000,rate=1000");
        assert_eq!(ordered[2999]["ts"], "2026-01-01T00:00:02.999Z");
    }

    #[test]
    fn tenants_models_keys_and_the_hot_share_are_as_asked() {
        let events = parsed("events=20000,tenants=4,models=3,keys=50,hot=0.6");
        let distinct = |field: &str| {
            events
                .iter()
                .map(|event| event[field].to_string())
                .collect::<BTreeSet<_>>()
                .len()
        };
        assert_eq!((distinct("tenant"), distinct("model"), distinct("user")), (4, 3, 50));
        let hot = events.iter().filter(|event| event["user"] == "user-000000").count();
        assert!(
            (11_800..=12_600).contains(&hot),
            "{hot} of 20000 events have the hot key"
        );
    }

    #[test]
    fn late_and_bad_shares_are_as_asked() {
        let events = parsed("events=20000,late=0.1,start=2026-01-01T01:00:00Z,rate=1000000");
        let late = events
            .iter()
            .filter(|event| event["ts"].as_str().unwrap() < "2026-01-01T00:55:01Z")
            .count();
        assert!((1_800..=2_200).contains(&late), "{late} of 20000 late");
        let whole = |event: &serde_json::Value| {
            event["ts"].as_str().is_some_and(|time| time.starts_with("2026"))
                && event["tenant"].is_string()
                && event["latency_ms"].is_number()
        };
        let good = parsed("events=20000,bad=0.1")
            .iter()
            .filter(|event| whole(event))
            .count();
        assert!((17_800..=18_200).contains(&good), "{good} of 20000 good");
    }
}
