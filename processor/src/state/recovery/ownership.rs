//! Who may initialise a task's producer and what follows a fence or an unknown outcome.
//! Must not hold: the broker, or how long a wait really lasts.

use std::time::Duration;

use streamagg_crds::assignment::Assignment;

use super::position::Position;

/// First wait of a fenced task before it initialises again.
pub const FENCE_BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// Longest such wait.
pub const FENCE_BACKOFF_LONGEST: Duration = Duration::from_secs(60);

/// Whether `offered` replaces the assignment in hand: generations only rise.
pub fn takes(in_hand: &Assignment, offered: &Assignment) -> bool {
    offered.generation > in_hand.generation
}

/// Whether `ordinal` may initialise or close an epoch of `task`: only while the assignment in hand names it.
pub fn is_named(assignment: &Assignment, task: u32, ordinal: u32) -> bool {
    assignment.generation > 0 && assignment.tasks.get(&task) == Some(&ordinal)
}

/// What a fenced task does, after reading K without initialising.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterFence {
    /// A later owner exists: wait for an assignment of at least this generation, or for one that does not name this pod.
    Release {
        /// Generation of K.
        generation: u64,
    },
    /// Nobody of a higher generation committed: a twin of this pod, or a restart. Back off, then start up again.
    BackOff,
}

/// Decides after a fence: `committed` is K as read without initialising.
pub fn after_fence(committed: Option<&Position>, own_generation: u64) -> AfterFence {
    match committed {
        Some(position) if position.generation > own_generation => AfterFence::Release {
            generation: position.generation,
        },
        Some(_) | None => AfterFence::BackOff,
    }
}

/// The wait before attempt `attempt` (0 is the first), doubling, with the upper half random: two twins that wait
/// equally long would fence each other for ever. `random` is any 64 random bits.
pub fn fence_backoff(attempt: u32, random: u64) -> Duration {
    let doubled = FENCE_BACKOFF_FIRST
        .saturating_mul(1_u32 << attempt.min(16))
        .min(FENCE_BACKOFF_LONGEST);
    let half_ms = u64::try_from(doubled.as_millis() / 2).unwrap_or(u64::MAX).max(1);
    Duration::from_millis(half_ms + random % half_ms)
}

/// What follows a commit whose outcome is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterUnknown {
    /// The assignment no longer names this pod: leave without initialising.
    Release,
    /// It was committed: apply it to local state and go on.
    Committed,
    /// It was not: send the same epoch again.
    SendAgain,
    /// Somebody else committed, or K is not what it should be: full start-up.
    StartUp,
}

/// Decides after an unknown outcome, once initialised again and with K read: the *whole* position is compared.
pub fn after_unknown(
    named: bool,
    committed: Option<&Position>,
    sent: &Position,
    built_on: Option<&Position>,
) -> AfterUnknown {
    if !named {
        return AfterUnknown::Release;
    }
    if committed == Some(sent) {
        AfterUnknown::Committed
    } else if committed == built_on {
        AfterUnknown::SendAgain
    } else {
        AfterUnknown::StartUp
    }
}

#[cfg(test)]
mod tests;
