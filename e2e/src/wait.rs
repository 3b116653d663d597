//! Waiting for a condition with a deadline; what was seen last is told when it passes.
//! The only place of the suites that pauses. Must not decide what is waited for.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// How long to pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What one look saw.
#[derive(Debug)]
pub enum Seen<T> {
    /// The condition holds.
    Done(T),
    /// Not yet; what there was instead.
    NotYet(String),
}

/// Looks until the condition holds.
///
/// # Errors
/// After `deadline`: what was awaited and what was seen last.
pub fn await_condition<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Seen<T>) -> Result<T, String> {
    let started = Instant::now();
    loop {
        let seen = match look() {
            Seen::Done(value) => return Ok(value),
            Seen::NotYet(seen) => seen,
        };
        if started.elapsed() >= deadline {
            return Err(format!("waited {} s for {what}; last seen: {seen}", deadline.as_secs()));
        }
        pause(LOOK_AGAIN);
    }
}

/// Lets this thread rest: the pause between two looks, or the random time before a fault.
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// For looks that may fail in passing: a failure is something seen.
pub fn or_not_yet<T, E: Display>(result: Result<T, E>) -> Seen<T> {
    match result {
        Ok(value) => Seen::Done(value),
        Err(error) => Seen::NotYet(error.to_string()),
    }
}
