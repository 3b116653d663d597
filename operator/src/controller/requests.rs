//! What people ask for by annotations of an aggregation, read and judged. Pure.
//! Must not hold what is done about it (`plan`).

use std::collections::BTreeMap;

use crate::labels;

/// Longest id of a checkpoint that is asked for; it goes into the names of objects.
const CHECKPOINT_ID_LENGTH_MAX: usize = 63;
/// Longest text that asks for a restart.
const RESTART_LENGTH_MAX: usize = 256;

/// Annotations that have a meaning in a later version, and what serves until then.
const NOT_YET: [(&str, &str); 3] = [
    (
        "promote",
        "there are no canaries in this version; a new revision counts as stable by itself (spec.upgrade.stabilization)",
    ),
    (
        "abort",
        "a rollout is given up by putting the spec back to what it was before",
    ),
    ("fence", "set spec.suspend to true to stop every task"),
];

/// Requests by annotation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Id of the checkpoint asked for.
    pub checkpoint: Option<String>,
    /// Any text; another one asks for another restart.
    pub restart: Option<String>,
    /// Annotations under our prefix that are not acted on, and what would be right.
    pub problems: Vec<String>,
}

/// Reads the annotations of an aggregation.
pub fn read(annotations: Option<&BTreeMap<String, String>>) -> Requests {
    let mut requests = Requests::default();
    for (key, value) in annotations.into_iter().flatten() {
        let Some(name) = key.strip_prefix(labels::PREFIX) else {
            continue;
        };
        if let Err(problem) = take(key, name, value, &mut requests) {
            requests.problems.push(format!("annotation {key}: {problem}"));
        }
    }
    requests
}

fn take(key: &str, name: &str, value: &str, requests: &mut Requests) -> Result<(), String> {
    match key {
        labels::PAUSED if matches!(value, "true" | "false") => Ok(()),
        labels::PAUSED => Err(format!("found {value:?}; say \"true\", or remove it")),
        labels::CHECKPOINT if is_checkpoint_id(value) => {
            requests.checkpoint = Some(value.to_owned());
            Ok(())
        }
        labels::CHECKPOINT => Err(format!(
            "found {value:?}; give the checkpoint an id of 1 to {CHECKPOINT_ID_LENGTH_MAX} letters, digits, '-', '_' or '.'"
        )),
        labels::RESTART if (1..=RESTART_LENGTH_MAX).contains(&value.len()) => {
            requests.restart = Some(value.to_owned());
            Ok(())
        }
        labels::RESTART => Err(format!(
            "found {} bytes; say any text of 1 to {RESTART_LENGTH_MAX} bytes that is new, such as the time",
            value.len()
        )),
        _ => Err(match NOT_YET.iter().find(|(known, _)| *known == name) {
            Some((_, instead)) => format!("not supported yet: {instead}; remove it"),
            None => "unknown; known are paused, checkpoint and restart; remove it".to_owned(),
        }),
    }
}

fn is_checkpoint_id(value: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=CHECKPOINT_ID_LENGTH_MAX).contains(&value.len()) && value.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(key: &str, value: &str) -> Requests {
        read(Some(&[(key.to_owned(), value.to_owned())].into()))
    }

    #[test]
    fn what_is_understood_is_taken_and_annotations_of_others_are_theirs() {
        assert_eq!(read(None), Requests::default());
        assert_eq!(of("kubectl.kubernetes.io/restartedAt", "now"), Requests::default());
        assert_eq!(of(labels::PAUSED, "false"), Requests::default());
        assert_eq!(
            of(labels::CHECKPOINT, "before-1.2").checkpoint.as_deref(),
            Some("before-1.2")
        );
        assert_eq!(
            of(labels::RESTART, "2026-01-01T00:00:00Z").restart.as_deref(),
            Some("2026-01-01T00:00:00Z")
        );
    }

    #[test]
    fn each_misuse_is_named_with_what_would_be_right() {
        for (key, value, right) in [
            (labels::PAUSED, "yes", "say \"true\""),
            (labels::CHECKPOINT, "a b", "letters, digits"),
            (labels::CHECKPOINT, "", "letters, digits"),
            (labels::RESTART, "", "any text"),
            ("streamagg.io/promote", "", "spec.upgrade.stabilization"),
            ("streamagg.io/abort", "", "putting the spec back"),
            ("streamagg.io/fence", "", "spec.suspend"),
            ("streamagg.io/pause", "true", "known are paused"),
        ] {
            let found = of(key, value);
            assert_eq!((found.checkpoint, found.restart), (None, None));
            let [problem] = &found.problems[..] else {
                panic!("{key}={value}: {:?}", found.problems)
            };
            assert!(problem.contains(key) && problem.contains(right), "{problem}");
        }
    }
}
