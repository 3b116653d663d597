//! Named places at which a test ends the process as a crash would, at once, nothing flushed, nothing dropped; and two
//! where a commit's outcome gets lost on the way.
//! Must not read the environment; the binary hands the setting in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// All records of an epoch are sent, the commit is not asked for.
    BeforeCommit,
    /// The commit succeeded, local state does not know.
    AfterCommitBeforeState,
    /// The claim of a new generation is committed.
    AfterClaim,
    /// A new lineage is committed, local state does not know.
    AfterFork,
    /// A checkpoint that the user goes back to is fetched and verified, the committed position is what it was.
    BeforeRewind,
    /// The rewind is committed, local state does not know.
    AfterRewind,
    /// Part of a replay is in local state.
    MidReplay,
    /// Files of a checkpoint are in the store, its manifest is not.
    MidCheckpointUpload,
    /// A checkpoint is complete.
    AfterManifest,
    /// An epoch is not sent at all, and the task does not know that.
    RequestLost,
    /// An epoch is committed, and the task does not know that.
    AnswerLost,
}

impl Place {
    /// All places.
    pub const ALL: [Self; 11] = [
        Self::BeforeCommit,
        Self::AfterCommitBeforeState,
        Self::AfterClaim,
        Self::AfterFork,
        Self::BeforeRewind,
        Self::AfterRewind,
        Self::MidReplay,
        Self::MidCheckpointUpload,
        Self::AfterManifest,
        Self::RequestLost,
        Self::AnswerLost,
    ];

    /// Its name in the setting.
    pub fn name(self) -> &'static str {
        match self {
            Self::BeforeCommit => "before-commit",
            Self::AfterCommitBeforeState => "after-commit-before-state",
            Self::AfterClaim => "after-claim",
            Self::AfterFork => "after-fork",
            Self::BeforeRewind => "before-rewind",
            Self::AfterRewind => "after-rewind",
            Self::MidReplay => "mid-replay",
            Self::MidCheckpointUpload => "mid-checkpoint-upload",
            Self::AfterManifest => "after-manifest",
            Self::RequestLost => "request-lost",
            Self::AnswerLost => "answer-lost",
        }
    }
}

/// Which place is struck, if one is, and at which pass.
#[derive(Clone, Debug, Default)]
pub struct Failpoints {
    armed: Option<(Place, Arc<AtomicU64>)>,
}

impl Failpoints {
    /// Parses `name` or `name:n` (the n-th pass).
    pub fn parse(setting: &str) -> Result<Self, String> {
        let (name, pass) = setting.split_once(':').unwrap_or((setting, "1"));
        let place = Place::ALL.into_iter().find(|place| place.name() == name);
        let passes = pass.parse::<u64>().ok().filter(|passes| *passes > 0);
        match (place, passes) {
            (Some(place), Some(passes)) => Ok(Self {
                armed: Some((place, Arc::new(AtomicU64::new(passes)))),
            }),
            (None, _) => {
                let names: Vec<&str> = Place::ALL.iter().map(|place| place.name()).collect();
                Err(format!(
                    "failpoint {name:?} is not known; known are {}",
                    names.join(", ")
                ))
            }
            (Some(_), None) => Err(format!("failpoint {setting:?}: the pass must be a number from 1 on")),
        }
    }

    /// Passes `place`; ends the process if it is armed and this is the pass.
    pub fn pass(&self, place: Place) {
        if self.strikes(place) {
            tracing::error!(place = place.name(), "failpoint reached: the process aborts");
            std::process::abort();
        }
    }

    /// Passes `place`; whether it is armed and this is the pass.
    pub fn strikes(&self, place: Place) -> bool {
        self.armed
            .as_ref()
            .is_some_and(|(armed, passes)| *armed == place && passes.fetch_sub(1, Ordering::SeqCst) == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_name_a_place_and_a_pass() {
        for place in Place::ALL {
            assert!(Failpoints::parse(place.name()).is_ok());
        }
        assert!(Failpoints::parse("before-commit:3").is_ok());
        assert!(Failpoints::parse("nowhere").is_err_and(|error| error.contains("before-commit")));
        assert!(Failpoints::parse("before-commit:0").is_err());
        let unarmed = Failpoints::default();
        unarmed.pass(Place::BeforeCommit);
        let third = Failpoints::parse("before-commit:3").expect("parses");
        third.pass(Place::BeforeCommit);
        third.pass(Place::AfterClaim);
        third.pass(Place::BeforeCommit);
        let second = Failpoints::parse("answer-lost:2").expect("parses");
        let struck: Vec<bool> = (0..3).map(|_| second.strikes(Place::AnswerLost)).collect();
        assert_eq!(struck, [false, true, false]);
    }
}
