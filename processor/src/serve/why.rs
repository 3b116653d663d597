//! Why a window has not fired in a task: facts in, a verdict and a sentence out. Pure.
//! Must not hold: how facts are gathered.

use serde::Serialize;

/// How a window stands in a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// The watermark passed its end: it has fired, for the keys with events in it, and takes late ones.
    Ended,
    /// It is over; its state is forgotten.
    Closed,
    /// The partition never had an event: there is no watermark.
    NoWatermark,
    /// Records wait to be read that may carry the watermark on.
    Behind,
    /// Everything is read; an event that carries the watermark on has yet to come.
    AwaitsEvents,
    /// It has no end: only its trigger makes it fire.
    Endless,
}

/// What is known of a window in a task. Times are ms since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The source partition that time waits for: the task's own or, with two stages, the slowest, once any was heard of.
    pub partition: Option<u32>,
    /// Whether the task is of the second of two stages.
    pub after_shuffle: bool,
    /// First ms behind the window.
    pub end_ms: i64,
    /// When it is forgotten.
    pub closes_ms: i64,
    /// Keys with events in it.
    pub keys: u64,
    /// The task's watermark.
    pub watermark_ms: Option<i64>,
    /// Time of the event that lets the watermark reach the end; absent where a mark has to.
    pub reached_by_ms: Option<i64>,
    /// Records not committed yet, once known.
    pub lag: Option<i64>,
    /// How long ago the last committed record was appended, once one was.
    pub silent_ms: Option<i64>,
    /// `event.idle.after`, if idle partitions advance.
    pub idle_after_ms: Option<i64>,
}

/// The verdict, and what holds the window in words.
pub fn judge(facts: &Facts) -> (Verdict, String) {
    let keys = match facts.keys {
        0 => "no key of this task has events in it, so it puts out nothing here".to_owned(),
        keys => format!("{keys} keys of this task have events in it"),
    };
    if facts.end_ms == i64::MAX {
        let words = format!("it has no end and fires by its trigger only; {keys}");
        return (Verdict::Endless, words);
    }
    let Some(watermark_ms) = facts.watermark_ms else {
        let words = match facts.partition {
            Some(partition) => {
                format!("partition {partition} has had no event yet, so that it has no watermark; {keys}")
            }
            None => format!("nothing has come from the first stage yet, so that there is no watermark; {keys}"),
        };
        return (Verdict::NoWatermark, words);
    };
    if watermark_ms >= facts.closes_ms {
        let words = "it is over: it fired for every key with events in it, and its state is forgotten".to_owned();
        return (Verdict::Closed, words);
    }
    if watermark_ms >= facts.end_ms {
        let words = format!(
            "the watermark passed its end: it has fired where its trigger says onTime, and takes late events for \
             another {} ms of event time; {keys}",
            facts.closes_ms - watermark_ms
        );
        return (Verdict::Ended, words);
    }
    let missing_ms = facts.end_ms - watermark_ms;
    let awaited = match facts.reached_by_ms {
        Some(time_ms) => format!("an event of time {time_ms} or later"),
        None => format!("an event with a mark of {} or later", facts.end_ms),
    };
    let (slowest, every) = match facts.after_shuffle {
        true => (", the slowest of all,", " in every partition that is behind"),
        false => ("", ""),
    };
    let partition = facts
        .partition
        .map_or(String::new(), |partition| format!(" of partition {partition}"));
    let held = format!(
        "the watermark{partition}{slowest} is {missing_ms} ms before its end, and {awaited}{every} carries it there; {keys}"
    );
    match facts.lag {
        Some(lag) if lag > 0 => (
            Verdict::Behind,
            format!(
                "{held}; {lag} records{} wait to be read, so it may be among them",
                between(facts)
            ),
        ),
        _ => (Verdict::AwaitsEvents, format!("{held}; {}", silence(facts))),
    }
}

fn between(facts: &Facts) -> &'static str {
    if facts.after_shuffle { " between the stages" } else { "" }
}

fn silence(facts: &Facts) -> String {
    let between = between(facts);
    let last = match facts.silent_ms {
        Some(silent_ms) => format!("every record{between} is read, the last was appended {silent_ms} ms ago"),
        None => format!("every record{between} is read, none since this pod started"),
    };
    match facts.idle_after_ms {
        Some(after_ms) => format!("{last}; after {after_ms} ms of silence event.idle carries the watermark on"),
        None => format!("{last}; a partition without events holds its windows, for event.idle is not declared"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts = Facts {
        partition: Some(3),
        after_shuffle: false,
        end_ms: 1_000,
        closes_ms: 1_500,
        keys: 2,
        watermark_ms: Some(400),
        reached_by_ms: Some(1_100),
        lag: Some(0),
        silent_ms: Some(70),
        idle_after_ms: None,
    };

    #[test]
    fn each_way_to_stand_has_a_verdict_and_says_what_is_waited_for() {
        let at = |watermark_ms| Facts {
            watermark_ms: Some(watermark_ms),
            ..FACTS
        };
        for (facts, verdict, parts) in [
            (
                FACTS,
                Verdict::AwaitsEvents,
                [
                    "partition 3 is 600 ms before",
                    "of time 1100",
                    "70 ms ago; a partition without events holds",
                ],
            ),
            (
                Facts { lag: Some(5), ..FACTS },
                Verdict::Behind,
                ["600 ms", "2 keys", "5 records wait"],
            ),
            (
                Facts {
                    idle_after_ms: Some(30_000),
                    reached_by_ms: None,
                    ..FACTS
                },
                Verdict::AwaitsEvents,
                ["a mark of 1000", "70 ms ago", "after 30000 ms of silence event.idle"],
            ),
            (
                Facts {
                    watermark_ms: None,
                    keys: 0,
                    ..FACTS
                },
                Verdict::NoWatermark,
                ["partition 3", "no event yet", "no key of this task"],
            ),
            (
                at(1_000),
                Verdict::Ended,
                ["passed its end", "another 500 ms", "2 keys"],
            ),
            (at(1_500), Verdict::Closed, ["over", "fired", "forgotten"]),
            (
                Facts {
                    end_ms: i64::MAX,
                    ..FACTS
                },
                Verdict::Endless,
                ["no end", "trigger", "2 keys"],
            ),
        ] {
            says(&facts, verdict, parts);
        }
    }

    #[test]
    fn behind_the_first_of_two_stages_the_slowest_partition_is_named() {
        for (facts, verdict, parts) in [
            (
                Facts {
                    after_shuffle: true,
                    lag: Some(5),
                    ..FACTS
                },
                Verdict::Behind,
                [
                    "of partition 3, the slowest of all, is 600 ms",
                    "in every partition that is behind",
                    "5 records between the stages wait",
                ],
            ),
            (
                Facts {
                    after_shuffle: true,
                    partition: None,
                    watermark_ms: None,
                    ..FACTS
                },
                Verdict::NoWatermark,
                ["first stage yet", "no watermark", "2 keys"],
            ),
        ] {
            says(&facts, verdict, parts);
        }
    }

    fn says(facts: &Facts, verdict: Verdict, parts: [&str; 3]) {
        let (found, words) = judge(facts);
        assert_eq!(found, verdict, "{words}");
        for part in parts {
            assert!(words.contains(part), "{part:?} is not in {words:?}");
        }
    }
}
